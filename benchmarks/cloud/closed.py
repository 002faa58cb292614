"""W2 on the cloud profile: a thousand lifetimes of ten cycles at the same time, until the last one has completed."""

from __future__ import annotations

import asyncio
import time

import msgspec

from benchmarks.cloud import processes, window
from benchmarks.cloud.deployment import TENANTS, Deployment
from benchmarks.cloud.window import Window

TENANT = TENANTS[0]
LOOK = 0.05
"""Seconds between two looks whether all have completed."""

STARTS = 200
"""Starts that the client has under way at a time."""

ENDLESS = 10**9
"""Cycles of a lifetime that is not to end."""

PATIENCE = 300.0
"""Seconds without any step after which the run is given up."""


class Closed(msgspec.Struct, frozen=True):
    """One run. Steps are counted as in W2 of the local profile: a Plan and a Task for each cycle."""

    steps_per_second: float
    seconds: float
    used: Window
    resident: processes.Usage
    """Bytes at the end."""


async def run(deployment: Deployment, lifetimes: int, cycles: int) -> Closed:
    """Measures. RuntimeError when a lifetime did not complete."""
    before = await window.look(deployment)
    began = time.monotonic()
    await _all(deployment, lifetimes, cycles)
    seconds = time.monotonic() - began
    used = window.between(before, await window.look(deployment))
    if used.steps != lifetimes * (2 * cycles + 1):
        raise RuntimeError(f"{lifetimes * (2 * cycles + 1)} steps were to be recorded, and {used.steps} were")
    return Closed(2 * lifetimes * cycles / seconds, seconds, used, processes.resident_bytes(deployment.pids))


async def warm_up(deployment: Deployment, lifetimes: int, cycles: int) -> None:
    """The same, not measured: topics are made, connections opened, and the broker's code is compiled."""
    await _all(deployment, max(1, lifetimes // 2), cycles)


async def flood(deployment: Deployment, lifetimes: int) -> None:
    """Starts lifetimes that never end, and returns when all are started: steps are taken as fast as they can be."""
    turn = asyncio.Semaphore(STARTS)

    async def start() -> None:
        async with turn:
            await deployment.service.start("bench_cloud_loop", {"i": 0, "n": ENDLESS}, tenant=TENANT)

    await asyncio.gather(*[start() for _ in range(lifetimes)])


async def _all(deployment: Deployment, lifetimes: int, cycles: int) -> None:
    """Starts so many lifetimes and returns when they have ended."""
    database, service = deployment.database, deployment.service
    ended = await _ended(deployment)
    turn = asyncio.Semaphore(STARTS)

    async def start() -> None:
        async with turn:
            await service.start("bench_cloud_loop", {"i": 0, "n": cycles}, tenant=TENANT)

    await asyncio.gather(*[start() for _ in range(lifetimes)])
    moved, before = time.monotonic(), 0
    while (now := await _ended(deployment)) - ended < lifetimes:
        steps = await database.fetchval("SELECT sum(seq) FROM heads")
        if steps != before:
            moved, before = time.monotonic(), steps
        if time.monotonic() - moved > PATIENCE:
            raise RuntimeError(f"{lifetimes - now + ended} lifetimes do not go on.\n{deployment.complaints()}")
        await asyncio.sleep(LOOK)
    strange = await database.fetchval(_STRANGE)
    if strange:
        raise RuntimeError(f"{strange} lifetimes ended otherwise than COMPLETED.\n{deployment.complaints()}")


_STRANGE = "SELECT count(*) FROM heads WHERE finished_at IS NOT NULL AND status <> 'COMPLETED'"


async def _ended(deployment: Deployment) -> int:
    found: int = await deployment.database.fetchval("SELECT count(*) FROM heads WHERE finished_at IS NOT NULL")
    return found
