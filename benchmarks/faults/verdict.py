"""What the ledger says: which steps were lost, doubled, skipped, and which runs were stranded.

Steps are told apart by run, rank and branch, never by an id of the engine's. "Gone on from" means that user code of a
later rank of the same run had been called: the engine had taken the step's result for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from benchmarks.faults import shapes
from benchmarks.faults.ledger import Line

Step = tuple[str, int, int]


class Counts(msgspec.Struct, kw_only=True):
    """Of one batch; they add up."""

    runs: int = 0
    steps: int = 0
    """Logical steps that the runs have."""
    calls: int = 0
    """Calls of user code, repeated ones included."""
    doubled: int = 0
    """Calls of a step that had been called before."""
    cut: int = 0
    """Of these: the kill hit the earlier call inside user code. No engine can know how far it came."""
    unrecorded: int = 0
    """Of these: the earlier call had returned, and nothing had gone on from it yet."""
    lost: int = 0
    """Of these: the engine had gone on from the step, or had answered for the run, and then knew nothing of it."""
    skipped: int = 0
    """Steps never called in a run for which the engine answered."""
    wrong: int = 0
    """Runs whose result is not what their steps add up to."""
    forgotten: int = 0
    """Runs that the engine had begun and then denied; the worker started them anew."""
    worst: int = 0
    """The most calls that one kill repeated in one run without a fan-out."""
    unfinished: int = 0
    """Runs without an answer in the end, whatever was called."""

    def add(self, other: Counts) -> None:
        """Sums, and the larger `worst`."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name == "worst" else mine + theirs)


class Judge:
    """Reads the lines of one batch in their order."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._runs = list(runs)
        self._calls: Counter[Step] = Counter()
        self._back: set[Step] = set()
        self._furthest: dict[str, int] = {}
        self._repeated: Counter[tuple[int, str]] = Counter()
        self._counts = Counts()
        self.done: dict[str, dict[str, int]] = {}
        self.begun: set[str] = set()
        self.first_call: dict[int, float] = {}
        """When user code was first called, by life."""
        self.opened: set[int] = set()
        """Lives that got as far as an open engine."""

    def read(self, lines: Iterable[Line]) -> None:
        """Takes the next lines in."""
        for line in lines:
            if line.kind == "open":
                self.opened.add(line.life)
            elif line.kind == "begun":
                self.begun.add(line.run)
            elif line.kind == "forgotten":
                self._counts.forgotten += 1
            elif line.kind == "done":
                self.done.setdefault(line.run, line.value)
            elif line.kind == "back":
                self._back.add((line.run, line.rank, line.branch))
            else:
                self._call(line)

    @property
    def called(self) -> int:
        """Logical steps that were called at least once."""
        return len(self._calls)

    @property
    def calls(self) -> int:
        """Calls of user code so far."""
        return self._counts.calls

    def open_runs(self) -> set[str]:
        """Runs that began and have no answer yet."""
        return self.begun - self.done.keys()

    def counts(self) -> Counts:
        """The verdict, once the batch has ended."""
        counts = msgspec.structs.replace(self._counts)
        counts.runs = len(self._runs)
        for run in self._runs:
            steps = shapes.steps(run)
            counts.steps += len(steps)
            if run not in self.done:
                counts.unfinished += 1
                continue
            counts.skipped += sum((run, *step) not in self._calls for step in steps)
            counts.wrong += self.done[run] != {"run": run, **shapes.answer(run)}
        counts.worst = max((n for (_, run), n in self._repeated.items() if not run.startswith("fan")), default=0)
        return counts

    def _call(self, line: Line) -> None:
        step = (line.run, line.rank, line.branch)
        self.begun.add(line.run)
        self.first_call.setdefault(line.life, line.at)
        self._counts.calls += 1
        if self._calls[step]:
            self._counts.doubled += 1
            self._repeated[line.life, line.run] += 1
            if self._furthest[line.run] > line.rank or line.run in self.done:
                self._counts.lost += 1
            elif step in self._back:
                self._counts.unrecorded += 1
            else:
                self._counts.cut += 1
        self._calls[step] += 1
        self._furthest[line.run] = max(line.rank, self._furthest.get(line.run, 0))
