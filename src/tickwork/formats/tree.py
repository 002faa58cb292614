"""What a file says before anybody asks what it means: values that know their place.

Every reader makes the same tree, so YAML, JSON, and the JSON inside DOT attributes and Mermaid comments go through
one schema. Reading is bounded: a file comes from anybody.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tickwork.model.problems import Location, Problem
from tickwork.model.words import shown

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000

Plain: TypeAlias = "dict[str, Tree] | list[Tree] | str | int | float | bool | None"

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_INTEGERS = range(-(2**63), 2**64)


@dataclass(slots=True)
class Tree:
    """A value and where it begins. `keys`: where the keys of a mapping stand. `text_at`: where the letters of a text
    begin when they stand in the file unchanged, and the column at which its later lines begin."""

    value: Plain
    at: Location
    keys: dict[str, Location] = field(default_factory=dict)
    text_at: tuple[Location, int] | None = None


class Unreadable(Exception):
    """A file that breaks off here: what follows cannot be understood. Carries the one problem to report."""

    def __init__(self, at: Location, message: str, hint: str = "", code: str = "syntax") -> None:
        super().__init__(message)
        self.problem = Problem(at, code, message, hint)


def given_twice(name: str, at: Location, first: Location, problems: list[Problem] | None) -> None:
    """Report a key that a map has already; without a place to report to, raises Unreadable."""
    hint = f"it stands on line {first.line} already; keep one of them"
    fault = Unreadable(at, f"the key `{shown(name)}` is given twice", hint, "duplicate_key")
    if problems is None:
        raise fault
    problems.append(fault.problem)


class Budget:
    """Counts the values of one file, and refuses a file that has too many of them or nests them too deep."""

    def __init__(self) -> None:
        self.values = 0

    def take(self, at: Location, depth: int) -> None:
        """Count one value at this depth (1: the outermost)."""
        self.values += 1
        if self.values > MAX_VALUES:
            hint = "split the graph: a child graph is a Task that runs another graph"
            raise Unreadable(at, f"the file has more than {MAX_VALUES} values", hint, "too_large")
        if depth > MAX_DEPTH:
            raise Unreadable(at, f"values are nested more than {MAX_DEPTH} deep", "flatten them", "too_deep")


def plain(tree: Tree) -> Any:
    """The value without places."""
    if isinstance(tree.value, dict):
        return {key: plain(part) for key, part in tree.value.items()}
    if isinstance(tree.value, list):
        return [plain(part) for part in tree.value]
    return tree.value


def planted(value: Any, at: Location) -> Tree:
    """A tree of which every part stands at one place: what was written in one attribute or comment."""
    if isinstance(value, dict):
        return Tree({k: planted(v, at) for k, v in value.items()}, at, dict.fromkeys(value, at))
    return Tree([planted(part, at) for part in value] if isinstance(value, list) else value, at)


def number(text: str, at: Location) -> int | float:
    """A decimal number as JSON writes it; refuses what a record could not hold."""
    value: int | float
    if re.fullmatch(r"[-+]?[0-9]+", text):
        # A longer text cannot fit, and converting it would take time quadratic in its length.
        value = int(text) if len(text) <= 21 else 2**70
        fits = value in _INTEGERS
    else:
        value = float(text)
        fits = math.isfinite(value)
    if not fits:
        short = text if len(text) <= 40 else text[:37] + "..."
        raise Unreadable(at, f"the number {short} is too large", "use 64 bits at most, or a text", "number_too_large")
    return value


def decoded(data: bytes, file: str) -> str:
    """The text of a file: UTF-8, a mark at its start dropped, every line break made `\\n`. Raises Unreadable."""
    if len(data) > MAX_BYTES:
        hint = "split the graph, or keep large texts in files of their own that the code reads"
        raise Unreadable(Location(file), f"the file is larger than {MAX_BYTES // 1024} KiB", hint, "too_large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        at = Location(file, before.count(b"\n") + 1, column)
        raise Unreadable(at, "the file is not UTF-8 text", "save it as UTF-8", "not_utf8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _FORBIDDEN.search(text):
        at = place(text, found.start(), file)
        message = f"the character U+{ord(found[0]):04X} does not belong in a text"
        raise Unreadable(at, message, "take it out, or write it as an escape", "control_character")
    return text


def place(text: str, offset: int, file: str) -> Location:
    """The line and column of one offset. For many offsets of one text use `Lines`."""
    start = text.rfind("\n", 0, offset) + 1
    return Location(file, text.count("\n", 0, offset) + 1, offset - start + 1)


class Lines:
    """Places of offsets that are asked in rising order, each text read once."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self._line, self._start, self._seen = 1, 0, 0

    def at(self, offset: int) -> Location:
        """The place of `offset`, which must not lie before the last one asked."""
        while (end := self.text.find("\n", self._seen, offset)) >= 0:
            self._line, self._start = self._line + 1, end + 1
            self._seen = self._start
        self._seen = offset
        return Location(self.file, self._line, offset - self._start + 1)
