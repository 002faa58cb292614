"""Lost attempts, UNKNOWN, poison and limits, in the pure core."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.orchestrator.driver import Run, graph
from tickwork.model.graph import Limits, Node, RetryPolicy
from tickwork.model.records import Error, Event, intent, json_payload
from tickwork.model.spending import LEASE_EXPIRED
from tickwork.orchestrator.fold import outstanding
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.state import MAX_LOSSES, Dispatch, Visit
from tickwork.orchestrator.waits import decided_wait

ONCE_ONLY = Node(name="pay", kind="task", effect="at_most_once", retry=RetryPolicy(max_attempts=3, initial_interval=0))


def charge(**limits: int) -> Run:
    """start -> pay -> end, with one visit in flight."""
    template = graph("start -> pay", "pay -> end", pay=ONCE_ONLY)
    return Run(msgspec.structs.replace(template, limits=Limits(**limits)), lambda *_: {"paid": True}).start()


def lose(run: Run, visit: Visit) -> None:
    """The worker of this visit is gone, and the sweeper has it recorded."""
    done = run.execution(visit, Error(LEASE_EXPIRED, "its worker is gone"))
    done.status, done.executor = "TIMED_OUT", "tickwork"
    run.append(done)


def test_a_lost_attempt_is_made_again_at_once_and_does_not_count_against_the_policy() -> None:
    template = graph(
        "start -> work", "work -> end", work=Node(name="work", kind="task", retry=RetryPolicy(max_attempts=1))
    )
    run = Run(template, lambda *_: "done").start()
    for attempt in (2, 3):
        lose(run, run.in_flight.pop())
        assert run.in_flight[0].attempt == attempt
    run.finish()
    assert (run.status, run.result()) == ("COMPLETED", "done")


def test_a_late_result_goes_nowhere() -> None:
    run = charge()
    late = run.in_flight.pop()
    lose(run, late)
    execution = msgspec.to_builtins(run.execution(late, {"paid": 2}), builtin_types=(bytes,))
    run.append(Event(f"superseded:{late.exec_id}:x", "superseded", {"exec_id": late.exec_id, "execution": execution}))
    assert [visit.attempt for visit in run.in_flight] == [2]
    run.finish()
    assert run.result() == {"paid": True}


def test_what_its_workers_die_of_waits_for_somebody_and_can_be_sent_again() -> None:
    run = charge()
    for _ in range(MAX_LOSSES):
        assert run.status == "RUNNING"
        lose(run, run.in_flight.pop())
    assert run.status == "WAITING"
    parked = run.in_flight.pop()
    assert (parked.phase, parked.trouble) == ("waiting", "poison")
    run.append(Event(f"waiting:{parked.exec_id}", "waiting", decided_wait(run.state, parked)))
    assert outstanding(run.rebuilt()) == []
    again = Event("reconciled:1", "reconciled", {"exec_id": parked.exec_id, "action": "retry"})
    projection = project("default", run.lifetime_id, (again,))
    assert projection is not None
    assert (projection.status, projection.questions_closed) == ("RUNNING", (parked.exec_id,))
    run.append(again)
    assert [visit.exec_id for visit in run.in_flight] == [parked.exec_id]
    lose(run, run.in_flight.pop())
    assert run.status == "RUNNING", "the count begins anew"
    run.finish()


def test_a_lost_call_that_may_have_happened_asks_its_hook_and_is_not_made_again() -> None:
    run = charge()
    visit = run.in_flight.pop()
    run.append(intent(visit.exec_id, "worker-1"))
    run.append(Event(f"unknown:{visit.exec_id}", "unknown", {"exec_id": visit.exec_id, "reason": "gone"}))
    (asked,) = run.in_flight
    assert (asked.exec_id, asked.phase, run.status) == (visit.exec_id, "reconciling", "RUNNING")
    again = outstanding(run.rebuilt())
    assert [c.visit.phase for c in again if isinstance(c, Dispatch)] == ["reconciling"]
    run.finish()  # the hook says that it happened, and what came of it
    assert (run.status, len(run.executions("pay"))) == ("COMPLETED", 1)


@pytest.mark.parametrize("who", ["hook", "person"])
def test_a_call_that_did_not_happen_is_made_again_under_a_new_attempt(who: str) -> None:
    run = charge()
    visit = run.in_flight.pop()
    run.append(intent(visit.exec_id, "worker-1"))
    run.append(Event(f"unknown:{visit.exec_id}", "unknown", {"exec_id": visit.exec_id, "reason": "gone"}))
    run.in_flight.clear()
    if who == "person":
        ask = {"exec_id": visit.exec_id, "action": "ask", "reason": "no hook"}
        run.append(Event(f"reconciled:{visit.exec_id}", "reconciled", ask))
        assert (run.status, run.in_flight.pop().trouble) == ("WAITING", "unknown")
    run.append(Event("reconciled:2", "reconciled", {"exec_id": visit.exec_id, "action": "retry"}))
    assert [(v.attempt, v.phase, v.intent) for v in run.in_flight] == [(2, "sent", False)]
    run.finish()
    assert run.status == "COMPLETED"


def test_a_late_result_settles_what_was_unknown() -> None:
    run = charge()
    visit = run.in_flight.pop()
    run.append(intent(visit.exec_id, "worker-1"))
    run.append(Event(f"unknown:{visit.exec_id}", "unknown", {"exec_id": visit.exec_id, "reason": "gone"}))
    run.append(run.execution(visit, {"paid": "late"}))
    assert (run.status, run.result()) == ("COMPLETED", {"paid": "late"})


def test_what_is_cancelled_before_its_intent_loses_it_so_that_nobody_starts_it() -> None:
    run = charge()
    visit = run.in_flight.pop()
    run.append(Event("abort", "abort_requested", {"reason": "stop"}))
    revoked = run.events("intent")
    assert [event.data for event in revoked] == [{"exec_id": visit.exec_id, "worker": ""}]
    assert not run.append(intent(visit.exec_id, "worker-1")), "the worker's own intent is a duplicate now"
    assert run.status == "ABORTED"


LOOP = ("start -> plan", "plan -> work", "work -> plan", "plan -> end")


def looping(**limits: int) -> Run:
    """A loop that never takes its FINAL edge."""
    template = msgspec.structs.replace(graph(*LOOP), limits=Limits(**limits))
    return Run(template, lambda visit, _: ["work"] if visit.node == "plan" else 1).start()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"visits": 5}, "`plan` was visited 5 times in one branch (limits.visits)"),
        ({"records": 20}, "the log has 20 entries (limits.records)"),
    ],
)
def test_a_runaway_loop_meets_its_limit(limits: dict[str, int], reason: str) -> None:
    run = looping(**limits).finish()
    assert (run.status, run.reason) == ("FAILED", f"limit_exceeded: {reason}")
    assert not run.in_flight


def test_too_many_open_visits_end_the_lifetime_and_nothing_is_dispatched() -> None:
    template = graph("start -> plan", "plan => work", "work >> plan_join", "plan_join -> end")
    run = Run(
        msgspec.structs.replace(template, limits=Limits(open_visits=10)),
        lambda visit, _: ["work"] * 50 if visit.node == "plan" else [],
    ).start()
    run.finish()
    assert run.reason == "limit_exceeded: 10 visits are open at the same time (limits.open_visits)"
    assert len(run.executions("work")) == 10
    assert {e.status for e in run.executions("work")} == {"CANCELLED"}


@pytest.mark.parametrize(("depth", "status"), [(1, "FAILED"), (2, "COMPLETED")])
def test_fan_outs_nest_only_so_deep(depth: int, status: str) -> None:
    template = graph(
        "start -> plan", "plan => plan_task", "plan_task -> plan_in", "plan_in => leaf", "leaf >> plan_join",
        "plan_join -> inner", "inner >> plan_out", "plan_out -> end",
        plan_task=Node(name="plan_task", kind="task"),
    )  # fmt: skip
    choices: dict[str, Any] = {
        "plan": ["plan_task"], "plan_in": ["leaf", "leaf"], "plan_join": ["inner"], "plan_out": ["end"],
    }  # fmt: skip
    run = Run(
        msgspec.structs.replace(template, limits=Limits(depth=depth)), lambda visit, _: choices.get(visit.node, 1)
    ).start(json_payload(1).size)
    assert run.finish().status == status
