"""The SQLite store keeps the promises of the ledger and of the policies' store; and what only a file can show."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.sqlite_stores import InFile, InMemory
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.adapters.state.sqlite.schema import migrations
from tickwork.errors import StorageError, UsageError
from tickwork.model.policy import Match, Window
from tickwork.model.records import Event
from tickwork.model.spending import Quantity, Total, UsageQuery, UsageRow
from tickwork.model.tallies import COLUMN_OF, MOST_TALLIES
from tickwork.testing.conformance import LedgerConformance, PoliciesConformance, SettableClock
from tickwork.testing.conformance.admission import always, demand
from tickwork.testing.conformance.checks import turn
from tickwork.testing.conformance.policies import document
from tickwork.testing.conformance.specimens import append, lifetime, started
from tickwork.testing.conformance.spent import spent

TOKENS = Quantity("tokens_used")
ALL = UsageQuery(tenant_id=None)


class TestLedgerInFile(InFile, LedgerConformance):
    pass


class TestLedgerInMemory(InMemory, LedgerConformance):
    pass


class TestPoliciesInFile(InFile, PoliciesConformance):
    pass


class TestPoliciesInMemory(InMemory, PoliciesConformance):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


async def opened(path: Path, *, readonly: bool = False) -> SqliteStore:
    store = SqliteStore(path, SettableClock(), readonly=readonly)
    await store.start()
    return store


async def test_a_database_of_schema_2_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("tickwork.adapters.state.sqlite.schema.migrations", lambda: migrations()[:2])
        older.setattr("tickwork.adapters.state.sqlite.transaction.write_uses", lambda *_: None)  # it knew of no usage
        store = await opened(path)
        life = lifetime(1)
        await store.create_lifetime(life, started(life))
        await store.append([append(life, spent(life, 1))])
        assert (await store.ping())["schema"] == "2"
    reader = await opened(path, readonly=True)  # beside the older process, which is not to be disturbed
    assert await reader.usage(ALL) == [UsageRow(key=())]
    assert await reader.usage(UsageQuery(tenant_id="acme", by=("node",))) == []
    assert await reader.totals("acme", [TOKENS, TOKENS]) == [Total(), Total()]
    assert (await reader.policies(), await reader.policies(history=True)) == ([], [])
    assert await reader.policy_set("sha256:a") is None
    await reader.stop()
    await store.stop()
    store = await opened(path)
    assert (await store.ping())["schema"] == str(len(migrations()))
    assert (await store.usage(ALL))[0].executions == 0, "what was used before is not known by minute, so not invented"
    await store.append([append(life, spent(life, 1)), append(life, spent(life, 2))])
    assert await store.totals("acme", [TOKENS]) == [Total(1, 10)], "a duplicate of then is a duplicate"
    await store.put_policies(document(1))
    await store.stop()
    store = await opened(path)
    assert await store.totals("acme", [TOKENS]) == [Total(1, 10)]
    assert await store.policies() == [document(1)]
    await store.stop()


async def test_another_process_reads_what_is_recorded_and_admits_nothing(path: Path) -> None:
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    reader = await opened(path, readonly=True)
    assert await reader.totals("acme", [TOKENS]) == [Total()]
    await store.admit([demand(life, 1), demand(life, 2)], always)
    await store.append([append(life, spent(life, 1, custom={"pages": 3}))])
    await store.put_policy_set("sha256:a", b"{}")
    custom = Quantity("custom.pages", window=Window(calendar="month"))
    assert await store.totals("acme", [TOKENS, custom]) == [Total(1, 10, 1, 100), Total(1, 3_000_000, 1, 0)]
    assert await reader.totals("acme", [TOKENS, custom]) == [Total(1, 10), Total(1, 3_000_000)], "not what is reserved"
    assert (await reader.usage(ALL))[0].tokens_used == 10
    assert await reader.policy_set("sha256:a") == b"{}"
    with pytest.raises(StorageError, match=r"reading only: nothing was admitted"):
        await reader.admit([demand(life, 3)], always)
    with pytest.raises(StorageError, match="reading only"):
        await reader.put_policies(document(1))
    reader.track(frozenset({"team"}))
    await reader.stop()
    with pytest.raises(StorageError, match="not open"):
        await reader.totals("acme", [TOKENS])
    await store.stop()
    with pytest.raises(StorageError, match="not open: nothing was admitted"):
        await store.admit([demand(life, 3)], always)


@pytest.mark.parametrize("rows", [1, 30, 3_000])
async def test_a_commit_that_fails_changes_nothing(path: Path, rows: int) -> None:
    """Whether it is made inline, in the thread, or wholly in the thread."""
    store = await opened(path)
    life, other = lifetime(1), lifetime(2)
    for one in (life, other):
        await store.create_lifetime(one, started(one))
    assert store._writer is not None
    curse = "BEGIN INSERT INTO curses VALUES (7); END"
    for statement in (
        "PRAGMA foreign_keys = 1",
        "CREATE TABLE nowhere (n INTEGER PRIMARY KEY)",
        "CREATE TABLE curses (n INTEGER REFERENCES nowhere DEFERRABLE INITIALLY DEFERRED)",
        f"CREATE TRIGGER cursed AFTER INSERT ON log WHEN new.entry_id = 'cursed' {curse}",
    ):
        store._writer.execute(statement)
    await store.append([append(other, spent(other, 1))])
    await store.admit([demand(life, 1), demand(life, 2)], always)
    assert await store.totals("acme", [TOKENS]) == [Total(1, 10, 2, 200)]
    batch = append(life, *(spent(life, n) for n in range(1, rows + 1)))
    cursed = append(other, Event("cursed", "completed"), status="COMPLETED")
    with pytest.raises(StorageError):
        await store.append([batch, cursed])
    assert await store.totals("acme", [TOKENS]) == [Total(1, 10, 2, 200)], "nothing was recorded, nothing is released"
    assert (await store.usage(ALL))[0].executions == 1
    await store.append([batch])
    left = max(2 - rows, 0)
    assert await store.totals("acme", [TOKENS]) == [Total(1 + rows, 10 + 10 * rows, left, 100 * left)]
    await store.stop()


async def test_what_is_on_disk_and_not_yet_answered_counts_once(path: Path) -> None:
    """Sums that are made up between a commit in the thread and its answer neither miss it nor take it twice."""
    store = await opened(path)
    clock = store._clock
    assert isinstance(clock, SettableClock)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    minute = Quantity("tokens_used", window=Window(seconds=60))
    today = Quantity("tokens_used", window=Window(calendar="day"))
    assert await store.totals("acme", [minute, today]) == [Total(), Total()]
    writing = asyncio.ensure_future(store.append([append(life, *(spent(life, n) for n in range(30)))]))
    assert store._commits is not None
    while not store._commits._busy:
        await turn()
    with closing(sqlite3.connect(path)) as disk:
        while not disk.execute("SELECT count(*) FROM usage").fetchone()[0]:
            pass  # nothing else runs on this loop meanwhile, so nobody hears of the commit
    assert not writing.done()
    clock.advance(86_400)
    asked = [minute, today, TOKENS, Quantity("tokens_used", window=Window(seconds=90_000))]
    now, then = [Total(), Total(), Total(30, 300), Total(30, 300)], await store.totals("acme", asked)
    await writing
    assert (then, await store.totals("acme", asked)) == (now, now)
    await store.stop()


async def test_a_record_of_a_period_that_is_over_when_it_lands_is_not_of_the_next(path: Path) -> None:
    store = await opened(path)
    clock = store._clock
    assert isinstance(clock, SettableClock)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    minute = Quantity("tokens_used", window=Window(seconds=60))
    await store.totals("acme", [minute])
    writing = asyncio.ensure_future(store.append([append(life, *(spent(life, n) for n in range(30)))]))
    assert store._commits is not None
    while not store._commits._busy:
        await turn()
    clock.advance(3_600)
    assert await store.totals("acme", [minute]) == [Total()], "known already, so it is told at once"
    assert not writing.done()
    await writing
    assert await store.totals("acme", [minute]) == [Total()]
    await store.stop()


async def test_a_refused_append_counts_nothing_and_releases_nothing(path: Path) -> None:
    store = await opened(path)
    lives = [lifetime(n) for n in range(9)]
    for life in lives:
        await store.create_lifetime(life, started(life))
    assert store._writer is not None
    store._writer.execute(
        "CREATE TRIGGER unforeseen BEFORE UPDATE ON lifetimes WHEN new.reason = 'cursed' "
        "BEGIN SELECT RAISE(ABORT, 'a curse'); END"
    )
    await store.admit([demand(life, 1) for life in lives], always)
    batch = [
        append(life, spent(life, 1), status="FAILED", reason="cursed" if n == 4 else "") for n, life in enumerate(lives)
    ]
    answers = await store.append(batch)
    assert [n for n, answer in enumerate(answers) if answer.error] == [4]
    assert await store.totals("acme", [TOKENS]) == [Total(8, 80, 1, 100)]
    assert (await store.usage(ALL))[0].executions == 8
    await store.stop()


async def test_labels_are_known_of_lifetimes_that_are_no_longer_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwork.adapters.state.sqlite.transaction.HEADS", 4)
    store = await opened(path)
    red = Quantity("tokens_used", Match(labels={"team": "red"}))
    lives = [lifetime(n, labels={"team": "red" if n % 2 else "blue"}) for n in range(12)]
    for life in lives:
        await store.create_lifetime(life, started(life))
    await store.append([append(life, spent(life, 1)) for life in lives])
    # A policy that asks for a label has it tracked: from the next commit on it is not blind.
    asked = demand(lives[0], 2, red)
    await store.admit([asked], always)
    await store.append([append(life, spent(life, 2)) for life in lives])
    assert await store.totals("acme", [red]) == [Total(6, 60)]
    await store.stop()
    store = SqliteStore(path, SettableClock())
    store.track(frozenset({"team"}))  # before it is opened
    await store.start()
    await store.append([append(life, spent(life, 3)) for life in lives])
    assert await store.totals("acme", [red]) == [Total(12, 120)]
    await store.stop()


async def test_a_time_zone_that_nobody_knows_is_told(path: Path) -> None:
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    for zone in ("Mars/Olympus", "../../etc/passwd", "", "Europe"):
        odd = Quantity("tokens_used", window=Window(calendar="day", time_zone=zone))
        with pytest.raises(UsageError, match="no time zone"):
            await store.totals("acme", [TOKENS, odd])
        with pytest.raises(UsageError, match="no time zone"):
            await store.admit([demand(life, 1), demand(life, 2, odd)], always)
    assert await store.totals("acme", [TOKENS]) == [Total()], "nothing was reserved, and the rest works"
    await store.stop()


async def test_quantities_nobody_asks_for_any_more_are_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.model.tallies.MOST_TALLIES", 3)
    monkeypatch.setattr("tickwork.model.tallies.ROUTES", 2)
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    await store.admit([demand(life, 99)], always)
    for number in range(8):
        asked = [Quantity("tokens_used", Match(name=("*", str(n)))) for n in range(number, number + 5)]
        await store.append([append(life, spent(life, number, name=f"n{number % 4}"))])
        assert await store.totals("acme", asked) == [Total(number + 1, 10 * number + 10, 1, 100)] * 5
    assert MOST_TALLIES > 200 * 3, "more than the policies of all layers ask for"
    await store.stop()


async def test_the_sums_use_their_index(path: Path) -> None:
    store = await opened(path)
    assert store._reader is not None
    for name in ("sum_usage", "list_usage", "sum_usage_custom", "list_usage_custom"):
        asked = {"tenant_id": "acme", "first": 1}
        plan = "; ".join(row[3] for row in store._reader.execute("EXPLAIN QUERY PLAN " + store._sql[name], asked))
        assert "USING PRIMARY KEY (tenant_id=? AND minute>?)" in plan
    assert COLUMN_OF.keys() >= {"executions", "tokens_used", "cost_usd"}
    await store.stop()
