"""Routing, joins, retries and ends, one rule at a time, on the pure core."""

from __future__ import annotations

from typing import Any

import pytest

from tests.orchestrator.driver import ONCE, Run, graph
from tickwork.model.graph import Edge, Human, Node, RetryPolicy, Signal, Timer
from tickwork.model.records import Error, Event, json_payload
from tickwork.orchestrator.fold import SequenceGap, fold, outstanding

BROKEN = Error("ValueError", "broken", retryable=False)


def behave(**by_node: Any) -> Any:
    """A behaviour: a constant for each node, or a function of the visit."""

    def call(visit: Any, run: Run) -> Any:
        made = by_node.get(visit.node, [] if visit.node.startswith("plan") else visit.node)
        return made(visit) if callable(made) else made

    return call


def test_a_line_completes_with_the_last_result() -> None:
    run = Run(graph("start -> a", "a -> plan", "plan -> b", "b -> end"), behave(a=1, plan=["b"], b={"x": 2}))
    run.start().finish()
    assert run.status == "COMPLETED"
    assert run.result() == {"x": 2}
    assert [e.seq for e in run.log] == list(range(1, len(run.log) + 1))


def test_a_plan_hands_its_input_on_unless_it_gives_one() -> None:
    run = Run(graph("start -> a", "a -> plan", "plan -> b", "plan -> c", "b -> end", "c -> end"),
              behave(a=1, plan=[("c", {"own": True})]))  # fmt: skip
    run.start()
    run.complete(run.in_flight.pop())
    plan = run.in_flight[-1]
    assert plan.input.seqs == plan.before
    run.complete(run.in_flight.pop())
    assert run.in_flight[-1].input.pick == 0
    other = Run(run.topology.graph, behave(a=1, plan=["b"]))
    other.start()
    other.complete(other.in_flight.pop())
    other.complete(other.in_flight.pop())
    assert other.in_flight[-1].input.seqs == (2,), "task a's result, which stands at seq 2"
    assert other.in_flight[-1].before == (3,)


def test_iterations_count_visits_and_attempts_are_not_visits() -> None:
    flaky = Node(name="a", kind="task", retry=RetryPolicy(max_attempts=2, initial_interval=0, jitter=0))
    seen: list[tuple[int, int]] = []

    def a(visit: Any) -> Any:
        seen.append((visit.iteration, visit.attempt))
        return Error("ValueError", "no") if visit.attempt == 1 else visit.iteration

    run = Run(graph("start -> a", "a -> plan", "plan -> a", "plan -> end", a=flaky),
              behave(a=a, plan=lambda v: ["a"] if v.iteration < 2 else ["end"]))  # fmt: skip
    run.start().finish()
    assert run.status == "COMPLETED"
    assert seen == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_conditions_are_asked_in_declared_order_and_the_edge_without_one_is_the_default() -> None:
    g = graph("start -> a", "a -> plan_x | result.n > 10", "a -> plan_y | result.n > 5", "a -> plan_z",
              "plan_x -> end", "plan_y -> end", "plan_z -> end")  # fmt: skip
    for n, taken in ((11, "plan_x"), (7, "plan_y"), (1, "plan_z")):
        run = Run(g, behave(a={"n": n}, plan_x=["end"], plan_y=["end"], plan_z=["end"])).start().finish()
        assert run.executions(taken), (n, taken)


def test_a_condition_that_cannot_be_evaluated_fails_the_branch() -> None:
    run = Run(graph("start -> a", "a -> end | result.missing > 1"), behave(a={})).start().finish()
    assert run.status == "FAILED"
    assert "condition_error" in run.reason


def test_no_final_edge() -> None:
    run = Run(graph("start -> a", "a -> plan", "plan -> a", "plan -> end"), behave(plan=[])).start().finish()
    assert (run.status, run.reason) == ("FAILED", "no_final_edge")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (["nope"], "is not one of its targets; it may choose: b, c, d, e"),
        (["b", "c"], "can only be chosen alone"),
        (["d", "b"], "can only be chosen alone"),
        (["end"], "takes the FINAL edge, which it does not have"),
    ],
)
def test_a_choice_that_is_not_allowed_fails_the_branch_with_its_reason(chosen: list[str], words: str) -> None:
    g = graph("start -> plan", "plan -> b", "plan -> c", "plan => d", "plan => e", "b -> end", "c -> end", "d -> end",
              "e -> end")  # fmt: skip
    run = Run(g, behave(plan=chosen)).start().finish()
    assert run.status == "FAILED"
    assert words in run.reason


FAN = ("start -> plan", "plan => work", "plan_join -> end")


@pytest.mark.parametrize("seed", range(5))
def test_join_all_gets_every_branch_in_branch_order(seed: int) -> None:
    run = Run(graph(*FAN, "work >> plan_join"),
              behave(plan=["work"] * 7, work=lambda v: v.branch, plan_join=["end"]), seed)  # fmt: skip
    run.start().finish()
    (join,) = run.executions("plan_join")
    assert join.branch == ""
    assert run.result() == [f"plan:0.{i}" for i in range(7)]


def failing(*indexes: int) -> Any:
    return lambda v: BROKEN if int(v.branch.rpartition(".")[2]) in indexes else v.branch


@pytest.mark.parametrize("seed", range(5))
def test_join_all_fails_when_a_branch_failed_but_only_after_all_have_ended(seed: int) -> None:
    run = Run(graph(*FAN, "work >> plan_join"),
              behave(plan=["work"] * 3, work=failing(1), plan_join=["end"]), seed).start().finish()  # fmt: skip
    assert run.status == "FAILED"
    assert run.reason == "work: ValueError: broken"
    assert len(run.executions("work")) == 3
    assert not run.executions("plan_join")


@pytest.mark.parametrize("failed", [(1,), (0, 1, 2)])
def test_join_settled_hands_failures_over(failed: tuple[int, ...]) -> None:
    run = Run(graph(*FAN, "work >> plan_join | settled"),
              behave(plan=["work"] * 3, work=failing(*failed), plan_join=["end"])).start().finish()  # fmt: skip
    assert run.status == "COMPLETED"
    (join,) = run.executions("plan_join")
    assert len(join.parents) == 3


@pytest.mark.parametrize("seed", range(5))
def test_join_any_fires_once_and_cancels_the_rest(seed: int) -> None:
    run = Run(graph(*FAN, "work >> plan_join | any"),
              behave(plan=["work"] * 4, work=lambda v: v.branch, plan_join=["end"]), seed)  # fmt: skip
    run.start().finish()
    assert run.status == "COMPLETED"
    assert len(run.executions("plan_join")) == 1
    assert sorted(e.status for e in run.executions("work")) == ["CANCELLED"] * 3 + ["SUCCEEDED"]
    assert len(run.cancelled) == 3


@pytest.mark.parametrize("seed", range(5))
def test_quorum(seed: int) -> None:
    template = graph(*FAN, "work >> plan_join | quorum 2")
    run = Run(template, behave(plan=["work"] * 5, work=failing(0, 1), plan_join=["end"]), seed).start().finish()
    assert run.status == "COMPLETED"
    assert len(run.executions("plan_join")[0].parents) == 2
    short = Run(template, behave(plan=["work"] * 3, work=failing(0, 1), plan_join=["end"]), seed).start().finish()
    assert short.status == "FAILED"
    assert "1 of 3 branches arrived, 2 are needed" in short.reason


def test_branches_that_reach_different_joins_fail_the_group() -> None:
    run = Run(graph("start -> plan", "plan => a", "plan => b", "a >> plan_x", "b >> plan_y", "plan_x -> end",
                    "plan_y -> end"), behave(plan=["a", "b"])).start().finish()  # fmt: skip
    assert run.status == "FAILED"
    assert "mixed_joins" in run.reason


def test_a_join_outside_any_group_fires_at_once() -> None:
    run = Run(graph("start -> a", "a >> plan", "plan -> end"), behave(plan=["end"])).start().finish()
    assert run.status == "COMPLETED"


def test_several_entries_are_a_group_that_a_join_can_gather() -> None:
    run = Run(graph("start -> a", "start -> b", "a >> plan", "b >> plan", "plan -> end"), behave(plan=["end"]))
    run.start("in").finish()
    assert run.result() == ["a", "b"]
    assert {e.branch for e in run.executions("a")} == {"start:0.0"}


def test_groups_nest_and_a_failed_inner_group_counts_at_the_outer_join() -> None:
    g = graph("start -> plan", "plan => mid", "mid -> plan_in", "plan_in => leaf", "leaf >> plan_got",
              "plan_got -> out", "out >> plan_all | settled", "plan_all -> end")  # fmt: skip
    doing = behave(plan=["mid", "mid"], plan_in=["leaf", "leaf"], plan_got=["out"], plan_all=["end"],
                   leaf=lambda v: BROKEN if v.branch.startswith("plan:0.1") else v.branch)  # fmt: skip
    run = Run(g, doing, 3).start().finish()
    assert run.status == "COMPLETED"
    assert len(run.executions("leaf")) == 4
    assert len(run.executions("out")) == 1
    assert len(run.executions("plan_all")[0].parents) == 2


def test_final_cancels_what_is_open_and_records_it_before_the_end() -> None:
    run = Run(graph("start -> plan", "plan => a", "plan => b", "a -> end", "b -> end"), behave(plan=["a", "b"])).start()
    run.complete(run.in_flight.pop())
    first = next(v for v in run.in_flight if v.node == "a")
    late = next(v for v in run.in_flight if v.node == "b")
    run.complete(first)
    assert run.status == "COMPLETED"
    assert [e.status for e in run.executions("b")] == ["CANCELLED"]
    assert isinstance(run.log[-1].entry, Event)
    assert run.log[-1].entry.type == "completed"
    before = len(run.log)
    run.complete(late)
    assert len(run.log) == before, "a late result of a cancelled execution is a duplicate"


def test_retries_wait_for_a_timer_that_is_derived_from_the_record() -> None:
    flaky = Node(name="a", kind="task", retry=RetryPolicy(max_attempts=3, initial_interval=2, jitter=0))
    run = Run(graph("start -> a", "a -> end", a=flaky), behave(a=lambda v: Error("E", "x") if v.attempt < 3 else "ok"))
    run.start()
    run.complete(run.in_flight.pop())
    assert run.status == "WAITING"
    (timer,) = run.events("timer_set")
    assert timer.data["due"] == run.log[1].at + 2_000_000
    run.append(Event("t1", "timer_fired", {"timer_id": timer.data["timer_id"]}))
    run.complete(run.in_flight.pop())
    second = run.events("timer_set")[1]
    assert second.data["due"] - run.log[-2].at == 4_000_000
    run.append(Event("t2", "timer_fired", {"timer_id": second.data["timer_id"]}))
    run.append(Event("t2again", "timer_fired", {"timer_id": second.data["timer_id"]}))
    run.finish()
    assert run.status == "COMPLETED"
    assert [e.attempt for e in run.executions("a")] == [1, 2, 3]


def test_pause_holds_dispatches_and_resume_sends_them() -> None:
    run = Run(graph("start -> a", "a -> plan", "plan -> end"), behave(plan=["end"])).start()
    run.append(Event("p", "paused", {}))
    assert run.status == "PAUSED"
    run.finish()
    assert run.executions("a"), "what is in flight is recorded"
    assert not run.executions("plan")
    run.append(Event("r", "resumed", {}))
    run.finish()
    assert run.status == "COMPLETED"


def test_abort_says_who_and_why_and_cancels() -> None:
    run = Run(graph("start -> a", "a -> end"), behave()).start()
    run.append(Event("abort", "abort_requested", {"by": "ann", "reason": "too dear"}))
    assert run.status == "ABORTED"
    assert run.reason == "too dear (by ann)"
    assert [e.status for e in run.executions("a")] == ["CANCELLED"]


def test_a_timer_task_hands_its_input_on() -> None:
    nap = Node(name="nap", kind="task", timer=Timer(seconds=5))
    run = Run(graph("start -> nap", "nap -> end", nap=nap), behave()).start({"k": 1})
    assert run.status == "WAITING"
    (timer,) = run.events("timer_set")
    run.append(Event("f", "timer_fired", {"timer_id": timer.data["timer_id"]}))
    assert run.status == "COMPLETED"
    assert run.result() == {"k": 1}


def test_a_human_wait_takes_its_default_at_the_deadline() -> None:
    ask = Node(name="ask", kind="task", human=Human(prompt="ok?", deadline=5, default="no"))
    run = Run(graph("start -> ask", "ask -> end", ask=ask), behave()).start()
    (visit,) = run.in_flight
    run.append(Event("f", "timer_fired", {"timer_id": f"deadline:{visit.exec_id}"}))
    assert run.status == "COMPLETED"
    assert run.result() == "no"


def test_a_human_wait_without_a_default_fails_at_the_deadline() -> None:
    ask = Node(name="ask", kind="task", human=Human(prompt="ok?", deadline=5))
    run = Run(graph("start -> ask", "ask -> end", ask=ask), behave()).start()
    run.append(Event("f", "timer_fired", {"timer_id": f"deadline:{run.in_flight[0].exec_id}"}))
    assert run.status == "FAILED"
    assert run.reason == "ask: DeadlineExceeded: nobody answered within 5 s"


def test_user_code_cannot_make_its_failure_look_like_a_lost_worker() -> None:
    run = Run(graph("start -> work", "work -> end"), lambda visit, run: Error("LeaseExpired", "so I say")).start()
    run.finish()
    assert run.status == "FAILED"
    assert len(run.executions("work")) == run.topology.nodes["work"].retry.max_attempts


def test_signals_are_kept_until_somebody_waits_for_them() -> None:
    wait = Node(name="paid", kind="task", signal=Signal(name="payment"))
    payment = {"name": "payment", "payload": _payload({"eur": 5}), "by": "bank"}
    g = graph("start -> a", "a -> plan", "plan -> paid", "paid -> end", paid=wait)
    early = Run(g, behave(plan=["paid"])).start()
    early.append(Event("s1", "signalled", payment))
    early.finish()
    late = Run(g, behave(plan=["paid"])).start()
    for _ in range(2):
        late.complete(late.in_flight.pop())
    assert late.status == "WAITING"
    late.in_flight.clear()
    late.append(Event("s1", "signalled", payment))
    for run in (early, late):
        assert run.status == "COMPLETED"
        assert run.result() == {"eur": 5}


def _payload(value: Any) -> list[Any]:
    p = json_payload(value)
    return [p.inline, p.content_type, p.uri, p.size, p.sha256]


def test_the_entries_must_come_in_order() -> None:
    run = Run(graph("start -> a", "a -> end"), behave()).start().finish()
    fresh = run.rebuilt()
    with pytest.raises(SequenceGap):
        fold(fresh, run.log[0])


def test_after_a_crash_the_log_tells_what_is_left_to_do() -> None:
    run = Run(graph(*FAN, "work >> plan_join"), behave(plan=["work"] * 3, plan_join=["end"])).start()
    run.complete(run.in_flight.pop())
    run.complete(run.in_flight.pop())
    commands = outstanding(run.rebuilt())
    assert len(commands) == 2
    assert {c.visit.exec_id for c in commands} == {v.exec_id for v in run.in_flight}


def test_ten_thousand_branches_join() -> None:
    run = Run(graph(*FAN, "work >> plan_join"),
              behave(plan=[("work", i) for i in range(10_000)], work=1, plan_join=["end"])).start()  # fmt: skip
    run.finish(limit=20_000)
    assert run.status == "COMPLETED"
    assert len(run.executions("plan_join")[0].parents) == 10_000


def test_more_branches_than_the_limit_are_refused() -> None:
    run = Run(graph(*FAN, "work >> plan_join"), behave(plan=["work"] * 10_001)).start().finish()
    assert "10001 branches; at most 10000" in run.reason


def test_nesting_is_bounded() -> None:
    run = Run(graph("start -> plan", "plan => a", "a -> plan", "plan -> end"), behave(plan=["a"])).start().finish()
    assert "too_deep" in run.reason


def test_state_stays_small_over_a_long_loop() -> None:
    run = Run(graph("start -> a", "a -> plan", "plan -> a", "plan -> end"),
              behave(plan=lambda v: ["a"] if v.iteration < 3000 else ["end"])).start()  # fmt: skip
    run.finish(limit=10_000)
    assert run.status == "COMPLETED"
    assert not run.state.open
    assert not run.state.pending
    assert len(run.state.branches) <= 1


def test_an_edge_may_be_given_in_full() -> None:
    g = graph(Edge(source="start", target="a"), "a -> end", a=Node(name="a", kind="task", retry=ONCE))
    assert Run(g, behave()).start().finish().status == "COMPLETED"
