"""`python -m benchmarks cloud [PART...]`: the cloud profile, measured on servers of its own on this machine.

w2          1,000 lifetimes of 10 cycles at the same time, roles in separate processes and all in one
loops       10,000 lifetimes that think: planner loops at rising rates, latency from the schedule
model       what 100,000 and 1,000,000 lifetimes need, from the runs of `loops`, checked against them
scale-out   W2 with 1, 2 and 4 processes of each role
neighbour   tenants' latency with and without another one at a hundred times the load of each
flood       the same beside one that takes all it can get (only when it is named)
soak        a fixed rate for --minutes: throughput and memory of each minute (only when it is named)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.cloud import servers
from benchmarks.cloud.plan import QUICK, SMALL, WHOLE, Sizes
from benchmarks.cloud.report import Report
from tickwork.errors import TickworkError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("w2", "loops", "model", "scale-out", "neighbour", "flood", "soak")
UNASKED = [part for part in PARTS if part not in ("flood", "soak")]
"""What is measured when none is named."""


def main(arguments: Sequence[str]) -> int:
    """Measures and prints. 0 also when a target was missed; 1 when it could not be measured."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sizes = SMALL if options.smoke else QUICK if options.quick else WHOLE
    named = ("lives", "reps", "neighbours", "tenant_rate")
    changes = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    if options.rates:
        changes["rates"] = tuple(float(rate) for rate in options.rates.split(","))
    if options.minutes is not None:
        changes["soak_minutes"] = options.minutes
    if options.rate is not None:
        changes["soak_rate"] = options.rate
    if options.noise is not None:
        changes["neighbour_rate"] = options.noise / sizes.noise
    if options.watch is not None:
        changes["neighbour"] = options.watch
    sizes = msgspec.structs.replace(sizes, **changes)
    parts = options.parts or UNASKED
    report = Report()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    began = time.monotonic()
    try:
        with servers.started() as found:
            asyncio.run(_measure(found, parts, sizes, report))
    except (RuntimeError, TickworkError) as error:
        print(f"benchmarks cloud: {error}", file=sys.stderr)
        return 1
    report.title(f"measured in {time.monotonic() - began:,.0f} s; load of the machine now {os.getloadavg()[0]:.1f}")
    if options.json:
        encoded = msgspec.json.encode({"sizes": sizes, "figures": report.figures, "targets": report.targets})
        Path(options.json).write_bytes(msgspec.json.format(encoded) + b"\n")
    return 0


async def _measure(found: servers.Servers, parts: Sequence[str], sizes: Sizes, report: Report) -> None:
    # Imported here: they pull in all of Tickwork, and a wrong option should be told at once.
    from benchmarks.cloud import parts as measured

    if "w2" in parts:
        await measured.w2(found, sizes, report)
    if "loops" in parts or "model" in parts:
        await measured.loops(found, sizes, report, model="model" in parts)
    if "scale-out" in parts:
        await measured.scale_out(found, sizes, report)
    if "neighbour" in parts:
        await measured.neighbour(found, sizes, report)
    if "flood" in parts:
        await measured.flood(found, sizes, report)
    if "soak" in parts:
        await measured.soak(found, sizes, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks cloud", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all but flood and soak when none is named")
    add("--quick", action="store_true", help="shorter stages and fewer of them: about four minutes on a quiet machine")
    add("--smoke", action="store_true", help="only shows that it runs; its figures say nothing")
    add("--lives", type=int, help="lifetimes that think (default 10,000)")
    add("--rates", metavar="100,300", help="planner loops a second of the stages of `loops`")
    add("--reps", type=int, help="repetitions of W2")
    add("--minutes", type=float, help="of soak (default 30)")
    add("--rate", type=float, help="planner loops a second of soak")
    add(
        "--noise", type=float, help="planner loops a second of a noisy neighbour (default 300); others have a hundredth"
    )
    add("--neighbours", type=int, help="tenants that are watched (default 10)")
    add("--watch", type=float, help="seconds that they are watched, alone and beside (default 60)")
    add("--tenant-rate", type=float, help="executions a second that executors begin for each of those tenants")
    add("--json", metavar="FILE", help="also write all figures to FILE")
    return parser
