"""The ports of the state database (StateAdapter) on Postgres, for any number of processes at the same time.

The event loop encodes and collects; `group_commit` decides when; `appending` writes, on a connection of its own. Reads
take connections from a pool and work for one tenant: row-level security shows them that tenant's rows and no others,
whatever a statement asks for. Only what the port does for all tenants works as the system.

Time is the database's, so that no process fires a timer early by a clock of its own; tests bring a clock that they set.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tickwork.adapters.logs import check_beginning, log_entries
from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.postgres.appending import Appending
from tickwork.adapters.state.postgres.batch import AppendUnit, CreateUnit, Unit
from tickwork.adapters.state.postgres.connections import APP, SYSTEM, Pool, place_of_this_process
from tickwork.adapters.state.postgres.group_commit import GroupCommit
from tickwork.adapters.state.postgres.ledger import Admitting, AdmitUnit
from tickwork.adapters.state.postgres.letters import bury, letter_from
from tickwork.adapters.state.postgres.metering import StoreMeters
from tickwork.adapters.state.postgres.policies import policies_from, put_document
from tickwork.adapters.state.postgres.rows import (
    encode_question,
    entry_rows,
    graph_from,
    graph_row,
    keepable,
    label_line,
    lifetime_from,
    question_from,
)
from tickwork.adapters.state.postgres.schema import migrations, open_schema, schema_version, statements
from tickwork.adapters.state.postgres.server import facts
from tickwork.adapters.state.postgres.usage import SHARDS, Sums, report
from tickwork.errors import GraphConflict, StorageError, StoreCorrupt
from tickwork.model.lifetime import TimerRow
from tickwork.model.spending import Total, UsageRow
from tickwork.ports import Appended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickwork.adapters.meters import Meters
    from tickwork.adapters.state.postgres.connections import Connection
    from tickwork.adapters.state.postgres.rows import Row
    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.model.messages import Append, DeadLetter
    from tickwork.model.records import LogEntry
    from tickwork.model.spending import Quantity, UsageQuery
    from tickwork.ports import Clock, Demand, Judge, LifetimeQuery, Over, StoredGraph, StoredPolicies

T = TypeVar("T")

AFTER_ANY_ID = "\U0010ffff"
AFTER_ANY_TIME = 2**63 - 1
PREFIX_MATCHES = 5
"""How many candidates an ambiguous prefix names (the port says so)."""


DAMAGED = "The database was changed from outside or its disk is failing"
"""What it may come of that an entry cannot be read."""


class PostgresStore:
    """A state store in the database that a postgresql:// URL names. `database_time`: not by `clock`, but by its own."""

    def __init__(self, url: str, clock: Clock, *, readonly: bool = False, database_time: bool = True) -> None:
        self._address = Address(url)
        self._clock = clock
        self._readonly = readonly
        self._now: Callable[[], int | None] = (lambda: None) if database_time else clock.now
        self._sql = statements()
        self._schema = 0
        self._counted = StoreMeters()
        self._tracked: frozenset[str] = frozenset()
        self._pool: Pool | None = None
        self._appending: Appending | None = None
        self._admitting: Admitting | None = None
        self._appends: GroupCommit[Unit] | None = None
        self._admits: GroupCommit[AdmitUnit] | None = None

    def __repr__(self) -> str:
        return f"PostgresStore({self.label})"

    @property
    def label(self) -> str:
        """The database, for people: no password is in it."""
        return self._address.label

    @property
    def meters(self) -> Meters:
        """What it counts of its own work."""
        return self._counted.meters

    async def start(self) -> None:
        """Connects and migrates the database. Twice is fine."""
        if self._pool is not None:
            return
        address, clock = self._address, self._clock
        self._schema = await open_schema(address, clock, readonly=self._readonly)
        options = address.options
        self._pool = Pool(address, clock, self.meters, options.pool_max, options.pool_min)
        self._counted.pools["reads"] = self._pool
        if not self._readonly:
            appends, admits = Pool(address, clock, self.meters, 1), Pool(address, clock, self.meters, 1)
            shard = place_of_this_process() % SHARDS
            self._appending = Appending(address, clock, self._counted, appends, shard, self._now)
            self._appending.tracked = self._tracked
            self._admitting = Admitting(admits, self._now)
            self._counted.pools |= {"appends": appends, "admits": admits}
            self._appends = GroupCommit(self._appending.write, address.label)
            self._admits = GroupCommit(self._admitting.write, address.label)

    async def migrate(self, *, check: bool = False) -> tuple[int, list[str]]:
        """Migrates the database, without `start`: the version it had, and the migrations that it had not seen.

        `check`: only looks. StoreTooNew, StorageError.
        """
        found = await schema_version(self._address, self._clock)
        if not check:
            await open_schema(self._address, self._clock, readonly=False)
        return found, [migration.name for migration in migrations()[found:]]

    async def stop(self) -> None:
        """Finishes what was submitted, then closes. Twice is fine."""
        appends, admits, self._appends, self._admits = self._appends, self._admits, None, None
        for group in (appends, admits):
            if group is not None:
                await group.close()
        for writer in (self._appending, self._admitting):
            if writer is not None:
                await writer.close()
        self._counted.pools.clear()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def put_graph(self, graph: StoredGraph) -> None:
        """Registers a graph; GraphConflict when this version has another digest."""

        async def put(connection: Connection) -> bool:
            return (await connection.execute(self._sql["put_graph"], *graph_row(graph))).endswith(" 1")

        self._require_keepable("the graph", *graph_row(graph))
        if not await self._write(graph.tenant_id, put):
            raise GraphConflict(
                f"Graph {graph.name}@{graph.version} is registered with another content than this one (its digest "
                f"would be {graph.digest}). A registered version never changes: raise the version."
            )

    async def graphs(
        self, tenant_id: str, *, name: str | None = None, version: str | None = None, digest: str | None = None
    ) -> list[StoredGraph]:
        """Registered graphs that match all that is given, newest registration first."""
        rows = await self._rows(tenant_id, "list_graphs", tenant_id, name, version, digest)
        return [graph_from(row) for row in rows]

    async def create_lifetime(self, lifetime: Lifetime, started: Append) -> tuple[Lifetime, bool]:
        """Inserts the lifetime and its first entries; (the one that was first, False) when there is one."""
        check_beginning(lifetime, started)
        named = (lifetime.lifetime_id, lifetime.tenant_id, lifetime.graph_name, lifetime.graph_version)
        self._require_keepable("the lifetime", *named, lifetime.graph_digest, lifetime.idempotency_key)
        first = _unit(started, started.ats)
        unit = CreateUnit(lifetime, first)
        await self._submit([unit], 1 + len(first.rows), 500 + _size(first))
        if unit.error is not None:
            raise unit.error
        if unit.found is None:
            raise StorageError(f"The database {self._address.label} did not answer for {lifetime.lifetime_id}.")
        return unit.found, unit.created

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Adds entries, each at the next seq of its lifetime; one result an item, in order."""
        units: list[AppendUnit] = []
        rows = size = 0
        for append in batch:
            try:
                unit = _unit(append)
            except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
                unit = _checked(AppendUnit(append, [], [], f"it cannot be recorded: {error}"))
            units.append(unit)
            rows += len(unit.rows)
            size += _size(unit)
        sent = [unit for unit in units if unit.answer is None]
        if sent:
            await self._submit(sent, rows, size)
        return [self._answer(unit) for unit in units]

    async def read_log(self, tenant_id: str, lifetime_id: str, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries with seq > `after`, in order; StoreCorrupt when one cannot be read or is missing."""
        rows = await self._rows(tenant_id, "read_log", tenant_id, lifetime_id, after, limit)
        for seq, row in enumerate(rows, max(after, 0) + 1):
            if row[0] != seq:
                raise self._missing(lifetime_id, seq)
        return log_entries(rows, lifetime_id, DAMAGED)

    async def read_entries(self, tenant_id: str, lifetime_id: str, seqs: Sequence[int]) -> list[LogEntry]:
        """The entries at these seqs, in the order asked; StoreCorrupt when one is missing."""
        rows = await self._rows(tenant_id, "read_entries", tenant_id, lifetime_id, list(seqs))
        found = {row[0]: row for row in rows}
        for seq in seqs:
            if seq not in found:
                raise self._missing(lifetime_id, seq)
        return log_entries([found[seq] for seq in seqs], lifetime_id, DAMAGED)

    async def get_lifetime(self, tenant_id: str, id_or_prefix: str) -> list[Lifetime]:
        """The lifetimes whose id begins so, at most 5."""
        high = id_or_prefix + AFTER_ANY_ID
        rows = await self._rows(tenant_id, "find_lifetimes", tenant_id, id_or_prefix, high, PREFIX_MATCHES)
        return [lifetime_from(row) for row in rows]

    async def list_lifetimes(self, tenant_id: str, query: LifetimeQuery) -> list[Lifetime]:
        """Lifetimes that match, newest first. `query.graph` is a name, or name@version."""
        created_at, before = AFTER_ANY_TIME, ""
        if query.before is not None:
            ages = await self._rows(tenant_id, "find_age", tenant_id, query.before)
            if not ages:
                return []
            created_at, before = ages[0][0], query.before
        name, _, version = (query.graph or "").partition("@")
        label = None if query.label is None else label_line(*query.label)
        wanted = (tenant_id, created_at, before, name or None, version or None, label, query.limit)
        if query.statuses is None:
            return [lifetime_from(row) for row in await self._rows(tenant_id, "list_lifetimes", *wanted)]
        found: list[Lifetime] = []
        for status in sorted(set(query.statuses)):  # each by its index; together they would be sorted every time
            rows = await self._rows(tenant_id, "list_lifetimes_by_status", *wanted, status)
            found += [lifetime_from(row) for row in rows]
        found.sort(key=lambda one: (one.created_at, one.lifetime_id), reverse=True)
        return found[: query.limit]

    async def open_lifetimes(
        self, after: str = "", limit: int = 1000, *, status: str | None = None, untouched_since: int | None = None
    ) -> list[Lifetime]:
        """Lifetimes of all tenants that have not ended, by id; only those in `status`, or unmoved since a time (us)."""
        rows = await self._rows(None, "open_lifetimes", after, limit, status, untouched_since)
        found = [lifetime_from(row) for row in rows]
        if len(found) >= limit > 0:  # whoever goes on after the last id may not miss another tenant's of that id
            last = (found[-1].lifetime_id, found[-1].tenant_id)
            more = await self._rows(None, "open_lifetimes_of_id", *last, status, untouched_since)
            found += [lifetime_from(row) for row in more]
        return found

    async def due_timers(self, ahead: int = 0, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        """Timers that are due (or will be, `ahead` us from now), earliest first; and how long it is to the next one."""

        async def look(connection: Connection) -> tuple[int, list[TimerRow]]:
            rows = await connection.fetch(self._sql["due_timers"], limit + 1)
            return await connection.fetchval(self._sql["tell_time"], self._now()), [TimerRow(*row) for row in rows]

        now, timers = await self._read(None, look)
        due = [timer for timer in timers[:limit] if timer.due <= now + ahead]
        return due, max(timers[len(due)].due - now, 0) if len(timers) > len(due) else None

    async def questions(
        self, tenant_id: str, lifetime_id: str | None = None, limit: int = 1000, *, on: str | None = None
    ) -> list[Question]:
        """Open waits of a tenant (or of one of its lifetimes), for `on` only if it is given, oldest first."""
        if lifetime_id is None:
            rows = await self._rows(tenant_id, "list_questions", tenant_id, on, limit)
        else:
            rows = await self._rows(tenant_id, "list_questions_of_lifetime", tenant_id, on, limit, lifetime_id)
        return [question_from(row) for row in rows]

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters, each once; of a tenant the newest LETTERS."""
        for tenant_id, some in groupby(sorted(letters, key=lambda one: one.tenant_id), lambda one: one.tenant_id):
            of_tenant = list(some)
            self._require_keepable("the dead letter", tenant_id, *(one.letter_id for one in of_tenant))

            async def put(connection: Connection, tenant: str = tenant_id, kept: list[DeadLetter] = of_tenant) -> None:
                await bury(connection, self._sql, tenant, kept)

            await self._write(tenant_id, put)

    async def dead_letters(self, tenant_id: str, limit: int = 1000, after: str = "") -> list[DeadLetter]:
        """A tenant's dead letters, by id, with id > `after`."""
        rows = await self._rows(tenant_id, "list_letters", tenant_id, after, limit)
        return [letter_from(row) for row in rows]

    async def forget_dead_letter(self, tenant_id: str, letter_id: str) -> bool:
        """Removes one; False when there is none."""
        if not keepable(tenant_id, letter_id):
            return False
        said = await self._write(tenant_id, lambda c: c.execute(self._sql["delete_letter"], tenant_id, letter_id))
        return said.endswith(" 1")

    async def put_policies(self, document: StoredPolicies) -> None:
        """Puts a document in force for its layer; nothing changes when it is in force already."""
        named = (document.tenant_id, document.graph, document.digest, document.by)
        self._require_keepable("the policy document", *named)
        await self._write(None, lambda connection: put_document(connection, self._sql, document))

    async def policies(self, *, history: bool = False) -> list[StoredPolicies]:
        """The documents in force, by tenant and graph; with `history` all that ever were, oldest first."""
        return [
            policies_from(row) for row in await self._rows(None, "list_policies_ever" if history else "list_policies")
        ]

    async def put_policy_set(self, digest: str, body: bytes) -> None:
        """Keeps a set under its digest. Again is fine."""
        self._require_keepable("the set of policies", digest)
        await self._write(None, lambda c: c.execute(self._sql["insert_policy_set"], digest, body))

    async def policy_set(self, digest: str) -> bytes | None:
        """The set with this digest, or None."""
        rows = await self._rows(None, "get_policy_set", digest)
        return rows[0][0] if rows else None

    async def admit(self, demands: Sequence[Demand], judge: Judge[T]) -> list[T | Over | None]:
        """Judges demands in order, in one atomic step, and reserves for those that are admitted."""
        if self._admits is None:
            raise self._not_writing("nothing was admitted")
        if not demands:
            return []
        self.track(frozenset(label for one in demands for q in one.quantities for label in q.match.labels))
        for one in demands:
            self._require_keepable("the demand", one.tenant_id, one.lifetime_id, one.exec_id, one.graph, one.node)
        Sums([quantity for one in demands for quantity in one.quantities], self._clock.now())  # UsageError comes here
        unit = AdmitUnit(demands, judge)
        await self._admits.submit([unit], len(demands), 0)
        if unit.error is not None:
            raise unit.error
        return unit.answers

    async def totals(self, tenant_id: str, quantities: Sequence[Quantity]) -> list[Total]:
        """How these stand now."""
        if not keepable(tenant_id):
            return [Total() for _ in quantities]

        async def look(connection: Connection) -> list[Total]:
            sums = Sums(quantities, await connection.fetchval(self._sql["tell_time"], self._now()))
            await sums.load(connection, self._sql, tenant_id)
            return sums.totals(quantities)

        return await self._read(tenant_id, look)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """What was used, added up as asked, in the order of the keys; without keys one row for all."""
        if not keepable(query.tenant_id, query.graph):
            return [] if query.by else [UsageRow(key=())]
        return await self._read(query.tenant_id, lambda connection: report(connection, self._sql, query))

    def track(self, labels: frozenset[str]) -> None:
        """From the next commit on usage is kept apart by these labels too, beside those that are tracked already."""
        if not labels <= self._tracked:
            self._tracked |= labels
            if self._appending is not None:
                self._appending.tracked = self._tracked

    async def ping(self) -> dict[str, str]:
        """Reads and, unless read-only, commits a transaction; facts for `tickwork doctor`."""

        async def look(connection: Connection) -> dict[str, str]:
            return await facts(connection, self._sql, self._address, self._schema)

        return await self._read(None, look) if self._readonly else await self._write(None, look)

    # -- transactions

    async def _submit(self, units: Sequence[Unit], rows: int, size: int) -> None:
        if self._appends is None:
            raise self._not_writing("nothing was written")
        begun = self._clock.monotonic()
        await self._appends.submit(units, rows, size)
        self._counted.appended(self._clock.monotonic() - begun)

    async def _rows(self, tenant_id: str | None, statement: str, *wanted: Any) -> Sequence[Row]:
        """The rows of a statement; none when it asks for a text that no row can have."""
        if not keepable(tenant_id, *wanted):
            self._opened()
            return []

        async def look(connection: Connection) -> Sequence[Row]:
            return await connection.fetch(self._sql[statement], *wanted)

        return await self._read(tenant_id, look)

    async def _read(self, tenant_id: str | None, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As a tenant, or for all of them (None)."""
        role = SYSTEM if tenant_id is None else APP
        return await self._opened().run(role, tenant_id, work, readonly=True)

    async def _write(self, tenant_id: str | None, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._readonly or self._pool is None:
            raise self._not_writing("nothing was written")
        return await self._pool.run(SYSTEM if tenant_id is None else APP, tenant_id, work)

    def _opened(self) -> Pool:
        if self._pool is None:
            raise StorageError(f"The database {self._address.label} is not open.")
        return self._pool

    def _answer(self, unit: AppendUnit) -> Appended:
        if unit.answer is None:
            raise StorageError(f"The database {self._address.label} did not answer for {unit.append.lifetime_id}.")
        return unit.answer

    def _require_keepable(self, what: str, *values: object) -> None:
        if not keepable(*values):
            raise StorageError(
                f"Nothing was recorded: a name in {what} has a character that the database {self._address.label} "
                "cannot hold (a zero, or half of a surrogate pair). Choose another name."
            )

    def _not_writing(self, so: str) -> StorageError:
        state = "was opened for reading only" if self._readonly else "is not open"
        return StorageError(f"The database {self._address.label} {state}: {so}.")

    def _missing(self, lifetime_id: str, seq: int) -> StoreCorrupt:
        return StoreCorrupt(
            f"Entry {seq} of lifetime {lifetime_id} is missing in {self._address.label}. The database was changed from "
            "outside, or another lifetime is meant; restore a backup. Other lifetimes are not affected."
        )


def _unit(append: Append, ats: tuple[int, ...] | None = None) -> AppendUnit:
    """The Append with its entries and questions encoded. TypeError or ValueError when something cannot be."""
    rows = entry_rows(append)
    opened = () if append.projection is None else append.projection.questions_opened
    return _checked(AppendUnit(append, rows, [encode_question(question) for question in opened], ats=ats))


def _checked(unit: AppendUnit) -> AppendUnit:
    """The unit, with its answer already where no lifetime can be meant."""
    append = unit.append
    if not keepable(append.tenant_id, append.lifetime_id):
        unknown = "no lifetime has such an id: there is a character in it, or in its tenant's, that cannot be kept"
        unit.answer = Appended((None,) * len(append.entries), 0, unknown)
    return unit


def _size(unit: AppendUnit) -> int:
    return sum(len(body) + 150 for _, body in unit.rows)
