"""The checks of the chaos suite are awake: each kind of fault is planted, and found."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.acceptance.crash_check import Row
from tests.acceptance.crash_shapes import AT_MOST_ONCE, Call
from tests.chaos.check import CloudAccount, Logged
from tickwork.model.records import Entry, Event, Execution


def account(folder: Path, rows: list[Row], keys: int = 1) -> CloudAccount:
    """An account of these rows, as if it had read them."""
    made = CloudAccount(folder, keys, faults=1, blob_faults=False)
    made._read_rows = {row.lifetime_id: row for row in rows}
    made.left = dict.fromkeys(("timers", "questions", "dead_letters"), 0)
    return made


def found(made: CloudAccount) -> set[str]:
    """The kinds of what is wrong."""
    made.judge()
    return {kind for kind, wrong in made.findings().items() if wrong}


def done(exec_id: str, name: str, at: int = 0) -> Execution:
    """A success."""
    return Execution(exec_id, "task", name, "", 0, 1, (), "", at, at, at, "SUCCEEDED", "w python/1")


def running() -> Row:
    """A lifetime that has not ended."""
    return Row("l1", "line", "RUNNING", "run-0", [])


def test_what_was_acknowledged_and_is_not_there_is_lost(tmp_path: Path) -> None:
    (tmp_path / "acks").write_bytes(msgspec.json.encode(["start", "run-0", "l0"]) + b"\n")
    assert "lost" in found(account(tmp_path, [], keys=0))


def test_a_key_without_a_lifetime_is_lost(tmp_path: Path) -> None:
    assert "lost" in found(account(tmp_path, [running()], keys=2))


def test_a_lifetime_that_has_not_ended_is_stranded(tmp_path: Path) -> None:
    assert found(account(tmp_path, [running()])) == {"stranded"}


def test_a_question_that_is_left_is_stranded(tmp_path: Path) -> None:
    made = account(tmp_path, [], keys=0)
    made.left["questions"] = 1
    assert found(made) == {"stranded"}


def test_calls_that_may_not_be_repeated_are_doubled(tmp_path: Path) -> None:
    call = Call("x1", "l1", "once", "", 0, 1, [], AT_MOST_ONCE)
    (tmp_path / "ledger").write_bytes((msgspec.json.encode(call) + b"\n") * 2)
    assert "doubled" in found(account(tmp_path, [running()]))


def test_calls_repeated_more_often_than_there_were_faults_are_doubled(tmp_path: Path) -> None:
    call = Call("x1", "l1", "large", "", 0, 1, [], "idempotent")
    for times, kinds in ((2, {"stranded"}), (3, {"stranded", "doubled"})):
        (tmp_path / "ledger").write_bytes((msgspec.json.encode(call) + b"\n") * times)
        row = running()
        row.log = [done("x1", "large")]
        assert found(account(tmp_path, [row])) == kinds


def test_a_visit_with_two_successes_is_doubled(tmp_path: Path) -> None:
    row = Row("l1", "line", "COMPLETED", "run-0", [])
    row.log = [done("x1", "large"), done("x2", "large"), Event("end", "completed", {"source": [[1], -1, False]})]
    assert "doubled" in found(account(tmp_path, [row]))


def test_the_longest_step_is_counted_from_the_fault(tmp_path: Path) -> None:
    made = account(tmp_path, [])
    log: list[Entry] = [Event("started", "started", {}), done("x1", "large"), done("x2", "thread")]
    made.logs = [Logged(Row("l1", "line", "RUNNING", None, log), [1_000_000, 2_000_000, 9_000_000])]
    assert made.longest_step(3_000_000) == 6.0, "its parents are recorded before the fault, and it was done after it"
    assert made.longest_step(9_000_000) == 0.0
    assert made.first_after(3_000_000) == 6.0
    assert made.first_after(10_000_000) is None
