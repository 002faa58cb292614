"""One life of a process that is to be hit: starts a batch of lifetimes, or takes up what an earlier life left.

    python -m tests.acceptance.crash_victim FOLDER SHAPE RUNS       one life by hand, to which nothing happens

A life is forked from a process that has imported everything and has no thread and no loop, so a life costs
milliseconds and is a process like any other: its own id, its own lock on the home, its own death. What it may tell
(acknowledgements, the passing that was hit, how often each point was passed) it writes to files beside the home.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.acceptance.crash_points import Order, install, points
from tests.acceptance.crash_shapes import ANSWER, KNOWN, PAUSE, SHAPES, SIGNAL, ledger, pace
from tickwork.errors import Conflict, NotFound, StorageError
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

T = TypeVar("T")

LEASE = 0.6
"""Seconds of a lease in a life that is killed or hit by an exception."""

SHORT_LEASE, LONG_CALLS, STOPPED = 0.09, 0.12, 0.27
"""Seconds of a lease, of a call and of the stop in a life that is stopped: calls are long enough to be watched by the
sweeper when the stop comes, and the stop is longer than the lease."""

PATIENCE = 12.0
"""Seconds after which a life that has not ended is one whose lifetimes are stranded."""

ENDED, BROKE, STRANDED = 0, 3, 4
"""Exit codes of a life: all lifetimes ended; an exception ended the process; nothing more happened."""


class Life(msgspec.Struct):
    """What a life is to do. `shapes` repeat until there are `runs` lifetimes."""

    folder: Path
    shapes: list[str]
    runs: int
    order: Order | None = None
    random_kill: float | None = None
    """Seconds after its start at which the parent kills it, whatever it does."""


class Death(msgspec.Struct):
    """How a life ended. `code`: the exit code, or minus the signal."""

    code: int
    stops: int = 0
    seconds: float = 0.0


def run_life(life: Life) -> Death:
    """Forks a life and waits for its end; one that stops is woken after a while."""
    begun = time.monotonic()
    child = os.fork()
    if not child:
        _be(life)
    stops = 0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        lived = time.monotonic() - begun
        if not ended:
            if lived > PATIENCE + 10 or (life.random_kill is not None and lived > life.random_kill):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        elif os.WIFSTOPPED(status):
            stops += 1
            time.sleep(STOPPED)
            os.kill(child, signal.SIGCONT)
        else:
            return Death(os.waitstatus_to_exitcode(status), stops, lived)


def _be(life: Life) -> None:
    """The life itself: never returns."""
    code = BROKE
    try:
        output = os.open(life.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        ledger.open(life.folder / "ledger")
        if life.order is not None:
            points.order = life.order
            fired = _appending(life.folder / "fired")
            points.fired = lambda: os.write(fired, b"x")
        install()
        asyncio.run(_live(life))
        code = ENDED
    except TimeoutError:
        traceback.print_exc()
        code = STRANDED
    except BaseException:  # noqa: BLE001 - whatever it is, the parent reads it in the output
        traceback.print_exc()
    finally:
        if code == ENDED:
            (life.folder / "passed").write_text(json.dumps(points.passed))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _appending(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def _live(life: Life) -> None:
    acks = _appending(life.folder / "acks")

    def acknowledged(*what: str) -> None:
        os.write(acks, msgspec.json.encode(what) + b"\n")

    stops = life.order is not None and life.order.fault == "stop"
    pace.seconds = LONG_CALLS if stops else PAUSE
    lease = SHORT_LEASE if stops else LEASE
    async with Runtime(Profile.local(life.folder / "home"), lease=lease) as runtime:
        for make in dict.fromkeys(make for name in life.shapes for make in SHAPES[name].graphs):
            await runtime.bind(make().bind())

        async def one(k: int) -> None:
            shape = SHAPES[life.shapes[k % len(life.shapes)]]
            name = shape.graphs[-1]().name
            lifetime = await _persistently(lambda: runtime.service.start(name, 0, idempotency_key=f"run-{k}"))
            acknowledged("start", f"run-{k}", lifetime.lifetime_id)
            await runtime.guard(runtime.service.wait(lifetime.lifetime_id))

        async with asyncio.timeout(PATIENCE):
            person = asyncio.create_task(_person(runtime, acknowledged))
            work = asyncio.gather(*[one(k) for k in range(life.runs)])
            try:
                await asyncio.wait({person, work}, return_when=asyncio.FIRST_COMPLETED)
                if person.done():
                    person.result()
                await work
            finally:
                person.cancel()
                work.cancel()
                await asyncio.gather(person, work, return_exceptions=True)


async def _persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks again when the store refused, as a client does."""
    while True:
        try:
            return await ask()
        except StorageError:
            await asyncio.sleep(0.02)


async def _person(runtime: Runtime, acknowledged: Callable[..., None]) -> None:
    """Answers every question, sends every signal that is waited for, and says what became of lost calls."""
    while True:
        for question in await runtime.store.questions(DEFAULT_TENANT):
            try:
                if question.on == "human":
                    await runtime.service.answer(question.lifetime_id, ANSWER, exec_id=question.exec_id)
                    acknowledged("answer", question.lifetime_id, question.exec_id)
                elif question.on == "signal":
                    await runtime.service.signal(question.lifetime_id, SIGNAL, SIGNAL)
                    acknowledged("signal", question.lifetime_id)
                elif question.on == "unknown" and ledger.happened(question.exec_id):
                    result = KNOWN[question.graph_name]
                    await runtime.service.reconcile(question.lifetime_id, exec_id=question.exec_id, result=result)
                    acknowledged("answer", question.lifetime_id, question.exec_id)
                else:
                    await runtime.service.reconcile(question.lifetime_id, exec_id=question.exec_id, retry=True)
            except (Conflict, NotFound):
                pass  # it was answered a moment ago
            except StorageError:
                pass  # the next look shows whether it was recorded
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    _be(Life(Path(sys.argv[1]), [sys.argv[2]], int(sys.argv[3])))
