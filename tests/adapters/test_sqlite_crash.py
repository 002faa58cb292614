"""What the SQLite store acknowledged survives a kill -9, a full disk and a disk that refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.small_disk import small_disk
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import SystemClock
from tickwork.errors import StorageFull
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Execution
from tickwork.testing.conformance.specimens import append, execution, lifetime, started

CHILD = Path(__file__).with_name("appending_child.py")


async def logged(store: SqliteStore, life: Lifetime) -> list[int]:
    """The iterations in a lifetime's log, after a look at its seqs."""
    log = await store.read_log(life.tenant_id, life.lifetime_id, limit=1_000_000)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    return [entry.entry.iteration for entry in log if isinstance(entry.entry, Execution)]


@pytest.mark.parametrize("submitters", [1, 40], ids=["inline commits", "commits in the thread"])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, submitters: int) -> None:
    path = tmp_path / "t.db"
    acknowledged: dict[int, list[tuple[int, int]]] = {n: [] for n in range(submitters)}
    for enough in (30 * submitters, 20 * submitters):
        command = [sys.executable, str(CHILD), str(path), str(submitters)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for n, line in enumerate(child.stdout):
                if n == enough:
                    child.kill()  # what it printed until it died is in the pipe and still counts
                if line.endswith("\n"):
                    number, seq, iteration = map(int, line.split())
                    acknowledged[number].append((seq, iteration))
        assert child.wait() == -9
    store = SqliteStore(path, SystemClock())
    await store.start()
    for number, told in acknowledged.items():
        log = await logged(store, lifetime(number))
        assert all(log[seq - 2] == iteration for seq, iteration in told)
        assert len(log) - len(told) <= 2, "each kill may have left one entry that was never acknowledged"
    await store.stop()


async def fill(store: SqliteStore, life: Lifetime, first: int) -> list[int]:
    """Appends until the disk is full: the iterations that were acknowledged."""
    acknowledged = []
    for n in range(first, first + 10_000):
        rows = [execution(life, n * 100 + i, text="x" * 500) for i in range(1 if n % 2 else 20)]
        try:
            answer = (await store.append([append(life, *rows)]))[0]
        except StorageFull:
            return acknowledged
        assert answer.error is None
        acknowledged += [row.iteration for row in rows]
    raise AssertionError("the disk is larger than the test thinks")


async def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    with small_disk(tmp_path, 2048) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1024 * 1024))
        store = SqliteStore(disk / "t.db", SystemClock())
        await store.start()
        life = lifetime(1)
        await store.create_lifetime(life, started(life))
        acknowledged = await fill(store, life, 0)
        assert acknowledged
        assert await logged(store, life) == acknowledged
        with pytest.raises(StorageFull, match=r"[\d,]+ bytes are free"):
            await store.append([append(life, *(execution(life, 900_000 + i, text="x" * 5000) for i in range(20)))])
        ballast.unlink()
        answer = (await store.append([append(life, execution(life, 1_000_000))]))[0]
        assert answer.error is None
        await store.stop()
        store = SqliteStore(disk / "t.db", SystemClock())
        await store.start()
        assert await logged(store, life) == [*acknowledged, 1_000_000]
        await store.stop()


async def test_a_full_database_loses_nothing_and_goes_on_when_it_may_grow(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "t.db", SystemClock())
    await store.start()
    life, other = lifetime(1), lifetime(2)
    await store.create_lifetime(life, started(life))
    assert store._writer is not None
    store._writer.execute("PRAGMA max_page_count = 100")
    acknowledged = await fill(store, life, 0)
    assert acknowledged
    assert await logged(store, life) == acknowledged
    store._writer.execute("PRAGMA max_page_count = 1000000")
    more = execution(life, 1_000_000)
    assert (await store.append([append(life, more)]))[0].seqs == (len(acknowledged) + 2,)
    assert (await store.create_lifetime(other, started(other)))[1]
    assert await logged(store, life) == [*acknowledged, more.iteration]
    await store.stop()
