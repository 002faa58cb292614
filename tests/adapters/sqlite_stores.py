"""SQLite stores for the conformance suites: as a file, and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.testing.conformance import SettableClock


class InFile:
    """A store in a file of its own."""

    clock: SettableClock

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new" / "folder" / "tick work?.db"

    async def open(self) -> SqliteStore:
        return SqliteStore(self.path, self.clock)

    async def reopen(self, store: SqliteStore) -> SqliteStore:
        await store.stop()
        again = SqliteStore(self.path, self.clock)
        await again.start()
        return again


class InMemory:
    """A store that keeps nothing."""

    clock: SettableClock

    async def open(self) -> SqliteStore:
        return SqliteStore(":memory:", self.clock)

    async def reopen(self, store: SqliteStore) -> SqliteStore:
        return store
