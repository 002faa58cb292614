"""Retries, limits, joins that cancel and children: in one process on virtual time, in eight on real servers."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from tests.acceptance.world import ONCE, Gate, World, asking, everywhere, gated, in_real_time, seconds_between, took
from tickwork import (
    END,
    Context,
    Graph,
    Next,
    PlanInput,
    PlanResult,
    RetryableError,
    RetryPolicy,
    TerminalError,
    TimeLimits,
    child,
    plan,
    task,
)
from tickwork.clock import RandomIds
from tickwork.model.records import Event, Execution
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.testing.virtual import VirtualClock, run_virtual

# -- retries and limits -----------------------------------------------------------------------------------------------


@everywhere
async def test_retries_back_off_and_the_last_failure_ends_the_lifetime(world: World) -> None:
    calls: list[int] = []
    unit = world.hour / 8
    policy = RetryPolicy(max_attempts=4, initial_interval=unit, backoff=2, max_interval=2.5 * unit, jitter=0)

    @task(retry=policy)
    async def fails(ctx: Context) -> None:
        calls.append(ctx.attempt)
        raise RetryableError(f"attempt {ctx.attempt}")

    lifetime = await world.start(Graph("failing", "1.0.0").start(fails).final(fails))
    ended = await world.end(lifetime)
    assert calls == [1, 2, 3, 4]
    assert ended.reason == "fails: RetryableError: attempt 4"
    starts = [each.started_at / 1e6 for each in await world.executions(lifetime)]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    for gap, units in zip(gaps, (1, 2, 2.5), strict=True):
        assert units * unit <= gap < units * unit + world.slack


@everywhere
async def test_the_idempotency_key_is_the_same_over_attempts_and_differs_between_visits(world: World) -> None:
    keys: list[tuple[int, int, str]] = []

    @task(retry=RetryPolicy(initial_interval=1))
    async def pay(ctx: Context) -> None:
        keys.append((ctx.iteration, ctx.attempt, ctx.idempotency_key))
        if ctx.attempt == 1:
            raise RetryableError("again")

    @plan
    async def twice(plan_input: PlanInput) -> str:
        return "pay" if plan_input.iteration < 1 else END

    graph = Graph("keys", "1.0.0").start(pay).edge(pay, twice).edge(twice, pay).final(twice)
    await world.end(await world.start(graph))
    assert [(i, a) for i, a, _ in keys] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert keys[0][2] == keys[1][2] != keys[2][2] == keys[3][2]


@everywhere
async def test_a_terminal_error_and_a_listed_one_are_not_retried(world: World) -> None:
    @task
    async def terminal() -> None:
        raise TerminalError("never")

    @task(retry=RetryPolicy(non_retryable=("KeyError",)))
    async def listed() -> None:
        raise KeyError("x")

    for each in (terminal, listed):
        lifetime = await world.start(Graph(f"no_{each.name}", "1.0.0").start(each).final(each))
        assert (await world.end(lifetime)).status == "FAILED"
        assert len(await world.executions(lifetime)) == 1


@everywhere
async def test_an_error_that_asks_for_a_delay_gets_it(world: World) -> None:
    @task(retry=RetryPolicy(initial_interval=1, jitter=0))
    async def limited(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise RetryableError("too many requests", retry_after=world.hour)
        return 1

    lifetime = await world.start(Graph("limits", "1.0.0").start(limited).final(limited))
    assert await world.result(lifetime) == 1
    assert world.hour <= seconds_between(await world.log(lifetime), 0, -1) < world.hour + world.slack


@everywhere
async def test_start_to_close_ends_an_attempt_and_the_next_one_may_succeed(world: World) -> None:
    limit = world.hour / 4

    @task(limits=TimeLimits(start_to_close=limit), retry=RetryPolicy(initial_interval=1))
    async def slow(ctx: Context) -> int:
        if ctx.attempt == 1:
            await world.rest(100)
        return ctx.attempt

    lifetime = await world.start(Graph("slow_graph", "1.0.0").start(slow).final(slow))
    assert await world.result(lifetime) == 2
    first = (await world.executions(lifetime))[0]
    assert first.status == "TIMED_OUT"
    assert first.error is not None
    assert first.error.type == "StartToClose"
    assert limit <= took(first) < limit + world.slack


@everywhere
async def test_user_code_that_does_not_stop_is_abandoned_after_its_grace(world: World) -> None:
    limit, grace = world.hour / 4, world.hour / 8

    @task(limits=TimeLimits(start_to_close=limit, grace=grace), retry=ONCE)
    async def stubborn() -> str:
        for _ in range(10):
            try:
                await world.rest()
            except asyncio.CancelledError:
                continue
        return "late"

    lifetime = await world.start(Graph("stubborn_graph", "1.0.0").start(stubborn).final(stubborn))
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    (done,) = await world.executions(lifetime)
    assert done.error is not None
    assert done.error.details["abandoned"] is True
    assert limit + grace <= took(done) < limit + grace + world.slack


@everywhere
async def test_silence_beyond_the_heartbeat_limit_ends_an_attempt(world: World) -> None:
    @task(limits=TimeLimits(heartbeat=world.hour), retry=ONCE)
    async def works(beats: int, ctx: Context) -> int:
        for k in range(beats):
            await world.rest(0.2)
            ctx.heartbeat({"done": k})
        if beats < 10:
            await world.rest(100)
        return beats

    graph = Graph("beating", "1.0.0").start(works).final(works)
    assert await world.result(await world.start(graph, 10)) == 10
    silent = await world.start(graph, 3)
    ended = await world.end(silent)
    assert ended.reason is not None
    assert ended.reason.startswith("works: HeartbeatTimeout")
    (done,) = await world.executions(silent)
    assert 1.6 * world.hour <= took(done) < 1.6 * world.hour + world.slack
    assert done.error is not None
    assert done.error.details["heartbeat"] == {"done": 2}


def test_schedule_to_start_ends_what_waits_too_long_for_a_worker() -> None:
    """In one process alone: an executor that takes one call at a time is another one than the fleet has."""

    async def go() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=1), concurrency=1) as runtime:
            service = runtime.service

            @task(retry=ONCE)
            async def busy() -> None:
                await asyncio.sleep(3600)

            @task(retry=ONCE, limits=TimeLimits(schedule_to_start=60))
            async def eager() -> None: ...

            await runtime.bind(Graph("busy_graph", "1.0.0").start(busy).final(busy).bind())
            await runtime.bind(Graph("eager_graph", "1.0.0").start(eager).final(eager).bind())
            holding = await service.start("busy_graph")
            await asyncio.sleep(1)
            waiting = await service.start("eager_graph")
            ended = await runtime.guard(service.wait(waiting.lifetime_id))
            assert ended.reason is not None
            assert ended.reason.startswith("eager: ScheduleToStart")
            log = await service.log(waiting.lifetime_id)
            (done,) = [e.entry for e in log if isinstance(e.entry, Execution)]
            assert done.status == "TIMED_OUT"
            assert done.finished_at - done.created_at == pytest.approx(60e6, abs=1e5)
            assert (await runtime.guard(service.wait(holding.lifetime_id))).status == "COMPLETED"

    run_virtual(go())


# -- joins that cancel ------------------------------------------------------------------------------------------------


def racing(body: Any, **settings: Any) -> Graph:
    """Four branches; two are enough."""
    runner = task(name="runner", retry=ONCE, **settings)(body)

    @plan
    async def spread() -> list[Next]:
        return [Next("runner", k) for k in range(4)]

    @plan
    async def gathered(plan_input: PlanInput) -> PlanResult:
        return PlanResult("tell", output=plan_input.value)

    @task
    async def tell(value: list[int]) -> list[int]:
        return value

    graph = Graph("racing", "1.0.0").start(spread).parallel(spread, runner)
    return graph.join(runner, gathered, "quorum", 2).edge(gathered, tell).final(tell)


@everywhere
async def test_a_quorum_cancels_running_async_code(world: World) -> None:
    stopped: list[int] = []

    async def run(k: int) -> int:
        try:
            await world.rest(0.2 if k in (1, 3) else 100)
        except asyncio.CancelledError:
            stopped.append(k)
            raise
        return k

    lifetime = await world.start(racing(run))
    assert await world.result(lifetime) == [1, 3]
    await world.until(lambda: len(stopped) == 2)
    assert sorted(stopped) == [0, 2]
    statuses = {e.branch: e.status for e in await world.executions(lifetime, "runner")}
    assert sorted(statuses.values()) == ["CANCELLED", "CANCELLED", "SUCCEEDED", "SUCCEEDED"]
    log = await world.log(lifetime)
    assert seconds_between(log, 0, -1) < world.hour + world.slack, "nobody waited for those that were cancelled"


@in_real_time
async def test_a_quorum_tells_running_sync_code_to_stop(world: World) -> None:
    stopped: list[int] = []

    def run(k: int, ctx: Context) -> int:
        deadline = time.monotonic() + 20
        while k in (0, 2) and not ctx.cancelled and time.monotonic() < deadline:
            time.sleep(0.002)
        if ctx.cancelled:
            stopped.append(k)
        return k

    lifetime = await world.start(racing(run))
    assert await world.result(lifetime) == [1, 3]
    statuses = sorted(e.status for e in await world.executions(lifetime, "runner"))
    assert statuses == ["CANCELLED", "CANCELLED", "SUCCEEDED", "SUCCEEDED"]
    await world.until(lambda: len(stopped) == 2)
    assert sorted(stopped) == [0, 2]


@everywhere
async def test_a_joined_input_is_handed_on_by_a_plan_that_only_chooses(world: World) -> None:
    @task
    async def double(k: int) -> int:
        return 2 * k

    @plan
    async def spread() -> list[Next]:
        return [Next("double", k) for k in range(3)]

    @plan
    async def gathered() -> str:
        return "add"

    @task
    async def add(values: list[int]) -> int:
        return sum(values)

    graph = Graph("handing_on", "1.0.0").start(spread).parallel(spread, double).join(double, gathered)
    lifetime = await world.start(graph.edge(gathered, add).final(add))
    assert await world.result(lifetime) == 6


@everywhere
async def test_a_final_edge_in_one_branch_ends_the_lifetime_and_cancels_the_others(world: World) -> None:
    stopped: list[int] = []

    @plan
    async def spread() -> list[Next]:
        return [Next("search", k) for k in range(3)]

    @task
    async def search(k: int) -> int:
        try:
            await world.rest(0.2 if k == 1 else 100)
        except asyncio.CancelledError:
            stopped.append(k)
            raise
        return k

    lifetime = await world.start(Graph("searching", "1.0.0").start(spread).parallel(spread, search).final(search))
    assert await world.result(lifetime) == 1
    await world.until(lambda: len(stopped) == 2)
    assert sorted(stopped) == [0, 2]
    log = await world.log(lifetime)
    assert isinstance(log[-1].entry, Event)
    assert log[-1].entry.type == "completed"
    assert seconds_between(log, 0, -1) < world.hour + world.slack


@pytest.mark.parametrize("mode", ["all", "settled", "any"])
@everywhere
async def test_a_branch_that_fails_counts_as_its_join_says(world: World, mode: Any) -> None:
    @plan
    async def spread() -> list[Next]:
        return [Next("part", k) for k in range(3)]

    @task(retry=ONCE)
    async def part(k: int) -> int:
        await world.rest(k / 4)
        if k == 0:
            raise ValueError("the first branch fails")
        return k

    @plan
    async def gathered(plan_input: PlanInput) -> PlanResult:
        return PlanResult("tell", output=[[each.status, each.value] for each in plan_input.executions])

    @task
    async def tell(value: list[Any]) -> list[Any]:
        return value

    graph = Graph("mixed", "1.0.0").start(spread).parallel(spread, part)
    graph.join(part, gathered, mode).edge(gathered, tell).final(tell)

    lifetime = await world.start(graph)
    ended = await world.end(lifetime)
    if mode == "all":
        assert ended.reason == "part: ValueError: the first branch fails"
        assert [e.status for e in await world.executions(lifetime, "part")] == ["FAILED", "SUCCEEDED", "SUCCEEDED"]
    elif mode == "settled":
        expected = [["FAILED", None], ["SUCCEEDED", 1], ["SUCCEEDED", 2]]
        assert (await world.result(lifetime)) == expected
    else:
        assert (await world.result(lifetime)) == [["SUCCEEDED", 1]]


# -- children ---------------------------------------------------------------------------------------------------------


def parent_of(name: str) -> Graph:
    sub = child("sub", graph=name)
    return Graph("parent", "1.0.0").start(sub).final(sub)


@everywhere
async def test_a_child_lifetime_gives_its_result_to_the_parent(world: World) -> None:
    @task
    async def double(value: int) -> int:
        return 2 * value

    await world.bind(Graph("doubling", "1.0.0").start(double).final(double))
    lifetime = await world.start(parent_of("doubling"), 21)
    assert await world.result(lifetime) == 42
    (done,) = await world.executions(lifetime)
    assert done.executor.startswith("child:")
    child_lifetime = await world.service.get(done.executor.removeprefix("child:"))
    assert (child_lifetime.graph_name, child_lifetime.status) == ("doubling", "COMPLETED")


@everywhere
async def test_a_child_that_fails_is_tried_again_and_then_fails_the_parent(world: World) -> None:
    calls: list[int] = []

    @task(retry=ONCE)
    async def broken() -> None:
        calls.append(1)
        raise RuntimeError("no")

    await world.bind(Graph("breaking", "1.0.0").start(broken).final(broken))
    lifetime = await world.start(parent_of("breaking"))
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    assert ended.reason is not None
    assert "broken: RuntimeError: no" in ended.reason
    assert len(calls) == len(await world.executions(lifetime)) == 3


@everywhere
async def test_a_child_graph_that_nobody_knows_fails_the_parent(world: World) -> None:
    ended = await world.end(await world.start(parent_of("nowhere")))
    assert ended.reason == "sub: ChildGraphUnknown: graph nowhere is not registered for this tenant"


@everywhere
async def test_aborting_the_parent_aborts_the_child(world: World) -> None:
    gate = Gate()
    await world.bind(gated(gate))
    lifetime = await world.start(parent_of("gated"), 1)
    await gate.entered.wait()
    await world.service.abort(lifetime.lifetime_id, reason="enough")
    assert (await world.end(lifetime)).status == "ABORTED"
    inner = next(each for each in await world.service.list() if each.graph_name == "gated")
    assert (await world.end(inner)).status == "ABORTED"
    await world.until(lambda: gate.cancelled)
    assert gate.cancelled == [""]


@everywhere
async def test_a_child_that_waits_for_a_person_does_not_hold_the_parent_in_memory(world: World) -> None:
    await world.bind(asking())
    lifetime = await world.start(parent_of("asking"))
    (question,) = await world.asked(1)
    await world.service.answer(question.lifetime_id, "yes")
    assert await world.result(lifetime) == "yes"
