"""`python -m tests.simulation.planted [--only NAME] [--seeds 500] [--jobs 2]`: how soon each planted bug is found."""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys

import msgspec

from tests.simulation.planted import PLANTED, Bug
from tickwork.testing.simulation import run_seed
from tickwork.testing.simulation.campaign import COLLECT_EVERY, without_collector


class Found(msgspec.Struct):
    """After how many seeds a bug was found (0: not at all), and by which invariants."""

    name: str
    seeds: int
    seed: int
    invariants: list[str]
    evidence: str


def hunt(bug: Bug, seeds: range, *, hinted: bool = True) -> Found:
    """Runs seeds with the bug until one breaks its invariant that is clean without the bug."""
    for count, seed in enumerate(seeds, 1):
        if count % COLLECT_EVERY == 0:
            gc.collect()
        options = bug.options(seed, hinted=hinted)
        report = run_seed(seed, options=options, patches=[bug.patch()])
        invariants = list(dict.fromkeys(violation.invariant for violation in report.violations))
        if bug.breaks in invariants and not run_seed(seed, options=options).violations:
            return Found(bug.name, count, seed, invariants, report.violations[0].evidence)
    return Found(bug.name, 0, -1, [], "")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME,..", help="these bugs alone")
    parser.add_argument("--seeds", type=int, default=500, metavar="N", help="seeds for each bug, at most (default 500)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="where to begin")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--unhinted", action="store_true", help="as the seeds draw them, without hints")
    parser.add_argument("--lines", action="store_true", help="one line of JSON a bug, for programs")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(PLANTED)
    for name in names:
        if name not in PLANTED:
            sys.stderr.write(f"there is no bug `{name}`; there are {', '.join(PLANTED)}\n")
            return 2
    found: list[Found] = []
    if given.jobs > 1 and len(names) > 1:
        options = ["--seeds", str(given.seeds), "--first", str(given.first), *["--unhinted"] * given.unhinted]
        found = _spread(names, given.jobs, options)
    else:
        with without_collector() as collect:
            for name in names:
                collect()
                seeds = range(given.first, given.first + given.seeds)
                found.append(hunt(PLANTED[name], seeds, hinted=not given.unhinted))
                if given.lines:
                    sys.stdout.buffer.write(msgspec.json.encode(found[-1]) + b"\n")
                    sys.stdout.buffer.flush()
                else:
                    _tell(found[-1])
    missed = [each.name for each in found if not each.seeds]
    if not given.lines:
        counts = [each.seeds or given.seeds * 2 for each in found]
        sys.stdout.write(f"{len(found)} bugs, {len(missed)} not found, median {statistics.median(counts):g} seeds\n")
    return 1 if missed else 0


def _spread(names: list[str], jobs: int, options: list[str]) -> list[Found]:
    command = [sys.executable, "-m", "tests.simulation.planted", "--lines", *options]
    workers = [
        subprocess.Popen([*command, "--only", ",".join(names[job::jobs])], stdout=subprocess.PIPE)
        for job in range(min(jobs, len(names)))
    ]
    found: list[Found] = []
    for worker in workers:
        for line in worker.stdout or ():
            found.append(msgspec.json.decode(line, type=Found))
            _tell(found[-1])
        worker.wait()
    return found


def _tell(found: Found) -> None:
    how = f"seed {found.seed}, after {found.seeds} seeds" if found.seeds else "NOT FOUND"
    planned = PLANTED[found.name].breaks
    sys.stdout.write(f"{found.name:<32} {planned:<4} {','.join(found.invariants):<16} {how}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
