"""`python -m benchmarks.faults`: kills each engine at random moments and prints what was lost, doubled and stranded."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sqlite3
import statistics
import sys
from pathlib import Path

import msgspec

from benchmarks.faults.campaign import Plan, Report, campaign, chosen
from benchmarks.faults.engine import CONTESTANTS

COLUMNS = (
    ("engine", 26),
    ("kills", 6),
    ("steps", 7),
    ("lost", 6),
    ("skipped", 8),
    ("doubled", 8),
    ("(cut", 6),
    ("unrec.)", 8),
    ("worst", 6),
    ("open", 6),
    ("stranded", 9),
    ("after call", 11),
    ("go on s", 8),
    ("max", 6),
)
LEGEND = """
kills       SIGKILLs that hit a process with open runs
steps       logical steps of all runs
lost        calls repeated although the engine had gone on from the step (or answered for its run) before the kill
skipped     steps never called in a run that the engine says is complete
doubled     all calls of a step that had been called before: lost + cut + unrec.
(cut        the kill came inside the earlier call: no engine can avoid it without declaring the step unrepeatable
unrec.)     the earlier call had returned, but nothing had gone on from it
worst       the most calls that one kill repeated in one run without a fan-out
open        runs that were open at the last kill of their batch
stranded    of these: not finished by themselves after the next start
after call  of these: not finished after the documented call for going on either
go on s     median seconds from the start of a process to its first call of user code, after a kill
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs, prints, writes. Returns 0 whatever came out: a loss is a finding of the report, not a failure of it."""
    options = _parser().parse_args(arguments)
    try:
        contestants = chosen(options.only)
    except KeyError as unknown:
        print(f"there is no engine {unknown}; there are {', '.join(CONTESTANTS)}", file=sys.stderr)
        return 2
    plan = Plan(kills=options.kills, runs=options.runs, pause=options.pause, seed=options.seed)
    print(_row([name for name, _ in COLUMNS]))
    reports: list[Report] = []
    for contestant in contestants:
        if missing := contestant.missing():
            print(f"{contestant.name}: skipped, {', '.join(missing)} is not installed: pip install '.[bench]'")
            continue
        reports.append(campaign(contestant, plan))
        print(_row(_cells(reports[-1])), flush=True)
        if options.json:
            document = {"machine": _machine(), "plan": plan, "reports": reports}
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    print(LEGEND)
    for report in reports:
        _remarks(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="kills for each engine (default 30)")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was counted to FILE")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="runs at the same time (default 20)")
    parser.add_argument("--pause", type=float, default=0.005, metavar="S", help="what a Task takes (default 0.005 s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other moments (default 1)")
    return parser


def _cells(report: Report) -> list[str]:
    counts = report.counts
    numbers = [report.kills, counts.steps, counts.lost, counts.skipped, counts.doubled, counts.cut, counts.unrecorded]
    numbers += [counts.worst, report.cut_short, report.stranded, report.stranded_for_good]
    times = [statistics.median(report.go_on), max(report.go_on)] if report.go_on else []
    return [f"{report.name} {report.version}", *map(str, numbers), *(f"{seconds:.2f}" for seconds in times)]


def _row(cells: list[str]) -> str:
    return "".join(
        cell.ljust(width) if at == 0 else cell.rjust(width)
        for at, (cell, (_, width)) in enumerate(zip(cells, COLUMNS, strict=False))
    )


def _remarks(report: Report) -> None:
    """What should be nothing, and is told only when it is something."""
    counts = report.counts
    for number, what in (
        (counts.forgotten, "runs begun and then denied by the engine; the worker started them anew"),
        (counts.wrong, "runs with a wrong result"),
        (counts.unfinished, "runs without an answer in the end"),
        (report.failures, "lives that failed by themselves"),
    ):
        if number:
            print(f"{report.name}: {number} {what}")
    for error in dict.fromkeys(report.errors):
        print(f"{report.name}: {error}")


def _machine() -> dict[str, str | int | None]:
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
