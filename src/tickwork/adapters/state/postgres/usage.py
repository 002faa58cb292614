"""Usage in the database: what a transaction adds to it, and how it is added up and reported.

Rows are written in the transaction that records the executions, so that a duplicate counts once, and what a failed
commit recorded not at all. They are written in the order of their keys, after the lifetimes are held, so that processes
which add to the same minutes never wait for each other in a circle; mostly they add to shards of their own.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from tickwork.adapters.state.postgres.rows import cleaned, columns
from tickwork.model.records import Execution
from tickwork.model.spending import CUSTOM, EXECUTIONS, Total, UsageRow
from tickwork.model.tallies import COLUMN_OF, COLUMNS, Reservation, Tally, clipped
from tickwork.model.windows import MINUTE, first_minute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tickwork.adapters.state.postgres.connections import Connection
    from tickwork.adapters.state.postgres.rows import Row
    from tickwork.model.messages import Append
    from tickwork.model.spending import Quantity, UsageKey, UsageQuery
    from tickwork.model.tallies import Account, Uses

    Found: TypeAlias = "dict[tuple[str, ...], UsageRow]"

FOREVER = 2**62
"""A minute after all others."""

KEYS: tuple[UsageKey, ...] = ("tenant", "graph", "kind", "node", "model", "hour", "day")
"""The order of the keys in report_usage.sql; the labels come after them."""

DAY = 1_440
"""Minutes."""

SHARDS = 16
"""Rows that a minute of an account may be spread over."""

_key = msgspec.msgpack.Encoder(order="deterministic").encode


def use_columns(uses: Uses, shard: int) -> list[list[Any]]:
    """What a transaction adds to the usage of minutes and of days, as record.sql takes it."""
    rows: list[tuple[Any, ...]] = []
    for (place, minute, kind, node, model), sums in uses.rows.items():
        tenant_id, graph, labels = place
        account = (graph, kind, node, cleaned(model), labels)
        rows.append((tenant_id, minute, digest(account), shard, *account, *(clipped(amount) for amount in sums)))
    return _by_minute_and_day(rows, 9, len(COLUMNS))


def counter_columns(uses: Uses, shard: int) -> list[list[Any]]:
    """The same of custom counters, for add_usage_custom.sql."""
    rows: list[tuple[Any, ...]] = []
    for (place, minute, kind, node, model, name), amount in uses.custom.items():
        tenant_id, graph, labels = place
        counter = (graph, kind, node, cleaned(model), labels, cleaned(name))
        rows.append((tenant_id, minute, digest(counter), shard, *counter, clipped(amount)))
    return _by_minute_and_day(rows, 10, 1)


def _by_minute_and_day(rows: list[tuple[Any, ...]], names: int, sums: int) -> list[list[Any]]:
    by_day = [(row[0], row[1] // DAY, *row[2:]) for row in rows]
    width = names + sums
    return [*columns(sorted(_merged(rows, names)), width), *columns(sorted(_merged(by_day, names)), width)]


def _merged(rows: list[tuple[Any, ...]], names: int) -> list[tuple[Any, ...]]:
    """The rows, each name once: names that were different may be the same when they are cleaned."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        key, sums = row[:names], row[names:]
        before = found.get(key)
        found[key] = sums if before is None else tuple(clipped(a + b) for a, b in zip(before, sums, strict=True))
    return [key + sums for key, sums in found.items()]


def digest(account: tuple[str, ...]) -> bytes:
    """What names an account in a key: labels may be longer than a key can be."""
    return hashlib.blake2b(_key(account), digest_size=16).digest()


def settled(append: Append, seqs: Sequence[int | None]) -> Iterator[str]:
    """The executions that hold no reservation any more, now that the entries which got a seq are recorded."""
    for entry, seq in zip(append.entries, seqs, strict=True):
        if seq is None:
            continue
        if isinstance(entry, Execution):
            yield entry.exec_id
        elif entry.type == "reconciled" and entry.data.get("action") == "retry":
            yield cleaned(str(entry.data.get("exec_id")))


@lru_cache(4_096)
def labels_of(labels: str, tracked: frozenset[str]) -> str:
    """Those labels (JSON) that are tracked, as canonical JSON."""
    if not tracked:
        return "{}"
    kept = {key: value for key, value in msgspec.json.decode(labels).items() if key in tracked}
    return canonical(kept)


def canonical(labels: dict[str, str]) -> str:
    """Labels as JSON, the same for the same labels."""
    return msgspec.json.encode(labels, order="deterministic").decode()


class Sums:
    """How the Quantities that were asked for stand at one moment, and with what is reserved while they are judged."""

    def __init__(self, quantities: Iterable[Quantity], now: int) -> None:
        self._tallies = {_key(one): Tally(one, first_minute(one.window, now)) for one in quantities}

    async def load(self, connection: Connection, sql: dict[str, str], tenant_id: str) -> None:
        """Adds all that is recorded and reserved."""
        tallies = self._tallies.values()
        custom = any(tally.quantity.measure.startswith(CUSTOM) for tally in tallies)
        takers: dict[tuple[int, Account], list[Tally]] = {}
        for what, first, *account, name, amounts in await connection.fetch(
            sql["sum_usage"], tenant_id, *_stretches({tally.first for tally in tallies}), custom
        ):
            sums = [int(amount) for amount in amounts]
            booked: Account = (account[0], account[1], account[2], account[3], account[4])
            if what == "held":
                self._hold(tenant_id, booked, *sums)
                continue
            found = takers.get((first, booked))
            if found is None:
                found = takers[first, booked] = [t for t in tallies if t.first == first and t.takes(booked)]
            for tally in found:
                measure = tally.quantity.measure
                if what == "used":
                    column = COLUMN_OF.get(measure)
                    tally.add(first, clipped(sums[0]), 0 if column is None else clipped(sums[column]))
                elif measure == CUSTOM + name:
                    tally.add(first, 0, clipped(sums[0]))

    def _hold(self, tenant_id: str, booked: Account, count: int, tokens: int, cost: int) -> None:
        """Counts reservations of one kind together."""
        graph, kind, node, _, labels = booked
        of = msgspec.json.decode(labels, type=dict[str, str])
        together = Reservation(tenant_id, "", "", graph, kind, node, of, tokens, cost)
        for tally in self._tallies.values():
            if tally.may_take(together):
                tally.held += count
                measure = tally.quantity.measure
                tally.held_amount += count if measure == EXECUTIONS else together.amount(measure)

    def totals(self, quantities: Sequence[Quantity]) -> list[Total]:
        """How these stand."""
        return [self._tallies[_key(quantity)].total() for quantity in quantities]

    def reserve(self, reservation: Reservation, sign: int = 1) -> None:
        """Counts a reservation; `sign` -1: not any more."""
        for tally in self._tallies.values():
            if tally.may_take(reservation):
                tally.hold(reservation, sign)


def _stretches(firsts: set[int]) -> tuple[list[int], list[int], int, list[int], list[int], int]:
    """What to add up since each of these minutes: minutes until the first whole day, and days from then on.

    As sum_usage.sql takes them: minutes with their ends, and the least; minutes with their first days, and the least.
    """
    days = {first: -(-first // DAY) for first in sorted(firsts)}
    parts = [first for first, day in days.items() if first < day * DAY]
    ends = [days[first] * DAY for first in parts]
    return parts, ends, min(parts, default=0), list(days), list(days.values()), min(days.values(), default=0)


async def report(connection: Connection, sql: dict[str, str], query: UsageQuery) -> list[UsageRow]:
    """Usage as it is asked for; without keys one row, also when nothing was used."""
    until = FOREVER if query.until is None else -(-query.until // MINUTE)
    by = [key in query.by for key in KEYS]
    wanted = (query.tenant_id, query.since // MINUTE, until, query.graph, *by, bool(query.labels))
    found: Found = {} if query.by else {(): UsageRow(key=())}
    for row in await connection.fetch(sql["report_usage"], *wanted):
        if (one := _row_of(found, row, query)) is not None:
            for column, amount in zip(COLUMNS, row[8:], strict=True):
                setattr(one, column, clipped(getattr(one, column) + int(amount)))
    for row in await connection.fetch(sql["report_usage_custom"], *wanted):
        if (one := _row_of(found, row, query)) is not None:
            one.custom[row[8]] = clipped(one.custom.get(row[8], 0) + int(row[9]))
    return [found[key] for key in sorted(found)]


def _row_of(found: Found, row: Row, query: UsageQuery) -> UsageRow | None:
    """What a row of the database is added to; None when its labels are others."""
    if query.labels:
        has = msgspec.json.decode(row[7], type=dict[str, str])
        if any(has.get(name) != value for name, value in query.labels.items()):
            return None
    key = tuple(_text(key, row[KEYS.index(key)]) for key in query.by)
    return found.setdefault(key, UsageRow(key=key))


def _text(key: UsageKey, value: Any) -> str:
    if key == "hour":
        return datetime.fromtimestamp(value * 3_600, UTC).strftime("%Y-%m-%dT%H")
    if key == "day":
        return datetime.fromtimestamp(value * 86_400, UTC).strftime("%Y-%m-%d")
    return str(value)
