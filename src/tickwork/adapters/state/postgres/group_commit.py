"""Group commit: what is submitted at the same time shares one transaction, and the next set gathers while it runs.

The load sets the size of a group, no timer does. Whoever gives up waiting leaves what was submitted: it counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from tickwork.errors import StorageError, TickworkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

U = TypeVar("U")

GROUP_ROWS = 2_000
GROUP_BYTES = 8 * 1024 * 1024
"""From where on a transaction takes no more submitters: the first go on while the others are recorded."""


class _Job(Generic[U]):
    """The units of one submitter (so many rows and bytes), and its future."""

    __slots__ = ("done", "rows", "size", "units")

    def __init__(self, units: Sequence[U], rows: int, size: int, done: asyncio.Future[None]) -> None:
        self.units = units
        self.rows = rows
        self.size = size
        self.done = done


class GroupCommit(Generic[U]):
    """The queue in front of one writer. Belongs to one event loop."""

    def __init__(self, write: Callable[[Sequence[U]], Awaitable[None]], where: str) -> None:
        self._write = write
        self._where = where
        self._jobs: list[_Job[U]] = []
        self._writing: asyncio.Task[None] | None = None

    def submit(self, units: Sequence[U], rows: int, size: int) -> asyncio.Future[None]:
        """A future that is done when the units are durable."""
        loop = asyncio.get_running_loop()
        job = _Job(units, rows, size, loop.create_future())
        self._jobs.append(job)
        if self._writing is None:
            self._writing = loop.create_task(self._run())
        return job.done

    async def close(self) -> None:
        """Waits until everything that was submitted is answered."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _run(self) -> None:
        try:
            while self._jobs:
                jobs = self._group()
                try:
                    await self._write([unit for job in jobs for unit in job.units] if len(jobs) > 1 else jobs[0].units)
                except TickworkError as error:
                    self._settle(jobs, error)
                except Exception as error:  # noqa: BLE001 - whoever waits for the commit gets it, whatever it is
                    wrapped = StorageError(f"Writing to {self._where} failed: {error!r}. Nothing was kept.")
                    wrapped.__cause__ = error
                    self._settle(jobs, wrapped)
                else:
                    self._settle(jobs, None)
        finally:
            self._writing = None

    def _group(self) -> list[_Job[U]]:
        rows = size = taken = 0
        for job in self._jobs:
            rows, size = rows + job.rows, size + job.size
            if taken and (rows > GROUP_ROWS or size > GROUP_BYTES):
                break
            taken += 1
        jobs, self._jobs = self._jobs[:taken], self._jobs[taken:]
        return jobs

    def _settle(self, jobs: list[_Job[U]], error: TickworkError | None) -> None:
        for job in jobs:
            if job.done.done():
                continue  # its submitter was cancelled
            if error is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(error)
