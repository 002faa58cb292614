"""User code in a subprocess: whatever it does, the worker lives, nothing is left running, and the record is true."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.executor.rig import rig, until
from tickwork.errors import RetryableError
from tickwork.model.graph import TimeLimits
from tickwork.model.records import BYTES, Event, LogEntry, Payload, payload_value
from tickwork.sdk.context import Context
from tickwork.sdk.nodes import GraphNode, Plan, task
from tickwork.sdk.values import Next


class Page(BaseModel):
    url: str


@task(isolation="subprocess")
def sync_work(page: Page, ctx: Context) -> Any:
    ctx.telemetry.record(tokens_in=3, cost_usd="0.5", model="m")
    ctx.heartbeat({"half": True})
    print("hello from the child")
    facts = ctx.lifetime
    return [
        page.url,
        os.getpid(),
        str(Path.cwd()),
        list(map(str, Path().iterdir())),
        facts.graph_name,
        [e.seq for e in ctx.history_sync(1)],
    ]


@task(isolation="subprocess", config={"k": 1})
async def async_work(value: Any, ctx: Context) -> Any:
    return [value, ctx.config, [e.seq for e in await ctx.history(2)]]


class Choose(Plan):
    isolation = "subprocess"

    def run(self, value: Any) -> Any:
        return [Next("sync_work", input=value)]


@task(isolation="subprocess")
def misbehave(how: str) -> Any:
    match how:
        case "raise":
            raise RetryableError("busy", retry_after=3)
        case "exit":
            sys.exit(3)
        case "_exit":
            os._exit(5)
        case "abort":
            print("last words", file=sys.stderr)
            os.abort()
        case "close":
            sys.stdout.close()
            os.close(1)
            return "closed"
        case "garbage":
            sys.stdout.buffer.write(os.urandom(1 << 20))
            os.write(2, b"\x00\xff" * 1000)
            return "fine"
        case "garbage and fail":
            sys.stdout.write("x" * 200_000 + "the end")
            raise ValueError("after garbage")
        case "object":
            return object()
        case "thread":
            import threading

            threading.Thread(target=time.sleep, args=(60,)).start()
            return "left a thread"
        case "core":
            import resource

            return list(resource.getrlimit(resource.RLIMIT_CORE))


@task(isolation="subprocess", memory_mb=400)
def hungry(how: str) -> int:
    if how == "once":
        return len(bytearray(1 << 30))
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


@task(isolation="subprocess", limits=TimeLimits(grace=0.1))
def hang(path: str, ctx: Context) -> None:
    grandchild = subprocess.Popen(["sleep", "60"])
    Path(path).write_text(f"{os.getpid()} {grandchild.pid}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("about to hang", flush=True)
    ctx.heartbeat("ready")
    while True:
        pass


@task(isolation="subprocess", limits=TimeLimits(grace=30))
async def wait(path: str, ctx: Context) -> None:
    try:
        ctx.heartbeat("ready")
        await asyncio.Event().wait()
    finally:
        Path(path).write_text("cleaned up")


@task(isolation="subprocess", limits=TimeLimits(grace=30))
def poll(path: str, ctx: Context) -> str:
    ctx.heartbeat("ready")
    while not ctx.cancelled:
        time.sleep(0.001)
    Path(path).write_text("cleaned up")
    return "late"


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def called(node: GraphNode, value: Any) -> Any:
    async with rig(node) as r:
        return await r.call(node.name, value)


async def cancelled_when_ready(node: GraphNode, value: Any) -> Any:
    async with rig(node) as r:
        message = r.message(node.name, value)
        await r.send(message)
        running = r.executor._attempts
        await until(lambda: message.exec_id in running and running[message.exec_id].beat_details == "ready")
        await r.cancel(message.exec_id)
        (record,) = await r.receive()
        return record


async def test_it_runs_elsewhere_and_all_of_the_context_reaches_it() -> None:
    async with rig(sync_work, async_work, Choose()) as r:
        r.log = [LogEntry(n, 0, Event(str(n), "paused")) for n in range(1, 4)]
        record = await r.call("sync_work", {"url": "a"})
        assert record.status == "SUCCEEDED", record.error
        url, pid, folder, files, name, seen = payload_value(record.result)
        assert (url, files, name, seen) == ("a", [], "rig", [3])
        assert pid != os.getpid()
        assert not Path(folder).exists()
        assert record.telemetry is not None
        assert (record.telemetry.tokens_used, record.telemetry.cost_nano_usd) == (3, 500_000_000)
        record = await r.call("async_work", "v")
        assert payload_value(record.result) == ["v", {"k": 1}, [2, 3]]
        record = await r.call("Choose", {"url": "b"})
        assert record.next is not None
        assert (record.next[0].task, payload_value(record.next[0].input)) == ("sync_work", {"url": "b"})
        record = await r.call("sync_work", 5)
        assert record.error is not None
        assert record.error.type == "InputInvalid"


@pytest.mark.parametrize(
    ("how", "kind", "retryable", "message"),
    [
        ("raise", "RetryableError", True, "busy"),
        ("exit", "ProcessExited", True, "called exit(3) before it returned"),
        ("_exit", "ProcessExited", True, "ended with exit code 5 before it returned"),
        ("abort", "ProcessExited", True, "was killed by SIGABRT before it returned"),
        ("garbage and fail", "ValueError", True, "after garbage"),
        ("object", "EncodingError", False, "$ is of type object"),
    ],
)
async def test_what_goes_wrong_there_is_recorded_here(how: str, kind: str, retryable: bool, message: str) -> None:
    record = await called(misbehave, how)
    assert record.status == "FAILED"
    assert (record.error.type, record.error.retryable) == (kind, retryable)
    assert message in record.error.message
    details = record.error.details or {}
    if how == "raise":
        assert details["retry_after"] == 3.0
        assert details["at"].startswith(__file__)
    if how == "_exit":
        assert details == {"exit_code": 5}
    if how == "exit":
        assert details == {"exit_code": 3}
    if how == "abort":
        assert details["signal"] == "SIGABRT"
        assert "last words" in details["stderr"]
    if how == "garbage and fail":
        assert details["stdout"].startswith("(134471 bytes before this were cut)")
        assert details["stdout"].endswith("the end")


@pytest.mark.parametrize(
    ("how", "value"),
    [("garbage", "fine"), ("close", "closed"), ("thread", "left a thread"), ("core", [0, 0])],
)
async def test_what_it_prints_or_leaves_behind_harms_no_result(how: str, value: Any) -> None:
    record = await called(misbehave, how)
    assert record.status == "SUCCEEDED", record.error
    assert payload_value(record.result) == value


@task(isolation="subprocess", memory_mb=16)
def starved() -> None:
    return None


async def test_a_limit_below_what_python_needs_is_a_memory_limit_too() -> None:
    record = await called(starved, None)
    assert record.error.type == "MemoryLimit", record.error


@pytest.mark.parametrize("how", ["once", "more and more"])
async def test_memory_is_limited(how: str) -> None:
    record = await called(hungry, how)
    assert record.error.type == "MemoryLimit"
    assert "more than its memory_mb of 400 MiB" in record.error.message


async def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    record = await cancelled_when_ready(hang, str(note))
    assert record.status == "CANCELLED"
    assert "abandoned" not in record.error.details
    assert record.error.details["stdout"] == "about to hang\n"
    assert not any(is_alive(int(pid)) for pid in note.read_text().split())


@task(isolation="subprocess", limits=TimeLimits(start_to_close=0.3, grace=0.1))
def endless() -> None:
    while True:
        pass


async def test_its_time_is_limited() -> None:
    record = await called(endless, None)
    assert record.status == "TIMED_OUT"
    assert record.error.type == "StartToClose"


@pytest.mark.parametrize("node", [wait, poll])
async def test_cancellation_reaches_it(node: GraphNode, tmp_path: Path) -> None:
    note = tmp_path / "note"
    record = await cancelled_when_ready(node, str(note))
    assert record.status == "CANCELLED"
    assert note.read_text() == "cleaned up"


async def test_a_function_without_a_name_is_refused_with_advice() -> None:
    local = task(name="local", isolation="subprocess")(lambda: 1)
    record = await called(local, None)
    assert (record.error.type, record.error.retryable) == ("NotLoadable", False)
    assert "Define it at the top of a module" in record.error.message


async def test_large_values_go_through_the_pipe() -> None:
    async with rig(async_work) as r:
        uri, digest = await r.blobs.put("default", b"z" * 3_000_000)
        record = await r.call("async_work", input=Payload(None, BYTES, uri, 3_000_000, digest))
        assert record.result is not None
        assert record.result.uri is not None
        assert record.result.size > 3_000_000


@pytest.mark.slow
async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = (
        "import asyncio, sys\n"
        "from tests.executor.rig import rig, until\n"
        "from tests.executor.test_process import forever\n"
        "async def main():\n"
        "    async with rig(forever) as r:\n"
        f"        await r.send(r.message('forever', {str(note)!r}))\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    child = int(note.read_text())
    while is_alive(child):
        time.sleep(0.01)


@task(isolation="subprocess")
def forever(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass
