"""Bad input and bad surroundings: each ends in one clear error, and nothing that was recorded is lost.

Disks, database files, locks and doors are of a home. What servers may do instead is in tests/adapters and tests/chaos.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import misbehaving
from tests.acceptance.world import ONCE, World, everywhere, in_real_time
from tickwork import END, Graph, TimeLimits, plan, task
from tickwork.errors import AlreadyEnded, HomeInUse, StorageFull, StoreTooNew, UsageError
from tickwork.home import call
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]


# -- a full disk ------------------------------------------------------------------------------------------------------


@contextmanager
def tmpfs(folder: Path, kibibytes: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder], check=False)
    if made.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def enlarge(folder: Path, kibibytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", folder], check=True)


def long_graph() -> Graph:
    @plan
    async def decide(value: dict[str, Any]) -> str:
        return "work" if value["i"] < value["n"] else END

    @task
    async def work(value: dict[str, Any]) -> dict[str, Any]:
        return {"i": value["i"] + 1, "n": value["n"], "text": "x" * 2_000}

    return Graph("long", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)


async def test_a_full_disk_stops_with_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", 2048) as disk:
        home = disk / "home"
        acknowledged: list[str] = []
        with pytest.raises(StorageFull, match=r"No space left for the database .*nothing that was\s+acknowledged"):
            async with Runtime(Profile.local(home)) as runtime:
                await runtime.bind(long_graph().bind())
                for _ in range(100):
                    lifetime = await runtime.service.start("long", {"i": 0, "n": 40})
                    acknowledged.append(lifetime.lifetime_id)
                    await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        assert acknowledged, "the disk was too small to begin with"
        enlarge(disk, 32_768)
        async with Runtime(Profile.local(home), readonly=True) as reader:
            before = {each: await reader.service.log(each) for each in acknowledged}
        assert all(log and log[0].seq == 1 for log in before.values()), "an acknowledged lifetime is gone"
        async with Runtime(Profile.local(home)) as runtime:
            await runtime.bind(long_graph().bind())
            for lifetime_id in acknowledged:
                ended = await runtime.guard(runtime.service.wait(lifetime_id))
                assert ended.status == "COMPLETED"
                after = await runtime.service.log(lifetime_id)
                assert after[: len(before[lifetime_id])] == before[lifetime_id]
                assert [entry.seq for entry in after] == list(range(1, 84))


async def test_a_disk_that_is_full_for_blobs_fails_the_start_alone(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", 2048) as disk:
        async with Runtime(Profile.local(disk / "home")) as runtime:
            await runtime.bind(long_graph().bind())
            with pytest.raises(StorageFull):
                await runtime.service.start("long", {"i": 0, "n": 1, "large": "x" * 3_000_000})
            lifetime = await runtime.service.start("long", {"i": 0, "n": 1})
            assert (await runtime.guard(runtime.service.wait(lifetime.lifetime_id))).status == "COMPLETED"


# -- the wrong database, two processes --------------------------------------------------------------------------------


async def test_a_database_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    async with Runtime(Profile.local(tmp_path)):
        pass
    file = tmp_path / "tickwork.db"
    with sqlite3.connect(file) as connection:
        (known,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    content = file.read_bytes()
    with pytest.raises(StoreTooNew, match=r"schema version 999.*a newer Tickwork wrote it. Upgrade Tickwork"):
        async with Runtime(Profile.local(tmp_path)):
            pass
    with pytest.raises(StoreTooNew):
        async with Runtime(Profile.local(tmp_path), readonly=True):
            pass
    assert file.read_bytes() == content
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {known}")
    connection.close()
    async with Runtime(Profile.local(tmp_path)):
        pass  # the lock of the refused process is not left behind


async def test_a_second_process_on_a_home_is_told_who_holds_it_and_speaks_through_its_door(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.acceptance.holder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            lifetime_id = holder.stdout.readline().strip()
            with pytest.raises(HomeInUse, match=rf"process {holder.pid} \(`.*holder.py") as refused:
                async with Runtime(Profile.local(tmp_path)):
                    pass
            assert "pause" in str(refused.value)
            assert call(tmp_path, "pause", lifetime_id, reason="lunch", by="ann")["status"] == "PAUSED"
            async with Runtime(Profile.local(tmp_path), readonly=True) as reader:
                assert (await reader.service.get(lifetime_id)).status == "PAUSED"
                paused = len(await reader.service.log(lifetime_id))
                call(tmp_path, "resume", lifetime_id, by="ann")
                async for entry in reader.service.watch(lifetime_id, after=paused):
                    if entry.seq == paused + 3:
                        break
                call(tmp_path, "abort", lifetime_id, reason="enough", by="ann")
                ended = await reader.service.wait(lifetime_id)
                assert (ended.status, ended.reason) == ("ABORTED", "enough (by ann)")
            with pytest.raises(AlreadyEnded):
                call(tmp_path, "pause", lifetime_id)
        finally:
            holder.kill()
    async with Runtime(Profile.local(tmp_path)):
        pass  # the system gave the lock back


def test_a_home_that_nobody_holds_has_no_door(tmp_path: Path) -> None:
    with pytest.raises(HomeInUse, match="did not answer"):
        call(tmp_path, "pause", "01")


async def test_garbage_through_the_door_is_answered_and_harms_nothing(tmp_path: Path) -> None:
    async with Runtime(Profile.local(tmp_path)) as runtime:
        for line in (
            b"\n",
            b"{}\n",
            b"\xff\xfe\n",
            b'{"verb": "stop", "arguments": {"positional": [], "named": {}}}\n',
        ):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "door.sock")
            writer.write(line)
            assert b"error" in await reader.readline()
            writer.close()
        assert await runtime.service.list() == []


# -- input and output that JSON cannot say ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", [object(), {1, 2}.__iter__(), float("nan"), {"a": "\ud800"}])
@everywhere
async def test_an_input_that_is_no_json_is_refused_and_starts_nothing(world: World, given: Any) -> None:
    with pytest.raises(UsageError, match="the input cannot be recorded"):
        await world.start(long_graph(), given)
    assert await world.service.list() == []


@everywhere
async def test_an_input_nested_without_end_is_refused(world: World) -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match="the input cannot be recorded"):
        await world.start(long_graph(), deep)


# -- nodes that misbehave ---------------------------------------------------------------------------------------------

CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    # name: (function, settings, type of the error, words in its message)
    "unencodable": (misbehaving.unencodable, {}, "EncodingError", "cannot"),
    "not finite": (misbehaving.not_finite, {}, "EncodingError", "nan"),
    "raises": (misbehaving.raises, {}, "ZeroDivisionError", "division by zero"),
    "raises without words": (misbehaving.raises_without_words, {}, "KeyError", ""),
    "raises an error that cannot be read": (misbehaving.raises_unreadable, {}, "Unreadable", "cannot be read"),
    "raises CancelledError": (misbehaving.raises_cancelled, {}, "CancelledError", ""),
    "hangs": (misbehaving.hangs, {"limits": TimeLimits(start_to_close=0.2, grace=0.1)}, "StartToClose", "0.2 s"),
    "hangs in a thread": (
        misbehaving.hangs_in_a_thread,
        {"limits": TimeLimits(start_to_close=0.2, grace=0.1)},
        "StartToClose",
        "0.2 s",
    ),
    "hangs in a subprocess": (
        misbehaving.hangs_in_a_thread,
        {"isolation": "subprocess", "limits": TimeLimits(start_to_close=1.0, grace=0.1)},
        "StartToClose",
        "1 s",
    ),
    "exits": (misbehaving.exits, {}, "ExitAttempt", "exit(3)"),
    "exits in a thread": (misbehaving.exits_in_a_thread, {}, "ExitAttempt", "exit(3)"),
    "dies": (misbehaving.dies, {"isolation": "subprocess"}, "ProcessExited", "exit code 3"),
    "is killed": (misbehaving.is_killed, {"isolation": "subprocess"}, "ProcessExited", "SIGKILL"),
    "takes all memory": (
        misbehaving.takes_memory,
        {"isolation": "subprocess", "memory_mb": 512},
        "MemoryLimit",
        "512 MiB",
    ),
}


@pytest.mark.parametrize("name", CASES)
@in_real_time
async def test_a_node_that_misbehaves_ends_in_one_clear_recorded_error(world: World, name: str) -> None:
    function, settings, kind, words = CASES[name]
    bad = task(name="bad", retry=ONCE, **settings)(function)
    good = task(name="good")(misbehaving.good)
    lifetime = await world.start(Graph("bad_graph", "1.0.0").start(bad).final(bad), 1)
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    (done,) = await world.executions(lifetime)
    error = done.error
    assert error is not None
    assert done.status == ("TIMED_OUT" if kind == "StartToClose" else "FAILED")
    assert error.type == kind, error
    assert words in error.message
    assert ended.reason is not None
    assert ended.reason.startswith(f"bad: {kind}")
    # The process goes on.
    after = await world.start(Graph("good_graph", "1.0.0").start(good).final(good), 1)
    assert (await world.end(after)).status == "COMPLETED"


@in_real_time
async def test_a_subprocess_that_prints_garbage_still_returns_its_value(world: World) -> None:
    loud = task(name="loud", retry=ONCE, isolation="subprocess")(misbehaving.prints_garbage)
    assert await world.result(await world.start(Graph("loud_graph", "1.0.0").start(loud).final(loud), 1)) == "value"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("nobody", "nobody"),
        (["left", "right"], "left"),
        (7, "int"),
    ],
)
@everywhere
async def test_a_plan_that_chooses_what_it_may_not_fails_its_lifetime_with_the_reason(
    world: World, choice: Any, words: str
) -> None:
    @plan(retry=ONCE)
    async def decide() -> Any:
        return choice

    @task
    async def left() -> None: ...

    @task
    async def right() -> None: ...

    lifetime = await world.start(Graph("choose", "1.0.0").start(decide).then(decide, left, right).final(left, right))
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    assert ended.reason is not None
    assert ended.reason.startswith("decide: ")
    assert words in ended.reason
