"""One life of the worker: opens the engine, sees all runs through, and ends; or is killed on its way.

    python -m benchmarks.faults.life JOB

`call` in the job says whether this life makes the documented call for runs that were cut short; without it, it only
waits for them. `anew` says whether it starts runs again from their input that the engine had begun and now denies. What
never began is started in every life: that is the application's own duty, and each engine has a key that makes it safe.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from pathlib import Path

import msgspec

from benchmarks.faults import shapes
from benchmarks.faults.engine import Engine, engine
from benchmarks.faults.ledger import Ledger, Reader


class Job(msgspec.Struct, kw_only=True):
    """What a life is told."""

    engine: str
    home: str
    ledger: str
    life: int
    runs: int
    pause: float
    call: bool
    anew: bool


async def live(job: Job) -> None:
    """Until every run has its result."""
    past = Reader(Path(job.ledger)).new()
    begun = {line.run for line in past if line.kind in ("begun", "call")}
    done = {line.run for line in past if line.kind == "done"}
    ledger = Ledger(Path(job.ledger), job.life)
    shapes.STEPS.open(ledger, job.pause)
    async with engine(job.engine, Path(job.home)) as on:
        ledger.write("open")
        left = [run for run in shapes.runs(job.runs) if run not in done]
        await asyncio.gather(*[_see_through(on, run, run in begun, job, ledger) for run in left])


async def _see_through(on: Engine, run: str, begun: bool, job: Job, ledger: Ledger) -> None:
    if begun and not await on.known(run):
        if not job.anew:
            return
        ledger.write("forgotten", run)
        begun = False
    if not begun:
        if await on.begin(run):
            ledger.write("begun", run)
    elif job.call:
        await on.resume(run)
    ledger.write("done", run, await on.result(run))


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    try:
        asyncio.run(live(job))
    except Exception:  # noqa: BLE001 - what any engine raises belongs in the report
        traceback.print_exc()
        code = 1
    else:
        code = 0
    # Some engines leave threads behind that would keep the process; a worker in production is killed as well.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
