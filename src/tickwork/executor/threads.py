"""Threads for sync user code. They are daemons, and one that hangs is given up and replaced.

The standard pool would do neither: it waits for its threads when the process ends, and a hung call holds its place for
ever. Results come back to the loop in batches: one wake-up for all that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Job:
    """One call in a thread. `lost`: it hangs, and its thread leaves should it ever come back."""

    __slots__ = ("call", "context", "done", "lost", "result")

    def __init__(self, context: contextvars.Context, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.context, self.call, self.done = context, call, done
        self.result: Any = None
        self.lost = False


class Threads:
    """Runs calls in threads, as many as are asked for at once: the caller counts what is running."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._ended: deque[Job] = deque()
        self._woken = False
        self._closed = False

    def run(self, context: contextvars.Context, call: Callable[[], Any], done: Callable[[Any], None]) -> Job:
        """Calls `call` (which never raises) in a thread and in `context`, then `done(result)` on the loop."""
        job = Job(context, call, done)
        with self._lock:
            spawn = not self._idle
            self._idle -= not spawn
        self._jobs.put(job)
        if spawn:
            threading.Thread(target=self._work, name="tickwork-task", daemon=True).start()
        return job

    def give_up(self, job: Job) -> None:
        """The job hangs: its thread is left alone."""
        with self._lock:
            job.lost = True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.result = job.context.run(job.call)
            with self._lock:
                leave = job.lost or self._closed
                self._idle += not leave
                self._ended.append(job)
                wake = not self._woken
                self._woken = True
            del job
            if wake:
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits for this any more
                    return
            if leave:
                return

    def _deliver(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, deque()
            self._woken = False
        for job in ended:
            job.done(job.result)

    def close(self) -> None:
        """Ends the idle threads; a busy one ends after its call, or with the process."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._jobs.put(None)
