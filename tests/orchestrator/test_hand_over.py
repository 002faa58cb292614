"""What planes of one process have for each other goes past the broker, and nothing is lost by that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tickwork import Graph, human
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.clock import SystemClock
from tickwork.errors import StorageError
from tickwork.model import messages
from tickwork.orchestrator import serving
from tickwork.orchestrator.serving import Serving
from tickwork.ports import BusMessage, Clock, EventBus
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

TOPIC = "control-plane.acme"


class Shared(Profile, frozen=True, kw_only=True):
    """The test profile, as if other processes could be at the same bus and store."""

    bus: Any = None

    @property
    def alone(self) -> bool:
        return False

    def open_bus(self, _clock: Clock) -> EventBus:
        return self.bus


class Hand(SystemClock):
    """A clock whose sleeps pass at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def joined(bus: MemoryBus) -> Serving[str]:
    one: Serving[str] = Serving(bus, "control-plane", Hand())
    await one.start()
    await bus.publish(TOPIC, [])  # the topic is there from now on
    return one


class Taker:
    """Handles what was offered; refuses the first so many batches."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.got: list[str] = []

    async def __call__(self, batch: Sequence[str]) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise StorageError("the store is away")
        self.got += batch


async def test_what_is_offered_is_handled_in_order_and_once_the_store_takes_it() -> None:
    one, take = await joined(MemoryBus()), Taker(refusals=2)
    assert all(one.offer(TOPIC, "k", item) for item in "abc")
    assert one.depth() == one.offered() == 3
    running = asyncio.ensure_future(one.run_offered(take))
    while one.offered():  # noqa: ASYNC110 - until all of it is handled
        await asyncio.sleep(0)
    assert one.offer(TOPIC, "k", "d")
    await one.stop()
    await running
    assert take.got == list("abcd")
    assert (one.taken, one.retried, one.depth()) == (4, 2, 0)


async def test_a_store_that_is_away_is_told_in_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    one = await joined(MemoryBus())
    assert one.offer(TOPIC, "k", "a")
    await one.stop()
    await one.run_offered(Taker(refusals=7))
    assert one.retried == 7
    begun, over = caplog.messages
    assert begun == "the loop of control-plane does not work; it is tried again and again: the store is away"
    assert over.startswith("the loop of control-plane works again, after ")


async def test_keys_of_others_go_by_the_bus() -> None:
    bus = MemoryBus()
    one, two = await joined(bus), await joined(bus)
    keys = [f"key{n}" for n in range(20)]
    mine = [key for key in keys if one.offer(TOPIC, key, key)]
    theirs = [key for key in keys if two.offer(TOPIC, key, key)]
    assert mine
    assert theirs
    assert sorted(mine + theirs) == sorted(keys)


async def test_who_stops_takes_no_more_and_ends_with_what_it_has() -> None:
    one, take = await joined(MemoryBus()), Taker()
    assert one.offer(TOPIC, "k", "a")
    await one.stop()
    assert not one.offer(TOPIC, "k", "b")
    await one.run_offered(take)
    assert take.got == ["a"]


async def test_no_more_is_held_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "OFFERED", 3)
    one = await joined(MemoryBus())
    assert [one.offer(TOPIC, "k", str(n)) for n in range(5)] == [True, True, True, False, False]


def told(bus: Any) -> list[BusMessage]:
    """What the Control Plane was told over this bus."""
    found: list[BusMessage] = []
    real = bus.publish

    async def publish(topic: str, batch: Sequence[BusMessage]) -> None:
        if topic.startswith(messages.CONTROL_PLANE):
            found.extend(batch)
        await real(topic, batch)

    bus.publish = publish
    return found


@pytest.mark.parametrize("hand_over", [True, False])
async def test_a_lifetime_in_one_process_needs_no_reference_on_the_bus(hand_over: bool) -> None:
    graph = Graph("asking").start(human("ask", prompt="?")).final("ask").bind()
    profile = msgspec.structs.replace(Shared.test(), bus=MemoryBus())
    references = told(profile.bus)
    async with Runtime(profile, hand_over=hand_over) as runtime:
        await runtime.bind(graph)
        runtime.all_bound()
        lifetime = await runtime.service.start("asking")
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id, until="settled"))
        await runtime.service.answer(lifetime.lifetime_id, "yes")
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        assert (await runtime.service.result(lifetime.lifetime_id)).result == "yes"
        counted = runtime.metrics()
        await runtime.drain(5)
    assert bool(references) is not hand_over
    assert bool(counted.get("control_plane_handed_over")) is hand_over
    assert counted["control_plane_offered"] == 0
