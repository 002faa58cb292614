"""Replay: folds a recorded log again and proves that it says what this code decides (spec section 7). Pure.

Whatever the core decides (cancellations, timers, defaults, ends, joins, edges) is compared with what was decided at
that place of the log, before the entry is folded; whatever comes from outside (an executor's result, a person's
answer, a verb) has to answer something that was asked for. User code is never called.

    replay(graph, log).divergence is None
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.graph import AgentGraph
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.records import Event, Execution, decode_entry, encode_entry
from tickwork.model.spending import OURS, lost
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.state import LifetimeState, Visit, no_rules
from tickwork.orchestrator.topology import Topology
from tickwork.orchestrator.visits import revoked
from tickwork.orchestrator.waits import decided_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tickwork.model.records import Entry, LogEntry, Payload
    from tickwork.orchestrator.guardrails.rules import Rules

ENDS = ("completed", "failed", "aborted")
DECIDED = (*ENDS, "timer_set")
"""Events that nobody but the core asks for."""

ABOUT = ("intent", "unknown", "reconciled", "superseded", "verdict")
"""Events that others ask for, each about an execution. A `verdict` is then one of a tenant: no log decides it."""

FORK = "fork"
"""How the `executor` of the execution begins whose result somebody replaced in a fork."""

SHOWN = 2_000
"""Bytes of a payload that are shown; of a larger one its size and type are."""

HEADERS = ("exec_id", "kind", "name", "branch", "iteration", "attempt", "parents", "edge_taken", "created_at")
"""What of an execution was decided before anybody ran it: its place in the graph and its cause."""


class Divergence(msgspec.Struct, kw_only=True):
    """The first place where a log and what this code decides part. Both sides are plain data; None: nothing there."""

    seq: int
    what: str
    """One sentence for people."""
    node: str = ""
    edge: str = ""
    """The edge that the record says was taken, or, when it has none, the one that was decided."""
    recorded: dict[str, Any] | None = None
    decided: dict[str, Any] | None = None


class Replayed(msgspec.Struct, kw_only=True):
    """What a replay found. Counts go as far as the log agrees."""

    divergence: Divergence | None
    entries: int
    decisions: int
    """Entries that were compared with a decision: places of executions, waits, timers, cancellations, ends."""
    edges: int
    """Of these, executions: each proves the edge (or the join) that led to it."""
    ended: bool


def replay(
    graph: AgentGraph | Topology,
    log: Iterable[LogEntry],
    *,
    lifetime_id: str = "",
    tenant_id: str = DEFAULT_TENANT,
    rules_of: Callable[[str], Rules] = no_rules,
) -> Replayed:
    """Replays a log from its first entry to its last, or to the first divergence.

    Entries carry their payload in line wherever a condition of the graph reads it. `lifetime_id` is needed only for
    a log whose `started` entry does not say whose it is; `rules_of` gives the policies of each digest that it names.
    """
    replaying = Replaying(graph, lifetime_id=lifetime_id, tenant_id=tenant_id, rules_of=rules_of)
    for logged in log:
        if replaying.feed(logged) is not None:
            break
    return replaying.replayed()


class Replaying:
    """A replay entry by entry, for logs that are read page by page."""

    def __init__(
        self,
        graph: AgentGraph | Topology,
        *,
        lifetime_id: str = "",
        tenant_id: str = DEFAULT_TENANT,
        rules_of: Callable[[str], Rules] = no_rules,
    ) -> None:
        topology = Topology(graph) if isinstance(graph, AgentGraph) else graph
        self.state = LifetimeState(tenant_id, lifetime_id, topology, rules_of)
        self.recorded: dict[str, Execution | None] = {}
        """What the log has so far, by entry id; of events the id alone."""
        self._left: dict[str, Visit] = {}
        """UNKNOWN visits that somebody had done again: their results may still come, and lead nowhere."""
        self._asked_again: set[str] = set()
        """Visits that a tenant's policy refused. Where one was asked about twice it may have been sent all the same."""
        self.divergence: Divergence | None = None
        self._entries = self._decisions = self._edges = 0
        self._ended = False

    def feed(self, logged: LogEntry) -> Divergence | None:
        """Compares the next entry with what was decided, and folds it; from a divergence on it does nothing more."""
        if self.divergence is None:
            self.divergence = self._compare(logged)
        if self.divergence is None:
            entry = logged.entry
            if isinstance(entry, Event) and entry.type == "reconciled" and entry.data["exec_id"] in self.state.open:
                self._left[entry.data["exec_id"]] = self.state.open[entry.data["exec_id"]]
            if isinstance(entry, Event) and entry.type == "verdict" and entry.data["scope"] == "tenant":
                self._asked_again.add(entry.data["exec_id"])
            fold(self.state, logged)
            self.recorded[entry.entry_id] = entry if isinstance(entry, Execution) else None
            self._entries += 1
            self._ended = self._ended or (isinstance(entry, Event) and entry.type in ENDS)
        return self.divergence

    def replayed(self) -> Replayed:
        """What was found, once the last entry was fed."""
        missing = next(iter(self.state.pending.values()), None)
        if self.divergence is None and self._ended and missing is not None:
            what = "the lifetime has ended, and its log misses an entry that was decided"
            self.divergence = _divergence(self.state.seq + 1, what, None, missing)
        return Replayed(
            divergence=self.divergence,
            entries=self._entries,
            decisions=self._decisions,
            edges=self._edges,
            ended=self._ended,
        )

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _compare(self, logged: LogEntry) -> Divergence | None:
        entry, seq = logged.entry, logged.seq
        if seq != self.state.seq + 1:
            what = f"the log goes from entry {self.state.seq} to entry {seq}"
            return Divergence(seq=self.state.seq + 1, what=what, recorded=plain(entry))
        if entry.entry_id in self.recorded:
            return _divergence(seq, f"`{entry.entry_id}` is recorded a second time", entry, None)
        if (seq == 1) != (isinstance(entry, Event) and entry.type == "started"):
            return _divergence(seq, "a log begins with its `started` entry, and has one", entry, None)
        return self._execution(seq, entry) if isinstance(entry, Execution) else self._event(seq, entry)

    def _execution(self, seq: int, done: Execution) -> Divergence | None:
        decided = self.state.pending.get(done.exec_id)
        visit = self.state.open.get(done.exec_id)
        if self._from_outside(done):
            # What was decided meanwhile came too late: the first record counts.
            asked = decided or visit or self._left.get(done.exec_id)
            if asked is None:
                what = f"nothing led to this execution of `{done.name}`"
                return _divergence(seq, what, done, self._rather(done))
            if self._headers(asked) != self._headers(done):
                what = f"this execution of `{done.name}` stands elsewhere than the visit that it answers"
                return _divergence(seq, what, done, asked)
            if visit is not None and self._kept_back(visit, done):
                what = f"`{done.name}` was kept back, by a pause or a policy, and has a record of having run"
                return _divergence(seq, what, done, visit)
        elif decided is None:
            what = f"`{done.name}` was recorded {done.status} by {done.executor}, and nobody had decided so"
            return _divergence(seq, what, done, visit)
        elif not _same(done, decided):
            return _divergence(seq, f"what was decided about `{done.name}` is recorded otherwise", done, decided)
        self._decisions += 1
        self._edges += 1
        return None

    def _from_outside(self, done: Execution) -> bool:
        """Whether this record is not the core's own: an executor, a person, a child, or a plane made it."""
        if done.executor.partition(":")[0] not in (OURS, "signal"):
            return True
        node = self.state.topology.nodes.get(done.name)
        if node is None or done.error is None:
            return False
        # A worker that is gone, and a child that cannot be started: facts that the planes find out.
        return (lost(done) and node.runs_code) or (done.error.type == "ChildGraphUnknown" and node.child is not None)

    def _kept_back(self, visit: Visit, done: Execution) -> bool:
        """Whether nobody can have been given this visit: it was never sent out. A fork says what somebody wants."""
        unsent = visit.phase == "ready" and not visit.begun
        return unsent and visit.exec_id not in self._asked_again and done.executor.partition(":")[0] != FORK

    def _headers(self, asked: Entry | Visit) -> tuple[Any, ...] | None:
        if isinstance(asked, Event):
            return None
        if isinstance(asked, Execution):
            return tuple([getattr(asked, name) for name in HEADERS])
        kind = self.state.topology.nodes[asked.node].kind
        return (
            asked.exec_id, kind, asked.node, asked.branch, asked.iteration, asked.attempt, asked.parents,
            asked.edge_taken, asked.created_at,
        )  # fmt: skip

    def _rather(self, done: Execution) -> Visit | None:
        """The visit that was open instead: of the same cause if there is one, else in the same branch."""
        near = [v for v in self.state.open.values() if v.parents == done.parents and v.branch == done.branch]
        near += [v for v in self.state.open.values() if v.branch == done.branch]
        return near[0] if near else None

    def _event(self, seq: int, event: Event) -> Divergence | None:
        kind, decided = event.type, self.state.pending.get(event.id)
        if _decided(event):
            if decided is None and kind == "intent" and self._revocable(event.data["exec_id"]):
                return None  # its worker is gone before it called anything
            if decided is None:
                return _divergence(seq, f"nobody had decided this `{kind}`", event, self._next_decided(kind))
            if not _same(event, decided):
                return _divergence(seq, f"this `{kind}` is not the one that was decided", event, decided)
            self._decisions += 1
        elif kind == "waiting":
            return self._waiting(seq, event)
        elif kind == "forked" and event.data.get("seq") != seq - 1:
            what = f"the fork says that it shares {event.data.get('seq')} entries, and stands after {seq - 1}"
            return _divergence(seq, what, event, None)
        elif kind in ABOUT and self._asked(event.data["exec_id"]) is None:
            return _divergence(seq, f"this `{kind}` is about an execution that nothing led to", event, None)
        return None

    def _revocable(self, exec_id: str) -> bool:
        """Whether an `at_most_once` visit is open that nobody has announced a call for."""
        visit = self.state.open.get(exec_id)
        return visit is not None and bool(revoked(self.state, visit))

    def _next_decided(self, kind: str) -> Entry | None:
        """What is decided and still to come, for comparison: of the same kind, if there is any."""
        pending = list(self.state.pending.values())
        return next((e for e in pending if isinstance(e, Event) and (e.type == kind or kind in ENDS)), None)

    def _asked(self, exec_id: str) -> Execution | Visit | None:
        """The visit or the record with this exec id, open or over."""
        decided = self.state.pending.get(exec_id) or self.recorded.get(exec_id)
        visit = self.state.open.get(exec_id) or self._left.get(exec_id)
        return visit or (decided if isinstance(decided, Execution) else None)

    def _waiting(self, seq: int, event: Event) -> Divergence | None:
        """What a wait asks is made with the help of payloads; all else of it is decided."""
        asked = self._asked(event.data["exec_id"])
        if asked is None:
            return _divergence(seq, "this wait is for an execution that nothing led to", event, None)
        if isinstance(asked, Execution):
            return None  # it came late: what it was for is over
        decided = decided_wait(self.state, asked)
        said = {name: value for name, value in event.data.items() if name not in ("prompt", "reason")}
        if not _same(Event("", "waiting", said), Event("", "waiting", decided)):
            what = f"the wait of `{asked.node}` is not the one that was decided"
            return _divergence(seq, what, event, Event(f"waiting:{asked.exec_id}", "waiting", decided))
        self._decisions += 1
        return None


def _decided(event: Event) -> bool:
    """Whether nobody but the core asks for this event."""
    if event.type in DECIDED:
        return True
    if event.type == "intent":
        return not event.data["worker"]
    if event.type == "paused":
        return bool(event.data.get("policy"))
    return event.type == "verdict" and (event.data["scope"] != "tenant" or event.data["at"] == "record")


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries say the same, stored or not yet stored."""
    return one == other or _stored(one) == _stored(other)


def _stored(entry: Entry) -> Entry:
    """The entry as it comes back from a store; a payload that lies in a blob does not lie in line too."""
    if isinstance(entry, Execution) and entry.result is not None and entry.result.uri is not None:
        entry = msgspec.structs.replace(entry, result=msgspec.structs.replace(entry.result, inline=None))
    return decode_entry(encode_entry(entry))


# -- both sides as plain data -----------------------------------------------------------------------------------------


def _divergence(seq: int, what: str, recorded: Entry | None, decided: Entry | Visit | None) -> Divergence:
    left, right = plain(recorded), plain(decided)
    either = left or right or {}
    other = right or {}
    return Divergence(
        seq=seq,
        what=what,
        node=either.get("name") or either.get("node") or other.get("name") or "",
        edge=either.get("edge_taken") or other.get("edge_taken") or "",
        recorded=left,
        decided=right,
    )


def plain(entry: Entry | Visit | None) -> dict[str, Any] | None:
    """An entry, or a visit that has no record yet, as JSON can say it: what it has, in the order of the record."""
    if entry is None:
        return None
    if isinstance(entry, Visit):
        return {name: _plain(getattr(entry, "node" if name == "name" else name)) for name in HEADERS if name != "kind"}
    if isinstance(entry, Event):
        return {"id": entry.id, "type": entry.type} | {name: _plain(value) for name, value in entry.data.items()}
    fields = {name: _plain(getattr(entry, name)) for name in entry.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, msgspec.Struct):
        inline = getattr(value, "inline", None)
        if inline is not None or hasattr(value, "uri"):
            return _payload(value)  # type: ignore[arg-type]  # the one part of a record that has these fields
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _payload(payload: Payload) -> Any:
    if payload.uri is not None:
        return f"{payload.size:,} bytes in {payload.uri}"
    data = payload.inline or b""
    if len(data) > SHOWN or payload.content_type != "application/json":
        return f"{len(data):,} bytes of {payload.content_type}"
    return msgspec.json.decode(data) if data else None
