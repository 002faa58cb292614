"""Time that a test owns: an event loop whose clock jumps to the next timer as soon as nothing else can be done.

An hour of backoff takes no time, and takes the same course every time. Only what comes from outside takes real time:
while a socket, a pipe or a subprocess is being watched, or a thread of the loop's executor is busy, the loop really
waits, and its clock goes on by as much as it has waited.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from tickwork.clock import SystemClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_767_225_600_000_000
"""Where a virtual clock begins unless it is told otherwise: 2026-01-01T00:00:00Z, in microseconds."""


class _PatientSelector(selectors.DefaultSelector):
    """Does not wait for timers: it moves the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0.0
        self.outside = 0
        self._real = SystemClock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready files; when there are none, time passes."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if len(self.get_map()) > 1 or self.outside:  # one is the loop's own pipe to itself
            began = self._real.monotonic()
            ready = super().select(timeout)
            passed = self._real.monotonic() - began
            self.moved += passed if timeout is None or ready else max(passed, timeout)
            return ready
        if timeout is None:
            if threading.active_count() == 1:
                # A thread may have woken the loop and ended since the first look.
                if ready := super().select(0):
                    return ready
                raise RuntimeError("nothing will ever happen: no timer is set and nothing outside is waited for")
            return super().select(None)
        self.moved += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, from 0."""

    def __init__(self) -> None:
        self._patient = _PatientSelector()
        super().__init__(self._patient)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._patient.moved

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As ever; and while the call runs, time is real."""
        self._patient.outside += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._patient.outside -= 1


class VirtualClock:
    """The Clock of a VirtualLoop (or of any other loop)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch: int = EPOCH) -> None:
        self._loop, self._epoch = loop, epoch

    def now(self) -> int:
        """Virtual wall time in microseconds since 1970-01-01 UTC."""
        return self._epoch + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Suspends the caller for virtual seconds."""
        await asyncio.sleep(seconds)  # noqa: TID251 - this is the injected clock, on a loop whose time is virtual


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
