"""The harness that authors test their graphs with."""

from __future__ import annotations

from typing import Any

import pytest

from tickwork import END, Context, Graph, RetryableError, RetryPolicy, human, plan, sleep, task, wait_for_signal
from tickwork.errors import AnswerRefused
from tickwork.testing.harness import run_graph


@task(retry=RetryPolicy(max_attempts=3, initial_interval=3600, max_interval=7200, jitter=0))
def flaky(value: int, ctx: Context) -> int:
    if ctx.attempt < 3:
        raise RetryableError("not yet")
    return value + 1


@plan
def decide(value: Any) -> str:
    return END if value == 2 else "flaky"


def test_hours_of_backoff_take_no_time() -> None:
    outcome = run_graph(Graph("retry").start(flaky).then(flaky, decide).then(decide, flaky).final(decide), 1)
    assert (outcome.status, outcome.result) == ("COMPLETED", 2)
    assert outcome.calls("flaky") == 3
    assert outcome.path() == ["flaky", "flaky", "flaky", "decide"]
    assert outcome.duration_ms == pytest.approx(3 * 3600 * 1000, rel=0.01)


def asking(**options: Any) -> Graph:
    approve = human("approve", prompt="Pay {amount} euro?", answer_schema={"enum": ["yes", "no"]}, **options)
    return Graph("asking").start(approve).final(approve)


def test_answers_are_given_and_the_question_shows_the_input() -> None:
    outcome = run_graph(asking(), {"amount": 5}, answers={"approve": "yes"})
    assert outcome.result == "yes"
    assert outcome.events("waiting")[0].data["prompt"] == "Pay 5 euro?"


def test_without_an_answer_it_waits() -> None:
    assert run_graph(asking(), {"amount": 5}).status == "WAITING"


def test_without_an_answer_the_deadline_passes() -> None:
    outcome = run_graph(asking(deadline=10_800, default="no"), {"amount": 5})
    assert outcome.result == "no"
    assert outcome.duration_ms == pytest.approx(10_800_000, rel=0.01)


def test_an_answer_that_breaks_the_schema_fails_the_test_with_the_reason() -> None:
    with pytest.raises(AnswerRefused, match="'maybe' is not one of"):
        run_graph(asking(), {"amount": 5}, answers={"approve": "maybe"})


def test_signals_and_sleep() -> None:
    paid = wait_for_signal("payment", name="paid")
    nap = sleep("nap", seconds=7200)
    after = plan(lambda value: "nap", name="after")
    graph = Graph("signals").start(paid).then(paid, after).then(after, nap).final(nap)
    outcome = run_graph(graph, None, signals={"payment": {"eur": 7}})
    assert outcome.result == {"eur": 7}
    assert outcome.duration_ms == pytest.approx(7_200_000, rel=0.01)
    assert run_graph(graph).status == "WAITING"
