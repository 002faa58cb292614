"""What a set of appends makes of the lifetimes that it is about: pure, given how they stand while they are held.

Seqs are given out, duplicates are found, projections are applied, one unit after the other, in memory; what has to be
written in the end is then written by few statements. `known` has what is recorded already of the entries that
were sent. Without it everything is taken to be new, which it nearly always is; where that matters before anything is
written, Unsure is raised, and where it was wrong the database counts fewer rows than were sent.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias, final

from msgspec.structs import replace

from tickwork.adapters.state.postgres.rows import cleaned, encode_labels
from tickwork.adapters.state.postgres.usage import labels_of, settled
from tickwork.model.lifetime import TERMINAL
from tickwork.model.tallies import Uses
from tickwork.model.windows import MINUTE
from tickwork.ports import Appended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.errors import TickworkError
    from tickwork.model.lifetime import Lifetime, LifetimeStatus, Projection
    from tickwork.model.messages import Append
    from tickwork.model.tallies import Place

Key: TypeAlias = "tuple[str, str]"
"""Tenant and lifetime."""

Known: TypeAlias = "dict[Key, dict[str, bytes]]"

SUPERSEDED = "superseded:"
"""How the ids of entries begin that may come after the end."""

ABORTS = frozenset({"abort", "abort:parent"})
"""The ids of entries that ask a lifetime to abort."""


class Unsure(Exception):
    """Whether an entry is recorded already decides what becomes of it."""


@final
class AppendUnit:
    """An Append with its encoded entries and questions; `error` when it cannot be recorded.

    `ats` is when each entry was recorded, for the history that a new lifetime begins with; else it is now.
    """

    __slots__ = ("answer", "append", "ats", "error", "questions", "rows")

    def __init__(
        self,
        append: Append,
        rows: list[tuple[str, bytes]],
        questions: list[bytes],
        error: str | None = None,
        ats: tuple[int, ...] | None = None,
    ) -> None:
        self.append = append
        self.rows = rows
        self.questions = questions
        self.error = error
        self.ats = ats
        self.answer: Appended | None = None

    @property
    def key(self) -> Key:
        """Its lifetime."""
        return (self.append.tenant_id, self.append.lifetime_id)


@final
class CreateUnit:
    """A new lifetime with its first entries; `found` is it, or the one that was there first."""

    __slots__ = ("created", "error", "first", "found", "lifetime")

    def __init__(self, lifetime: Lifetime, first: AppendUnit) -> None:
        self.lifetime = lifetime
        self.first = first
        self.created = False
        self.found: Lifetime | None = None
        self.error: TickworkError | None = None


Unit: TypeAlias = AppendUnit | CreateUnit


class Head:
    """How a lifetime stands, and what its usage is booked on. `new` has what this transaction records in its log."""

    __slots__ = (
        *("aborting", "at", "changed", "created_at", "finished_at", "graph", "key", "labels", "new", "place", "reason"),
        *("seq", "status", "status_seq", "updated_at"),
    )

    def __init__(self, row: Sequence[Any]) -> None:
        """Of a row of lock_heads.sql, without the time."""
        self.key: Key = (row[0], row[1])
        self.created_at: int = row[2]
        self.seq: int = row[3]
        self.at: int = row[4]
        self.aborting: bool = row[5]
        self.status: LifetimeStatus = row[6]
        self.status_seq: int = row[7]
        self.reason: str | None = row[8]
        self.updated_at: int = row[9]
        self.finished_at: int | None = row[10]
        self.graph: str = row[11]
        self.labels: str = row[12]
        self.new: dict[str, bytes] = {}
        self.changed = False
        self.place: Place | None = None

    def row(self) -> tuple[Any, ...]:
        """What record.sql takes of it."""
        of_status = (self.status, self.status_seq, self.reason, self.updated_at, self.finished_at)
        return (*self.key, self.created_at, self.seq, self.at, self.aborting, *of_status)


def new_head(lifetime: Lifetime, labels: str) -> Head:
    """How a lifetime stands that has just been created."""
    finished_at = lifetime.finished_at
    if finished_at is None and lifetime.ended:
        finished_at = lifetime.updated_at
    reason = None if lifetime.reason is None else cleaned(lifetime.reason)
    status = (lifetime.status, 0, reason, lifetime.updated_at, finished_at)
    names = (lifetime.tenant_id, lifetime.lifetime_id)
    head = Head((*names, lifetime.created_at, 0, 0, False, *status, lifetime.graph_name, labels))
    head.changed = True
    return head


class Batch:
    """What some units come to. Made for one try of a transaction; nothing of it counts before that is committed."""

    def __init__(self, units: Sequence[Unit], tracked: frozenset[str]) -> None:
        self.units = units
        self.entries: list[tuple[str, str, int, int, str, bytes]] = []
        """Tenant, lifetime, seq, at, id and body of what is recorded."""
        self.timers: dict[tuple[Key, str], int | None] = {}
        """When each is due; None: it is cleared."""
        self.questions: dict[tuple[Key, str], tuple[str, int, bytes] | None] = {}
        """What each waits for, since when, and its body; None: it is closed."""
        self.ended: list[Key] = []
        self.settled: list[tuple[str, str]] = []
        """Tenant and execution of what holds no reservation any more."""
        self.uses = Uses()
        self.late: list[CreateUnit] = []
        """Those whose lifetime, or key, was there first."""
        self._tracked = tracked
        self._heads: dict[Key, Head] = {}
        self._known: Known | None = None
        self._now = 0
        self._answers: list[tuple[AppendUnit, Appended]] = []
        self._created: list[tuple[CreateUnit, Head]] = []

    def fold(self, heads: dict[Key, Head], created: set[Key], now: int, known: Known | None) -> None:
        """Works it all out. `created`: the lifetimes whose rows were just inserted. Raises Unsure."""
        self._heads, self._known, self._now = heads, known, now
        for unit in self.units:
            if isinstance(unit, AppendUnit):
                self._append(unit, counted=True)
                continue
            key = unit.first.key
            if key not in created:
                self.late.append(unit)
                continue
            created.discard(key)  # the next one of the same id is late
            from_lifetime = new_head(unit.lifetime, encode_labels(unit.lifetime.labels))
            self._heads[key] = from_lifetime
            self._created.append((unit, from_lifetime))
            # Also one that comes with its end takes its history first.
            ended = from_lifetime.finished_at
            from_lifetime.finished_at = None
            self._append(unit.first, counted=False)  # whoever shares the history with it has counted it
            if ended is not None:
                from_lifetime.finished_at = ended

    def changed(self) -> list[Head]:
        """The heads to write, in the order of their keys."""
        return sorted((head for head in self._heads.values() if head.changed), key=lambda head: head.key)

    def answer(self) -> None:
        """Tells the units what became of them, now that it is durable."""
        for unit, answer in self._answers:
            unit.answer = answer
        for create, head in self._created:
            create.created = True
            create.found = replace(
                create.lifetime,
                status=head.status,
                reason=head.reason,
                updated_at=max(head.updated_at, head.at),
                finished_at=head.finished_at,
                last_seq=head.seq,
            )

    # -- one unit

    def _append(self, unit: AppendUnit, *, counted: bool) -> None:
        append = unit.append
        answer = Appended((None,) * len(append.entries), 0, unit.error)
        self._answers.append((unit, answer))
        head = self._heads.get(unit.key)
        if head is None:
            answer.error = answer.error or f"tenant {append.tenant_id} has no lifetime {append.lifetime_id}"
            return
        answer.last_seq = head.seq
        answer.stale = append.expect is not None and append.expect != head.seq
        if answer.stale or answer.error is not None:
            return
        answer.at = max(head.at, self._now)
        if head.finished_at is not None and not all(entry_id.startswith(SUPERSEDED) for entry_id, _ in unit.rows):
            self._too_late(unit, answer, head)
            return
        self._number(unit, answer, head)
        if counted:
            self._count(append, answer, head)
        if append.projection is not None:
            self._project(unit, answer, head, append.projection)

    def _number(self, unit: AppendUnit, answer: Appended, head: Head) -> None:
        seqs: list[int | None] = []
        differs: list[int] = []
        known = self._known.get(head.key) if self._known is not None else None
        tenant, lifetime = head.key
        new, seq = head.new, head.seq
        for (entry_id, body), at in zip(unit.rows, unit.ats or repeat(answer.at), strict=False):
            recorded = new.get(entry_id)
            if recorded is None and known is not None:
                recorded = known.get(entry_id)
            if recorded is not None:
                if recorded != body:
                    differs.append(len(seqs))
                seqs.append(None)
                continue
            seq += 1
            new[entry_id] = body
            seqs.append(seq)
            self.entries.append((tenant, lifetime, seq, at, entry_id, body))
            head.at, head.changed = at, True
            if entry_id in ABORTS:
                head.aborting = True
        answer.seqs, answer.differs = tuple(seqs), tuple(differs)
        answer.last_seq = head.seq = seq

    def _too_late(self, unit: AppendUnit, answer: Appended, head: Head) -> None:
        """After the end nothing is recorded but what was superseded. What is a duplicate is found to be one."""
        if self._known is None:
            raise Unsure
        recorded = {**self._known.get(head.key, {}), **head.new}
        differs: list[int] = []
        for index, (entry_id, body) in enumerate(unit.rows):
            found = recorded.get(entry_id)
            if found is None:
                answer.stale = True
            elif found != body:
                differs.append(index)
        answer.differs = tuple(differs)

    def _count(self, append: Append, answer: Appended, head: Head) -> None:
        """Counts what the new entries used, and lets go of what was reserved for them."""
        if head.place is None:
            head.place = (head.key[0], head.graph, labels_of(head.labels, self._tracked))
        minute = answer.at // MINUTE
        for entry, seq in zip(append.entries, answer.seqs, strict=True):
            if seq is not None:
                self.uses.add(head.place, minute, entry)
        self.settled += [(append.tenant_id, exec_id) for exec_id in settled(append, answer.seqs)]

    # -- the read model

    def _project(self, unit: AppendUnit, answer: Appended, head: Head, projection: Projection) -> None:
        """Applies the changes that ride on an append."""
        if answer.seqs and not any(answer.seqs):
            # All of it was recorded before, with its projection: what was opened then may be closed by now.
            waked = projection.status == "RUNNING" and projection.as_of is None
            status = None if waked else projection.status
            projection = replace(projection, status=status, timers_set=(), questions_opened=())
        key = head.key
        for timer_id in projection.timers_cleared:
            self.timers[key, timer_id] = None
        for exec_id in projection.questions_closed:
            self.questions[key, exec_id] = None
        if head.finished_at is None:  # an ended one waits for nothing
            for timer in projection.timers_set:
                self.timers[key, timer.timer_id] = timer.due
            for asked, body in zip(projection.questions_opened, unit.questions, strict=False):
                if asked.exec_id not in head.new:
                    self.questions[key, asked.exec_id] = (asked.on, asked.since, body)
        if projection.status is not None:
            self._move(answer, head, projection.status, projection, head.at if unit.ats else answer.at)

    def _move(
        self, answer: Appended, head: Head, status: LifetimeStatus, projection: Projection, finished_at: int
    ) -> None:
        """Moves the status on, unless the lifetime has ended or a later state has spoken already.

        One that was asked to abort is not paused any more: whoever looks for lifetimes with something to do has to
        find it.
        """
        as_of = answer.last_seq if projection.as_of is None else projection.as_of
        if head.finished_at is not None or head.status_seq > as_of or (status == "PAUSED" and head.aborting):
            return
        head.status, head.status_seq, head.updated_at, head.changed = status, as_of, answer.at, True
        head.reason = None if projection.reason is None else cleaned(projection.reason)
        if status in TERMINAL:
            head.finished_at = finished_at
            self.ended.append(head.key)
