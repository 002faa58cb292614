"""The past of a whole tenant judged again: sums over lifetimes, windows, children, forks, blobs, and what is listed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tickwork import Context, Graph, Next, child, plan, task
from tickwork.clock import RandomIds
from tickwork.formats.policies import read_policies
from tickwork.hindsight import Hindsight, Trial, beside
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.policy import PolicyDocument
from tickwork.model.records import Event, LogEntry
from tickwork.orchestrator.findings import Findings, Judged
from tickwork.ports import StoredPolicies
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.virtual import VirtualClock, run_virtual


def policies(*lines: str, **owner: str) -> PolicyDocument:
    head = "".join(f"{name}: {value}\n" for name, value in owner.items())
    return read_policies(f"version: 1\n{head}policies:\n" + "\n".join(f"  - {line}" for line in lines) + "\n")


def loop(name: str = "loop", size: int = 0, **options: Any) -> BoundGraph:
    """As many Tasks as its input says, a minute each, for a cent and a thousand tokens."""

    @plan
    def again(job: Any, ctx: Context) -> str:
        return "work" if ctx.iteration < ctx.lifetime.input else "end"

    @task(**options)
    async def work(job: Any, ctx: Context) -> Any:
        await asyncio.sleep(60)
        ctx.telemetry.record(tokens_used=1_000, cost_usd="0.01", model="m-1")
        return {"turn": ctx.iteration, "text": "x" * size}

    graph = Graph(name, "1.0.0")
    graph.start(again)
    graph.then(again, work)
    graph.edge(work, again)
    graph.final(again)
    return graph.bind()


def in_runtime(work: Callable[[Runtime], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        clock = VirtualClock(asyncio.get_running_loop())
        async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=1), threads=0) as runtime:
            return await work(runtime)

    return run_virtual(go())


async def ran(runtime: Runtime, graph: BoundGraph, turns: int, **labels: str) -> str:
    stored = await runtime.bind(graph)
    one = await runtime.service.start(stored.digest, turns, labels=labels)
    await runtime.guard(runtime.service.wait(one.lifetime_id, until="settled"))
    return one.lifetime_id


async def judged(runtime: Runtime, *documents: PolicyDocument, **options: Any) -> Findings:
    blobs = runtime.profile.open_blobs(runtime.clock)
    await blobs.start()
    try:
        trial = Trial(documents=documents, tenants=(DEFAULT_TENANT,), **options)
        return await Hindsight(runtime.store, blobs, runtime.clock).judge(trial)
    finally:
        await blobs.stop()


async def in_force(runtime: Runtime, document: PolicyDocument) -> None:
    body = msgspec.json.encode(document)
    stored = StoredPolicies(document.tenant, document.graph, document.digest, body, runtime.clock.now())
    await runtime.store.put_policies(stored)
    await runtime.policies.refresh()


async def refused(runtime: Runtime, lifetime_id: str) -> tuple[str, str, int] | None:
    """The first dispatch that a tenant's policy refused: what it is, and how many records stand before it."""
    log: list[LogEntry] = await runtime.service.log(lifetime_id, limit=10_000)
    records = 0
    for entry in [logged.entry for logged in log]:
        if isinstance(entry, Event):
            if entry.type == "verdict" and entry.data["action"] != "warn":
                return entry.data["policy"], entry.data["node"], records
        else:
            records += 1
    return None


def executions(log: list[LogEntry]) -> int:
    return sum(not isinstance(logged.entry, Event) for logged in log)


def by_id(found: Findings) -> dict[str, Judged]:
    return {one.lifetime.lifetime_id: one for one in found.changed}


TENANT = [
    "{name: spend, scope: tenant, window: 24h, when: sum(cost_usd) > 0.12, action: pause_lifetime}",
    "{name: recent, scope: tenant, window: 3m, when: sum(tokens_used) > 2500, action: pause_lifetime}",
    "{name: tries, scope: tenant, match: {name: work}, when: count() > 9, action: abort_lifetime}",
    "{name: hourly, scope: tenant, window: {calendar: hour}, when: sum(cost_usd) > 0.07, action: pause_lifetime}",
    "{name: labelled, scope: tenant, match: {labels: {team: a*}}, when: count() > 9, action: abort_lifetime}",
]


@pytest.mark.parametrize("line", TENANT)
@pytest.mark.parametrize("declared", [{}, {"maximum": {"tokens": 1_500, "cost_usd": "0.02"}}])
def test_a_tenants_policy_refuses_where_a_run_under_it_did(line: str, declared: dict[str, Any]) -> None:
    turns = [3, 4, 1, 6, 0, 5, 2, 30]
    document = policies(line)

    async def free(runtime: Runtime) -> list[Any]:
        graph = loop(**declared)
        ids = [await ran(runtime, graph, n, team="abc" if n % 2 else "b") for n in turns]
        found = by_id(await judged(runtime, document))
        stops = [found[one].found.stop if one in found else None for one in ids]
        logs = [await runtime.service.log(one, limit=10_000) for one in ids]
        return [
            None if stop is None else (stop.policy, stop.node, executions(log[: stop.seq]))
            for stop, log in zip(stops, logs, strict=True)
        ]

    async def bound(runtime: Runtime) -> list[Any]:
        await in_force(runtime, document)
        graph = loop(**declared)
        met = []
        for n in turns:
            before = runtime.clock.now()
            one = await ran(runtime, graph, n, team="abc" if n % 2 else "b")
            met.append(await refused(runtime, one))
            # A lifetime that was stopped is over sooner; the next one starts when it did without policies.
            await runtime.clock.sleep(n * 60 - (runtime.clock.now() - before) / 1e6)
        return met

    found = in_runtime(free)
    assert found == in_runtime(bound)
    assert any(found)


def test_side_by_side_a_tenants_sums_hold_what_is_in_flight() -> None:
    """Ten lifetimes at the same time, each with one dispatch that may use 1,000 tokens: five have room."""

    async def work(runtime: Runtime) -> None:
        graph = loop(maximum={"tokens": 1_000})
        stored = await runtime.bind(graph)
        ids = [(await runtime.service.start(stored.digest, 1)).lifetime_id for _ in range(10)]
        await asyncio.gather(*[runtime.service.wait(one, until="settled") for one in ids])
        cap = "{name: cap, scope: tenant, when: sum(tokens_used) > 5000, action: pause_lifetime}"
        found = await judged(runtime, policies(cap))
        stopped = [one for one in found.changed if one.found.stop is not None]
        assert [one.found.stop.node for one in stopped if one.found.stop is not None] == ["work"] * 5
        assert found.total.killed_paused == 5
        assert found.total.saved.tokens_used == 5_000
        undeclared = (
            "{name: cap, scope: tenant, match: {name: again}, when: sum(tokens_used) > 0, action: abort_lifetime}"
        )
        assert (await judged(runtime, policies(undeclared))).total.aborted == 0

    in_runtime(work)


def test_only_what_was_asked_for_is_judged_and_windows_reach_back() -> None:
    async def work(runtime: Runtime) -> None:
        first = await ran(runtime, loop(), 4)
        await runtime.clock.sleep(600)
        since = runtime.clock.now()
        await ran(runtime, loop(), 2)
        other = await ran(runtime, loop("other"), 3)

        budget = policies("{name: budget, when: sum(tokens_used) > 1500, action: abort_lifetime}")
        assert (await judged(runtime, budget)).total.aborted == 3
        found = await judged(runtime, budget, since=since)
        assert (found.lifetimes, found.total.aborted) == (2, 2)
        assert first not in by_id(found)
        found = await judged(runtime, budget, graph="other@1.0.0")
        assert list(by_id(found)) == [other]
        assert (await judged(runtime, budget, until=since)).lifetimes == 1

        hour = policies(
            "{name: hour, scope: tenant, window: 1h, when: sum(tokens_used) > 4500, action: abort_lifetime}"
        )
        found = await judged(runtime, hour, since=since)
        assert (found.lifetimes, found.total.aborted, found.total.saved.tokens_used) == (2, 2, 4_000)
        short = policies(
            "{name: short, scope: tenant, window: 5m, when: sum(tokens_used) > 4500, action: abort_lifetime}"
        )
        assert (await judged(runtime, short, since=since)).total.aborted == 1
        found = await judged(runtime, hour, graph="other")
        assert list(by_id(found)) == [other]

    in_runtime(work)


def test_a_child_that_its_parents_stop_saves_is_not_saved_twice() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.bind(loop("inner"))

        @plan
        def turn(job: Any, ctx: Context) -> Any:
            return Next("inside", input=3) if ctx.iteration < 2 else "end"

        inside = child("inside", graph="inner")
        graph = Graph("outer", "1.0.0")
        graph.start(turn)
        graph.then(turn, inside)
        graph.edge(inside, turn)
        graph.final(turn)
        stored = await runtime.bind(graph.bind())
        outer = (await runtime.service.start(stored.digest, 3)).lifetime_id
        await runtime.guard(runtime.service.wait(outer, until="settled"))

        # Each child is stopped after two of its Tasks, the parent at the record of its first child.
        found = await judged(runtime, policies("{name: b, when: sum(tokens_used) > 1500, action: abort_lifetime}"))
        parent = by_id(found)[outer]
        assert parent.found.stop is not None
        assert (parent.found.stop.place, parent.found.stop.node) == ("record", "inside")
        assert parent.saved.tokens_used == 3_000
        assert found.total.aborted == 3
        children = sorted(one.saved.tokens_used for one in found.changed if one is not parent)
        assert children == [0, 1_000]
        assert found.total.saved.tokens_used == 4_000

    in_runtime(work)


def test_a_fork_is_judged_from_where_it_is_its_own() -> None:
    async def work(runtime: Runtime) -> None:
        graph = loop()
        parent = await ran(runtime, graph, 6)
        log = await runtime.service.log(parent, limit=100)
        place = [e.entry for e in log if not isinstance(e.entry, Event) and e.entry.name == "work"][3]
        fork = await runtime.history.fork(parent, place.exec_id)  # type: ignore[union-attr]  # no Event has passed
        await runtime.guard(runtime.service.wait(fork.lifetime_id, until="settled"))

        found = by_id(
            await judged(runtime, policies("{name: b, when: sum(tokens_used) > 1500, action: abort_lifetime}"))
        )
        assert found[parent].saved.tokens_used == 4_000
        stop = found[fork.lifetime_id].found.stop
        assert stop is not None
        assert found[fork.lifetime_id].found.used.tokens_used == 2_000
        assert found[fork.lifetime_id].saved.tokens_used <= 2_000

    in_runtime(work)


def test_a_result_that_lies_in_a_blob_is_fetched_where_a_condition_reads_it() -> None:
    async def work(runtime: Runtime) -> None:
        one = await ran(runtime, loop(size=2_000_000), 4)
        reads = "{name: odd, scope: execution, match: {name: work}, when: result.turn == 2, action: pause_lifetime}"
        found = by_id(await judged(runtime, policies(reads)))
        stop = found[one].found.stop
        assert stop is not None
        assert (stop.place, stop.node) == ("record", "work")
        assert found[one].saved.tokens_used == 1_000
        assert found[one].killed == "paused"

    in_runtime(work)


def test_policies_in_force_stay_beside_and_those_of_one_name_give_way() -> None:
    current = policies("{name: a, when: count() > 1, action: warn}", "{name: b, when: count() > 2, action: warn}")
    given = policies("{name: b, when: count() > 9, action: warn}")
    whens = [policy.when for document in beside([current], [given]) for policy in document.policies]
    assert whens == ["count() > 1", "count() > 9"]
    assert beside([given], [given]) == (given,)


def test_what_was_stopped_then_is_told() -> None:
    async def work(runtime: Runtime) -> None:
        await in_force(runtime, policies("{name: old, when: sum(tokens_used) > 1500, action: abort_lifetime}"))
        one = await ran(runtime, loop(), 5)
        found = await judged(runtime, policies("{name: new, when: sum(tokens_used) > 9000, action: abort_lifetime}"))
        assert (found.total.spared, found.total.aborted) == (1, 0)
        assert found.policies["installation/old"].spared == 1
        assert by_id(found)[one].found.unknown_from is not None
        same = await judged(runtime, policies("{name: other, when: sum(tokens_used) > 1500, action: abort_lifetime}"))
        assert (same.unchanged, same.total.spared, same.total.aborted) == (1, 0, 0)

    in_runtime(work)
