"""Postgres stores for the conformance suites: a schema of its own for each process of tests, emptied for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest

from tests.adapters import servers
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.testing.conformance import SettableClock


def with_options(url: str, **options: Any) -> str:
    """The URL with these options in its query."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query)) | {name: str(value) for name, value in options.items()}
    return parts._replace(query=urlencode(query)).geturl()


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the user who owns everything."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name.startswith("ssl") or name == "host"]
    connection = await asyncpg.connect(parts._replace(query=urlencode(kept)).geturl())
    try:
        yield connection
    finally:
        await connection.close()


async def drop(url: str, schema: str) -> None:
    """Removes a schema and all that is in it."""
    async with administrator(url) as connection:
        await connection.execute("SET lock_timeout = '10s'")
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


async def make_roles() -> None:
    """What an administrator does once for a login that may not make roles; several processes of tests may at once."""
    owner = await asyncpg.connect(servers.postgres())
    login = await owner.fetchval("SELECT session_user")
    await owner.close()
    async with administrator(servers.postgres_admin()) as connection:
        for role in ("tickwork_app", "tickwork_system"):
            for attempt in range(20):
                try:
                    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                        await connection.execute(f"CREATE ROLE {role} NOLOGIN")
                    member = "SELECT pg_has_role($1::text, $2::text, 'MEMBER')"
                    if not await connection.fetchval(member, login, role):
                        await connection.execute(f'GRANT {role} TO "{login}"')
                    break
                except (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.InternalServerError):
                    await asyncio.sleep(0.02 * attempt)


async def emptied(url: str, schema: str) -> None:
    """Removes all rows that tests wrote."""
    async with administrator(url) as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        tables = [f'"{schema}"."{row[0]}"' for row in rows if row[0] != "migrations"]
        if tables:
            await connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")


@pytest.fixture(scope="session")
def postgres_schema() -> Iterator[str]:
    """The URL of a schema that this process of tests has for itself."""
    schema = f"tw_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
    url = servers.postgres()
    asyncio.run(make_roles())
    yield with_options(url, schema=schema)
    asyncio.run(drop(url, schema))


@pytest.fixture
def postgres_url(postgres_schema: str) -> str:
    """The same, with no rows in it."""
    asyncio.run(emptied(postgres_schema, dict(parse_qsl(urlsplit(postgres_schema).query))["schema"]))
    return postgres_schema


class OnPostgres:
    """A store in a schema without rows, by the test's clock."""

    clock: SettableClock

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def open(self) -> PostgresStore:
        return PostgresStore(self.url, self.clock, database_time=False)

    async def reopen(self, store: PostgresStore) -> PostgresStore:
        await store.stop()
        again = await self.open()
        await again.start()
        return again
