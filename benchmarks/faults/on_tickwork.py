"""The workload on Tickwork's local profile. The name of a run is its idempotency key."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.faults import shapes
from tickwork import END, Graph, Next, Plan, PlanInput, PlanResult, Task, plan, task
from tickwork.errors import AlreadyEnded
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

MOST_RUNS = 1_000


def _task(k: int) -> Task:
    async def work(value: dict[str, Any]) -> dict[str, Any]:
        return await shapes.line_task(k, value)

    return task(name=f"step{k}")(work)


def _plan(k: int) -> Plan:
    async def choose(value: dict[str, Any]) -> str:
        await shapes.line_plan(k, value)
        return f"step{k + 1}"

    return plan(name=f"then{k}")(choose)


@plan
async def decide(value: dict[str, Any]) -> str:
    return "work" if await shapes.loop_plan(value) else END


@task
async def work(value: dict[str, Any]) -> dict[str, Any]:
    return await shapes.loop_task(value)


@plan
async def spread(value: dict[str, Any]) -> list[Next]:
    return [Next("part", each) for each in await shapes.fan_plan(value)]


@task
async def part(value: dict[str, Any]) -> dict[str, Any]:
    return await shapes.fan_branch(value)


@plan
async def gather(plan_input: PlanInput) -> PlanResult:
    return PlanResult("total", output=await shapes.fan_join(plan_input.value))


@task
async def total(value: dict[str, Any]) -> dict[str, Any]:
    return await shapes.fan_end(value)


def line() -> Graph:
    """Tasks in a row, Plans between them."""
    tasks = [_task(k) for k in range(shapes.TASKS)]
    graph = Graph("line", "1.0.0").start(tasks[0])
    for k, (before, after) in enumerate(itertools.pairwise(tasks)):
        between = _plan(k)
        graph.edge(before, between).edge(between, after)
    return graph.final(tasks[-1])


def loop() -> Graph:
    """A Plan and a Task in turns."""
    return Graph("loop", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)


def fan() -> Graph:
    """A fan-out, joined."""
    graph = Graph("fan", "1.0.0").start(spread).parallel(spread, part).join(part, gather)
    return graph.edge(gather, total).final(total)


class OnTickwork:
    """Binding the graphs is all that a new process does; what a dead one left goes on."""

    def __init__(self, home: Path) -> None:
        self._runtime = Runtime(Profile.local(home))
        self._ids: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        for make in (line, loop, fan):
            await self._runtime.bind(make().bind())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, trace)

    async def begin(self, run: str) -> bool:
        """On disk when `start` returns."""
        started = await self._runtime.service.start(shapes.shape_of(run), shapes.given(run), idempotency_key=run)
        self._ids[run] = started.lifetime_id
        return True

    async def known(self, run: str) -> bool:
        """By its idempotency key."""
        if run not in self._ids:
            for each in await self._runtime.service.list(LifetimeQuery(limit=MOST_RUNS)):
                if each.idempotency_key is not None:
                    self._ids[each.idempotency_key] = each.lifetime_id
        return run in self._ids

    async def resume(self, run: str) -> None:
        """As `tickwork lifetimes resume`; never needed so far."""
        try:
            await self._runtime.service.resume(self._ids[run])
        except AlreadyEnded:
            return

    async def result(self, run: str) -> dict[str, Any]:
        """Waits until the lifetime has ended."""
        await self._runtime.guard(self._runtime.service.wait(self._ids[run]))
        outcome = await self._runtime.service.result(self._ids[run])
        if outcome.status != "COMPLETED":
            raise RuntimeError(f"{run} ended {outcome.status}: {outcome.reason}")
        return dict(outcome.result)
