"""Usage in the database: what a transaction adds to it, and how it is added up and reported.

Rows are written in the transaction that records the executions, so that a duplicate counts once, and what a failed
commit recorded not at all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.records import Execution
from tickwork.model.spending import CUSTOM, UsageRow
from tickwork.model.tallies import COLUMN_OF, COLUMNS, Account, clipped
from tickwork.model.windows import MINUTE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tickwork.adapters.state.sqlite.rows import Row
    from tickwork.model.messages import Append
    from tickwork.model.spending import UsageKey, UsageQuery
    from tickwork.model.tallies import Tally, Uses

ADDED_IN = 3
"""The schema version that has usage and policies first."""

FOREVER = 2**62
"""A minute after all others."""

KEYS: tuple[UsageKey, ...] = ("tenant", "graph", "kind", "node", "model", "hour", "day")
"""The order of the keys in report_usage.sql."""


def write_uses(connection: sqlite3.Connection, sql: dict[str, str], uses: Uses) -> None:
    """Adds what a transaction records to the tables, which clip their sums as this one's are clipped."""
    for (place, minute, kind, node, model), row in uses.rows.items():
        tenant_id, graph, labels = place
        sums = [clipped(amount) for amount in row]
        connection.execute(sql["add_usage"], (tenant_id, minute, graph, kind, node, model, labels, *sums))
    for (place, minute, kind, node, model, name), amount in uses.custom.items():
        tenant_id, graph, labels = place
        counted = (tenant_id, minute, graph, kind, node, model, labels, name, clipped(amount))
        connection.execute(sql["add_usage_custom"], counted)


def settled(append: Append, seqs: Sequence[int | None]) -> Iterator[str]:
    """The executions that hold no reservation any more, now that the entries which got a seq are recorded."""
    for entry, seq in zip(append.entries, seqs, strict=False):
        if seq is None:
            continue
        if isinstance(entry, Execution):
            yield entry.exec_id
        elif entry.type == "reconciled" and entry.data.get("action") == "retry":
            yield str(entry.data.get("exec_id"))


@lru_cache(4_096)
def labels_of(labels: str, tracked: frozenset[str]) -> str:
    """Those labels (JSON) that are tracked, as canonical JSON."""
    if not tracked:
        return "{}"
    kept = {key: value for key, value in msgspec.json.decode(labels).items() if key in tracked}
    return msgspec.json.encode(kept, order="deterministic").decode()


def sum_up(
    execute: Callable[..., Iterable[Row]], sql: dict[str, str], tenant_id: str, tallies: Sequence[Tally]
) -> None:
    """Fills fresh tallies of a tenant with all that is in the tables; those of one window in one pass."""
    groups: dict[tuple[int, bool], list[Tally]] = {}
    for tally in tallies:
        groups.setdefault((tally.first, tally.by_minute), []).append(tally)
    for (first, by_minute), group in groups.items():
        wanted = {"tenant_id": tenant_id, "first": first}
        takers = _Takers(group)
        if by_minute:
            for found in execute(sql["list_usage"], wanted):
                for tally, column in takers.of(found[1:6]):
                    tally.add(found[0], found[6], 0 if column is None else found[6 + column])
        else:
            for found in execute(sql["sum_usage"], wanted):
                sums = _whole(found[5:])
                for tally, column in takers.of(found[:5]):
                    tally.add(first, sums[0], 0 if column is None else sums[column])
        if not any(tally.quantity.measure.startswith(CUSTOM) for tally in group):
            continue
        if by_minute:
            counters = execute(sql["list_usage_custom"], wanted)
        else:
            counters = ((first, *found[:6], _whole(found[6:])[0]) for found in execute(sql["sum_usage_custom"], wanted))
        for minute, *account, name, amount in counters:
            for tally, _ in takers.of(tuple(account)):
                if tally.quantity.measure == CUSTOM + name:
                    tally.add(minute, 0, amount)


class _Takers:
    """Which of some tallies take an account, and from which column."""

    def __init__(self, tallies: Sequence[Tally]) -> None:
        self._tallies = tallies
        self._known: dict[Account, list[tuple[Tally, int | None]]] = {}

    def of(self, account: Account) -> list[tuple[Tally, int | None]]:
        found = self._known.get(account)
        if found is None:
            found = [(tally, COLUMN_OF.get(tally.quantity.measure)) for tally in self._tallies if tally.takes(account)]
            self._known[account] = found
        return found


def report(execute: Callable[..., Iterable[Row]], sql: dict[str, str], query: UsageQuery) -> list[UsageRow]:
    """Usage as it is asked for; without keys one row, also when nothing was used."""
    wanted: dict[str, Any] = {f"by_{key}": key in query.by for key in KEYS}
    wanted["tenant_id"], wanted["graph"] = query.tenant_id, query.graph
    wanted["since"] = query.since // MINUTE
    wanted["until"] = FOREVER if query.until is None else -(-query.until // MINUTE)
    wanted["labels"] = msgspec.json.encode(query.labels).decode()
    found: dict[tuple[str, ...], UsageRow] = {} if query.by else {(): UsageRow(key=())}
    for row in execute(sql["report_usage"], wanted):
        key = _key(row, query.by)
        one = found[key] = UsageRow(key=key)
        for column, amount in zip(COLUMNS, _whole(row[7:]), strict=True):
            setattr(one, column, clipped(amount))
    for row in execute(sql["report_usage_custom"], wanted):
        found[_key(row, query.by)].custom[row[7]] = clipped(_whole(row[8:])[0])
    return [found[key] for key in sorted(found)]


def _whole(halves: Sequence[int]) -> list[int]:
    """The sums whose upper and lower 32 bits were added up apart."""
    return [(high << 32) + low for high, low in zip(halves[::2], halves[1::2], strict=True)]


def _key(row: Row, by: Sequence[UsageKey]) -> tuple[str, ...]:
    return tuple(_text(key, row[KEYS.index(key)]) for key in by)


def _text(key: UsageKey, value: Any) -> str:
    if key == "hour":
        return datetime.fromtimestamp(value * 3_600, UTC).strftime("%Y-%m-%dT%H")
    if key == "day":
        return datetime.fromtimestamp(value * 86_400, UTC).strftime("%Y-%m-%d")
    return str(value)
