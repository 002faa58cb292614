"""New work is refused before work in flight suffers.

In one process alone: the limit is of what a process moves, and asked by those who start lifetimes in that process.
"""

from __future__ import annotations

import asyncio

import pytest

from tickwork import Graph, task
from tickwork.errors import Overloaded
from tickwork.profiles import Profile
from tickwork.runtime import Runtime


async def test_starts_are_refused_while_too_much_moves_and_taken_again_afterwards() -> None:
    gate, running = asyncio.Event(), asyncio.Semaphore(0)

    @task
    async def held() -> str:
        running.release()
        await gate.wait()
        return "done"

    async with Runtime(Profile.test(), max_moving=3) as runtime:
        await runtime.bind(Graph("held").start(held).final(held).bind())
        service = runtime.service
        started = [await service.start("held") for _ in range(3)]
        for _ in started:
            await running.acquire()
        with pytest.raises(Overloaded, match=r"nothing was started\. Try again in a moment, or raise `max_moving`"):
            await service.start("held")
        assert runtime.metrics()["control_plane_moving"] == runtime.metrics()["control_plane_moving_limit"] == 3
        gate.set()
        for lifetime in started:
            await runtime.guard(service.wait(lifetime.lifetime_id))
        after = await service.start("held")
        assert (await runtime.guard(service.wait(after.lifetime_id))).status == "COMPLETED"
