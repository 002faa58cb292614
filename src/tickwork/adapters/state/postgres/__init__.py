"""The state store on PostgreSQL: any number of processes that write, on one database. Needs the extra `postgres`."""

from __future__ import annotations

from tickwork.adapters.state.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
