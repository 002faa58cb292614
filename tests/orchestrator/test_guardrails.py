"""Policies on whole lifetimes: what is stopped, where it stops, what the log says, and how it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tickwork import Graph, Next, RetryPolicy, human, plan, task
from tickwork.errors import UsageError
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import TestOutcome, run_graph


def loop(turns: int = 9, *, tokens: int = 1_000, cost: str = "0.01", **options: Any) -> BoundGraph:
    """A Plan that sends a Task out again and again, and then ends."""

    @plan
    def again(job: Any, ctx: Any) -> str:
        return "work" if ctx.iteration < turns else "end"

    @task(**options)
    def work(job: Any, ctx: Any) -> Any:
        ctx.telemetry.record(tokens_used=tokens, cost_usd=cost, model="m-1", pages=2)
        return {"turn": ctx.iteration}

    graph = Graph("loop", "1.0.0")
    graph.start(again)
    graph.then(again, work)
    graph.edge(work, again)
    graph.final(again)
    return graph.bind()


def policies(*lines: str) -> str:
    return "version: 1\npolicies:\n" + "\n".join(f"  - {line}" for line in lines) + "\n"


def verdicts(outcome: TestOutcome) -> list[dict[str, Any]]:
    return [event.data for event in outcome.events("verdict")]


@pytest.mark.parametrize("number", ["3000", "3 000"])
def test_the_seeds_policy_aborts_when_the_sum_is_over(number: str) -> None:
    outcome = run_graph(loop(), policies=policies(f"sum(tokens_used) > {number} -> abort_lifetime"))

    assert outcome.status == "ABORTED"
    assert outcome.tokens_used == 4_000
    assert outcome.reason is not None
    assert "sum(tokens_used) is 4,000, over 3,000" in outcome.reason
    (verdict,) = verdicts(outcome)
    assert verdict["values"] == {"sum(tokens_used)": "4000"}
    assert verdict["at"] == "record"
    assert outcome.log[-1].entry.data["policy"] == verdict["policy"] == "run/sum-tokens-used"


def test_declared_maxima_stop_before_the_limit_is_passed() -> None:
    policy = policies("{name: budget, when: sum(tokens_used) > 3500, action: pause_lifetime}")
    outcome = run_graph(loop(maximum={"tokens": 1_000}), policies=policy)

    assert outcome.status == "PAUSED"
    assert outcome.tokens_used == 3_000
    (verdict,) = verdicts(outcome)
    assert (verdict["at"], verdict["node"], verdict["values"]) == ("dispatch", "work", {"sum(tokens_used)": "4000"})
    assert outcome.reason is not None
    assert "budget" in outcome.reason


def test_a_raised_limit_goes_on_at_the_refused_dispatch_and_nothing_runs_again() -> None:
    policy = policies("{name: budget, when: sum(tokens_used) > 3500, action: pause_lifetime}")
    outcome = run_graph(loop(maximum={"tokens": 1_000}), policies=policy, raised=[{"budget": "20 000"}])

    assert outcome.status == "COMPLETED"
    assert outcome.calls("work") == 9
    assert [record.iteration for record in outcome.records("work")] == list(range(9))
    assert len(outcome.events("paused")) == 1
    assert outcome.events("resumed")[0].data["raised"] == {"run/budget": "20000"}


def test_resumed_without_a_raise_it_stops_at_the_same_place() -> None:
    policy = policies("{name: budget, when: sum(tokens_used) > 3500, action: pause_lifetime}")
    outcome = run_graph(loop(maximum={"tokens": 1_000}), policies=policy, raised=[{}, {}])

    assert outcome.status == "PAUSED"
    assert outcome.tokens_used == 3_000
    assert len(outcome.events("verdict")) == len(outcome.events("paused")) == 3


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ({"budget": "3000"}, "the limit of `run/budget` is 3,500 already"),
        ({"bugdet": "9000"}, "did you mean `budget`"),
        ({"budget": "lots"}, "number"),
        ({"no-shell": "9"}, "has no single upper limit"),
    ],
)
def test_a_raise_that_cannot_be_is_refused_and_changes_nothing(raised: dict[str, str], said: str) -> None:
    policy = policies(
        "{name: budget, when: sum(tokens_used) > 3500, action: pause_lifetime}",
        "{name: no-shell, scope: execution, when: result.turn > 100, action: warn}",
    )
    with pytest.raises(UsageError, match=said):
        run_graph(loop(maximum={"tokens": 1_000}), policies=policy, raised=[raised])


def test_an_iteration_cap_never_lets_one_more_run() -> None:
    policy = policies("{name: loop-cap, when: iterations('work') > 4, action: abort_lifetime}")
    outcome = run_graph(loop(), policies=policy)

    assert outcome.status == "ABORTED"
    assert [record.status for record in outcome.records("work")] == ["SUCCEEDED"] * 4 + ["CANCELLED"]
    assert outcome.records("work")[-1].started_at == 0


def test_a_budget_that_the_last_record_passes_does_not_keep_the_lifetime_from_ending() -> None:
    policy = policies("{name: budget, when: sum(tokens_used) > 8500, action: pause_lifetime, match: {name: work}}")
    graph = loop()
    outcome = run_graph(graph, policies=policy, raised=[{}])

    # The ninth Task passes the limit; the Plan after it is not the policy's business, but nothing is sent while paused.
    assert outcome.status == "COMPLETED"
    assert len(outcome.events("paused")) == 1


def test_a_rejected_record_is_tried_again_and_then_fails_its_branch() -> None:
    @plan
    def ask(job: Any, ctx: Any) -> str:
        return "shell"

    @task(retry=RetryPolicy(max_attempts=3, initial_interval=0))
    def shell(job: Any, ctx: Any) -> Any:
        return {"command": "rm -rf /" if ctx.attempt < job["bad"] else "ls"}

    graph = Graph("shell", "1.0.0")
    graph.start(ask)
    graph.then(ask, shell)
    graph.final(shell)
    policy = policies(
        "{name: no-shell, scope: execution, match: {kind: task, name: [run_*, shell]}, "
        "when: \"result.command.contains('rm -rf')\", action: reject_execution}"
    )
    tried = run_graph(graph.bind(), {"bad": 3}, policies=policy)
    assert tried.status == "COMPLETED"
    assert tried.result == {"command": "ls"}
    assert [record.status for record in tried.records("shell")] == ["SUCCEEDED"] * 3
    assert len(verdicts(tried)) == 2

    failed = run_graph(graph.bind(), {"bad": 9}, policies=policy)
    assert failed.status == "FAILED"
    assert failed.reason is not None
    assert failed.reason.startswith("shell: Rejected: policy run/no-shell")


def test_a_refused_dispatch_with_reject_is_a_failed_attempt_that_never_ran() -> None:
    policy = policies("{name: cap, when: count() > 6, action: reject_execution, match: {name: work}}")
    outcome = run_graph(loop(retry=RetryPolicy(max_attempts=1)), policies=policy)

    assert outcome.status == "FAILED"
    assert outcome.calls("work") == 7
    assert outcome.records("work")[-1].executor == "tickwork"


def test_a_paused_record_leads_nowhere_until_somebody_lets_it() -> None:
    policy = policies(
        "{name: look, scope: execution, when: result.turn == 2, action: pause_lifetime, match: {name: work}}"
    )
    stopped = run_graph(loop(turns=3), policies=policy)
    assert stopped.status == "PAUSED"
    assert stopped.path()[-1] == "work"

    outcome = run_graph(loop(turns=3), policies=policy, raised=[{}])
    assert outcome.status == "COMPLETED"
    assert outcome.calls("work") == 3


def test_a_shadow_policy_and_a_warning_are_recorded_once_and_stop_nothing() -> None:
    policy = policies(
        "{name: shy, when: sum(tokens_used) > 3000, action: abort_lifetime, shadow: true}",
        "{name: wary, when: sum(cost_usd) > 0.025, action: warn}",
    )
    outcome = run_graph(loop(), policies=policy)

    assert outcome.status == "COMPLETED"
    assert [(v["policy"], v["shadow"]) for v in verdicts(outcome)] == [("run/wary", False), ("run/shy", True)]


def test_what_cannot_be_evaluated_fails_closed() -> None:
    policy = policies("{name: odd, scope: execution, when: result.nothing > 1, action: warn, match: {name: work}}")
    outcome = run_graph(loop(), policies=policy)

    assert outcome.status == "PAUSED"
    (verdict,) = verdicts(outcome)
    assert verdict["action"] == "pause_lifetime"
    assert "cannot be evaluated" in verdict["error"]


def test_the_strictest_of_several_is_done() -> None:
    policy = policies(
        "{name: a, when: sum(tokens_used) > 1500, action: warn}",
        "{name: b, when: sum(tokens_used) > 1600, action: abort_lifetime}",
        "{name: c, when: sum(tokens_used) > 1700, action: pause_lifetime}",
    )
    outcome = run_graph(loop(), policies=policy)

    assert outcome.status == "ABORTED"
    assert {v["policy"] for v in verdicts(outcome)} == {"run/a", "run/b", "run/c"}


def test_elapsed_time_is_judged_even_though_nothing_is_recorded() -> None:
    @plan
    def ask(job: Any, ctx: Any) -> str:
        return "wait"

    graph = Graph("slow", "1.0.0")
    graph.start(ask)
    graph.then(ask, human("wait", prompt="Well?", deadline=120))
    graph.final("wait")
    policy = policies("{name: late, when: elapsed() > 60, action: abort_lifetime}")
    outcome = run_graph(graph.bind(), policies=policy)

    assert outcome.status == "ABORTED"
    assert outcome.duration_ms == pytest.approx(60_000, abs=1_000)


def test_a_tenants_budget_holds_over_lifetimes() -> None:
    policy = policies("{name: daily, scope: tenant, window: 24h, when: sum(cost_usd) > 0.045, action: pause_lifetime}")
    outcome = run_graph(loop(maximum={"cost_usd": "0.01"}), policies=policy)

    assert outcome.status == "PAUSED"
    assert str(outcome.cost_usd) == "0.04"
    (verdict,) = verdicts(outcome)
    assert verdict["scope"] == "tenant"
    assert verdict["values"] == {"sum(cost_usd)": "0.05"}

    raised = run_graph(loop(maximum={"cost_usd": "0.01"}), policies=policy, raised=[{"daily": "1"}])
    assert raised.status == "COMPLETED"
    assert raised.calls("work") == 9


def test_a_cost_that_nobody_knows_pauses_a_tenants_budget_too() -> None:
    @plan
    def ask(job: Any, ctx: Any) -> str:
        return "call"

    @task
    def call(job: Any, ctx: Any) -> str:
        ctx.telemetry.record(tokens_in=10, tokens_out=5, model="nobody-knows-this-model")
        return "done"

    graph = Graph("unpriced", "1.0.0")
    graph.start(ask)
    graph.then(ask, call)
    graph.final(call)
    policy = policies("{name: daily, scope: tenant, window: 24h, when: sum(cost_usd) > 50, action: warn}")
    outcome = run_graph(graph.bind(), policies=policy)

    assert outcome.status == "PAUSED"
    (verdict,) = verdicts(outcome)
    assert (verdict["scope"], verdict["at"], verdict["action"]) == ("tenant", "record", "pause_lifetime")
    assert "it has no price" in verdict["error"]
    assert run_graph(graph.bind(), policies=policy, raised=[{}]).status == "COMPLETED"


def test_branches_share_one_budget() -> None:
    @plan
    def fan(job: Any, ctx: Any) -> Any:
        return [Next("work", input=n) for n in range(50)] if ctx.iteration == 0 else "end"

    @task(maximum={"tokens": 100})
    def work(n: int, ctx: Any) -> int:
        ctx.telemetry.record(tokens_used=100)
        return n

    graph = Graph("fan", "1.0.0")
    graph.start(fan)
    graph.parallel(fan, work)
    graph.join(work, fan)
    graph.final(fan)
    policy = policies("{name: budget, when: sum(tokens_used) > 1234, action: pause_lifetime}")
    outcome = run_graph(graph.bind(), policies=policy)
    assert outcome.status == "PAUSED"
    assert outcome.tokens_used == 1_200

    outcome = run_graph(graph.bind(), policies=policy, raised=[{"budget": "2500"}, {"budget": "5000"}])
    assert outcome.status == "COMPLETED"
    assert outcome.calls("work") == 50
