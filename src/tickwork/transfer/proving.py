"""Proves one lifetime of a file: its row, each entry of its log in turn, and what the log comes to.

The log is folded and compared with what is decided, as a replay does. A log that diverges can be carried all the same,
for perhaps that is why somebody wants to look at it elsewhere; one that cannot be folded at all is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.contract import entry_from_json, execution_json, instant
from tickwork.model.lifetime import TERMINAL, Lifetime, Projection
from tickwork.model.records import ERROR_TEXT_LIMIT, Event, Execution, LogEntry
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.replay import Replaying
from tickwork.transfer.lines import (
    MAX_LOG,
    STORED,
    EntryLine,
    LifetimeLine,
    payloads_of,
    policies_of,
    read_entry,
    said_by,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwork.model.lifetime import LifetimeStatus, Question, TimerRow
    from tickwork.model.records import Entry, Payload
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.replay import Divergence
    from tickwork.orchestrator.topology import Topology

LIFETIME_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

ENDS: dict[str, LifetimeStatus] = {"completed": "COMPLETED", "failed": "FAILED", "aborted": "ABORTED"}

MAX_TIME = 1 << 62


class Wrong(ValueError):
    """What a file says cannot be."""


class Blobs(Protocol):
    """The payloads of a file."""

    def check(self, payload: Payload) -> None:
        """Raises Wrong when there is no such blob, or another."""
        ...

    def get(self, payload: Payload) -> bytes:
        """The bytes of one that was checked."""
        ...


class Proving:
    """The proof of one lifetime. Everything raises Wrong."""

    def __init__(
        self,
        line: LifetimeLine,
        topology: Topology,
        rules: Mapping[str, Rules],
        blobs: Blobs,
        tenant_id: str,
    ) -> None:
        self._line, self._rules, self._blobs, self._tenant = line, rules, blobs, tenant_id
        graph = topology.graph
        self._lifetime = Lifetime(
            lifetime_id=line.lifetime_id, tenant_id=tenant_id, graph_name=graph.name, graph_version=graph.version,
            graph_digest=line.graph, status=line.status, created_at=0, updated_at=0, reason=line.reason,
            labels=line.labels,
        )  # fmt: skip
        self._replaying = Replaying(topology, lifetime_id=line.lifetime_id, tenant_id=tenant_id, rules_of=self._set)
        self._ids: set[str] = set()
        self._end: LifetimeStatus | None = None
        self._timers: dict[str, TimerRow] = {}
        self._questions: dict[str, Question] = {}
        self._at = 0
        self._size = 0
        self.seq = 0
        """Entries proved so far."""

    @property
    def divergence(self) -> Divergence | None:
        """Where the log first says otherwise than is decided, if it does."""
        return self._replaying.divergence

    @property
    def paused(self) -> bool:
        """Whether the log itself says that nothing is sent out any more: it has ended, ends, or was paused."""
        return self._end is not None or self._ending or (self.divergence is None and self._replaying.state.paused)

    @property
    def _ending(self) -> bool:
        """Whether its end is decided, and its log does not show it yet: that alone is left to be recorded."""
        return self.divergence is None and self._replaying.state.ending is not None

    def row(self) -> None:
        """The lifetime's own facts."""
        line = self._line
        if not LIFETIME_ID.fullmatch(line.lifetime_id):
            raise Wrong("this is no lifetime's id")
        if line.tenant_id != self._tenant:
            raise Wrong(f"the lifetime is of tenant {line.tenant_id}, and the file of {self._tenant}")
        if line.records < 1:
            raise Wrong("a log has at least one entry")
        text = [line.reason or "", *line.labels, *line.labels.values()]
        if any(len(words) > ERROR_TEXT_LIMIT * 2 for words in text) or len(line.labels) > 200:
            raise Wrong("the reason or the labels are longer than they may be")
        if any("\x00" in words for words in text):
            raise Wrong("the reason or a label holds a NUL character")
        try:
            self._lifetime.created_at = instant(line.created_at)
        except TickworkError as error:
            raise Wrong(str(error)) from None

    def feed(self, line: EntryLine) -> LogEntry:
        """The next entry, proved."""
        try:
            logged = read_entry(line)
            self._said(line, logged)
            self._placed(logged)
            self._points_here(logged)
            self._fold(logged)
            self._read_model(logged.entry)
        except Wrong:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a hostile record breaks, it is the file that is at fault
            raise Wrong(f"entry {self.seq + 1} cannot be understood: {type(error).__name__}: {error}") from None
        self.seq = logged.seq
        return logged

    def ended(self) -> tuple[Lifetime, Projection]:
        """The row, and the read model's part, once the whole log was fed."""
        line, state = self._line, self._replaying.state
        said = line.status if line.status in TERMINAL else None
        if said != self._end:
            raise Wrong(f"the row says {line.status}, and the log {self._end or 'that it goes on'}")
        if self.divergence is None and state.lineage != line.lifetime_id:
            raise Wrong(f"this is the log of lifetime {state.lineage}")
        self._replaying.replayed()
        if self._end is not None:
            return self._lifetime, Projection(status=self._end, reason=line.reason)
        return self._lifetime, Projection(
            status="RUNNING" if self._ending else "PAUSED",
            reason=None if self._ending else line.reason,
            timers_set=tuple(self._timers.values()),
            questions_opened=tuple(self._questions.values()),
        )

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _said(self, line: EntryLine, logged: LogEntry) -> None:
        """The record says what Tickwork says of this entry: of this tenant, lifetime and graph, with these digests."""
        record = msgspec.json.decode(msgspec.json.encode(execution_json(logged, self._lifetime)))
        if isinstance(line.record, msgspec.Raw):
            if not said_by(msgspec.json.decode(line.record), record):
                raise Wrong(
                    f"entry {self.seq + 1} is not what its record says: it names another tenant, lifetime, graph or "
                    "digest"
                )
        else:
            entry_from_json(record)  # what is stored has the types of the contract

    def _placed(self, logged: LogEntry) -> None:
        """Seqs without gaps, times that do not go back, ids that are there once; not more than is held in memory."""
        if logged.seq != self.seq + 1:
            raise Wrong(f"entry {logged.seq} follows entry {self.seq}: a log has no gaps")
        if not max(self._at, 0) <= logged.at < MAX_TIME:
            raise Wrong(f"entry {logged.seq} was recorded before the one before it")
        entry_id = logged.entry.entry_id
        if entry_id in self._ids:
            raise Wrong(f"`{entry_id}` is recorded twice")
        self._ids.add(entry_id)
        self._at = logged.at
        self._size += len(STORED.encode(logged))
        if self._size > MAX_LOG:
            raise Wrong(f"the log has more than {MAX_LOG:,} bytes")
        begins = isinstance(logged.entry, Event) and logged.entry.type == "started"
        if begins != (logged.seq == 1):
            raise Wrong("a log begins with its `started` entry, and has one")
        if begins and isinstance(logged.entry, Event) and logged.entry.data["graph"]["digest"] != self._line.graph:
            raise Wrong(f"the log was started with graph {logged.entry.data['graph']['digest']}")

    def _points_here(self, logged: LogEntry) -> None:
        """What the entry names is in the file, and has the digest that it tells."""
        digest = policies_of(logged.entry)
        if digest and digest not in self._rules:
            raise Wrong(f"the file has no policies {digest}, which entry {logged.seq} names")
        for payload in payloads_of(logged.entry):
            if payload.uri is not None:
                self._blobs.check(payload)
            if payload.inline is not None and payload.size != len(payload.inline):
                raise Wrong(f"a payload of entry {logged.seq} has another size than it tells")

    def _fold(self, logged: LogEntry) -> None:
        entry = logged.entry
        if isinstance(entry, Event) and entry.type in ENDS and self._end is None:
            self._end = ENDS[entry.type]
        if isinstance(entry, Execution) and self._replaying.state.reads_result(entry.name):
            result = entry.result
            if result is not None and result.uri is not None:
                result = msgspec.structs.replace(result, inline=self._blobs.get(result))
                entry = msgspec.structs.replace(entry, result=result)
        self._replaying.feed(LogEntry(logged.seq, logged.at, entry))

    def _read_model(self, entry: Entry) -> None:
        """Timers and questions that are open, as `projection` has them; a fork has its own."""
        if isinstance(entry, Event) and entry.type == "forked":
            self._timers.clear()
            self._questions.clear()
        changes = project(self._tenant, self._line.lifetime_id, (entry,))
        if changes is None:
            return
        for timer_id in changes.timers_cleared:
            self._timers.pop(timer_id, None)
        for exec_id in changes.questions_closed:
            self._questions.pop(exec_id, None)
        self._timers.update({timer.timer_id: timer for timer in changes.timers_set})
        self._questions.update({asked.exec_id: asked for asked in changes.questions_opened})

    def _set(self, digest: str) -> Rules:
        found = self._rules.get(digest)
        if found is None:
            raise Wrong(f"the file has no policies {digest}")
        return found
