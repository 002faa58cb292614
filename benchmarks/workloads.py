"""The workloads on Tickwork: graphs built with the SDK, run through the Runtime on the local profile.

A cycle is one Plan and one Task, so two steps. Both do nothing; the Task returns about 200 bytes. They are `async def`
so that no thread is measured: a sync function would be called in one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result
from tickwork import END, Graph, Next, PlanInput, plan, task
from tickwork.profiles import Profile
from tickwork.runtime import Runtime


@plan
async def decide(value: dict[str, Any]) -> str:
    return "work" if value["i"] < value["n"] else END


@task
async def work(value: dict[str, Any]) -> dict[str, Any]:
    METER.tick()
    LEDGER.call(value["i"])
    return result(value["i"] + 1, value["n"])


@task
async def slow(value: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(value.get("seconds", 0))
    METER.tick()
    return result(value["i"] + 1, value["n"]) | {"seconds": value.get("seconds", 0)}


@plan
async def decide_slow(value: dict[str, Any]) -> str:
    return "slow" if value["i"] < value["n"] else END


@plan
async def spread(plan_input: PlanInput) -> list[Next] | str:
    size = plan_input.context.lifetime.input
    if plan_input.iteration == size["rounds"]:
        return END
    return [Next("part", {"k": k}) for k in range(size["width"])]


@task
async def part(value: dict[str, Any]) -> dict[str, Any]:
    METER.tick()
    return result(value["k"], 0)


LOOP = Graph("bench_loop", "1.0.0")
LOOP.start(decide).edge(decide, work).edge(work, decide).final(decide)

SLOW_LOOP = Graph("bench_slow_loop", "1.0.0")
SLOW_LOOP.start(decide_slow).edge(decide_slow, slow).edge(slow, decide_slow).final(decide_slow)

FAN = Graph("bench_fan", "1.0.0")
FAN.start(spread).edge(spread, part, kind="PARALLEL").edge(part, spread, kind="JOIN").final(spread)


class Tickwork:
    """The workloads on Tickwork."""

    name = "tickwork"

    def __init__(self, home: Path) -> None:
        self._runtime = Runtime(Profile.local(home))

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        for graph in (LOOP, SLOW_LOOP, FAN):
            await self._runtime.bind(graph.bind())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runtime.__aexit__(kind, error, trace)

    async def line(self, cycles: int) -> None:
        """One lifetime of `cycles` cycles."""
        await self._runtime.guard(self._whole("bench_loop", {"i": 0, "n": cycles}))

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many lifetimes at the same time; each task takes `seconds`."""
        name, given = ("bench_slow_loop", {"seconds": seconds}) if seconds else ("bench_loop", {})
        lifetimes = asyncio.gather(*[self._whole(name, {"i": 0, "n": cycles} | given) for _ in range(runs)])
        await self._runtime.guard(lifetimes)

    async def fan(self, width: int, rounds: int) -> None:
        """One lifetime that opens `width` branches and joins them, `rounds` times."""
        await self._runtime.guard(self._whole("bench_fan", {"width": width, "rounds": rounds}))

    async def go_on(self) -> None:
        """Takes up the lifetime that a dead process left."""
        service = self._runtime.service
        (lifetime,) = await service.list()
        await self._runtime.guard(self._completed(lifetime.lifetime_id))

    async def _whole(self, graph: str, given: Any) -> None:
        await self._completed((await self._runtime.service.start(graph, given)).lifetime_id)

    async def _completed(self, lifetime_id: str) -> None:
        ended = await self._runtime.service.wait(lifetime_id)
        if ended.status != "COMPLETED":
            raise RuntimeError(f"lifetime {lifetime_id} ended {ended.status}: {ended.reason}")
