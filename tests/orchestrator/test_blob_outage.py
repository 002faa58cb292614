"""A blob store that is away stops the lifetimes that need it, and no other one."""

from __future__ import annotations

import asyncio

from tests.orchestrator.site import Site, play
from tickwork import END, Graph, task

calls: list[str] = []


@task
async def work(size: int) -> dict[str, object]:
    calls.append("work")
    await asyncio.sleep(1)
    return {"route": "good", "text": "x" * size}


def test_a_lifetime_whose_payload_cannot_be_had_waits_and_the_others_go_on() -> None:
    calls.clear()
    graph = Graph("one").start(work)
    graph.edge(work, END, when="result.route == 'good'")

    async def scene(at: Site) -> None:
        await at.worker()
        large = await at.service.start("one", 2_000_000)
        await at.clock.sleep(0.5)
        small = await at.service.start("one", 10)
        at.blobs.unreadable = True
        await at.service.wait(small.lifetime_id)
        await at.clock.sleep(100)
        assert (await at.service.get(small.lifetime_id)).status == "COMPLETED"
        assert (await at.service.get(large.lifetime_id)).status == "RUNNING"
        assert at.control.metrics()["unserved"] == 1
        at.blobs.unreadable = False
        began = at.clock.monotonic()
        await at.service.wait(large.lifetime_id)
        assert (await at.service.get(large.lifetime_id)).status == "COMPLETED"
        assert at.clock.monotonic() - began < 5
        assert at.control.metrics()["unserved"] == 0
        assert calls == ["work", "work"]

    play(graph.bind(), scene)
