"""Tickwork, the floor and the peers on the same workloads in one run, by turns, each repetition pinned to one core."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence

import msgspec

import tickwork
from benchmarks.measure import Sizes, repetition
from benchmarks.peers import PEERS

METRICS: dict[str, tuple[tuple[str, str], ...]] = {
    "W1": (("steps/s", "1/s"), ("cycle p50", "ms"), ("cycle p99", "ms")),
    "W2": (("steps/s", "1/s"), ("memory", "MB")),
    "W3": (("wall", "s"), ("memory", "MB")),
    "W4": (("tasks/s", "1/s"),),
    "W5": (("calls repeated", "calls"), ("going on after", "s")),
    "W6": (("steps/s", "1/s"), ("last tenth / first", ""), ("bytes/step", "B")),
}
"""What is shown of each workload: name and unit."""
OWN = ("tickwork", "floor")
PATIENCE = 60.0
"""Seconds. Who has used more of them in a workload is not measured again in it."""


class Figure(msgspec.Struct, kw_only=True):
    """Medians of one engine in one workload, by metric; `failed` instead when a repetition failed."""

    workload: str
    engine: str
    version: str
    repetitions: int = 0
    values: dict[str, float] = {}
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    failed: str | None = None


def version(engine: str) -> str:
    """The installed version of an engine; the floor has none."""
    if engine == "floor":
        return ""
    return tickwork.__version__ if engine == "tickwork" else PEERS[engine].version()


def side_by_side(workloads: Sequence[str], engines: Sequence[str], reps: int, sizes: Sizes) -> Iterator[Figure]:
    """The figures of these engines, workload by workload. They take turns: a slow minute hits all of them."""
    for workload in workloads:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
        used = dict.fromkeys(engines, 0.0)
        failed: dict[str, str] = {}
        for _ in range(reps):
            for name in engines:
                if used[name] > PATIENCE or name in failed:
                    continue
                job = sizes.job(workload)
                job.engine = name
                started = time.monotonic()
                try:
                    found[name].append(repetition(job))
                except (RuntimeError, subprocess.SubprocessError) as error:
                    failed[name] = str(error).strip()
                used[name] += time.monotonic() - started
        for name in engines:
            yield _figure(workload, name, found[name], failed.get(name))


def _figure(workload: str, engine: str, found: list[dict[str, float]], failed: str | None) -> Figure:
    figure = Figure(workload=workload, engine=engine, version=version(engine), failed=failed)
    figure.repetitions = len(found)
    for name, _ in METRICS[workload]:
        if values := [each[name] for each in found if name in each]:
            figure.values[name] = statistics.median(values)
            figure.lows[name], figure.highs[name] = min(values), max(values)
    return figure
