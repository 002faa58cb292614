"""A lifetime that goes round many times, and what memory its process holds on the way: JSON on stdout.

python -m tests.acceptance.long_loop HOME STEPS
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from tickwork import END, Graph, plan, task
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

seen: dict[int, int] = {}


def look(steps: int) -> None:
    """Notes the memory held now, every 5,000 steps."""
    if steps % 5_000 == 0:
        gc.collect()
        seen[steps] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@plan
async def decide(value: dict[str, Any]) -> str:
    return "work" if value["i"] < value["n"] else END


@task
async def work(value: dict[str, Any]) -> dict[str, Any]:
    look(2 * (value["i"] + 1))
    # Large enough that the caches, which are bounded, are full long before the first memory that is compared.
    return {"i": value["i"] + 1, "n": value["n"], "text": "x" * 10_000}


async def go(home: Path, steps: int) -> str:
    """Runs it to its end."""
    graph = Graph("long_loop", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)
    async with Runtime(Profile.local(home)) as runtime:
        await runtime.bind(graph.bind())
        lifetime = await runtime.service.start("long_loop", {"i": 0, "n": steps // 2})
        return (await runtime.guard(runtime.service.wait(lifetime.lifetime_id))).status


if __name__ == "__main__":
    status = asyncio.run(go(Path(sys.argv[1]), int(sys.argv[2])))
    print(json.dumps({"status": status, "at": seen}))
