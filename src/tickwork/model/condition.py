"""Conditions on edges: CEL expressions over `result`, `route`, `telemetry`, `header` and `lifetime`.

`route` is the word that labelled alternatives of a diagram are compared with: the result itself when it is a plain
string, its field `route` when it is an object that has one, else the empty string. The CEL engine is loaded when the
first condition is compiled, so a graph without conditions never pays for it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tickwork.errors import TickworkError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("result", "route", "telemetry", "header", "lifetime")
MAX_LENGTH = 4_096
"""Characters of one condition: a condition is a line, not a program."""


class ConditionError(TickworkError):
    """A condition that does not compile (`line`, `column` from 1 inside the expression) or failed on a value."""

    code = "condition"

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line, self.column = line, column


def route_of(result: Any) -> str:
    """The word that a result offers for routing by label."""
    word = result.get("route") if isinstance(result, dict) else result
    return word if isinstance(word, str) else ""


class Condition:
    """One compiled condition. Evaluation is pure and bounded by the engine (10 000 loop steps)."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise ConditionError(f"the condition has {len(text)} characters; at most {MAX_LENGTH} are allowed")
        try:
            self._expression = _environment().compile(text)
        except RuntimeError as error:
            raise _explain(error) from None
        kind = self._expression.return_type().name()
        if kind not in ("BOOL", "DYN"):
            raise ConditionError(f"the condition is {kind.lower()}, not true or false", 1, 1)
        self.reads_result = bool(re.search(r"\b(result|route)\b", text))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is true for `values` (the names of `VARIABLES`; `route` is added here).

        Raises ConditionError when it cannot be evaluated (a missing field, a wrong type) or is not true or false.
        """
        result = values.get("result")
        outcome = self._expression.eval(data={**values, "route": route_of(result)})
        value = outcome.value()
        if outcome.type().name() == "ERROR":
            raise ConditionError(f"condition `{self.text}` failed: {value}")
        if not isinstance(value, bool):
            raise ConditionError(f"condition `{self.text}` gave {outcome.type().name().lower()}, not true or false")
        return value


@lru_cache(maxsize=1024)
def compile_condition(text: str) -> Condition:
    """The compiled form of a condition; raises ConditionError with its place."""
    return Condition(text)


@lru_cache(maxsize=1)
def _environment() -> Any:
    from cel_expr_python import cel  # only graphs that have conditions pay for the engine

    fields = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(
        variables={
            "result": cel.Type.DYN,
            "route": cel.Type.STRING,
            "telemetry": fields,
            "header": fields,
            "lifetime": fields,
        }
    )


def _explain(error: RuntimeError) -> ConditionError:
    """The engine's complaint in one line, with its place."""
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]\s*$", "", str(error))
    found = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    if not found:
        return ConditionError(text.splitlines()[0], 1, 1)
    line, column, told = int(found[1]), int(found[2]), found[3]
    unknown = re.search(r"undeclared reference to '([^'.]+)", told)
    if unknown:
        # For `name.field` the engine points at the dot.
        column = max(1, column - len(unknown[1])) if f"'{unknown[1]}." in told else column
        told = f"unknown name `{unknown[1]}`; a condition knows {', '.join(VARIABLES)}"
    return ConditionError(told, line, column)
