"""The fault report: its judge sees what a ledger says, and a tiny run of it on Tickwork finds nothing lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import shapes
from benchmarks.faults.ledger import Ledger, Line, Reader
from benchmarks.faults.verdict import Counts, Judge

ROOT = Path(__file__).resolve().parents[2]
RUN = "loop-1"
STEPS = 2 * shapes.TASKS + 1


def call(rank: int, *, run: str = RUN, branch: int = 0, life: int = 1, back: bool = True) -> list[Line]:
    lines = [Line(kind="call", life=life, at=float(life), run=run, rank=rank, branch=branch)]
    return [*lines, Line(kind="back", life=life, at=float(life), run=run, rank=rank, branch=branch)] if back else lines


def whole(first: int = 0, life: int = 1) -> list[Line]:
    """The steps from `first` on, and the right answer."""
    lines = [line for rank in range(first, STEPS) for line in call(rank, life=life)]
    return [*lines, Line(kind="done", life=life, at=0.0, run=RUN, value={"run": RUN, **shapes.answer(RUN)})]


def judged(*lines: Line) -> Counts:
    judge = Judge([RUN])
    judge.read(lines)
    return judge.counts()


def test_a_run_without_a_kill_has_nothing_to_report() -> None:
    assert judged(*whole()) == Counts(runs=1, steps=STEPS, calls=STEPS)


def test_a_call_cut_by_a_kill_is_doubled_and_not_lost() -> None:
    counts = judged(*call(0), *call(1, back=False), *whole(1, life=2))
    assert (counts.doubled, counts.cut, counts.unrecorded, counts.lost, counts.worst) == (1, 1, 0, 0, 1)


def test_a_call_that_had_returned_is_told_apart() -> None:
    counts = judged(*call(0), *call(1), *whole(1, life=2))
    assert (counts.doubled, counts.cut, counts.unrecorded, counts.lost) == (1, 0, 1, 0)


def test_a_step_that_the_engine_had_gone_on_from_is_lost() -> None:
    counts = judged(*call(0), *call(1), *call(2), *call(3, back=False), *whole(1, life=2))
    assert (counts.doubled, counts.lost, counts.cut, counts.worst) == (3, 2, 1, 3)


def test_whatever_is_called_after_the_answer_is_lost() -> None:
    counts = judged(*whole(), *call(STEPS - 1, life=2))
    assert (counts.doubled, counts.lost) == (1, 1)


def test_a_step_that_was_never_called_is_skipped() -> None:
    done = whole()
    assert judged(*done[:6], *done[8:]).skipped == 1


def test_a_wrong_answer_and_a_missing_one_are_seen() -> None:
    wrong = Line(kind="done", life=1, at=0.0, run=RUN, value={"run": RUN, "i": 10, "sum": 54})
    assert judged(*whole()[:-1], wrong).wrong == 1
    assert judged(*whole()[:-1]).unfinished == 1


def test_branches_do_not_stand_for_one_another() -> None:
    judge = Judge(["fan-2"])
    judge.read([line for branch in range(3) for line in call(1, run="fan-2", branch=branch)])
    judge.read(call(1, run="fan-2", branch=1, life=2))
    counts = judge.counts()
    assert (counts.calls, counts.doubled, counts.worst) == (4, 1, 0)


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "ledger")
    assert reader.new() == []
    ledger = Ledger(tmp_path / "ledger", life=3)
    ledger.write("begun", RUN)
    asyncio.run(ledger.call(RUN, 4, 2))
    assert [(line.kind, line.life, line.run, line.rank, line.branch) for line in reader.new()] == [
        ("begun", 3, RUN, 0, 0),
        ("call", 3, RUN, 4, 2),
    ]
    ledger.back(RUN, 4, 2)
    assert [line.kind for line in reader.new()] == ["back"]


def test_a_line_that_a_kill_tore_does_not_hide_the_next(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    Ledger(file, life=1).write("open")
    with file.open("ab") as torn:
        torn.write(b'{"kind":"call","li')
    reader = Reader(file)
    assert [line.kind for line in reader.new()] == ["open"]
    Ledger(file, life=2).write("begun", RUN)
    assert [(line.kind, line.life) for line in reader.new()] == [("begun", 2)]


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.faults", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_two_kills_of_tickwork_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = report("--only", "tickwork", "--kills", 2, "--runs", 6, "--json", file)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(file.read_text())["reports"]
    assert (found["kills"], found["failures"]) == (2, 0), found
    counts = found["counts"]
    assert counts["doubled"] == counts["cut"] + counts["unrecorded"], "what is doubled was in flight"
    assert counts["calls"] == counts["steps"] + counts["doubled"], found
    assert counts["worst"] <= 1, "a kill repeats one call of a run that does one thing at a time"
    for name in ("lost", "skipped", "wrong", "forgotten", "unfinished"):
        assert counts[name] == 0, found
    assert (found["stranded"], found["stranded_for_good"]) == (0, 0), found
    assert found["go_on"], "no life after a kill called anything: this test showed nothing"


@pytest.mark.parametrize("wrong", ["moon", "tickwork,moon"])
def test_an_unknown_engine_is_named(wrong: str) -> None:
    done = report("--only", wrong)
    assert done.returncode == 2
    assert "moon" in done.stderr
