"""The ports of the state database (StateAdapter) on SQLite: a file for the local profile, `:memory:` for tests.

The event loop encodes, numbers and collects; `group_commit` decides when; `transaction` writes, on the one
connection that does. Reads have a connection of their own that cannot write; they run on the loop, for they take
microseconds, and see everything acknowledged. Other processes open the same file with `readonly=True`.

A file has one writing process at a time; the home's lock sees to that, not this module.
"""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tickwork.adapters.logs import check_beginning, log_entries
from tickwork.adapters.state.sqlite.failures import storage_error
from tickwork.adapters.state.sqlite.group_commit import GroupCommit
from tickwork.adapters.state.sqlite.ledger import SqliteLedger, read_totals
from tickwork.adapters.state.sqlite.letters import ADDED_IN, BuryUnit, ForgetUnit, letter_from
from tickwork.adapters.state.sqlite.policies import PolicySetUnit, PolicyUnit, policies_from
from tickwork.adapters.state.sqlite.rows import Row, entry_rows, graph_from, lifetime_from, question_from
from tickwork.adapters.state.sqlite.schema import (
    MEMORY,
    connect_reader,
    connect_writer,
    migrate,
    migrations,
    refuse_newer,
    require_readable,
    schema_version,
    statements,
)
from tickwork.adapters.state.sqlite.transaction import AppendUnit, CreateUnit, GraphUnit, Transaction, Unit
from tickwork.adapters.state.sqlite.usage import ADDED_IN as USAGE_ADDED_IN
from tickwork.adapters.state.sqlite.usage import report
from tickwork.errors import StorageError, StoreCorrupt
from tickwork.model.lifetime import TimerRow
from tickwork.model.spending import Total, UsageRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.model.messages import Append, DeadLetter
    from tickwork.model.records import LogEntry
    from tickwork.model.spending import Quantity, UsageQuery
    from tickwork.ports import Appended, Clock, Demand, Judge, LifetimeQuery, Over, StoredGraph, StoredPolicies

T = TypeVar("T")

AFTER_ANY_ID = "\U0010ffff"
PREFIX_MATCHES = 5
"""How many candidates an ambiguous prefix names (the port says so)."""


DAMAGED = "The file was changed from outside or the disk is failing"
"""What it may come of that an entry cannot be read."""


class SqliteStore:
    """A state store in the file `path` (its folder is made), or in memory for the path `:memory:`."""

    def __init__(self, path: str | Path, clock: Clock, *, readonly: bool = False) -> None:
        self._path = str(path)
        self._clock = clock
        self._readonly = readonly
        self._sql = statements()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._commits: GroupCommit | None = None
        self._ledger: SqliteLedger | None = None
        self._tracked: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The database, for people."""
        return self._path

    async def start(self) -> None:
        """Opens the database and migrates it. Twice is fine."""
        if self._reader is not None:
            return
        try:
            if self._readonly:
                self._reader = connect_reader(self._path)
                require_readable(self._reader, self._path)
                return
            self._open()
        except sqlite3.Error as error:
            self._close()
            raise storage_error(error, self._path) from error
        except BaseException:
            self._close()
            raise

    async def migrate(self, *, check: bool = False) -> tuple[int, list[str]]:
        """Migrates the database, without `start`: the version it had, and the migrations that it had not seen.

        `check`: only looks. StoreTooNew, StorageError.
        """
        found = self._version()
        if not check:
            await self.start()
            await self.stop()
        return found, [migration.name for migration in migrations()[found:]]

    async def stop(self) -> None:
        """Finishes what was submitted, then closes. Twice is fine."""
        commits, self._commits = self._commits, None
        if commits is not None:
            await commits.close()
        self._close()

    async def put_graph(self, graph: StoredGraph) -> None:
        """Registers a graph; GraphConflict when this version has another digest."""
        unit = GraphUnit(graph)
        await self._submit([unit], 1, len(graph.body))
        if unit.error is not None:
            raise unit.error

    async def graphs(
        self, tenant_id: str, *, name: str | None = None, version: str | None = None, digest: str | None = None
    ) -> list[StoredGraph]:
        """Registered graphs that match all that is given, newest registration first."""
        wanted = {"tenant_id": tenant_id, "name": name, "version": version, "digest": digest}
        return [graph_from(row) for row in self._rows("list_graphs", wanted)]

    async def create_lifetime(self, lifetime: Lifetime, started: Append) -> tuple[Lifetime, bool]:
        """Inserts the lifetime and its first entries; (the one that was first, False) when there is one."""
        check_beginning(lifetime, started)
        rows = entry_rows(started)
        unit = CreateUnit(lifetime, AppendUnit(started, rows, ats=started.ats))
        await self._submit([unit], 1 + len(rows), 500 + sum(len(body) for _, body in rows))
        if unit.error is not None:
            raise unit.error
        if unit.found is None:
            raise StorageError(f"The database {self._path} did not answer for lifetime {lifetime.lifetime_id}.")
        return unit.found, unit.created

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Adds entries, each at the next seq of its lifetime; one result an item, in order."""
        units: list[AppendUnit] = []
        count = size = 0
        for append in batch:
            try:
                rows = entry_rows(append)
            except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
                units.append(AppendUnit(append, [], f"it cannot be recorded: {error}"))
                continue
            units.append(AppendUnit(append, rows))
            count += len(rows)
            for row in rows:
                size += len(row[1]) + 100
        if units and not (self._commits is not None and self._commits.commit_now(units, count, size)):
            await self._submit(units, count, size)
        return [unit.outcome() for unit in units]

    async def read_log(self, tenant_id: str, lifetime_id: str, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries with seq > `after`, in order; StoreCorrupt when one cannot be read or is missing."""
        wanted = {"tenant_id": tenant_id, "lifetime_id": lifetime_id, "after": after, "limit": limit}
        rows = self._rows("read_log", wanted)
        for seq, row in enumerate(rows, max(after, 0) + 1):
            if row[0] != seq:
                raise self._missing(lifetime_id, seq)
        return log_entries(rows, lifetime_id, DAMAGED)

    async def read_entries(self, tenant_id: str, lifetime_id: str, seqs: Sequence[int]) -> list[LogEntry]:
        """The entries at these seqs, in the order asked; StoreCorrupt when one is missing."""
        asked = msgspec.json.encode(list(seqs)).decode()
        rows = self._rows("read_entries", {"tenant_id": tenant_id, "lifetime_id": lifetime_id, "seqs": asked})
        found = {row[0]: row for row in rows}
        for seq in seqs:
            if seq not in found:
                raise self._missing(lifetime_id, seq)
        return log_entries([found[seq] for seq in seqs], lifetime_id, DAMAGED)

    async def get_lifetime(self, tenant_id: str, id_or_prefix: str) -> list[Lifetime]:
        """The lifetimes whose id begins so, at most 5."""
        wanted = {
            "tenant_id": tenant_id,
            "low": id_or_prefix,
            "high": id_or_prefix + AFTER_ANY_ID,
            "limit": PREFIX_MATCHES,
        }
        return [lifetime_from(row) for row in self._rows("find_lifetimes", wanted)]

    async def list_lifetimes(self, tenant_id: str, query: LifetimeQuery) -> list[Lifetime]:
        """Lifetimes that match, newest first. `query.graph` is a name, or name@version."""
        name, _, version = (query.graph or "").partition("@")
        wanted: dict[str, Any] = {
            "tenant_id": tenant_id,
            "before": query.before,
            "graph": name or None,
            "version": version or None,
            "label": query.label[0] if query.label else None,
            "label_value": query.label[1] if query.label else None,
            "limit": query.limit,
        }
        if query.statuses is None:
            return [lifetime_from(row) for row in self._rows("list_lifetimes", wanted)]
        wanted["statuses"] = msgspec.json.encode(query.statuses).decode()
        return [lifetime_from(row) for row in self._rows("list_lifetimes_by_status", wanted)]

    async def open_lifetimes(
        self, after: str = "", limit: int = 1000, *, status: str | None = None, untouched_since: int | None = None
    ) -> list[Lifetime]:
        """Lifetimes of all tenants that have not ended, by id; only those in `status`, or unmoved since a time (us)."""
        wanted = {"after": after, "limit": limit, "status": status, "untouched_since": untouched_since}
        return [lifetime_from(row) for row in self._rows("open_lifetimes", wanted)]

    async def due_timers(self, ahead: int = 0, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        """Timers that are due (or will be, `ahead` us from now), earliest first; and how long it is to the next one."""
        now = self._clock.now()
        timers = [TimerRow(*row) for row in self._rows("due_timers", (limit + 1,))]
        due = [timer for timer in timers[:limit] if timer.due <= now + ahead]
        return due, max(timers[len(due)].due - now, 0) if len(timers) > len(due) else None

    async def questions(
        self, tenant_id: str, lifetime_id: str | None = None, limit: int = 1000, *, on: str | None = None
    ) -> list[Question]:
        """Open waits of a tenant (or of one of its lifetimes), for `on` only if it is given, oldest first."""
        most = limit if on is None else -1
        if lifetime_id is None:
            rows = self._rows("list_questions", (tenant_id, most))
        else:
            wanted = {"tenant_id": tenant_id, "lifetime_id": lifetime_id, "limit": most}
            rows = self._rows("list_questions_of_lifetime", wanted)
        found = (question_from(row) for row in rows)
        return list(islice((q for q in found if on is None or q.on == on), limit))

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters, each once; of a tenant the newest LETTERS."""
        if letters:
            unit = BuryUnit(letters)
            await self._submit([unit], len(letters), sum(len(letter.value) + 500 for letter in letters))
            if unit.error is not None:
                raise unit.error

    async def dead_letters(self, tenant_id: str, limit: int = 1000, after: str = "") -> list[DeadLetter]:
        """A tenant's dead letters, by id, with id > `after`."""
        if schema_version(self._connected()) < ADDED_IN:
            return []  # beside a process of the version before, which keeps none
        return [letter_from(row) for row in self._rows("list_letters", (tenant_id, after, limit))]

    async def forget_dead_letter(self, tenant_id: str, letter_id: str) -> bool:
        """Removes one; False when there is none."""
        unit = ForgetUnit(tenant_id, letter_id)
        await self._submit([unit], 1, 0)
        if unit.error is not None:
            raise unit.error
        return unit.found

    async def put_policies(self, document: StoredPolicies) -> None:
        """Puts a document in force for its layer; nothing changes when it is in force already."""
        await self._put(PolicyUnit(document), len(document.body))

    async def policies(self, *, history: bool = False) -> list[StoredPolicies]:
        """The documents in force, by tenant and graph; with `history` all that ever were, oldest first."""
        if not self._has_usage():
            return []
        return [policies_from(row) for row in self._rows("list_policies_ever" if history else "list_policies", ())]

    async def put_policy_set(self, digest: str, body: bytes) -> None:
        """Keeps a set under its digest. Again is fine."""
        await self._put(PolicySetUnit(digest, body), len(body))

    async def policy_set(self, digest: str) -> bytes | None:
        """The set with this digest, or None."""
        rows = self._rows("get_policy_set", (digest,)) if self._has_usage() else []
        return bytes(rows[0][0]) if rows else None

    async def admit(self, demands: Sequence[Demand], judge: Judge[T]) -> list[T | Over | None]:
        """Judges demands in order, in one atomic step, and reserves for those that are admitted."""
        if self._ledger is None or self._commits is None:
            raise self._not_writing("nothing was admitted")
        return await self._ledger.admit(self._commits, demands, judge)

    async def totals(self, tenant_id: str, quantities: Sequence[Quantity]) -> list[Total]:
        """How these stand now; without what is reserved when the database was opened for reading only."""
        if self._ledger is not None and self._commits is not None:
            return await self._ledger.totals(self._commits, tenant_id, quantities)
        if not self._has_usage():
            return [Total() for _ in quantities]
        try:
            return read_totals(self._connected(), self._sql, tenant_id, quantities, self._clock.now())
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """What was used, added up as asked, in the order of the keys; without keys one row for all."""
        if not self._has_usage():
            return [] if query.by else [UsageRow(key=())]
        try:
            return report(self._connected().execute, self._sql, query)
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    def track(self, labels: frozenset[str]) -> None:
        """From the next commit on usage is kept apart by these labels too, beside those that are tracked already."""
        self._tracked |= labels
        if self._ledger is not None:
            self._ledger.track(self._tracked)

    async def ping(self) -> dict[str, str]:
        """Reads and, unless read-only, commits an empty transaction; facts for `tickwork doctor`."""
        if not self._readonly:
            await self._submit([], 0, 0)
        reader = self._connected()
        return {
            "technology": "SQLite",
            "version": sqlite3.sqlite_version,
            "path": self._path,
            "schema": str(schema_version(reader)),
            "durability": "none: in memory" if self._path == MEMORY else "WAL, synchronous=FULL",
        }

    def _open(self) -> None:
        in_memory = self._path == MEMORY
        if not in_memory:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._writer = connect_writer(self._path)
        migrate(self._writer, self._path, self._clock.now())
        self._reader = self._writer if in_memory else connect_reader(self._path)
        transaction = Transaction(self._writer)
        self._ledger = SqliteLedger(transaction, self._reader, self._sql, self._path, self._clock)
        self._ledger.track(self._tracked)
        self._commits = GroupCommit(
            transaction, self._path, self._clock, threaded=not in_memory, on_commit=self._ledger.committed
        )

    def _close(self) -> None:
        if self._reader is not None and self._reader is not self._writer:
            self._reader.close()
        if self._writer is not None:
            self._writer.close()  # the last one to leave: SQLite makes the final checkpoint here
        self._reader = self._writer = self._ledger = None

    async def _submit(self, units: Sequence[Unit], rows: int, size: int) -> None:
        if self._commits is None:
            raise self._not_writing("nothing was written")
        await self._commits.submit(units, rows, size)

    async def _put(self, unit: PolicyUnit | PolicySetUnit, size: int) -> None:
        await self._submit([unit], 1, size)
        if unit.error is not None:
            raise unit.error

    def _not_writing(self, so: str) -> StorageError:
        state = "was opened for reading only" if self._readonly else "is not open"
        return StorageError(f"The database {self._path} {state}: {so}.")

    def _version(self) -> int:
        """The version of the file as it lies there; 0 while there is none."""
        if self._path == MEMORY or not Path(self._path).exists():
            return 0
        try:
            with contextlib.closing(connect_reader(self._path)) as connection:
                refuse_newer(connection, self._path)
                return schema_version(connection)
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    def _has_usage(self) -> bool:
        """Whether it keeps usage and policies: not beside a process of an older version."""
        return schema_version(self._connected()) >= USAGE_ADDED_IN

    def _connected(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StorageError(f"The database {self._path} is not open.")
        return self._reader

    def _rows(self, statement: str, parameters: dict[str, Any] | tuple[Any, ...]) -> list[Row]:
        try:
            return self._connected().execute(self._sql[statement], parameters).fetchall()
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    def _missing(self, lifetime_id: str, seq: int) -> StoreCorrupt:
        return StoreCorrupt(
            f"Entry {seq} of lifetime {lifetime_id} is missing in {self._path}. The file was changed from outside, or "
            "another lifetime is meant; restore a backup. Other lifetimes are not affected."
        )
