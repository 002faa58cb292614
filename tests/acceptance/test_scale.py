"""Large runs on the real Runtime: wide, long, with heavy payloads, and very many that wait."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tickwork import Graph, Next, PlanInput, PlanResult, human, plan, task
from tickwork.model.records import INLINE_LIMIT, Execution
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def resident() -> int:
    """Bytes of memory that this process holds now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


# -- wide -------------------------------------------------------------------------------------------------------------


@plan
async def spread(plan_input: PlanInput) -> list[Next]:
    return [Next("part", k) for k in range(plan_input.value)]


@task
async def part(k: int) -> int:
    return k


@plan
async def gathered(plan_input: PlanInput) -> PlanResult:
    values = plan_input.value
    return PlanResult("report", output=[len(values), sum(values)])


@task
async def report(found: list[int]) -> list[int]:
    return found


@pytest.mark.slow
async def test_ten_thousand_branches_join(tmp_path: Path) -> None:
    graph = Graph("wide", "1.0.0").start(spread).parallel(spread, part).join(part, gathered)
    graph.edge(gathered, report).final(report)
    async with Runtime(Profile.local(tmp_path)) as runtime:
        await runtime.bind(graph.bind())
        lifetime = await runtime.service.start("wide", 10_000)
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        outcome = await runtime.service.result(lifetime.lifetime_id)
        assert (outcome.status, outcome.result) == ("COMPLETED", [10_000, 49_995_000])
        assert outcome.executions == 10_003
        (last,) = await runtime.service.log(lifetime.lifetime_id, after=10_004)
        assert last.seq == 10_005


# -- long -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_loop_of_twenty_thousand_steps_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """In a process of its own, whose memory nobody else uses. By step 10,000 its caches are full."""
    command = [sys.executable, "-m", "tests.acceptance.long_loop", str(tmp_path), "20000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["status"] == "COMPLETED"
    grown = seen["at"]["20000"] - seen["at"]["10000"]
    assert grown < 4 * MIB, f"10,000 more steps took {grown / MIB:.1f} MiB more"


# -- heavy ------------------------------------------------------------------------------------------------------------


@task
async def make(megabytes: int) -> bytes:
    return os.urandom(MIB) * megabytes


@plan
async def weigh(plan_input: PlanInput) -> str:
    return "digest" if len(plan_input.value) > MIB else "make"


@task
async def digest(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def test_a_result_of_fifty_megabytes_goes_through_the_blob_store(tmp_path: Path) -> None:
    graph = Graph("heavy", "1.0.0").start(make).edge(make, weigh).then(weigh, digest, make).final(digest)
    async with Runtime(Profile.local(tmp_path)) as runtime:
        await runtime.bind(graph.bind())
        lifetime = await runtime.service.start("heavy", 50)
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        log = await runtime.service.log(lifetime.lifetime_id)
        outcome = await runtime.service.result(lifetime.lifetime_id)
        made = next(e.entry for e in log if isinstance(e.entry, Execution) and e.entry.name == "make")
        assert outcome.status == "COMPLETED", outcome.reason
        assert made.result is not None
        assert made.result.inline is None
        assert made.result.size == 50 * MIB
        assert outcome.result == {"size": 50 * MIB, "sha256": made.result.sha256}
        assert hashlib.sha256(await runtime.service.value(made.result)).hexdigest() == made.result.sha256
    assert (tmp_path / "tickwork.db").stat().st_size < MIB


async def test_a_large_input_goes_through_the_blob_store(tmp_path: Path) -> None:
    @task
    async def length(text: str) -> int:
        return len(text)

    async with Runtime(Profile.local(tmp_path)) as runtime:
        await runtime.bind(Graph("large_input", "1.0.0").start(length).final(length).bind())
        lifetime = await runtime.service.start("large_input", "x" * (2 * INLINE_LIMIT))
        await runtime.guard(runtime.service.wait(lifetime.lifetime_id))
        assert (await runtime.service.result(lifetime.lifetime_id)).result == 2 * INLINE_LIMIT


# -- many that wait ---------------------------------------------------------------------------------------------------

WAITING = 5_000
BYTES_EACH = 8 * 1024
"""What a lifetime that waits may take in memory: there is a cache of recent ones, bounded, and nothing else."""


@pytest.mark.slow
async def test_five_thousand_lifetimes_wait_for_a_person_as_rows(tmp_path: Path) -> None:
    @task
    async def thank(answer: dict[str, Any]) -> str:
        return f"thanks for {answer['ok']}"

    @plan
    async def read(answer: dict[str, Any]) -> str:
        return "thank" if answer["ok"] else "ask"

    ask = human("ask", prompt="Is {input} all right?", answer_schema={"type": "object", "required": ["ok"]})
    graph = Graph("ask", "1.0.0").start(ask).edge(ask, read).then(read, thank, ask).final(thank)
    async with Runtime(Profile.local(tmp_path)) as runtime:
        await runtime.bind(graph.bind())
        service = runtime.service
        await _settled(runtime, [(await service.start("ask", k)).lifetime_id for k in range(100)])
        tasks, memory = len(asyncio.all_tasks()), resident()
        started = [
            each.lifetime_id for each in await asyncio.gather(*[service.start("ask", k) for k in range(WAITING)])
        ]
        await _settled(runtime, started)
        assert len(asyncio.all_tasks()) == tasks, "a lifetime that waits is a row, not a coroutine"
        each = (resident() - memory) / WAITING
        assert each < BYTES_EACH, f"{each:.0f} bytes for each lifetime that waits"
        waiting = await service.list(LifetimeQuery(statuses=("WAITING",), limit=2 * WAITING))
        assert len(waiting) == WAITING + 100
        for lifetime_id in (started[0], started[2_500], started[-1]):  # also such as are in no cache any more
            await service.answer(lifetime_id, {"ok": True}, by="ann")
            ended = await runtime.guard(service.wait(lifetime_id))
            assert ended.status == "COMPLETED"
            assert (await service.result(lifetime_id)).result == "thanks for True"


async def _settled(runtime: Runtime, lifetime_ids: list[str]) -> None:
    for lifetime_id in lifetime_ids:
        assert (await runtime.guard(runtime.service.wait(lifetime_id, until="settled"))).status == "WAITING"
