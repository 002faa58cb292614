"""`python -m benchmarks local`: Tickwork beside the floor. `python -m benchmarks peers`: beside other engines as well.
`python -m benchmarks cloud`: on Kafka, Postgres, Redis and S3, with options of its own (`cloud --help`).

All print tables, and write JSON for machines with `--json`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import side_by_side
from benchmarks.measure import METRICS, Row, Sizes, measure
from benchmarks.peers import PEERS

LINE = "{:<6} {:<20} {:>12} {:<6} {:>12} {:>7} {:>12}  {}"


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes. Returns 0: a target that was missed is a finding, not a failure."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["cloud"]:
        from benchmarks.cloud import command  # needs the clients of the servers

        return command.main(given[1:])
    options = _parser().parse_args(given)
    words = options.only.split(",") if options.only else []
    known = [*METRICS] if options.what == "local" else [*side_by_side.METRICS, *side_by_side.OWN, *PEERS]
    unknown = [word for word in words if word not in known]
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    sizes = Sizes(scale=options.scale, long=options.long)
    rows = _local(words, options.reps, sizes) if options.what == "local" else _peers(words, options.reps, sizes)
    if options.json:
        report = {"machine": _machine(), "options": {"reps": options.reps, "scale": options.scale}, "rows": rows}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=["local", "peers"], help="beside the floor, or beside other engines as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument(
        "--only",
        default="",
        metavar="W1,W4",
        help=f"of {', '.join(METRICS)}; with `peers` also engines: {', '.join([*side_by_side.OWN, *PEERS])}",
    )
    parser.add_argument("--reps", type=int, default=3, metavar="N", help="repetitions of each figure (default 3)")
    parser.add_argument("--long", action="store_true", help="W6: 20,000 cycles, not 2,000; W7: 50,000 that wait")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="sizes times X, to try it out")
    return parser


def _local(words: list[str], reps: int, sizes: Sizes) -> list[Row]:
    print(LINE.format("", "metric", "tickwork", "", "floor", "ratio", "target", "reached"))
    rows: list[Row] = []
    for row in measure(words or list(METRICS), reps, sizes):
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def _peers(words: list[str], reps: int, sizes: Sizes) -> list[side_by_side.Figure]:
    workloads = [name for name in side_by_side.METRICS if name in words] or list(side_by_side.METRICS)
    engines = [name for name in (*side_by_side.OWN, *PEERS) if name in words] or [*side_by_side.OWN, *PEERS]
    for name in list(engines):
        if name in PEERS and (why := PEERS[name].absent()):
            print(f"{name}: skipped, {why}")
            engines.remove(name)
    rows: list[side_by_side.Figure] = []
    for figure in side_by_side.side_by_side(workloads, engines, reps, sizes):
        if not rows or rows[-1].workload != figure.workload:
            print(_figure_line(figure.workload, [f"{name} {unit}" for name, unit in _columns(figure)], ""))
        rows.append(figure)
        cells = [_number(figure.values.get(name)) or "-" for name, _ in _columns(figure)]
        short = f"n={figure.repetitions}" if figure.repetitions < reps else ""
        print(_figure_line(f"  {figure.engine} {figure.version}", cells, short), flush=True)
        if figure.failed:
            print(f"    failed: {figure.failed.splitlines()[-1]}")
    return rows


def _columns(figure: side_by_side.Figure) -> tuple[tuple[str, str], ...]:
    return side_by_side.METRICS[figure.workload]


def _figure_line(first: str, cells: list[Any], note: str) -> str:
    return (f"{first:<22}" + "".join(f"{cell:>20}" for cell in cells) + f"  {note}").rstrip()


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
