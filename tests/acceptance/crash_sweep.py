"""The crash sweep: every crash point, every fault, every shape, on real processes and the local profile.

    python -m tests.acceptance.crash_sweep [--cells all|N] [--seed N] [--jobs 2]
    python -m tests.acceptance.crash_sweep --only E4:kill:loop[:AT]        parts may be empty
    python -m tests.acceptance.crash_sweep --kills 1000

A cell is a home and a batch of lifetimes of one shape. Its first life is hit at the n-th passing of one point; further
lives go on until all lifetimes have ended; after each death and at the end the tables, the blobs and the ledger of
calls are checked. The seed draws n and which exception is raised. With `--kills` homes with all shapes together are
killed again and again, at random points and random moments.

Each job is a process of its own that reads cells from stdin, one JSON line each, and forks the lives.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.acceptance.crash_check import Account
from tests.acceptance.crash_points import FAULTS, POINTS, Order
from tests.acceptance.crash_shapes import SHAPES
from tests.acceptance.crash_victim import BROKE, ENDED, STRANDED, Life, run_life

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3
"""Lifetimes of a cell."""

TRIES = 3
"""A point may be passed less often than in the run that counted; then the cell is made again for an earlier passing."""

LIVES = 8
"""A cell is hit once, so its second life should end everything."""

KILLS_PER_HOME = 20

NO_TIMER = "no timer is set: nothing is tried again, sleeps or has a deadline"
CANNOT: dict[tuple[str, str], str] = {
    ("C8", shape): NO_TIMER for shape in ("line", "loop", "parallel", "nested", "child", "final")
}
"""Points that a shape never passes, and why. That it really never does is checked, too."""


class Cell(msgspec.Struct):
    """One cell; `at` 0: the seed says at which passing. `kills` > 0: a home of all shapes that is killed so often."""

    seed: int
    point: str = ""
    fault: str = ""
    shape: str = ""
    at: int = 0
    kills: int = 0

    @property
    def name(self) -> str:
        """How it is asked for again: `--only NAME --seed SEED`."""
        if self.kills:
            return f"kills:{self.kills}"
        return f"{self.point}:{self.fault}:{self.shape}" + (f":{self.at}" if self.at else "")


class Report(msgspec.Struct):
    """What came of a cell."""

    cell: Cell
    fired: int = 0
    lives: int = 0
    deaths: int = 0
    kills: int = 0
    repeated: int = 0
    hits: int = 0
    """Calls whose code was under way, or whose record was not on disk, when their process died."""
    recovered: dict[str, int] = {}
    """What the logs say of recovery, by kind of entry."""
    wrong: list[str] = []
    seconds: float = 0.0
    folder: str = ""
    """Kept only when something was wrong."""


# -- cells ------------------------------------------------------------------------------------------------------------


def all_cells(seed: int) -> list[Cell]:
    """Every cell that can occur."""
    return [
        Cell(seed, point, fault, shape)
        for point, fault, shape in itertools.product(POINTS, FAULTS, SHAPES)
        if (point, shape) not in CANNOT
    ]


def some_cells(count: int, seed: int) -> list[Cell]:
    """So many cells: every point with every fault once, every shape with every fault; the rest is drawn."""
    rng = random.Random(seed)
    cells = all_cells(seed)
    rng.shuffle(cells)
    chosen: dict[str, Cell] = {}
    pairs: set[tuple[str, str]] = set()
    for pair_of in (lambda c: (c.point, c.fault), lambda c: (c.shape, c.fault)):
        for cell in cells:
            if pair_of(cell) not in pairs and cell.name not in chosen:
                chosen[cell.name] = cell
            if cell.name in chosen:
                pairs |= {(cell.point, cell.fault), (cell.shape, cell.fault)}
    for cell in cells:
        if len(chosen) >= count:
            break
        chosen.setdefault(cell.name, cell)
    return list(chosen.values())


# -- one cell ---------------------------------------------------------------------------------------------------------


class Bench:
    """Runs cells one after the other in this process, which forks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._homes = 0
        self._passed: dict[str, Counter[str]] = {}

    def run(self, cell: Cell) -> Report:
        """Runs a cell and says what came of it; a cell whose point was never reached is wrong."""
        begun = time.monotonic()
        report = self._killed_again_and_again(cell) if cell.kills else self._hit_once(cell)
        report.seconds = time.monotonic() - begun
        if not report.wrong:
            shutil.rmtree(report.folder, ignore_errors=True)
        return report

    def _hit_once(self, cell: Cell) -> Report:
        rng = random.Random(f"{cell.seed}/{cell.name}")
        usual = self._count(cell.shape)[cell.point]
        at = cell.at or rng.randint(1, max(1, usual))
        fault = rng.choice(["error", "storage"]) if cell.fault == "error" and not cell.at else cell.fault
        report = Report(cell)
        for _ in range(TRIES):
            shutil.rmtree(report.folder, ignore_errors=True)
            report = self._cell(Cell(cell.seed, cell.point, fault, cell.shape, at))
            if report.fired or report.wrong:
                return report
            at = max(1, at // 2)
        report.wrong.append(f"{cell.point} was never reached ({usual} passings when it was counted)")
        return report

    def _cell(self, cell: Cell) -> Report:
        order = Order(cell.point, cell.at, cell.fault)
        folder = self._home()
        report = Report(cell, folder=str(folder))
        account = Account(folder, RUNS)
        fired = folder / "fired"
        for number in range(LIVES):
            life = Life(folder, [cell.shape], RUNS, order if number == 0 else None)
            death = run_life(life)
            report.lives += 1
            report.fired = fired.stat().st_size if fired.exists() else 0
            account.look(death)
            hit = number == 0 and report.fired
            allowed = {"kill": (-9,), "stop": (ENDED,)}.get(order.fault, (ENDED, BROKE)) if hit else (ENDED,)
            if death.code not in allowed:
                why = "its lifetimes are stranded" if death.code == STRANDED else f"exit code {death.code}"
                account.wrong.append(f"life {number + 1}: {why}")
            if order.fault == "stop" and hit and not death.stops:
                account.wrong.append("it was not seen to stop")
            if death.code == ENDED or account.wrong:
                break
        if cell.fault == "stop" and (recovered := account.recovered(called=True)):
            account.wrong.append(f"nobody died, and yet something was recovered: {recovered}")
        return self._closed(report, account)

    def _killed_again_and_again(self, cell: Cell) -> Report:
        """A home of all shapes: lives that are killed, until so many were; the last one ends what is left."""
        rng = random.Random(f"{cell.seed}/{cell.name}")
        folder = self._home()
        report = Report(cell, folder=str(folder))
        shapes = list(SHAPES)
        account = Account(folder, len(shapes))
        while True:
            life = Life(folder, shapes, account.keys)
            if report.kills < cell.kills:
                if rng.random() < 0.5:
                    life.random_kill = rng.uniform(0.0, 0.2)
                else:
                    life.order = Order(rng.choice(list(POINTS)), 1 + int(rng.expovariate(1 / 15)), "kill")
            death = run_life(life)
            report.lives += 1
            account.look(death)
            report.kills += death.code == -9
            if death.code not in (ENDED, -9):
                account.wrong.append(f"life {report.lives}: exit code {death.code}")
            if account.wrong or (death.code == ENDED and report.kills >= cell.kills):
                break
            if death.code == ENDED:
                account.keys += len(shapes)  # all have ended before the kill came: more of them
        report.fired = report.kills
        return self._closed(report, account)

    def _closed(self, report: Report, account: Account) -> Report:
        if not account.wrong:
            account.finish()
        report.deaths, report.repeated, report.wrong = account.deaths, account.repeated(), account.wrong
        report.hits, report.recovered = account.hits.total(), account.recovered()
        return report

    def _count(self, shape: str) -> Counter[str]:
        """How often a life of this shape passes each point when nothing happens to it."""
        if shape not in self._passed:
            folder = self._home()
            death = run_life(Life(folder, [shape], RUNS))
            account = Account(folder, RUNS)
            account.look(death)
            account.finish()
            if death.code or account.wrong:
                output = (folder / "output").read_text()[-3000:]
                raise AssertionError(f"{shape} goes wrong without any fault: {death}, {account.wrong}\n{output}")
            self._passed[shape] = Counter(json.loads((folder / "passed").read_bytes()))
            for point in POINTS:
                if self._passed[shape][point] and (point, shape) in CANNOT:
                    raise AssertionError(f"{shape} passes {point} after all: take it out of CANNOT")
            shutil.rmtree(folder)
        return self._passed[shape]

    def _home(self) -> Path:
        self._homes += 1
        folder = self._folder / f"{os.getpid()}-{self._homes}"
        folder.mkdir(parents=True)
        return folder


def serve(folder: Path) -> None:
    """A job: cells come in as lines, reports go out as lines."""
    bench = Bench(folder)
    for line in sys.stdin.buffer:
        cell = msgspec.json.decode(line, type=Cell)
        try:
            report = bench.run(cell)
        except AssertionError as error:
            report = Report(cell, wrong=[str(error)])
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()


# -- many cells -------------------------------------------------------------------------------------------------------


def sweep(
    cells: Sequence[Cell], folder: Path, jobs: int = 2, told: Callable[[Report], None] = lambda _: None
) -> list[Report]:
    """Runs the cells in so many processes at once."""
    waiting = iter(cells)
    reports: list[Report] = []
    lock = threading.Lock()

    def work() -> None:
        command = [sys.executable, "-m", "tests.acceptance.crash_sweep", "--serve", str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
            assert job.stdin is not None
            assert job.stdout is not None
            while True:
                with lock:
                    cell = next(waiting, None)
                if cell is None:
                    break
                job.stdin.write(msgspec.json.encode(cell) + b"\n")
                job.stdin.flush()
                line = job.stdout.readline()
                report = msgspec.json.decode(line, type=Report) if line else Report(cell, wrong=["its job died"])
                with lock:
                    reports.append(report)
                    told(report)
                if not line:
                    break
            job.stdin.close()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reports


def table(reports: Iterable[Report]) -> str:
    """Point by fault: cells, how many fired, how many went wrong; then what went wrong."""
    reports = list(reports)
    by: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        fault = "error" if report.cell.fault == "storage" else report.cell.fault
        by.setdefault((report.cell.point, fault), []).append(report)
    lines = ["point  " + "".join(f"{fault:>24}" for fault in FAULTS), "       " + "   cells  fired  wrong" * 3]
    for point, what in POINTS.items():
        counts = ""
        for fault in FAULTS:
            found = by.get((point, fault), [])
            fired, wrong = sum(bool(r.fired) for r in found), sum(bool(r.wrong) for r in found)
            counts += f"{len(found):8}{fired:7}{wrong:7}  "
        lines.append(f"{point:7}{counts}  {what}")
    deaths = sum(r.deaths for r in reports)
    repeated = sum(r.repeated for r in reports)
    lines.append(
        f"{len(reports)} cells, {sum(bool(r.fired) for r in reports)} fired, {sum(bool(r.wrong) for r in reports)} "
        f"went wrong; {sum(r.lives for r in reports)} lives, {deaths} died, {repeated} calls repeated"
    )
    lines.append(_recovered(reports))
    return "\n".join(lines)


def _recovered(reports: Iterable[Report]) -> str:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.recovered)
    return "in the logs: " + (", ".join(f"{n} {kind}" for kind, n in sorted(total.items())) or "nothing of recovery")


def told_wrong(reports: Iterable[Report]) -> str:
    """What went wrong, each with the command that does it again."""
    lines = []
    for report in reports:
        if report.wrong:
            lines.append(f"--only {report.cell.name} --seed {report.cell.seed}   ({report.folder})")
            lines += [f"    {wrong}" for wrong in report.wrong]
    return "\n".join(lines)


def kill_cells(kills: int, seed: int) -> list[Cell]:
    """Homes that are killed so many times in all."""
    counts = [KILLS_PER_HOME] * (kills // KILLS_PER_HOME)
    if rest := kills % KILLS_PER_HOME:
        counts.append(rest)
    return [Cell(seed + k, kills=count) for k, count in enumerate(counts)]


def only(name: str, seed: int) -> list[Cell]:
    """The cells of a name as `Cell.name` gives it; what is left empty matches all."""
    point, fault, shape, at = [*name.split(":"), "", "", ""][:4]
    if point == "kills":
        return [Cell(seed, kills=int(fault))]
    if at:
        return [Cell(seed, point, fault, shape, int(at))]
    wanted = {"point": point, "fault": fault, "shape": shape}
    return [c for c in all_cells(seed) if all(not value or getattr(c, part) == value for part, value in wanted.items())]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.crash_sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cells", default="all", help="all, or how many: every point and fault is among them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="one cell, as POINT:FAULT:SHAPE; parts may be empty")
    parser.add_argument("--kills", type=int, default=0, help="so many SIGKILLs at random points and moments instead")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return 0
    if given.kills:
        cells = kill_cells(given.kills, given.seed)
    elif given.only:
        cells = only(given.only, given.seed)
    else:
        cells = all_cells(given.seed) if given.cells == "all" else some_cells(int(given.cells), given.seed)
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="tickwork-crash-"))
    reports = sweep(cells, folder, given.jobs, _progress(len(cells)))
    print(_summary(reports, kills=bool(given.kills)))
    print(f"{time.monotonic() - begun:.0f} s, seed {given.seed}")
    if wrong := told_wrong(reports):
        print(wrong)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _summary(reports: Sequence[Report], *, kills: bool) -> str:
    if not kills:
        return table(reports)
    done, repeated = sum(r.kills for r in reports), sum(r.repeated for r in reports)
    wrong = sum(bool(r.wrong) for r in reports)
    rate = repeated / done if done else 0.0
    hits = sum(r.hits for r in reports)
    return (
        f"{done} kills in {len(reports)} homes; {hits} calls were under way ({hits / max(1, done):.2f} a kill), "
        f"{repeated} of them repeated ({rate:.2f} a kill), none more than once a kill; {wrong} went wrong\n"
        + _recovered(reports)
    )


def _progress(count: int) -> Callable[[Report], Any]:
    done = itertools.count(1)

    def told(report: Report) -> None:
        if sys.stderr.isatty():
            print(f"\r{next(done)}/{count} {report.cell.name:24}", end="", file=sys.stderr, flush=True)

    return told


if __name__ == "__main__":
    sys.exit(main())
