"""hello, approval, map_reduce and research_loop run on the real planes, on virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tickwork.testing.harness import run_graph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = str(EXAMPLES / "hello" / "hello.py")
APPROVAL = str(EXAMPLES / "approval" / "approval.yaml")
STATIONS = str(EXAMPLES / "map_reduce" / "stations.py")
RESEARCH = str(EXAMPLES / "research_loop" / "research.py")

LARGE = {"order": "A-17", "customer": "Ada", "amount": 120}


def test_hello_greets_by_name() -> None:
    outcome = run_graph(HELLO, "Ada")
    assert (outcome.status, outcome.result) == ("COMPLETED", "Hello, Ada!")
    assert outcome.path() == ["choose", "greet"]


def test_hello_asks_when_it_knows_no_name() -> None:
    assert run_graph(HELLO).result == "Hello! What is your name?"


def test_hello_is_at_most_fifteen_lines_of_python() -> None:
    lines = [line for line in Path(HELLO).read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 15


def test_a_small_refund_is_paid_without_asking() -> None:
    outcome = run_graph(APPROVAL, {**LARGE, "amount": 20})
    assert outcome.path() == ["check_order", "by_amount", "pay"]
    assert (outcome.result["paid"], outcome.result["by"]) == (20, "rule")


@pytest.mark.parametrize(
    ("answer", "paid", "last"), [({"decision": "pay"}, 120, "pay"), ({"decision": "decline"}, 0, "decline")]
)
def test_a_large_refund_is_as_the_person_says(answer: dict[str, str], paid: int, last: str) -> None:
    outcome = run_graph(APPROVAL, LARGE, answers={"ask_manager": answer})
    assert (outcome.status, outcome.result["paid"], outcome.path()[-1]) == ("COMPLETED", paid, last)


def test_the_person_is_asked_with_the_facts() -> None:
    outcome = run_graph(APPROVAL, LARGE, answers={"ask_manager": {"decision": "pay"}})
    (asked,) = outcome.events("waiting")
    assert asked.data["prompt"].startswith("Ada wants 120 EUR back for order A-17.")


def test_nobody_answers_within_the_hour_and_the_default_is_taken() -> None:
    outcome = run_graph(APPROVAL, LARGE)
    assert (outcome.status, outcome.result["paid"]) == ("COMPLETED", 0)
    assert outcome.result["comment"] == "nobody answered within an hour"
    assert outcome.duration_ms >= 3_600_000


def test_a_refund_of_nothing_fails_at_once() -> None:
    outcome = run_graph(APPROVAL, {**LARGE, "amount": 0})
    assert (outcome.status, outcome.calls("check_order")) == ("FAILED", 1)


def stations(answering: int, silent: int) -> list[dict[str, Any]]:
    loud = [{"name": f"loud{n}", "celsius": 10 + n} for n in range(answering)]
    return [*loud, *({"name": f"silent{n}", "silent": True} for n in range(silent))]


def test_three_stations_are_enough_and_the_silent_ones_are_cancelled() -> None:
    outcome = run_graph(STATIONS, json.loads((EXAMPLES / "map_reduce" / "stations.json").read_text(encoding="utf-8")))
    assert outcome.result == {"celsius": 12.2, "stations": ["east", "harbour", "north"]}
    assert sorted(record.status for record in outcome.records("read")) == ["CANCELLED"] * 2 + ["SUCCEEDED"] * 3
    assert outcome.duration_ms < 1_000


def test_fifty_stations_are_read_in_fifty_branches() -> None:
    outcome = run_graph(STATIONS, stations(3, 47))
    assert len({record.branch for record in outcome.records("read")}) == 50
    assert outcome.result["celsius"] == 11


def test_a_quorum_that_cannot_be_reached_fails() -> None:
    outcome = run_graph(STATIONS, stations(2, 3))
    assert outcome.status == "FAILED"
    assert "reduce" not in outcome.path()


def test_research_goes_round_until_enough_is_known() -> None:
    outcome = run_graph(RESEARCH, {"topic": "tides"})
    assert outcome.status == "COMPLETED"
    assert [line.partition(":")[0] for line in outcome.result.splitlines()] == ["tides", "moon", "sun"]
    assert [record.reason for record in outcome.records("enough")] == [
        "1 of 3 notes; next is moon",
        "2 of 3 notes; next is sun",
        "3 notes are enough",
    ]


def test_research_tries_the_busy_source_again() -> None:
    tried = [(r.iteration, r.attempt, r.status) for r in run_graph(RESEARCH, {"topic": "tides"}).records("search")]
    assert tried == [(0, 1, "SUCCEEDED"), (1, 1, "FAILED"), (1, 2, "SUCCEEDED"), (2, 1, "SUCCEEDED")]


def test_research_ends_when_no_lead_is_left() -> None:
    outcome = run_graph(RESEARCH, {"topic": "sun", "enough": 10})
    assert [line.partition(":")[0] for line in outcome.result.splitlines()] == ["sun", "gravity"]
