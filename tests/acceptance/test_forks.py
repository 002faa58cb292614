"""Forks through the whole runtime: from every execution of lifetimes of every shape, and of random ones.

The shapes that take no hours are forked on the servers, too. The other stories here are told on virtual time alone:
they take hours, or ask a process what is in flight in it, or everything in the database is theirs.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.acceptance.fleet import Fleet
from tests.histories.shapes import SHAPES, Story
from tests.histories.stage import Stage, perform
from tests.orchestrator.driver import graph as drawn
from tests.orchestrator.test_forking import check_fork, digest, executions
from tests.parity.shapes import RECORDED
from tests.parity.stages import cloud
from tests.simulation.test_core import random_graph
from tickwork.errors import UsageError
from tickwork.history import FORK_LABEL
from tickwork.model.graph import Human, Node
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.replay import ENDS
from tickwork.ports import LifetimeQuery

PARTS = 4


async def fork_everywhere(stage: Stage, parent: Lifetime) -> list[Lifetime]:
    """Forks at each execution, waits for each fork to settle, and holds it against its parent."""
    log = await stage.log(parent.lifetime_id)
    before = digest(log)
    ended = next((e.seq for e in log if isinstance(e.entry, Event) and e.entry.type in ENDS), len(log))

    async def fork_at(seq: int) -> Lifetime:
        fork = await stage.history.fork(parent.lifetime_id, log[seq - 1].entry.entry_id, by="ann")
        settled = await stage.settle(fork.lifetime_id)
        check_fork(log, await stage.log(fork.lifetime_id), seq, fork.lifetime_id)
        assert settled.labels[FORK_LABEL] == parent.lifetime_id
        return settled

    for seq in executions(log):
        if seq > ended:
            with pytest.raises(UsageError, match="after the lifetime had ended"):
                await stage.history.fork(parent.lifetime_id, log[seq - 1].entry.entry_id)
    forks = await asyncio.gather(*(fork_at(seq) for seq in executions(log) if seq <= ended))
    assert digest(await stage.log(parent.lifetime_id)) == before
    return forks


async def check_all(stage: Stage) -> None:
    """Forks every lifetime that the story left everywhere; then everything is replayed."""
    stage.gate.set()
    await stage.sleep(1)
    await check_these(stage, await stage.service.list(LifetimeQuery(limit=1_000)))
    for lifetime in await stage.service.list(LifetimeQuery(limit=100_000)):
        await identical(stage, lifetime)


async def check_these(stage: Stage, told: list[Lifetime]) -> None:
    """Forks these lifetimes everywhere, and replays what came of it."""
    for parent in told:
        for fork in await fork_everywhere(stage, parent):
            questions = await stage.runtime.store.questions("default", fork.lifetime_id)
            assert fork.ended or questions, f"{fork.lifetime_id} of {parent.lifetime_id} is {fork.status}"
            await identical(stage, fork)
        await identical(stage, parent)


async def identical(stage: Stage, lifetime: Lifetime) -> None:
    replayed = await stage.history.replay(lifetime.lifetime_id)
    assert replayed.divergence is None, replayed.divergence


@pytest.mark.parametrize("name", SHAPES)
def test_from_every_execution_of_every_shape(name: str) -> None:
    story: Story = SHAPES[name]

    async def tell(stage: Stage) -> None:
        await story.tell(stage)
        await check_all(stage)

    perform(name, tell)


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
def test_from_every_execution_of_every_shape_on_the_servers(part: int, fleet: Fleet) -> None:
    """Those that need no virtual time, in the processes of the fleet."""

    async def go() -> None:
        async with cloud(fleet) as place:
            for name in RECORDED[part::PARTS]:
                try:
                    stage, told = await place.tell(SHAPES[name])
                    await check_these(stage, told)
                except BaseException as error:
                    error.add_note(f"in the story `{name}`")
                    raise

    fleet.perform(go())


@pytest.mark.parametrize("block", range(4))
def test_from_every_execution_of_random_lifetimes(block: int) -> None:
    for seed in range(block, 16, 4):

        async def tell(stage: Stage, seed: int = seed) -> None:
            graph = random_graph(random.Random(seed))
            kinds = graph.node

            def does(ctx: Any) -> Any:
                rng = random.Random(f"{seed}/{ctx.exec_id}")
                if rng.random() < 0.05:
                    return ValueError("now and then")
                if kinds[ctx.node].kind == "task":
                    return {"n": rng.randint(0, 9)}
                edges = graph.outgoing[ctx.node]
                parallel = [edge.target for edge in edges if edge.kind == "PARALLEL"]
                if ctx.iteration > 2 or "/" in ctx.branch:
                    return []
                edge = rng.choice(edges)
                return rng.choices(parallel, k=2) if edge.kind == "PARALLEL" else edge.target

            one = await stage.start(graph, {node.name: does for node in graph.nodes}, {"n": seed})
            await stage.end(one)
            if len(await stage.log(one)) <= 60:
                await check_all(stage)

        perform(f"random/{seed}", tell)


def test_a_running_parent_is_not_touched_and_both_go_on() -> None:
    line = SHAPES["paused_and_resumed"].graphs[0]

    async def tell(stage: Stage) -> None:
        one = await stage.start(line, {"plan": "b", "b": lambda ctx: stage.held()})
        await stage.sleep(1)
        fork = await stage.history.fork(one, "plan")
        await stage.sleep(1)
        activity = stage.runtime.service.settling.activity
        assert activity is not None
        assert activity(one)[0] == activity(fork.lifetime_id)[0] == 1
        stage.gate.set()
        ended = await asyncio.gather(stage.end(one), stage.end(fork.lifetime_id))
        assert [lifetime.status for lifetime in ended] == ["COMPLETED", "COMPLETED"]

    perform("beside", tell)


def test_a_deadline_keeps_the_time_that_was_left() -> None:
    """Asked for 60 s, and the last shared entry came 10 s later: whenever it is forked, the fork has 50 s left."""
    ask = Node(name="ask", kind="task", human=Human(prompt="?", deadline=60.0, default="late"))
    graph = drawn("start -> mark", "start -> ask", "mark >> plan", "ask >> plan", "plan -> ask", "plan -> end", ask=ask)

    async def tell(stage: Stage) -> None:
        one = await stage.start(graph, {"mark": lambda ctx: asyncio.sleep(10), "plan": "end"})
        await stage.end(one)
        await stage.sleep(3600)
        fork = await stage.history.fork(one, "mark")
        (question,) = await stage.runtime.store.questions("default", (await stage.settle(fork.lifetime_id)).lifetime_id)
        assert question.deadline == fork.created_at + 50_000_000
        ended = await stage.end(fork.lifetime_id)
        assert ended.finished_at is not None
        assert ended.finished_at - fork.created_at == pytest.approx(50e6, abs=1e5)

    perform("deadline", tell)


def test_a_result_of_what_was_given_up_is_refused() -> None:
    story = SHAPES["final_with_open_branches"]

    async def tell(stage: Stage) -> None:
        await story.tell(stage)
        (one,) = await stage.service.list(LifetimeQuery())
        cancelled = [
            e.entry.exec_id
            for e in await stage.log(one.lifetime_id)
            if isinstance(e.entry, Execution) and e.entry.status == "CANCELLED"
        ]
        with pytest.raises(UsageError, match="given up before its record came"):
            await stage.history.fork(one.lifetime_id, cancelled[0], result=1)
        with pytest.raises(UsageError, match=r"the result cannot be recorded: \$ is nan"):
            await stage.history.fork(one.lifetime_id, cancelled[0], result=float("nan"))
        assert len(await stage.service.list(LifetimeQuery())) == 1

    perform("given up", tell)


def test_a_large_result_is_replayed_and_forked_too() -> None:
    """Over 1 MiB it lies in the blob store, and a condition reads it."""
    graph = SHAPES["condition_first"].graphs[0]
    large = {"n": 3, "text": "x" * 1_100_000}

    async def tell(stage: Stage) -> None:
        one = await stage.run(graph, {"a": large, "plan_odd": "end", "plan_big": "end"})
        log: list[LogEntry] = await stage.log(one)
        done = log[1].entry
        assert isinstance(done, Execution)
        assert done.result is not None
        assert done.result.uri
        assert (await stage.history.replay(one)).divergence is None
        fork = await stage.history.fork(one, "a", result={"n": 11, "text": "y" * 1_100_000})
        ended = await stage.end(fork.lifetime_id)
        assert ended.status == "COMPLETED"
        assert [e.entry.name for e in await stage.log(ended.lifetime_id) if isinstance(e.entry, Execution)][
            -1
        ] == "plan_big"
        assert (await stage.history.replay(ended.lifetime_id)).divergence is None
        marks = [e.entry for e in await stage.log(ended.lifetime_id) if isinstance(e.entry, Event)]
        assert [mark.type for mark in marks] == ["started", "forked", "completed"]

    perform("large", tell)
