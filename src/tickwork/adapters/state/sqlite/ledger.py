"""The Ledger port on SQLite: sums and reservations in memory, kept up by the commits of the one process that writes.

Judging reads no table but one index (is it recorded already?). A Quantity that was not asked for before is summed up
from the tables once, at a time when no commit is under way: then what the tables hold is exactly what the sums were
told of. Who only reads the file sums up anew each time, and sees no reservations: they are the writing process's own,
and end with it, for nothing that it sent out goes on without it being asked for again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tickwork.adapters.state.sqlite.failures import storage_error
from tickwork.adapters.state.sqlite.transaction import AppendUnit
from tickwork.adapters.state.sqlite.usage import settled, sum_up
from tickwork.model.lifetime import TERMINAL
from tickwork.model.tallies import Balances, Reservation, Uses
from tickwork.ports import OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.state.sqlite.group_commit import GroupCommit
    from tickwork.adapters.state.sqlite.transaction import Transaction, Unit
    from tickwork.model.spending import Quantity, Total
    from tickwork.model.tallies import Tally
    from tickwork.ports import Clock, Demand, Judge, Over

T = TypeVar("T")


class SqliteLedger:
    """Sums and reservations of a writing process. Belongs to one event loop."""

    def __init__(
        self, transaction: Transaction, reader: sqlite3.Connection, sql: dict[str, str], path: str, clock: Clock
    ) -> None:
        self._transaction = transaction
        self._reader = reader
        self._sql = sql
        self._path = path
        self._clock = clock
        self._balances = Balances()

    def committed(self, units: Sequence[Unit]) -> None:
        """Takes over what was recorded, now that it is durable."""
        balances = self._balances
        uses, self._transaction.uses = self._transaction.uses, Uses()
        balances.count(uses)
        if not balances.holding:
            return
        for unit in units:
            if type(unit) is AppendUnit and unit.error is None:
                append = unit.append
                for exec_id in settled(append, unit.seqs):
                    balances.release(append.tenant_id, exec_id)
                projection = append.projection
                if projection is not None and projection.status in TERMINAL and not (unit.stale or unit.ended):
                    balances.release_all(append.tenant_id, append.lifetime_id)

    def track(self, labels: frozenset[str]) -> None:
        """Usage is kept apart by these labels too from the next commit on."""
        if not labels <= self._transaction.tracked:
            self._transaction.tracked |= labels

    async def admit(self, commits: GroupCommit, demands: Sequence[Demand], judge: Judge[T]) -> list[T | Over | None]:
        """Judges and reserves, see the port. When the judge raises, nothing of this call stays reserved.

        For an execution that is recorded already, or whose lifetime has ended, nothing is reserved: there is nobody
        who would release it.
        """
        asked: dict[str, dict[bytes, Quantity]] = {}
        for demand in demands:
            asked.setdefault(demand.tenant_id, {}).update([(quantity.key, quantity) for quantity in demand.quantities])
        for quantities in asked.values():
            for quantity in quantities.values():
                if quantity.match.labels:
                    self.track(frozenset(quantity.match.labels))
        await self._prepare(commits, {tenant_id: list(found.values()) for tenant_id, found in asked.items()})
        # From here on there is no await: no commit and no other judging comes between.
        made: list[Demand] = []
        answers: list[T | Over | None] = []
        try:
            settled = self._settled(demands)
            for index, demand in enumerate(demands):
                answers.append(OVER if index in settled else self._judge(demand, judge, made))
        except BaseException:
            for demand in made:
                self._balances.release(demand.tenant_id, demand.exec_id)
            raise
        return answers

    async def totals(self, commits: GroupCommit, tenant_id: str, quantities: Sequence[Quantity]) -> list[Total]:
        """How these stand now."""
        await self._prepare(commits, {tenant_id: list(quantities)})
        return self._balances.totals(tenant_id, quantities)

    def _judge(self, demand: Demand, judge: Judge[T], made: list[Demand]) -> T | None:
        if self._balances.reserved(demand.tenant_id, demand.exec_id):
            return None
        refusal = judge(demand, self._balances.totals(demand.tenant_id, demand.quantities))
        if refusal is None:
            self._balances.reserve(reservation(demand))
            made.append(demand)
        return refusal

    def _settled(self, demands: Sequence[Demand]) -> set[int]:
        """Which of these have nothing left to reserve for."""
        wanted = msgspec.json.encode([(each.tenant_id, each.lifetime_id, each.exec_id) for each in demands]).decode()
        try:
            return {row[0] for row in self._reader.execute(self._sql["find_settled"], (wanted,))}
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    async def _prepare(self, commits: GroupCommit, asked: dict[str, list[Quantity]]) -> None:
        """Returns when all of these can be told as of now, without an await in between."""
        while any(self._due(tenant_id, quantities) for tenant_id, quantities in asked.items()):
            await self._when_quiet(commits, lambda: self._sum_up(asked))

    def _due(self, tenant_id: str, quantities: Sequence[Quantity]) -> list[Tally]:
        return self._balances.due(tenant_id, quantities, self._clock.now())

    def _sum_up(self, asked: dict[str, list[Quantity]]) -> None:
        for tenant_id, quantities in asked.items():
            if due := self._due(tenant_id, quantities):
                sum_up(self._reader.execute, self._sql, tenant_id, due)
                self._balances.open(tenant_id, due)

    async def _when_quiet(self, commits: GroupCommit, work: Callable[[], None]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def attempt() -> None:
            if done.done():
                return  # whoever asked was cancelled
            try:
                work()
            except sqlite3.Error as error:
                done.set_exception(storage_error(error, self._path))
            except Exception as error:  # noqa: BLE001 - whoever waits for it gets it, whatever it is
                done.set_exception(error)
            else:
                done.set_result(None)

        commits.when_quiet(attempt)
        await done


def read_totals(
    reader: sqlite3.Connection, sql: dict[str, str], tenant_id: str, quantities: Sequence[Quantity], now: int
) -> list[Total]:
    """How Quantities stand by the tables alone: without what is reserved, which only the writing process knows."""
    balances = Balances()
    due = balances.due(tenant_id, quantities, now)
    sum_up(reader.execute, sql, tenant_id, due)
    balances.open(tenant_id, due)
    return balances.totals(tenant_id, quantities)


def reservation(demand: Demand) -> Reservation:
    """What an admitted demand holds."""
    return Reservation(
        demand.tenant_id,
        demand.lifetime_id,
        demand.exec_id,
        demand.graph,
        demand.kind,
        demand.node,
        demand.labels,
        demand.tokens,
        demand.cost_nano_usd,
    )
