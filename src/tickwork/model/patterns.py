"""Which regular expressions of a graph may judge an answer: those that end soon on any text.

Python's engine backtracks, so `(a+)+$` takes longer than the universe on forty letters. What is refused here is more
than what explodes: a repeat inside a repeat, or alternatives inside one, unless a plain sign marks each round.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from tickwork.model.words import shown

MAX_PATTERN = 200
"""Characters of one pattern."""

_MANY = 10
"""From how many rounds on a bounded repeat counts as one without a bound."""

_REPEAT = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_OPEN = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|P?<\w+>|[aiLmsux-]+:))?")


@dataclass(slots=True)
class _Group:
    """What stands between two parentheses: its atoms, each with whether it repeats."""

    atoms: list[tuple[str, bool]] = field(default_factory=list)
    repeats: bool = False
    chooses: bool = False
    nests: bool = False

    def explodes(self) -> bool:
        """Whether repeating the group may try the same text in many ways."""
        return (self.repeats or self.chooses) and not self.marked()

    def marked(self) -> bool:
        """Whether a sign at the begin or the end of the group tells each round from the next: `(-[a-z]+)*`."""
        if self.chooses or self.nests or len(self.atoms) < 2:
            return False
        for mark, rest in ((self.atoms[0], self.atoms[1:]), (self.atoms[-1], self.atoms[:-1])):
            sign = mark[0].removeprefix("\\")
            literal = len(sign) == 1 and not (mark[0] == "." or (mark[0] != sign and sign.isalnum()))
            if literal and not mark[1] and not any(re.match(atom, sign) for atom, _ in rest):
                return True
        return False


def pattern_fault(pattern: str) -> tuple[str, str] | None:
    """What is wrong with a pattern and how to mend it; None when it is fine."""
    if len(pattern) > MAX_PATTERN:
        return f"a pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed", "split it, or use enum"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
            explosive = _explodes(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return (
            f"the pattern `{shown(pattern)}` is no regular expression: {error}",
            "correct it; write a backslash twice in JSON",
        )
    if explosive:
        message = (
            f"the pattern `{shown(pattern)}` repeats a group that repeats or chooses inside: it could run for ever"
        )
        return message, "write one repeat, [a-z]+ for ([a-z]+)+, or begin each round with a sign of its own: (-[a-z]+)*"
    return None


def _explodes(pattern: str) -> bool:
    stack, offset = [_Group()], 0
    while offset < len(pattern):
        sign, group = pattern[offset], stack[-1]
        if sign == "(":
            found = _OPEN.match(pattern, offset)
            offset = found.end() if found else offset + 1
            stack.append(_Group())
            continue
        if sign == "|":
            group.chooses = True
            offset += 1
            continue
        closed = stack.pop() if sign == ")" else None
        group = stack[-1]
        end = _atom_end(pattern, offset)
        many, after = _repeat(pattern, end)
        if closed is not None:
            if many and closed.explodes():
                return True
            group.nests = True
            group.repeats |= closed.repeats
        else:
            group.atoms.append((pattern[offset:end], after > end))
        group.repeats |= many
        offset = after
    return False


def _atom_end(pattern: str, offset: int) -> int:
    """Where the sign, the escape or the class ends that begins at `offset`."""
    if pattern[offset] == "\\":
        return offset + 2
    found = _CLASS.match(pattern, offset) if pattern[offset] == "[" else None
    return found.end() if found else offset + 1


def _repeat(pattern: str, offset: int) -> tuple[bool, int]:
    """Whether what ends at `offset` is repeated many times, and where its repeat ends."""
    found = _REPEAT.match(pattern, offset)
    if not found or found[0] == "{}":
        return False, offset
    end = found.end()
    while end < len(pattern) and pattern[end] in "?+":  # lazy or possessive
        end += 1
    if found[0] in "*+?":
        return found[0] != "?", end
    most = found[3] if found[2] else found[1]
    return not most or len(most) > 4 or int(most) >= _MANY, end
