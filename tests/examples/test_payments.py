"""The example of a payment that is made at most once: it runs, and its hook tells what became of a lost call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tickwork.errors import RetryableError
from tickwork.sdk.loading import load_graph
from tickwork.sdk.values import TaskInput
from tickwork.testing.harness import run_graph

PAYMENTS = str(Path(__file__).resolve().parents[2] / "examples" / "payments" / "payments.py")
INVOICE = {"to": "Ada", "amount": 120}
KEY = TaskInput(INVOICE, node="pay").context.idempotency_key


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bank.jsonl"
    monkeypatch.setenv("BANK_LEDGER", str(path))
    return path


def booked(books: Path) -> list[Any]:
    return [json.loads(line) for line in books.read_text(encoding="utf-8").splitlines()] if books.exists() else []


def asked_about_a_lost_call() -> Any:
    """What the hook says, called as an executor calls it."""
    implementation = load_graph(PAYMENTS).implementations["pay"]
    given = TaskInput(INVOICE, node="pay")
    assert implementation.reconcile is not None
    return implementation.reconcile(given, given.context)


def test_an_invoice_is_paid_once(books: Path) -> None:
    outcome = run_graph(PAYMENTS, INVOICE)
    assert (outcome.status, outcome.path()) == ("COMPLETED", ["check", "approve", "pay"])
    assert booked(books) == [outcome.result]
    assert (outcome.result["to"], outcome.result["amount"]) == ("Ada", 120)


def test_a_large_invoice_and_one_over_nothing_are_not_paid(books: Path) -> None:
    assert run_graph(PAYMENTS, {**INVOICE, "amount": 5000}).result == {"refused": 5000}
    assert run_graph(PAYMENTS, {**INVOICE, "amount": 0}).status == "FAILED"
    assert booked(books) == []


def test_the_graph_says_which_effect_each_task_has() -> None:
    effects = {node.name: node.effect for node in load_graph(PAYMENTS).graph.nodes}
    assert effects == {"check": "pure", "approve": "idempotent", "pay": "at_most_once", "refuse": "idempotent"}


def test_a_transfer_that_is_in_the_books_is_the_result_of_the_lost_call(books: Path) -> None:
    transfer = {"reference": KEY, **INVOICE}
    other = {"reference": "another", **INVOICE}
    books.write_text(f"{json.dumps(other)}\n{json.dumps(transfer)}\n", encoding="utf-8")
    assert asked_about_a_lost_call() == transfer


def test_a_transfer_that_is_not_in_the_books_is_to_be_made(books: Path) -> None:
    books.write_text(json.dumps({"reference": "another", **INVOICE}) + "\n", encoding="utf-8")
    with pytest.raises(RetryableError):
        asked_about_a_lost_call()


def test_two_transfers_are_a_question_to_a_person(books: Path) -> None:
    books.write_text(2 * (json.dumps({"reference": KEY, **INVOICE}) + "\n"), encoding="utf-8")
    with pytest.raises(ValueError, match="2 transfers over 120 EUR have one reference"):
        asked_about_a_lost_call()
