"""Where the time of a step goes: W2 under the profiler, by function and by part of Tickwork.

    python -m benchmarks.profile_step [--runs 300] [--lines 30] [--workload W1|W2|W4]

The profiler itself makes small functions look dearer than they are: read the order, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.workloads import Tickwork

SOURCE = f"{os.sep}tickwork{os.sep}"


async def profiled(workload: str, runs: int) -> tuple[cProfile.Profile, int, float]:
    """The profile, how many steps were made, and the seconds that they took."""
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory(prefix="tickwork-bench-") as home:
        async with Tickwork(Path(home)) as engine:
            await engine.many(20, 2, 0.0)
            started = time.perf_counter()
            profiler.enable()
            if workload == "W1":
                await engine.line(runs)
                steps = 2 * runs
            elif workload == "W4":
                await engine.fan(100, max(runs // 30, 1))
                steps = 101 * max(runs // 30, 1)
            else:
                await engine.many(runs, 10, 0.0)
                steps = 20 * runs
            profiler.disable()
            return profiler, steps, time.perf_counter() - started


def part_of(file: str, function: str) -> str:
    """The part of Tickwork, or the library, that a function belongs to."""
    if SOURCE in file:
        return "tickwork/" + file.rpartition(SOURCE)[2].removesuffix(".py")
    if "sqlite3" in function:
        return "sqlite3"
    if "msgspec" in function or "encode" in function or "decode" in function:
        return "msgspec"
    if "asyncio" in file or "_asyncio" in function or "select" in function or "Context" in function:
        return "asyncio"
    return "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=["W1", "W2", "W4"], default="W2")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--lines", type=int, default=30)
    options = parser.parse_args()
    profiler, steps, seconds = asyncio.run(profiled(options.workload, options.runs))
    stats = pstats.Stats(profiler)
    print(f"{steps} steps in {seconds:.2f} s under the profiler: {seconds / steps * 1e6:.0f} us a step")
    parts: Counter[str] = Counter()
    rows = []
    for (file, line, function), (_, calls, own, whole, _) in stats.stats.items():  # type: ignore[attr-defined]  # it has no stub
        parts[part_of(file, function)] += own
        name = file.rpartition(SOURCE)[2] if SOURCE in file else Path(file).name
        rows.append((own, whole, calls, f"{name}:{line} {function}"))
    print("\nown time by part, us a step")
    for part, own in parts.most_common(20):
        print(f"  {own / steps * 1e6:8.1f}  {part}")
    print("\nown time by function, us a step (with what it calls; calls a step)")
    for own, whole, calls, name in sorted(rows, reverse=True)[: options.lines]:
        print(f"  {own / steps * 1e6:8.1f}  {whole / steps * 1e6:8.1f}  {calls / steps:7.2f}  {name}")


if __name__ == "__main__":
    main()
