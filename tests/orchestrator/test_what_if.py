"""Recorded lifetimes judged again under other policies: what is found is what a run under them would have shown."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tickwork import Context, Graph, RetryableError, RetryPolicy, human, plan, task
from tickwork.errors import AlreadyEnded
from tickwork.formats.policies import read_policies
from tickwork.model.ids import exec_id
from tickwork.model.policy import PolicyDocument, PolicySet, effective
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.guardrails.past import Past
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.guardrails.whatif import Rejudged, Rejudging
from tickwork.orchestrator.topology import Topology
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import TestOutcome, run_graph


def policies(*lines: str) -> PolicyDocument:
    return read_policies("version: 1\npolicies:\n" + "\n".join(f"  - {line}" for line in lines) + "\n")


def rules(document: PolicyDocument | None, graph: str) -> Rules:
    """As of policies that are given to one lifetime alone."""
    return Rules(effective((), "default", graph, document) if document is not None else PolicySet())


def rejudge(graph: BoundGraph, log: list[LogEntry], document: PolicyDocument | None, now: int = 0) -> Rejudged:
    past = Past()
    for logged in log:
        past.look(logged)
    owner = log[0].entry
    assert isinstance(owner, Event)
    judging = Rejudging(
        Topology(graph.graph), rules(document, graph.graph.name), past, owner.data["lifetime_id"], "default"
    )
    for logged in log:
        judging.feed(logged)
    return judging.finish(now or log[-1].at)


def first_stop(log: list[LogEntry]) -> tuple[Any, ...] | None:
    """What the policies in force stopped first, as the log tells it."""
    said: dict[str, dict[str, Any]] = {}
    # What had failed anyhow, and time that passes without an execution, cannot be rejected.
    failed = {""} | {e.entry.exec_id for e in log if isinstance(e.entry, Execution) and e.entry.status == "FAILED"}
    rejected: tuple[Any, ...] | None = None
    for entry in [logged.entry for logged in log]:
        if not isinstance(entry, Event):
            continue
        data = entry.data
        if entry.type == "verdict":
            said[data["policy"]] = data
            at_all = (data["at"] == "dispatch" and data["exec_id"]) or data["exec_id"] not in failed
            if data["action"] == "reject_execution" and not data["shadow"] and at_all:
                rejected = rejected or ("reject_execution", *place(data))
        elif entry.type in ("paused", "aborted") and data.get("policy"):
            found = (f"{'pause' if entry.type == 'paused' else 'abort'}_lifetime", *place(said[data["policy"]]))
            # At one place the strictest acts; a rejection elsewhere came before.
            return found if rejected is None or rejected[2:] == found[2:] else rejected
    return rejected


def place(data: dict[str, Any]) -> tuple[Any, ...]:
    return data["policy"], data["exec_id"], data["at"], data["node"]


def named(found: Rejudged) -> tuple[Any, ...] | None:
    stop = found.stop
    return None if stop is None else (stop.action, stop.policy, stop.exec_id, stop.place, stop.node)


def where(record: Execution) -> tuple[Any, ...]:
    return record.branch, record.name, record.iteration, record.attempt


def in_run(stop: tuple[Any, ...] | None, free: TestOutcome, bound: TestOutcome) -> tuple[Any, ...] | None:
    """A stop of one lifetime, by the ids of another one of the same course."""
    if stop is None or not stop[2]:
        return stop
    record = next(record for record in free.records() if record.exec_id == stop[2])
    return (*stop[:2], exec_id(bound.lifetime_id, *where(record)), *stop[3:])


def loop(turns: int = 9, **options: Any) -> BoundGraph:
    @plan
    def again(job: Any, ctx: Context) -> str:
        return "work" if ctx.iteration < turns else "end"

    @task(**options)
    def work(job: Any, ctx: Context) -> Any:
        ctx.telemetry.record(tokens_used=1_000, cost_usd="0.01", model="m-1")
        return {"turn": ctx.iteration}

    graph = Graph("loop", "1.0.0")
    graph.start(again)
    graph.then(again, work)
    graph.edge(work, again)
    graph.final(again)
    return graph.bind()


def wide(seed: int) -> BoundGraph:
    """A loop around fan-outs whose Tasks fail, wait and use what a seed says, each time the same."""
    dice = random.Random(seed)
    rounds, retried = dice.randint(1, 4), dice.randint(1, 3)
    maxima: list[dict[str, Any]] = [
        {"maximum": dice.choice([{}, {"tokens": 500}, {"tokens": 90, "cost_usd": "0.02"}])} for _ in range(2)
    ]

    @plan
    def lead(job: Any, ctx: Context) -> Any:
        dice = random.Random(f"{seed}/{ctx.iteration}")
        if ctx.iteration >= rounds:
            return "end"
        return dice.choice([["dig", "build"], ["dig", "dig", "build"], ["build"] * 4])

    @task(retry=RetryPolicy(max_attempts=retried, initial_interval=0.5), **maxima[0])
    async def dig(job: Any, ctx: Context) -> Any:
        return await labour(ctx)

    @task(retry=RetryPolicy(max_attempts=retried, initial_interval=0), **maxima[1])
    async def build(job: Any, ctx: Context) -> Any:
        return await labour(ctx)

    async def labour(ctx: Context) -> Any:
        dice = random.Random(f"{seed}/{ctx.branch}/{ctx.iteration}/{ctx.attempt}/{ctx.node}")
        await asyncio.sleep(dice.random() * 3)
        ctx.telemetry.record(
            tokens_used=dice.randint(0, 500), cost_usd=f"0.{dice.randint(0, 40):03}", model=dice.choice(["m-1", "m-2"])
        )
        if dice.random() < 0.25:
            raise RetryableError("not today")
        return {"n": dice.randint(0, 9)}

    graph = Graph(f"wide{seed}", "1.0.0")
    graph.start(lead)
    graph.parallel(lead, dig, build)
    graph.join(dig, lead, mode="settled").join(build, lead, mode="settled")
    graph.final(lead)
    return graph.bind()


def some_policies(seed: int) -> PolicyDocument:
    dice = random.Random(f"policies/{seed}")
    actions = ["warn", "reject_execution", "pause_lifetime", "abort_lifetime"]
    whens = [
        lambda: f"sum(tokens_used) > {dice.randint(100, 4000)}",
        lambda: f"sum(cost_usd) > 0.{dice.randint(1, 40):02}",
        lambda: f"count() >= {dice.randint(2, 30)}",
        lambda: f"iterations('lead') > {dice.randint(1, 4)}",
        lambda: f"max(tokens_used) > {dice.randint(300, 500)}",
        lambda: f"elapsed() > {dice.randint(1, 12)}",
        lambda: f"result.n > {dice.randint(5, 9)}",
        lambda: "telemetry.model == 'm-2' && count() > 3",
    ]
    lines = []
    for index in range(dice.randint(1, 4)):
        match = dice.choice(["", ", match: {kind: task}", ", match: {name: dig}", ", match: {model: m-1}"])
        shadow = ", shadow: true" if dice.random() < 0.2 else ""
        action = dice.choice(actions)
        lines.append(f'{{name: p{index}, when: "{dice.choice(whens)()}", action: {action}{match}{shadow}}}')
    return policies(*lines)


BLOCKS = [*range(1), *[pytest.param(block, marks=pytest.mark.slow) for block in range(1, 40)]]


@pytest.mark.parametrize("block", BLOCKS)
def test_it_names_the_stop_that_a_run_under_these_policies_meets(block: int) -> None:
    kinds = set()
    for seed in range(block * 10, block * 10 + 10):
        graph, document = wide(seed), some_policies(seed)
        free = run_graph(graph)
        bound = run_graph(graph, policies=document)
        found = rejudge(graph, free.log, document)
        assert in_run(named(found), free, bound) == first_stop(bound.log), seed
        kinds.add(found.stop.action if found.stop is not None else "none")
        if found.stop is None:
            assert bound.status == free.status
        elif found.stop.action != "reject_execution":
            done = {where(record) for record in bound.records() if record.status != "CANCELLED"}
            rest = [record for record in free.records() if where(record) not in done and record.status != "CANCELLED"]
            # A paused run is looked at before what is under way is recorded.
            assert found.saved.executions <= len(rest) <= found.saved.executions + found.in_flight.executions
            assert found.saved.tokens_used <= tokens(rest) <= found.saved.tokens_used + found.in_flight.tokens_used
    assert len(kinds) > 1


def tokens(records: list[Execution]) -> int:
    return sum(record.telemetry.tokens_used for record in records if record.telemetry is not None)


@pytest.mark.parametrize("block", BLOCKS)
def test_judged_again_by_the_policies_that_were_in_force_nothing_changes(block: int) -> None:
    """The log of a lifetime that was stopped, and resumed each time, under the same set: the same stops."""
    stops = 0
    for seed in range(block * 10, block * 10 + 10):
        graph, document = wide(seed), some_policies(seed)
        try:
            outcome = run_graph(graph, policies=document, raised=[{}] * 5)
        except AlreadyEnded:
            continue  # what was under way when it was paused has had it aborted before it could be resumed
        found = rejudge(graph, outcome.log, document)
        assert named(found) is None, seed
        assert found.spared == [], seed
        stops += found.unchanged
    assert stops


def test_without_any_policies_all_that_was_stopped_is_spared() -> None:
    document = policies("{name: budget, when: sum(tokens_used) > 3500, action: pause_lifetime}")
    outcome = run_graph(loop(), policies=document, raised=[{"budget": "20000"}])
    assert outcome.status == "COMPLETED"
    found = rejudge(loop(), outcome.log, None)

    (spared,) = found.spared
    assert (spared.action, spared.policy, spared.node) == ("pause_lifetime", "run/budget", "work")
    assert found.stop is None
    assert found.unknown_from is None


def test_what_is_saved_is_what_was_recorded_after_the_stop() -> None:
    outcome = run_graph(loop(maximum={"tokens": 1_000}))
    document = policies("{name: budget, when: sum(tokens_used) > 3500, action: abort_lifetime}")
    found = rejudge(loop(maximum={"tokens": 1_000}), outcome.log, document)

    assert found.stop is not None
    assert (found.stop.place, found.stop.node, found.stop.values) == ("dispatch", "work", {"sum(tokens_used)": "4000"})
    before = outcome.log[found.stop.seq - 1].entry
    assert isinstance(before, Execution)
    assert (before.name, before.iteration) == ("again", 3)
    assert found.saved.tokens_used == 6_000
    assert found.saved.cost_nano_usd == 60_000_000
    assert found.used.tokens_used == 9_000
    assert found.in_flight.executions == 0


def test_a_raise_and_a_rejection_of_then_are_followed_as_far_as_they_hold() -> None:
    @plan
    def ask(job: Any, ctx: Context) -> str:
        return "shell"

    @task(retry=RetryPolicy(max_attempts=3, initial_interval=0))
    def shell(job: Any, ctx: Context) -> Any:
        ctx.telemetry.record(tokens_used=100)
        return {"command": "rm -rf /" if ctx.attempt < 3 else "ls"}

    made = Graph("shell", "1.0.0")
    made.start(ask)
    made.then(ask, shell)
    made.final(shell)
    graph = made.bind()
    no_shell = (
        "{name: no-shell, scope: execution, match: {name: shell}, "
        "when: \"result.command.contains('rm')\", action: reject_execution}"
    )
    outcome = run_graph(graph, policies=policies(no_shell))
    assert outcome.status == "COMPLETED"

    also = rejudge(
        graph, outcome.log, policies(no_shell, "{name: cap, when: sum(tokens_used) > 250, action: abort_lifetime}")
    )
    assert also.unchanged == 2
    assert also.stop is not None
    assert also.stop.policy == "run/cap"

    without = rejudge(graph, outcome.log, None)
    assert [spared.action for spared in without.spared] == ["reject_execution"]
    assert without.unknown_from == without.spared[0].seq

    free = run_graph(graph)
    found = rejudge(graph, free.log, policies(no_shell))
    assert found.stop is not None
    assert found.stop.action == "reject_execution"
    assert found.unknown_from == found.stop.seq + 1
    assert found.saved.executions == 0


def test_a_deadline_that_passes_while_nothing_is_recorded() -> None:
    graph = Graph("slow", "1.0.0")
    waits = human("ask", prompt="?", deadline=3_600, default="late")
    graph.start(waits)
    graph.final(waits)
    bound = graph.bind()
    outcome = run_graph(bound)
    document = policies("{name: hour, when: elapsed() > 60, action: abort_lifetime}")
    found = rejudge(bound, outcome.log, document)
    assert named(found) == first_stop(run_graph(bound, policies=document).log)
    assert found.stop is not None
    assert found.stop.at == outcome.log[0].at + 60_000_001

    waiting = [logged for logged in outcome.log if logged.at < found.stop.at]
    assert rejudge(bound, waiting, document).stop is None
    assert rejudge(bound, waiting, document, now=found.stop.at + 1).stop is not None


def test_a_policy_that_cannot_be_evaluated_pauses_and_says_so() -> None:
    document = policies("{name: odd, scope: execution, match: {name: work}, when: result.missing > 1, action: warn}")
    found = rejudge(loop(), run_graph(loop()).log, document)
    assert found.stop is not None
    assert (found.stop.action, found.stop.failed, found.stop.node) == ("pause_lifetime", True, "work")


def test_warnings_and_shadows_are_counted_and_stop_nothing() -> None:
    document = policies(
        "{name: soft, when: sum(tokens_used) > 2000, action: warn}",
        "{name: trial, when: sum(tokens_used) > 3000, action: abort_lifetime, shadow: true}",
    )
    found = rejudge(loop(), run_graph(loop()).log, document)
    assert found.stop is None
    assert found.verdicts["run/soft"] == {"warn": 1}
    assert found.verdicts["run/trial"]["shadow"] >= 1
