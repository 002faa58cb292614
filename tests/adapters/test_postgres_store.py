"""What only Postgres can show: tenants kept apart by the database, the schema, words for what goes wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.adapters.postgres_stores import administrator, drop, postgres_schema, postgres_url, with_options
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.postgres.schema import SHARED_TABLES, migrations
from tickwork.clock import SystemClock
from tickwork.errors import MissingExtra, StorageError, StoreCorrupt, StoreTooNew, UsageError
from tickwork.model.messages import Append
from tickwork.model.policy import Match
from tickwork.model.records import Event
from tickwork.model.spending import Quantity, Total, UsageQuery
from tickwork.ports import LifetimeQuery
from tickwork.profiles import SHIPPED
from tickwork.testing.conformance import SettableClock
from tickwork.testing.conformance.admission import always, demand
from tickwork.testing.conformance.specimens import (
    BEGAN,
    append,
    execution,
    graph,
    letter,
    lifetime,
    question,
    started,
    timer,
)
from tickwork.testing.conformance.spent import spent

pytestmark = pytest.mark.servers

__all__ = ["postgres_schema", "postgres_url"]

TOKENS = Quantity("tokens_used")
HOSTILE = ["'; DROP TABLE log; --", '"', "*", "tickwork_system", "größe\U0001f600", "a,b}{", "%", "x" * 128, "\\", " "]


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, SettableClock(), **({"database_time": False} | options))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def schema_of(url: str) -> str:
    return Address(url).options.schema


async def fill(store: PostgresStore, tenant: str, number: int = 1) -> None:
    """A row in every table that takes rows of a tenant."""
    life = lifetime(number, tenant, idempotency_key="k", labels={"team": tenant[:20]})
    await store.create_lifetime(life, started(life))
    rows: dict[str, Any] = {"timers_set": (timer(life, "t", BEGAN),), "questions_opened": (question(life, "q"),)}
    done = spent(life, 1, custom={"pages": 1})
    await store.append([append(life, done, **rows)])
    await store.admit([demand(life, 2)], always)
    await store.put_graph(graph("hello", tenant=tenant))
    await store.bury([letter(1, tenant)])


async def test_every_table_of_tenants_is_walled(postgres_url: str) -> None:
    """By the catalogue, so that a table which is added later is looked at too."""
    schema = schema_of(postgres_url)
    async with opened(postgres_url), administrator(postgres_url) as admin:
        tables = await admin.fetch(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced, c.oid, "
            "(SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) AS policies FROM pg_class AS c "
            "JOIN pg_namespace AS s ON s.oid = c.relnamespace WHERE s.nspname = $1 AND c.relkind = 'r'",
            schema,
        )
        assert {row["relname"] for row in tables if not row["forced"]} == set(SHARED_TABLES)
        assert len(tables) > 10
        for row in tables:
            if row["relname"] in SHARED_TABLES:
                continue
            assert row["policies"], row["relname"]
            keys = await admin.fetch(
                "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid "
                "AND a.attnum = i.indkey[0] WHERE i.indrelid = $1 AND i.indisunique",
                row["oid"],
            )
            assert keys, row["relname"]
            assert {key[0] for key in keys} == {"tenant_id"}, "a key that all share tells what others have"
        owner = await admin.fetchval("SELECT tableowner FROM pg_tables WHERE schemaname = $1 LIMIT 1", schema)
        assert owner not in ("tickwork_app", "tickwork_system")


async def test_a_forgotten_where_shows_nothing_of_others(postgres_url: str) -> None:
    """Raw statements without a filter, as the role that reads for a tenant."""
    schema = schema_of(postgres_url)
    async with opened(postgres_url) as store, administrator(postgres_url) as admin:
        for number, tenant in enumerate(("acme", "umbrella"), 1):
            await fill(store, tenant, number)
        read = (
            "lifetimes",
            "heads",
            "log",
            "questions",
            "graphs",
            "dead_letters",
            "usage",
            "usage_custom",
            "usage_daily",
            "usage_custom_daily",
            "holds",
        )
        for tenant, wanted in (
            ("acme", {"acme"}),
            ("umbrella", {"umbrella"}),
            ("*", set()),
            ("", set()),
            (None, set()),
        ):
            await admin.execute(f'BEGIN; SET LOCAL ROLE tickwork_app; SET LOCAL search_path = "{schema}"')
            if tenant is not None:
                await admin.execute("SELECT set_config('tickwork.tenant', $1, true)", tenant)
            for table in read:
                rows = await admin.fetch(f"SELECT DISTINCT tenant_id FROM {table}")
                assert {row[0] for row in rows} == wanted, f"{table} as {tenant}"
            await admin.execute("ROLLBACK")
        await admin.execute(f'BEGIN; SET LOCAL ROLE tickwork_system; SET LOCAL search_path = "{schema}"')
        assert await admin.fetch("SELECT 1 FROM log") == [], "the system has to say that it means all"
        await admin.execute("SELECT set_config('tickwork.tenant', 'acme', true)")
        assert await admin.fetch("SELECT 1 FROM log") == []
        await admin.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("role", "tenant", "forbidden"),
    [
        (
            "tickwork_app",
            "acme",
            "INSERT INTO graphs SELECT 'umbrella', name, version, digest, body, source, 1 FROM graphs",
        ),
        ("tickwork_app", "acme", "INSERT INTO log VALUES ('acme', 'x', 99, 1, 'forged', '')"),
        ("tickwork_app", "acme", "UPDATE log SET body = ''"),
        ("tickwork_app", "acme", "DELETE FROM log"),
        ("tickwork_app", "acme", "UPDATE heads SET seq = 0"),
        ("tickwork_app", "acme", "SELECT 1 FROM policy_documents"),
        ("tickwork_app", "acme", "SELECT 1 FROM timers"),
        ("tickwork_app", "acme", "ALTER TABLE log DISABLE ROW LEVEL SECURITY"),
        ("tickwork_system", "*", "UPDATE log SET body = ''"),
        ("tickwork_system", "*", "DELETE FROM log"),
        ("tickwork_system", "*", "DELETE FROM lifetimes"),
        ("tickwork_system", "*", "UPDATE lifetimes SET tenant_id = 'x'"),
        ("tickwork_system", "*", "SELECT 1 FROM dead_letters"),
        ("tickwork_system", "*", "TRUNCATE log"),
        ("tickwork_system", "*", "DELETE FROM policy_documents"),
    ],
)
async def test_no_role_may_do_more_than_its_work(postgres_url: str, role: str, tenant: str, forbidden: str) -> None:
    async with opened(postgres_url) as store, administrator(postgres_url) as admin:
        await store.put_graph(graph("hello"))
        await admin.execute(f'BEGIN; SET LOCAL ROLE {role}; SET LOCAL search_path = "{schema_of(postgres_url)}"')
        await admin.execute("SELECT set_config('tickwork.tenant', $1, true)", tenant)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute(forbidden)


async def test_hostile_names_of_tenants_are_names(postgres_url: str) -> None:
    """Also over a pool of one connection, which each uses after the other."""
    async with opened(with_options(postgres_url, pool_max=1)) as store:
        for number, tenant in enumerate(HOSTILE, 1):
            await fill(store, tenant, number)

        async def look(number: int, tenant: str) -> None:
            life = lifetime(number, tenant)
            assert [x.lifetime_id for x in await store.list_lifetimes(tenant, LifetimeQuery())] == [life.lifetime_id]
            assert len(await store.read_log(tenant, life.lifetime_id)) == 2
            assert [q.tenant_id for q in await store.questions(tenant)] == [tenant]
            assert [one.tenant_id for one in await store.dead_letters(tenant)] == [tenant]
            assert [one.tenant_id for one in await store.graphs(tenant)] == [tenant]
            assert await store.totals(tenant, [TOKENS]) == [Total(1, 10, 1, 100)]
            assert (await store.usage(UsageQuery(tenant_id=tenant, by=("tenant",))))[0].key == (tenant,)
            mine = LifetimeQuery(label=("team", tenant[:20]))
            assert len(await store.list_lifetimes(tenant, mine)) == 1

        await asyncio.gather(*(look(number, tenant) for number, tenant in enumerate(HOSTILE, 1) for _ in range(5)))
        for nobody in ("\0", "a\0b", "\ud800", ""):
            assert await store.list_lifetimes(nobody, LifetimeQuery()) == []
            assert await store.read_log("*", nobody) == []
            assert await store.get_lifetime(nobody, nobody) == []
            assert await store.totals("nobody" + nobody, [TOKENS]) == [Total()]
            assert await store.forget_dead_letter(nobody, nobody) is False
            if nobody:
                with pytest.raises(StorageError, match="cannot hold"):
                    await store.put_graph(graph("hello", tenant=nobody))
            bad = Append(nobody or "\0", nobody, (execution(lifetime(1), 1),))
            life = lifetime(1, HOSTILE[0])
            answers = await store.append([bad, append(life, Event(f"e{nobody!r}", "paused"))])
            assert [answer.error is None for answer in answers] == [False, True], "its neighbour is recorded"
        await store.append([append(lifetime(1, HOSTILE[0]), status="PAUSED", reason="zero \0 and \ud800")])
        assert (await store.list_lifetimes(HOSTILE[0], LifetimeQuery()))[0].reason == "zero \ufffd and ?"


async def test_an_id_that_two_tenants_have_is_walked_for_both(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        tenants = [f"t{n}" for n in range(5)]
        for tenant in tenants:
            for number in (1, 2):
                life = lifetime(number, tenant)
                assert (await store.create_lifetime(life, started(life)))[1]
        walked: list[tuple[str, str]] = []
        while page := await store.open_lifetimes(walked[-1][0] if walked else "", limit=2):
            walked += [(one.lifetime_id, one.tenant_id) for one in page]
        assert walked == [(lifetime(n).lifetime_id, tenant) for n in (1, 2) for tenant in tenants]


async def test_a_refused_row_is_found_among_its_neighbours(postgres_url: str) -> None:
    """What nobody foresaw, a constraint or a name too long for a key, fails the one Append that has it."""
    async with opened(postgres_url) as store, administrator(postgres_url) as admin:
        lives = [lifetime(n, ("acme", "umbrella")[n % 2]) for n in range(20)]
        for life in lives:
            await store.create_lifetime(life, started(life))
        table = f'"{schema_of(postgres_url)}".log'
        await admin.execute(f"ALTER TABLE {table} ADD CONSTRAINT a_curse CHECK (entry_id <> 'cursed')")
        try:
            odd = {7: "cursed", 11: "".join(chr(0x4E00 + n) for n in range(9_000)), 13: "zero \0"}
            batch = [
                append(life, execution(life, 1), Event(odd.get(n, "fine"), "paused")) for n, life in enumerate(lives)
            ]
            answers = await store.append(batch)
            again = await store.append(batch)
        finally:
            await admin.execute(f"ALTER TABLE {table} DROP CONSTRAINT a_curse")
        assert [n for n, answer in enumerate(answers) if answer.error] == list(odd)
        assert "a_curse" in (answers[7].error or "")
        assert [answer.last_seq for answer in answers] == [1 if n in odd else 3 for n in range(20)]
        assert {answer.seqs for n, answer in enumerate(again) if n not in odd} == {(None, None)}
        for n, life in enumerate(lives):
            assert len(await store.read_log(life.tenant_id, life.lifetime_id)) == (1 if n in odd else 3)


async def test_what_workers_say_is_counted_whatever_it_is(postgres_url: str) -> None:
    """Names of models and counters, and labels longer than any key."""
    async with opened(postgres_url) as store:
        long = "".join(chr(0x4E00 + n) for n in range(20_000))
        store.track(frozenset({"long"}))
        life = lifetime(1, labels={"long": long})
        await store.create_lifetime(life, started(life))
        odd = spent(life, 1, model="zero \0", custom={"a\0": 1, "a\ufffd": 2})
        assert (await store.append([append(life, odd), append(life, spent(life, 2))]))[0].error is None
        row = (await store.usage(UsageQuery(tenant_id="acme", labels={"long": long})))[0]
        assert (row.executions, row.custom) == (2, {"a\ufffd": 3_000_000})
        assert await store.totals("acme", [Quantity("tokens_used", Match(labels={"long": long}))]) == [Total(2, 20)]


async def test_timers_are_due_by_the_clock_of_the_database(postgres_url: str) -> None:
    """A process whose own clock is an hour ahead fires nothing early, and records no time of its own."""
    ahead = SettableClock(SystemClock().now() + 3_600_000_000)
    store = PostgresStore(postgres_url, ahead)
    await store.start()
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    now = SystemClock().now()
    set_ = (timer(life, "soon", now + 1_800_000_000), timer(life, "past", now - 1))
    answer = (await store.append([append(life, timers_set=set_)]))[0]
    assert abs(answer.at - now) < 60_000_000
    due, wait = await store.due_timers()
    assert [one.timer_id for one in due] == ["past"]
    assert wait is not None
    assert 1_700_000_000 < wait <= 1_800_000_000
    hour = Quantity("tokens_used")
    await store.admit([demand(life, 1, hour)], always)
    await store.stop()


# -- the schema


SHAPE = [
    (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name, is_identity "
        "FROM information_schema.columns WHERE table_schema = $1 ORDER BY 1, ordinal_position"
    ),
    "SELECT tablename, replace(indexdef, $1, '') FROM pg_indexes WHERE schemaname = $1 ORDER BY 1, 2",
    (
        "SELECT tablename, policyname, roles::text, cmd, qual, with_check FROM pg_policies WHERE schemaname = $1 "
        "ORDER BY 1, 2"
    ),
    (
        "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants "
        "WHERE table_schema = $1 ORDER BY 1, 2, 3"
    ),
    (
        "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.reloptions FROM pg_class AS c "
        "JOIN pg_namespace AS s ON s.oid = c.relnamespace WHERE s.nspname = $1 AND c.relkind = 'r' ORDER BY 1"
    ),
]


async def shape(url: str) -> list[tuple[Any, ...]]:
    """Columns, indexes, policies and rights of a schema, without its name."""
    schema = schema_of(url)
    found: list[tuple[Any, ...]] = []
    async with administrator(url) as admin:
        for query in SHAPE:
            found += [tuple(row) for row in await admin.fetch(query, schema)]
    return found


async def test_a_schema_that_grew_is_like_a_fresh_one(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = with_options(postgres_url, schema="tw_grown_" + schema_of(postgres_url)[3:])
    async with opened(postgres_url):
        pass
    try:
        for number in range(1, len(migrations()) + 1):
            with monkeypatch.context() as older:
                older.setattr("tickwork.adapters.state.postgres.schema.migrations", lambda n=number: migrations()[:n])
                store = PostgresStore(grown, SettableClock(), database_time=False)
                await store.start()
                assert (await store.ping())["schema"] == str(number)
                await store.stop()
        assert await shape(grown) == await shape(postgres_url)
        assert len(await shape(grown)) > 100
        with monkeypatch.context() as older:
            older.setattr("tickwork.adapters.state.postgres.schema.migrations", lambda: migrations()[:1])
            with pytest.raises(StoreTooNew, match=r"schema version 2.*up to 1.*Upgrade"):
                await PostgresStore(grown, SettableClock()).start()
        async with administrator(grown) as admin:
            await admin.execute(f"UPDATE \"{schema_of(grown)}\".migrations SET checksum = 'other' WHERE number = 1")
        with pytest.raises(StorageError, match="0001_log"):
            await PostgresStore(grown, SettableClock()).start()
    finally:
        await drop(grown, schema_of(grown))


async def test_many_processes_may_start_at_once(postgres_url: str) -> None:
    fresh = with_options(postgres_url, schema="tw_fresh_" + schema_of(postgres_url)[3:])
    stores = [PostgresStore(fresh, SystemClock()) for _ in range(6)]
    try:
        await asyncio.gather(*(store.start() for store in stores))
        assert {(await store.ping())["schema"] for store in stores} == {str(len(migrations()))}
    finally:
        await asyncio.gather(*(store.stop() for store in stores))
        await drop(fresh, schema_of(fresh))


async def test_a_schema_of_another_program_is_left_alone(postgres_url: str) -> None:
    other = with_options(postgres_url, schema="tw_other_" + schema_of(postgres_url)[3:])
    name = schema_of(other)
    async with administrator(other) as admin:
        await admin.execute(f'CREATE SCHEMA "{name}"; CREATE TABLE "{name}".bookmarks (url text)')
    try:
        with pytest.raises(StorageError, match=r"another program.*bookmarks"):
            await PostgresStore(other, SettableClock()).start()
        with pytest.raises(StorageError, match="another program"):
            await PostgresStore(other, SettableClock(), readonly=True).start()
    finally:
        await drop(other, name)


async def test_a_reader_writes_nothing_and_migrates_nothing(postgres_url: str) -> None:
    empty = with_options(postgres_url, schema="tw_empty")
    with pytest.raises(StorageError, match=r"schema version 0.*next process that writes"):
        await PostgresStore(empty, SettableClock(), readonly=True).start()
    async with opened(postgres_url) as store, opened(postgres_url, readonly=True) as reader:
        await fill(store, "acme")
        life = lifetime(1)
        assert len(await reader.read_log("acme", life.lifetime_id)) == 2
        assert await reader.totals("acme", [TOKENS]) == [Total(1, 10, 1, 100)], "reservations are rows"
        for attempt in (
            reader.append([append(life, execution(life, 2))]),
            reader.put_graph(graph("x")),
            reader.admit([demand(life, 3)], always),
            reader.bury([letter(1)]),
        ):
            with pytest.raises(StorageError, match="reading only"):
                await attempt
        assert (await reader.ping())["technology"] == "PostgreSQL"
    with pytest.raises(StorageError, match="not open"):
        await store.questions("acme")


async def test_ping_says_whether_it_is_safe(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        facts = await store.ping()
        assert facts["row-level security"] == "forced on 14 of 14 tables of tenants"
        assert "fsync" in facts["durability"]
        assert "max_connections" in facts["connections"]
        assert facts["version"][0].isdigit()
        async with administrator(postgres_url) as admin:
            table = f'"{schema_of(postgres_url)}".holds'
            await admin.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            try:
                assert (await store.ping())["row-level security"].startswith("forced on 13 of 14")
            finally:
                await admin.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


async def test_a_log_that_was_changed_from_outside_is_noticed(postgres_url: str) -> None:
    async with opened(postgres_url) as store, administrator(postgres_url) as admin:
        lives = [lifetime(n) for n in (1, 2, 3)]
        for life in lives:
            await store.create_lifetime(life, started(life))
            await store.append([append(life, execution(life, 1), execution(life, 2))])
        schema = schema_of(postgres_url)
        # As the owner, who is behind row-level security too while it is forced.
        for table in ("log", "heads"):
            await admin.execute(f'ALTER TABLE "{schema}".{table} NO FORCE ROW LEVEL SECURITY')
        try:
            first, second, third = (life.lifetime_id for life in lives)
            await admin.execute(f"UPDATE \"{schema}\".log SET body = '\\xc1' WHERE lifetime_id = $1 AND seq = 2", first)
            await admin.execute(f'DELETE FROM "{schema}".log WHERE lifetime_id = $1 AND seq = 2', second)
            await admin.execute(f'UPDATE "{schema}".heads SET seq = 1 WHERE lifetime_id = $1', third)
        finally:
            for table in ("log", "heads"):
                await admin.execute(f'ALTER TABLE "{schema}".{table} FORCE ROW LEVEL SECURITY')
        with pytest.raises(StoreCorrupt, match=f"Entry 2 of lifetime {first} cannot be read"):
            await store.read_log("acme", first)
        with pytest.raises(StoreCorrupt, match=f"Entry 2 of lifetime {second} is missing"):
            await store.read_log("acme", second)
        answers = await store.append([append(life, execution(life, 9)) for life in lives])
        assert [answer.error is None for answer in answers] == [True, True, False], "no neighbour suffers"
        assert "log_pkey" in (answers[2].error or "")


# -- words


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://tim:s3cret@127.0.0.1:1/x?connect_timeout=1", r"127.0.0.1:1/x.*Check that the server runs"),
        ("postgresql://tim:s3cret@127.0.0.1:port/x", "port is no number"),
        ("postgresql://tim:s3cret@h/x?pool_max=many", "pool_max"),
        ("postgresql://tim:s3cret@h/x?pool_max=0", "at least 1"),
        ("postgresql://tim:s3cret@h/x?patience=-1", "more than 0 seconds"),
        ("postgresql://tim:s3cret@h/x?schema=a%22%3Bdrop", "lower-case name"),
        ("postgresql://tim:s3cret@h/x?isolation=chaos", "serializable"),
        ("postgresql://tim:s3cret@h/x?sslmode=s3cret", "`sslmode` parameter must be one of"),
        ("mysql://tim:s3cret@h/x", "begins with postgresql://"),
    ],
)
async def test_no_error_tells_the_password(url: str, says: str) -> None:
    with pytest.raises((StorageError, UsageError), match=says) as told:
        await PostgresStore(url, SettableClock()).start()
    seen: BaseException | None = told.value
    assert "s3cret" not in str(seen)
    if url.startswith("postgresql://tim:s3cret@127.0.0.1:1/"):
        assert "s3cret" not in repr(PostgresStore(url, SettableClock()))


async def test_a_database_that_is_not_there_is_told(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    wrong = parts._replace(path="/no_such_database_here").geturl()
    with pytest.raises(StorageError, match=r"CREATE DATABASE"):
        await PostgresStore(wrong, SettableClock()).start()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("tickwork.adapters.state.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for scheme in ("postgresql", "postgres"):
        with pytest.raises(MissingExtra, match=r"tickwork\[postgres\]"):
            SHIPPED["state"][scheme](f"{scheme}://h/x", SettableClock())
