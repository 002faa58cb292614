"""How much a record or a pattern may ask of the judging of one condition, for every engine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tickwork.model.condition import ConditionError

MAX_PATTERN = 300
"""Signs of a regular expression with its counted repeats written out. Engines are linear in the text, and in this."""
_REPEAT = re.compile(r"\{(\d{0,6}),?(\d{0,6})\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]", re.DOTALL)
_TEXT = 50
"""Characters of a text that count as one value."""


def wrong_pattern(pattern: str, most: int = MAX_PATTERN) -> str:
    """What is wrong with a regular expression; "" when it is short enough."""
    if pattern_size(pattern) <= most:
        return ""
    return f"with its repeats written out this pattern has more than {most} signs; shorten it"


def pattern_size(pattern: str) -> int:
    """About how many signs a regular expression has when its counted repeats are written out."""
    sizes, offset = [0], 0
    while offset < len(pattern):
        sign, atom = pattern[offset], 1
        if sign == "(":
            sizes.append(1)
            offset += 1
            continue
        if sign == "[" and (found := _CLASS.match(pattern, offset)):
            offset = found.end()
        else:
            offset += 2 if sign == "\\" else 1
        if sign == ")" and len(sizes) > 1:
            atom = sizes.pop()
        while found := _REPEAT.match(pattern, offset):
            atom *= max(int(found[1] or 0), int(found[2] or 0), 1)
            offset = found.end()
        sizes[-1] += atom
    return sum(sizes)


def check_finite(telemetry: Any) -> None:
    """Refuses a custom counter that is no number: a comparison with it would be false, and so let it pass."""
    for name, value in ((telemetry or {}).get("custom") or {}).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConditionError(f"telemetry.custom.{name} is {value}, which is no number")


def check_size(values: Iterable[Any], most: int) -> None:
    """Refuses a record with more values than a loop that looks back at the record may have. Raises ConditionError."""
    left = most
    stack = list(values)
    while stack:
        value = stack.pop()
        left -= 1
        if isinstance(value, str | bytes):
            left -= len(value) // _TEXT
        elif isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value if len(value) <= left else ())
            left -= 0 if len(value) <= left else len(value)
        if left < 0:
            message = f"the record has more than {most:,} values, which is too many for the loops of this condition"
            raise ConditionError(message)
