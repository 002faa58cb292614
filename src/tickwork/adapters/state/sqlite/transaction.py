"""One transaction on the writing connection: many lifetimes' appends, new lifetimes, graphs and dead letters together.

First everything is tried as if it were new: seqs are given out from memory and all rows are inserted by a few
statements. When a row is refused (a duplicate, nearly always) the transaction is rolled back and made again exactly:
one savepoint a unit, one statement a row, so that duplicates take no seq and a bad row fails its own unit only.

What a commit acknowledges is on disk. Whatever fails before or in COMMIT leaves the database, and what is remembered
of it here, as they were. What the new executions used is counted in the same transaction (`usage.py`).
"""

from __future__ import annotations

import sqlite3
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, final

from msgspec.structs import replace

from tickwork.adapters.state.sqlite.letters import BuryUnit, ForgetUnit
from tickwork.adapters.state.sqlite.policies import PolicySetUnit, PolicyUnit
from tickwork.adapters.state.sqlite.rows import LABELS_AT, encode_question, graph_row, lifetime_from, lifetime_row
from tickwork.adapters.state.sqlite.schema import statements
from tickwork.adapters.state.sqlite.usage import labels_of, write_uses
from tickwork.errors import Conflict, GraphConflict, StorageError, TickworkError
from tickwork.model.lifetime import TERMINAL
from tickwork.model.tallies import Uses
from tickwork.model.windows import MINUTE
from tickwork.ports import Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.lifetime import Lifetime, Projection
    from tickwork.model.messages import Append
    from tickwork.ports import StoredGraph

SUPERSEDED = "superseded:"
"""How the ids of entries begin that may come after the end."""

HEADS = 20_000
"""Lifetimes whose last seq is remembered; others are looked up when they are next written to."""

CHUNKS = (64, 8, 1)
"""Rows of one insert statement. Few sizes, so that sqlite3 keeps them compiled; and each statement lets go of the
interpreter's lock once, which a busy event loop may hand back only milliseconds later."""

NONE: frozenset[str] = frozenset()

ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What a bad row raises. Anything else is about the whole database."""


class Head:
    """Where a lifetime's log stands, and what its usage is booked on: its graph, and its labels as JSON."""

    __slots__ = ("at", "ended", "graph", "labels", "lid", "place", "seq", "tenant", "tracked")

    def __init__(self, lid: int, tenant: str, seq: int, at: int, ended: int, graph: str, labels: str) -> None:
        self.lid = lid
        self.tenant = tenant
        self.seq = seq
        self.at = at
        self.ended = bool(ended)
        self.graph = graph
        self.labels = labels
        self.tracked = NONE
        """Which labels were tracked when `place` was made."""
        self.place = (tenant, graph, "{}")

    def track(self, labels: frozenset[str]) -> None:
        """From now on these labels are tracked."""
        self.tracked = labels
        self.place = (self.tenant, self.graph, labels_of(self.labels, labels))


@final
class AppendUnit:
    """An Append with its encoded entries; `outcome` once it was applied.

    `ats` is when each entry was recorded, for the history that a new lifetime begins with; else it is now.
    """

    __slots__ = ("append", "at", "ats", "differs", "ended", "error", "last_seq", "lid", "rows", "seqs", "stale")

    def __init__(
        self,
        append: Append,
        rows: list[tuple[str, bytes]],
        error: str | None = None,
        ats: tuple[int, ...] | None = None,
    ) -> None:
        self.append = append
        self.rows = rows
        self.error = error
        self.ats = ats
        self.lid = 0
        self.last_seq = 0
        self.at = 0
        self.seqs: tuple[int | None, ...] = ()
        self.differs: tuple[int, ...] = ()
        self.stale = False
        self.ended = False
        """It came after the end of its lifetime."""

    def outcome(self) -> Appended:
        """What the store answers."""
        seqs = self.seqs or (None,) * len(self.append.entries)
        return Appended(seqs, self.at, self.error, self.last_seq, self.differs, self.stale)


@final
class CreateUnit:
    """A new lifetime with its first entries; `found` is it, or the one that was there first."""

    __slots__ = ("created", "error", "first", "found", "lid", "lifetime")

    def __init__(self, lifetime: Lifetime, first: AppendUnit) -> None:
        self.lifetime = lifetime
        self.first = first
        self.lid = 0
        self.created = False
        self.found: Lifetime | None = None
        self.error: TickworkError | None = None


@final
class GraphUnit:
    """A graph to register."""

    __slots__ = ("error", "graph")

    def __init__(self, graph: StoredGraph) -> None:
        self.graph = graph
        self.error: TickworkError | None = None

    def put(self, execute: Callable[..., sqlite3.Cursor], sql: dict[str, str]) -> None:
        """Writes it; `error` is set when its version is registered with another digest."""
        graph = self.graph
        if not execute(sql["insert_graph"], graph_row(graph)).rowcount:
            self.error = GraphConflict(
                f"Graph {graph.name}@{graph.version} is registered with another content than this one (its digest "
                f"would be {graph.digest}). A registered version never changes: raise the version."
            )


Unit = AppendUnit | CreateUnit | GraphUnit | BuryUnit | ForgetUnit | PolicyUnit | PolicySetUnit


class Transaction:
    """The writing connection. `apply` and `commit` follow each other, never two at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._sql = statements()
        one = self._sql["insert_entries"].rstrip().rstrip(";")
        self._inserts = [(n, one + ", (?, ?, ?, ?, ?)" * (n - 1)) for n in CHUNKS]
        self._heads: dict[str, Head] = {}
        self.tracked = NONE
        """Labels of lifetimes by which their usage is kept apart."""
        self.uses = Uses()
        """What the transaction adds to the usage; whoever is told that it was committed takes it away."""
        self._ending: set[str] = set()
        """Lifetimes that end in this transaction while its rows are still being gathered."""

    def apply(self, units: Sequence[Unit], now: int) -> None:
        """Opens a transaction and puts the units into it. sqlite3.Error when the database refuses all of them."""
        if len(self._heads) > HEADS:
            for lifetime_id in list(islice(self._heads, HEADS // 4)):
                del self._heads[lifetime_id]
        self._execute("BEGIN IMMEDIATE")
        try:
            try:
                self._apply_new(units, now)
            except ROW_ERRORS:
                self.rollback(units)
                self._execute("BEGIN IMMEDIATE")
                for unit in units:
                    self._apply_exact(unit, now)
                    self._ending.clear()  # its rows are there
            for unit in units:
                if type(unit) is CreateUnit and unit.error is None:
                    unit.found = self._found(unit)
            self._count(units)
        except BaseException:
            self.rollback(units)
            raise
        finally:
            self._ending.clear()

    def commit(self, units: Sequence[Unit]) -> None:
        """Makes it durable. sqlite3.Error when that failed: then nothing of it was kept."""
        try:
            self._execute("COMMIT")
        except BaseException:
            self.rollback(units)
            raise

    def rollback(self, units: Sequence[Unit]) -> None:
        """Undoes what `apply` did, also to what is remembered."""
        self.uses = Uses()
        self._ending.clear()
        if self._connection.in_transaction:  # a full disk may have rolled it back already
            self._execute("ROLLBACK")
        for unit in units:
            self._forget(unit)

    def checkpoint(self) -> None:
        """Moves what readers no longer need from the WAL into the database file."""
        self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # -- everything at once, as if nothing were a duplicate

    def _apply_new(self, units: Sequence[Unit], now: int) -> None:
        values: list[Any] = []
        appends: list[AppendUnit] = []
        for unit in units:
            if type(unit) is AppendUnit:
                appends.append(unit)
            elif type(unit) is CreateUnit:
                if not self._create(unit):
                    continue
                appends.append(unit.first)
            else:
                unit.put(self._execute, self._sql)
                continue
            self._number(appends[-1], now, values)
        self._insert(values)
        for append in appends:
            if append.append.projection is not None and append.error is None and not (append.stale or append.ended):
                self._project(append, append.append.projection)

    def _number(self, unit: AppendUnit, now: int, values: list[Any]) -> None:
        """Gives the unit's entries their seqs, and adds their rows to `values`."""
        head = self._place(unit, now)
        if head is None:
            return
        lid, seq = head.lid, head.seq
        first = seq + 1
        for (entry_id, body), at in zip(unit.rows, unit.ats or repeat(unit.at), strict=False):
            seq += 1
            values += (lid, seq, at, entry_id, body)
        head.seq = unit.last_seq = seq
        unit.seqs = (seq,) if first == seq else tuple(range(first, seq + 1))

    def _insert(self, values: list[Any]) -> None:
        start, left = 0, len(values) // 5
        for size, sql in self._inserts:
            while left >= size:
                self._execute(sql, values[start : start + 5 * size])
                start += 5 * size
                left -= size

    # -- one by one

    def _apply_exact(self, unit: Unit, now: int) -> None:
        self._execute("SAVEPOINT unit")
        try:
            if type(unit) is AppendUnit:
                self._append_exact(unit, now)
            elif type(unit) is CreateUnit:
                if self._create(unit):
                    self._append_exact(unit.first, now)
            else:
                unit.put(self._execute, self._sql)
        except ROW_ERRORS as error:
            self._execute("ROLLBACK TO unit")
            self._forget(unit)
            self._refuse(unit, f"the database refused it: {error}")
        self._execute("RELEASE unit")

    def _append_exact(self, unit: AppendUnit, now: int) -> None:
        head = self._place(unit, now)
        if head is None:
            return
        seqs: list[int | None] = []
        differs: list[int] = []
        for (entry_id, body), at in zip(unit.rows, unit.ats or repeat(unit.at), strict=False):
            if self._execute(self._sql["insert_entry"], (head.lid, head.seq + 1, at, entry_id, body)).rowcount:
                head.seq += 1
                seqs.append(head.seq)
                continue
            if not self._execute(self._sql["compare_entry"], (body, head.lid, entry_id)).fetchone()[0]:
                differs.append(len(seqs))
            seqs.append(None)
        unit.seqs = tuple(seqs)
        unit.differs = tuple(differs)
        unit.last_seq = head.seq
        projection = unit.append.projection
        if projection is not None:
            if seqs and not any(seqs):
                # All of it was recorded before, with its projection: what was opened then may be closed by now.
                waked = projection.status == "RUNNING" and projection.as_of is None
                status = None if waked else projection.status
                projection = replace(projection, status=status, timers_set=(), questions_opened=())
            self._project(unit, projection)

    # -- the parts of both

    def _place(self, unit: AppendUnit, now: int) -> Head | None:
        """The head of the unit's lifetime, with the time to record at; None when nothing is to be recorded."""
        append = unit.append
        head = self._heads.get(append.lifetime_id) or self._load(append.lifetime_id)
        if head is None or head.tenant != append.tenant_id:
            unit.error = unit.error or f"tenant {append.tenant_id} has no lifetime {append.lifetime_id}"
            return None
        unit.lid = head.lid
        unit.last_seq = head.seq
        unit.stale = append.expect is not None and append.expect != head.seq
        if unit.stale or unit.error is not None:
            return None
        unit.at = max(head.at, now)
        if head.ended and not all(entry_id.startswith(SUPERSEDED) for entry_id, _ in unit.rows):
            if append.lifetime_id in self._ending:
                raise ValueError("whether it is a duplicate is seen when the rows of the end are there")
            self._too_late(unit, head)
            return None
        if unit.rows:
            head.at = unit.ats[-1] if unit.ats else unit.at
            projection = append.projection
            if projection is not None and projection.status in TERMINAL and not head.ended:
                head.ended = True
                self._ending.add(append.lifetime_id)
        return head

    def _too_late(self, unit: AppendUnit, head: Head) -> None:
        """After the end nothing is recorded but what was superseded. What is a duplicate is found to be one."""
        differs: list[int] = []
        for index, (entry_id, body) in enumerate(unit.rows):
            found = self._execute(self._sql["compare_entry"], (body, head.lid, entry_id)).fetchone()
            if found is None:
                unit.stale = True
            elif not found[0]:
                differs.append(index)
        unit.seqs = (None,) * len(unit.rows)
        unit.differs = tuple(differs)
        unit.ended = True

    def _load(self, lifetime_id: str) -> Head | None:
        row = self._execute(self._sql["find_head"], (lifetime_id,)).fetchone()
        if row is None:
            return None
        head = self._heads[lifetime_id] = Head(*row)
        return head

    def _found(self, unit: CreateUnit) -> Lifetime:
        """The lifetime as it stands now; one that was just created as it was asked for need not be read back."""
        first = unit.first
        projection = first.append.projection
        moved = projection is not None and projection.status is not None
        if not unit.created or moved or unit.lifetime.ended:
            return lifetime_from(self._execute(self._sql["get_lifetime"], (unit.lid,)).fetchone())
        at = first.ats[-1] if first.ats else first.at
        return replace(unit.lifetime, last_seq=first.last_seq, updated_at=max(unit.lifetime.updated_at, at))

    def _create(self, unit: CreateUnit) -> bool:
        """Inserts the lifetime's row: whether it is new."""
        lifetime = unit.lifetime
        values = lifetime_row(lifetime)
        inserted = self._execute(self._sql["insert_lifetime"], values)
        unit.created = inserted.rowcount > 0
        if unit.created:
            unit.lid = inserted.lastrowid or 0
            row = (unit.lid, lifetime.tenant_id, 0, 0, 0, lifetime.graph_name, values[LABELS_AT])
            self._heads[lifetime.lifetime_id] = Head(*row)
            return True
        names = (lifetime.lifetime_id, lifetime.tenant_id, lifetime.idempotency_key)
        unit.lid, tenant = self._execute(self._sql["find_first_lifetime"], names).fetchone()
        if tenant != unit.lifetime.tenant_id:
            unit.error = Conflict(f"The lifetime id {unit.lifetime.lifetime_id} is taken. Start it with a fresh one.")
        return False

    def _project(self, unit: AppendUnit, projection: Projection) -> None:
        """Applies the read model's changes that ride on an append."""
        lid, sql, many = unit.lid, self._sql, self._connection.executemany
        if projection.timers_cleared:
            many(sql["delete_timer"], [(lid, timer_id) for timer_id in projection.timers_cleared])
        if projection.questions_closed:
            many(sql["delete_question"], [(lid, exec_id) for exec_id in projection.questions_closed])
        opens = projection.timers_set or projection.questions_opened
        if opens and self._execute(sql["get_status"], (lid,)).fetchone()[0] is None:  # an ended one waits for nothing
            many(sql["upsert_timer"], [(lid, timer.timer_id, timer.due) for timer in projection.timers_set])
            tenant = unit.append.tenant_id
            many(
                sql["upsert_question"],
                [(lid, q.exec_id, tenant, q.since, encode_question(q)) for q in projection.questions_opened],
            )
        if projection.status is not None:
            self._move(unit, projection)

    def _move(self, unit: AppendUnit, projection: Projection) -> None:
        ends = projection.status in TERMINAL
        as_of = unit.last_seq if projection.as_of is None else projection.as_of
        finished_at = (unit.ats[-1] if unit.ats else unit.at) if ends else None
        row = (projection.status, as_of, projection.reason, unit.at, finished_at, unit.lid)
        if self._execute(self._sql["update_status"], row).rowcount and ends:
            self._execute(self._sql["delete_timers"], (unit.lid,))
            self._execute(self._sql["delete_questions"], (unit.lid,))

    def _count(self, units: Sequence[Unit]) -> None:
        """Counts what the new entries used. A new lifetime's history is no new entry: whoever shares it counted it."""
        uses, tracked, heads = self.uses, self.tracked, self._heads
        for unit in units:
            if type(unit) is not AppendUnit or not unit.seqs or unit.error is not None:
                continue
            append = unit.append
            head = heads.get(append.lifetime_id) or self._load(append.lifetime_id)
            if head is None:
                continue
            if head.tracked is not tracked:
                head.track(tracked)
            minute = unit.at // MINUTE
            for entry, seq in zip(append.entries, unit.seqs, strict=False):
                if seq is not None:
                    uses.add(head.place, minute, entry)
        if uses.rows:
            write_uses(self._connection, self._sql, uses)

    def _forget(self, unit: Unit) -> None:
        if type(unit) is AppendUnit:
            self._heads.pop(unit.append.lifetime_id, None)
        elif type(unit) is CreateUnit:
            self._heads.pop(unit.lifetime.lifetime_id, None)

    def _refuse(self, unit: Unit, why: str) -> None:
        if type(unit) is AppendUnit:
            unit.error = why
            head = self._load(unit.append.lifetime_id) if unit.lid else None
            unit.last_seq = head.seq if head else 0
        else:
            unit.error = StorageError(f"Nothing was recorded: {why}.")
