"""How fast the past is judged again: a home with many records, and other policies over all of them.

    python -m benchmarks.what_if [--records 1000000] [--profile] [--kinds lifetime tenant mixed]

The logs are those of a loop of ten Plans and ten Tasks, of many lifetimes at the same time, written straight into the
database; then the use case behind `tickwork guardrails what-if` reads them, on one core, in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from tickwork import Context, Graph, plan, task
from tickwork.clock import RandomIds, SystemClock
from tickwork.formats.policies import read_policies
from tickwork.hindsight import Hindsight, Trial
from tickwork.model.ids import DEFAULT_TENANT, exec_id
from tickwork.model.lifetime import Projection
from tickwork.model.messages import Append
from tickwork.model.policy import PolicyDocument
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.starting import first_entries, new_lifetime
from tickwork.ports import StateAdapter, StoredGraph
from tickwork.profiles import Profile
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import run_graph

TURNS = 10
SIDE_BY_SIDE = 200
POLICIES = 10


def loop() -> Graph:
    """A Plan that sends a Task out again and again."""

    @plan
    def again(_job: Any, ctx: Context) -> str:
        return "work" if ctx.iteration < TURNS else "end"

    @task(maximum={"tokens": 2_000, "cost_usd": "0.02"})
    def work(_job: Any, ctx: Context) -> Any:
        ctx.telemetry.record(
            tokens_in=900, tokens_out=100, tokens_used=1_000, cost_usd="0.01", model="m-1", prices="none"
        )
        return {"turn": ctx.iteration}

    graph = Graph("loop", "1.0.0")
    graph.start(again)
    graph.then(again, work)
    graph.edge(work, again)
    graph.final(again)
    return graph


def policies(kind: str) -> PolicyDocument:
    """Ten of one kind, each of which looks at every record and dispatch and is never breached; or five of each."""
    lines = {
        "lifetime": [
            "{{name: tokens{n}, when: sum(tokens_used) > {big}, action: abort_lifetime}}",
            "{{name: money{n}, when: sum(cost_usd) > {big}, action: pause_lifetime}}",
            "{{name: count{n}, match: {{kind: task}}, when: count() > {big}, action: pause_lifetime}}",
            "{{name: loop{n}, when: iterations('work') > {big}, action: abort_lifetime}}",
            "{{name: large{n}, when: max(tokens_used) > {big}, action: warn}}",
        ],
        "tenant": [
            "{{name: day{n}, scope: tenant, window: 24h, when: sum(cost_usd) > {huge}, action: pause_lifetime}}",
            "{{name: hour{n}, scope: tenant, window: 1h, when: sum(tokens_used) > {huge}, action: warn}}",
            "{{name: month{n}, scope: tenant, window: {{calendar: month}}, when: sum(cost_usd) > 1e11, action: warn}}",
            "{{name: ever{n}, scope: tenant, when: count() > {huge}, action: pause_lifetime}}",
            "{{name: model{n}, scope: tenant, match: {{model: m-*}}, when: sum(cost_usd) > {huge}, action: warn}}",
        ],
    }
    lines["mixed"] = [*lines["lifetime"], *lines["tenant"]]
    text = [lines[kind][n % len(lines[kind])].format(n=n, big=10**6 + n, huge=10**12 + n) for n in range(POLICIES)]
    return read_policies("version: 1\npolicies:\n" + "\n".join(f"  - {line}" for line in text))


async def write(store: StateAdapter, bound: BoundGraph, log: list[LogEntry], records: int) -> int:
    """Fills the database; how many entries that are."""
    executions = sum(isinstance(logged.entry, Execution) for logged in log)
    now = SystemClock().now()
    body = msgspec.json.encode(bound.graph)
    graph = StoredGraph(DEFAULT_TENANT, bound.graph.name, "1.0.0", bound.graph.digest, body, "", now)
    await store.put_graph(graph)
    ids = RandomIds(seed=2)
    lifetimes = -(-records // executions)
    for first in range(0, lifetimes, SIDE_BY_SIDE):
        made = []
        for _ in range(min(SIDE_BY_SIDE, lifetimes - first)):
            lifetime = new_lifetime(ids.lifetime_id(SystemClock().now()), graph, SystemClock().now(), {}, None)
            await store.create_lifetime(lifetime, first_entries(lifetime, None))
            made.append(lifetime.lifetime_id)
        for step in range(1, len(log)):
            appends = [append(log[step], one, last=step == len(log) - 1) for one in made]
            await store.append(appends)
    return lifetimes * len(log)


def append(logged: LogEntry, lifetime_id: str, *, last: bool) -> Append:
    """One entry of the log, for another lifetime: its ids derive from that one's."""
    projection = Projection("COMPLETED") if last else None
    return Append(DEFAULT_TENANT, lifetime_id, (of(logged.entry, lifetime_id),), projection)


def of(entry: Execution | Event, lifetime_id: str) -> Execution | Event:
    if isinstance(entry, Execution):
        mine = exec_id(lifetime_id, entry.branch, entry.name, entry.iteration, entry.attempt)
        return msgspec.structs.replace(entry, exec_id=mine)
    return entry


async def judge(home: Path, kind: str) -> tuple[int, float]:
    """How many records were judged in how many seconds."""
    profile = Profile.local(home)
    clock = SystemClock()
    store, blobs = profile.open_store(clock, readonly=True), profile.open_blobs(clock)
    await store.start()
    await blobs.start()
    began, cpu = time.perf_counter(), time.process_time()
    findings = await Hindsight(store, blobs, clock).judge(Trial(documents=(policies(kind),), tenants=(DEFAULT_TENANT,)))
    seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    await store.stop()
    troubles = [judged.trouble for judged in findings.changed if judged.trouble]
    if troubles or findings.total.paused:
        raise SystemExit(f"nothing was to be stopped: {troubles[:1]} {findings.total}")
    print(
        f"{kind:8} {findings.records:,} records of {findings.lifetimes:,} lifetimes in {seconds:.1f} s "
        f"(CPU {busy:.1f} s): {findings.records / seconds:,.0f} records/s"
    )
    return findings.records, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="*", default=["lifetime", "tenant", "mixed"])
    parser.add_argument("--home", help="a home that an earlier run has filled")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tickwork-what-if-") as folder:
        home = Path(options.home or folder)
        if not (home / "tickwork.db").exists():
            bound = loop().bind()
            entries = asyncio.run(fill(home, bound, run_graph(bound).log, options.records))
            size = (home / "tickwork.db").stat().st_size / 1e6
            print(f"{entries:,} entries written, {size:,.0f} MB; {POLICIES} policies of each kind")
        for kind in options.kinds:
            if not options.profile:
                asyncio.run(judge(home, kind))
                continue
            profiler = cProfile.Profile()
            profiler.runcall(asyncio.run, judge(home, kind))
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


async def fill(home: Path, bound: BoundGraph, log: list[LogEntry], records: int) -> int:
    store = Profile.local(home).open_store(SystemClock())
    await store.start()
    try:
        return await write(store, bound, log, records)
    finally:
        await store.stop()


if __name__ == "__main__":
    main()
