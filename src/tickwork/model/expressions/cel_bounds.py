"""What keeps the judging of a CEL condition short, and closed, whatever record it is shown.

The engine itself allows 10,000 rounds of `all`, `exists`, `map` and `filter`, and its regular expressions are linear.
That leaves a pattern that is repeated inside itself, a search for one long text in another, and a loop that goes
through the record again in each round: the first two are refused when the policy is loaded, the third is refused for
a record of many values. And CEL divides doubles by zero without an error, so such divisions are guarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tickwork.model.condition import ConditionError
from tickwork.model.expressions.bounds import MAX_PATTERN, wrong_pattern
from tickwork.model.expressions.cel_reading import closing, reads_of
from tickwork.model.expressions.cel_tokens import Token, tokenize
from tickwork.model.expressions.places import refuse

MAX_PATTERN_IN_LOOP = 40
"""As MAX_PATTERN, for a pattern inside a loop: the engine reads it anew in each round."""
_LOOPS = ("all", "exists", "exists_one", "existsOne", "map", "filter")
_BY_ZERO = -1_000_007
"""An index that no list has: how a guarded division fails."""
_MAX_GUARDED = 20_000


def check_bounds(text: str, tokens: Sequence[Token]) -> bool:
    """Refuses what could take long on a large record. True: the record has to be weighed each time."""
    pairs = closing(tokens)
    heavy, loop_end = False, 0
    for index in range(len(tokens) - 1):
        token = tokens[index]
        if token.kind != "name" or not tokens[index + 1].sign("("):
            continue
        member, end = index > 0 and tokens[index - 1].sign("."), pairs[index + 1]
        inside = tokens[index + 2 : end]
        if token.text in ("matches", "contains") and inside:
            alone = inside[-1:] if not member and inside[-2:-1] and inside[-2].sign(",") else inside
            _check_literal(text, token, alone, MAX_PATTERN_IN_LOOP if index < loop_end else MAX_PATTERN)
        elif member and token.text in _LOOPS:
            loop_end = max(loop_end, end)
            comma = next((at for at, word in enumerate(inside) if word.sign(",")), len(inside))
            body = inside[comma:]
            heavy |= bool(reads_of(body)) or any(word.kind == "name" and word.text in _LOOPS for word in body)
    return heavy


def _check_literal(text: str, call: Token, argument: Sequence[Token], most: int) -> None:
    if len(argument) != 1 or argument[0].kind != "text":
        message = f"{call.text} takes a text in quotes here; what a record says cannot be searched for"
        raise refuse(text, argument[0].start, message)
    if call.text == "contains":
        return
    written = argument[0].text
    raw = written[0] in "rR"
    pattern = written.lstrip("rRbB").strip(written[-1])
    plain = pattern if raw else pattern.replace("\\\\", "")
    if not raw and "\\" in plain:
        raise refuse(text, argument[0].start, "write a pattern with backslashes as a raw text: r'\\d+'")
    if wrong := wrong_pattern(pattern if raw else pattern.replace("\\\\", "\\"), most):
        raise refuse(text, argument[0].start, wrong)


def guarded(text: str) -> str:
    """The condition with each division made to fail for a divisor of zero, which CEL lets pass for doubles."""
    if "/" not in text:
        return text
    tokens = tokenize(text)
    if not any(token.sign("/") for token in tokens):
        return text
    return _guard(tokens, closing(tokens), 0, len(tokens))


def divides_by_zero(said: str) -> bool:
    """Whether the engine's complaint is that of a guarded division, or of one of whole numbers."""
    return f"index={_BY_ZERO}" in said or "divide by zero" in said or "modulus by zero" in said


def _guard(tokens: Sequence[Token], pairs: Mapping[int, int], at: int, end: int) -> str:
    pieces = []
    while at < end:
        token = tokens[at]
        pieces.append(token.text)
        at += 1
        if token.sign("/"):
            after = _operand(tokens, pairs, at, end)
            divisor = _guard(tokens, pairs, at, after)
            if len(divisor) > _MAX_GUARDED:
                raise ConditionError("its divisions stand too deep inside each other; simplify it", 1, 1)
            if not (after == at + 1 and tokens[at].kind == "number" and tokens[at].text.strip("0.")):
                divisor = f"(dyn({divisor}) == dyn(0) ? [{divisor}][{_BY_ZERO}] : {divisor})"
            pieces.append(divisor)
            at = after
    return " ".join(pieces)


def _operand(tokens: Sequence[Token], pairs: Mapping[int, int], at: int, end: int) -> int:
    """Where the operand ends that begins at `at`: signs before it, then a name, number, text or group, then what hangs
    on it by points, parentheses and brackets."""
    while at < end and tokens[at].sign("-", "!", "."):
        at += 1
    at = pairs.get(at, at) + 1
    while at < end and tokens[at].sign(".", "(", "["):
        at = at + 2 if tokens[at].sign(".") else pairs[at] + 1
    return min(at, end)
