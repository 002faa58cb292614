"""The graphs that the executors of the benchmark serve, and what they write down while they run.

A loop of Plan and Task that does nothing (W2), and one whose Task thinks until its turn comes (see schedule). An
executor appends one line of 32 bytes to a file for each call of a thinking Task: which lifetime, which loop, when the
Task before was to return, when it did, and when this one began. All processes read the same monotonic clock.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cloud.schedule import Schedule, first_turn, next_turn
from benchmarks.meter import result
from tickwork import END, Graph, plan, task

FOLDER = "BENCH_CLOUD_FOLDER"
"""The variable that names the folder for samples and schedules."""

LINE = struct.Struct("=iiddd")
GATE_LOOK = 0.05
"""Seconds between two looks whether a group's schedule is there."""


class Notes:
    """What this process writes down, and the schedules that it goes by. Nothing is opened before a Task needs it."""

    def __init__(self) -> None:
        self._file = -1
        self._schedules: dict[str, Schedule] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    def write(self, life: int, loop: int, due: float, back: float, began: float) -> None:
        """One call; on its way to the file at once, for the process may be killed."""
        if self._file < 0:
            where = Path(os.environ[FOLDER]) / f"samples-{os.getpid()}"
            self._file = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._file, LINE.pack(life, loop, due, back, began))

    async def schedule(self, group: str) -> Schedule:
        """The schedule of a group, once it is there: one look for all lifetimes that wait for it."""
        while group not in self._schedules:
            looking = self._looking.get(group)
            if looking is None:
                looking = self._looking[group] = asyncio.create_task(self._look(group))
            await asyncio.shield(looking)
        return self._schedules[group]

    async def _look(self, group: str) -> None:
        file = Path(os.environ[FOLDER]) / f"schedule-{group}"
        while not file.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(GATE_LOOK)
        self._schedules[group] = msgspec.json.decode(file.read_bytes(), type=Schedule)


NOTES = Notes()


@plan
async def decide(value: dict[str, Any]) -> str:
    return "work" if value["i"] < value["n"] else END


@task
async def work(value: dict[str, Any]) -> dict[str, Any]:
    return result(value["i"] + 1, value["n"])


@plan
async def choose(value: dict[str, Any]) -> str:  # noqa: ARG001 - the engine hands a Plan its input
    return "think"


@task
async def think(value: dict[str, Any]) -> dict[str, Any]:
    """Returns when it is this lifetime's turn; after the last stage it never returns."""
    began = time.monotonic()
    life, loop = value["life"], value["i"]
    NOTES.write(life, loop, value.get("due", 0.0), value.get("back", 0.0), began)
    schedule = await NOTES.schedule(value["group"])
    turns = value["turns"] + next_turn(life, loop) if loop else first_turn(life)
    due = schedule.seconds(turns)
    if due is None:
        await asyncio.Event().wait()
        raise AssertionError
    await asyncio.sleep(due - time.monotonic())
    place = {"life": life, "group": value["group"], "turns": turns, "due": due, "back": time.monotonic()}
    return result(loop + 1, 0) | place


LOOP = Graph("bench_cloud_loop", "1.0.0")
LOOP.start(decide).edge(decide, work).edge(work, decide).final(decide)

THINK = Graph("bench_cloud_think", "1.0.0")
THINK.start(choose).edge(choose, think).edge(think, choose).final(choose)
