"""The sums that a tenant's policies are judged by: kept up as executions are recorded, the same for every adapter.

`Uses` gathers what a commit adds, one row for each minute and account (who did what where). Once the commit is durable
`Balances` adds those rows to each Quantity that it holds, and lets go of the reservations that the commit settled. An
adapter keeps the rows; a Quantity is summed up from them once, when it is first asked for (`due`, `open`).

A Quantity stands for all rows from the first minute of its window on; nothing else decides it. So the sums do not
depend on when they were asked for, and a clock that is set back is answered by summing up again.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from tickwork.model.policy import fits
from tickwork.model.records import Execution
from tickwork.model.spending import (
    CHILD,
    CUSTOM,
    EXECUTIONS,
    MAX_COUNTERS,
    Quantity,
    Total,
    Unmeasurable,
    measured,
    ran,
)
from tickwork.model.windows import first_minute

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwork.model.records import Entry, Telemetry

LIMIT = 2**63 - 1
"""Where sums end: they stay there, and never wrap."""

COLUMNS = (
    "executions",
    "tokens_in",
    "tokens_out",
    "tokens_used",
    "cost_nano_usd",
    "unpriced",
    "latency_us",
    "queue_us",
)
"""The sums of a row, in the order in which they are kept."""

COLUMN_OF = {
    EXECUTIONS: 0,
    "tokens_in": 1,
    "tokens_out": 2,
    "tokens_used": 3,
    "cost_usd": 4,
    "latency_ms": 6,
    "queue_ms": 7,
}
"""Which column holds a measure; custom counters have rows of their own."""

MOST_TALLIES = 2_000
"""Quantities of one tenant that are kept up; what nobody asked for lately is summed up again when it is needed."""

NAME = 200
"""Characters of a model's or a counter's name by which usage is kept apart."""

ROUTES = 4_096
"""Accounts of one tenant whose Quantities are remembered."""

Place: TypeAlias = tuple[str, str, str]
"""What the usage of a lifetime is booked on: its tenant, its graph, and its labels that are tracked, as JSON."""

Account: TypeAlias = tuple[str, str, str, str, str]
"""Graph, kind, node, model ("": none was named) and the tracked labels as JSON."""


class Uses:
    """What the executions of one commit add up to, by place, minute, kind, node and model; `custom` by counter too."""

    __slots__ = ("custom", "rows")

    def __init__(self) -> None:
        self.rows: dict[tuple[Place, int, str, str, str], list[int]] = {}
        self.custom: dict[tuple[Place, int, str, str, str, str], int] = {}

    def add(self, place: Place, minute: int, entry: Entry) -> None:
        """Counts an entry that is new in the log; only executions that ran, and what superseded ones used."""
        # On the way of every record. An amount is clipped here when it is a worker's, and all sums where they are kept.
        if isinstance(entry, Execution):
            if not ran(entry) or entry.executor.startswith(CHILD):
                return
            used = entry.telemetry
            key = (place, minute, entry.kind, entry.name, "" if used is None else (used.model or "")[:NAME])
            row = self.rows.get(key)
            if row is None:
                row = self.rows[key] = [0] * len(COLUMNS)
            row[0] += 1
            began = entry.started_at
            if began:  # as `spending.measured` has it
                if entry.finished_at > began:
                    row[6] += entry.finished_at - began
                if began > entry.created_at:
                    row[7] += began - entry.created_at
            if used is not None:
                self._spend(key, row, entry, used)
        elif entry.type == "superseded" and (late := superseded(entry)) is not None and late.telemetry is not None:
            key = (place, minute, late.kind, late.name, (late.telemetry.model or "")[:NAME])
            self._spend(key, self.rows.setdefault(key, [0] * len(COLUMNS)), late, late.telemetry)

    def _spend(self, key: tuple[Place, int, str, str, str], row: list[int], done: Execution, used: Telemetry) -> None:
        row[1] += clipped(used.tokens_in)
        row[2] += clipped(used.tokens_out)
        row[3] += clipped(used.tokens_used)
        row[4] += clipped(used.cost_nano_usd)
        if used.unpriced:
            row[5] += 1
        for name in islice(used.custom or (), MAX_COUNTERS):
            amount = counter(done, name)
            if amount:
                where = (*key, name[:NAME])
                self.custom[where] = self.custom.get(where, 0) + amount


def superseded(entry: Entry) -> Execution | None:
    """The execution that a `superseded` event keeps; None when it is another entry, a child's end or unreadable."""
    if isinstance(entry, Execution) or entry.type != "superseded":
        return None
    try:
        late = msgspec.convert(entry.data.get("execution"), Execution)
    except msgspec.ValidationError:
        return None  # it was kept as it came; whatever it says cannot be counted
    return None if late.executor.startswith(CHILD) else late


def counter(done: Execution, name: str) -> int:
    """What an execution adds to a custom counter, in millionths; 0 when what it says is no amount."""
    try:
        return measured(done, CUSTOM + name)
    except Unmeasurable:
        return 0


def clipped(amount: int) -> int:
    """The amount, if it is one: 0 when it is negative, the greatest that is kept when it is more."""
    if type(amount) is not int:  # nothing forbids a worker's code to write another number there
        return 0
    return amount if 0 <= amount <= LIMIT else LIMIT if amount > LIMIT else 0


class Reservation(msgspec.Struct, frozen=True):
    """What an attempt that was admitted may use at the most, until its record says what it did."""

    tenant_id: str
    lifetime_id: str
    exec_id: str
    graph: str
    kind: str
    node: str
    labels: dict[str, str]
    tokens: int
    cost_nano_usd: int

    def amount(self, measure: str) -> int:
        """What it holds of a measure. Which share of the tokens will be input nobody knows: all may."""
        if measure.startswith("tokens_"):
            return clipped(self.tokens)
        if measure == "cost_usd":
            return clipped(self.cost_nano_usd)
        return 1 if measure == EXECUTIONS else 0


class Tally:
    """How one Quantity stands. The sums are exact; they are clipped when they are told."""

    __slots__ = ("_minutes", "_order", "amount", "asked", "executions", "first", "held", "held_amount", "quantity")

    def __init__(self, quantity: Quantity, first: int) -> None:
        self.quantity = quantity
        self.first = first
        """Its first minute."""
        self.asked = 0
        """When it was asked for, in requests."""
        self.executions = self.amount = self.held = self.held_amount = 0
        window = quantity.window
        sliding = window is not None and window.calendar is None
        self._minutes: dict[int, list[int]] | None = {} if sliding else None
        self._order: list[int] = []

    @property
    def by_minute(self) -> bool:
        """Whether it has to know what was used in which minute."""
        return self._minutes is not None

    def takes(self, account: Account) -> bool:
        """Whether it adds up what is booked on this account."""
        graph, kind, node, model, labels = account
        match = self.quantity.match
        if not (match.node(kind, node) and match.of_model(model)):
            return False
        return match.lifetime(graph, _labels(labels) if match.labels else {})

    def may_take(self, held: Reservation, *, labels: bool = True) -> bool:
        """Whether what is reserved may come to count here. Its model is not known yet, so it may be any. `labels`
        False: as far as they allow."""
        match = self.quantity.match
        if not match.node(held.kind, held.node):
            return False
        return match.lifetime(held.graph, held.labels) if labels else fits(held.graph, match.graph)

    def add(self, minute: int, executions: int, amount: int) -> None:
        """Adds what was used in a minute, if it lies in the window."""
        if minute < self.first:
            return
        self.executions += executions
        self.amount += amount
        if self._minutes is not None:
            bucket = self._minutes.get(minute)
            if bucket is None:
                bucket = self._minutes[minute] = [0, 0]
                heappush(self._order, minute)
            bucket[0] += executions
            bucket[1] += amount

    def move(self, first: int) -> bool:
        """Moves the window's start; False when that takes more than is known here, so that it is to be summed up."""
        if first == self.first:
            return True
        if first < self.first or self._minutes is None:
            return False
        self.first = first
        while self._order and self._order[0] < first:
            executions, amount = self._minutes.pop(heappop(self._order))
            self.executions -= executions
            self.amount -= amount
        return True

    def hold(self, reservation: Reservation, sign: int = 1) -> None:
        """Counts a reservation; `sign` -1: not any more."""
        self.held += sign
        self.held_amount += sign * reservation.amount(self.quantity.measure)

    def total(self) -> Total:
        """What is told."""
        return Total(clipped(self.executions), clipped(self.amount), self.held, clipped(self.held_amount))


class _Tenant:
    """The tallies of a tenant by the bytes of their Quantity, and its reservations by exec id."""

    __slots__ = ("held", "of_lifetime", "routes", "takers", "tallies")

    def __init__(self) -> None:
        self.tallies: dict[bytes, Tally] = {}
        self.held: dict[str, tuple[Reservation, tuple[Tally, ...]]] = {}
        self.of_lifetime: dict[str, set[str]] = {}
        self.routes: dict[Account, tuple[Tally, ...]] = {}
        self.takers: dict[tuple[str, str, str], tuple[Tally, ...]] = {}
        """By graph, kind and node, as far as labels allow: what a reservation may come to count in."""

    def may_take(self, held: Reservation) -> tuple[Tally, ...]:
        """The tallies that a reservation may come to count in."""
        key = (held.graph, held.kind, held.node)
        found = self.takers.get(key)
        if found is None:
            if len(self.takers) >= ROUTES:
                self.takers.clear()
            found = tuple([tally for tally in self.tallies.values() if tally.may_take(held, labels=False)])
            self.takers[key] = found
        if any(tally.quantity.match.labels for tally in found):
            return tuple([tally for tally in found if tally.may_take(held)])
        return found


class Balances:
    """All Quantities that were asked for, and all reservations, of one process. Every method is one atomic step."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._requests = 0
        self._held = 0

    def due(self, tenant_id: str, quantities: Iterable[Quantity], now: int) -> list[Tally]:
        """Fresh tallies, to be summed up and then given to `open`, for those that cannot be told as of `now` (us)."""
        known = self._tenant(tenant_id).tallies
        fresh: dict[bytes, Tally] = {}
        self._requests += 1
        for quantity in quantities:
            key = quantity.key
            first = first_minute(quantity.window, now)
            found = known.get(key)
            if found is None or not found.move(first):
                found = fresh[key] = Tally(quantity, first)
            found.asked = self._requests
        return list(fresh.values())

    def open(self, tenant_id: str, tallies: Sequence[Tally]) -> None:
        """Takes in tallies that hold all that is recorded."""
        tenant = self._tenant(tenant_id)
        for tally in tallies:
            tenant.tallies[tally.quantity.key] = tally
        if len(tenant.tallies) > MOST_TALLIES:
            kept = [item for item in tenant.tallies.items() if item[1].asked == self._requests]
            tenant.tallies = dict(kept)
        tenant.routes.clear()
        tenant.takers.clear()
        known = tenant.tallies.values()
        for tally in known:
            tally.held = tally.held_amount = 0
        for exec_id, (reservation, _) in tenant.held.items():
            places = tenant.may_take(reservation)
            for tally in places:
                tally.hold(reservation)
            tenant.held[exec_id] = (reservation, places)

    def totals(self, tenant_id: str, quantities: Sequence[Quantity]) -> list[Total]:
        """How Quantities stand that are not due."""
        known = self._tenant(tenant_id).tallies
        return [known[quantity.key].total() for quantity in quantities]

    def count(self, uses: Uses) -> None:
        """Adds what a commit recorded."""
        for (place, minute, kind, node, model), row in uses.rows.items():
            for tally in self._route(place, kind, node, model):
                column = COLUMN_OF.get(tally.quantity.measure)
                tally.add(minute, row[0], 0 if column is None else row[column])
        for (place, minute, kind, node, model, name), amount in uses.custom.items():
            for tally in self._route(place, kind, node, model):
                if tally.quantity.measure == CUSTOM + name:
                    tally.add(minute, 0, amount)

    @property
    def holding(self) -> bool:
        """Whether anything is reserved."""
        return self._held > 0

    def reserved(self, tenant_id: str, exec_id: str) -> bool:
        """Whether there is a reservation for this execution."""
        tenant = self._tenants.get(tenant_id)
        return tenant is not None and exec_id in tenant.held

    def reserve(self, reservation: Reservation) -> None:
        """Holds it until it is released."""
        tenant = self._tenant(reservation.tenant_id)
        self._held += reservation.exec_id not in tenant.held
        places = tenant.may_take(reservation)
        for tally in places:
            tally.hold(reservation)
        tenant.held[reservation.exec_id] = (reservation, places)
        tenant.of_lifetime.setdefault(reservation.lifetime_id, set()).add(reservation.exec_id)

    def release(self, tenant_id: str, exec_id: str) -> None:
        """Lets go of the reservation of an execution, if there is one."""
        tenant = self._tenants.get(tenant_id)
        found = tenant.held.pop(exec_id, None) if tenant is not None else None
        if tenant is None or found is None:
            return
        reservation, places = found
        self._held -= 1
        for tally in places:
            tally.hold(reservation, -1)
        left = tenant.of_lifetime[reservation.lifetime_id]
        left.discard(exec_id)
        if not left:
            del tenant.of_lifetime[reservation.lifetime_id]

    def release_all(self, tenant_id: str, lifetime_id: str) -> None:
        """Lets go of all reservations of a lifetime."""
        tenant = self._tenants.get(tenant_id)
        for exec_id in list(tenant.of_lifetime.get(lifetime_id, ())) if tenant is not None else ():
            self.release(tenant_id, exec_id)

    def _tenant(self, tenant_id: str) -> _Tenant:
        found = self._tenants.get(tenant_id)
        if found is None:
            found = self._tenants[tenant_id] = _Tenant()
        return found

    def _route(self, place: Place, kind: str, node: str, model: str) -> tuple[Tally, ...]:
        tenant_id, graph, labels = place
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return ()
        account = (graph, kind, node, model, labels)
        found = tenant.routes.get(account)
        if found is None:
            if len(tenant.routes) >= ROUTES:
                tenant.routes.clear()
            found = tuple([tally for tally in tenant.tallies.values() if tally.takes(account)])
            tenant.routes[account] = found
        return found


@lru_cache(4_096)
def _labels(text: str) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str])
