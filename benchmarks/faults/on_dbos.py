"""The workload on DBOS with its SQLite system database. The name of a run is its workflow id.

As its guide says: one workflow function for a run, every piece of user code a step, `DBOS.launch()` at start, which
recovers all pending workflows of this executor. Branches are steps started in a fixed order and gathered.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dbos import DBOS, SetWorkflowID, WorkflowHandleAsync

from benchmarks.faults import shapes

POLL = 0.05
"""Seconds between two looks at a result; the default is a second."""


line_task = DBOS.step(name="line_task")(shapes.line_task)
line_plan = DBOS.step(name="line_plan")(shapes.line_plan)
loop_plan = DBOS.step(name="loop_plan")(shapes.loop_plan)
loop_task = DBOS.step(name="loop_task")(shapes.loop_task)
fan_plan = DBOS.step(name="fan_plan")(shapes.fan_plan)
fan_branch = DBOS.step(name="fan_branch")(shapes.fan_branch)
fan_join = DBOS.step(name="fan_join")(shapes.fan_join)
fan_end = DBOS.step(name="fan_end")(shapes.fan_end)


async def line(value: dict[str, Any]) -> dict[str, Any]:
    for k in range(shapes.TASKS):
        value = await line_task(k, value)
        if k + 1 < shapes.TASKS:
            await line_plan(k, value)
    return dict(value)


async def loop(value: dict[str, Any]) -> dict[str, Any]:
    while await loop_plan(value):
        value = await loop_task(value)
    return dict(value)


async def fan(value: dict[str, Any]) -> dict[str, Any]:
    branches = [fan_branch(each) for each in await fan_plan(value)]
    return dict(await fan_end(await fan_join(await asyncio.gather(*branches))))


WORKFLOWS = {
    name: DBOS.workflow(name=name)(function) for name, function in (("line", line), ("loop", loop), ("fan", fan))
}


class OnDBOS:
    """Launching is all that a new process does."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{home / 'dbos.sqlite'}"
        DBOS(config={"name": "faults", "system_database_url": url, "log_level": "ERROR"})

    async def __aenter__(self) -> Self:
        DBOS.launch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        DBOS.destroy()

    async def begin(self, run: str) -> bool:
        """Durable when the handle is there."""
        with SetWorkflowID(run):
            await DBOS.start_workflow_async(WORKFLOWS[shapes.shape_of(run)], shapes.given(run))
        return True

    async def known(self, run: str) -> bool:
        """By its workflow id."""
        return await DBOS.get_workflow_status_async(run) is not None

    async def resume(self, run: str) -> None:
        """The call that its reference has for workflows that stopped."""
        await DBOS.resume_workflow_async(run)

    async def result(self, run: str) -> dict[str, Any]:
        """Polls the database."""
        handle: WorkflowHandleAsync[dict[str, Any]] = await DBOS.retrieve_workflow_async(run)
        return dict(await handle.get_result(polling_interval_sec=POLL))
