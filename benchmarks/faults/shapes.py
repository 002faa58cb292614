"""The workload: three shapes of a run, and the user code of their steps, the same for every engine.

A value travels from step to step, so that a step knows its run and its place by what it was given, and the result of a
run shows whether every step counted once:

- `line`: ten Tasks in a row, a Plan between each two (19 steps);
- `loop`: a Plan and a Task in turns, ten times (21 steps);
- `fan`: a Plan that opens seventeen branches, a Plan that joins them, a Task at the end (20 steps).
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.faults.ledger import Ledger

TASKS = 10
"""Tasks of a line, cycles of a loop."""
BRANCHES = 17
NAMES = ("line", "loop", "fan")

Value = dict[str, Any]


class Steps:
    """The user code. One for a process: tasks are plain functions and reach it here."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._pause = 0.0

    def open(self, ledger: Ledger, pause: float) -> None:
        """From now on calls are written down; a Task takes `pause` seconds."""
        self._ledger, self._pause = ledger, pause

    async def work(self, value: Value, rank: int, branch: int = 0) -> None:
        """A Task's work."""
        await self._call(value, rank, branch)
        await asyncio.sleep(self._pause)
        self._back(value, rank, branch)

    async def decide(self, value: Value, rank: int) -> None:
        """A Plan's work: none."""
        await self._call(value, rank, 0)
        self._back(value, rank, 0)

    async def _call(self, value: Value, rank: int, branch: int) -> None:
        if self._ledger is not None:
            await self._ledger.call(value["run"], rank, branch)

    def _back(self, value: Value, rank: int, branch: int) -> None:
        if self._ledger is not None:
            self._ledger.back(value["run"], rank, branch)


STEPS = Steps()


async def line_task(k: int, value: Value) -> Value:
    """Task number `k` of a line."""
    await STEPS.work(value, 2 * k)
    return value | {"i": value["i"] + 1, "sum": value["sum"] + k + 1}


async def line_plan(k: int, value: Value) -> None:
    """The Plan after Task number `k` of a line."""
    await STEPS.decide(value, 2 * k + 1)


async def loop_plan(value: Value) -> bool:
    """Whether the loop goes on."""
    await STEPS.decide(value, 2 * value["i"])
    return bool(value["i"] < TASKS)


async def loop_task(value: Value) -> Value:
    """The Task of a loop."""
    await STEPS.work(value, 2 * value["i"] + 1)
    return value | {"i": value["i"] + 1, "sum": value["sum"] + value["i"] + 1}


async def fan_plan(value: Value) -> list[Value]:
    """What each branch is given."""
    await STEPS.decide(value, 0)
    return [value | {"branch": branch} for branch in range(BRANCHES)]


async def fan_branch(value: Value) -> Value:
    """The Task of a branch."""
    await STEPS.work(value, 1, value["branch"])
    return value | {"i": 1, "sum": value["branch"] + 1}


async def fan_join(values: list[Value]) -> Value:
    """The Plan that is given what all branches returned."""
    joined = {"run": values[0]["run"], "i": len(values), "sum": sum(each["sum"] for each in values)}
    await STEPS.decide(joined, 2)
    return joined


async def fan_end(value: Value) -> Value:
    """The Task after the join."""
    await STEPS.work(value, 3)
    return value


def shape_of(run: str) -> str:
    """`loop` for `loop-4`."""
    return run.partition("-")[0]


def runs(number: int) -> list[str]:
    """The names of this many runs, the shapes by turns."""
    return [f"{NAMES[k % len(NAMES)]}-{k}" for k in range(number)]


def given(run: str) -> Value:
    """The input of a run."""
    return {"run": run, "i": 0, "sum": 0}


def steps(run: str) -> set[tuple[int, int]]:
    """Rank and branch of every step that the run has to take."""
    if shape_of(run) == "line":
        return {(rank, 0) for rank in range(2 * TASKS - 1)}
    if shape_of(run) == "loop":
        return {(rank, 0) for rank in range(2 * TASKS + 1)}
    return {(0, 0), (2, 0), (3, 0)} | {(1, branch) for branch in range(BRANCHES)}


def answer(run: str) -> dict[str, int]:
    """What the result of the run has to hold."""
    size = BRANCHES if shape_of(run) == "fan" else TASKS
    return {"i": size, "sum": size * (size + 1) // 2}
