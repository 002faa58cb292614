"""JSON with places. The standard library's parser forgets where a value stood, so this scans by itself.

It takes exactly what RFC 8259 calls JSON, and refuses a key given twice. Depth and number of values are bounded by
the tree's budget; the time is linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tickwork.formats.tree import Budget, Lines, Plain, Tree, Unreadable, given_twice, number
from tickwork.model.problems import Location, Problem
from tickwork.model.validation import shown

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_]+")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def read_json(text: str, file: str = "", problems: list[Problem] | None = None) -> Tree:
    """The tree of a JSON text. Raises Unreadable at the first place that is not JSON.

    With `problems`, a key given twice is added to them, and the first one stays.
    """
    scan = _Scan(text, file, problems)
    tree = scan.value(1)
    scan.space()
    if scan.offset < len(text):
        raise scan.fault("something follows the end of the JSON value", "take it out")
    return tree


def write_json(tree: Any) -> str:
    """A plain tree as indented JSON."""
    return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _Scan:
    def __init__(self, text: str, file: str, problems: list[Problem] | None) -> None:
        self.text, self.offset, self.problems = text, 0, problems
        self.lines, self.budget = Lines(text, file), Budget()

    def here(self) -> Location:
        return self.lines.at(self.offset)

    def space(self) -> None:
        found = _SPACE.match(self.text, self.offset)
        self.offset = found.end() if found else self.offset

    def fault(self, message: str, hint: str = "") -> Unreadable:
        return Unreadable(self.here(), message, hint)

    def took(self, sign: str) -> bool:
        self.space()
        if self.text.startswith(sign, self.offset):
            self.offset += 1
            return True
        return False

    def value(self, depth: int) -> Tree:
        self.space()
        at = self.here()
        self.budget.take(at, depth)
        sign = self.text[self.offset : self.offset + 1]
        if sign == "{":
            return self.mapping(at, depth)
        if sign == "[":
            return Tree(self.items(depth), at)
        if sign == '"':
            return self.string()
        return Tree(self.scalar(at), at)

    def scalar(self, at: Location) -> Plain:
        if found := _NUMBER.match(self.text, self.offset):
            self.offset = found.end()
            return number(found[0], at)
        found = _WORD.match(self.text, self.offset)
        if found and found[0] in _WORDS:
            self.offset = found.end()
            return _WORDS[found[0]]
        if self.offset >= len(self.text):
            raise self.fault("the JSON breaks off: a value is missing", "close what was opened")
        word = found[0] if found else self.text[self.offset]
        hint = 'texts stand in double quotes: "text"; JSON knows true, false and null, and no comments'
        raise self.fault(f"`{shown(word)}` is no JSON value", hint)

    def string(self) -> Tree:
        found = _STRING.match(self.text, self.offset)
        if not found:
            hint = "close it with a double quote on the same line; write a backslash as \\\\"
            raise self.fault("this text is not closed, or has a wrong escape", hint)
        at = self.here()
        self.offset = found.end()
        try:
            value: str = json.loads(found[0])
            value.encode()
        except UnicodeEncodeError:
            raise Unreadable(at, "this text has half of a surrogate pair", "write both halves, or none") from None
        literal = Location(at.file, at.line, at.column + 1)
        return Tree(value, at, text_at=None if "\\" in found[0] else (literal, 1))

    def items(self, depth: int) -> list[Tree]:
        self.offset += 1
        parts: list[Tree] = []
        if self.took("]"):
            return parts
        while True:
            parts.append(self.value(depth + 1))
            if self.took("]"):
                return parts
            if not self.took(","):
                raise self.fault("a comma or `]` is missing here", "separate the items of a list with commas")

    def mapping(self, at: Location, depth: int) -> Tree:
        self.offset += 1
        parts: dict[str, Tree] = {}
        keys: dict[str, Location] = {}
        if self.took("}"):
            return Tree(parts, at)
        while True:
            self.space()
            if not self.text.startswith('"', self.offset):
                raise self.fault(
                    "a key in double quotes is missing here", 'write "key": value, with no comma at the end'
                )
            key = self.string()
            name = str(key.value)
            if name in parts:
                given_twice(name, key.at, keys[name], self.problems)
            if not self.took(":"):
                raise self.fault("a colon is missing here", 'write "key": value')
            value = self.value(depth + 1)
            if name not in parts:
                keys[name], parts[name] = key.at, value
            if self.took("}"):
                return Tree(parts, at, keys)
            if not self.took(","):
                raise self.fault("a comma or `}` is missing here", "separate the entries of a map with commas")
