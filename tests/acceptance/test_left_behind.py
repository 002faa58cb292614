"""Families and pauses that a dead process leaves behind, and nodes that would take others down with them."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import ONCE, Gate, World, in_a_new_process, virtual
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
from tickwork.testing.virtual import EPOCH

LATER = EPOCH + 1_000_000


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


def test_aborting_a_parent_from_another_process_ends_its_child(tmp_path: Path) -> None:
    async def first(world: World) -> str:
        await world.runtime.bind(asking().bind())
        lifetime = await world.start(around("asks"))
        await world.asked(1)
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)

    async def second(world: World) -> None:
        await world.service.abort(lifetime_id, reason="enough")
        await world.runtime.guard(world.service.wait(lifetime_id))
        await asyncio.sleep(60)
        assert {x.status for x in await world.service.list()} == {"ABORTED"}
        assert await world.service.questions() == []

    in_a_new_process(tmp_path, LATER, second)


def test_resuming_a_parent_takes_up_its_child(tmp_path: Path) -> None:
    async def first(world: World) -> str:
        gate = Gate()
        await world.runtime.bind(working(gate).bind())
        lifetime = await world.start(around("works"))
        await gate.entered.wait()
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)

    async def second(world: World) -> Any:
        gate = Gate()
        gate.open.set()
        await world.runtime.bind(working(gate).bind())
        await world.runtime.bind(around("works").bind())
        return await world.result(await world.service.resume(lifetime_id))

    assert in_a_new_process(tmp_path, LATER, second) == 7


def test_what_was_in_flight_when_a_paused_lifetime_lost_its_process_runs_after_the_resume(tmp_path: Path) -> None:
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

    async def first(world: World) -> str:
        gate = Gate()
        lifetime = await world.start(graph(gate))
        await gate.entered.wait()
        await world.asked(1)
        await world.service.pause(lifetime.lifetime_id)
        return lifetime.lifetime_id

    lifetime_id = in_a_new_process(tmp_path, EPOCH, first)

    async def second(world: World) -> Any:
        gate = Gate()
        gate.open.set()
        await world.runtime.bind(graph(gate).bind())
        await world.service.answer(lifetime_id, "yes")
        await asyncio.sleep(1)
        assert (await world.service.get(lifetime_id)).status == "PAUSED"
        return await world.result(await world.service.resume(lifetime_id))

    assert in_a_new_process(tmp_path, LATER, second) == [1, "yes"]


def test_one_broken_log_does_not_keep_the_others_of_its_graph(tmp_path: Path) -> None:
    async def first(world: World) -> list[str]:
        gate = Gate()
        started = [await world.start(working(gate)) for _ in range(2)]
        await gate.entered.wait()
        return [lifetime.lifetime_id for lifetime in started]

    broken, whole = in_a_new_process(tmp_path, EPOCH, first)
    with sqlite3.connect(tmp_path / "tickwork.db") as database:
        database.execute(
            "UPDATE log SET body = x'c1' WHERE lid = (SELECT lid FROM lifetimes WHERE lifetime_id = ?)", (broken,)
        )

    async def second(world: World) -> Any:
        gate = Gate()
        gate.open.set()
        await world.runtime.bind(working(gate).bind())
        return await world.result(await world.service.get(whole))

    assert in_a_new_process(tmp_path, LATER, second) == 7


@pytest.mark.parametrize("chosen", ["\ud800", PlanResult("left", reason="\ud800")])
def test_a_record_that_cannot_be_encoded_harms_its_own_lifetime_only(chosen: Any) -> None:
    @plan(retry=ONCE)
    async def decide() -> Any:
        return chosen

    @task
    async def left() -> int:
        return 1

    @virtual
    async def story(world: World) -> None:
        bad = await world.start(Graph("bad", "1.0.0").start(decide).edge(decide, left).final(left))
        assert (await world.end(bad)).status == "FAILED"
        good = await world.start(Graph("good", "1.0.0").start(left).final(left))
        assert await world.result(good) == 1

    story()


@pytest.mark.parametrize("asked", [float("inf"), 1e14])
def test_a_retry_that_is_asked_for_in_the_far_future_is_only_far_away(asked: float) -> None:
    @task(retry=RetryPolicy(max_attempts=2, jitter=0))
    async def flaky(ctx: Context) -> int:
        raise RetryableError("later", retry_after=asked) if ctx.attempt == 1 else TerminalError("no")

    @virtual
    async def story(world: World) -> None:
        lifetime = await world.start(Graph("far", "1.0.0").start(flaky).final(flaky))
        await world.until_timer_set(lifetime)
        await world.service.abort(lifetime.lifetime_id)
        assert (await world.end(lifetime)).status == "ABORTED"

    story()
