"""What is given to an implementation, by its signature alone."""

from __future__ import annotations

import functools
import typing
from typing import Any

import pytest
from pydantic import BaseModel

from tickwork.model.messages import Predecessor
from tickwork.model.records import json_payload
from tickwork.sdk.context import Context
from tickwork.sdk.implementation import Implementation, InputInvalid, SignatureFault
from tickwork.sdk.values import PlanInput, TaskInput

if typing.TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForTypes


class Page(BaseModel):
    url: str


def call(function: Any, value: Any, kind: Any = "task") -> Any:
    given = (TaskInput if kind == "task" else PlanInput)(value, node="n")
    return Implementation("n", kind, function).call(given, given.context)


class Callable:
    def __call__(self, page: Page) -> str:
        return page.url


class Methods:
    def method(self, value: Any, ctx: Context) -> Any:
        return [value, ctx.node]

    @staticmethod
    def static(value: Any) -> Any:
        return value


def with_default(value: Any = 5, *, flag: bool = True) -> Any:
    return [value, flag]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: "none", "none"),
        (lambda value: value, {"url": "u"}),
        (lambda ctx: ctx.node, "n"),
        (lambda ctx, value: [ctx.node, value], ["n", {"url": "u"}]),
        (lambda value, *, ctx: [ctx.node, value], ["n", {"url": "u"}]),
        (lambda *, page, ctx: [ctx.node, page], ["n", {"url": "u"}]),
        (lambda task_input: task_input.value, {"url": "u"}),
        (lambda value, *args, **kwargs: [value, args, kwargs], [{"url": "u"}, (), {}]),
        (with_default, [{"url": "u"}, True]),
        (functools.partial(lambda extra, value: [extra, value], 1), [1, {"url": "u"}]),
        (Callable(), "u"),
        (Methods().method, [{"url": "u"}, "n"]),
        (Methods.static, {"url": "u"}),
    ],
)
def test_the_signature_decides_what_is_given(function: Any, expected: Any) -> None:
    assert call(function, {"url": "u"}) == expected


def test_annotations_decide_too() -> None:
    def whole(anything: TaskInput) -> Any:
        return anything.value

    def context(anything: Any, c: Context) -> Any:
        return c.node

    def models(pages: list[Page]) -> Any:
        return [p.url for p in pages]

    def maybe(page: Page | None) -> Any:
        return page

    def unknown(values: OnlyForTypes[int]) -> Any:
        return values

    def numbers(value: list[int]) -> Any:
        return value

    assert call(whole, 1) == 1
    assert call(context, 1) == "n"
    assert call(models, [{"url": "a"}, {"url": "b"}]) == ["a", "b"]
    assert call(maybe, None) is None
    assert call(unknown, [1]) == [1]
    assert call(numbers, "no check of plain types") == "no check of plain types"
    with pytest.raises(InputInvalid, match=r"1\.url: Field required"):
        call(models, [{"url": "a"}, {}])


def test_a_plan_gets_its_predecessors_value() -> None:
    before = Predecessor("x", "a", "task", "", 0, "SUCCEEDED", json_payload({"n": 1}))
    assert PlanInput(None, executions=[before]).result == {"n": 1}
    assert PlanInput(None, executions=[before, before], joined=True).result == [{"n": 1}, {"n": 1}]
    assert PlanInput({"lifetime": "input"}).result is None
    (past,) = PlanInput(None, executions=[before]).executions
    assert (past.name, past.kind, past.status, past.error, past.reason) == ("a", "task", "SUCCEEDED", None, None)


def test_a_context_without_an_executor_is_fit_for_unit_tests() -> None:
    ctx = TaskInput({"a": 1}, node="n").context
    ctx.heartbeat()
    ctx.telemetry.record(tokens_in=1)
    assert not ctx.cancelled
    assert ctx.used is not None
    assert ctx.used.tokens_used == 1
    assert (ctx.config, ctx.lifetime.labels, ctx.lifetime.input) == ({}, {}, None)
    with pytest.raises(RuntimeError, match="no history"):
        ctx.history_sync()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, b: 1, "`b` that nothing is given for"),
        (lambda a, *, b: 1, "`b` that nothing is given for"),
        (int, "wrap it in a function of your own"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused(function: Any, message: str) -> None:
    with pytest.raises(SignatureFault, match=message):
        Implementation("n", "task", function)
