"""Replay agrees with every log as it was recorded, and with none that was changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.orchestrator.driver import ONCE, Run, graph
from tests.simulation.test_core import play
from tickwork.model.graph import Human, Node, RetryPolicy, Signal
from tickwork.model.records import Error, Event, Execution, LogEntry, Next, decode_entry, encode_entry, json_payload
from tickwork.orchestrator.replay import Divergence, Replayed, Replaying, replay
from tickwork.orchestrator.waits import decided_wait

Change = Callable[[Any], Any]


def again(run: Run, log: list[LogEntry]) -> Replayed:
    return replay(run.topology, log)


def changed(log: list[LogEntry], seq: int, change: Change) -> list[LogEntry]:
    """The log with another entry at `seq`."""
    return [LogEntry(e.seq, e.at, change(e.entry)) if e.seq == seq else e for e in log]


def without(log: list[LogEntry], seq: int) -> list[LogEntry]:
    """The log that misses the entry at `seq`, numbered without a gap."""
    kept = [e for e in log if e.seq != seq]
    return [LogEntry(n, e.at, e.entry) for n, e in enumerate(kept, 1)]


def found(run: Run, log: list[LogEntry]) -> Divergence:
    divergence = again(run, log).divergence
    assert divergence is not None
    return divergence


def fan_out() -> Run:
    """split opens two branches that join; then the end."""
    template = graph(
        "start -> plan_split", "plan_split => work", "work >> plan_join", "plan_join -> close", "close -> end"
    )
    choices = {"plan_split": ["work", "work"], "plan_join": ["close"]}
    return Run(template, lambda visit, run: choices.get(visit.node, visit.branch)).start().finish()


def test_a_log_replays_as_it_was_stored_too() -> None:
    run = fan_out()
    stored = [LogEntry(e.seq, e.at, decode_entry(encode_entry(e.entry))) for e in run.log]
    for log in (run.log, stored):
        done = again(run, log)
        assert done.divergence is None
        assert (done.entries, done.edges, done.decisions, done.ended) == (7, 5, 6, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("branch", "plan_split:0.7"),
        ("iteration", 3),
        ("attempt", 2),
        ("parents", ("ffff",)),
        ("edge_taken", "plan_split->close"),
        ("created_at", 1),
        ("kind", "plan"),
        ("name", "close"),
        ("exec_id", "0" * 24),
    ],
)
def test_an_execution_that_stands_elsewhere_diverges_there(field: str, value: Any) -> None:
    run = fan_out()
    divergence = found(run, changed(run.log, 3, lambda e: msgspec.structs.replace(e, **{field: value})))
    assert divergence.seq == 3
    assert divergence.recorded is not None
    assert divergence.decided is not None
    differing = {k for k in divergence.decided if divergence.decided[k] != divergence.recorded[k]}
    assert differing == {field} or field == "kind"
    msgspec.json.encode(divergence)


def test_another_choice_shows_both_sides_where_it_leads() -> None:
    template = graph("start -> plan_a", "plan_a -> left", "plan_a -> right", "left -> end", "right -> end")
    run = Run(template, lambda visit, run: ["left"] if visit.node == "plan_a" else 1).start().finish()
    assert again(run, run.log).divergence is None
    divergence = found(run, changed(run.log, 2, lambda e: msgspec.structs.replace(e, next=(Next("right"),))))
    assert (divergence.seq, divergence.node, divergence.edge) == (3, "left", "plan_a->left")
    assert divergence.recorded is not None
    assert divergence.decided is not None
    assert (divergence.recorded["name"], divergence.decided["name"]) == ("left", "right")
    assert divergence.recorded["result"] == 1


def test_what_nobody_decided_diverges() -> None:
    run = fan_out()
    visit = Execution("f" * 24, "task", "work", "", 0, 1, (), "", 0, 0, 0, "CANCELLED", "tickwork")
    made_up: list[Execution | Event] = [
        Event("end", "completed", {"executions": 0}),
        Event("timer:x:set", "timer_set", {"timer_id": "timer:x", "due": 1, "purpose": "timer", "exec_id": "x"}),
        Event("waiting:x", "waiting", {"exec_id": "x"}),
        Event("started", "started", {}),
        Event("superseded:x", "superseded", {"exec_id": "x", "execution": {}}),
        visit,
        msgspec.structs.replace(visit, executor="signal:ann", status="SUCCEEDED"),
        msgspec.structs.replace(visit, executor="a1b2 python/0.1.0", status="SUCCEEDED"),
    ]
    for entry in made_up:
        log = [*run.log[:3], LogEntry(4, 9, entry)]
        assert found(run, log).seq == 4, entry
    twice = [*run.log[:3], LogEntry(4, 9, run.log[2].entry)]
    assert "second time" in found(run, twice).what


def test_a_gap_and_a_log_without_a_start_diverge() -> None:
    run = fan_out()
    assert found(run, [e for e in run.log if e.seq != 4]).seq == 4
    assert found(run, without(run.log, 1)).seq == 1


def test_the_end_has_to_say_what_was_decided() -> None:
    run = fan_out()
    for field, value in (("executions", 99), ("tokens_used", 1), ("exec_id", "x"), ("source", [[2], -1, False])):
        log = changed(run.log, 7, lambda e, f=field, v=value: Event(e.id, e.type, {**e.data, f: v}))
        assert found(run, log).seq == 7, field
    assert found(run, changed(run.log, 7, lambda e: Event(e.id, "failed", e.data))).seq == 7


def test_what_is_still_to_come_is_missed_only_after_the_end() -> None:
    template = graph("start -> plan_split", "plan_split => work", "work -> end")
    run = Run(template, lambda visit, run: ["work"] * 3 if visit.node == "plan_split" else 1).start().finish()
    cancelled = [e.seq for e in run.log if isinstance(e.entry, Execution) and e.entry.status == "CANCELLED"]
    assert len(cancelled) == 2
    for length in range(1, len(run.log)):
        assert again(run, run.log[:length]).divergence is None
    divergence = found(run, without(run.log, cancelled[0]))
    assert divergence.recorded is None
    assert divergence.decided is not None
    assert divergence.decided["status"] == "CANCELLED"


def test_a_result_may_come_before_its_cancellation_and_must_then_stand_where_it_was_asked_for() -> None:
    template = graph("start -> plan_split", "plan_split => work", "work -> end")
    run = Run(template, lambda visit, run: ["work"] * 2 if visit.node == "plan_split" else 1).start()
    run.complete(run.in_flight.pop(0))
    first, late = run.in_flight
    done = run.execution(late, 7)
    log = [*run.log, LogEntry(3, 9, run.execution(first, 7)), LogEntry(4, 9, done)]
    replaying = Replaying(run.topology)
    assert [replaying.feed(e) for e in log] == [None] * 4
    assert late.exec_id not in replaying.state.pending
    log[3] = LogEntry(4, 9, msgspec.structs.replace(done, parents=()))
    assert found(run, log).seq == 4


def test_a_retry_and_its_timer() -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=5, jitter=0)
    template = graph("start -> work", "work -> end", work=Node(name="work", kind="task", retry=retry))
    run = Run(template, lambda visit, run: Error("Flaky", "") if visit.attempt == 1 else 1).start()
    run.complete(run.in_flight.pop())
    (timer,) = run.events("timer_set")
    run.append(Event(f"{timer.data['timer_id']}:fired", "timer_fired", {"timer_id": timer.data["timer_id"]}))
    run.finish()
    assert run.status == "COMPLETED"
    divergence = found(run, changed(run.log, 3, lambda e: Event(e.id, e.type, {**e.data, "due": e.data["due"] + 1})))
    assert divergence.seq == 3


def test_a_wait_says_who_what_and_until_when() -> None:
    ask = Node(name="ask", kind="task", retry=ONCE, human=Human(prompt="?", deadline=9.0, default="no", who=("ann",)))
    run = Run(graph("start -> ask", "ask -> end", ask=ask), lambda visit, run: 1).start()
    (visit,) = run.state.open.values()
    data = {**decided_wait(run.state, visit), "prompt": "May I?"}
    run.append(Event(f"waiting:{visit.exec_id}", "waiting", data))
    deadline = f"deadline:{visit.exec_id}"
    run.append(Event(f"{deadline}:fired", "timer_fired", {"timer_id": deadline}))
    assert run.result() == "no"
    for field, value in (("deadline", 1), ("who", ["bob"]), ("on", "signal"), ("branch", "x"), ("answer_schema", {})):
        log = changed(run.log, 2, lambda e, f=field, v=value: Event(e.id, e.type, {**e.data, f: v}))
        assert found(run, log).seq == 2, field
    assert again(run, changed(run.log, 2, lambda e: Event(e.id, e.type, {**e.data, "prompt": "Now?"}))).entries == 5
    other = changed(run.log, 4, lambda e: msgspec.structs.replace(e, result=json_payload("yes")))
    assert found(run, other).seq == 4


def test_a_signal_is_given_to_whom_it_was_decided() -> None:
    wait = Node(name="wait", kind="task", retry=ONCE, signal=Signal(name="go"))
    run = Run(graph("start -> wait", "wait -> end", wait=wait), lambda visit, run: 1).start()
    payload = ["7", "application/json", None, 1, None]
    run.append(Event("signalled:1", "signalled", {"name": "go", "payload": [b"7", *payload[1:]], "by": "ann"}))
    assert run.result() == 7
    log = changed(run.log, 3, lambda e: msgspec.structs.replace(e, executor="signal:bob"))
    assert found(run, log).seq == 3


def test_no_random_log_survives_a_change() -> None:
    """Whatever is changed about what the core decides, replay finds it, at the entry that was changed."""
    rng = random.Random(7)
    changes: list[Change] = [
        lambda e: msgspec.structs.replace(e, parents=(*e.parents, "x")),
        lambda e: msgspec.structs.replace(e, edge_taken=e.edge_taken + "x"),
        lambda e: msgspec.structs.replace(e, iteration=e.iteration + 1),
        lambda e: msgspec.structs.replace(e, branch=e.branch + "/x:0.0"),
        lambda e: msgspec.structs.replace(e, created_at=e.created_at + 1),
        lambda e: msgspec.structs.replace(e, exec_id=e.exec_id[::-1]),
    ]
    for seed in range(40):
        run = play(seed, 1)
        places = [e.seq for e in run.log if isinstance(e.entry, Execution)]
        for seq in rng.sample(places, min(5, len(places))):
            assert found(run, changed(run.log, seq, rng.choice(changes))).seq == seq
            assert found(run, without(run.log, seq)).seq <= len(run.log)
