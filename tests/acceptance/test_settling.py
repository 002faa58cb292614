"""When a lifetime counts as settled: nothing more happens by itself, not even in the children that it waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.acceptance.world import World, everywhere
from tickwork import END, Graph, child, human, plan, task
from tickwork.errors import Conflict


def family(depth: int) -> list[Graph]:
    """A graph that asks a person, and `depth` graphs around it, each the only child of the next."""
    graphs = [Graph("g0", "1.0.0").start(human("ask", prompt="?")).final("ask")]
    for level in range(1, depth + 1):
        sub = child("sub", graph=f"g{level - 1}")
        graphs.append(Graph(f"g{level}", "1.0.0").start(sub).final(sub))
    return graphs


@pytest.mark.parametrize("depth", [1, 2])
@everywhere
async def test_a_parent_whose_child_asks_a_person_is_settled_and_can_be_answered(world: World, depth: int) -> None:
    for graph in family(depth):
        await world.bind(graph)
    lifetime = await world.service.start(f"g{depth}", "in")
    settled = await world.settle(lifetime)
    assert not settled.ended
    (question,) = await world.service.questions(lifetime_id=lifetime.lifetime_id)
    assert question.lifetime_id != lifetime.lifetime_id
    await world.service.answer(lifetime.lifetime_id, "out", exec_id="ask")
    assert await world.result(lifetime) == "out"


@everywhere
async def test_a_paused_lifetime_is_settled_once_what_is_in_flight_is_recorded(world: World) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @task
    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    @plan
    async def after(value: Any) -> str:
        return END

    graph = Graph("pausing", "1.0.0").start(slow).then(slow, after).then(after, slow).final(after)
    lifetime = await world.start(graph)
    await begun.wait()
    await world.service.pause(lifetime.lifetime_id)
    settling = asyncio.ensure_future(world.settle(lifetime))
    await world.rest()
    assert not settling.done(), "an attempt is in flight"
    go_on.set()
    assert (await settling).status == "PAUSED"
    assert [e.name for e in await world.executions(lifetime)] == ["slow"]
    await world.service.resume(lifetime.lifetime_id)
    assert await world.result(lifetime) == "done"


@everywhere
async def test_an_idempotency_key_starts_one_lifetime_of_one_graph(world: World) -> None:
    ask, other = family(0)[0], Graph("other", "1.0.0").start(human("ask", prompt="?")).final("ask")
    first = await world.start(ask, idempotency_key="k")
    assert (await world.start(ask, idempotency_key="k")).lifetime_id == first.lifetime_id
    with pytest.raises(Conflict, match=f"belongs to lifetime {first.lifetime_id} of graph g0"):
        await world.start(other, idempotency_key="k")
