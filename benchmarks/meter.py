"""What a measured process reads about itself: when its tasks ran, its memory, the bytes of its files."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any


class Meter:
    """Counts the calls of the task of a workload. One for a process: tasks are plain functions and reach it here."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self) -> None:
        """The body of a task ran."""
        self.ticks.append(time.perf_counter())

    def gaps(self) -> list[float]:
        """Seconds between two calls, sorted."""
        return sorted(b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False))

    def rate(self, first: int, last: int) -> float:
        """Calls a second between call number `first` and call number `last`."""
        return (last - first) / (self.ticks[last] - self.ticks[first])


METER = Meter()


def result(i: int, n: int) -> dict[str, Any]:
    """What a task returns: about 200 bytes as JSON."""
    return {"i": i, "n": n, "ok": True, "kind": "result", "text": "x" * 140}


def quantile(ordered: list[float], q: float) -> float:
    """The value below which the fraction `q` of a sorted list lies."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def peak_mb() -> float:
    """The most memory (MB) that this process has held. What it inherited from its parent does not count."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_bytes() -> int:
    """Bytes of memory that this process holds now (Linux; elsewhere the most that it has held)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return int(peak_mb() * 1024 * 1024)


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder. Close the databases first: that folds their write-ahead logs in."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
