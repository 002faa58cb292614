"""Families and pauses that a dead process leaves behind, and nodes that would take others down with them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.world import ONCE, Gate, World, everywhere
from tickwork import (
    END,
    Context,
    Graph,
    PlanResult,
    RetryableError,
    RetryPolicy,
    TerminalError,
    child,
    human,
    plan,
    task,
)


def asking() -> Graph:
    return Graph("asks", "1.0.0").start(human("ask", prompt="?")).final("ask")


def around(name: str) -> Graph:
    sub = child("sub", graph=name)
    return Graph("parent", "1.0.0").start(sub).final(sub)


def working(gate: Gate) -> Graph:
    @task
    async def work() -> int:
        await gate.wait()
        return 7

    return Graph("works", "1.0.0").start(work).final(work)


@everywhere
async def test_aborting_a_parent_from_another_process_ends_its_child(world: World) -> None:
    await world.bind(asking())
    lifetime = await world.start(around("asks"))
    await world.asked(1)
    await world.restart()
    await world.service.abort(lifetime.lifetime_id, reason="enough")
    await world.end(lifetime)
    await world.rest()
    assert {x.status for x in await world.service.list()} == {"ABORTED"}
    assert await world.service.questions() == []


@everywhere
async def test_resuming_a_parent_takes_up_its_child(world: World) -> None:
    gate = Gate()
    await world.bind(working(gate))
    lifetime = await world.start(around("works"))
    await gate.entered.wait()
    await world.restart()
    gate = Gate()
    gate.open.set()
    await world.bind(working(gate))
    await world.bind(around("works"))
    assert await world.result(await world.service.resume(lifetime.lifetime_id)) == 7


@everywhere
async def test_what_was_in_flight_when_a_paused_lifetime_lost_its_process_runs_after_the_resume(world: World) -> None:
    def graph(gate: Gate) -> Graph:
        @plan
        async def split() -> list[str]:
            return ["work", "ask"]

        @task
        async def work() -> int:
            await gate.wait()
            return 1

        @plan
        async def done(values: list[Any]) -> str:
            return END

        ask = human("ask", prompt="?")
        both = Graph("pausing", "1.0.0").start(split).parallel(split, work, ask)
        return both.join(work, done).join(ask, done).edge(done, work).final(done)

    gate = Gate()
    lifetime = await world.start(graph(gate))
    await gate.entered.wait()
    await world.asked(1)
    await world.service.pause(lifetime.lifetime_id)
    await world.restart()
    gate = Gate()
    gate.open.set()
    await world.bind(graph(gate))
    await world.service.answer(lifetime.lifetime_id, "yes")
    await world.rest()
    assert (await world.service.get(lifetime.lifetime_id)).status == "PAUSED"
    assert await world.result(await world.service.resume(lifetime.lifetime_id)) == [1, "yes"]


@everywhere
async def test_one_broken_log_does_not_keep_the_others_of_its_graph(world: World) -> None:
    gate = Gate()
    broken, whole = [await world.start(working(gate)) for _ in range(2)]
    await gate.entered.wait()
    await world.restart(breaking=broken)
    gate = Gate()
    gate.open.set()
    await world.bind(working(gate))
    assert await world.result(whole) == 7
    assert (await world.service.get(broken.lifetime_id)).status == "RUNNING"


@pytest.mark.parametrize("chosen", ["\ud800", PlanResult("left", reason="\ud800")])
@everywhere
async def test_a_record_that_cannot_be_encoded_harms_its_own_lifetime_only(world: World, chosen: Any) -> None:
    @plan(retry=ONCE)
    async def decide() -> Any:
        return chosen

    @task
    async def left() -> int:
        return 1

    bad = await world.start(Graph("bad", "1.0.0").start(decide).edge(decide, left).final(left))
    assert (await world.end(bad)).status == "FAILED"
    good = await world.start(Graph("good", "1.0.0").start(left).final(left))
    assert await world.result(good) == 1


@pytest.mark.parametrize("asked", [float("inf"), 1e14])
@everywhere
async def test_a_retry_that_is_asked_for_in_the_far_future_is_only_far_away(world: World, asked: float) -> None:
    @task(retry=RetryPolicy(max_attempts=2, jitter=0))
    async def flaky(ctx: Context) -> int:
        raise RetryableError("later", retry_after=asked) if ctx.attempt == 1 else TerminalError("no")

    lifetime = await world.start(Graph("far", "1.0.0").start(flaky).final(flaky))
    await world.until_timer_set(lifetime)
    await world.service.abort(lifetime.lifetime_id)
    assert (await world.end(lifetime)).status == "ABORTED"
