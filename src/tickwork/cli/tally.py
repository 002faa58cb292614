"""What the log of a lifetime adds up to, entry by entry: status, steps, tokens, cost, and where each branch stands.

It is fed thousands of entries a second, so an entry costs a few dictionary operations and nothing is drawn here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tickwork.model.graph import END
from tickwork.model.ids import branch_path, group_path
from tickwork.model.records import Event, Execution
from tickwork.model.spending import lost

if TYPE_CHECKING:
    from tickwork.model.graph import AgentGraph, Edge
    from tickwork.model.records import LogEntry

RECENT = 8
TRAIL = 12
MAX_LANES = 200

EVENT_STATUS = {
    "started": "RUNNING",
    "paused": "PAUSED",
    "resumed": "RUNNING",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "aborted": "ABORTED",
}


@dataclass(slots=True)
class Lane:
    """One branch: the executions it has seen last, and the node that is at work in it (as far as the log implies)."""

    branch: str
    trail: deque[Execution] = field(default_factory=lambda: deque(maxlen=TRAIL))
    at_work: str = ""
    since: int = 0
    waits: bool = False


@dataclass(slots=True)
class NodeCount:
    """What one node has used so far."""

    kind: str
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    """Attempts whose worker was gone: they are made again, and are nobody's failure."""
    tokens: int = 0
    cost_nano_usd: int = 0
    busy: int = 0
    """Microseconds between start and finish, added up."""


class Tally:
    """The sum of a log so far."""

    def __init__(self, graph: AgentGraph | None = None) -> None:
        self.graph = graph
        self.status = "PENDING"
        self.reason = ""
        self.executions = 0
        self.events = 0
        self.tokens = 0
        self.cost_nano_usd = 0
        self.first_at = 0
        self.last_at = 0
        self.last_seq = 0
        self.recent: deque[tuple[int, Execution]] = deque(maxlen=RECENT)
        self.lanes: dict[str, Lane] = {}
        self.nodes: dict[str, NodeCount] = {}
        self.waiting: dict[str, dict[str, Any]] = {}
        """What is waited for, by exec id: the data of the `waiting` events that no execution has answered yet."""
        self.unknown: dict[str, dict[str, Any]] = {}
        """Executions that are UNKNOWN, by exec id: the data of their `unknown` events."""
        self.timers: dict[str, dict[str, Any]] = {}
        """Durable timers that have not fired, by id: the data of their `timer_set` events."""
        self._edges = graph.outgoing if graph else {}

    def feed(self, entry: LogEntry) -> None:
        """Adds one entry; entries come in the log's order, each once."""
        self.first_at = self.first_at or entry.at
        self.last_at, self.last_seq = entry.at, entry.seq
        item = entry.entry
        if isinstance(item, Execution):
            self._execution(item, entry)
        else:
            self._event(item, entry.at)

    @property
    def standing(self) -> str:
        """The status in one word, as far as the log tells: RUNNING is WAITING when every branch at work waits."""
        if self.status != "RUNNING" or not self.waiting:
            return self.status
        return "RUNNING" if any(lane.at_work and not lane.waits for lane in self.lanes.values()) else "WAITING"

    @property
    def ended(self) -> bool:
        """Whether the log says that it is over."""
        return self.status in ("COMPLETED", "FAILED", "ABORTED")

    def _execution(self, item: Execution, entry: LogEntry) -> None:
        self.executions += 1
        used = item.telemetry
        if used is not None:
            self.tokens += used.tokens_used
            self.cost_nano_usd += used.cost_nano_usd
        self._count(item)
        self.recent.append((entry.at, item))
        if len(self.lanes) > 1:
            self._close_below(item.branch)
        lane = self._lane(item.branch)
        lane.trail.append(item)
        lane.waits = False
        if self.waiting:
            self.waiting.pop(item.exec_id, None)
        if self.unknown:
            self.unknown.pop(item.exec_id, None)
        for timer in [one for one, data in self.timers.items() if data.get("exec_id") == item.exec_id]:
            del self.timers[timer]
        self._what_follows(lane, item, entry.at)

    def _count(self, item: Execution) -> None:
        row = self.nodes.get(item.name)
        if row is None:
            row = self.nodes[item.name] = NodeCount(item.kind)
        if item.status == "SUCCEEDED":
            row.succeeded += 1
        elif item.status == "CANCELLED":
            row.cancelled += 1
        elif lost(item):
            row.lost += 1
        else:
            row.failed += 1
        if item.started_at:
            row.busy += max(0, item.finished_at - item.started_at)
        if item.telemetry is not None:
            row.tokens += item.telemetry.tokens_used
            row.cost_nano_usd += item.telemetry.cost_nano_usd

    def _event(self, event: Event, at: int) -> None:
        self.events += 1
        self.status = EVENT_STATUS.get(event.type, self.status)
        if event.type in ("paused", "aborted", "failed"):
            self.reason = str(event.data.get("reason") or "")
        elif event.type in ("resumed", "completed"):
            self.reason = ""
        elif event.type == "timer_set":
            self.timers[str(event.data.get("timer_id"))] = event.data
        elif event.type == "timer_fired":
            self.timers.pop(str(event.data.get("timer_id")), None)
        elif event.type == "unknown":
            self.unknown[str(event.data.get("exec_id"))] = event.data
        elif event.type == "reconciled" and event.data.get("action") == "retry":
            self._settled(str(event.data.get("exec_id")), at)
        if event.type == "started" and self.graph is not None:
            for edge in self.graph.entries:
                self._at_work("", edge.target, at)
        elif event.type == "waiting":
            lane = self._lane(event.data.get("branch", ""))
            lane.at_work, lane.since, lane.waits = str(event.data.get("node", "")), at, True
            self.waiting[str(event.data.get("exec_id"))] = event.data
        if self.ended:
            self.lanes.clear()
            self.waiting.clear()
            self.unknown.clear()
            self.timers.clear()

    def _settled(self, exec_id: str, at: int) -> None:
        """An execution in trouble is run again: what waited for somebody is at work."""
        self.unknown.pop(exec_id, None)
        waited = self.waiting.pop(exec_id, None)
        if waited is not None:
            self._at_work(waited.get("branch", ""), str(waited.get("node", "")), at)

    def _what_follows(self, lane: Lane, item: Execution, at: int) -> None:
        """Which node works next, where the record alone says so: a Plan's choice, or a Task's only edge."""
        lane.at_work, lane.since = "", at
        if item.status != "SUCCEEDED":
            return
        if item.next is not None:
            self._plan_chose(lane, item, at)
            return
        edges = self._edges.get(item.name, ())
        if len(edges) == 1 and edges[0].kind == "NORMAL" and not edges[0].condition:
            self._at_work(lane.branch, edges[0].target, at)

    def _plan_chose(self, lane: Lane, item: Execution, at: int) -> None:
        kinds = {edge.target: edge for edge in self._edges.get(item.name, ())}
        chosen = [one.task for one in item.next or () if one.task != END]
        forks = [name for name in chosen if _is(kinds.get(name), "PARALLEL")]
        if not forks:
            if len(chosen) == 1 and not _is(kinds.get(chosen[0]), "JOIN"):
                self._at_work(lane.branch, chosen[0], at)
            return
        group = group_path(item.branch, item.name, item.iteration)
        for index, name in enumerate(forks[:MAX_LANES]):
            self._at_work(branch_path(group, index), name, at)

    def _at_work(self, branch: str, node: str, at: int) -> None:
        lane = self._lane(branch)
        lane.at_work, lane.since, lane.waits = node, at, False

    def _lane(self, branch: str) -> Lane:
        lane = self.lanes.get(branch)
        if lane is not None:
            return lane
        if len(self.lanes) >= MAX_LANES:
            del self.lanes[next(name for name in self.lanes if name)]
        lane = self.lanes[branch] = Lane(branch)
        return lane

    def _close_below(self, branch: str) -> None:
        """A branch that moves has no open fan-out group below it any more."""
        prefix = f"{branch}/" if branch else ""
        for name in [name for name in self.lanes if name != branch and name.startswith(prefix)]:
            del self.lanes[name]


def _is(edge: Edge | None, kind: str) -> bool:
    return edge is not None and edge.kind == kind
