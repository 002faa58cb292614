"""The inside of a subprocess: `python -m tickwork.executor.child IN OUT` makes one attempt and ends.

It takes its limits upon itself before any user code is loaded: an address space of the size that the node allows, no
core dump, and its end together with its parent's. What user code prints goes to stdout and stderr, which the parent
reads; the result goes over the pipe OUT. User code that does not stop is killed from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tickwork.executor import pipe
from tickwork.executor.outcome import Outcome, failed, succeeded
from tickwork.model.graph import graph_from_json
from tickwork.model.problems import Location
from tickwork.model.records import Error, LogEntry, Telemetry
from tickwork.sdk.context import Channel, Context
from tickwork.sdk.encoding import json_value
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.loading import implementation_of
from tickwork.sdk.prices import Prices
from tickwork.sdk.references import ReferenceFault

PR_SET_PDEATHSIG = 1
SMALL_STACK = 256 * 1024
RESERVE = 4 * 1024 * 1024
"""Bytes that are kept back, so that running out of memory can still be reported."""


class PipeChannel(Channel):
    """What user code tells and asks goes over the pipe."""

    def __init__(self, inlet: int, outlet: int, prices: Prices) -> None:
        self._inlet, self._outlet, self._prices = inlet, outlet, prices
        self._lock = threading.Lock()
        self._asked: deque[Future[list[LogEntry]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self.cancelled = False

    def send(self, message: pipe.FromChild) -> None:
        """Writes one frame."""
        data = memoryview(pipe.frame(message))
        with self._lock:
            while data:
                data = data[os.write(self._outlet, data) :]

    def heartbeat(self, details: Any) -> None:
        """User code is alive."""
        self.send(pipe.Beat(None if details is None else json_value(details, "the heartbeat's details")))

    def recorded(self, telemetry: Telemetry) -> None:
        """The totals so far."""
        self.send(pipe.Used(telemetry))

    def price_book(self) -> Prices:
        """The parent's prices."""
        return self._prices

    def _ask(self, limit: int) -> Future[list[LogEntry]]:
        answer: Future[list[LogEntry]] = Future()
        self._asked.append(answer)
        self.send(pipe.AskHistory(limit))
        return answer

    async def history(self, limit: int) -> list[LogEntry]:
        """The newest entries of the log, from the parent."""
        return await asyncio.wrap_future(self._ask(limit))

    def history_sync(self, limit: int) -> list[LogEntry]:
        """The same, for sync code."""
        return self._ask(limit).result()

    def drives(self, task: asyncio.Task[Any]) -> None:
        """The task that a cancellation goes to."""
        self._loop, self._task = asyncio.get_running_loop(), task
        if self.cancelled:
            task.cancel()

    def stop(self) -> None:
        """User code is to stop: async code is cancelled, sync code sees the flag."""
        if self.cancelled:
            return
        self.cancelled = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    def listen(self) -> None:
        """Reads what the parent says until it is gone; without it nobody wants the result."""
        try:
            while True:
                message = pipe.decode_to_child(pipe.read_frame(self._inlet))
                if isinstance(message, pipe.Stop):
                    self.stop()
                elif isinstance(message, pipe.History):
                    answer = self._asked.popleft()
                    if message.fault:
                        answer.set_exception(RuntimeError(message.fault))
                    else:
                        answer.set_result(message.entries)
        except (EOFError, OSError):
            os._exit(1)


def main() -> None:
    """Makes one attempt and ends the process."""
    inlet, outlet = int(sys.argv[1]), int(sys.argv[2])
    for fd in (inlet, outlet):
        os.set_inheritable(fd, False)
    setup = pipe.decode_to_child(pipe.read_frame(inlet))
    if not isinstance(setup, pipe.Setup):
        raise SystemExit("the first frame has to be a Setup")
    _restore(setup)
    _end_with(setup.parent)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    prices = Prices(own=setup.prices)
    prices.warned.update(dict.fromkeys(setup.warned))
    channel = PipeChannel(inlet, outlet, prices)
    signal.signal(signal.SIGTERM, lambda *_: channel.stop())
    threading.stack_size(SMALL_STACK)
    threading.Thread(target=channel.listen, name="tickwork-pipe", daemon=True).start()
    threading.stack_size(0)
    reserve = bytearray(RESERVE)
    try:
        outcome = _attempt(setup, channel)
    except MemoryError:
        outcome = _no_memory(setup)
    del reserve
    if outcome.error is not None and outcome.error.type == "MemoryError" and setup.memory_mb is not None:
        outcome = _no_memory(setup)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # user code may have closed or replaced it
            stream.flush()
    channel.send(pipe.Done(outcome))
    os._exit(0)  # threads that user code has left behind do not keep the process


def _restore(setup: pipe.Setup) -> None:
    """Makes the child's surroundings those of the parent: import path and environment."""
    sys.path[:] = setup.path
    if setup.pythonpath is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = setup.pythonpath


def _end_with(parent: int) -> None:
    """Asks the kernel to kill this process with its parent; the pipe's end says the same where it cannot."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit(setup: pipe.Setup) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if setup.memory_mb is not None:
        size = setup.memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _attempt(setup: pipe.Setup, channel: PipeChannel) -> Outcome:
    message = setup.message
    graph = graph_from_json(setup.graph)
    node = graph.node[message.node]
    _limit(setup)
    try:
        implementation = implementation_of(node, Path(setup.base), Location(node.run))
    except ReferenceFault as fault:
        problem = fault.problem
        return Outcome("FAILED", None, Error("NotLoadable", str(problem), False, {"at": str(problem.location)}))
    ctx = Context(message, graph, node, channel)
    try:
        if implementation.is_async:
            value = asyncio.run(_awaited(implementation, ctx, channel, setup))
        else:
            value = implementation.call(implementation.input_for(message, ctx), ctx)
        ctx.returned(value)
        return succeeded(implementation, value)
    except MemoryError:
        raise
    except SystemExit as error:
        text = f"the process of `{message.node}` called exit({error.code!r}) before it returned"
        return Outcome("FAILED", None, Error("ProcessExited", text, True, {"exit_code": _exit_code(error)}))
    except BaseException as error:  # noqa: BLE001 - user code may raise anything; it is reported
        return failed(error)


async def _awaited(implementation: Implementation, ctx: Context, channel: PipeChannel, setup: pipe.Setup) -> Any:
    task = asyncio.current_task()
    if task is not None:
        channel.drives(task)
    return await implementation.call(implementation.input_for(setup.message, ctx), ctx)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def _no_memory(setup: pipe.Setup) -> Outcome:
    text = f"`{setup.message.node}` needed more than its memory_mb of {setup.memory_mb} MiB of address space"
    return Outcome("FAILED", None, Error("MemoryLimit", text, True, {"memory_mb": setup.memory_mb}))


if __name__ == "__main__":
    main()
