"""The bus inside one process keeps the promises of the port."""

from __future__ import annotations

import asyncio

import pytest

from tickwork.adapters.bus import memory
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.errors import StorageError, UsageError
from tickwork.ports import BusMessage
from tickwork.testing.conformance import EventBusConformance


class TestMemoryBus(EventBusConformance):
    async def open(self) -> MemoryBus:
        return MemoryBus()


async def test_closing_wakes_the_one_who_waits() -> None:
    bus = MemoryBus()
    member = await bus.subscribe(["t"], "g")
    waiting = asyncio.ensure_future(member.receive(1))
    await asyncio.sleep(0)
    await bus.stop()
    assert await waiting == []
    with pytest.raises(StorageError, match="closed"):
        await member.receive(1)


async def test_two_receivers_of_one_subscription_are_refused() -> None:
    bus = MemoryBus()
    member = await bus.subscribe(["t"], "g")
    waiting = asyncio.ensure_future(member.receive(1))
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="two coroutines"):
        await member.receive(1)
    waiting.cancel()


async def test_a_deserted_group_keeps_a_bounded_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PARKED_LIMIT", 3)
    bus = MemoryBus()
    await (await bus.subscribe(["t"], "g")).close()
    await bus.publish("t", [BusMessage("k", b"%d" % n) for n in range(5)])
    assert bus.depth("t", "g") == 3
    member = await bus.subscribe(["t"], "g")
    assert [d.message.value for d in await member.receive(9)] == [b"2", b"3", b"4"]


async def test_a_watcher_leaves_nothing_behind() -> None:
    bus = MemoryBus()
    for _ in range(100):
        member = await bus.subscribe(["t.*"], "")
        await bus.publish("t.a", [BusMessage("k", b"1")])
        await member.close()
    await bus.publish("t.a", [BusMessage("k", b"1")])
    assert not bus._groups
    assert not bus._members
    assert bus._routes == {"t.a": []}
