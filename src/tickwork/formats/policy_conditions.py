"""What people write as the condition of a policy, made ready for the engine without losing where it stood.

Numbers may be written in groups, `10 000`; the engines know none, so the groups are joined before a condition is
compiled, and every letter remembers where it was. A policy may also be one line, `condition -> action`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwork.formats.letters import named

if TYPE_CHECKING:
    from tickwork.model.policy import Engine

ARROW = "->"

# The spaces that people set between groups of digits: common, no-break, figure, thin, narrow no-break.
_GAP = "[ \u00a0\u2007\u2009\u202f]"
_GROUPED = rf"(?<![\w.])(?<![0-9]{_GAP})[0-9]{{1,3}}(?:{_GAP}[0-9]{{3}})+(?!{_GAP}?[0-9])"
_CEL_LITERAL = (
    r'[rR]"""[\s\S]*?(?:"""|$)|[rR]\'\'\'[\s\S]*?(?:\'\'\'|$)|[rR]"[^"\n]*"?|[rR]\'[^\'\n]*\'?'
    r'|"""(?:[^\\]|\\[\s\S])*?(?:"""|$)|\'\'\'(?:[^\\]|\\[\s\S])*?(?:\'\'\'|$)'
    r'|"(?:[^"\\\n]|\\.)*"?|\'(?:[^\'\\\n]|\\.)*\'?|`[^`\n]*`?|//[^\n]*'
)
_REGO_LITERAL = r'"(?:[^"\\\n]|\\.)*"?|`[^`]*`?|#[^\n]*'
_PIECES: dict[str, re.Pattern[str]] = {
    "cel": re.compile(rf"(?P<literal>{_CEL_LITERAL})|(?P<number>{_GROUPED})"),
    "rego": re.compile(rf"(?P<literal>{_REGO_LITERAL})|(?P<number>{_GROUPED})"),
}
_WORD = re.compile(r"[A-Za-z0-9]+")
_NAME_LENGTH = 60


@dataclass(frozen=True)
class Written:
    """A condition as the engine gets it. `origins`: for each of its letters, and for its end, the index in the text
    that was written."""

    text: str
    origins: tuple[int, ...]
    literals: tuple[tuple[int, int], ...]
    """Where strings and comments lie in `text`: from, to."""

    def origin(self, line: int, column: int) -> int | None:
        """The index in the written text of a place in `text` (from 1); None when there is no such place."""
        lines = self.text.split("\n")
        if not 1 <= line <= len(lines):
            return None
        before = sum(len(each) + 1 for each in lines[: line - 1])
        return self.origins[min(before + max(0, min(column - 1, len(lines[line - 1]))), len(self.text))]

    def strange(self) -> str:
        """What is said of a character outside of strings and comments that is not ASCII; or nothing."""
        for index, sign in enumerate(self.text):
            if not sign.isascii() and not any(begin <= index < end for begin, end in self.literals):
                return f"`{sign if sign.isprintable() else '?'}` in it is {named(sign)}"
        return ""


def condition(text: str, begin: int, end: int, engine: Engine) -> Written:
    """The condition that stands in `text[begin:end]`: the space around it dropped, groups of digits joined."""
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    kept: list[int] = []
    literals: list[tuple[int, int]] = []
    done = begin
    for piece in _PIECES[engine].finditer(text, begin, end):
        kept.extend(range(done, piece.start()))
        done = piece.end()
        if piece["number"] is not None:
            kept.extend(index for index in range(piece.start(), done) if text[index] in "0123456789")
            continue
        literals.append((len(kept), len(kept) + done - piece.start()))
        kept.extend(range(piece.start(), done))
    kept.extend(range(done, end))
    return Written("".join(text[index] for index in kept), (*kept, end), tuple(literals))


def name_of(text: str, taken: Iterable[str]) -> str:
    """A name for a policy that has none, from what its condition compares first: `sum-tokens-used`."""
    known = set(taken)
    for part in (re.split("[<>=!]", text, maxsplit=1)[0], text):
        words = [word.lower() for word in _WORD.findall(part)]
        while words and words[0][0].isdigit():
            words.pop(0)
        if words:
            break
    else:
        words = ["policy"]
    name = "-".join(words)[:_NAME_LENGTH].rstrip("-")
    made, number = name, 1
    while made in known:
        number += 1
        made = f"{name}-{number}"
    return made
