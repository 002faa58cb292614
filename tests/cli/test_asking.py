"""The form in the terminal: what a person types becomes an answer that fits the schema."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tickwork.cli.asking import Form
from tickwork.model.lifetime import Question


class Script:
    """Lines that are typed one after the other."""

    def __init__(self, *lines: str) -> None:
        self.left = list(lines)

    async def read(self) -> str:
        if not self.left:
            raise EOFError
        return self.left.pop(0)


async def typed(schema: dict[str, Any] | None, *lines: str, **more: Any) -> tuple[Any, str]:
    """The answer and what was shown; every line must have been needed."""
    script, shown = Script(*lines), io.StringIO()
    form = Form(Console(file=shown, width=80), script)
    question = Question(
        tenant_id="t", lifetime_id="l", exec_id="x", node="approve", branch="", on="human", since=0,
        prompt="May `it` go out?", answer_schema=schema, **more,
    )  # fmt: skip
    answer = await form.ask(question)
    assert script.left == []
    return answer, shown.getvalue()


@pytest.mark.parametrize(
    ("schema", "line", "answer"),
    [
        (None, "as it is", "as it is"),
        (None, "7", 7),
        (None, '{"a": [1]}', {"a": [1]}),
        ({"type": "string"}, "7", "7"),
        ({"type": "integer"}, "7", 7),
        ({"type": "number"}, "7.5", 7.5),
        ({"type": "boolean"}, "y", True),
        ({"type": "boolean"}, "no", False),
        ({"enum": ["accept", "reject"]}, "2", "reject"),
        ({"enum": ["accept", "reject"]}, "acc", "accept"),
        ({"enum": [1, None, "x"]}, "null", None),
        ({"type": "array", "items": {"type": "string"}}, "a, b", ["a", "b"]),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "string", "default": "draft"}, "", "draft"),
    ],
)
async def test_one_line_is_read_as_the_schema_says(schema: dict[str, Any] | None, line: str, answer: Any) -> None:
    got, shown = await typed(schema, line)
    assert got == answer
    assert type(got) is type(answer)
    assert "approve asks" in shown
    assert "May `it` go out?" in shown


async def test_an_object_is_asked_field_by_field() -> None:
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["accept", "reject"], "description": "Your decision"},
            "note": {"type": "string"},
            "author": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
        "required": ["verdict", "author"],
    }
    answer, shown = await typed(schema, "1", "", "Ada")
    assert answer == {"verdict": "accept", "author": {"name": "Ada"}}
    assert "Your decision" in shown
    assert "author.name" in shown
    assert "(empty: leave it out)" in shown


@pytest.mark.parametrize(
    ("schema", "wrong", "right", "answer", "says"),
    [
        ({"type": "integer", "minimum": 3}, "2", "3", 3, "less than the minimum"),
        ({"type": "integer"}, "two", "2", 2, "is not a whole number"),
        ({"enum": ["a", "b"]}, "3", "1", "a", "choose a number from 1 to 2"),
        ({"type": "string", "minLength": 1}, "", "x", "x", "non-empty"),
        ({"type": "boolean"}, "perhaps", "y", True, "write y or n"),
        ({"type": "object"}, "{", "{}", {}, "is not JSON"),
    ],
)
async def test_what_does_not_fit_is_refused_and_asked_again(
    schema: dict[str, Any], wrong: str, right: str, answer: Any, says: str
) -> None:
    got, shown = await typed(schema, wrong, right)
    assert got == answer
    assert says in " ".join(shown.split())


async def test_a_rule_over_several_fields_asks_for_all_of_them_again() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "minProperties": 1,
    }
    answer, shown = await typed(schema, "", "", "x", "")
    assert answer == {"a": "x"}
    assert "That is not accepted" in shown


async def test_nobody_left_is_said_by_eof() -> None:
    with pytest.raises(EOFError):
        await typed({"type": "string", "minLength": 1}, "")


async def test_deadline_and_who_are_shown() -> None:
    _, shown = await typed(None, "x", deadline=1_800_000_000_000_000, who=("ada", "bob"))
    assert "until 2027-" in shown
    assert "for ada, bob" in shown
