"""Executions that only a person can settle: where they are shown, and what settles them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment
from tests.cli.test_terminal import Seat
from tests.cli.test_two_processes import commands, document

PAYING = """
import asyncio
from tickwork import END, Graph, PlanResult, TimeLimits, plan, task

@task(effect="at_most_once", limits=TimeLimits(start_to_close=0.05, grace=0.05))
async def pay(order):
    await asyncio.sleep(60)

@plan
def split(order):
    return ["pay"] * order

@plan
def close(paid):
    return PlanResult(END, output=paid)

graph = Graph("paying", "1.0.0").start(split).parallel(split, pay).join(pay, close).edge(close, pay).final(close)
"""


@pytest.fixture
def paying(tmp_path: Path) -> str:
    """A graph that pays so often as its input says; no payment comes back in time, and no hook can tell what it did."""
    path = tmp_path / "paying.py"
    path.write_text(PAYING)
    return str(path)


def unknown(cli: Cli, paying: str, times: int = 1) -> str:
    """A lifetime that waits for somebody to settle what it paid; nobody holds the home."""
    ran = cli("run", paying, "--input", str(times), "--json", "--quiet", code=12)
    assert ran.json["status"] == "WAITING"
    lifetime: str = ran.json["lifetime_id"]
    return lifetime


def test_a_run_that_stops_at_it_says_how_to_settle_it(cli: Cli, paying: str) -> None:
    ran = cli("run", paying, "--input", "1", code=12)
    (question,) = cli("inbox", "--json").json
    one, exec_id = question["lifetime_id"], question["exec_id"]
    assert (question["on"], question["node"], question["graph"]) == ("unknown", "pay", "paying")
    said = commands(ran.err)
    assert "waits for somebody to settle `pay` (UNKNOWN)" in said
    settle = f"tickwork lifetimes reconcile {one} --exec {exec_id}"
    for text in (said, commands(cli("inbox").err), commands(cli("lifetimes", "show", one).out)):
        assert "pay is UNKNOWN" in text
        assert f"it happened:   {settle} --result JSON" in text
        assert f"it failed:     {settle} --failed REASON" in text
        assert f"run it again:  {settle} --retry" in text
    assert "UNKNOWN" in cli("inbox").out
    assert "Answer:" not in cli("inbox").err
    assert "StartToClose: `pay` did not end within 0.05 s" in cli("lifetimes", "show", one).out
    log = cli("lifetimes", "log", one).out
    assert "is about to call it" in log
    assert "pay: nobody knows whether it happened (StartToClose" in log
    assert "pay: a person has to say what happened (NoHook" in log
    assert cli("lifetimes", "answer", one, "yes", code=13).out == ""


def test_each_of_the_three_settles_it(cli: Cli, paying: str) -> None:
    one = unknown(cli, paying, 2)
    first, second = [question["exec_id"] for question in cli("inbox", "--json").json]
    refused = cli("lifetimes", "reconcile", one, "--retry", "--json", code=2)
    assert "2 executions of lifetime" in refused.json["error"]["message"]
    assert first in refused.err
    assert second in refused.err
    assert cli("lifetimes", "reconcile", one, "--node", "pay", "--retry", code=2).out == ""

    told = cli("lifetimes", "reconcile", one, "--exec", first[:10], "--result", '{"paid": 1}', "--no-run", "--json")
    assert told.json["lifetime_id"] == one
    again = cli("lifetimes", "reconcile", one, "--retry", "--by", "ada", "--json", code=12)
    assert again.json["reason"] == "waits for somebody to settle `pay` (UNKNOWN)"
    assert "pay: it is run again (by ada)" in cli("lifetimes", "log", one).out
    (third,) = [question["exec_id"] for question in cli("inbox", "--json").json]
    assert third not in (first, second)
    failed = cli("lifetimes", "reconcile", one, "--failed", "the bank said no", "--json", code=10)
    assert "the bank said no" in failed.json["reason"]
    assert "has ended FAILED" in cli("lifetimes", "reconcile", one, "--retry", code=1).err
    records = cli("lifetimes", "log", one, "--json").json
    workers = [r["headers"]["executor"]["worker_id"] for r in records if r.get("headers", {}).get("name") == "pay"]
    assert len([name for name in workers if name.startswith("reconcile:")]) == 2


def test_what_was_said_becomes_the_result(cli: Cli, paying: str) -> None:
    one = unknown(cli, paying)
    done = cli("lifetimes", "reconcile", one, "--result", "[1, 2]", "--json")
    assert (done.json["status"], done.json["result"]) == ("COMPLETED", [[1, 2]])
    assert cli("inbox", "--json").json == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "Say exactly one thing"),
        (["--retry", "--failed", "no"], "Say exactly one thing"),
        (["--result", "1", "--retry"], "Say exactly one thing"),
        (["--failed", " "], "--failed: say why."),
        (["--result", "paid"], "this is not JSON"),
        (["--result", "@missing.json"], "missing.json cannot be read"),
    ],
)
def test_what_cannot_be_understood_changes_nothing(cli: Cli, said: list[str], why: str) -> None:
    assert why in cli("lifetimes", "reconcile", "0", *said, code=2).err


def test_a_lifetime_in_which_nothing_is_in_trouble(cli: Cli, approval: str) -> None:
    assert cli("lifetimes", "reconcile", "0", "--retry", code=13).out == ""
    one = cli("run", approval, "--input", '"tea"', "--json", code=12).json["lifetime_id"]
    ran = cli("lifetimes", "reconcile", one, "--retry", "--json", code=13)
    assert ran.json["error"]["code"] == "not_found"
    assert "has no execution that is UNKNOWN or poison" in ran.err
    assert f"tickwork lifetimes answer {one} ANSWER" in commands(ran.err)
    assert "approve  (waits for an answer)" in ran.err


@pytest.fixture
def held(tmp_path: Path, home: Path, paying: str) -> Iterator[subprocess.Popen[str]]:
    """`tickwork run --wait` that waits for somebody to settle a payment."""
    running = subprocess.Popen(
        [*COMMAND, "run", paying, "--input", "1", "--wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    )
    assert running.stderr is not None
    with running:
        for line in running.stderr:
            if "event waiting" in line:
                break
        yield running
        running.kill()


def test_it_is_settled_through_the_process_that_holds_the_home(cli: Cli, held: subprocess.Popen[str]) -> None:
    (question,) = cli("inbox", "--json").json
    told = cli("lifetimes", "reconcile", question["lifetime_id"], "--result", "7")
    assert f"the process that holds the home goes on with it (process {held.pid})" in told.err
    ended = document(held)
    assert (ended["status"], ended["result"]) == ("COMPLETED", [7])


def test_nobody_at_the_terminal_is_asked_for_an_answer(tmp_path: Path, home: Path, paying: str) -> None:
    seat = Seat(["run", paying, "--input", "1", "--json"], tmp_path, environment(home))
    try:
        code, _, screen = seat.end()
    finally:
        seat.close()
    assert code == 12
    assert "pay asks" not in screen
    assert "pay is UNKNOWN; say what became of it" in screen


def test_the_queues_of_a_running_process(cli: Cli, held: subprocess.Popen[str]) -> None:
    found = {row["queue"]: row for row in cli("doctor", "--json").json["queues"]}
    assert found["lifetimes that move"] == {"queue": "lifetimes that move", "now": 0, "bound": 100_000}
    assert found["lifetimes that wait, in memory"]["now"] == 1
    assert found["inputs at the executor"]["bound"] == 11_000
    assert found["records to be written"]["bound"] is None
    assert "inputs of graphs not loaded" in cli("doctor").out
    held.kill()
    held.wait()
    assert cli("doctor", "--json").json["queues"] == []


def test_a_reason_that_nobody_reads_to_its_end_is_refused(cli: Cli, paying: str) -> None:
    one = unknown(cli, paying)
    for words in (["reconcile", one, "--failed"], ["abort", one, "--reason"], ["reconcile", one, "--retry", "--by"]):
        assert "at most 16,384 characters" in cli("lifetimes", *words, "x" * 20_000, code=2).err
    assert cli("lifetimes", "show", one, "--json").json["status"] == "WAITING"
