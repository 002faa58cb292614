"""The state store on SQLite: one file (or `:memory:`), one process that writes."""

from __future__ import annotations

from tickwork.adapters.state.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
