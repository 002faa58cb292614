"""A process to be killed: starts lifetimes of several shapes, or takes up those that a killed one left behind.

    python -m tests.acceptance.victim HOME LEDGER RUNS

Every call of user code is written to the ledger, and synced, before anything else happens. Starting is idempotent, so
each life of the process does the same. It ends by itself when all lifetimes have ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tickwork import (
    END,
    Graph,
    Next,
    Plan,
    PlanInput,
    PlanResult,
    RetryableError,
    RetryPolicy,
    TaskInput,
    child,
    plan,
    sleep,
    task,
)
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

PAUSE = 0.03
LOOPS = 20
BRANCHES = 10
ledger = -1


def called(given: TaskInput) -> None:
    """Writes the call down; when this returns, it is on disk."""
    line = [given.lifetime_id, given.exec_id, given.node, given.iteration, [e.exec_id for e in given.executions]]
    os.write(ledger, json.dumps(line).encode() + b"\n")
    os.fsync(ledger)


async def add_one(task_input: TaskInput) -> int:
    called(task_input)
    await asyncio.sleep(PAUSE)
    return int(task_input.value) + 1


def add_one_in_a_thread(task_input: TaskInput) -> int:
    called(task_input)
    time.sleep(PAUSE)
    return int(task_input.value) + 1


@plan
async def decide(plan_input: PlanInput) -> str:
    called(plan_input)
    return "work" if plan_input.value < LOOPS else END


@plan
def spread(plan_input: PlanInput) -> list[Next]:
    called(plan_input)
    return [Next("work", k) for k in range(BRANCHES)]


@plan
async def gathered(plan_input: PlanInput) -> PlanResult:
    called(plan_input)
    return PlanResult("total", output=sum(plan_input.value))


@task
async def total(task_input: TaskInput) -> int:
    called(task_input)
    return int(task_input.value)


async def fail_twice(task_input: TaskInput) -> int:
    called(task_input)
    await asyncio.sleep(PAUSE)
    if task_input.attempt < 3:
        raise RetryableError(f"attempt {task_input.attempt} is to fail")
    return int(task_input.value) + 1


QUICK_RETRY = RetryPolicy(max_attempts=5, initial_interval=0.01, backoff=1.0)
work = task(name="work")(add_one)


def choose(name: str, target: str) -> Plan:
    """A Plan that always takes the same way."""

    async def chosen(plan_input: PlanInput) -> str:
        called(plan_input)
        return target

    return plan(name=name)(chosen)


def line() -> Graph:
    """Six Tasks in a row, every other one sync, with Plans between them."""
    graph = Graph("line", "1.0.0")
    tasks = [task(name=f"step{k}")(add_one_in_a_thread if k % 2 else add_one) for k in range(6)]
    graph.start(tasks[0])
    for k, (before, after) in enumerate(itertools.pairwise(tasks)):
        between = choose(f"then{k}", after.name)
        graph.edge(before, between).edge(between, after)
    return graph.final(tasks[-1])


def loop() -> Graph:
    """A Plan and a Task, in turns."""
    return Graph("loop", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)


def fan() -> Graph:
    """A fan-out, joined."""
    graph = Graph("fan", "1.0.0").start(spread).parallel(spread, work).join(work, gathered)
    return graph.edge(gathered, total).final(total)


def retry() -> Graph:
    """Two Tasks that succeed at the third attempt."""
    one, two = (task(name=name, retry=QUICK_RETRY)(fail_twice) for name in ("one", "two"))
    between = choose("between", "two")
    return Graph("retry", "1.0.0").start(one).edge(one, between).edge(between, two).final(two)


def pause() -> Graph:
    """A durable timer, then a child lifetime."""
    nap, to_sub, sub = sleep("nap", seconds=0.05), choose("to_sub", "sub"), child("sub", graph="line")
    return Graph("pause", "1.0.0").start(nap).edge(nap, to_sub).edge(to_sub, sub).final(sub)


SHAPES: dict[str, tuple[int, dict[str, int]]] = {
    "line": (6, {"SUCCEEDED": 11}),
    "loop": (LOOPS, {"SUCCEEDED": 2 * LOOPS + 1}),
    "fan": (sum(range(1, BRANCHES + 1)), {"SUCCEEDED": BRANCHES + 3}),
    "retry": (2, {"SUCCEEDED": 3, "FAILED": 4}),
    "pause": (6, {"SUCCEEDED": 3}),
}
"""By graph: its result for the input 0, and how many executions of each status its log has in the end."""


async def live(home: Path, runs: int) -> None:
    """One life of the process."""
    async with Runtime(Profile.local(home)) as runtime:
        for make in (line, loop, fan, retry, pause):
            await runtime.bind(make().bind())
        print("up", flush=True)
        names = list(SHAPES)

        async def one(k: int) -> Any:
            name = names[k % len(names)]
            lifetime = await runtime.service.start(name, 0, idempotency_key=f"run-{k}")
            await runtime.guard(runtime.service.wait(lifetime.lifetime_id))

        await asyncio.gather(*[one(k) for k in range(runs)])


def main() -> None:
    global ledger  # noqa: PLW0603 - user code has no other way to reach the file
    home, file, runs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ledger = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(live(home, runs))


if __name__ == "__main__":
    main()
