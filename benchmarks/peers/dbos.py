"""The workloads on DBOS with its SQLite system database: a workflow for a run, every piece of user code a step.

After a kill, `DBOS.launch()` recovers what is pending; nobody calls anything.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dbos import DBOS, SetWorkflowID, WorkflowHandleAsync

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result

LINES = itertools.count(1)
POLL = 0.05
"""Seconds between two looks at the result of a recovered workflow."""


async def _decide(i: int, n: int) -> bool:
    return i < n


async def _work(i: int, n: int, seconds: float) -> dict[str, Any]:
    if seconds:
        await asyncio.sleep(seconds)
    METER.tick()
    LEDGER.call(i)
    return result(i + 1, n)


async def _loop(n: int, seconds: float) -> int:
    i = 0
    while await decide(i, n):
        i = (await work(i, n, seconds))["i"]
    return i


async def _fan(width: int, rounds: int) -> int:
    for number in range(rounds):
        await decide(number, rounds)
        await asyncio.gather(*[part(k) for k in range(width)])
    return rounds


async def _part(k: int) -> dict[str, Any]:
    METER.tick()
    return result(k, 0)


decide = DBOS.step(name="decide")(_decide)
work = DBOS.step(name="work")(_work)
part = DBOS.step(name="part")(_part)
loop = DBOS.workflow(name="loop")(_loop)
fan = DBOS.workflow(name="fan")(_fan)


class OnDBOS:
    """The workloads on DBOS."""

    def __init__(self, home: Path) -> None:
        self._url = f"sqlite:///{home / 'dbos.sqlite'}"

    async def __aenter__(self) -> Self:
        DBOS(config={"name": "bench", "system_database_url": self._url, "log_level": "ERROR"})
        DBOS.launch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        DBOS.destroy()

    async def line(self, cycles: int) -> None:
        """One workflow of `cycles` cycles."""
        with SetWorkflowID(f"line-{next(LINES)}"):
            await (await DBOS.start_workflow_async(loop, cycles, 0.0)).get_result()

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many workflows at the same time; each task takes `seconds`."""

        async def one() -> None:
            await (await DBOS.start_workflow_async(loop, cycles, seconds)).get_result()

        await asyncio.gather(*[one() for _ in range(runs)])

    async def fan(self, width: int, rounds: int) -> None:
        """One workflow that opens `width` branches and joins them, `rounds` times."""
        await (await DBOS.start_workflow_async(fan, width, rounds)).get_result()

    async def go_on(self) -> None:
        """Waits for the workflow that `launch` has taken up."""
        handle: WorkflowHandleAsync[int] = await DBOS.retrieve_workflow_async("line-1")
        await handle.get_result(polling_interval_sec=POLL)
