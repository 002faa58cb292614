"""Conditions on edges: CEL expressions over `result`, `route`, `telemetry`, `header` and `lifetime`.

`route` is the word that labelled alternatives of a diagram are compared with: the result itself when it is a plain
string, its field `route` when it is an object that has one, else the empty string. The CEL engine is loaded when the
first condition is compiled, so a graph without conditions never pays for it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.words import shown

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
            raise explain(error) from None
        kind = self._expression.return_type().name()
        if kind not in ("BOOL", "DYN"):
            what = TYPES.get(kind.lower(), kind.lower())
            raise ConditionError(f"the condition is {what}, not true or false", 1, 1)
        self.reads_result = bool(re.search(r"\b(result|route)\b", text))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is true for `values` (the names of `VARIABLES`; `route` is added here).

        Raises ConditionError when it cannot be evaluated (a missing field, a wrong type) or is not true or false.
        """
        result = values.get("result")
        if has_nul(result):
            raise ConditionError(f"condition `{self.text}` failed: {HIDDEN}")
        outcome = self._expression.eval(data={**values, "route": route_of(result)})
        value = outcome.value()
        if outcome.type().name() == "ERROR":
            raise ConditionError(f"condition `{self.text}` failed: {plainly(str(value), self.text)}")
        if not isinstance(value, bool):
            what = TYPES.get(kind := outcome.type().name().lower(), kind)
            raise ConditionError(f"condition `{self.text}` gave {what}, not true or false")
        return value


_written = msgspec.json.Encoder().encode


def has_nul(value: Any) -> bool:
    """Whether a text in it has a NUL: the engine takes that for the end, and does not see what follows."""
    try:
        return b"\\u0000" in _written(value)
    except (OverflowError, ValueError, TypeError, RecursionError):
        return False  # the engine says what is wrong with it


HIDDEN = "a text has a NUL in it, and what stands behind that would not be seen"


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


def explain(error: RuntimeError, known: str = f"a condition knows {', '.join(VARIABLES)}") -> ConditionError:
    """The engine's complaint in one line, with its place. `known` is said of an unknown name."""
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]\s*$", "", str(error))
    found = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    if not found:
        return ConditionError(text.splitlines()[0], 1, 1)
    line, column, told = int(found[1]), int(found[2]), found[3]
    unknown = re.search(r"undeclared reference to '([^'.]+)", told)
    if unknown:
        # For `name.field` the engine points at the dot.
        column = max(1, column - len(unknown[1])) if f"'{unknown[1]}." in told else column
        told = f"unknown name `{shown(unknown[1])}`; {known}"
    elif call := re.search(r"no matching overload for '(\S+)' applied to '(.*)'", told):
        told = _mismatch(call[1], call[2])
    told = re.sub(r" expecting .*", "", told).replace("mismatched input '<EOF>'", "the expression breaks off here")
    return ConditionError(told, line, column)


TYPES = {"int64": "int", "uint64": "uint", "null_type": "null", "*error*": "an error"}
"""The engine's words for types, as CEL itself writes them."""
_SIGN = re.compile(r"_?(@in|[-+*/%<>=!&|]+)_?|_\[_\]|_\?_:_")
_SPECIAL = {
    "<jump_condition>": "what stands before `?` is not true or false",
    "<iter_range>": "all, exists, map and filter go through a list or a map only",
    "@in": "`in` looks into a list or a map only",
    "_&&_": "`&&` takes only true and false",
    "_||_": "`||` takes only true and false",
    "!_": "`!` takes only true and false",
}


def plainly(said: str, text: str) -> str:
    """What the engine says of a failed evaluation, in words of the condition `text`."""
    said = re.sub(r"^(?:[A-Z_]+: )+", "", said)
    if found := re.fullmatch(r'Key not found in map : "?(.*?)"?', said, re.DOTALL):
        return _no_field(found[1], text)
    if found := re.fullmatch(r"Invalid container type: '(\w+)'", said):
        return f"`[..]` looks into a list or a map only, not {found[1]}"
    if "Applying SELECT to non-message type" in said:
        return "a field is asked of a value that has no fields; has(..) does not help there, `type(..) == map` does"
    if found := re.fullmatch(r"Index error: index=(-?\d+) size=(\d+)", said):
        return f"there is no item {found[1]} in a list of {found[2]} (the first one is 0)"
    if found := re.fullmatch(r"No matching overloads found : (.*)", said):
        whole = found[1]
        if whole in _SPECIAL:
            return _SPECIAL[whole]
        if call := re.fullmatch(r"\((.*?)\)\.(\w+)\((.*)\)", whole):
            return _mismatch(call[2], ", ".join(part for part in (call[1], call[3]) if part))
        if call := re.fullmatch(r"([^\s(]+)\((.*)\)", whole):
            return _mismatch(call[1], call[2])
    return said


def _no_field(name: str, text: str) -> str:
    """`result` has no field `x`: whose field it is stands in the condition, if it is written out there."""
    asked = re.search(rf"((?:\w+\.)*\w+)(?:\.{re.escape(name)}\b|\[[\"']{re.escape(name)}[\"']\])", text)
    if asked is None:
        return f"a map has no field `{name}`"
    return f"`{asked[1]}` has no field `{name}`; `has({asked[1]}.{name})` asks whether it is there"


def _mismatch(call: str, types: str) -> str:
    """What cannot be done with values of these types."""
    types = types.strip("()")
    named = [TYPES.get(word, word) for word in types.split(", ")]
    if call in _SPECIAL:
        return f"{_SPECIAL[call]}, not {' and '.join(dict.fromkeys(named))}" if types else _SPECIAL[call]
    sign = _SIGN.fullmatch(call)
    if sign is None:
        return f"`{call}` cannot take {' and '.join(named)}"
    if len(named) == 2 and call in ("_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_"):
        return f"`{sign[1]}` cannot compare {named[0]} with {named[1]}"
    return f"`{sign[1] or call.replace('_', '')}` cannot be used on {' and '.join(named)}"
