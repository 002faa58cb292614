"""Runs the pure core under policies, with the log's writer as slow as a test wants it to be.

What the core wants recorded waits in `to_land`, one Append a Record command, until the test lets it land: between the
two anything may be recorded that others make. `crash` forgets the state, folds the log anew and sends again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tests.orchestrator.driver import LIFETIME, Choice, Run
from tickwork.formats.policies import read_policies
from tickwork.model.graph import AgentGraph
from tickwork.model.policy import PolicySet, effective
from tickwork.model.records import Error, Event, Execution, LogEntry, Telemetry, json_payload
from tickwork.orchestrator.fold import fold, outstanding
from tickwork.orchestrator.forking import Replacement, forked_log
from tickwork.orchestrator.guardrails.counters import share
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.replay import ENDS, Replayed, replay
from tickwork.orchestrator.state import CancelRunning, Dispatch, LifetimeState, Record, Visit


def policies(*lines: str) -> PolicySet:
    """A set of policies of one lifetime's own."""
    text = "version: 1\npolicies:\n" + "".join(f"  - {line}\n" for line in lines)
    return effective((), "default", "test", read_policies(text)) if lines else PolicySet()


class GuardedRun(Run):
    """One lifetime under policies."""

    def __init__(
        self,
        template: AgentGraph,
        behave: Callable[[Visit, Run], Choice],
        sets: tuple[PolicySet, ...],
        seed: int = 0,
        lifetime_id: str = LIFETIME,
        *,
        slow: bool = False,
        used: Callable[[Visit], Telemetry | None] = lambda visit: Telemetry(tokens_used=100),
    ) -> None:
        """`sets`: the first is in force from the start; `slow`: what is decided lands when the test says so."""
        super().__init__(template, behave, seed, lifetime_id)
        self.sets = sets
        self.rules = {one.digest: Rules(one) for one in sets}
        self.slow, self.used = slow, used
        self.to_land: list[tuple[Execution | Event, ...]] = []
        self.state = self.fresh()
        self.words = 0

    def fresh(self) -> LifetimeState:
        return LifetimeState("default", self.lifetime_id, self.topology, self.rules.__getitem__)

    def start(self, value: Any = None) -> GuardedRun:
        payload = msgspec.to_builtins(json_payload(value), builtin_types=(bytes,))
        data = {"lifetime_id": self.lifetime_id, "graph": {}, "input": payload, "policies": self.sets[0].digest}
        self.append(Event("started", "started", {name: value for name, value in data.items() if value != ""}))
        return self

    def append(self, entry: Execution | Event) -> bool:
        if entry.entry_id in self.ids or any(e.type in ENDS for e in self._events()):
            return False
        self.ids.add(entry.entry_id)
        logged = LogEntry(len(self.log) + 1, (self.log[-1].at if self.log else 0) + 1_000_000, entry)
        self.log.append(logged)
        self.perform(fold(self.state, logged))
        return True

    def _events(self) -> list[Event]:
        return [e.entry for e in self.log[-3:] if isinstance(e.entry, Event)]

    def perform(self, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(command, Dispatch):
                if command.visit.phase == "sent":
                    self.trace.append(command.visit.exec_id)
                    self.in_flight.append(command.visit)
            elif isinstance(command, CancelRunning):
                self.cancelled += [v.exec_id for v in command.visits]
            elif isinstance(command, Record):
                self.to_land.append(command.entries)
                while self.to_land and not self.slow:
                    self.land()

    def land(self, index: int = 0) -> None:
        """The Data Plane records what was decided."""
        for entry in self.to_land.pop(index):
            self.append(entry)

    def land_all(self) -> None:
        while self.to_land:
            self.land()

    def execution(self, visit: Visit, made: Choice) -> Execution:
        done = super().execution(visit, made)
        done.telemetry = self.used(visit)
        return done

    def next_visit(self, node: str | None = None) -> Visit:
        """Takes the first visit that is in flight (at this node)."""
        found = next(v for v in self.in_flight if node is None or v.node == node)
        self.in_flight.remove(found)
        return found

    def say(self, kind: Any, **data: Any) -> None:
        """Somebody's word."""
        self.words += 1
        self.append(Event(f"{kind}:{self.words}", kind, data))

    def install(self, digest: str) -> None:
        """What the Control Plane records when other policies are loaded."""
        self.append(Event(f"policies:{self.state.policies_seq}", "policies", {"digest": digest}))

    def lose(self, visit: Visit) -> None:
        """Its worker is gone."""
        lost = self.execution(visit, Error("LeaseExpired", "its worker was not heard of"))
        self.append(msgspec.structs.replace(lost, status="TIMED_OUT", executor="tickwork", telemetry=None))

    def crash(self) -> None:
        """Another process goes on with what the log has."""
        self.to_land.clear()
        self.in_flight.clear()
        self.state = self.rebuilt()
        self.perform(outstanding(self.state))

    def rebuilt(self) -> LifetimeState:
        state = self.fresh()
        for logged in self.log:
            fold(state, logged)
        return state

    def fork(self, seq: int, fork_id: str, replacement: Replacement | None = None) -> GuardedRun:
        """A run of its own that shares the history up to the execution at `seq`."""
        made = GuardedRun(
            self.topology.graph, self.behave, self.sets, 0, fork_id, slow=self.slow, used=self.used
        )  # fmt: skip
        now = self.log[seq - 1].at + 5_000_000
        made.log = forked_log(
            self.log, seq, parent_id=self.lifetime_id, fork_id=fork_id, now=now, replacement=replacement
        )
        made.ids = {logged.entry.entry_id for logged in made.log}
        made.state = made.rebuilt()
        made.perform(outstanding(made.state))
        return made

    def replayed(self) -> Replayed:
        found = replay(self.topology, self.log, rules_of=self.rules.__getitem__)
        assert found.divergence is None, found.divergence
        assert found.entries == len(self.log)
        return found


def shown(state: LifetimeState) -> dict[str, Any]:
    """Everything that a state holds, comparable field by field."""
    skipped = ("topology", "rules_of", "guard", "open", "lifetime_input")
    fields: dict[str, Any] = {name: getattr(state, name) for name in LifetimeState.__slots__ if name not in skipped}
    for visit in state.open.values():
        plain = msgspec.structs.asdict(visit)
        if visit.begun and visit.phase in ("ready", "sent"):
            plain["phase"] = "out"  # whoever takes it up sends it again, and may have to wait for a resume with it
        fields[f"open {visit.exec_id}"] = plain
    guard = state.guard
    if guard is not None:
        fields["guard"] = (guard.digest, guard.raised, guard.started_at)
        for watch in guard.watches:
            counters = [{name: getattr(c, name) for name in c.__slots__} for c in watch.counters]
            fields[f"watch {watch.rule.label}"] = (watch.standing, repr(counters))
    return {name: repr(value) for name, value in fields.items()}


def check(state: LifetimeState) -> None:
    """What holds in every state: what is reserved is what is out, and nothing is kept back twice."""
    guard = state.guard
    for visit in state.open.values():
        assert not visit.reserved or guard is not None
        assert guard is None or visit.reserved == visit.begun, visit
    assert not {held.visit.exec_id for held in state.held} & set(state.open)
    assert not state.held or state.paused
    if guard is None:
        return
    for watch in guard.watches:
        nodes = state.topology.nodes
        held = [v for v in state.open.values() if v.reserved and watch.rule.match.node(nodes[v.node].kind, v.node)]
        for counter, aggregate in zip(watch.counters, watch.rule.expression.aggregates, strict=True):
            assert counter.reserved == sum(share(aggregate, nodes[v.node].maximum) for v in held)
