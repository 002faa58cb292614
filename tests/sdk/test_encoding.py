from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tickwork.model.records import BYTES, JSON, payload_value
from tickwork.sdk.encoding import EncodingError, encode_plan, encode_value, json_value
from tickwork.sdk.nodes import task
from tickwork.sdk.values import END, Next, PlanResult

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_json_can_say_comes_back_as_it_was(value: Any) -> None:
    payload = encode_value(value)
    assert payload.inline is not None
    assert (payload.content_type, payload.size) == (JSON, len(payload.inline))
    assert payload_value(payload) == value


class Model(BaseModel):
    when: datetime
    price: Decimal
    score: float | None = None


@dataclass
class Point:
    x: float
    tags: list[str] = field(default_factory=list)


class Row(msgspec.Struct):
    a: int
    b: Any = None


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Model(when=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.10")),
            {"when": "2026-01-02T00:00:00Z", "price": "1.10", "score": None},
        ),
        ([Point(1.5, ["a"])], [{"x": 1.5, "tags": ["a"]}]),
        (Row(1, b=Row(2)), {"a": 1, "b": {"a": 2, "b": None}}),
        ({"d": Decimal("0.1"), "t": date(2026, 1, 2)}, {"d": "0.1", "t": "2026-01-02"}),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (Colour.RED, "red"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ({"in": b"\x00\xff"}, {"in": "AP8="}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_common_types_have_a_form_in_json(value: Any, expected: Any) -> None:
    assert payload_value(encode_value(value)) == expected


@pytest.mark.parametrize("value", [b"\x00raw", bytearray(b"\x00raw"), memoryview(b"\x00raw")])
def test_bytes_travel_as_they_are(value: Any) -> None:
    payload = encode_value(value)
    assert (payload.inline, payload.content_type, payload.size) == (b"\x00raw", BYTES, 4)


class Broken(BaseModel):
    x: int

    def model_dump(self, **_: Any) -> Any:
        raise RuntimeError("cannot")


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"a": [1]}
    value["a"].append(value)
    return value


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "$ is nan, for which JSON has no word"),
        ({"a": [1, float("inf")]}, "$.a[1] is inf"),
        (Point(float("-inf")), "$.x is -inf"),
        (Row(1, b={"c": float("nan")}), "$.b.c is nan"),
        ([Model(when=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal(1), score=float("nan"))], "$[0].score is nan"),
        ({"text": None, "x": float("nan")}, "$.x is nan"),
        (cycle(), "$.a[1] is a cycle"),
        ({"a": object()}, "$.a is of type object, which JSON cannot say"),
        ({"a": [len]}, "$.a[0] is of type builtin_function_or_method"),
        (numbers(), "$ is of type generator"),
        ({(1, 2): 3}, "$ has the key (1, 2), but keys are text"),
        ("\ud800", "$ is text that is no Unicode"),
        ({"k": ["fine", "\udfff"]}, "$.k[1] is text that is no Unicode"),
        (Broken(x=1), "cannot"),
        (Model, "which JSON cannot say"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode_value(value, "the result of `x`")
    assert str(caught.value).startswith("the result of `x` cannot be recorded: ")
    assert message in str(caught.value)


def test_a_null_that_was_meant_is_fine() -> None:
    assert payload_value(encode_value({"a": None, "b": "null", "c": [None, 1.5, {"d": None}]})) == {
        "a": None,
        "b": "null",
        "c": [None, 1.5, {"d": None}],
    }


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [1, None]
    assert payload_value(encode_value([shared, shared])) == [[1, None], [1, None]]


@pytest.mark.parametrize("value", ["x" * 100, b"x" * 102, {"a": ["x" * 92]}])
def test_a_value_that_is_too_large_is_refused(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.sdk.encoding.MAX_PAYLOAD", 101)
    with pytest.raises(EncodingError, match="the result cannot be recorded: it has 102 bytes, and 101 is") as found:
        encode_value(value)
    assert "return where it lies" in str(found.value)
    assert encode_value("x" * 99).size == len(encode_value(b"x" * 101).inline or b"") == 101


def test_a_value_for_a_record_has_to_fit_its_encoding() -> None:
    assert json_value({"a": Point(1.0)}, "x") == {"a": {"x": 1.0, "tags": []}}
    with pytest.raises(EncodingError, match="more than 64 bits"):
        json_value(2**64, "x")
    with pytest.raises(EncodingError, match="use text"):
        json_value(b"x", "x")


def test_a_choice_knows_its_input_from_none() -> None:
    chosen, output, reason = encode_plan([Next("a"), Next("b", input=None), Next("c", {"x": 1})])
    assert [(n.task, n.input and n.input.inline) for n in chosen] == [("a", None), ("b", b"null"), ("c", b'{"x":1}')]
    assert (output, reason) == (None, None)
    _, output, reason = encode_plan(PlanResult(END, output=None, reason="all done"))
    assert (payload_value(output), reason) == (None, "all done")
    assert output is not None


def test_next_takes_a_task_and_nothing_else() -> None:
    made = task(name="made")(lambda: None)
    assert Next(made).name == "made"
    assert Next("a", 1) == Next("a", input=1) != Next("a")
    assert repr(Next("a", 1)) == "Next('a', input=1)"
    with pytest.raises(TypeError, match="not int"):
        Next(5)
