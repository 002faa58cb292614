"""What the store on Postgres counts of itself: how long commits take, how much goes into one, connections, tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.meters import SECONDS, SIZES, Meters
from tickwork.adapters.state.postgres.failures import REASONS

if TYPE_CHECKING:
    from tickwork.adapters.state.postgres.connections import Pool


class StoreMeters:
    """The numbers of one store. `pools` are those that are open, by what they are for."""

    def __init__(self) -> None:
        self.meters = Meters(REASONS)
        self.pools: dict[str, Pool] = {}
        made = self.meters.histogram
        self._commit = made("commit_seconds", "Time of a transaction that wrote the log, with its COMMIT", SECONDS)
        self._appends = made("commit_appends", "Appends and new lifetimes that shared such a transaction", SIZES)
        self._entries = made("commit_entries", "Log entries that such a transaction recorded", SIZES)
        self._append = made("append_seconds", "Time until an append was durable, with its wait for its turn", SECONDS)
        self.meters.gauge("connections", "Connections to the database", ("pool", "use"), self._connections)
        self.meters.gauge("connections_limit", "Connections that a pool opens at most", ("pool",), self._limits)

    def committed(self, appends: int, entries: int, seconds: float) -> None:
        """A transaction that wrote the log is durable."""
        self._commit.observe(seconds)
        self._appends.observe(appends)
        self._entries.observe(entries)

    def appended(self, seconds: float) -> None:
        """Whoever submitted something has its answer."""
        self._append.observe(seconds)

    def _connections(self) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for name, pool in self.pools.items():
            found[name, "busy"], found[name, "idle"] = pool.busy, pool.idle
        return found

    def _limits(self) -> dict[tuple[str, ...], float]:
        return {(name,): pool.size for name, pool in self.pools.items()}
