"""The outside of a subprocess: a fresh Python for one attempt, in a session of its own, killed as a whole.

Starting, feeding, reading and the end are events of the loop; no thread waits. The process gets an empty folder as its
working directory and nothing on stdin. What it prints is kept, up to a bound, for the error's details and the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.executor import pipe
from tickwork.executor.outcome import Outcome
from tickwork.model.graph import canonical_json
from tickwork.model.records import Error

if TYPE_CHECKING:
    from tickwork.executor.attempt import Attempt

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 64 * 1024
"""Bytes of stdout and of stderr that are kept: the last ones."""

CHUNK = 1 << 18
_ROOT = str(Path(__file__).resolve().parents[2])


async def run_in_process(attempt: Attempt, enter: Callable[[], None]) -> Outcome:
    """Makes the attempt in a process of its own; calls `enter` once it is started. Never leaves a process behind."""
    unloadable = attempt.bound.implementation.unloadable
    if unloadable:
        text = (
            f"`{attempt.message.node}` runs in a subprocess, which cannot load it: {unloadable}. "
            "Define it at the top of a module or file, or take `isolation` out"
        )
        return Outcome("FAILED", None, Error("NotLoadable", text, retryable=False))
    process = ChildProcess(attempt)
    attempt.process = process
    try:
        enter()
        return await process.ended
    finally:
        process.kill()
        process.close()
        attempt.process = None


class Tail:
    """The last bytes of a stream, and how many came before them."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = 0

    def add(self, data: bytes) -> None:
        """More of the stream."""
        self._kept += data
        excess = len(self._kept) - OUTPUT_LIMIT
        if excess > 0:
            del self._kept[:excess]
            self._cut += excess

    def text(self) -> str:
        """What is kept, and a note of what is not."""
        text = self._kept.decode("utf-8", "backslashreplace")
        return f"({self._cut} bytes before this were cut)\n{text}" if self._cut else text


class ChildProcess:
    """One running subprocess; `ended` is its outcome."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Outcome] = self._loop.create_future()
        self._outcome: Outcome | None = None
        self._inbox, self._outbox = bytearray(), bytearray()
        self._stdout, self._stderr = Tail(), Tail()
        self._asking: set[asyncio.Task[None]] = set()
        self._folder = tempfile.mkdtemp(prefix="tickwork-")
        self._open: set[int] = set()
        self._exited = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        inlet, self._to_child = os.pipe()
        self._open |= {inlet, self._to_child}
        self._from_child, outlet = os.pipe()
        self._open |= {outlet, self._from_child}
        pythonpath = os.environ.get("PYTHONPATH")
        # The child puts this back before user code runs: it only has to find this package.
        environment = {**os.environ, "PYTHONPATH": _ROOT + (os.pathsep + pythonpath if pythonpath else "")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tickwork.executor.child", str(inlet), str(outlet)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(inlet, outlet),
            cwd=self._folder,
            env=environment,
            start_new_session=True,
        )
        for fd in (inlet, outlet):
            self._close(fd)
        if self._process.stdout is None or self._process.stderr is None:
            raise OSError("the subprocess has no output")
        out, err = self._process.stdout.fileno(), self._process.stderr.fileno()
        for fd in (self._to_child, self._from_child, out, err):
            os.set_blocking(fd, False)
        self._readers: dict[int, Callable[[bytes], None]] = {
            self._from_child: self._received,
            out: self._stdout.add,
            err: self._stderr.add,
        }
        for fd in self._readers:
            self._loop.add_reader(fd, self._read, fd)
        self._watch_exit()
        bound, message, prices = self._attempt.bound, self._attempt.message, self._attempt.price_book()
        self._send(
            pipe.Setup(
                message,
                canonical_json(bound.graph),
                str(bound.base),
                [str(Path(entry).resolve()) if entry else str(Path.cwd()) for entry in sys.path],
                pythonpath,
                bound.node.memory_mb,
                os.getpid(),
                prices.own,
                list(prices.warned),
            )
        )

    def _watch_exit(self) -> None:
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(self._process.pid)
            self._open.add(self._pidfd)
            self._loop.add_reader(self._pidfd, self._exit)
            return
        loop, process = self._loop, self._process

        def wait() -> None:
            process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._exit)

        threading.Thread(target=wait, name="tickwork-wait", daemon=True).start()

    # -- pipes

    def _send(self, message: pipe.ToChild) -> None:
        if self._exited:
            return
        if not self._outbox:
            self._loop.add_writer(self._to_child, self._write)
        self._outbox += pipe.frame(message)

    def _write(self) -> None:
        try:
            written = os.write(self._to_child, memoryview(self._outbox)[:CHUNK].tobytes())
        except BlockingIOError:
            return
        except OSError:  # it does not read any more: its exit will say why
            self._outbox.clear()
            self._loop.remove_writer(self._to_child)
            return
        del self._outbox[:written]
        if not self._outbox:
            self._loop.remove_writer(self._to_child)

    def _read(self, fd: int) -> bool:
        """Reads what is there; False at the end of the stream, or when nothing is there."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(fd)
            return False
        self._readers[fd](data)
        return True

    def _received(self, data: bytes) -> None:
        self._inbox += data
        while (body := pipe.take_frame(self._inbox)) is not None:
            try:
                message = pipe.decode_from_child(body)
            except msgspec.MsgspecError as error:
                text = f"the process of `{self._attempt.message.node}` sent what cannot be read: {error}"
                self._outcome = Outcome("FAILED", None, Error("ProcessExited", text))
                self.kill()
                return
            self._heard(message)

    def _heard(self, message: pipe.FromChild) -> None:
        match message:
            case pipe.Done(outcome):
                self._outcome = outcome
            case pipe.Beat(details):
                self._attempt.heartbeat(details)
            case pipe.Used(telemetry):
                self._attempt.telemetry = telemetry
                if telemetry.unpriced:
                    self._attempt.price_book().warned[telemetry.model or ""] = None
            case pipe.AskHistory(limit):
                task = self._loop.create_task(self._answer(limit))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _answer(self, limit: int) -> None:
        try:
            answer = pipe.History(await self._attempt.history(limit))
        except Exception as error:  # noqa: BLE001 - whatever the store raises is the child's answer
            answer = pipe.History([], f"{type(error).__name__}: {error}")
        self._send(answer)

    # -- the end

    def stop(self, reason: str) -> None:
        """Cancels user code, and asks whatever it has started to end."""
        self._send(pipe.Stop(reason))
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and all that it has started, now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Until it has been waited for, its number (and so its group's) belongs to no other process.
        if not self._exited:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _exit(self) -> None:
        if self._exited:
            return
        self.kill()  # what it has started and left behind
        self._exited = True
        code = self._process.wait()
        for fd in self._readers:
            while self._read(fd):
                pass
        outcome = self._outcome or self._died(code)
        out, err = self._stdout.text(), self._stderr.text()
        for name, text in (("stdout", out), ("stderr", err)):
            if text:
                self._attempt.ctx.logger.info("%s of the subprocess:\n%s", name, text)
        recorded = self._attempt.stopping or outcome
        if recorded.error is not None:
            printed = {k: v for k, v in (("stdout", out), ("stderr", err)) if v}
            recorded.error.details = {**(recorded.error.details or {}), **printed} or None
        if not self.ended.done():
            self.ended.set_result(outcome)

    def _died(self, code: int) -> Outcome:
        """It ended without a word."""
        name = self._attempt.message.node
        details: dict[str, Any]
        if code >= 0:
            text = f"the process of `{name}` ended with exit code {code} before it returned"
            details = {"exit_code": code}
        else:
            word = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            text = f"the process of `{name}` was killed by {word} before it returned"
            if self._attempt.bound.node.memory_mb is not None:
                text += f"; its memory_mb of {self._attempt.bound.node.memory_mb} may be too little"
            details = {"signal": word}
        return Outcome("FAILED", None, Error("ProcessExited", text, True, details))

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def close(self) -> None:
        """Lets go of everything. The process has ended or was killed."""
        process = getattr(self, "_process", None)
        for fd in list(self._open):
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            self._close(fd)
        if process is not None:
            for stream in (process.stdout, process.stderr):
                self._loop.remove_reader(stream.fileno())
                stream.close()
            if not self._exited:
                self._exited = True
                process.wait()
        for task in self._asking:
            task.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)
