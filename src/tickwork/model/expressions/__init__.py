"""Conditions of policies: a small contract that every engine meets, so that no caller knows which one it has.

A condition is compiled once, when its policy is loaded, and then judged for every record and dispatch. What it adds up
(`sum(tokens_used)`) is not computed here: whoever judges keeps the sums and hands them in, exact, in kept units
(`tickwork.model.spending`). Judging is pure and bounded. An engine is loaded when the first condition needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from tickwork.model.policy import Engine, Scope

AggregateName = Literal["sum", "max", "min", "avg", "count", "iterations", "elapsed"]
Comparison = Literal["<", "<=", ">", ">=", "==", "!="]


class Aggregate(msgspec.Struct, frozen=True, array_like=True):
    """Something that a condition has kept for it: `sum(tokens_used)`, `iterations('refine')`, `count()`."""

    name: AggregateName
    of: str = ""
    """The measure of sum, max, min and avg (`tokens_used`, `custom.pages`); the node of iterations; else empty."""

    def __str__(self) -> str:
        return f"{self.name}('{self.of}')" if self.name == "iterations" else f"{self.name}({self.of})"


Amount: TypeAlias = "int | tuple[int, int] | None"
"""What an aggregate stands at. sum, count, iterations: an integer in kept units; elapsed: microseconds; max and min:
the same, None before the first record; avg: (sum, number of records)."""


class Limit(msgspec.Struct, frozen=True):
    """A comparison of an aggregate with a number: `sum(tokens_used) > 10000`."""

    aggregate: Aggregate
    comparison: Comparison
    number: Decimal
    """In the unit that people write: dollars, milliseconds, seconds for elapsed."""


class PlainTest(Protocol):
    """A test of a result alone."""

    def holds(self, result: Any) -> bool | None:
        """Whether the condition is true for a result; None: the engine has to be asked."""
        ...


class Expression(Protocol):
    """A compiled condition."""

    text: str
    aggregates: tuple[Aggregate, ...]
    """What has to be handed in, each once, in this order."""
    reads: frozenset[str]
    """Of `result`, `telemetry`, `header`, `lifetime` (and `route` as `result`): what it looks at beside them."""
    limits: tuple[Limit, ...]
    """Its comparisons of an aggregate with a number; these are exact. A policy with exactly one, of `>` or `>=`, has a
    limit that can be raised for one lifetime."""

    single: bool
    """It is one such comparison and nothing else, so whoever keeps the amount can see by himself whether it holds."""

    upper: bool
    """It is nothing but such comparisons, all of `>` or `>=`: it cannot hold while every amount is within its limit."""

    plain: PlainTest | None
    """The whole condition, where it is so plain that most results need no engine."""

    def holds(
        self, amounts: Sequence[Amount], record: Callable[[], Mapping[str, Any]], raised: Decimal | None = None
    ) -> bool:
        """Whether the condition is true. False while a max, min or avg that it names has seen no record.

        `record()` gives the values of `reads`; it is called only when there are any. `raised` takes the place of the
        number in the only limit. Raises ConditionError when it cannot be evaluated.
        """
        ...


def all_upper(limits: Sequence[Limit]) -> bool:
    """Whether these are upper limits alone."""
    return all(limit.comparison in (">", ">=") for limit in limits)


def before_dispatch(expression: Expression) -> bool:
    """Whether it can be judged before anything is run: it reads no record, and grows with what is dispatched."""
    known = {"sum", "count", "iterations", "elapsed"}
    return expression.reads <= {"lifetime"} and all(aggregate.name in known for aggregate in expression.aggregates)


def raisable(expression: Expression) -> Limit | None:
    """The limit that a person may raise for one lifetime; None when the condition has no single one."""
    if len(expression.limits) == 1 and expression.limits[0].comparison in (">", ">="):
        return expression.limits[0]
    return None


def compile_expression(engine: Engine, text: str, scope: Scope) -> Expression:
    """The compiled form of a policy's `when`. Raises ConditionError with the place inside the text; MissingExtra."""
    if engine == "rego":
        from tickwork.model.expressions.rego import RegoExpression

        return RegoExpression(text, scope)
    from tickwork.model.expressions.cel import CelExpression

    return CelExpression(text, scope)
