"""Plain questions about texts of a result, answered without the engine: `result.text.contains('rm -rf')`.

The engine takes over the whole result before it looks at one field, which costs more than all else about such a
condition. What is answered here the engine would answer alike; where it would stumble (a field is missing, is no text,
or some number has more than 64 bits; texts end for it at a NUL) it is asked, and says so in its own words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from tickwork.model.expressions.cel_tokens import Token

Test: TypeAlias = Callable[[str, str], bool]

CALLS: dict[str, Test] = {"contains": operator.contains, "startsWith": str.startswith, "endsWith": str.endswith}
COMPARISONS: dict[str, Test] = {"==": operator.eq, "!=": operator.ne}

_packed = msgspec.msgpack.Encoder().encode
"""Refuses numbers of more than 64 bits, as the engine does."""
_written = msgspec.json.Encoder().encode
"""Shows a NUL in any text or name."""


class PlainTexts:
    """Tests of texts, joined by `||` or by `&&` alone."""

    def __init__(self, tests: Sequence[tuple[tuple[str, ...], Test, str]], *, every: bool) -> None:
        self._tests, self._every = tuple(tests), every

    def holds(self, result: Any) -> bool | None:
        """Whether the condition is true for a result; None: the engine has to be asked."""
        held = False
        for path, test, text in self._tests:
            value = result
            for field in path:
                if type(value) is not dict or field not in value:
                    return None
                value = value[field]
            if type(value) is not str:
                return None
            held = test(value, text)
            if held is not self._every:
                break
        try:
            _packed(result)
            return None if b"\\u0000" in _written(result) else held
        except (OverflowError, ValueError, TypeError, RecursionError):
            return None


def plain_texts(tokens: Sequence[Token]) -> PlainTexts | None:
    """What the condition asks, if it is nothing but such questions."""
    tests = []
    joined = {token.text for token in tokens if token.sign("&&", "||")}
    start = 0
    for end in [*[at for at, token in enumerate(tokens) if token.sign("&&", "||")], len(tokens)]:
        test = _test(tokens[start:end])
        if test is None or len(joined) > 1:
            return None
        tests.append(test)
        start = end + 1
    return PlainTexts(tests, every=joined == {"&&"})


def _test(tokens: Sequence[Token]) -> tuple[tuple[str, ...], Test, str] | None:
    """`result.field.field == 'text'` or `result.field.contains('text')`."""
    words = [token.text for token in tokens]
    if len(tokens) > 4 and words[-3] == "(" and words[-1] == ")":
        name, call, text = words[:-5], words[-4], tokens[-2]
        test = CALLS.get(call) if words[-5] == "." else None
    elif len(tokens) > 2:
        name, text = words[:-2], tokens[-1]
        test = COMPARISONS.get(words[-2])
    else:
        return None
    fields = tokens[2 : len(name) : 2]
    dots = name[1::2]
    if test is None or text.kind != "text" or name[:1] != ["result"] or len(name) % 2 == 0:
        return None
    if any(dot != "." for dot in dots) or any(field.kind != "name" for field in fields):
        return None
    written = text.text
    # What has signs that stand for others is for the engine to read.
    if written[0] not in "'\"" or written[:3] in ("'''", '"""') or "\\" in written:
        return None
    return tuple([field.text for field in fields]), test, written[1:-1]
