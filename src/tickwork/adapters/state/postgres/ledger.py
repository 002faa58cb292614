"""The Ledger port on Postgres: reservations are rows, and totals are summed up when they are asked for.

Admitting takes a tenant's row first and then the rows of the lifetimes that ask, so that those who admit for a tenant
come one after the other, in any process, and no execution is recorded between the look whether it is and its
reservation. What is asked for at the same time in this process shares a transaction. A reservation outlives the process
that made it: what it sent out may still run elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

from tickwork.adapters.state.postgres.connections import APP, name_tenant
from tickwork.adapters.state.postgres.rows import columns
from tickwork.adapters.state.postgres.schema import statements
from tickwork.adapters.state.postgres.usage import Sums, canonical
from tickwork.model.tallies import Reservation, clipped
from tickwork.ports import OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.state.postgres.connections import Connection, Pool
    from tickwork.ports import Demand, Judge

T = TypeVar("T")


@final
class AdmitUnit:
    """Demands of one caller with their judge; `answers` or `error` when it is done."""

    __slots__ = ("answers", "demands", "error", "judge")

    def __init__(self, demands: Sequence[Demand], judge: Judge[Any]) -> None:
        self.demands = demands
        self.judge = judge
        self.answers: list[Any] = []
        self.error: Exception | None = None


class _Desk:
    """What is known of one tenant while its demands are judged."""

    __slots__ = ("made", "reserved", "settled", "sums")

    def __init__(self, sums: Sums, reserved: set[str], settled: set[tuple[str, str]]) -> None:
        self.sums = sums
        self.reserved = reserved
        self.settled = settled
        self.made: dict[str, Reservation] = {}

    def judge(self, demand: Demand, judge: Judge[Any]) -> tuple[Any, Reservation | None]:
        """The refusal, or what is reserved now (nothing when it was, or when there is nobody to let go of it)."""
        if (demand.lifetime_id, demand.exec_id) in self.settled:
            return OVER, None
        if demand.exec_id in self.reserved:
            return None, None
        refusal = judge(demand, self.sums.totals(demand.quantities))
        if refusal is not None:
            return refusal, None
        reservation = _reservation(demand)
        self.reserved.add(demand.exec_id)
        self.made[demand.exec_id] = reservation
        self.sums.reserve(reservation)
        return None, reservation

    def undo(self, reservation: Reservation) -> None:
        self.reserved.discard(reservation.exec_id)
        del self.made[reservation.exec_id]
        self.sums.reserve(reservation, -1)


class Admitting:
    """Judges and reserves, one transaction at a time, on a connection of its own."""

    def __init__(self, line: Pool, now: Callable[[], int | None]) -> None:
        self._line = line
        self._now = now
        self._sql = statements()

    async def write(self, units: Sequence[AdmitUnit]) -> None:
        """Returns when what was admitted is reserved."""

        async def work(connection: Connection) -> None:
            for unit in units:
                unit.answers, unit.error = [], None
            desks = {tenant: await self._open(connection, tenant, units) for tenant in _tenants(units)}
            for unit in units:
                _judge(unit, desks)
            for tenant, desk in desks.items():
                if desk.made:
                    await name_tenant(connection, tenant)
                    rows = [_hold_row(reservation) for reservation in desk.made.values()]
                    await connection.execute(self._sql["insert_holds"], tenant, *columns(rows, 8))

        await self._line.run(APP, "", work)

    async def close(self) -> None:
        """Closes the connection."""
        await self._line.close()

    async def _open(self, connection: Connection, tenant: str, units: Sequence[AdmitUnit]) -> _Desk:
        """Locks the tenant and the lifetimes that ask, then reads what it takes to judge."""
        demands = [demand for unit in units for demand in unit.demands if demand.tenant_id == tenant]
        await name_tenant(connection, tenant)
        await lock_tenant(connection, self._sql, tenant)
        lifetimes = sorted({demand.lifetime_id for demand in demands})
        await connection.execute(self._sql["lock_lifetimes"], tenant, lifetimes)
        pairs = [(demand.lifetime_id, demand.exec_id) for demand in demands]
        names = sorted({exec_id for _, exec_id in pairs})
        reserved = {row[0] for row in await connection.fetch(self._sql["find_holds"], tenant, names)}
        found = await connection.fetch(self._sql["find_settled"], tenant, *columns(pairs, 2))
        settled = {(row[0], row[1]) for row in found}
        now: int = await connection.fetchval(self._sql["tell_time"], self._now())
        sums = Sums([quantity for demand in demands for quantity in demand.quantities], now)
        await sums.load(connection, self._sql, tenant)
        return _Desk(sums, reserved, settled)


async def lock_tenant(connection: Connection, sql: dict[str, str], tenant: str) -> None:
    """Waits until nobody else admits for this tenant, or puts its policies in force; until the transaction ends."""
    while not await connection.fetch(sql["lock_tenant"], tenant):
        await connection.execute(sql["insert_tenant_lock"], tenant)


def _tenants(units: Sequence[AdmitUnit]) -> list[str]:
    return sorted({demand.tenant_id for unit in units for demand in unit.demands})


def _judge(unit: AdmitUnit, desks: dict[str, _Desk]) -> None:
    """Judges a caller's demands in order. When its judge raises, nothing of this caller's stays reserved."""
    made: list[tuple[_Desk, Reservation]] = []
    try:
        for demand in unit.demands:
            desk = desks[demand.tenant_id]
            answer, reservation = desk.judge(demand, unit.judge)
            unit.answers.append(answer)
            if reservation is not None:
                made.append((desk, reservation))
    except Exception as error:  # noqa: BLE001 - a judge is the caller's code, and the caller gets what it raised
        unit.error = error
        for desk, reservation in made:
            desk.undo(reservation)


def _reservation(demand: Demand) -> Reservation:
    return Reservation(
        demand.tenant_id,
        demand.lifetime_id,
        demand.exec_id,
        demand.graph,
        demand.kind,
        demand.node,
        demand.labels,
        clipped(demand.tokens),
        clipped(demand.cost_nano_usd),
    )


def _hold_row(reservation: Reservation) -> tuple[Any, ...]:
    """The parameters of insert_holds.sql for one reservation, without the tenant."""
    return (
        reservation.exec_id,
        reservation.lifetime_id,
        reservation.graph,
        reservation.kind,
        reservation.node,
        canonical(reservation.labels),
        reservation.tokens,
        reservation.cost_nano_usd,
    )
