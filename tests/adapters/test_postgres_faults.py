"""Many processes on one database, and what happens when one of them, a connection or the server goes away."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.adapters import servers
from tests.adapters.postgres_proxy import Cut, Proxy
from tests.adapters.postgres_stores import administrator, postgres_schema, postgres_url, with_options
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.postgres.connections import Patience
from tickwork.clock import SystemClock
from tickwork.errors import StorageError
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Event
from tickwork.model.spending import Quantity, Total
from tickwork.testing.conformance import SettableClock
from tickwork.testing.conformance.admission import demand, up_to
from tickwork.testing.conformance.specimens import append, execution, lifetime, started
from tickwork.testing.conformance.spent import spent

pytestmark = [pytest.mark.servers, pytest.mark.slow]

__all__ = ["postgres_schema", "postgres_url"]

CHILD = Path(__file__).with_name("postgres_child.py")


def child(url: str, name: str, lives: int, entries: int) -> subprocess.Popen[str]:
    command = [sys.executable, CHILD, url, name, str(lives), str(entries)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str], lines: int) -> list[list[str]]:
    """The next lines of a child that is running."""
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(lines)]
    assert all(found), "the child ended early"
    return [line.split() for line in found]


def end(process: subprocess.Popen[str]) -> None:
    """Kills it where it stands."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def opened(url: str, clock: Any = None, **options: Any) -> PostgresStore:
    store = PostgresStore(with_options(url, **options), clock or SystemClock())
    await store.start()
    return store


async def made(store: PostgresStore, number: int = 1, tenant: str = "acme") -> Lifetime:
    life = lifetime(number, tenant)
    return (await store.create_lifetime(life, started(life)))[0]


async def ids(store: PostgresStore, life: Lifetime) -> list[str]:
    """The ids in a log, in order; read_log itself refuses one with a gap."""
    return [entry.entry.entry_id for entry in await store.read_log(life.tenant_id, life.lifetime_id, limit=100_000)]


async def test_processes_that_append_to_the_same_lifetimes_leave_no_gap(postgres_url: str) -> None:
    lives, entries = 12, 30
    children = [child(postgres_url, name, lives, entries) for name in ("a", "z")]
    outputs = [(await asyncio.to_thread(process.communicate, timeout=50))[0] for process in children]
    assert [process.returncode for process in children] == [0, 0]
    acknowledged = [line.split() for output in outputs for line in output.splitlines()]
    assert len(acknowledged) == 2 * lives * entries
    store = await opened(postgres_url)
    for number in range(lives):
        life = lifetime(number, ("acme", "umbrella")[number % 2])
        log = await ids(store, life)
        wanted = {"started", *(f"shared-{n}" for n in range(0, entries, 3))}
        wanted |= {f"{name}-{n}" for name in "az" for n in range(entries) if n % 3}
        assert Counter(log) == Counter(wanted), "each entry once"
        seqs = {int(seq): name for of, seq, name in acknowledged if int(of) == number and seq != "None"}
        assert seqs == {seq: name for seq, name in enumerate(log, 1) if seq > 1}, "each seq was told to one"
    await store.stop()


async def test_a_killed_process_loses_nothing_that_it_was_told(postgres_url: str) -> None:
    process = child(postgres_url, "a", 6, 100_000)
    acknowledged = await asyncio.to_thread(said, process, 200)
    end(process)
    store = await opened(postgres_url)
    for number in range(6):
        life = lifetime(number, ("acme", "umbrella")[number % 2])
        mine = {int(seq): name for of, seq, name in acknowledged if int(of) == number}
        answer = (await store.append([append(life, Event("after", "paused"))]))[0]
        log = await ids(store, life)
        assert answer.seqs == (len(log),), "others go on at once"
        assert {seq: log[seq - 1] for seq in mine} == mine
    await store.stop()


async def test_a_frozen_process_does_not_hold_others_for_long(postgres_url: str) -> None:
    """Its transaction is ended by the server; when it wakes up it goes on, and writes nothing twice."""
    url = with_options(postgres_url, idle_timeout=0.5)
    for _ in range(3):  # it is not always frozen in the middle of a transaction
        process = child(url, "a", 3, 100_000)
        try:
            await asyncio.to_thread(said, process, 30)
            process.send_signal(signal.SIGSTOP)
            store = await opened(url)
            sent = [append(lifetime(n, ("acme", "umbrella")[n % 2]), Event("x", "paused")) for n in range(3)]
            async with asyncio.timeout(5):
                answers = await store.append(sent)
            assert {answer.error for answer in answers} == {None}
            process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(said, process, 100)
        finally:
            end(process)
        for number in range(3):
            log = await ids(store, lifetime(number, ("acme", "umbrella")[number % 2]))
            assert len(set(log)) == len(log)
        await store.stop()


async def test_sessions_that_are_ended_lose_nothing(postgres_url: str) -> None:
    name = f"ended_{Address(postgres_url).options.schema}"
    store = await opened(postgres_url, application_name=name)
    lives = [await made(store, n) for n in range(20)]
    told: dict[str, dict[int, str]] = {life.lifetime_id: {} for life in lives}

    async def send(life: Lifetime) -> None:
        for n in range(12):
            entry = execution(life, n)
            await asyncio.sleep(0.1)
            answer = (await store.append([append(life, entry)]))[0]
            assert answer.error is None
            if answer.seqs[0] is not None:
                told[life.lifetime_id][answer.seqs[0]] = entry.entry_id
            assert len(await store.read_log("acme", life.lifetime_id, limit=9)) > 0

    async def end_sessions() -> int:
        ended = 0
        async with administrator(servers.postgres_admin()) as admin:
            while True:
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
                ended += len(await admin.fetch(query, name))
                await asyncio.sleep(0.3)
                if done.is_set():
                    return ended

    done = asyncio.Event()
    ending = asyncio.create_task(end_sessions())
    await asyncio.gather(*(send(life) for life in lives))
    done.set()
    assert await ending > 3
    for life in lives:
        log = await ids(store, life)
        assert len(log) == 13
        assert told[life.lifetime_id] == {seq: log[seq - 1] for seq in range(2, 14)}, "every append knows its seq"
    await store.stop()


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_found_out(postgres_url: str, cut: Cut) -> None:
    """The caller hears what happened: his seqs, and not that his own entry was there before him."""
    proxy = Proxy(postgres_url)
    through = await proxy.start()
    store = await opened(through)
    life, other = await made(store, 1), await made(store, 2)
    for number in range(1, 6):
        entry, spend = execution(life, number), spent(other, number)
        proxy.cuts = [cut]
        answers = await store.append([append(life, entry, expect=number), append(other, spend), append(life, entry)])
        assert [answer.seqs for answer in answers] == [(number + 1,), (number + 1,), (None,)]
        assert [answer.stale for answer in answers] == [False, False, False]
    new = lifetime(3, idempotency_key="once")
    proxy.cuts = [cut, cut]
    assert (await store.create_lifetime(new, started(new)))[1], "it is told that it was made"
    await store.admit([demand(life, 99)], up_to(1_000))
    proxy.cuts = [cut]
    assert await store.admit([demand(life, 98)], up_to(1_000)) == [None]
    proxy.cuts = [cut]
    await store.append([append(life, status="PAUSED")])
    assert proxy.made == 9
    assert len(await ids(store, life)) == 6
    used = (await store.totals("acme", [Quantity("tokens_used")]))[0]
    assert used == Total(10, 5 * 30 + 5 * 10, 2, 200), "counted once"
    await store.stop()
    await proxy.stop()


async def test_serialization_failures_are_tried_again(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CockroachDB has them by default: two stores, the same lifetimes, and the strictest isolation."""
    states: list[str | None] = []
    after = Patience.after

    async def count(self: Patience, error: Exception) -> None:
        states.append(getattr(error, "sqlstate", None))
        await after(self, error)

    monkeypatch.setattr(Patience, "after", count)
    stores = [await opened(postgres_url, isolation="serializable") for _ in range(3)]
    lives = [await made(stores[0], n) for n in range(5)]

    async def send(number: int, store: PostgresStore) -> None:
        for n in range(8):
            await store.append([append(life, spent(life, 100 * number + n)) for life in lives])
            await store.admit([demand(lives[n % 5], 1000 + 100 * number + n)], up_to(10**9))

    await asyncio.gather(*(send(number, store) for number, store in enumerate(stores)))
    for life in lives:
        assert len(await ids(stores[1], life)) == 1 + 3 * 8
    assert await stores[2].totals("acme", [Quantity("tokens_used")]) == [Total(120, 1_200, 24, 2_400)]
    assert "40001" in states, "it was put to the test"
    for store in stores:
        await store.stop()


async def test_admissions_of_many_processes_keep_to_one_limit(postgres_url: str) -> None:
    stores = [await opened(postgres_url) for _ in range(4)]
    lives = [await made(stores[0], n) for n in range(8)]

    async def ask(number: int) -> int:
        store, life, admitted = stores[number % 4], lives[number], 0
        for n in range(10):
            if (await store.admit([demand(life, n)], up_to(1_500)))[0] is None:
                admitted += 1
                await store.append([append(life, spent(life, n, tokens=90))])
        return admitted

    assert sum(await asyncio.gather(*(ask(n) for n in range(8)))) == 16, "15 * 90 + 100 <= 1,500, and no more"
    assert await stores[3].totals("acme", [Quantity("tokens_used")]) == [Total(16, 1_440)]
    for store in stores:
        await store.stop()


async def test_a_server_without_free_connections_is_told_and_comes_back(postgres_url: str) -> None:
    """Also: a login that owns nothing and may make nothing can use a database that is up to date."""
    await (await opened(postgres_url)).stop()
    login = f"limited_{Address(postgres_url).options.schema}"
    async with administrator(servers.postgres_admin()) as admin:
        await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'pass' CONNECTION LIMIT 2")
        await admin.execute(f"GRANT tickwork_app, tickwork_system TO {login}")
        try:
            place = Address(postgres_url).dsn.partition("://")[2].rpartition("@")[2]
            url = with_options(f"postgresql://{login}:pass@{place}", schema=Address(postgres_url).options.schema)
            store = await opened(url, SettableClock())
            life = await made(store)
            holding = asyncio.create_task(hold(url, 1))
            await asyncio.sleep(0.2)
            with pytest.raises(StorageError, match=r"max_connections.*lower pool_max"):
                await store.read_log("acme", life.lifetime_id)
            assert (await store.append([append(life, execution(life, 1))]))[0].seqs == (2,), "appends have their own"
            holding.cancel()
            await asyncio.wait([holding])
            await asyncio.sleep(0.2)
            assert len(await ids(store, life)) == 2, "it is found again"
            await store.stop()
        finally:
            for _ in range(50):
                left = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", login)
                if not left:
                    break
                await asyncio.sleep(0.05)
            await admin.execute(f"DROP ROLE {login}")


async def hold(url: str, count: int) -> None:
    """Holds connections until it is cancelled."""
    dsn = Address(url).dsn
    connections = [await asyncpg.connect(dsn) for _ in range(count)]
    try:
        await asyncio.Event().wait()
    finally:
        for connection in connections:
            connection.terminate()


async def test_a_lock_that_is_not_let_go_is_told(postgres_url: str) -> None:
    store = await opened(postgres_url, lock_timeout=0.1, patience=0.5)
    life = await made(store)
    async with administrator(postgres_url) as admin:
        await admin.execute(f'BEGIN; LOCK TABLE "{Address(postgres_url).options.schema}".heads')
        with pytest.raises(StorageError, match=r"Another transaction holds.*pg_stat_activity"):
            await store.append([append(life, execution(life, 1))])
        await admin.execute("ROLLBACK")
    assert (await store.append([append(life, execution(life, 1))]))[0].seqs == (2,)
    await store.stop()


async def test_a_busy_pool_is_told(postgres_url: str) -> None:
    store = await opened(postgres_url, pool_max=1, patience=0.3, lock_timeout=5)
    life = await made(store)
    async with administrator(postgres_url) as admin:
        await admin.execute(f'BEGIN; LOCK TABLE "{Address(postgres_url).options.schema}".log')
        first = asyncio.create_task(store.read_log("acme", life.lifetime_id))
        await asyncio.sleep(0.05)
        with pytest.raises(StorageError, match="Raise pool_max"):
            await store.read_log("acme", life.lifetime_id)
        first.cancel()
        await asyncio.wait([first])
        await admin.execute("ROLLBACK")
    assert len(await ids(store, life)) == 1, "a read that was given up leaves its connection usable"
    await store.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_server_that_restarts_loses_nothing() -> None:
    """A server of its own: everything that was acknowledged is there, and appends go on by themselves."""
    folder = Path(tempfile.mkdtemp(prefix="tickwork-restart-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        found = await asyncio.to_thread(servers.start, "postgres", folder)
        async with administrator(found["TICKWORK_POSTGRES_ADMIN_URL"]) as admin:
            await admin.execute("ALTER ROLE tickwork CREATEROLE")
        store = await opened(found["TICKWORK_POSTGRES_URL"], patience=60)
        lives = [await made(store, n) for n in range(10)]
        told: Counter[str] = Counter()
        done = asyncio.Event()

        async def send(life: Lifetime) -> None:
            while not done.is_set():
                seq = told[life.lifetime_id] + 2
                answer = (await store.append([append(life, execution(life, seq))]))[0]
                assert answer.seqs == (seq,)
                told[life.lifetime_id] += 1
                await asyncio.sleep(0.001)

        sending = asyncio.gather(*(send(life) for life in lives))
        for _ in range(2):
            before = told.total()
            await asyncio.sleep(0.5)
            await asyncio.to_thread(servers.end, "postgres", folder)
            await asyncio.to_thread(servers.start, "postgres", folder)
            assert told.total() > before
            again = told.total()
            await asyncio.sleep(2)
            assert told.total() > again + 10, "it goes on within two seconds"
        done.set()
        await sending
        for life in lives:
            assert len(await ids(store, life)) == told[life.lifetime_id] + 1
        await store.stop()
    finally:
        await asyncio.to_thread(servers.end, "postgres", folder)
        shutil.rmtree(folder, ignore_errors=True)
