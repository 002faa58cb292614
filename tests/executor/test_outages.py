"""A blob store that is away: no call fails of it, and no result is made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.executor.rig import Rig, rig
from tickwork.errors import StorageError, StorageFull
from tickwork.executor.payloads import FETCH_PATIENCE, STORE_PATIENCE
from tickwork.model import messages
from tickwork.model.claims import claim_key
from tickwork.model.graph import TimeLimits
from tickwork.model.records import Execution, Payload
from tickwork.sdk.nodes import task
from tickwork.testing.virtual import VirtualClock, run_virtual

AWAY = StorageError("the blob store is away")
calls: list[str] = []


@pytest.fixture(autouse=True)
def nobody_called() -> None:
    calls.clear()


@task(limits=TimeLimits(start_to_close=10, heartbeat=5))
async def large() -> str:
    calls.append("large")
    return "x" * 2_000_000


@task
def large_sync() -> str:
    calls.append("large_sync")
    return "x" * 2_000_000


@task
async def length(data: bytes) -> int:
    calls.append("length")
    return len(data)


@task(effect="at_most_once")
def length_once(data: bytes) -> int:
    calls.append("length_once")
    return len(data)


def play(scene: Callable[[Rig], Awaitable[None]], *nodes: Any, **options: Any) -> None:
    async def main() -> None:
        async with rig(*nodes, clock=VirtualClock(asyncio.get_running_loop()), **options) as r:
            await scene(r)

    run_virtual(main())


@pytest.mark.parametrize("node", ["large", "large_sync"])
def test_a_result_waits_for_the_blob_store_and_its_code_is_called_once(node: str) -> None:
    async def scene(r: Rig) -> None:
        r.blobs.away = AWAY
        await r.send(r.message(node))
        await r.clock.sleep(300)
        assert calls == [node]
        assert r.blobs.asked < 50
        assert await r.kv.get(claim_key(r.message(node).exec_id)) is not None, "it is claimed all the time"
        r.blobs.away = None
        (record,) = await r.receive()
        assert (record.status, record.attempt) == ("SUCCEEDED", 1)
        assert record.result is not None
        assert record.result.uri is not None
        assert calls == [node]

    play(scene, large, large_sync, threads=0)


def test_a_result_that_cannot_be_stored_for_long_is_a_lost_attempt_and_no_failed_one() -> None:
    async def scene(r: Rig) -> None:
        r.blobs.away = AWAY
        record = await r.call("large")
        assert record.error is not None
        assert (record.status, record.error.type) == ("TIMED_OUT", "LeaseExpired")
        assert "the blob store did not serve `large`" in record.error.message
        assert STORE_PATIENCE - 60 < r.clock.monotonic() < STORE_PATIENCE + 1

    play(scene, large)


def test_a_store_that_is_full_fails_the_attempt_at_once() -> None:
    async def scene(r: Rig) -> None:
        r.blobs.away = StorageFull("no space left")
        record = await r.call("large")
        assert record.error is not None
        assert (record.status, record.error.type) == ("FAILED", "StorageFull")
        assert r.blobs.asked == 1

    play(scene, large)


def test_who_waits_to_store_a_result_can_be_cancelled() -> None:
    async def scene(r: Rig) -> None:
        r.blobs.away = AWAY
        for node in ("large", "large_sync"):
            message = r.message(node)
            await r.send(message)
            await r.clock.sleep(30)
            await r.cancel(message.exec_id)
            (record,) = await r.receive()
            assert record.status == "CANCELLED"

    play(scene, large, large_sync, threads=0)


@pytest.mark.parametrize("node", ["length", "length_once"])
def test_an_attempt_whose_input_cannot_be_fetched_is_given_back_before_anything_is_recorded(node: str) -> None:
    async def scene(r: Rig) -> None:
        effect = "at_most_once" if node == "length_once" else "idempotent"
        uri, digest = await r.blobs.put("default", b"y" * 1_500_000)
        given = Payload(None, "application/octet-stream", uri, 1_500_000, digest)
        r.blobs.away = AWAY
        message = r.message(node, input=given, effect=effect)
        await r.send(message)
        await r.clock.sleep(FETCH_PATIENCE / 2)
        assert r.unacknowledged() == 1
        await r.clock.sleep(FETCH_PATIENCE)
        assert r.unacknowledged() == 0
        assert await r.kv.get(claim_key(message.exec_id)) is None, "whoever can may have it"
        assert calls == []
        r.blobs.away = None
        await r.send(message)
        deliveries = await r.records.receive(10)
        (entry,) = messages.decode_append(deliveries[0].message.value).entries
        if effect == "at_most_once":
            assert entry.entry_id == f"intent:{message.exec_id}", "it is asked for when nothing else is left to be done"
        else:
            assert isinstance(entry, Execution)
            assert entry.status == "SUCCEEDED"

    play(scene, length, length_once, threads=0)
