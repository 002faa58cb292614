"""Batches of runs, each in a fresh folder, killed at random moments and started again until every run has its answer.

What follows the last kill comes in parts. First a life that calls nothing for the runs that were cut short: what does
not finish in it is stranded until somebody calls. Then, if need be, a life that makes the documented call: what does
not finish in it either is stranded for good. Then, if need be, a life that starts such runs again from their input.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.faults import shapes
from benchmarks.faults.engine import CONTESTANTS, Contestant
from benchmarks.faults.ledger import Reader
from benchmarks.faults.life import Job
from benchmarks.faults.verdict import Counts, Judge

ROOT = Path(__file__).resolve().parents[2]
LOOK = 0.001
"""Seconds between two looks at the ledger while a kill is due."""
QUIET = 5.0
"""Seconds without a line in the ledger after which a life that calls nothing has come to a stop."""
TIME_LIMIT = 120.0
"""Seconds that a life may take."""
MOST_KILLS = 4
"""Kills in one batch; their number is drawn."""
MOST_FAILURES = 3
"""Lives of a batch that may fail by themselves."""
IN_START_UP = 0.15
"""The part of the kills that come while the process starts."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it."""

    kills: int
    runs: int
    pause: float
    """Seconds that a Task takes."""
    seed: int


class Report(msgspec.Struct, kw_only=True):
    """What came out for one engine."""

    name: str
    version: str
    said: str
    kills: int = 0
    """SIGKILLs that hit a process with open runs."""
    batches: int = 0
    cut_short: int = 0
    """Runs that were open at the last kill of their batch."""
    stranded: int = 0
    """Of these: not finished by themselves after the next start."""
    stranded_for_good: int = 0
    """Of these: not finished after the documented call either."""
    failures: int = 0
    """Lives that failed by themselves."""
    errors: list[str] = []
    go_on: list[float] = []
    """Seconds from the start of a process to the first call of user code, for each life after a kill."""
    seconds: float = 0.0
    """What the whole took."""
    counts: Counts = msgspec.field(default_factory=Counts)


def campaign(contestant: Contestant, plan: Plan) -> Report:
    """As many batches as it takes for the kills. Every engine has the same seeds."""
    report = Report(name=contestant.name, version=contestant.version(), said=contestant.said)
    started = time.monotonic()
    while report.kills < plan.kills:
        draw = random.Random(f"{plan.seed}/{report.batches}")
        with tempfile.TemporaryDirectory(prefix="tickwork-faults-") as folder:
            batch = Batch(contestant, plan, Path(folder), draw, report)
            batch.run(min(draw.randint(1, MOST_KILLS), plan.kills - report.kills))
        report.batches += 1
        if report.failures > MOST_FAILURES * report.batches:
            break
    report.seconds = time.monotonic() - started
    return report


class Batch:
    """The lives of one batch."""

    def __init__(self, contestant: Contestant, plan: Plan, folder: Path, draw: random.Random, report: Report) -> None:
        self._contestant, self._plan, self._folder, self._draw, self._report = contestant, plan, folder, draw, report
        self._ledger = Reader(folder / "ledger")
        self._judge = Judge(shapes.runs(plan.runs))
        self._steps = sum(len(shapes.steps(run)) for run in shapes.runs(plan.runs))
        self._start_up = 1.0
        self._life = 0
        self._killed = False

    def run(self, kills: int) -> None:
        """Kills `kills` times, then lets it end."""
        failures = 0
        while kills and failures < MOST_FAILURES:
            code = self._one_life(call=not self._contestant.by_itself, anew=True, kill=True)
            if code == 0:
                break
            if code == -signal.SIGKILL:
                kills -= 1
            else:
                failures += 1
        self._last_lives()
        self._report.counts.add(self._judge.counts())

    def _last_lives(self) -> None:
        cut_short = self._judge.open_runs()
        self._report.cut_short += len(cut_short)
        self._one_life(call=False, anew=False, kill=False)
        stranded = cut_short - self._judge.done.keys()
        self._report.stranded += len(stranded)
        if len(self._judge.done) < self._plan.runs:
            self._one_life(call=True, anew=False, kill=False)
        self._report.stranded_for_good += len(cut_short - self._judge.done.keys())
        if len(self._judge.done) < self._plan.runs:
            self._one_life(call=True, anew=True, kill=False)

    def _one_life(self, *, call: bool, anew: bool, kill: bool) -> int:
        """Returns the exit code. A life that stops moving, or takes too long, is ended: exit code 0."""
        self._life += 1
        errors = self._folder / f"errors-{self._life}"
        job = Job(
            engine=self._contestant.name,
            home=str(self._folder / "home"),
            ledger=str(self._folder / "ledger"),
            life=self._life,
            runs=self._plan.runs,
            pause=self._plan.pause,
            call=call,
            anew=anew,
        )
        command = [sys.executable, "-m", "benchmarks.faults.life", msgspec.json.encode(job).decode()]
        started = time.time()
        with errors.open("wb") as stderr, subprocess.Popen(command, cwd=ROOT, stdout=stderr, stderr=stderr) as process:
            try:
                code = self._kill_some_time(process) if kill else None
                code = self._to_the_end(process, call=call) if code is None else code
            finally:
                process.kill()
        self._judge.read(self._ledger.new())
        if code not in (0, -signal.SIGKILL):
            self._report.failures += 1
            self._report.errors.append("\n".join(errors.read_text(errors="replace").splitlines()[-5:]))
        if self._life in self._judge.first_call:
            took = self._judge.first_call[self._life] - started
            self._start_up = took
            if self._killed:
                self._report.go_on.append(took)
        self._killed = self._killed or code == -signal.SIGKILL
        return code

    def _kill_some_time(self, process: subprocess.Popen[bytes]) -> int | None:
        """Now and then while it starts, else after a drawn number of calls and some milliseconds. None: no kill hit."""
        if self._draw.random() < IN_START_UP:
            _wait(process, self._draw.uniform(0.0, self._start_up))
        else:
            due = self._judge.calls + self._draw.randrange(1, max(self._steps - self._judge.called, 2))
            late = self._draw.uniform(0.0, 0.02)
            until = time.monotonic() + TIME_LIMIT
            while self._judge.calls < due and process.poll() is None and time.monotonic() < until:
                time.sleep(LOOK)
                self._judge.read(self._ledger.new())
            _wait(process, late)
        if process.poll() is not None:
            return process.returncode
        process.kill()
        process.wait()
        self._judge.read(self._ledger.new())
        if len(self._judge.done) == self._plan.runs:
            return 0
        self._report.kills += 1
        return -signal.SIGKILL

    def _to_the_end(self, process: subprocess.Popen[bytes], *, call: bool) -> int:
        """Until it exits, or stops moving though nothing more will be called."""
        until = moved = time.monotonic()
        until += TIME_LIMIT
        while process.poll() is None and time.monotonic() < until:
            lines = self._ledger.new()
            self._judge.read(lines)
            if lines or self._life not in self._judge.opened:
                moved = time.monotonic()
            if not call and time.monotonic() - moved > QUIET:
                break
            _wait(process, 0.02)
        return 0 if process.poll() is None else process.returncode


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """For so long, or until it exits."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def chosen(only: str) -> list[Contestant]:
    """The engines that were named, or all. Raises KeyError with the name that is none."""
    return [CONTESTANTS[name] for name in only.split(",")] if only else list(CONTESTANTS.values())
