"""The letters of a text in a file: where each one stands, and which one only looks like a letter of a name.

A value that was folded, quoted or escaped is laid over the file again, letter by letter, when something inside it has
to be pointed at; so readers pay for that only when there is something to say.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

from tickwork.model.problems import Location

_ESCAPES = {"x": 4, "u": 6, "U": 10}


def strange(word: str) -> str:
    """What is said of the first character of a name that is not ASCII: most often it only looks so. Or nothing."""
    for sign in word[:256]:
        if not sign.isascii():
            return f"`{sign if sign.isprintable() else '?'}` in it is {named(sign)}"
    return ""


def named(sign: str) -> str:
    """A character by its number and its Unicode name: `U+0430 CYRILLIC SMALL LETTER A`."""
    return f"U+{ord(sign):04X} {unicodedata.name(sign, '')}".rstrip()


class Letters:
    """Finds where the letters of the scalars of one YAML or JSON text stand."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self._starts: list[int] = []

    def place(self, at: Location, value: str, index: int) -> Location:
        """Where the letter `index` of the scalar stands that begins `at` and was read as `value`; else `at`."""
        if not self._starts:
            ends = [offset + 1 for offset, sign in enumerate(self.text) if sign == "\n"]
            self._starts = [0, *ends]
        if not 1 <= at.line <= len(self._starts):
            return at
        offset = self._walk(self._starts[at.line - 1] + at.column - 1, value, index)
        if offset is None:
            return at
        line = bisect_right(self._starts, offset)
        return Location(at.file, line, offset - self._starts[line - 1] + 1)

    def _walk(self, offset: int, value: str, index: int) -> int | None:
        """The offset of a letter; None when the value cannot be found in the text."""
        style = self.text[offset : offset + 1]
        if style in ("|", ">"):
            offset = self.text.find("\n", offset) + 1
        elif style in ("'", '"'):
            offset += 1
        found = offset
        for sign in value[: index + 1]:
            if not sign.isspace():
                offset = self._behind_space(offset, style)
            now = self.text[offset : offset + 1]
            found = offset
            if now == "\\" and style == '"':
                offset += self._escape(offset)
            elif now == sign or (now.isspace() and sign.isspace()):
                offset += 2 if now == style == "'" else 1
            elif not sign.isspace():
                return None
        # Behind the last letter: what breaks off is pointed at there.
        return found if index < len(value) else offset

    def _behind_space(self, offset: int, style: str) -> int:
        while self.text[offset : offset + 1].isspace() or (style == '"' and self.text[offset : offset + 2] == "\\\n"):
            offset += 2 if self.text[offset] == "\\" else 1
        return offset

    def _escape(self, offset: int) -> int:
        """How many characters of the text an escape takes; both halves of a surrogate pair are one letter."""
        size = _ESCAPES.get(self.text[offset + 1 : offset + 2], 2)
        pair = size == 6 and self.text[offset + 2 : offset + 4].lower() in ("d8", "d9", "da", "db")
        return 12 if pair else size
