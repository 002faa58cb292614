"""Lifetimes that think, an open loop: each Task returns when the schedule says so, however the engine is doing.

All are started and reach their first Task; then the schedule is given out, and the stages follow one another. A planner
loop is timed from the moment when its Task was to return to the first line of the next Task's code: record, Data Plane,
Control Plane, Plan, record, Data Plane, Control Plane, and the input at an executor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.cloud import processes, window
from benchmarks.cloud.deployment import TENANTS, Deployment
from benchmarks.cloud.latency import Latencies, Samples, latencies
from benchmarks.cloud.processes import Usage
from benchmarks.cloud.schedule import Schedule, Stage
from benchmarks.cloud.window import Window

STARTS = 100
"""Starts that the client has under way at a time."""

OPEN = 300.0
"""Seconds in which all lifetimes have to be in their first Task."""

SETTLE = 0.2
"""Part of a stage that is not measured: what the stage before has left is worked off in it."""

GRACE = 3.0
"""Seconds after a stage before its samples are read; what has not begun by then counts as late."""

LEAD = 2.0
"""Seconds from giving out the schedule until it begins."""


class Measured(msgspec.Struct, frozen=True):
    """What came of one stage."""

    rate: float
    latency: Latencies
    used: Window
    resident: Usage
    opened: float
    closed: float
    """From when to when it was measured, on the monotonic clock."""


class Group(msgspec.Struct, frozen=True):
    """Lifetimes of one tenant with one schedule; `first` is the number of the first one."""

    name: str
    tenant: str
    first: int
    lives: int

    @property
    def numbers(self) -> range:
        """The numbers of its lifetimes."""
        return range(self.first, self.first + self.lives)


ONLY = "only"


def one_group(lives: int) -> Group:
    """All lifetimes, of the first tenant."""
    return Group(ONLY, TENANTS[0], 0, lives)


async def open_all(deployment: Deployment, groups: Sequence[Group], samples: Samples) -> float:
    """Starts the lifetimes; returns the seconds that it took until each was in its first Task."""
    began = time.monotonic()
    turn = asyncio.Semaphore(STARTS)

    async def start(group: Group, life: int) -> None:
        async with turn:
            given = {"life": life, "i": 0, "group": group.name}
            await deployment.service.start("bench_cloud_think", given, tenant=group.tenant)

    everybody = [(group, life) for group in groups for life in group.numbers]
    for some in range(0, len(everybody), 1000):
        await asyncio.gather(*[start(group, life) for group, life in everybody[some : some + 1000]])
    numbers = [life for _, life in everybody]
    while (there := samples.opened(numbers)) < len(numbers):
        if time.monotonic() - began > OPEN:
            raise RuntimeError(f"{there} of {len(numbers)} lifetimes are open.\n{deployment.complaints()}")
        await asyncio.sleep(0.2)
        samples.read()
    return time.monotonic() - began


def turn(deployment: Deployment, group: Group, stages: Sequence[Stage]) -> Schedule:
    """Gives out the schedule of a group: from now on its Tasks return."""
    schedule = Schedule(time.monotonic() + LEAD, group.lives, tuple(stages))
    fresh = deployment.folder / f"new-{group.name}"
    fresh.write_bytes(msgspec.json.encode(schedule))
    fresh.rename(deployment.folder / f"schedule-{group.name}")
    return schedule


async def staircase(
    deployment: Deployment, group: Group, samples: Samples, stages: Sequence[Stage], go_on: Callable[[Measured], bool]
) -> list[Measured]:
    """Measures a group that is open, one stage after the other, until `go_on` says of one that it was the last."""
    schedule = turn(deployment, group, stages)
    found: list[Measured] = []
    for stage, begins, ends in schedule.windows():
        opens = begins + SETTLE * stage.seconds
        await asyncio.sleep(opens - time.monotonic())
        before = await window.look(deployment)
        await asyncio.sleep(ends - time.monotonic())
        used = window.between(before, await window.look(deployment))
        resident = processes.resident_bytes(deployment.pids)
        await asyncio.sleep(ends + GRACE - time.monotonic())
        samples.read()
        timed = latencies(samples, [(schedule, group.numbers)], [(opens, ends)], time.monotonic())
        found.append(Measured(stage.rate, timed, used, resident, opens, ends))
        if not go_on(found[-1]):
            break
    return found
