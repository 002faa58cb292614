"""One repetition of one workload in a process of its own: `python -m benchmarks.repetition JOB`, JSON in and out."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, bytes_in, peak_mb, quantile


class Job(msgspec.Struct, kw_only=True):
    """What to run: a workload on an engine, on files in `home`, pinned to one core."""

    engine: str
    """`tickwork`, `floor`, or one of `benchmarks.peers`."""
    workload: str
    home: str
    core: int | None = None
    runs: int = 1
    cycles: int = 0
    width: int = 0
    seconds: float = 0.0
    waiting: int = 0
    spawned_at: float = 0.0


class Engine(Protocol):
    """What every engine offers."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def line(self, cycles: int) -> None: ...
    async def many(self, runs: int, cycles: int, seconds: float) -> None: ...
    async def fan(self, width: int, rounds: int) -> None: ...
    async def go_on(self) -> None: ...


Figures = dict[str, float]
WARM_UP = 20
"""Cycles before the clock starts in W1 and W6."""


def engine(job: Job) -> Engine:
    home = Path(job.home)
    if job.engine == "floor":
        from benchmarks.floor import Floor

        return Floor(home)
    if job.engine == "tickwork":
        from benchmarks.workloads import Tickwork

        return Tickwork(home)
    from benchmarks import peers

    return peers.engine(job.engine, home)


async def line(job: Job) -> Figures:
    """W1: one run in sequence."""
    async with engine(job) as on:
        await on.line(WARM_UP)
        METER.ticks.clear()
        started = time.perf_counter()
        await on.line(job.cycles)
        wall = time.perf_counter() - started
        _all_called(job.cycles)
    gaps = METER.gaps()
    return {
        "steps/s": 2 * job.cycles / wall,
        "cycle p50": quantile(gaps, 0.5) * 1e3,
        "cycle p99": quantile(gaps, 0.99) * 1e3,
    }


async def many(job: Job) -> Figures:
    """W2 and W3: many runs at the same time."""
    async with engine(job) as on:
        started = time.perf_counter()
        await on.many(job.runs, job.cycles, job.seconds)
        wall = time.perf_counter() - started
        _all_called(job.runs * job.cycles)
    return {"steps/s": 2 * job.runs * job.cycles / wall, "wall": wall, "memory": peak_mb()}


async def fan(job: Job) -> Figures:
    """W4: fan-out and join."""
    async with engine(job) as on:
        started = time.perf_counter()
        await on.fan(job.width, job.cycles)
        wall = time.perf_counter() - started
        _all_called(job.width * job.cycles)
    return {"tasks/s": job.width * job.cycles / wall}


async def kill(job: Job) -> Figures:
    """W5, the first life: the process kills itself inside the task in the middle."""
    LEDGER.open(Path(job.home) / "ledger", job.cycles // 2)
    async with engine(job) as on:
        await on.line(job.cycles)
    raise RuntimeError("it should have been killed")


async def go_on(job: Job) -> Figures:
    """W5, the second life: recovery, from the start of the process to the first call and to the end."""
    file = Path(job.home) / "ledger"
    LEDGER.open(file, None)
    async with engine(job) as on:
        await on.go_on()
    calls = LEDGER.calls(file)
    if sorted(set(calls)) != list(range(job.cycles)) or LEDGER.went_on is None:
        raise RuntimeError(f"not every task ran: {calls}")
    return {"calls repeated": len(calls) - len(set(calls)), "going on after": LEDGER.went_on - job.spawned_at}


async def long(job: Job) -> Figures:
    """W6: a long run; does it slow down, and how much does a step take on disk (unless a server keeps it)?"""
    async with engine(job) as on:
        await on.line(1)
    before = bytes_in(Path(job.home))
    METER.ticks.clear()
    async with engine(job) as on:
        started = time.perf_counter()
        await on.line(job.cycles)
        wall = time.perf_counter() - started
        _all_called(job.cycles)
    tenth = max(job.cycles // 10, 2)
    first = METER.rate(0, tenth - 1)
    last = METER.rate(job.cycles - tenth, job.cycles - 1)
    figures = {"steps/s": 2 * job.cycles / wall, "last tenth / first": last / first}
    if grown := bytes_in(Path(job.home)) - before:
        figures["bytes/step"] = grown / (2 * job.cycles)
    return figures


def _all_called(calls: int) -> None:
    if len(METER.ticks) != calls:
        raise RuntimeError(f"the task was called {len(METER.ticks)} times, not {calls}")


WORKLOADS = {"W1": line, "W2": many, "W3": many, "W4": fan, "W5": go_on, "W5-kill": kill, "W6": long}


def _stage(workload: str) -> Callable[[Job], Awaitable[Figures]]:
    """What measures a workload, or a part of W7."""
    if workload in WORKLOADS:
        return WORKLOADS[workload]
    from benchmarks.concurrent import STAGES  # imports Tickwork, which would weigh on the memory of the others

    return STAGES[workload]


async def _figures(job: Job) -> Figures:
    return await _stage(job.workload)(job)


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    figures = asyncio.run(_figures(job))
    print(msgspec.json.encode(figures).decode(), flush=True)
    # Some peers leave threads behind that would keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
