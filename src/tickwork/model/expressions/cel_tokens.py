"""The words of a CEL condition, with their places. It finds what is text, comment, name, number and sign, no more.

Texts and comments are told apart from the rest in one place, so that nothing inside quotes is ever taken for an
aggregate. Spaced digit groups (`10 000`) come out as one number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from tickwork.model.condition import ConditionError
from tickwork.model.expressions import Aggregate, Limit
from tickwork.model.expressions.places import check_text, look_alike, refuse

Kind = Literal["name", "field", "number", "text", "sign", "aggregate", "limit"]

MAX_DEPTH = 24
"""Parentheses and brackets inside each other. The engine allows 32 levels of its own; ours is told with a place."""


class Token(msgspec.Struct, frozen=True):
    """One word. `start` and `end` are offsets in the condition."""

    kind: Kind
    text: str
    """As written; a number without the spaces of its groups."""
    start: int
    end: int
    aggregate: Aggregate | None = None
    limit: Limit | None = None

    def sign(self, *signs: str) -> bool:
        """Whether it is one of these signs."""
        return self.kind == "sign" and self.text in signs


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+|//[^\n]*)
  | (?P<text>[bB]?[rR](?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\r\n]*"|'[^'\r\n]*')
      | [bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3}
               |"(?:\\[^\r\n]|[^"\\\r\n])*"|'(?:\\[^\r\n]|[^'\\\r\n])*'))
  | (?P<field>`[^`\r\n]*`)
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?
      |[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})+(?![0-9])(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?
      |[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||==|!=|<=|>=|[-<>+*/%!?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_INSTEAD = {
    "=": "`==` compares",
    "&": "`&&` joins two conditions",
    "|": "`||` joins two conditions",
    ";": "leave it out",
}
_WORDS = {"and": "&&", "or": "||", "not": "!", "AND": "&&", "OR": "||", "NOT": "!", "True": "true", "False": "false"}


def tokenize(text: str) -> list[Token]:
    """The words of a condition. Raises ConditionError for what CEL does not know."""
    check_text(text)
    found: list[Token] = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise refuse(text, offset, _strange(text, offset))
        kind = match.lastgroup
        if kind != "space":
            word = match[0]
            if kind == "number":
                word = re.sub(r"[ \u00a0\u202f]", "", word)
            found.append(Token(kind, word, offset, match.end()))  # type: ignore[arg-type]  # the pattern's groups are Kind
        offset = match.end()
    if not found:
        raise ConditionError("the condition is empty but for a comment", 1, 1)
    _check_order(text, found)
    return found


def _strange(text: str, offset: int) -> str:
    sign = text[offset]
    if sign in "\"'`":
        return f"the text that begins here has no closing {sign}"
    if not sign.isascii():
        return look_alike(sign)
    return f"`{sign}` has no meaning here" + (f"; {_INSTEAD[sign]}" if sign in _INSTEAD else "")


def _check_order(text: str, tokens: Sequence[Token]) -> None:
    """What the engine would tell less plainly, or not survive."""
    open_signs: list[Token] = []
    pairs = {")": "(", "]": "[", "}": "{"}
    before: Token | None = None
    for token in tokens:
        if token.sign("(", "[", "{"):
            open_signs.append(token)
            if len(open_signs) > MAX_DEPTH:
                raise refuse(text, token.start, f"more than {MAX_DEPTH} parentheses or brackets inside each other")
        elif token.sign(")", "]", "}"):
            if not open_signs or open_signs.pop().text != pairs[token.text]:
                raise refuse(text, token.start, f"`{token.text}` closes nothing")
        elif before is not None and before.kind == "number" and token.kind == "number":
            raise refuse(text, token.start, "two numbers in a row; digit groups have three digits: 10 000")
        elif token.kind == "name" and token.text in _WORDS and not (before is not None and before.sign(".")):
            raise refuse(text, token.start, f"CEL writes `{_WORDS[token.text]}` for `{token.text}`")
        before = token
    if open_signs:
        raise refuse(text, open_signs[-1].start, f"this `{open_signs[-1].text}` is never closed")
