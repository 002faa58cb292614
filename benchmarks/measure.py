"""Runs the repetitions, each in a fresh process on one core, Tickwork and the floor by turns; medians as rows."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.peers import scene
from benchmarks.repetition import Job

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("tickwork", "floor")
TIME_LIMIT = 600
"""Seconds that one repetition may take."""


class Metric(msgspec.Struct, frozen=True):
    """A figure of a workload: its unit, and what it has to reach (`at_most` or at least `target`)."""

    name: str
    unit: str
    target: float | None = None
    at_most: bool = False
    ratio_target: float | None = None
    """What value / floor has to be at least."""


class Row(msgspec.Struct, kw_only=True):
    """One line of the report: medians. `ratio` is value / floor; `low` and `high` are the extremes of the value."""

    workload: str
    metric: str
    value: float
    unit: str
    low: float
    high: float
    floor: float | None = None
    ratio: float | None = None
    target: float | None = None
    reached: bool | None = None


METRICS: dict[str, tuple[Metric, ...]] = {
    "W1": (
        Metric("steps/s", "1/s", 2_500, ratio_target=0.6),
        Metric("cycle p50", "ms"),
        Metric("cycle p99", "ms"),
    ),
    "W2": (Metric("steps/s", "1/s", 15_000), Metric("memory", "MB")),
    "W3": (Metric("wall", "s", 3.0, at_most=True), Metric("memory", "MB", 80, at_most=True)),
    "W4": (Metric("tasks/s", "1/s", 10_000),),
    "W5": (Metric("calls repeated", "calls", 1, at_most=True), Metric("going on after", "s", 1.0, at_most=True)),
    "W6": (Metric("last tenth / first", "", 0.9), Metric("bytes/step", "B", 450, at_most=True)),
    "W7": (
        Metric("loops/s", "1/s", 490),
        Metric("loop p50", "ms"),
        Metric("loop p99", "ms", 50, at_most=True),
        Metric("loop p999", "ms"),
        Metric("loop max", "ms"),
        Metric("p99 from return", "ms"),
        Metric("B/thinking", "B"),
        Metric("B/waiting", "B", 2_000, at_most=True),
        Metric("B/one more", "B"),
        Metric("B/after restart", "B", 2_000, at_most=True),
        Metric("list 50", "ms"),
        Metric("inbox", "ms"),
        Metric("answer to end", "ms"),
    ),
    "start": (
        Metric("import tickwork", "ms", 150, at_most=True),
        Metric("tickwork --help", "ms", 250, at_most=True),
    ),
}


class Sizes(msgspec.Struct, kw_only=True):
    """How large the workloads are; `scale` below 1 makes them quick enough for a test."""

    scale: float = 1.0
    long: bool = False

    def job(self, workload: str) -> Job:
        """The job of a workload; engine and home are filled in for each repetition."""
        job = Job(engine="tickwork", workload=workload, home="")
        if workload == "W1":
            job.cycles = self._part(500)
        elif workload == "W2":
            job.runs, job.cycles = self._part(1_000), 10
        elif workload == "W3":
            job.runs, job.cycles, job.seconds = self._part(5_000), 2, max(1.0 * self.scale, 0.01)
        elif workload == "W4":
            job.width, job.cycles = self._part(100), 10
        elif workload == "W5":
            job.cycles = self._part(100)
        elif workload == "W6":
            job.cycles = self._part(20_000 if self.long else 2_000)
        elif workload == "W7":
            # As many loops a second at every scale: fewer lifetimes think less long.
            job.runs, job.seconds = self._part(10_000), 20.0 * self.scale
            job.waiting = self._part(50_000 if self.long else 10_000)
        return job

    def _part(self, whole: int) -> int:
        return max(int(whole * self.scale), 4)


def measure(workloads: Sequence[str], reps: int, sizes: Sizes) -> Iterator[Row]:
    """The rows of these workloads. Both engines take turns, so that a slow minute of the machine hits both."""
    for workload in workloads:
        if workload == "start":
            yield from _start_up(reps)
            continue
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
        for _ in range(reps):
            for engine in ENGINES:
                job = sizes.job(workload)
                job.engine = engine
                found[engine].append(repetition(job))
        for metric in METRICS[workload]:
            values, floors = ([f[metric.name] for f in found[name] if metric.name in f] for name in ENGINES)
            yield _row(workload, metric, values, floors)


def _row(workload: str, metric: Metric, values: list[float], floors: list[float]) -> Row:
    value = statistics.median(values)
    floor = statistics.median(floors) if floors else None  # it has no lifetimes that wait
    ratio = value / floor if floor else None
    low, high = min(values), max(values)
    row = Row(workload=workload, metric=metric.name, value=value, unit=metric.unit, low=low, high=high)
    row.floor, row.ratio = floor, ratio
    row.target = metric.target
    if metric.target is not None:
        row.reached = value <= metric.target if metric.at_most else value >= metric.target
        if metric.ratio_target is not None and ratio is not None:
            row.reached = row.reached and ratio >= metric.ratio_target
    return row


def repetition(job: Job) -> dict[str, float]:
    """One repetition in a home of its own, on disk. Raises RuntimeError with what the process said when it failed."""
    with tempfile.TemporaryDirectory(prefix="tickwork-bench-") as home, scene(job.engine, Path(home)):
        job.home = home
        job.core = _quietest_core()
        if job.workload == "W5":
            first = _process(msgspec.structs.replace(job, workload="W5-kill"))
            if first.returncode != -signal.SIGKILL:
                raise RuntimeError(f"W5: the first process was to kill itself, but: {first.stderr or first.stdout}")
        figures: dict[str, float] = {}
        for stage in _stages(job):
            done = _process(msgspec.structs.replace(job, workload=stage))
            if done.returncode != 0:
                raise RuntimeError(f"{stage} on {job.engine} failed:\n{done.stderr}")
            figures |= msgspec.json.decode(done.stdout, type=dict[str, float])
        return figures


def _stages(job: Job) -> tuple[str, ...]:
    """The processes, one after the other, that measure a workload."""
    if job.workload != "W7":
        return (job.workload,)
    return ("W7-loops",) if job.engine == "floor" else ("W7-loops", "W7-waits", "W7-restart")


def _quietest_core() -> int | None:
    """The core on which others work least just now: a busy one makes every wait for the disk a wait for a turn."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    before = _busy_ticks()
    time.sleep(0.2)
    after = _busy_ticks()
    return min(os.sched_getaffinity(0), key=lambda core: after.get(core, 0) - before.get(core, 0))


def _busy_ticks() -> dict[int, int]:
    """By core: how long it has worked so far."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, *rest = [int(each) for each in ticks]
            found[int(name[3:])] = user + nice + system + sum(rest)
    return found


def _process(job: Job) -> subprocess.CompletedProcess[str]:
    job.spawned_at = time.time()
    command = [sys.executable, "-m", "benchmarks.repetition", msgspec.json.encode(job).decode()]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)


def _start_up(reps: int) -> Iterator[Row]:
    """Wall time of whole processes; the floor is an interpreter that does nothing."""
    commands = {
        "floor": [sys.executable, "-c", "pass"],
        "import tickwork": [sys.executable, "-c", "import tickwork"],
        "tickwork --help": [sys.executable, "-m", "tickwork.cli.main", "--help"],
    }
    script = Path(sys.executable).with_name("tickwork")
    if script.exists():
        commands["tickwork --help"] = [str(script), "--help"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(max(reps, 3) + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
            times[name].append((time.perf_counter() - started) * 1e3)
    # The first round only warms the file cache.
    for metric in METRICS["start"]:
        yield _row("start", metric, times[metric.name][1:], times["floor"][1:])
