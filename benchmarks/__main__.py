"""`python -m benchmarks local`: all workloads beside the floor, as a table, and as JSON for machines."""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import sqlite3
import sys
from pathlib import Path

import msgspec

from benchmarks.measure import METRICS, Row, Sizes, measure

LINE = "{:<6} {:<20} {:>12} {:<6} {:>12} {:>7} {:>12}  {}"


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes. Returns 0: a target that was missed is a finding, not a failure."""
    options = _parser().parse_args(arguments)
    workloads = options.only.split(",") if options.only else list(METRICS)
    unknown = [name for name in workloads if name not in METRICS]
    if unknown:
        print(f"there is no workload {', '.join(unknown)}; there are {', '.join(METRICS)}", file=sys.stderr)
        return 2
    print(LINE.format("", "metric", "tickwork", "", "floor", "ratio", "target", "reached"))
    rows: list[Row] = []
    for row in measure(workloads, options.reps, Sizes(scale=options.scale, long=options.long)):
        rows.append(row)
        print(_line(row), flush=True)
    if options.json:
        report = {"machine": _machine(), "options": {"reps": options.reps, "scale": options.scale}, "rows": rows}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("profile", choices=["local"], help="what Tickwork runs on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--only", default="", metavar="W1,W4", help=f"of {', '.join(METRICS)}")
    parser.add_argument("--reps", type=int, default=3, metavar="N", help="repetitions of each figure (default 3)")
    parser.add_argument("--long", action="store_true", help="W6 with 20,000 cycles instead of 2,000")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="sizes times X, to try it out")
    return parser


def _line(row: Row) -> str:
    ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
    reached = {True: "yes", False: "no", None: ""}[row.reached]
    floor, target = _number(row.floor), _number(row.target)
    return LINE.format(row.workload, row.metric, _number(row.value), row.unit, floor, ratio, target, reached).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
