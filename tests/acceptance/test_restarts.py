"""What goes on after the process is gone: deadlines that passed, answers, pauses, backoffs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import HOUR, Gate, World, asking, gated, in_a_new_process
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
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.testing.virtual import EPOCH


@pytest.mark.parametrize(("default", "status"), [({"default": "no"}, "COMPLETED"), ({}, "FAILED")])
def test_a_deadline_that_passed_while_no_process_was_there_counts_at_the_next_start(
    tmp_path: Path, default: dict[str, str], status: str
) -> None:
    async def first(world: World) -> str:
        lifetime = await world.start(asking(deadline=HOUR, **default))
        assert (await world.settle(lifetime)).status == "WAITING"
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)
    later = EPOCH + round(5 * HOUR * 1e6)

    async def second(world: World) -> None:
        await world.runtime.bind(asking(deadline=HOUR, **default).bind())
        ended = await world.runtime.guard(world.service.wait(lifetime_id))
        assert ended.status == status
        assert ended.finished_at is not None
        assert ended.finished_at - later < 1e6

    in_a_new_process(tmp_path, later, second)


def test_an_answer_after_a_restart_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def first(world: World) -> str:
        lifetime = await world.start(asking())
        await world.settle(lifetime)
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)

    async def second(world: World) -> Any:
        await world.runtime.bind(asking().bind())
        lifetime = await world.service.answer(lifetime_id, "yes")
        return await world.result(lifetime)

    assert in_a_new_process(tmp_path, EPOCH + 1_000_000, second) == "yes"


def test_a_paused_lifetime_stays_paused_over_a_restart(tmp_path: Path) -> None:
    async def first(world: World) -> str:
        gate = Gate()
        lifetime = await world.start(gated(gate), 1)
        await gate.entered.wait()
        await world.service.pause(lifetime.lifetime_id)
        return lifetime.lifetime_id  # the process goes while `first` runs

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)

    async def second(world: World) -> Any:
        gate = Gate()
        gate.open.set()
        await world.runtime.bind(gated(gate).bind())
        await asyncio.sleep(HOUR)
        lifetime = await world.service.get(lifetime_id)
        assert lifetime.status == "PAUSED"
        assert await world.executions(lifetime) == []
        await world.service.resume(lifetime_id)
        return await world.result(lifetime)

    assert in_a_new_process(tmp_path, EPOCH + 1_000_000, second) == 3


def test_a_backoff_goes_on_over_a_restart(tmp_path: Path) -> None:
    def graph(calls: list[int]) -> Graph:
        @task(retry=RetryPolicy(max_attempts=2, initial_interval=HOUR, max_interval=HOUR, jitter=0))
        async def flaky(ctx: Context) -> int:
            calls.append(ctx.attempt)
            if ctx.attempt == 1:
                raise RetryableError("again")
            return 7

        return Graph("backing_off", "1.0.0").start(flaky).final(flaky)

    async def first(world: World) -> str:
        lifetime = await world.start(graph([]))
        await world.until_timer_set(lifetime)
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)
    calls: list[int] = []

    async def second(world: World) -> Any:
        await world.runtime.bind(graph(calls).bind())
        return await world.result(await world.service.get(lifetime_id))

    assert in_a_new_process(tmp_path, EPOCH + 60_000_000, second) == 7
    assert calls == [2]


async def test_resume_again_and_again_calls_nothing_twice(tmp_path: Path) -> None:
    """Real time: the calls and the rebuilds run into each other."""
    calls: Counter[str] = Counter()

    @plan
    async def decide(plan_input: PlanInput) -> str:
        calls[plan_input.exec_id] += 1
        return "work" if plan_input.iteration < 150 else END

    @task
    async def work(task_input: TaskInput) -> None:
        calls[task_input.exec_id] += 1

    graph = Graph("resumed", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)
    async with Runtime(Profile.local(tmp_path)) as runtime:
        world = World(runtime)
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


def test_what_became_due_before_the_graph_was_bound_is_called_once(tmp_path: Path) -> None:
    def graph(calls: Counter[str]) -> Graph:
        nap = sleep("nap", seconds=60)

        @plan
        async def after(plan_input: PlanInput) -> str:
            calls[plan_input.exec_id] += 1
            return "wake"

        @task
        async def wake(task_input: TaskInput) -> str:
            calls[task_input.exec_id] += 1
            return "awake"

        return Graph("napping", "1.0.0").start(nap).edge(nap, after).edge(after, wake).final(wake)

    async def first(world: World) -> list[str]:
        await world.runtime.bind(graph(Counter()).bind())
        started = [await world.service.start("napping") for _ in range(50)]
        for lifetime in started:
            await world.until_timer_set(lifetime)
        return [lifetime.lifetime_id for lifetime in started]

    lifetime_ids = in_a_new_process(tmp_path, EPOCH, first)
    calls: Counter[str] = Counter()

    async def second(world: World) -> None:
        await asyncio.sleep(3)  # the timers fire, and their lifetimes wait for somebody who knows the graph
        assert not calls
        await world.runtime.bind(graph(calls).bind())
        for lifetime_id in lifetime_ids:
            assert await world.result(await world.service.get(lifetime_id)) == "awake"

    in_a_new_process(tmp_path, EPOCH + 3_600_000_000, second)
    assert len(calls) == 100
    twice = {exec_id: count for exec_id, count in calls.items() if count > 1}
    assert not twice, f"{len(twice)} of {len(calls)} attempts were called more than once, and no process had died"
