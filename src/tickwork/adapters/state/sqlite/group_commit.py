"""Group commit: writes that are asked for at the same time share one transaction and one fsync.

Submitters are collected on the event loop until it has gone round once. A few rows are then committed inline: one
fsync costs less than the way to a thread and back. More are applied on the loop, which is busy anyway, and only
COMMIT, which waits for the disk, runs in the thread; a very large set is done there wholly. While it runs the next
set is collected: the load sets the size of a group, no timer does.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tickwork.adapters.state.sqlite.failures import storage_error
from tickwork.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.state.sqlite.transaction import Transaction, Unit
    from tickwork.ports import Clock

INLINE_ROWS = 4
LOOP_ROWS = 2048
GROUP_JOBS = 256
"""Submitters of one transaction. When thousands start at once, the first go on while the others are recorded."""

CHECKPOINT_PAGES = 1000
"""Pages (4 KiB, estimated) in the WAL from which a checkpoint is made. Few, because a commit that overwrites a WAL is
twice as fast as one that makes it grow."""

PAGES_A_COMMIT = 4
"""Pages that the smallest commit writes: the end of the log's table and of its two indexes, and this minute's usage."""


class _Job:
    """The units of one submitter (so many rows), and its future."""

    __slots__ = ("done", "rows", "units")

    def __init__(self, units: Sequence[Unit], rows: int, done: asyncio.Future[None]) -> None:
        self.units = units
        self.rows = rows
        self.done = done


class GroupCommit:
    """The queue in front of the one writing connection. Belongs to one event loop."""

    def __init__(
        self,
        transaction: Transaction,
        path: str,
        clock: Clock,
        *,
        threaded: bool,
        on_commit: Callable[[Sequence[Unit]], None],
    ) -> None:
        self._transaction = transaction
        self._on_commit = on_commit
        """Called on the loop after each commit with what was committed, before anybody hears of it."""
        self._path = path
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "tickwork-sqlite") if threaded else None
        self._jobs: list[_Job] = []
        self._pages = 0
        self._busy = False
        self._on_quiet: list[Callable[[], None]] = []
        self._scheduled = False
        self._idle: asyncio.Future[None] | None = None

    def commit_now(self, units: Sequence[Unit], rows: int, size: int) -> bool:
        """Commits a few rows at once, when nobody else waits for a commit: no turn of the loop is spent on it.

        False when it has to be submitted. Raises StorageError; then nothing was kept.
        """
        if rows > INLINE_ROWS or self._busy or self._jobs:
            return False
        try:
            self._transaction.apply(units, self._clock.now())
            self._transaction.commit(units)
        except Exception as error:
            raise self._failure(error) from error
        self._on_commit(units)
        self._pages += PAGES_A_COMMIT + size // 2048
        self._next()
        return True

    def submit(self, units: Sequence[Unit], rows: int, size: int) -> asyncio.Future[None]:
        """A future that is done when the units are durable. `rows` and `size` (bytes) say how much it is."""
        done = self._loop.create_future()
        self._jobs.append(_Job(units, rows, done))
        self._pages += PAGES_A_COMMIT + size // 2048  # with the indexes a row dirties about twice its size
        self._schedule()
        return done

    def when_quiet(self, work: Callable[[], None]) -> None:
        """Calls `work` when no commit is under way: what it reads then is all that `on_commit` was told of."""
        if self._busy:
            self._on_quiet.append(work)
        else:
            work()

    async def close(self) -> None:
        """Waits until everything that was submitted is answered."""
        while self._busy or self._jobs:
            self._idle = self._loop.create_future()
            await self._idle
        if self._thread is not None:
            self._thread.shutdown()

    def _schedule(self) -> None:
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._go)

    def _go(self) -> None:
        """Takes what has gathered and starts its transaction."""
        self._scheduled = False
        jobs, self._jobs = self._jobs[:GROUP_JOBS], self._jobs[GROUP_JOBS:]
        rows = sum([job.rows for job in jobs])
        units = [unit for job in jobs for unit in job.units] if len(jobs) > 1 else jobs[0].units
        now = self._clock.now()
        apply, commit = self._transaction.apply, self._transaction.commit
        try:
            if self._thread is None or rows <= INLINE_ROWS:
                apply(units, now)
                commit(units)
            elif rows <= LOOP_ROWS:
                apply(units, now)
                self._in_thread(lambda: commit(units), jobs)
                return
            else:
                self._in_thread(lambda: (apply(units, now), commit(units)), jobs)
                return
        except Exception as error:  # noqa: BLE001 - whoever waits for the commit gets it, whatever it is
            self._settle(jobs, error)
        else:
            self._settle(jobs, None)
        self._next()

    def _in_thread(self, work: Callable[[], object], jobs: list[_Job]) -> None:
        if self._thread is None:
            raise StorageError("a database in memory is not written by a thread")
        self._busy = True
        landed = self._loop.run_in_executor(self._thread, work)
        landed.add_done_callback(lambda future: self._landed(future.exception(), jobs))

    def _landed(self, error: BaseException | None, jobs: list[_Job]) -> None:
        self._busy = False
        self._settle(jobs, error)
        waiting, self._on_quiet = self._on_quiet, []
        for work in waiting:
            work()
        self._next()

    def _next(self) -> None:
        """Goes on: a checkpoint when one is due, else the next group, after those just woken had their turn."""
        if self._thread is not None and self._pages > CHECKPOINT_PAGES:
            self._pages = 0
            # When it fails (a full disk), the WAL keeps everything and the next one tries again.
            self._in_thread(self._transaction.checkpoint, [])
        elif self._jobs:
            self._schedule()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _settle(self, jobs: list[_Job], error: BaseException | None) -> None:
        if error is None and jobs:
            self._on_commit([unit for job in jobs for unit in job.units] if len(jobs) > 1 else jobs[0].units)
        for job in jobs:
            if job.done.done():
                continue  # its submitter was cancelled; what it submitted counts all the same
            if error is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(self._failure(error))

    def _failure(self, error: BaseException) -> StorageError:
        if isinstance(error, sqlite3.Error):
            return storage_error(error, self._path)
        return StorageError(f"Writing to {self._path} failed: {error!r}. Nothing was kept.")
