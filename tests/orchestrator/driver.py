"""Runs the pure core alone: a log in a list, completions in any order, duplicates at will.

`Run` plays Data Plane and executors: what the core dispatches is completed by a behaviour function, in an order that
the test chooses; what the core wants recorded is appended; a duplicate id is dropped, as every store does.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tickwork.model import ids
from tickwork.model.graph import AgentGraph, Edge, Join, Node, RetryPolicy
from tickwork.model.records import Error, Event, Execution, LogEntry, Next, Payload, json_payload, payload_value
from tickwork.orchestrator.fold import fold, outstanding
from tickwork.orchestrator.forking import Replacement, forked_log
from tickwork.orchestrator.replay import ENDS, Replayed, replay
from tickwork.orchestrator.state import CancelRunning, Dispatch, LifetimeState, Record, TellParent, Visit
from tickwork.orchestrator.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable

LIFETIME = "01990000-0000-7000-8000-000000000001"
ONCE = RetryPolicy(max_attempts=1)

Choice = Any
"""What a behaviour returns: for a Task its result (or an Error); for a Plan a list of names or (name, input)."""


def graph(*edges: str | Edge, **nodes: Node) -> AgentGraph:
    """A graph from lines like `start -> plan_a`, `plan_a => task_b` (PARALLEL), `task_b >> plan_c` (JOIN all).

    A name that begins with `plan` is a Plan, `start` and `end` are what they are, anything else is a Task.
    """
    parsed = [edge if isinstance(edge, Edge) else _edge(edge) for edge in edges]
    names = dict.fromkeys(n for e in parsed for n in (e.source, e.target) if n not in ("start", "end"))
    made = [
        nodes.get(name) or Node(name=name, kind="plan" if name.startswith("plan") else "task", retry=ONCE)
        for name in names
    ]
    return AgentGraph(name="test", version="1.0.0", nodes=tuple(made), edges=tuple(parsed))


def _edge(line: str) -> Edge:
    for arrow, kind in ((" => ", "PARALLEL"), (" >> ", "JOIN"), (" -> ", "NORMAL")):
        if arrow in line:
            source, _, rest = line.partition(arrow)
            target, _, option = rest.partition(" | ")
            if target == "end":
                return Edge(source=source, target=target, kind="FINAL", condition=option)
            if kind == "JOIN":
                mode, _, count = (option or "all").partition(" ")
                return Edge(source=source, target=target, kind=kind, join=Join(mode=mode, count=int(count or 0)))
            return Edge(source=source, target=target, kind=kind, condition=option)
    raise ValueError(line)


class Run:
    """One lifetime in the hands of a test."""

    def __init__(
        self,
        template: AgentGraph,
        behave: Callable[[Visit, Run], Choice],
        seed: int = 0,
        lifetime_id: str = LIFETIME,
    ) -> None:
        self.topology = Topology(template)
        self.lifetime_id = lifetime_id
        self.behave = behave
        self.random = random.Random(seed)
        self.state = LifetimeState("default", lifetime_id, self.topology)
        self.log: list[LogEntry] = []
        self.ids: set[str] = set()
        self.in_flight: list[Visit] = []
        self.cancelled: list[str] = []
        self.told: list[TellParent] = []
        self.trace: list[str] = []

    def start(self, value: Any = None) -> Run:
        """Appends the `started` entry."""
        data = {"lifetime_id": self.lifetime_id, "graph": {}, "input": list(_fields(json_payload(value)))}
        self.append(Event("started", "started", data))
        return self

    def forked(
        self, seq: int, fork_id: str, replacement: Replacement | None = None, *, later: int = 0, seed: int = 0
    ) -> Run:
        """A run of its own that shares this one's history up to the execution at `seq`, `later` us after it."""
        fork = Run(self.topology.graph, self.behave, seed, fork_id)
        fork.log = forked_log(
            self.log, seq, parent_id=self.lifetime_id, fork_id=fork_id, now=self.log[seq - 1].at + later,
            replacement=replacement,
        )  # fmt: skip
        fork.ids = {logged.entry.entry_id for logged in fork.log}
        fork.state = fork.rebuilt()
        fork.perform(outstanding(fork.state))
        return fork

    def append(self, entry: Execution | Event) -> bool:
        """Appends unless it is a duplicate, folds, and does what the core asks for."""
        if entry.entry_id in self.ids:
            return False
        self.ids.add(entry.entry_id)
        logged = LogEntry(len(self.log) + 1, (self.log[-1].at if self.log else 0) + 1_000_000, entry)
        self.log.append(logged)
        self.perform(fold(self.state, logged))
        if isinstance(entry, Event) and entry.type in ENDS:
            self.replayed()
        return True

    def perform(self, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(command, Dispatch):
                self.trace.append(f"dispatch {command.visit.exec_id}")
                self.in_flight.append(command.visit)
            elif isinstance(command, Record):
                for entry in command.entries:
                    self.append(entry)
            elif isinstance(command, CancelRunning):
                self.cancelled += [v.exec_id for v in command.visits]
            else:
                self.told.append(command)

    def complete(self, visit: Visit) -> None:
        """Runs the behaviour for this visit and appends its execution."""
        self.append(self.execution(visit, self.behave(visit, self)))

    def execution(self, visit: Visit, made: Choice) -> Execution:
        kind = self.topology.nodes[visit.node].kind
        done = Execution(
            visit.exec_id, kind, visit.node, visit.branch, visit.iteration, visit.attempt, visit.parents,
            visit.edge_taken, visit.created_at, visit.created_at, visit.created_at + 1, "SUCCEEDED", "test",
        )  # fmt: skip
        if isinstance(made, Error):
            done.status, done.error = "FAILED", made
        elif kind == "plan":
            done.next = tuple(Next(c, None) if isinstance(c, str) else Next(c[0], json_payload(c[1])) for c in made)
        else:
            done.result = json_payload(made)
        return done

    def finish(self, limit: int = 10_000) -> Run:
        """Completes what is in flight, in random order, until nothing is left."""
        while self.in_flight and limit:
            limit -= 1
            visit = self.in_flight.pop(self.random.randrange(len(self.in_flight)))
            self.complete(visit)
        assert limit, "the run does not end"
        self.replayed()
        return self

    def replayed(self) -> Replayed:
        """What a replay of the log finds, which must be nothing: every lifetime that ends here is replayed."""
        found = replay(self.topology, self.log)
        assert found.divergence is None, found.divergence
        assert found.entries == len(self.log)
        return found

    def rebuilt(self) -> LifetimeState:
        """The state folded from the log again, as another process would."""
        state = LifetimeState("default", self.lifetime_id, self.topology)
        for logged in self.log:
            fold(state, logged)
        return state

    # -- what tests look at -------------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        return self.state.status

    @property
    def reason(self) -> str:
        """Why the lifetime ended."""
        return (self.state.ending and self.state.ending.reason) or ""

    def executions(self, name: str) -> list[Execution]:
        return [e.entry for e in self.log if isinstance(e.entry, Execution) and e.entry.name == name]

    def events(self, kind: str) -> list[Event]:
        return [e.entry for e in self.log if isinstance(e.entry, Event) and e.entry.type == kind]

    def result(self) -> Any:
        """The value that the `completed` entry points at."""
        seqs, pick, joined = self.events("completed")[0].data["source"]
        values = []
        for seq in seqs:
            entry = self.log[seq - 1].entry
            if isinstance(entry, Event):
                values.append(payload_value(Payload(*entry.data["input"])))
            elif pick >= 0:
                values.append(payload_value(entry.next[pick].input))
            else:
                values.append(payload_value(entry.result))
        return values if joined else values[0]


def _fields(payload: Payload) -> tuple[Any, ...]:
    return (payload.inline, payload.content_type, payload.uri, payload.size, payload.sha256)


__all__ = ["LIFETIME", "ONCE", "Run", "graph", "ids", "outstanding"]
