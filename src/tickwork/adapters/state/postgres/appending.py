"""The transaction that writes the log: many lifetimes' appends and new lifetimes together, of any tenants.

The rows of the lifetimes are held from the beginning, in the order of their keys, so that any number of processes
append to the same ones without a gap and without waiting in a circle. First everything is taken to be new. When the
database counts fewer rows than were sent, something was there already: the transaction is rolled back, and made again
with a look at what is recorded. A row that cannot be kept is found by halving the set, and fails alone.

When the answer to COMMIT was lost, the next try sees what became of it once it holds the lifetimes: the entries of
the first try are in the log, at the seqs and the times that it gave them, or they never will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tickwork.adapters.state.postgres.batch import AppendUnit, Batch, CreateUnit, Head, Unsure
from tickwork.adapters.state.postgres.connections import SYSTEM, Patience, told
from tickwork.adapters.state.postgres.failures import CommitUnknown, Failures, about_a_row
from tickwork.adapters.state.postgres.rows import columns, lifetime_from, lifetime_row
from tickwork.adapters.state.postgres.schema import statements
from tickwork.adapters.state.postgres.usage import counter_columns, use_columns
from tickwork.errors import StorageError, StoreCorrupt
from tickwork.model.messages import Append

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.adapters.state.postgres.address import Address
    from tickwork.adapters.state.postgres.batch import Key, Known, Unit
    from tickwork.adapters.state.postgres.connections import Connection, Pool
    from tickwork.adapters.state.postgres.metering import StoreMeters
    from tickwork.ports import Clock

    Rows: TypeAlias = Sequence[tuple[Any, ...]]

NONE: frozenset[str] = frozenset()


class Appending:
    """Writes units, one transaction at a time, on a connection of its own."""

    def __init__(
        self, address: Address, clock: Clock, meters: StoreMeters, line: Pool, shard: int, now: Callable[[], int | None]
    ) -> None:
        self._address = address
        self._clock = clock
        self._meters = meters
        self._shard = shard
        self._now = now
        self._line = line
        self._sql = statements()
        self.tracked = NONE
        """Labels of lifetimes by which their usage is kept apart."""

    async def write(self, units: Sequence[Unit]) -> None:
        """Returns when the units are durable and know what became of them. StorageError: nobody knows."""
        try:
            await self._write(units)
        except (*Failures, TypeError, ValueError, OverflowError) as error:
            if not about_a_row(error):
                raise
            if len(units) > 1:
                half = len(units) // 2
                await self.write(units[:half])
                await self.write(units[half:])
            else:
                await self._refuse(units[0], error)

    async def close(self) -> None:
        """Closes the connection."""
        await self._line.close()

    async def _write(self, units: Sequence[Unit]) -> None:
        patience = Patience(self._address, self._clock, self._meters.meters)
        careful = False
        meant: Batch | None = None
        while True:
            batch = Batch(units, self.tracked)
            begun = self._clock.monotonic()
            try:
                landed = await self._once(batch, careful=careful, meant=meant)
            except Unsure:
                careful = True
                self._meters.meters.retried("recorded_before")
            except CommitUnknown as error:
                meant = batch if batch.entries else meant
                await patience.after(error)
            except Failures as error:
                if about_a_row(error):
                    raise
                await patience.after(error)
            else:
                self._meters.committed(len(units), len(batch.entries), self._clock.monotonic() - begun)
                (meant if landed and meant is not None else batch).answer()
                return

    async def _once(self, batch: Batch, *, careful: bool, meant: Batch | None) -> bool:
        """Tries it: whether `meant`, an earlier try of the same, had been committed after all."""

        async def work(connection: Connection) -> bool:
            created = await self._create(connection, batch)
            now, heads = await self._hold(connection, batch)
            if meant is not None and await self._landed(connection, meant):
                return True
            known = await self._find(connection, batch) if careful or meant is not None else None
            batch.fold(heads, created, now, known)
            await self._record(connection, batch, careful=known is not None)
            await self._project(connection, batch)
            await self._settle(connection, batch)
            await self._answer_late(connection, batch)
            return False

        return await self._line.attempt(SYSTEM, None, work)

    async def _create(self, connection: Connection, batch: Batch) -> set[Key]:
        """Inserts the rows of new lifetimes: those that are new."""
        rows = [lifetime_row(unit.lifetime) for unit in batch.units if isinstance(unit, CreateUnit)]
        if not rows:
            return set()
        found = await connection.fetch(self._sql["insert_lifetimes"], *columns(rows, 9))
        return {(row[0], row[1]) for row in found}

    async def _hold(self, connection: Connection, batch: Batch) -> tuple[int, dict[Key, Head]]:
        """Locks the lifetimes that are appended to: the time, and how they stand."""
        keys = sorted({unit.key for unit in batch.units if isinstance(unit, AppendUnit)})
        found = await connection.fetch(self._sql["lock_heads"], *columns(keys, 2), self._now())
        heads = [Head(row[1:]) for row in found if row[1] is not None]
        return found[0][0], {head.key: head for head in heads}

    async def _landed(self, connection: Connection, meant: Batch) -> bool:
        found: int = await connection.fetchval(self._sql["count_landed"], *columns(meant.entries, 6))
        return found == len(meant.entries)

    async def _find(self, connection: Connection, batch: Batch) -> Known:
        """What is recorded already of the entries that were sent."""
        asked = [(*unit.key, name) for unit in batch.units if isinstance(unit, AppendUnit) for name, _ in unit.rows]
        known: Known = {}
        for tenant, lifetime, entry_id, body in await connection.fetch(self._sql["find_entries"], *columns(asked, 3)):
            known.setdefault((tenant, lifetime), {})[entry_id] = body
        return known

    async def _record(self, connection: Connection, batch: Batch, *, careful: bool) -> None:
        """Writes the log, how lifetimes stand, and what was used. Raises Unsure when something was there already."""
        heads = batch.changed()
        if not heads:
            return  # then nothing is new, and nothing was used
        recorded: int = await connection.fetchval(
            self._sql["record"],
            *columns(batch.entries, 6),
            *columns([head.row() for head in heads], 11),
            *use_columns(batch.uses, self._shard),
            *columns(batch.settled, 2),
        )
        if recorded != len(batch.entries):
            if not careful:
                raise Unsure
            raise StoreCorrupt(
                f"The log of a lifetime in {self._address.label} goes further than its row in `heads` says. The "
                "database was changed from outside, or restored in part; restore a whole backup."
            )

    async def _project(self, connection: Connection, batch: Batch) -> None:
        """Writes the timers and the questions; of lifetimes that have ended none are left."""
        ended = set(batch.ended)
        cleared = [(*key, name) for (key, name), due in batch.timers.items() if due is None]
        opened = [
            (*key, name, due) for (key, name), due in batch.timers.items() if due is not None and key not in ended
        ]
        await self._execute(connection, "delete_timers", cleared)
        await self._execute(connection, "upsert_timers", opened)
        closed = [(*key, name) for (key, name), asked in batch.questions.items() if asked is None]
        asking = [(*key, name, *q) for (key, name), q in batch.questions.items() if q is not None and key not in ended]
        await self._execute(connection, "delete_questions", closed)
        await self._execute(connection, "upsert_questions", asking)
        await self._execute(connection, "delete_timers_of_lifetimes", batch.ended)
        await self._execute(connection, "delete_questions_of_lifetimes", batch.ended)

    async def _settle(self, connection: Connection, batch: Batch) -> None:
        """Counts what users count themselves, and lets go of all that was reserved for lifetimes that have ended."""
        if batch.uses.custom:
            await connection.execute(self._sql["add_usage_custom"], *counter_columns(batch.uses, self._shard))
        await self._execute(connection, "release_holds_of_lifetimes", batch.ended)

    async def _execute(self, connection: Connection, statement: str, rows: Rows) -> None:
        if rows:
            await connection.execute(self._sql[statement], *columns(rows, 0))

    async def _answer_late(self, connection: Connection, batch: Batch) -> None:
        """Tells those who came late which lifetime was there first."""
        if not batch.late:
            return
        asked = [(*unit.first.key, unit.lifetime.idempotency_key) for unit in batch.late]
        for row in await connection.fetch(self._sql["find_first_lifetimes"], *columns(asked, 3)):
            batch.late[row[13] - 1].found = lifetime_from(row)  # of several the last one, which is the oldest

    async def _refuse(self, unit: Unit, error: Exception) -> None:
        """Tells a unit that it alone cannot be kept; an Append is told where its log stands all the same."""
        why = told(self._address, error)
        if isinstance(unit, CreateUnit):
            unit.error = StorageError(f"Nothing was recorded: {why}")
            return
        empty = AppendUnit(Append(*unit.key, ()), [], [], f"the database refused it: {error}")
        await self._write([empty])
        unit.answer = empty.answer
        if unit.answer is not None:
            unit.answer.seqs = (None,) * len(unit.append.entries)
