"""Limits, heartbeats and cancellation, on virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.executor.rig import LIFETIME, rig, until
from tickwork.executor.outcome import DETAILS_LIMIT
from tickwork.model.graph import TimeLimits
from tickwork.model.ids import exec_id
from tickwork.sdk.context import Context
from tickwork.sdk.nodes import plan, task
from tickwork.testing.virtual import VirtualClock, run_virtual

SECOND = 1_000_000


@task(limits=TimeLimits(start_to_close=10, grace=2))
async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@task(limits=TimeLimits(start_to_close=10, grace=2))
async def stubborn(how: str) -> str:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        if how == "return":
            return "too late"
        if how == "raise":
            raise ValueError("in the clean-up") from None
        await asyncio.sleep(1000)
    return "much too late"


@task(limits=TimeLimits(heartbeat=5))
async def beating(beats: int, ctx: Context) -> str:
    for n in range(beats):
        await asyncio.sleep(4)
        ctx.heartbeat({"at": n})
    await asyncio.sleep(6)
    return "done"


def clock() -> VirtualClock:
    return VirtualClock(asyncio.get_running_loop())


def test_start_to_close_ends_an_attempt() -> None:
    async def main() -> None:
        async with rig(slow, clock=clock()) as r:
            assert (await r.call("slow", 9.9)).status == "SUCCEEDED"
            record = await r.call("slow", 11)
            assert record.status == "TIMED_OUT"
            assert record.error is not None
            assert (record.error.type, record.error.retryable, record.error.details) == ("StartToClose", True, None)
            assert "`slow` did not end within 10 s" in record.error.message
            assert record.finished_at - record.started_at == 10 * SECOND

    run_virtual(main())


@pytest.mark.parametrize("how", ["return", "raise"])
def test_what_comes_after_the_limit_does_not_count(how: str) -> None:
    async def main() -> None:
        async with rig(stubborn, clock=clock()) as r:
            record = await r.call("stubborn", how)
            assert (record.status, record.result) == ("TIMED_OUT", None)
            assert record.error is not None
            assert record.error.type == "StartToClose"
            assert record.error.details is None

    run_virtual(main())


def test_what_does_not_stop_within_its_grace_is_abandoned() -> None:
    async def main() -> None:
        async with rig(stubborn, slow, clock=clock(), concurrency=1) as r:
            await r.send(r.message("stubborn", "sleep"), r.message("slow", 1))
            first, second = await r.receive(2)
            assert first.status == "TIMED_OUT"
            assert first.error is not None
            assert first.error.details == {"abandoned": True}
            assert first.finished_at - first.started_at == 12 * SECOND
            assert second.status == "SUCCEEDED"  # its credit is free again
            assert second.started_at == first.finished_at
            await asyncio.sleep(2000)
            assert r.bus.depth("data-plane.*", "records") == 0  # the late result was dropped

    run_virtual(main())


def test_silence_ends_an_attempt_and_heartbeats_keep_it() -> None:
    async def main() -> None:
        async with rig(beating, clock=clock()) as r:
            record = await r.call("beating", 3)
            assert record.status == "TIMED_OUT"
            assert record.error is not None
            assert record.error.type == "HeartbeatTimeout"
            assert record.error.details == {"heartbeat": {"at": 2}}
            assert record.finished_at - record.started_at == (3 * 4 + 5) * SECOND

    run_virtual(main())


@task(limits=TimeLimits(heartbeat=5))
async def babbling(_: Any, ctx: Context) -> None:
    ctx.heartbeat("x" * DETAILS_LIMIT)
    await asyncio.sleep(60)


def test_what_a_heartbeat_said_fills_no_record() -> None:
    async def main() -> None:
        async with rig(babbling, clock=clock()) as r:
            error = (await r.call("babbling")).error
            assert error is not None
            assert error.details == {"heartbeat": "(details of 16,386 bytes were cut; 16,384 is the limit)"}

    run_virtual(main())


def test_an_input_that_waited_too_long_is_not_started() -> None:
    ran: list[float] = []

    @task(limits=TimeLimits(schedule_to_start=5))
    async def quick(seconds: float) -> None:
        ran.append(seconds)
        await asyncio.sleep(seconds)

    async def main() -> None:
        time = clock()
        async with rig(quick, clock=time, concurrency=1) as r:
            record = await r.call("quick", 1, created_at=time.now() - 6 * SECOND)
            assert record.status == "TIMED_OUT"
            assert record.error is not None
            assert record.error.type == "ScheduleToStart"
            began = time.now()
            await r.send(*[r.message("quick", 100, iteration=i) for i in range(1, 4)])
            first, second = await r.receive(2)
            assert {first.status, second.status} == {"TIMED_OUT"}
            assert first.finished_at == began + 5 * SECOND  # while it waited, not when its turn came
            (third,) = await r.receive()
            assert third.status == "SUCCEEDED"
            assert ran == [100]

    run_virtual(main())


def test_a_cancelled_attempt_stops_and_is_recorded_so() -> None:
    async def main() -> None:
        async with rig(slow, stubborn, clock=clock()) as r:
            await r.send(r.message("slow", 9), r.message("stubborn", "sleep"))
            await until(lambda: len(r.executor._attempts) == 2)
            await asyncio.sleep(1)
            await r.cancel(exec_id(LIFETIME, "", "slow", 0, 1), reason="FINAL was taken")
            (record,) = await r.receive()
            assert (record.name, record.status) == ("slow", "CANCELLED")
            assert record.error is not None
            assert (record.error.type, record.error.message) == ("Cancelled", "FINAL was taken")
            await r.cancel(reason="aborted")
            (record,) = await r.receive()
            assert (record.name, record.status) == ("stubborn", "CANCELLED")
            assert record.error is not None
            assert record.error.details == {"abandoned": True}
            await until(lambda: r.unacknowledged() == 0)

    run_virtual(main())


def test_a_cancel_may_come_before_its_input_or_while_it_waits() -> None:
    async def main() -> None:
        async with rig(slow, clock=clock(), concurrency=1) as r:
            early = r.message("slow", 5, iteration=1)
            await r.cancel(early.exec_id)
            await until(lambda: r.executor._cancelled)
            await r.send(early)
            (record,) = await r.receive()
            assert record.status == "CANCELLED"
            running, waiting = r.message("slow", 5), r.message("slow", 5, iteration=2)
            await r.send(running, waiting)
            await until(lambda: len(r.executor._attempts) == 2)
            await r.cancel(waiting.exec_id)
            (record,) = await r.receive()
            assert (record.exec_id, record.status) == (waiting.exec_id, "CANCELLED")
            (record,) = await r.receive()
            assert (record.exec_id, record.status) == (running.exec_id, "SUCCEEDED")

    run_virtual(main())


def test_an_attempt_cancelled_before_its_first_step_gives_its_credit_back() -> None:
    async def main() -> None:
        async with rig(slow, clock=clock(), concurrency=1) as r:
            message = r.message("slow", 5)
            await r.send(message)
            await r.cancel(message.exec_id)
            (record,) = await r.receive()
            assert record.status == "CANCELLED"
            assert (await r.call("slow", 1, iteration=1)).status == "SUCCEEDED"

    run_virtual(main())


@task(limits=TimeLimits(grace=3))
def looks(_: Any, ctx: Context) -> str:
    while not ctx.cancelled:
        ctx.heartbeat()
    return "stopped"


async def test_sync_code_sees_that_it_is_cancelled() -> None:
    async with rig(looks) as r:
        message = r.message("looks")
        await r.send(message)
        await until(lambda: message.exec_id in r.executor._attempts)
        await r.cancel(message.exec_id)
        (record,) = await r.receive()
        assert record.status == "CANCELLED"
        assert record.error is not None
        assert record.error.details is None


def test_sync_code_that_hangs_is_abandoned_and_its_thread_is_replaced() -> None:
    release = threading.Event()

    @task(limits=TimeLimits(start_to_close=10, grace=2))
    def hang() -> str:
        release.wait(30)
        return "late"

    @plan
    async def fine() -> None:
        return None

    async def main() -> None:
        async with rig(hang, fine, clock=clock(), threads=1) as r:
            for n in range(3):
                record = await r.call("hang", iteration=n)
                assert record.status == "TIMED_OUT"
                assert record.error is not None
                assert record.error.details == {"abandoned": True}
                assert record.finished_at - record.started_at == 12 * SECOND
            release.set()
            assert (await r.call("fine")).status == "SUCCEEDED"
            assert r.bus.depth("data-plane.*", "records") == 0

    run_virtual(main())


def test_virtual_time_jumps_and_never_hangs() -> None:
    async def hours() -> float:
        await asyncio.sleep(36_000)
        return asyncio.get_running_loop().time()

    assert run_virtual(hours()) == pytest.approx(36_000)

    async def never() -> None:
        await asyncio.Event().wait()

    coroutine: Coroutine[Any, Any, None] = never()
    if threading.active_count() == 1:  # a thread of the test runner could still wake it
        with pytest.raises(RuntimeError, match="nothing will ever happen"):
            run_virtual(coroutine)
    else:
        coroutine.close()


def test_virtual_time_is_real_while_something_outside_works() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        loop.call_later(0.05, gate.set)
        assert await loop.run_in_executor(None, gate.wait, 5)
        assert loop.time() >= 0.05
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read x", stdin=asyncio.subprocess.PIPE)
        loop.call_later(0.05, process.stdin.close)  # type: ignore[union-attr]  # a pipe was asked for
        await process.wait()
        assert loop.time() < 5

    run_virtual(main())


def test_now_and_monotonic_follow_the_loop() -> None:
    async def main() -> list[int]:
        time = clock()
        before = time.now()
        await time.sleep(1.5)
        return [time.now() - before, round(time.monotonic() * 10)]

    assert run_virtual(main()) == [1_500_000, 15]
