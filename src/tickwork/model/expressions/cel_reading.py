"""What a CEL condition adds up and compares, read from its words before the engine sees it.

`aggregates_of` joins the words of `sum(tokens_used)` into one; `limits_of` joins `sum(tokens_used) > 10000` into one
where it stands for itself; `joined` reads how such comparisons are joined by `&&`, `||`, `!` and parentheses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import cast

from tickwork.model.condition import VARIABLES, ConditionError
from tickwork.model.expressions import Aggregate, AggregateName, Amount, Comparison, Limit
from tickwork.model.expressions.aggregates import (
    COMPARE,
    FLIPPED,
    MEASURED,
    NAMES,
    OPPOSITE,
    Judge,
    dead,
    parse_number,
    wrong_measure,
    wrong_node,
)
from tickwork.model.expressions.cel_tokens import Token
from tickwork.model.expressions.places import refuse
from tickwork.model.policy import Scope
from tickwork.model.spending import CUSTOM, SCALES
from tickwork.model.words import nearest, shown

Verdict = Callable[[Sequence[Amount], Decimal | None], bool]


def aggregates_of(text: str, tokens: Sequence[Token]) -> list[Token]:
    """The words with each aggregate as one. Raises ConditionError for one that is unknown or written wrongly."""
    found: list[Token] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        called = index + 1 < len(tokens) and tokens[index + 1].sign("(")
        if token.kind == "name" and token.text in NAMES and called and not (found and found[-1].sign(".")):
            aggregate, last = _aggregate(text, tokens, index)
            found.append(Token("aggregate", token.text, token.start, tokens[last].end, aggregate))
            index = last
        else:
            if called and not (found and found[-1].sign(".")) and tokens[index + 2].text in (*SCALES, CUSTOM[:-1]):
                near = nearest(token.text, MEASURED)
                hint = f"did you mean `{near}`?" if near else f"a measure is taken by {', '.join(MEASURED)}"
                raise refuse(text, token.start, f"unknown aggregate `{shown(token.text)}`; {hint}")
            found.append(token)
        index += 1
    return found


def _aggregate(text: str, tokens: Sequence[Token], index: int) -> tuple[Aggregate, int]:
    """The aggregate whose name stands at `index`, and the index of its closing parenthesis."""
    name = cast("AggregateName", tokens[index].text)
    inside = index + 2
    # Every parenthesis is closed: the tokenizer saw to that.
    if name in ("count", "elapsed"):
        if not tokens[inside].sign(")"):
            what = "the executions that the policy matches" if name == "count" else "the seconds since the start"
            raise refuse(text, tokens[inside].start, f"{name}() takes nothing in its parentheses; it gives {what}")
        return Aggregate(name), inside
    if name == "iterations":
        of, after = _node(text, tokens[inside]), inside + 1
        more = "iterations takes the name of one node and nothing else"
    else:
        of, after = _measure(text, name, tokens, inside)
        more = f"{name} takes one measure and nothing else; for arithmetic write it outside: {name}({of}) + 1"
    if not tokens[after].sign(")"):
        raise refuse(text, tokens[after].start, more)
    return Aggregate(name, of), after


def _node(text: str, token: Token) -> str:
    if token.kind != "text":
        said = f", as in iterations('{token.text}')" if token.kind == "name" else ", as in iterations('refine')"
        raise refuse(text, token.start, f"iterations takes the name of a node in quotes{said}")
    name = token.text[1:-1]
    if wrong := wrong_node(name):
        raise refuse(text, token.start, wrong)
    return name


def _measure(text: str, name: str, tokens: Sequence[Token], at: int) -> tuple[str, int]:
    """The measure that begins at index `at`, and the index after it."""
    token = tokens[at]
    if token.kind == "text":
        raise refuse(text, token.start, f"a measure is written without quotes: {name}({token.text[1:-1]})")
    if token.kind != "name":
        raise refuse(text, token.start, f"{name} takes a measure: {', '.join(SCALES)} or custom.NAME")
    measure, after = token.text, at + 1
    while tokens[after].sign(".") and tokens[after + 1].kind in ("name", "field"):
        measure += "." + tokens[after + 1].text.strip("`")
        after += 2
    if measure == CUSTOM.rstrip("."):
        raise refuse(text, token.start, f"{name} takes one custom counter, as in {name}(custom.pages)")
    if wrong := wrong_measure(name, measure, lambda near: f"{name}({near})"):
        raise refuse(text, token.start, wrong)
    return measure, after


def limits_of(text: str, tokens: Sequence[Token]) -> list[Token]:
    """The words with each comparison of an aggregate with a number as one, where it is a whole operand.

    Raises ConditionError for a comparison that cannot have but one outcome.
    """
    found: list[Token] = []
    index = 0
    while index < len(tokens):
        length = _comparison(tokens, index, found[-1] if found else None)
        if not length:
            found.append(tokens[index])
            index += 1
            continue
        part = tokens[index : index + length]
        limit = _limit(text, part)
        if wrong := dead(limit):
            raise refuse(text, part[0].start, wrong)
        written = text[part[0].start : part[-1].end]
        found.append(Token("limit", written, part[0].start, part[-1].end, limit.aggregate, limit))
        index += length
    return found


def _comparison(tokens: Sequence[Token], index: int, before: Token | None) -> int:
    """How many words at `index` are a comparison that stands for itself; 0 when it does not."""
    if before is not None and not before.sign("&&", "||", "?", ":", "(", "[", ","):
        return 0
    sides: list[str] = []
    at = index
    while at < len(tokens) and len(sides) < 3:
        token = tokens[at]
        if len(sides) == 1:
            side = "compare" if token.kind == "sign" and token.text in COMPARE else ""
        elif token.sign("-") and at + 1 < len(tokens) and tokens[at + 1].kind == "number":
            side, at = "number", at + 1
        else:
            side = token.kind if token.kind in ("aggregate", "number") else ""
        if not side:
            return 0
        sides.append(side)
        at += 1
    if sorted(sides) != ["aggregate", "compare", "number"]:
        return 0
    ends = at == len(tokens) or tokens[at].sign("&&", "||", "?", ":", ")", "]", ",")
    return at - index if ends else 0


def _limit(text: str, part: Sequence[Token]) -> Limit:
    number = next(token for token in part if token.kind == "number")
    aggregate = next(token.aggregate for token in part if token.aggregate is not None)
    comparison: Comparison = next(token.text for token in part if token.kind == "sign" and token.text in COMPARE)
    written = number.text.rstrip("uU")
    try:
        value = Decimal(int(written, 16)) if written[:2] in ("0x", "0X") else parse_number(written)
    except ConditionError as error:
        raise refuse(text, number.start, str(error)) from None
    if any(token.sign("-") for token in part):
        value = -value
    return Limit(aggregate, comparison if part[0].kind == "aggregate" else FLIPPED[comparison], value)


def reads_of(tokens: Sequence[Token]) -> list[Token]:
    """The words that name a variable of the record or the lifetime."""
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.kind == "name" and token.text in VARIABLES and not (before is not None and before.sign(".")):
            found.append(token)
    return found


# -- how comparisons are joined ---------------------------------------------------------------------------------------


class Joined:
    """Reads a condition's operands. `verdict` judges it without the engine when all are comparisons, else it is None.

    `check_alive` is for when everything in it is known to have a meaning.
    """

    def __init__(self, text: str, tokens: Sequence[Token], aggregates: Sequence[Aggregate]) -> None:
        self._text, self._tokens, self._at = text, tokens, 0
        self._place = {aggregate: index for index, aggregate in enumerate(aggregates)}
        self._closing = closing(tokens)
        self._constant: tuple[Token, ...] = ()
        self.limits: list[Limit] = []
        """Each once, in order; under `!` the opposite, when there is a verdict."""
        self.verdict = self._any(len(tokens), negated=False)

    def _any(self, end: int, *, negated: bool) -> Verdict | None:
        """Operands joined by `||` up to `end`; `negated`: with everything turned round."""
        if self._chooses(end):
            self._opaque(end)
            return None
        parts = [self._all(end, negated=negated)]
        while self._at < end:
            self._at += 1
            parts.append(self._all(end, negated=negated))
        return _join(parts, every=negated)

    def _all(self, end: int, *, negated: bool) -> Verdict | None:
        parts = [self._operand(end, negated=negated)]
        while self._at < end and self._tokens[self._at].sign("&&"):
            self._at += 1
            parts.append(self._operand(end, negated=negated))
        return _join(parts, every=not negated)

    def _operand(self, end: int, *, negated: bool) -> Verdict | None:
        begin = self._at
        stop = self._stop(begin, end)
        while self._at < stop and self._tokens[self._at].sign("!"):
            self._at += 1
            negated = not negated
        if self._at < stop:
            first = self._tokens[self._at]
            if first.limit is not None and self._at + 1 == stop:
                self._at = stop
                return self._judged(first.limit, negated=negated)
            if first.sign("(") and self._closing[self._at] == stop - 1 and stop - self._at > 2:
                self._at += 1
                found = self._any(stop - 1, negated=negated)
                self._at = stop
                return found
        self._at = begin
        self._opaque(stop)
        return None

    def _judged(self, limit: Limit, *, negated: bool) -> Verdict:
        if negated:
            limit = Limit(limit.aggregate, OPPOSITE[limit.comparison], limit.number)
        if limit not in self.limits:
            self.limits.append(limit)
        return Judge(limit, self._place[limit.aggregate])

    def _opaque(self, end: int) -> None:
        """Something for the engine, which is asked about it first; then it has to look at something."""
        part = self._tokens[self._at : end]
        if part and not self._constant and not any(token.aggregate for token in part) and not reads_of(part):
            self._constant = tuple(part)
        self._at = end

    def check_alive(self) -> None:
        """Raises ConditionError when an operand looks at nothing, so that it has one value for ever."""
        if self._constant:
            written = self._text[self._constant[0].start : self._constant[-1].end]
            message = f"`{shown(written)}` has the same value for ever; look at something: sum(tokens_used) > 1"
            raise refuse(self._text, self._constant[0].start, message)

    def _stop(self, begin: int, end: int) -> int:
        """Where the operand ends that begins at `begin`."""
        at = begin
        while at < end and not self._tokens[at].sign("&&", "||"):
            at = self._closing.get(at, at) + 1
        return at

    def _chooses(self, end: int) -> bool:
        """Whether a `?` stands outside of parentheses, which binds weaker than `||`."""
        at = self._at
        while at < end:
            if self._tokens[at].sign("?"):
                return True
            at = self._closing.get(at, at) + 1
        return False


def closing(tokens: Sequence[Token]) -> dict[int, int]:
    """The index of the closing sign for that of each opening one."""
    found: dict[int, int] = {}
    open_signs: list[int] = []
    for index, token in enumerate(tokens):
        if token.sign("(", "[", "{"):
            open_signs.append(index)
        elif token.sign(")", "]", "}"):
            found[open_signs.pop()] = index
    return found


def _join(parts: list[Verdict | None], *, every: bool) -> Verdict | None:
    """`&&` or `||` of the parts; None when one of them is for the engine."""
    verdicts = [part for part in parts if part is not None]
    if len(verdicts) != len(parts):
        return None
    if len(verdicts) == 1:
        return verdicts[0]

    def judge(amounts: Sequence[Amount], raised: Decimal | None) -> bool:
        for verdict in verdicts:
            if verdict(amounts, raised) is not every:
                return not every
        return every

    return judge


def known_words(scope: Scope) -> str:
    """What a policy's condition may name."""
    if scope == "tenant":
        return "a policy of the scope tenant knows lifetime, and sum(..), avg(..), count()"
    calls = ", ".join(f"{name}(..)" for name in (*MEASURED, "iterations"))
    return f"a policy knows {', '.join(VARIABLES)}, and {calls}, count(), elapsed()"
