"""A call that may not be made twice is not, whatever happens to its process; and what is only slow is left alone.

Real processes of the command line are killed in user code and around it; a ledger that the tasks sync themselves says
how often they were called.
"""

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

from tests.cli.process import COMMAND, Ran, environment
from tickwork import Context, Graph, task
from tickwork.model.records import Execution
from tickwork.orchestrator.state import MAX_LOSSES
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL

PAYING = """
import os, pathlib, signal
from tickwork import Graph, RetryableError, TerminalError, task

HERE = pathlib.Path(__file__).parent

def note(what, ctx):
    with (HERE / "ledger").open("a") as ledger:
        ledger.write(f"{what} {ctx.attempt} {ctx.idempotency_key}\\n")
        ledger.flush()
        os.fsync(ledger.fileno())

@task(effect="EFFECT")
def pay(order, ctx):
    note("pay", ctx)
    if (HERE / "deadly").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"paid": order}

HOOK

graph = Graph("paying", "1.0.0").start(pay).final(pay)
"""

HOOK = """
@pay.reconcile
def look(order, ctx):
    note("look", ctx)
    {}
"""

DIES = """
import os, signal
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.cli.main import main

publish = MemoryBus.publish

async def dying(self, topic, messages):
    if topic.startswith("TOPIC") and any(b"intent:" in message.value for message in messages):
        os.kill(os.getpid(), signal.SIGKILL)
    await publish(self, topic, messages)

MemoryBus.publish = dying
main()
"""
"""The command line in a process that is killed when an intent, or the receipt of one, is sent on a topic."""


class Shop:
    """A graph that pays, in a folder of its own, and the commands that are run on it."""

    def __init__(self, folder: Path, hook: str = "", effect: str = "at_most_once") -> None:
        self.folder, self.home = folder, folder / "home"
        self.file = folder / "paying.py"
        self.file.write_text(PAYING.replace("EFFECT", effect).replace("HOOK", HOOK.format(hook) if hook else ""))
        self.deadly = folder / "deadly"

    def __call__(self, *arguments: str, code: int = 0, command: tuple[str, ...] = tuple(COMMAND)) -> Ran:
        done = subprocess.run(
            [*command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment(self.home),
            timeout=50,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    def run_and_die(self, *, command: tuple[str, ...] = tuple(COMMAND)) -> str:
        """Starts a lifetime whose process is killed; its id."""
        self("run", str(self.file), "--input", "7", code=KILLED, command=command)
        (one,) = self("lifetimes", "list", "--json").json
        assert one["status"] == "RUNNING"
        lifetime: str = one["lifetime_id"]
        return lifetime

    @property
    def calls(self) -> list[list[str]]:
        """Calls of user code: what, in which attempt, under which idempotency key."""
        ledger = self.folder / "ledger"
        return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []

    @property
    def called(self) -> list[str]:
        return [call[0] for call in self.calls]

    def events(self, lifetime: str) -> list[str]:
        log = self("lifetimes", "log", lifetime, "--json").json
        return [record["type"] if "type" in record else record["headers"]["status"] for record in log]


def test_a_call_that_was_lost_waits_for_a_person_and_is_not_made_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.deadly.touch()
    one = shop.run_and_die()
    shop.deadly.unlink()
    for _ in range(2):
        resumed = shop("lifetimes", "resume", one, "--json", code=12)
        assert resumed.json["status"] == "WAITING"
        assert resumed.json["reason"] == "waits for somebody to settle `pay` (UNKNOWN)"
        assert f"lifetimes reconcile {one} --exec " in resumed.err
    (question,) = shop("inbox", "--json").json
    assert (question["on"], question["node"], question["lifetime_id"]) == ("unknown", "pay", one)
    assert "pay is UNKNOWN since" in shop("inbox").err
    shown = shop("lifetimes", "show", one).out
    assert "pay is UNKNOWN since" in shown
    assert "the process that ran it has ended" in shown
    assert f"--exec {question['exec_id']} --retry" in shown
    assert shop.called == ["pay"]
    done = shop("lifetimes", "reconcile", one, "--result", '{"paid": 7}', "--by", "ada", "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", {"paid": 7})
    assert shop.called == ["pay"]
    assert shop.events(one) == ["started", "intent", "unknown", "reconciled", "waiting", "SUCCEEDED", "completed"]
    assert shop("inbox", "--json").json == []
    assert "identical" in shop("lifetimes", "replay", one).out


def test_a_person_says_that_it_is_to_be_run_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.deadly.touch()
    one = shop.run_and_die()
    shop.deadly.unlink()
    shop("lifetimes", "resume", one, code=12)
    done = shop("lifetimes", "reconcile", one, "--retry", "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", {"paid": 7})
    assert [call[:2] for call in shop.calls] == [["pay", "1"], ["pay", "2"]]


def test_a_hook_that_knows_the_result_completes_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 'return {"paid": "by the hook"}')
    shop.deadly.touch()
    one = shop.run_and_die()
    done = shop("lifetimes", "resume", one, "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", {"paid": "by the hook"})
    assert shop.called == ["pay", "look"]
    assert len({key for *_, key in shop.calls}) == 1


def test_a_hook_that_says_it_did_not_happen_has_it_run_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 'raise RetryableError("the bank knows nothing of it")')
    shop.deadly.touch()
    one = shop.run_and_die()
    shop.deadly.unlink()
    done = shop("lifetimes", "resume", one, "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", {"paid": 7})
    assert [call[:2] for call in shop.calls] == [["pay", "1"], ["look", "1"], ["pay", "2"]]
    assert len({key for *_, key in shop.calls}) == 1
    assert "it is run again (RetryableError: the bank knows nothing of it" in shop("lifetimes", "log", one).out


def test_a_hook_that_breaks_leaves_it_to_a_person(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 'raise LookupError("two transfers")')
    shop.deadly.touch()
    one = shop.run_and_die()
    assert "pay is UNKNOWN; say what became of it" in shop("lifetimes", "resume", one, code=12).err
    assert shop.called == ["pay", "look"]
    failed = shop("lifetimes", "reconcile", one, "--failed", "the bank refused", "--json", code=10)
    assert (failed.json["status"], shop.called) == ("FAILED", ["pay", "look"])
    assert "the bank refused" in failed.json["reason"]


@pytest.mark.parametrize(
    ("topic", "called"), [("data-plane.", ["pay"]), ("receipts.", [])], ids=["before the intent", "after the intent"]
)
def test_a_process_that_dies_before_user_code_is_called(tmp_path: Path, topic: str, called: list[str]) -> None:
    shop = Shop(tmp_path)
    one = shop.run_and_die(command=(sys.executable, "-c", DIES.replace("TOPIC", topic)))
    assert shop.called == []
    if called:
        assert shop("lifetimes", "resume", one, "--json").json["result"] == {"paid": 7}
    else:
        # The log says that it was about to be called: whether it was, nobody can tell.
        shop("lifetimes", "resume", one, code=12)
    assert shop.called == called


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["idempotent", "at_most_once"])
def test_what_kills_its_process_every_time_is_parked(tmp_path: Path, effect: str) -> None:
    shop = Shop(tmp_path, 'raise RetryableError("it did not happen")' if effect == "at_most_once" else "", effect)
    shop.deadly.touch()
    one = shop.run_and_die()
    for _ in range(MAX_LOSSES - 1):
        shop("lifetimes", "resume", one, code=KILLED)
    parked = shop("lifetimes", "resume", one, "--json", code=12)
    assert parked.json["reason"] == "waits for somebody to settle `pay` (poison)"
    calls = len(shop.calls)
    assert shop.called.count("pay") == MAX_LOSSES
    (letter,) = shop("dead-letters", "list", "--json").json
    assert (letter["kind"], letter["node"], letter["lifetime_id"]) == ("execution", "pay", one)
    assert "lost with its worker" in letter["reason"]
    shop("dead-letters", "resend", letter["id"])
    assert len(shop.calls) == calls, "only whoever knows the code runs it"
    shop.deadly.unlink()
    done = shop("lifetimes", "resume", one, "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", {"paid": 7})
    assert len(shop.calls) == calls + 1
    assert shop("dead-letters", "list", "--json").json == []


# -- slow is not dead -------------------------------------------------------------------------------------------------

LEASE = 0.2
LONG = 10 * LEASE


def blocks(calls: list[str], effect: Any, *, the_loop: bool) -> Graph:
    """A Task that blocks for ten leases: a thread, or the event loop itself."""
    name = f"blocks-{effect}"

    @task(name="block", effect=effect)
    def in_a_thread(value: Any, ctx: Context) -> int:
        calls.append(ctx.idempotency_key)
        time.sleep(LONG)
        return 7

    @task(name="block", effect=effect)
    async def on_the_loop(value: Any, ctx: Context) -> int:
        calls.append(ctx.idempotency_key)
        time.sleep(LONG)
        return 7

    return Graph(name, "1.0.0").start(on_the_loop if the_loop else in_a_thread).final("block")


@pytest.mark.slow
@pytest.mark.parametrize("the_loop", [False, True], ids=["a thread", "the event loop"])
def test_what_blocks_for_ten_leases_is_attempted_once(*, the_loop: bool) -> None:
    calls: list[str] = []

    async def story() -> None:
        async with Runtime(Profile.test(), lease=LEASE) as runtime:
            service, started = runtime.service, []
            for effect in ("idempotent", "at_most_once"):
                graph = blocks(calls, effect, the_loop=the_loop)
                await runtime.bind(graph.bind())
                started.append(await service.start(graph.name))
            for lifetime in started:
                ended = await runtime.guard(service.wait(lifetime.lifetime_id))
                assert ended.status == "COMPLETED", ended.reason
                log = await service.log(lifetime.lifetime_id)
                assert [(e.entry.attempt, e.entry.status) for e in log if isinstance(e.entry, Execution)] == [
                    (1, "SUCCEEDED")
                ]
            assert runtime.metrics()["control_plane_lost_attempts"] == 0

    asyncio.run(story())
    assert len(calls) == len(set(calls)) == 2


@pytest.mark.slow
def test_a_process_that_is_frozen_past_its_lease_calls_nothing_twice(tmp_path: Path) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    command = [sys.executable, "-m", "tests.acceptance.frozen", str(tmp_path / "home"), str(LEASE)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            while not ledger.exists() or len(ledger.read_text().splitlines()) < 3:
                assert process.poll() is None
                os.sched_yield()
            for _ in range(3):
                process.send_signal(signal.SIGSTOP)
                time.sleep(3 * LEASE)
                process.send_signal(signal.SIGCONT)
                time.sleep(LEASE)
            gate.touch()
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out.split() == ["COMPLETED", "3", "5"]
    assert sorted(ledger.read_text().split()) == ["in_a_thread", "on_the_loop", "once"]
