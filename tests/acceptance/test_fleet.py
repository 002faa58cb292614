"""Eight processes of `tickwork serve`, two of each role, killed in the middle of a batch.

Processes, graphs, client and account are those of the chaos suite, without its faults of servers and networks
(docs/chaos.md): some forty lifetimes of all its shapes, among them a loop, a fan-out and its join, a child, a person
with a signal and a timer, and calls that may be made once only. Every call of user code is a synced line of a ledger.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.adapters import servers
from tests.adapters.postgres_stores import make_roles, with_options
from tickwork import payloads
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]

RATE = 4.0
"""Lifetimes started a second, for ten seconds."""

LEASE = 3.0
PACE = "0.15"
"""Seconds that a call takes, more or less: some run when a process is killed."""

EVERY = 2.0
"""Seconds from the first start to the first kill, from one kill to the next, and from the last kill to the last start.
"""

PATIENCE = 60.0
"""Seconds after the last start in which all have to have ended."""


@asynccontextmanager
async def database(name: str) -> AsyncIterator[tuple[str, str]]:
    """A database of its own: its URL for the engine's login, and for one that sees all rows."""
    await make_roles()
    admin, engine = urlsplit(servers.postgres_admin()), urlsplit(servers.postgres())
    connection = await asyncpg.connect(admin.geturl())
    try:
        await connection.execute(f'CREATE DATABASE "{name}" OWNER "{engine.username}"')
        yield engine._replace(path=f"/{name}").geturl(), admin._replace(path=f"/{name}").geturl()
    finally:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await connection.close()


async def open_ones(runtime: Runtime) -> int:
    """How many lifetimes have not ended."""
    statuses = ("PENDING", "RUNNING", "WAITING", "PAUSED")
    return len(await runtime.service.list(LifetimeQuery(statuses=statuses, limit=1_000)))


async def until_called_once(ledger: Path) -> None:
    """Until the next call that may be made once only has begun."""
    seen = len(ledger.read_bytes())
    while True:
        if b'"at_most_once"' in ledger.read_bytes()[seen:]:
            return
        await asyncio.sleep(0.005)


async def until_ended(runtime: Runtime) -> None:
    """Until all have."""
    while True:
        if not await open_ones(runtime):
            return
        await asyncio.sleep(0.1)


async def test_processes_of_each_role_are_killed_and_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "INLINE_LIMIT", payloads.INLINE_LIMIT)  # the graphs of the chaos suite set it
    from tests.acceptance import crash_shapes
    from tests.chaos import check, graphs
    from tests.chaos.client import Client
    from tests.chaos.fleet import ROLES, Fleet

    monkeypatch.setattr(crash_shapes, "ledger", crash_shapes.Ledger())
    ledger, name = tmp_path / "ledger", f"fleet{os.getpid()}"
    crash_shapes.ledger.open(ledger)
    async with database(name) as (url, admin):
        environment = {
            "TICKWORK_PROFILE": "cloud",
            "TICKWORK_BUS_URL": f"{servers.kafka()}/{name}?partitions=3",
            "TICKWORK_STATE_URL": url,
            "TICKWORK_BLOB_URL": with_options(servers.s3(), prefix=name),
            "TICKWORK_KV_URL": with_options(servers.redis(), prefix=f"{name}:"),
        }
        fleet = Fleet({**environment, graphs.LEDGER: str(ledger), graphs.PACE: PACE}, tmp_path, LEASE)
        async with Runtime(Profile.cloud(environment), roles=frozenset()) as runtime:
            client = Client(runtime, tmp_path)
            people = asyncio.create_task(client.answer_all())
            try:
                await fleet.start()
                starting = asyncio.create_task(client.run(RATE))
                for role in ROLES:
                    await asyncio.sleep(EVERY)
                    assert await open_ones(runtime), "the batch is over before the kill"
                    first, second = fleet.of(role)
                    if role == "executor":
                        await until_called_once(ledger)
                        await asyncio.gather(fleet.kill(first), fleet.kill(second))  # whichever of them has the call
                        await fleet.launch(second)
                    else:
                        await fleet.kill(first)  # it stays dead: the other one does the work of both
                await asyncio.sleep(EVERY)
                starting.cancel()
                await client.settle()
                async with asyncio.timeout(PATIENCE):
                    await until_ended(runtime)
            finally:
                people.cancel()
                await fleet.stop()
            account = check.CloudAccount(tmp_path, client.keys, faults=len(ROLES) + 1, blob_faults=False)
            await account.read(admin, environment["TICKWORK_BLOB_URL"])
            account.judge()
            assert not any(account.findings().values()), account.findings()
            for lifetime_id in account.rows:
                replayed = await runtime.history.replay(lifetime_id)
                assert replayed.divergence is None, replayed.divergence
            assert {row.graph for row in account.rows.values()} == set(crash_shapes.EXPECTED)
            recovered = check.recovery_entries(account.rows.values())
            assert recovered["unknown"] + recovered["reconciled"], "no kill hit a call that may be made once"
            assert client.surprises + fleet.tracebacks() + fleet.exits == []
            client.close()
