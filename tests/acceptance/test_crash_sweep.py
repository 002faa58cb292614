"""The crash sweep, a bounded part of it; `python -m tests.acceptance.crash_sweep` does all. And: its check sees.

TICKWORK_CRASH_SEED gives other cells, passings and moments.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.acceptance.crash_check import Account
from tests.acceptance.crash_points import FAULTS, POINTS
from tests.acceptance.crash_shapes import SHAPES
from tests.acceptance.crash_sweep import (
    CANNOT,
    ROOT,
    Cell,
    Report,
    all_cells,
    kill_cells,
    only,
    some_cells,
    sweep,
    table,
    told_wrong,
)
from tests.acceptance.crash_victim import Death
from tickwork.model.records import Execution, decode_entry, encode_entry

SEED = int(os.environ.get("TICKWORK_CRASH_SEED", "1"))  # here, because the settings of outside are forgotten later
CELLS, KILLS = 130, 60
RUNS = 2

FOUND = ("C5:stop:line:4", "D4:storage:wait:9", "D4:storage:retry:28")
"""Cells that went wrong once: a stop in the middle of a sweep; a reference to a waiting lifetime that was not sent."""


def _said(reports: list[Report]) -> str:
    return f"{table(reports)}\n{told_wrong(reports)}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_happens_at_a_crash_point_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    found = [cell for name in FOUND for cell in only(name, SEED)]
    reports = sweep([*found, *some_cells(CELLS, SEED)], tmp_path)
    assert len(reports) == CELLS + len(FOUND)
    # On a busy machine work gathers into fewer batches, and a point may be passed less often than it was counted.
    missed = [r.cell for r in reports if not r.fired]
    assert len(missed) <= 3, _said(reports)
    again = tmp_path / "again"
    again.mkdir()
    reports = [r for r in reports if r.fired] + (sweep(missed, again) if missed else [])
    assert not any(r.wrong for r in reports), _said(reports)
    assert all(r.fired for r in reports), _said(reports)
    assert sum(r.repeated for r in reports), "no fault hit user code: this test showed nothing"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_home_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    reports = sweep(kill_cells(KILLS, SEED), tmp_path)
    assert not any(r.wrong for r in reports), told_wrong(reports)
    assert sum(r.kills for r in reports) == KILLS
    recovered: Counter[str] = Counter()
    for report in reports:
        recovered.update(report.recovered)
    assert recovered["LeaseExpired"], "no kill hit an attempt"
    assert recovered["unknown"], "no kill hit a call that may be made once only"


def test_a_part_of_the_sweep_has_every_point_fault_and_shape() -> None:
    for seed in range(20):
        cells = some_cells(CELLS, seed)
        assert len({cell.name for cell in cells}) == len(cells) == CELLS
        assert {(cell.point, cell.fault) for cell in cells} == {(point, fault) for point in POINTS for fault in FAULTS}
        assert {(cell.shape, cell.fault) for cell in cells} == {(shape, fault) for shape in SHAPES for fault in FAULTS}


def test_a_cell_is_found_by_its_name() -> None:
    assert len(all_cells(1)) == (len(POINTS) * len(SHAPES) - len(CANNOT)) * len(FAULTS)
    assert only("E4:kill:loop", 7) == [Cell(7, "E4", "kill", "loop")]
    assert only("E4:storage:loop:3", 7) == [Cell(7, "E4", "storage", "loop", 3)]
    assert {cell.shape for cell in only("D2:stop:", 7)} == set(SHAPES)


# -- the check sees ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a life in which all went well."""
    folder = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-m", "tests.acceptance.crash_victim", str(folder), "parallel", str(RUNS)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def looked_at(folder: Path) -> list[str]:
    account = Account(folder, RUNS)
    account.look(Death(0))
    account.finish()
    return account.wrong


def test_a_life_without_faults_is_found_to_be_right(finished: Path) -> None:
    assert looked_at(finished) == []


def _ledger_twice(folder: Path) -> None:
    lines = (folder / "ledger").read_bytes().splitlines(keepends=True)
    (folder / "ledger").write_bytes(b"".join([*lines, lines[-1]]))


def _ledger_cut(folder: Path) -> None:
    lines = (folder / "ledger").read_bytes().splitlines(keepends=True)
    (folder / "ledger").write_bytes(b"".join(lines[:-1]))


def _acknowledged_more(folder: Path) -> None:
    with (folder / "acks").open("ab") as acks:
        acks.write(msgspec.json.encode(["start", "run-9", "never"]) + b"\n")


def _blob_cut(folder: Path) -> None:
    blob = next(file for file in (folder / "home" / "blobs").glob("*/*/*") if file.is_file())
    blob.write_bytes(blob.read_bytes()[:-1])


def _sql(statement: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with sqlite3.connect(folder / "home" / "tickwork.db") as connection:
            assert connection.execute(statement).rowcount
        connection.close()

    return change


def _doubled(node: str, *, iteration: int) -> Callable[[Path], None]:
    """Another execution of a node: of the same visit, or of a next one."""

    def change(folder: Path) -> None:
        with sqlite3.connect(folder / "home" / "tickwork.db") as connection:
            for lid, at, body in connection.execute("SELECT lid, at, body FROM log ORDER BY lid, seq"):
                entry = decode_entry(body)
                if isinstance(entry, Execution) and entry.name == node:
                    again = msgspec.structs.replace(entry, exec_id="f" * 24, iteration=iteration)
                    (last,) = connection.execute("SELECT max(seq) FROM log WHERE lid = ?", (lid,)).fetchone()
                    row = (lid, last + 1, at, again.exec_id, encode_entry(again))
                    connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", row)
                    break
        connection.close()

    return change


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (_ledger_twice, r"was called 2 times, 1 at most"),
        (_ledger_cut, r"succeeded, and was never called"),
        (_acknowledged_more, r"the acknowledged start .* is lost"),
        (_blob_cut, r"the blob .* is missing or another one"),
        (_sql("DELETE FROM log WHERE lid = 1 AND seq = 3"), r"entry 4 stands where 3 is due"),
        (_sql("DELETE FROM lifetimes WHERE lid = 2"), r"1 lifetimes for 2 idempotency keys|is lost"),
        (_sql("UPDATE lifetimes SET status = 'RUNNING' WHERE lid = 1"), r"stands at RUNNING"),
        (_sql("INSERT INTO timers VALUES (1, 'retry:x', 5)"), r"1 rows are left in the table timers"),
        (_doubled("total", iteration=0), r"succeeded 2 times"),
        (_doubled("gather", iteration=1), r"visits that SUCCEEDED: .*'gather': 2"),
    ],
)
def test_what_was_spoiled_is_seen(finished: Path, tmp_path: Path, spoil: Callable[[Path], None], seen: str) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(finished, folder)
    spoil(folder)
    wrong = "\n".join(looked_at(folder))
    assert re.search(seen, wrong), wrong or "nothing was seen"


def test_a_log_that_changes_between_two_looks_is_seen(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(finished, folder)
    account = Account(folder, RUNS)
    account.look(Death(-9))
    _sql("DELETE FROM log WHERE lid = 1 AND seq = (SELECT max(seq) FROM log WHERE lid = 1)")(folder)
    account.look(Death(-9))
    assert any("has changed" in wrong for wrong in account.wrong)
