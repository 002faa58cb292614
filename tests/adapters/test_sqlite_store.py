"""The SQLite store keeps the promises of the port: as a file, and in memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.adapters.sqlite_stores import InFile, InMemory
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.adapters.state.sqlite.schema import migrations
from tickwork.errors import StorageError, StoreCorrupt, StoreTooNew
from tickwork.model.lifetime import Question
from tickwork.model.messages import Append
from tickwork.model.records import Event
from tickwork.ports import LifetimeQuery
from tickwork.testing.conformance import DeadLettersConformance, SettableClock, StateStoreConformance
from tickwork.testing.conformance.specimens import append, execution, letter, lifetime, question, started


class TestSqliteFile(InFile, StateStoreConformance):
    pass


class TestSqliteMemory(InMemory, StateStoreConformance):
    pass


class TestLettersInFile(InFile, DeadLettersConformance):
    pass


class TestLettersInMemory(InMemory, DeadLettersConformance):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


async def opened(path: Path, *, readonly: bool = False) -> SqliteStore:
    store = SqliteStore(path, SettableClock(), readonly=readonly)
    await store.start()
    return store


async def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    await (await opened(path)).stop()
    newer = len(migrations()) + 3
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreTooNew, match=rf"schema version {newer}.*up to {len(migrations())}.*Upgrade"):
            await opened(path, readonly=readonly)
    assert path.read_bytes() == before


async def test_an_edited_migration_is_noticed(path: Path) -> None:
    await (await opened(path)).stop()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE migrations SET checksum = 'something else'")
    connection.close()
    with pytest.raises(StorageError, match="0001_initial"):
        await opened(path)


async def test_a_database_of_the_version_before_keeps_what_it_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("tickwork.adapters.state.sqlite.schema.migrations", lambda: migrations()[:1])
        older.setattr("tickwork.adapters.state.sqlite.transaction.write_uses", lambda *_: None)  # it knew of no usage
        store = await opened(path)
        life = lifetime(1)
        await store.create_lifetime(life, started(life))
        await store.append([append(life, execution(life, 1), questions_opened=(question(life, "q"),))])
        before = await store.read_log("acme", life.lifetime_id), await store.list_lifetimes("acme", LifetimeQuery())
        assert (await store.ping())["schema"] == "1"
    reader = await opened(path, readonly=True)  # beside the older process, which is not to be disturbed
    assert await reader.read_log("acme", life.lifetime_id) == before[0]
    assert await reader.dead_letters("acme") == []
    assert (await reader.ping())["schema"] == "1"
    await reader.stop()
    await store.stop()
    store = await opened(path)
    assert (await store.ping())["schema"] == str(len(migrations()))
    after = await store.read_log("acme", life.lifetime_id), await store.list_lifetimes("acme", LifetimeQuery())
    assert after == before
    assert await store.questions("acme") == [question(life, "q")]
    assert (await store.append([append(life, execution(life, 1), execution(life, 2))]))[0].seqs == (None, 3)
    await store.bury([letter(1)])
    await store.stop()
    store = await opened(path)
    assert await store.dead_letters("acme") == [letter(1)]
    await store.stop()


async def test_an_empty_file_is_no_database_to_read(path: Path) -> None:
    path.touch()
    with pytest.raises(StorageError, match=r"schema version 0.*tickwork run"):
        await opened(path, readonly=True)


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(StorageError, match=r"another program.*bookmarks"):
        await opened(path)


async def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.write_bytes(b"this is a text file " * 100)
    with pytest.raises(StoreCorrupt, match=r"t\.db"):
        await opened(path)


async def test_a_damaged_body_names_its_lifetime_and_seq(path: Path) -> None:
    store = await opened(path)
    one, two = lifetime(1), lifetime(2)
    for life in (one, two):
        await store.create_lifetime(life, started(life))
        await store.append([append(life, execution(life, 1), execution(life, 2))])
    await store.stop()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET body = x'c1' WHERE lid = 1 AND seq = 2")
        connection.execute("DELETE FROM log WHERE lid = 2 AND seq = 2")
    connection.close()
    store = await opened(path)
    with pytest.raises(StoreCorrupt, match=f"Entry 2 of lifetime {one.lifetime_id} cannot be read"):
        await store.read_log("acme", one.lifetime_id)
    with pytest.raises(StoreCorrupt, match=f"Entry 2 of lifetime {two.lifetime_id} is missing"):
        await store.read_log("acme", two.lifetime_id)
    assert len(await store.read_log("acme", one.lifetime_id, 2)) == 1
    await store.stop()


async def test_a_reader_in_another_process_sees_what_is_acknowledged_and_writes_nothing(path: Path) -> None:
    with pytest.raises(StorageError, match="no database"):
        await opened(path, readonly=True)
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    reader = await opened(path, readonly=True)
    assert [x.last_seq for x in await reader.list_lifetimes("acme", LifetimeQuery())] == [1]
    await store.append([append(life, execution(life, 1))])
    assert len(await reader.read_log("acme", life.lifetime_id)) == 2
    with pytest.raises(StorageError, match="reading only"):
        await reader.append([append(life, execution(life, 2))])
    assert (await reader.ping())["technology"] == "SQLite"
    await reader.stop()
    await store.stop()
    reader = await opened(path, readonly=True)
    assert len(await reader.read_log("acme", life.lifetime_id)) == 2, "also when nobody writes any more"
    await reader.stop()


async def test_another_writer_is_told_apart_from_a_broken_disk(path: Path) -> None:
    store = await opened(path)
    assert store._writer is not None
    store._writer.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    life = lifetime(1)
    with pytest.raises(StorageError, match="locked by another process"):
        await store.create_lifetime(life, started(life))
    other.execute("ROLLBACK")
    other.close()
    assert (await store.create_lifetime(life, started(life)))[1], "it goes on when the other one has gone"
    await store.stop()


async def test_a_refused_row_is_found_among_its_neighbours(path: Path) -> None:
    """An integrity error that nobody foresaw, here a trigger's, fails the one Append that caused it."""
    store = await opened(path)
    lives = [lifetime(n) for n in range(20)]
    for life in lives:
        await store.create_lifetime(life, started(life))
    assert store._writer is not None
    store._writer.execute(
        "CREATE TRIGGER unforeseen BEFORE INSERT ON log WHEN new.entry_id = 'cursed' "
        "BEGIN SELECT RAISE(ABORT, 'a curse'); END"
    )
    batch = [
        append(life, execution(life, 1), Event("cursed" if n == 7 else "fine", "paused"))
        for n, life in enumerate(lives)
    ]
    answers = await store.append(batch)
    assert [n for n, answer in enumerate(answers) if answer.error] == [7]
    assert "a curse" in (answers[7].error or "")
    assert [len(await store.read_log("acme", life.lifetime_id)) for life in lives] == [
        1 if n == 7 else 3 for n in range(20)
    ]
    await store.stop()


async def test_a_projection_that_cannot_be_kept_fails_its_own_append(path: Path) -> None:
    store = await opened(path)
    one, two = lifetime(1), lifetime(2)
    for life in (one, two):
        await store.create_lifetime(life, started(life))
    unkeepable: Question = question(one, "q")
    unkeepable.answer_schema = {"x": object()}
    answers = await store.append(
        [
            append(one, execution(one, 1), questions_opened=(unkeepable,)),
            append(two, execution(two, 1), status="PAUSED"),
        ]
    )
    assert [answer.error is None for answer in answers] == [False, True]
    assert len(await store.read_log("acme", one.lifetime_id)) == 1
    await store.stop()


async def test_seqs_go_on_for_lifetimes_that_are_no_longer_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwork.adapters.state.sqlite.transaction.HEADS", 4)
    store = await opened(path)
    lives = [lifetime(n) for n in range(12)]
    for life in lives:
        await store.create_lifetime(life, started(life))
    for n in range(3):
        answers = await store.append([append(life, execution(life, n)) for life in lives])
        assert {answer.seqs for answer in answers} == {(n + 2,)}
    await store.stop()


async def test_a_row_takes_no_more_than_it_should(path: Path) -> None:
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    await store.append([append(life, *(execution(life, n, text="y" * 100) for n in range(5000)))])
    await store.stop()
    assert path.stat().st_size / 5000 < 480


async def test_the_lists_use_their_indexes(path: Path) -> None:
    store = await opened(path)
    assert store._reader is not None
    named = dict.fromkeys(
        (
            *("tenant_id", "before", "graph", "version", "label", "label_value", "limit", "statuses", "low", "high"),
            *("after", "status", "untouched_since"),
        ),
        "",
    )
    plans = {
        name: "; ".join(row[3] for row in store._reader.execute("EXPLAIN QUERY PLAN " + sql, parameters))
        for name, sql, parameters in (
            ("list", store._sql["list_lifetimes"], named),
            ("prefix", store._sql["find_lifetimes"], named),
            ("open", store._sql["open_lifetimes"], named),
            ("due", store._sql["due_timers"], (1,)),
        )
    }
    assert "USING INDEX lifetimes_by_tenant" in plans["list"]
    assert "TEMP B-TREE" not in plans["list"] + plans["prefix"] + plans["open"]
    assert "sqlite_autoindex_lifetimes_1" in plans["prefix"]
    assert "USING INDEX lifetimes_open" in plans["open"]
    assert "USING" in plans["due"]
    assert "timers_by_due" in plans["due"]
    await store.stop()


async def test_an_empty_append_is_an_answer(path: Path) -> None:
    store = await opened(path)
    assert await store.append([]) == []
    unknown = Append("acme", "nobody", ())
    assert (await store.append([unknown]))[0].error is not None
    await store.stop()


async def test_an_entry_beyond_the_limit_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.adapters.state.sqlite.rows.ENTRY_LIMIT", 2000)
    store = await opened(path)
    life = lifetime(1)
    await store.create_lifetime(life, started(life))
    answers = await store.append([append(life, execution(life, 1, text="x" * 3000)), append(life, execution(life, 2))])
    assert "2,000 is the limit" in (answers[0].error or "")
    assert answers[1].seqs == (2,)
    await store.stop()
