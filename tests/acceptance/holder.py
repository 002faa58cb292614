"""A process that holds a home and runs one lifetime which never ends by itself: prints its id.

python -m tests.acceptance.holder HOME
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tickwork import Graph, plan, task
from tickwork.profiles import Profile
from tickwork.runtime import Runtime


@plan
async def again() -> str:
    return "tick"


@task
async def tick() -> None:
    await asyncio.sleep(0.01)


async def hold(home: Path) -> None:
    """Runs until it is killed."""
    graph = Graph("endless", "1.0.0").start(again).edge(again, tick).edge(tick, again).final(again)
    async with Runtime(Profile.local(home)) as runtime:
        await runtime.bind(graph.bind())
        lifetime = await runtime.service.start("endless")
        print(lifetime.lifetime_id, flush=True)
        await runtime.guard(asyncio.Event().wait())


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
