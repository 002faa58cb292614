"""The words of a DOT file, one after the other, in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tickwork.formats.tree import Lines, Unreadable
from tickwork.model.problems import Location

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*)|(?P<word>[^\W\d]\w*)|(?P<number>-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?))"
    r'|(?P<text>")|(?P<sign>->|--|[{}\[\];,=:])'
)
_QUOTED = re.compile(r'"[^"\\]*(?:\\(?s:.)[^"\\]*)*"')
_ESCAPE = re.compile(r'\\(["\\nlr\n])')
_MEANT = {"n": "\n", "l": "\n", "r": "\n", "\n": ""}


@dataclass(slots=True)
class Token:
    """A word (`kind` id), a sign (`kind` the sign) or the end (eof). `text_at`: where an unescaped text begins."""

    kind: str
    text: str
    at: Location
    quoted: bool = False
    group: bool = False
    key_at: Location | None = None
    text_at: tuple[Location, int] | None = None


def tokens(text: str, file: str) -> Iterator[Token]:
    """The tokens, the last one eof without end. Raises Unreadable at a sign that DOT does not have."""
    lines, offset = Lines(text, file), 0
    while offset < len(text):
        at = lines.at(offset)
        if text[offset] == "#" and not text[offset - at.column + 1 : offset].strip():
            offset = (text.find("\n", offset) + 1) or len(text)
            continue
        found = _TOKEN.match(text, offset)
        if not found:
            raise _strange(text[offset], at)
        if found["space"] == "/*":
            end = text.find("*/", offset + 2)
            if end < 0:
                raise Unreadable(at, "this comment is not closed", "close it with */")
            offset = end + 2
        elif found["text"]:
            token, offset = _quoted(text, offset, lines)
            yield token
        else:
            offset = found.end()
            if found["word"] or found["number"]:
                yield Token("id", found[0], at)
            elif found["sign"]:
                yield Token(found[0], found[0], at)
    end_at = lines.at(len(text))
    while True:
        yield Token("eof", "", end_at)


def _strange(sign: str, at: Location) -> Unreadable:
    if sign == "<":
        return Unreadable(at, "HTML texts are not understood here", 'write the text in quotes: "text"')
    return Unreadable(at, f"`{sign}` is not understood here", "put names and texts with such signs in quotes")


def _quoted(text: str, offset: int, lines: Lines) -> tuple[Token, int]:
    """A text in quotes, and what is appended to it with `+`."""
    at, parts, start = lines.at(offset), [], offset
    while True:
        found = _QUOTED.match(text, offset)
        if not found:
            raise Unreadable(lines.at(offset), "this text is not closed", "close it with a double quote")
        parts.append(found[0][1:-1])
        offset = found.end()
        follows = re.compile(r'\s*\+\s*(?=")').match(text, offset)
        if not follows:
            break
        offset = follows.end()
    whole = _ESCAPE.sub(lambda escape: _MEANT.get(escape[1], escape[1]), "".join(parts))
    token = Token("id", whole, at, quoted=True)
    if text[start + 1 : offset - 1] == whole:
        token.text_at = Location(at.file, at.line, at.column + 1), 1
    return token, offset


def quoted(text: str) -> str:
    """A text as DOT writes it in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
