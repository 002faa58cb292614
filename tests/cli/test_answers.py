"""The answers file: one answer for ever, or a list in turn that the log counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tickwork.cli.answers import Answers, NoAnswer, read_answers
from tickwork.cli.failure import Refusal
from tickwork.cli.payloads import read_answer, read_json
from tickwork.model.lifetime import Question
from tickwork.model.records import Event, LogEntry


def question(node: str, exec_id: str) -> Question:
    return Question(tenant_id="t", lifetime_id="l", exec_id=exec_id, node=node, branch="", on="human", since=0)


def asked(seq: int, node: str, exec_id: str) -> LogEntry:
    return LogEntry(seq, seq, Event(f"waiting:{exec_id}", "waiting", {"node": node, "exec_id": exec_id, "on": "human"}))


def test_a_single_answer_is_good_for_ever() -> None:
    answers = Answers({"approve": {"ok": True}}, "a.yaml")
    assert [answers.answer(question("approve", f"x{n}")) for n in range(3)] == [{"ok": True}] * 3


def test_a_list_is_given_in_turn_and_then_it_is_over() -> None:
    answers = Answers({"review": ["no", "yes"]}, "a.yaml")
    assert answers.answer(question("review", "x1")) == "no"
    assert answers.answer(question("review", "x1")) == "no"
    assert answers.answer(question("review", "x2")) == "yes"
    with pytest.raises(NoAnswer, match=r"a\.yaml has 2 answers for `review`, and it asks for the 3\. time"):
        answers.answer(question("review", "x3"))
    with pytest.raises(NoAnswer, match="no answer for `other`"):
        answers.answer(question("other", "x4"))


def test_a_resumed_run_goes_on_in_the_list_where_its_log_is() -> None:
    answers = Answers({"review": ["no", "yes"]}, "a.yaml")
    for entry in (asked(1, "review", "x1"), asked(2, "other", "y"), asked(3, "review", "x2"), asked(3, "review", "x2")):
        answers.see(entry)
    assert answers.answer(question("review", "x2")) == "yes"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- just\n- a list\n", "not a mapping"),
        ("a: [1\n", r"a\.yaml:2:1"),
        ("a: 1\na: 2\n", r"a\.yaml:2:1"),
        ("a: !!python/object:os.system {}\n", r"a\.yaml:1:4"),
        ("a: .nan\n", "JSON has no word"),
        ("1: x\n", "not a mapping"),
    ],
)
def test_a_file_that_is_none_says_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(Refusal, match=says):
        read_answers(path)


def test_dates_come_as_json_has_them(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("when: 2026-01-02\n")
    assert read_answers(path).answer(question("when", "x")) == "2026-01-02"


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", "yes"), ("true", True), ("7", 7), ('{"a": 1}', {"a": 1}), ('"7"', "7"), ("well, no", "well, no")],
)
def test_a_plain_word_is_an_answer(text: str, value: Any) -> None:
    assert read_answer(text, "ANSWER") == value


def test_what_begins_like_json_has_to_be_json(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="this is not JSON"):
        read_answer('{"a": ', "ANSWER")
    (tmp_path / "v.json").write_text("[1, 2]")
    assert read_json(f"@{tmp_path / 'v.json'}", "--input") == [1, 2]
    with pytest.raises(Refusal, match="not JSON"):
        read_json("[" * 100_000, "--input")
