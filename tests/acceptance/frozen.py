"""A process whose tasks wait at a gate, so that it can be frozen while they run; prints how it went.

python -m tests.acceptance.frozen HOME LEASE. In HOME's parent lie `ledger` (a line a call) and `gate` (let them go).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from tickwork import END, Graph, PlanResult, plan, task
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

FOLDER = Path(sys.argv[1]).parent if len(sys.argv) > 1 else Path()


def note(node: str) -> None:
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(f"{node}\n")
        ledger.flush()
        os.fsync(ledger.fileno())


def open_now() -> bool:
    return (FOLDER / "gate").exists()


@task
async def on_the_loop(value: object) -> int:
    note("on_the_loop")
    while not open_now():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.01)
    return 1


@task
def in_a_thread(value: object) -> int:
    note("in_a_thread")
    while not open_now():
        time.sleep(0.01)
    return 1


@task(effect="at_most_once")
def once(value: object) -> int:
    note("once")
    while not open_now():
        time.sleep(0.01)
    return 1


@plan
def split(value: object) -> list[str]:
    return ["on_the_loop", "in_a_thread", "once"]


@plan
def total(values: list[int]) -> PlanResult:
    return PlanResult(END, output=sum(values))


NODES = (on_the_loop, in_a_thread, once)
GRAPH = Graph("frozen", "1.0.0").start(split).parallel(split, *NODES).final(total)
for each in NODES:
    GRAPH.join(each, total)
    GRAPH.edge(total, each)


async def main() -> None:
    """One lifetime, to its end; what it came to, and which attempts were lost."""
    async with Runtime(Profile.local(Path(sys.argv[1])), lease=float(sys.argv[2])) as runtime:
        await runtime.bind(GRAPH.bind())
        lifetime = await runtime.service.start("frozen")
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        outcome = await runtime.service.result(lifetime.lifetime_id)
        print(outcome.status, outcome.result, outcome.executions)


if __name__ == "__main__":
    asyncio.run(main())
