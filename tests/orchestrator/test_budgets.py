"""Budgets as properties: how far a limit can be passed, and that what is kept count of is what was recorded.

The bound, as docs/guarantees.md has it: at each admission all that is spent, all that is reserved and the new attempt's
own maximum stay within the limit. So a limit is never passed by more than what the attempts that were in flight at the
last admission use beyond their declared maxima; with no maximum declared, that is all that they use.
"""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.orchestrator.guarded import GuardedRun, policies
from tests.simulation.test_core import behaviour, random_graph
from tickwork import Graph, RetryPolicy, human, plan, task
from tickwork.model.graph import AgentGraph, Maximum, Node
from tickwork.model.policy import Match, PolicySet
from tickwork.model.records import Event, Execution, Telemetry
from tickwork.model.spending import Quantity
from tickwork.model.tallies import Balances, Uses
from tickwork.model.windows import EVER
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.state import LifetimeState, Visit
from tickwork.testing.harness import run_graph
from tickwork.testing.simulation import laws

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STEPS = 150

WATCHING = policies(
    "{name: tokens, when: sum(tokens_used) > 1, action: warn}",
    "{name: plans, when: sum(cost_usd) > 0.5, action: warn, match: {kind: plan}}",
    "{name: some, when: count() > 1, action: warn, match: {name: ['task*']}}",
    "{name: loops, when: iterations('plan0') > 1, action: warn}",
    "{name: most, when: max(tokens_in) > 5, action: warn, match: {model: [m-1]}}",
    "{name: mean, when: avg(tokens_used) > 5, action: warn}",
    "{name: pages, when: sum(custom.pages) > 5, action: warn}",
)
"""Policies that count and stop nothing."""


def declared(seed: int, share: float) -> AgentGraph:
    """A random graph in which a share of the nodes declares a maximum."""
    dice = random.Random(f"declared/{seed}")
    graph = random_graph(random.Random(seed))

    def with_maximum(node: Node) -> Node:
        if dice.random() >= share:
            return node
        return msgspec.structs.replace(node, maximum=Maximum(tokens=dice.randint(0, 12), cost_usd="0.01"))

    return msgspec.structs.replace(graph, nodes=tuple(with_maximum(node) for node in graph.nodes))


def telemetry(seed: int, nonsense: float = 0.1) -> Any:
    """What an attempt says that it used: it depends on the attempt alone, and may be nonsense."""

    def used(visit: Visit) -> Telemetry | None:
        dice = random.Random(f"used/{seed}/{visit.exec_id}")
        kind = dice.random()
        if kind < 0.15:
            return None
        tokens = dice.randint(0, 9)
        found = Telemetry(
            tokens, 1, tokens + 1, dice.randint(0, 9) * 10**8, dice.choice([None, "m-1", "m-2"]), {"pages": tokens}
        )
        if kind < 0.15 + nonsense:
            wrong: dict[str, Any] = dice.choice([
                {"tokens_used": -5}, {"custom": {"pages": float("nan")}}, {"custom": {"pages": "many"}},
                {"cost_nano_usd": -10}, {"unpriced": True}, {"tokens_in": 2**40, "tokens_used": 40},
            ])  # fmt: skip
            found = msgspec.structs.replace(found, **wrong)
        return found

    return used


# -- the bound --------------------------------------------------------------------------------------------------------


@SLOW
@example(seed=3348609, limit=0, share=0.0, action="pause_lifetime", resumes=1)  # a resume lets one out
@given(
    seed=st.integers(0, 1 << 32),
    limit=st.integers(0, 120),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    action=st.sampled_from(["pause_lifetime", "reject_execution", "abort_lifetime"]),
    resumes=st.integers(0, 3),
)
def test_a_limit_is_passed_by_no_more_than_what_was_in_flight_used_beyond_its_word(
    seed: int, limit: int, share: float, action: str, resumes: int
) -> None:
    budget = policies(f"{{name: budget, when: sum(tokens_used) > {limit}, action: {action}}}")
    run = GuardedRun(declared(seed, share), behaviour(seed), (budget,), seed, used=telemetry(seed)).start()
    flying: list[Visit] = list(run.in_flight)
    seen = len(run.trace)
    for _ in range(STEPS):
        if run.status == "PAUSED" and resumes:
            resumes -= 1
            run.say("resumed")
            if len(run.trace) > seen:
                seen, flying = len(run.trace), list(run.in_flight)
        if not run.in_flight:
            break
        run.complete(run.in_flight.pop(run.random.randrange(len(run.in_flight))))
        if len(run.trace) > seen:
            seen, flying = len(run.trace), list(run.in_flight)
        allowed = limit + sum(beyond(run, visit) for visit in flying)
        assert spent(run) <= allowed, f"{spent(run)} is spent, {allowed} is the most"
    run.replayed()


def spent(run: GuardedRun) -> int:
    return sum(laws.use_or_nothing(e.entry, "tokens_used") for e in run.log if isinstance(e.entry, Execution))


def beyond(run: GuardedRun, visit: Visit) -> int:
    used = run.used(visit)
    tokens = max(0, used.tokens_used) if used is not None else 0
    return max(0, tokens - (run.topology.nodes[visit.node].maximum.tokens or 0))


# -- what is kept count of --------------------------------------------------------------------------------------------


@SLOW
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 60))
def test_counters_are_what_a_sum_over_the_log_says(seed: int, steps: int) -> None:
    run = watched(seed, steps, WATCHING)
    used = [laws.Used(e.entry, is_made(e.entry)) for e in run.log if isinstance(e.entry, Execution)]
    guard = run.state.guard
    assert guard is not None
    for watch in guard.watches:
        law = laws.Law(next(one for one in WATCHING.policies if one.label == watch.rule.label))
        graph = run.topology.graph
        mine = [u for u in used if law.about(graph, {}, u.done.name, laws.model_of(u.done))]
        for clause, counter in zip(law.clauses, watch.counters, strict=True):
            amount = counter.amount(0)
            if isinstance(amount, tuple):
                amount = Decimal(amount[0]) / amount[1]  # type: ignore[assignment]  # as the other side has it
            expected = laws.amount_of(clause, mine, 0)
            unit = laws.units(clause.of) if clause.of and clause.what != "iterations" else 1
            assert (None if amount is None else Decimal(amount) / unit) == expected, watch.rule.label


@SLOW
@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 60))
def test_policies_that_come_late_count_as_if_they_had_been_there(seed: int, steps: int) -> None:
    run = watched(seed, steps, PolicySet(), nonsense=0.0)  # what cannot be measured would stop only the other one
    if run.state.ending is not None:
        return
    run.install(WATCHING.digest)
    always = LifetimeState("default", run.lifetime_id, run.topology, run.rules.__getitem__)
    for logged in run.log[:-1]:
        entry = logged.entry
        if isinstance(entry, Event) and entry.type == "started":
            logged = msgspec.structs.replace(  # noqa: PLW2901 - the same entry, with policies
                logged, entry=Event(entry.id, entry.type, {**entry.data, "policies": WATCHING.digest})
            )
        fold(always, logged)
    assert counters(run.state) == counters(always)


@SLOW
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 60), order=st.randoms(use_true_random=False))
def test_the_order_of_records_and_of_commits_does_not_matter(seed: int, steps: int, order: random.Random) -> None:
    done = [e.entry for e in watched(seed, steps, PolicySet()).log if isinstance(e.entry, Execution)]
    quantities = [
        Quantity("tokens_used"),
        Quantity("executions"),
        Quantity("cost_usd", Match(kind="plan")),
        Quantity("custom.pages", Match(name=("task*",))),
        Quantity("tokens_in", Match(model=("m-1",))),
    ]
    sums = []
    for shuffled in (False, True):
        balances = Balances()
        balances.open("acme", balances.due("acme", quantities, 0))
        entries = list(done)
        if shuffled:
            order.shuffle(entries)
        while entries:
            uses = Uses()
            size = order.randint(1, len(entries)) if shuffled else len(entries)
            for entry in entries[:size]:
                uses.add(("acme", "test", "{}"), EVER + 1, entry)
            del entries[:size]
            balances.count(uses)
        sums.append([msgspec.structs.astuple(total) for total in balances.totals("acme", quantities)])
    assert sums[0] == sums[1]


def watched(seed: int, steps: int, first: PolicySet, nonsense: float = 0.1) -> GuardedRun:
    """A random lifetime, so far."""
    used = telemetry(seed, nonsense)
    run = GuardedRun(declared(seed, 0.5), behaviour(seed), (first, WATCHING), seed, used=used).start()
    while run.in_flight and steps:
        steps -= 1
        visit = run.in_flight.pop(run.random.randrange(len(run.in_flight)))
        done = run.execution(visit, run.behave(visit, run))
        run.append(done)
        assert not run.append(done), "a duplicate is no new entry"
        if run.status == "PAUSED":  # what cannot be evaluated stops it
            run.say("resumed")
    return run


def is_made(done: Execution) -> bool:
    return done.status != "CANCELLED" and done.executor != "tickwork"


def counters(state: LifetimeState) -> dict[str, Any]:
    assert state.guard is not None
    return {
        watch.rule.label: [
            (counter.name, counter.of, counter.amount(0), counter.reserved) for counter in watch.counters
        ]
        for watch in state.guard.watches
    }


# -- what the simulation has found ------------------------------------------------------------------------------------


def one_task(**options: Any) -> Any:
    @task(retry=RetryPolicy(max_attempts=3, initial_interval=0), **options)
    def work(job: Any, ctx: Any) -> Any:
        ctx.telemetry.record(tokens_used=100, cost_usd="0.01")
        return {"n": 1, "pad": "x" * 2_000_000 if job == "large" else ""}

    return Graph("one", "1.0.0").start(work).final(work).bind()


def document(*lines: str) -> str:
    return "version: 1\npolicies:\n" + "".join(f"  - {line}\n" for line in lines)


def test_a_condition_on_telemetry_does_not_mind_a_result_that_lies_in_a_blob() -> None:
    policy = document("{name: few, scope: execution, when: telemetry.tokens_used > 500, action: warn}")
    outcome = run_graph(one_task(), "large", policies=policy)
    assert outcome.status == "COMPLETED"
    assert not outcome.events("verdict")


def test_an_effect_that_was_made_once_is_not_made_again_because_its_result_was_rejected() -> None:
    policy = document("{name: none, scope: execution, when: result.n == 1, action: reject_execution}")
    outcome = run_graph(one_task(effect="at_most_once"), policies=policy)
    assert outcome.status == "FAILED"
    assert outcome.calls("work") == 1
    assert run_graph(one_task(), policies=policy).calls("work") == 3


@pytest.mark.parametrize("actions", [("reject_execution", "abort_lifetime"), ("abort_lifetime", "pause_lifetime")])
def test_of_a_tenants_policies_too_the_strictest_is_done(actions: tuple[str, str]) -> None:
    lines = [f"{{name: p{i}, scope: tenant, when: count() > 0, action: {action}}}" for i, action in enumerate(actions)]
    outcome = run_graph(one_task(), policies=document(*lines))
    assert outcome.status == "ABORTED"
    assert not [record for record in outcome.records("work") if record.started_at]


def test_a_limit_of_time_that_no_clock_can_reach_stops_nothing() -> None:
    outcome = run_graph(one_task(), policies=document("{name: never, when: elapsed() > 1e17, action: abort_lifetime}"))
    assert outcome.status == "COMPLETED"


def test_an_answer_that_was_rejected_is_asked_for_again() -> None:
    @plan
    def begin(job: Any, ctx: Any) -> str:
        return "ask"

    graph = Graph("asking", "1.0.0").start(begin).then(begin, human("ask", prompt="Well?")).final("ask").bind()
    policy = document("{name: sure, scope: execution, when: result.ok == false, action: reject_execution}")
    policy = policy.replace("scope: execution,", "scope: execution, match: {name: ask},")
    outcome = run_graph(graph, answers={"ask": [{"ok": False}, {"ok": True}]}, policies=policy)
    assert (outcome.status, outcome.result) == ("COMPLETED", {"ok": True})
    assert outcome.calls("ask") == 2


def test_a_worker_cannot_lower_what_a_lifetime_has_used() -> None:
    @plan
    def begin(job: Any, ctx: Any) -> str:
        ctx.telemetry.record(tokens_used=100, cost_usd="0.01")
        return "work"

    @task
    def work(job: Any, ctx: Any) -> Any:
        ctx.telemetry.record(tokens_used=1, cost_usd=0)
        ctx.telemetry.totals = msgspec.structs.replace(ctx.telemetry.totals, tokens_used=-9, cost_nano_usd=-9)
        return 1

    graph = Graph("liar", "1.0.0").start(begin).then(begin, work).final(work).bind()
    outcome = run_graph(graph)
    assert (outcome.tokens_used, str(outcome.cost_usd)) == (100, "0.01")
