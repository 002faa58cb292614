"""The command line of the simulation: `python -m tickwork.testing.simulation --seeds 0:5000 --jobs 2`.

Exit code 1 when an invariant was violated, or when a fault never fired in a thousand seeds or more.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from tickwork.clock import SystemClock
from tickwork.testing.simulation import campaign
from tickwork.testing.simulation.faults import DEFAULT_OFF, FAULTS
from tickwork.testing.simulation.world import run_seed

LAST = 60
"""Trace lines shown of a seed that failed."""

MOST_SHOWN = 5
"""Failed seeds that are shown in full."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what was asked for; the exit code."""
    given = _parser().parse_args(arguments)
    without = tuple(given.without.split(",")) if given.without else ()
    only = None if given.only is None else tuple(filter(None, given.only.split(",")))
    for name in (*without, *(only or ())):
        if name not in FAULTS:
            sys.stderr.write(f"there is no fault `{name}`; there are {', '.join(FAULTS)}\n")
            return 2
    if given.seed is not None:
        return _one(given.seed, without, only, trace=given.trace)
    seeds = range(*[int(part) for part in given.seeds.split(":")])
    if given.lines:
        encode = msgspec.json.Encoder().encode
        for line in campaign.play(seeds, minutes=given.minutes, without=without, only=only):
            sys.stdout.buffer.write(encode(line) + b"\n")
            sys.stdout.buffer.flush()
        return 0
    options: list[str] = []
    for name in ("minutes", "without", "only"):
        value = getattr(given, name)
        if value is not None and value != "":
            options += [f"--{name}", str(value)]
    return _many(seeds, given.jobs, given.minutes, without, only, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tickwork.testing.simulation", description="Simulate whole worlds, one for each seed."
    )
    parser.add_argument("--seeds", default="0:1000", metavar="FROM:TO", help="which seeds (default 0:1000)")
    parser.add_argument("--seed", type=int, metavar="N", help="one seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: all that happens")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes to run them in")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after so long")
    parser.add_argument("--without", default="", metavar="FAULT,..", help="faults that are not drawn")
    parser.add_argument("--only", metavar="FAULT,..", help='all these faults and no others ("" for none at all)')
    parser.add_argument("--lines", action="store_true", help="one line of JSON a seed, for programs")
    return parser


def _one(seed: int, without: tuple[str, ...], only: tuple[str, ...] | None, *, trace: bool) -> int:
    report = run_seed(seed, without=without, only=only, keep_all=trace)
    out = sys.stdout
    if trace or report.violations:
        out.write(campaign.told(report, len(report.trace) if trace else LAST) + "\n")
    out.write(
        f"seed {seed}: {report.lifetimes} lifetimes {report.ends}, {report.entries} entries, {report.calls} calls, "
        f"{report.virtual:.0f} virtual seconds, {report.callbacks} callbacks, digest {report.digest}\n"
    )
    return 1 if report.violations else 0


def _many(
    seeds: range,
    jobs: int,
    minutes: float | None,
    without: tuple[str, ...],
    only: tuple[str, ...] | None,
    options: list[str],
) -> int:
    clock, totals, whole = SystemClock(), campaign.Totals(), True
    began = clock.monotonic()
    if jobs > 1:
        whole = campaign.spread(seeds, jobs, options, totals.add)
    else:
        for line in campaign.play(seeds, minutes=minutes, without=without, only=only):
            totals.add(line)
    took = clock.monotonic() - began
    out = sys.stdout
    for failed in totals.failed[:MOST_SHOWN]:
        out.write(campaign.told(run_seed(failed.seed, without=without, only=only), LAST) + "\n\n")
    out.write(f"{totals.seeds} seeds in {took:.0f} s ({totals.seeds / max(took, 1e-9):.1f} a second): ")
    out.write(f"{totals.lifetimes} lifetimes {dict(sorted(totals.ends.items()))}, ")
    out.write(f"{totals.entries} entries, {totals.calls} calls of user code\n")
    for name in FAULTS:
        off = f"  (off: {DEFAULT_OFF[name]})" if name in DEFAULT_OFF else ""
        out.write(f"  {name:<20} {totals.fired[name]:>9}{off}\n")
    out.write("  seen: " + ", ".join([f"{name} {totals.seen[name]}" for name in campaign.EXPECTED]) + "\n")
    again = " ".join(["python -m tickwork.testing.simulation", *_switches(without, only)])
    for failed in totals.failed:
        broken = ", ".join(dict.fromkeys(violation.invariant for violation in failed.violations))
        out.write(f"FAILED seed {failed.seed} ({broken}): {again} --seed {failed.seed} --trace\n")
    silent = totals.silent(campaign.expected_faults(without, only))
    if silent:
        out.write(f"FAILED: never fired: {', '.join(silent)}\n")
    unseen = totals.unseen() if only is None and not without else []
    if unseen:
        out.write(f"FAILED: never happened: {', '.join(unseen)}\n")
    if not whole:
        out.write("FAILED: a process of this campaign ended before its seeds did\n")
    return 1 if totals.failed or silent or unseen or not whole else 0


def _switches(without: tuple[str, ...], only: tuple[str, ...] | None) -> list[str]:
    found = [] if not without else ["--without", ",".join(without)]
    return found if only is None else [*found, "--only", ",".join(only) or '""']


if __name__ == "__main__":
    sys.exit(main())
