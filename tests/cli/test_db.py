"""`tickwork db migrate` on SQLite and on a real Postgres."""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.adapters import servers
from tests.adapters.postgres_stores import administrator
from tests.cli.cloud import cloud
from tests.cli.process import Cli
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.sqlite.schema import migrations
from tickwork.clock import SystemClock
from tickwork.errors import StorageError

__all__ = ["cloud"]

NEWEST = len(migrations())


def test_a_home_is_migrated_and_says_from_where_to_where(cli: Cli, home: Path) -> None:
    before = cli("db", "migrate", "--check", "--json", code=4).json
    assert (before["from"], before["to"], before["newest"]) == (0, 0, NEWEST)
    assert before["outstanding"] == [migration.name for migration in migrations()]
    assert not (home / "tickwork.db").exists(), "--check makes nothing"
    ran = cli("db", "migrate")
    assert f"{home / 'tickwork.db'}: schema version 0 -> {NEWEST}" in ran.out
    assert migrations()[0].name in ran.out
    assert f"schema version {NEWEST}, up to date" in cli("db", "migrate").out
    after = cli("db", "migrate", "--check", "--json").json
    assert (after["from"], after["to"], after["outstanding"], after["applied"]) == (NEWEST, NEWEST, [], [])


def test_a_home_that_a_process_runs_on_is_left_to_it(cli: Cli, home: Path) -> None:
    home.mkdir()
    with (home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "is in use by" in cli("db", "migrate", code=1).err
    assert not (home / "tickwork.db").exists()


def test_a_database_of_a_newer_tickwork_is_refused(cli: Cli, home: Path) -> None:
    import sqlite3

    cli("db", "migrate")
    with sqlite3.connect(home / "tickwork.db") as connection:
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    for arguments in ((), ("--check",)):
        assert "Upgrade Tickwork" in cli("db", "migrate", *arguments, code=1).err


def test_what_there_is_nothing_to_migrate_in_is_said(cli: Cli) -> None:
    assert "in memory" in cli("db", "migrate", "--profile", "test", code=2).err
    assert "TICKWORK_MIGRATE_URL" in cli("db", "migrate", "--profile", "cloud", code=2).err


@pytest.mark.servers
def test_of_the_cloud_profile_only_the_database_has_to_be_named(cli: Cli, cloud: dict[str, str]) -> None:
    env = {"TICKWORK_PROFILE": "cloud", "TICKWORK_STATE_URL": cloud["TICKWORK_STATE_URL"]}
    checked = cli("db", "migrate", "--check", code=4, **env)
    assert "schema version 0, and this Tickwork needs 2" in checked.out
    assert "tickwork db migrate" in checked.err
    assert cli("db", "migrate", "--json", **env).json["applied"] == ["0001_log.sql", "0002_ledger.sql"]
    again = cli("db", "migrate", "--check", **env)
    assert "up to date" in again.out
    password = urlsplit(cloud["TICKWORK_STATE_URL"]).password
    assert password
    assert password not in checked.out + checked.err + again.out


def admin(*statements: str, url: str = "") -> None:
    async def run() -> None:
        async with administrator(url or servers.postgres_admin()) as connection:
            for statement in statements:
                await connection.execute(statement)

    asyncio.run(run())


@pytest.fixture
def service(cloud: dict[str, str]) -> Iterator[str]:
    """The URL of a login that may work, and owns nothing."""
    name = f"service_{time.monotonic_ns()}"
    admin(f"CREATE ROLE {name} LOGIN PASSWORD 'geheim'", f"GRANT tickwork_app, tickwork_system TO {name}")
    parts = urlsplit(cloud["TICKWORK_STATE_URL"])
    yield parts._replace(netloc=f"{name}:geheim@{parts.hostname}:{parts.port}").geturl()
    admin(f"DROP ROLE {name}")


async def _start(url: str) -> dict[str, str]:
    store = PostgresStore(url, SystemClock())
    try:
        await store.start()
        return await store.ping()
    finally:
        await store.stop()


@pytest.mark.servers
def test_a_service_that_owns_nothing_starts_on_what_the_owner_migrated(
    cli: Cli, cloud: dict[str, str], service: str
) -> None:
    """Empty, then old, then current: only the last can be used, and the way there is named."""
    with pytest.raises(StorageError, match=r"schema version 0, and .* needs 2.*may not .*`tickwork db migrate`"):
        asyncio.run(_start(service))
    env: dict[str, Any] = {"TICKWORK_PROFILE": "cloud", "TICKWORK_STATE_URL": service}
    assert "TICKWORK_MIGRATE_URL" in cli("db", "migrate", code=1, **env).err
    env["TICKWORK_MIGRATE_URL"] = cloud["TICKWORK_STATE_URL"]
    assert "0 -> 2" in cli("db", "migrate", **env).out
    schema = Address(service).options.schema
    assert asyncio.run(_start(service))["schema"] == "2"

    admin(f'DELETE FROM "{schema}".migrations WHERE number = 2', url=servers.postgres())
    with pytest.raises(StorageError, match=r"schema version 1, and .* needs 2.*`tickwork db migrate`") as refused:
        asyncio.run(_start(service))
    assert "geheim" not in str(refused.value)
