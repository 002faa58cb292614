"""A fork shares its parent's history byte for byte, goes on by itself, and leaves the parent as it is."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import msgspec
import pytest

from tests.orchestrator.driver import LIFETIME, ONCE, Run, graph
from tests.simulation.test_core import MAX_STEPS, check, play
from tests.simulation.test_waits import CHAOS, Chaos, snapshot
from tickwork.model import ids
from tickwork.model.graph import Child, Human, Node, RetryPolicy, Signal, Timer
from tickwork.model.records import Error, Event, Execution, LogEntry, Next, encode_entry, json_payload
from tickwork.orchestrator.fold import fold, outstanding
from tickwork.orchestrator.forking import Replacement, forked_log
from tickwork.orchestrator.replay import replay
from tickwork.orchestrator.state import CancelRunning, Dispatch, LifetimeState, TellParent, Visit
from tickwork.orchestrator.waits import decided_wait

FORK = "01990000-0000-7000-8000-00000000000f"
FORK_OF_FORK = "01990000-0000-7000-8000-0000000000ff"
HOUR = 3_600_000_000


def digest(log: list[LogEntry]) -> str:
    """One hash over everything that a log holds."""
    whole = hashlib.blake2b()
    for logged in log:
        whole.update(b"%d %d " % (logged.seq, logged.at) + encode_entry(logged.entry))
    return whole.hexdigest()


def executions(log: list[LogEntry]) -> list[int]:
    return [e.seq for e in log if isinstance(e.entry, Execution)]


def check_fork(parent: list[LogEntry], fork: list[LogEntry], shared: int, fork_id: str) -> None:
    """What has to hold between a fork's log and its parent's."""
    assert digest(fork[:shared]) == digest(parent[:shared])
    marks = [e for e in fork[shared:] if isinstance(e.entry, Event) and e.entry.type == "forked"]
    assert [mark.seq for mark in marks] == [shared + 1]
    assert marks[0].entry.data["seq"] == shared
    for logged in fork[shared:]:
        x = logged.entry
        if isinstance(x, Execution):
            assert x.exec_id == ids.exec_id(fork_id, x.branch, x.name, x.iteration, x.attempt), "its ids are its own"


def replacement(run: Run, done: Execution, rng: random.Random) -> Replacement:
    """Another result that this execution might have had."""
    if done.kind == "task":
        return Replacement(json_payload({"n": rng.randint(0, 9)}))
    edges = run.topology.outgoing[done.name]
    edge = rng.choice(edges)
    return Replacement(None, (Next(edge.target),) * (2 if edge.kind == "PARALLEL" else 1), "otherwise")


def test_from_every_execution_of_random_lifetimes() -> None:
    forks = 0
    for seed in range(40):
        run = play(seed, 1)
        if len(run.log) > MAX_STEPS:
            continue
        before = digest(run.log)
        for seq in executions(run.log):
            fork = run.forked(seq, FORK, later=HOUR, seed=seq).finish()
            check(fork)
            check_fork(run.log, fork.log, seq, FORK)
            assert not set(fork.trace) & set(run.trace), "what the parent dispatched is never dispatched again"
            forks += 1
        assert digest(run.log) == before
    assert forks > 500


@pytest.mark.slow
def test_with_another_result_from_every_execution_of_random_lifetimes() -> None:
    forks = refused = 0
    for seed in range(40):
        run = play(seed, 1)
        if len(run.log) > MAX_STEPS:
            continue
        rng = random.Random(seed)
        before = digest(run.log)
        for seq in executions(run.log):
            done = run.log[seq - 1].entry
            assert isinstance(done, Execution)
            other = replacement(run, done, rng)
            fork_log = forked_log(run.log, seq, parent_id=LIFETIME, fork_id=FORK, now=0, replacement=other)
            if fork_log[-1].entry.entry_id not in state_of(run, fork_log[:-1]).open:
                # It was given up before its record came: another result would lead nowhere.
                assert done.status == "CANCELLED" or "end" in run.ids
                refused += 1
                continue
            fork = run.forked(seq, FORK, other, seed=seq).finish()
            check(fork)
            check_fork(run.log, fork.log, seq - 1, FORK)
            again = fork.log[seq].entry
            assert isinstance(again, Execution)
            assert (again.name, again.result, again.next) == (done.name, other.result, other.next)
            forks += 1
        assert digest(run.log) == before
    assert forks > 500
    assert refused


def test_a_fork_of_a_fork_from_every_execution() -> None:
    for seed in range(10):
        run = play(seed, 1)
        places = executions(run.log)
        if len(run.log) > MAX_STEPS // 4:
            continue
        fork = run.forked(places[len(places) // 2], FORK, later=HOUR).finish()
        for seq in executions(fork.log):
            second = fork.forked(seq, FORK_OF_FORK, later=HOUR, seed=seq).finish()
            assert digest(second.log[:seq]) == digest(fork.log[:seq])
            assert second.log[seq].entry.entry_id == f"forked:{FORK_OF_FORK}"
            marks = [e.data["into"] for e in second.events("forked")]
            assert marks == ([FORK, FORK_OF_FORK] if seq > places[len(places) // 2] else [FORK_OF_FORK])
            assert second.rebuilt().lineage == FORK_OF_FORK
            check(second)


class ForkedChaos(Chaos):
    """The world of `test_waits`, whose logs say whose they are; it can go on from the first entries of a fork."""

    def __init__(self, seed: int, log: list[LogEntry] | None = None) -> None:
        self.shared = log
        super().__init__(seed)

    def commit(self, entries: tuple[Execution | Event, ...]) -> None:
        if self.shared is None:
            for entry in entries:
                if isinstance(entry, Event) and entry.type == "started":
                    entry.data["lifetime_id"] = LIFETIME
            super().commit(entries)
            return
        self.log, self.shared = self.shared, None
        self.ids = {logged.entry.entry_id for logged in self.log}
        self.random = random.Random(f"fork/{self.seed}")
        self.rebuild()

    def dispatch(self, visit: Visit) -> None:
        node = self.topology.nodes[visit.node]
        if node.runs_code or node.child is not None:
            super().dispatch(visit)
        else:
            self.queue.append((Event(f"waiting:{visit.exec_id}", "waiting", decided_wait(self.state, visit)),))

    def check_signals(self) -> None:
        """A fork has the signals that came before it, too; how many its test does not count."""

    def fork(self, seq: int, other: Replacement | None = None) -> ForkedChaos:
        now = self.log[seq - 1].at + HOUR
        return ForkedChaos(
            self.seed, forked_log(self.log, seq, parent_id=LIFETIME, fork_id=FORK, now=now, replacement=other)
        )


@pytest.mark.parametrize("block", range(2))
def test_from_every_execution_of_lifetimes_that_wait(block: int) -> None:
    forks = 0
    for seed in range(block, 24, 2):
        world = ForkedChaos(seed)
        for _ in range(CHAOS):
            if not world.step(healed=False):
                break
        before = digest(world.log)
        for seq in executions(world.log):
            fork = world.fork(seq)
            assert fork.state.status != "PAUSED"
            assert all(v.exec_id not in fork.ids for v in (*fork.running.values(), *fork.children.values()))
            for _ in range(30):
                fork.step(healed=False)
            fork.to_the_end()
            found = replay(fork.topology, fork.log)
            assert found.divergence is None, (seed, seq, found.divergence)
            assert found.ended
            forks += 1
        assert digest(world.log) == before
    assert forks > 100


def state_of(run: Run, entries: list[LogEntry]) -> LifetimeState:
    state = LifetimeState("default", FORK, run.topology)
    for logged in entries:
        fold(state, logged)
    return state


def forked_state(run: Run, seq: int, *, later: int = HOUR) -> LifetimeState:
    log = forked_log(run.log, seq, parent_id=LIFETIME, fork_id=FORK, now=run.log[seq - 1].at + later)
    return state_of(run, log)


def test_timers_and_deadlines_keep_the_time_that_was_left() -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=50, jitter=0)
    nodes = {
        "flaky": Node(name="flaky", kind="task", retry=retry),
        "ask": Node(name="ask", kind="task", human=Human(prompt="?", deadline=100.0)),
        "nap": Node(name="nap", kind="task", timer=Timer(seconds=70.0)),
        "listen": Node(name="listen", kind="task", signal=Signal(name="go")),
    }
    names = ["mark", *nodes]
    edges = [f"start -> {name}" for name in names] + [f"{name} >> plan_end" for name in names] + ["plan_end -> end"]
    run = Run(graph(*edges, **nodes), lambda visit, run: Error("Flaky", "") if visit.node == "flaky" else 1).start()
    visits = {visit.node: visit for visit in run.in_flight}
    run.complete(visits["flaky"])  # at 2 s, after the timer of `nap` was recorded at 2 s: it is at 3 s
    run.complete(visits["mark"])
    shared = run.log[-1]
    state = forked_state(run, shared.seq)
    parent = {v.node: v for v in run.state.open.values()}
    for visit in state.open.values():
        old = parent[visit.node]
        assert visit.exec_id == ids.exec_id(FORK, visit.branch, visit.node, visit.iteration, visit.attempt)
        assert visit.created_at == state.at == shared.at + HOUR
        if old.due is not None:
            assert visit.due == old.due + HOUR, visit.node
            assert old.timer_id is not None
            assert visit.timer_id == old.timer_id.replace(old.exec_id, visit.exec_id)
            assert state.timers[visit.timer_id] == visit.exec_id
    commands = outstanding(state)
    asked = {c.visit.node for c in commands if isinstance(c, Dispatch)}
    assert asked == {"ask", "listen"}
    due = {e.data["timer_id"]: e.data["due"] for e in state.pending.values() if isinstance(e, Event)}
    assert set(due) == {v.timer_id for v in state.open.values() if v.node in ("flaky", "nap")}
    assert not any(old.exec_id in timer_id for timer_id in due for old in parent.values())


def test_the_fork_of_a_paused_lifetime_is_not_paused() -> None:
    run = Run(graph("start -> a", "a -> plan_b", "plan_b -> c", "c -> end"), lambda visit, run: ["c"]).start()
    run.append(Event("paused:1", "paused", {"reason": "lunch"}))
    run.complete(run.in_flight.pop())
    assert run.state.paused
    assert not run.in_flight
    fork = run.forked(3, FORK)
    assert not fork.state.paused
    assert fork.state.pause_reason is None
    assert fork.finish().status == "COMPLETED"
    assert run.state.status == "PAUSED"


def test_buffered_signals_stay_and_an_open_group_goes_on() -> None:
    listen = Node(name="listen", kind="task", retry=ONCE, signal=Signal(name="go"))
    template = graph(
        "start -> plan_split", "plan_split => work", "work >> plan_join", "plan_join -> listen", "listen -> end",
        listen=listen,
    )  # fmt: skip
    choices = {"plan_split": ["work"] * 3, "plan_join": ["listen"]}
    run = Run(template, lambda visit, run: choices.get(visit.node, visit.branch)).start()
    run.complete(run.in_flight.pop())
    payload = list(msgspec.structs.astuple(json_payload("early")))
    run.append(Event("signalled:1", "signalled", {"name": "go", "payload": payload}))
    run.complete(run.in_flight.pop(0))
    fork = run.forked(len(run.log), FORK)
    assert len(fork.in_flight) == 2
    fork.finish()
    assert fork.result() == "early"
    assert fork.executions("work")[0].result == run.executions("work")[0].result
    join = fork.executions("plan_join")[0]
    assert [p in {e.entry.entry_id for e in run.log} for p in join.parents] == [True, False, False]


def test_a_child_task_in_flight_starts_a_child_of_the_fork() -> None:
    below = Node(name="below", kind="task", retry=ONCE, child=Child(name="other"))
    template = graph("start -> mark", "start -> below", "mark >> plan", "below >> plan", "plan -> end", below=below)
    run = Run(template, lambda visit, run: 1).start()
    visits = {visit.node: visit for visit in run.in_flight}
    run.complete(visits["mark"])
    fork = run.forked(2, FORK)
    (again,) = fork.in_flight
    old = visits["below"]
    assert ids.child_lifetime_id(again.exec_id, again.created_at) != ids.child_lifetime_id(old.exec_id, old.created_at)


def test_the_fork_of_a_child_tells_no_parent() -> None:
    run = Run(graph("start -> a", "a -> end"), lambda visit, run: 1)
    above = Run(graph("start -> b", "b -> end"), lambda visit, run: 1).start().in_flight[0]
    data: dict[str, Any] = {
        "lifetime_id": LIFETIME, "graph": {}, "input": None, "labels": {"tickwork.parent": "x", "team": "red"},
        "parent": ["x", msgspec.to_builtins(above, builtin_types=(bytes,))],
    }  # fmt: skip
    run.append(Event("started", "started", data))
    run.finish()
    assert len(run.told) == 1
    log = forked_log(run.log, 2, parent_id=LIFETIME, fork_id=FORK, now=0, labels={"team": "blue"})
    state = state_of(run, log)
    assert state.labels == {"team": "blue"}
    (end,) = state.pending.values()
    assert not any(isinstance(c, TellParent) for c in fold(state, LogEntry(len(log) + 1, log[-1].at, end)))
    assert state.status == "COMPLETED"


def test_what_was_decided_before_the_fork_is_recorded_in_it() -> None:
    template = graph("start -> plan_split", "plan_split => work", "work -> end")
    run = Run(template, lambda visit, run: ["work"] * 3 if visit.node == "plan_split" else 1).start().finish()
    final = executions(run.log)[1]
    fork = run.forked(final, FORK)
    assert fork.status == "COMPLETED"
    assert not fork.in_flight
    cancelled = [e for e in fork.executions("work") if e.status == "CANCELLED"]
    assert len(cancelled) == 2
    assert all(e.exec_id not in run.ids for e in cancelled)
    assert fork.events("completed")[0].data["executions"] == run.events("completed")[0].data["executions"]
    fork.replayed()


def test_at_most_once_is_not_tried_again_in_the_fork_when_nobody_knows_of_the_first_time() -> None:
    pay = Node(name="pay", kind="task", retry=ONCE, effect="at_most_once")
    template = graph("start -> mark", "start -> pay", "mark >> plan", "pay >> plan", "plan -> end", pay=pay)
    run = Run(template, lambda visit, run: 1).start()
    visits = {visit.node: visit for visit in run.in_flight}
    exec_id = visits["pay"].exec_id
    run.append(Event(f"intent:{exec_id}", "intent", {"exec_id": exec_id, "worker": "a1"}))
    run.append(Event(f"unknown:{exec_id}", "unknown", {"exec_id": exec_id, "reason": "gone"}))
    run.complete(visits["mark"])
    state = forked_state(run, len(run.log))
    (visit,) = state.open.values()
    assert (visit.phase, visit.trouble, visit.intent) == ("waiting", "unknown", False)
    assert [c.visit.node for c in outstanding(state) if isinstance(c, Dispatch)] == ["pay"]


def test_a_fork_begins_at_an_execution() -> None:
    run = Run(graph("start -> a", "a -> end"), lambda visit, run: 1).start().finish()
    with pytest.raises(TypeError, match="`started` event"):
        forked_log(run.log, 1, parent_id=LIFETIME, fork_id=FORK, now=0)


def test_folding_on_gives_the_same_state_as_folding_again() -> None:
    """A Control Plane that holds the state of the fork, and one that reads its log, agree."""
    for seed in range(30):
        run = play(seed, 1)
        places = executions(run.log)
        fork = run.forked(places[len(places) // 2], FORK)
        while fork.in_flight and len(fork.log) < 100:
            fork.complete(fork.in_flight.pop(0))
            assert snapshot(fork.rebuilt()) == snapshot(fork.state)
        assert not [c for c in fork.cancelled if c in run.ids]


def test_nothing_is_cancelled_that_the_fork_never_had() -> None:
    template = graph("start -> plan_split", "plan_split => work", "work >> plan_join | any", "plan_join -> end")
    run = Run(template, lambda visit, run: ["work"] * 3 if visit.node == "plan_split" else ["end"]).start().finish()
    first = executions(run.log)[1]
    state = forked_state(run, first)
    doomed = [v.exec_id for c in outstanding(state) if isinstance(c, CancelRunning) for v in c.visits]
    assert doomed
    assert not set(doomed) & run.ids
