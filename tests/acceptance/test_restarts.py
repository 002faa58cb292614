"""What goes on after the process is gone: deadlines that passed, answers, pauses, backoffs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from tests.acceptance.world import Gate, World, asking, everywhere, gated, in_real_time
from tickwork import (
    END,
    Context,
    Graph,
    PlanInput,
    RetryableError,
    RetryPolicy,
    TaskInput,
    plan,
    sleep,
    task,
)
from tickwork.errors import AlreadyEnded


@pytest.mark.parametrize(("default", "status"), [({"default": "no"}, "COMPLETED"), ({}, "FAILED")])
@everywhere
async def test_a_deadline_that_passed_while_no_process_was_there_counts_at_the_next_start(
    world: World, default: dict[str, str], status: str
) -> None:
    graph = asking(deadline=2 * world.hour, **default)
    lifetime = await world.start(graph)
    assert (await world.settle(lifetime)).status == "WAITING"
    await world.restart(after=3)
    await world.bind(graph)
    ended = await world.end(lifetime)
    assert ended.status == status
    assert ended.finished_at is not None
    assert ended.finished_at - lifetime.created_at >= 3 * world.hour * 1e6
    assert ended.finished_at - lifetime.created_at < (3 * world.hour + world.slack) * 1e6


@everywhere
async def test_an_answer_after_a_restart_goes_on_where_it_stood(world: World) -> None:
    lifetime = await world.start(asking())
    await world.settle(lifetime)
    await world.restart()
    await world.bind(asking())
    assert await world.result(await world.service.answer(lifetime.lifetime_id, "yes")) == "yes"


@everywhere
async def test_a_paused_lifetime_stays_paused_over_a_restart(world: World) -> None:
    gate = Gate()
    lifetime = await world.start(gated(gate), 1)
    await gate.entered.wait()
    await world.service.pause(lifetime.lifetime_id)
    await world.restart()  # while `first` runs
    gate = Gate()
    gate.open.set()
    await world.bind(gated(gate))
    await world.rest(2)
    assert (await world.service.get(lifetime.lifetime_id)).status == "PAUSED"
    assert await world.executions(lifetime) == []
    await world.service.resume(lifetime.lifetime_id)
    assert await world.result(lifetime) == 3


@everywhere
async def test_a_backoff_goes_on_over_a_restart(world: World) -> None:
    wait = 4 * world.hour

    def graph(calls: list[int]) -> Graph:
        @task(retry=RetryPolicy(max_attempts=2, initial_interval=wait, max_interval=wait, jitter=0))
        async def flaky(ctx: Context) -> int:
            calls.append(ctx.attempt)
            if ctx.attempt == 1:
                raise RetryableError("again")
            return 7

        return Graph("backing_off", "1.0.0").start(flaky).final(flaky)

    lifetime = await world.start(graph([]))
    await world.until_timer_set(lifetime)
    await world.restart(after=1)
    calls: list[int] = []
    await world.bind(graph(calls))
    assert await world.result(lifetime) == 7
    assert calls == [2]
    first, second = await world.executions(lifetime)
    assert second.started_at - first.finished_at >= wait * 1e6


@in_real_time
async def test_resume_again_and_again_calls_nothing_twice(world: World) -> None:
    """The calls and the rebuilds run into each other."""
    calls: Counter[str] = Counter()

    @plan
    async def decide(plan_input: PlanInput) -> str:
        calls[plan_input.exec_id] += 1
        return "work" if plan_input.iteration < 150 else END

    @task
    async def work(task_input: TaskInput) -> None:
        calls[task_input.exec_id] += 1

    graph = Graph("resumed", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)
    lifetime = await world.start(graph)
    ended = asyncio.create_task(world.end(lifetime))
    while not ended.done():
        with contextlib.suppress(AlreadyEnded):
            await world.service.resume(lifetime.lifetime_id)
        await asyncio.sleep(0.001)
    assert (await ended).status == "COMPLETED"
    assert len(await world.executions(lifetime)) == 301
    twice = {exec_id: count for exec_id, count in calls.items() if count > 1}
    assert not twice, f"{len(twice)} of {len(calls)} attempts were called more than once, and no process had died"


@everywhere
async def test_what_became_due_before_the_graph_was_bound_is_called_once(world: World) -> None:
    def graph(calls: Counter[str]) -> Graph:
        nap = sleep("nap", seconds=3 * world.hour)

        @plan
        async def after(plan_input: PlanInput) -> str:
            calls[plan_input.exec_id] += 1
            return "wake"

        @task
        async def wake(task_input: TaskInput) -> str:
            calls[task_input.exec_id] += 1
            return "awake"

        return Graph("napping", "1.0.0").start(nap).edge(nap, after).edge(after, wake).final(wake)

    await world.bind(graph(Counter()))
    started = await asyncio.gather(*(world.service.start("napping") for _ in range(50)))
    for lifetime in started:
        await world.until_timer_set(lifetime)
    await world.restart(after=3)
    calls: Counter[str] = Counter()
    await asyncio.sleep(3)  # the timers fire, and their lifetimes wait for somebody who knows the graph
    assert not calls
    await world.bind(graph(calls))
    for lifetime in started:
        assert await world.result(lifetime) == "awake"
    assert len(calls) == 100
    twice = {exec_id: count for exec_id, count in calls.items() if count > 1}
    assert not twice, f"{len(twice)} of {len(calls)} attempts were called more than once, and no process had died"
