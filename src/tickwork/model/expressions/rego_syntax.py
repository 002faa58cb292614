"""A condition in Rego as a syntax tree: parsed by the engine, bounded before it, with places told for what was written.

`when` holds either expressions, one a line or parted by `;`, that all have to be true, or rules that define `breach`.
"""

from __future__ import annotations

import importlib
import json
import re
import threading
from typing import Any

import msgspec

from tickwork.errors import MissingExtra
from tickwork.model.condition import ConditionError
from tickwork.model.expressions.places import check_text, look_alike, refuse

RULE = "data.tickwork.breach"
MAX_DEPTH = 8
"""Brackets and braces inside each other: the engine's parser takes twice as long for each."""
MAX_PARENTHESES = 20
MAX_SIGNS = 100
"""Arithmetic signs of one condition: the engine's parser nests them."""
MAX_ENGINES = 256
"""Compiled conditions that are kept for a thread."""

_HEAD = "package tickwork\n"
_RULES = re.compile(r"(?:\s|#[^\n]*\n)*(?:default\s+)?breach(?![\w.\[])")
_SKIPPED = re.compile(r'"(?:\\[^\n]|[^"\\\n])*"|`[^`]*`|#[^\n]*')
_engines = threading.local()
# An engine may be used only by the thread that made it, so each thread has its own.


class Syntax(msgspec.Struct, frozen=True):
    """What the engine read. Places in the tree are offsets in `source`, in bytes."""

    text: str
    source: bytes
    begin: int
    """Where `text` begins in the source."""
    imports: list[Any]
    rules: list[Any]

    def refuse(self, span: dict[str, Any], message: str) -> ConditionError:
        """The error at the place of a span."""
        before = self.source[self.begin : max(self.begin, span["start"])].decode(errors="replace")
        return refuse(self.text, min(len(before), max(0, len(self.text) - 1)), message)

    def written(self, span: dict[str, Any]) -> str:
        """The text of a span."""
        return self.source[span["start"] : span["end"]].decode()


def load_engine() -> Any:
    """The engine's module. Raises MissingExtra."""
    try:
        return importlib.import_module("regorus")
    except ImportError:
        raise MissingExtra("conditions in Rego need the extra rego: pip install 'tickwork[rego]'") from None


def parse(text: str) -> Syntax:
    """The syntax tree of a condition. Raises ConditionError with the place; MissingExtra."""
    check_text(text)
    _check_shape(text)
    head, tail = (_HEAD, "\n") if _RULES.match(text) else (_HEAD + "breach if {\n", "\n}\n")
    source = head + text + tail
    engine = load_engine().Engine()
    try:
        engine.add_policy("policy", source)
        found = json.loads(engine.get_ast_as_json())[0]["ast"]
    except RecursionError:
        raise ConditionError("the condition is too deep; simplify it", 1, 1) from None
    except RuntimeError as error:
        raise _explain(text, head.count("\n"), error) from None
    return Syntax(text, source.encode(), len(head.encode()), found["imports"], found["rules"])


def engine_of(source: str) -> Any:
    """The engine of this thread that holds `source`."""
    kept: dict[str, Any] = _engines.__dict__.setdefault("kept", {})
    engine = kept.get(source)
    if engine is None:
        if len(kept) >= MAX_ENGINES:
            kept.clear()
        engine = kept[source] = load_engine().Engine()
        engine.add_policy("policy", source)
        engine.set_gather_prints(True)
    return engine


def reason(error: BaseException) -> str:
    """What the engine complains of, in one line, without the stack of its own that it adds."""
    said = str(error)
    found = re.search(r"error: ([^\n]*)", said)
    return found[1].strip() if found else said.strip().partition("\n")[0]


def _check_shape(text: str) -> None:
    """Refuses what the parser would take too long for, or not survive."""
    bare = _SKIPPED.sub(lambda found: " " * len(found[0]), text)
    if spaced := re.search(r"(?<!\w)\d+ +\d", bare):
        raise refuse(text, spaced.start(), "Rego writes a number without spaces: 10000")
    open_signs: list[int] = []
    depth = parentheses = signs = 0
    for offset, sign in enumerate(bare):
        if not sign.isascii():
            raise refuse(text, offset, look_alike(sign))
        if sign in "([{":
            open_signs.append(offset)
            depth, parentheses = depth + (sign != "("), parentheses + (sign == "(")
            if depth > MAX_DEPTH or parentheses > MAX_PARENTHESES:
                most = f"{MAX_DEPTH} brackets and braces, {MAX_PARENTHESES} parentheses"
                raise refuse(text, offset, f"too much inside each other (at most {most})")
        elif sign in ")]}":
            if not open_signs or bare[open_signs.pop()] != {")": "(", "]": "[", "}": "{"}[sign]:
                raise refuse(text, offset, f"`{sign}` closes nothing")
            depth, parentheses = depth - (sign != ")"), parentheses - (sign == ")")
        elif sign in "+-*/%|&":
            signs += 1
            if signs > MAX_SIGNS:
                raise refuse(text, offset, f"more than {MAX_SIGNS} arithmetic signs in one condition")
    if open_signs:
        raise refuse(text, open_signs[-1], f"this `{bare[open_signs[-1]]}` is never closed")


def _explain(text: str, head: int, error: RuntimeError) -> ConditionError:
    told = reason(error)
    found = re.search(r"--> policy:(\d+):(\d+)", str(error))
    lines = text.split("\n")
    line, column = (int(found[1]) - head, int(found[2])) if found else (1, 1)
    if line > len(lines):
        return ConditionError("the condition breaks off here", len(lines), len(lines[-1]) + 1)
    return ConditionError(told, max(1, line), column)
