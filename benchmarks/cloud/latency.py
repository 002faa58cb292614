"""Latencies from the executors' samples: every planner loop that was due in some spans of time, the late ones too.

A loop that was due and has not begun counts as one that takes from then until now: it cannot be left out of a
percentile because it never came.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.cloud.graphs import LINE
from benchmarks.cloud.schedule import Schedule
from benchmarks.meter import quantile


class Latencies(msgspec.Struct, frozen=True):
    """Of the loops that were due in a stretch of time: milliseconds from when the Task was to return."""

    rate: float
    """Loops due a second."""
    reached: float
    """Loops a second that began in that time, whenever they were due."""
    count: int
    late: int
    """Loops that had not begun when the samples were read."""
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float
    p99_from_return: float
    """Without the delay of the Task itself, whose return waits for its turn on the executor's event loop."""


class Samples:
    """What the executors have written so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.began: dict[tuple[int, int], tuple[float, float, float]] = {}
        """By lifetime and loop: when the Task before was to return, when it did, when this one began first."""
        self.again = 0
        """Calls that were made again: a delivery came twice."""

    def read(self) -> None:
        """Takes in what is new."""
        for file in self._folder.glob("samples-*"):
            with file.open("rb") as opened:
                opened.seek(self._read.get(file, 0))
                data = opened.read()
            data = data[: len(data) - len(data) % LINE.size]
            self._read[file] = self._read.get(file, 0) + len(data)
            for life, loop, due, back, began in LINE.iter_unpack(data):
                if (life, loop) in self.began:
                    self.again += 1
                else:
                    self.began[life, loop] = (due, back, began)

    def opened(self, lives: Sequence[int]) -> int:
        """How many of these lifetimes have begun their first Task."""
        return sum((life, 0) in self.began for life in lives)


def within(moment: float, spans: Sequence[tuple[float, float]]) -> bool:
    """Whether a moment lies in one of these spans of time."""
    return any(opens <= moment < closes for opens, closes in spans)


def latencies(
    samples: Samples,
    groups: Sequence[tuple[Schedule, Sequence[int]]],
    spans: Sequence[tuple[float, float]],
    now: float,
) -> Latencies:
    """Of all loops of these lifetimes, each group with its schedule, that were due in these spans of time. RuntimeError
    when there are none."""
    seconds = sum(closes - opens for opens, closes in spans)
    times: list[float] = []
    from_return: list[float] = []
    late = 0
    for schedule, life in [(schedule, life) for schedule, lives in groups for life in lives]:
        for loop, due in enumerate(schedule.dues(life), 1):
            if due >= spans[-1][1]:
                break
            if not within(due, spans):
                continue
            found = samples.began.get((life, loop))
            if found is None:
                late += 1
                times.append(now - due)
                from_return.append(now - due)
            else:
                times.append(found[2] - due)
                from_return.append(found[2] - found[1])
    if not times:
        raise RuntimeError(f"no planner loop was due in {seconds:g} s; take more lifetimes or a higher rate")
    times.sort()
    from_return.sort()
    mine = frozenset([life for _, lives in groups for life in lives])
    reached = sum(within(began[2], spans) for (life, loop), began in samples.began.items() if loop and life in mine)
    p50, p90, p99, p999 = (1e3 * quantile(times, q) for q in (0.5, 0.9, 0.99, 0.999))
    return Latencies(
        len(times) / seconds, reached / seconds, len(times), late,
        p50, p90, p99, p999, 1e3 * times[-1], 1e3 * quantile(from_return, 0.99),
    )  # fmt: skip
