"""Conditions of policies in CEL.

A comparison of an aggregate with a number is judged here, in integers; a condition of nothing else never calls the
engine. In what is left, each aggregate is a variable: tokens, count() and iterations() are whole numbers (int), all
others (money, times, custom counters, averages) are doubles in people's unit. So arithmetic on money, as in
`sum(cost_usd) / double(count()) > 0.5`, is in double precision; comparing money with a number is exact.

The text that the engine compiles has the same lines and columns as the one that was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tickwork.model.condition import HIDDEN, TYPES, VARIABLES, ConditionError, explain, has_nul, plainly, route_of
from tickwork.model.expressions import Aggregate, Amount, Limit, PlainTest, all_upper
from tickwork.model.expressions.aggregates import (
    MAX_AGGREGATES,
    NAMES,
    PARTIAL,
    Judge,
    as_float,
    has_amount,
    whole,
    wrong_in_scope,
    wrong_read,
)
from tickwork.model.expressions.bounds import check_finite, check_size
from tickwork.model.expressions.cel_bounds import check_bounds, divides_by_zero, guarded
from tickwork.model.expressions.cel_plain import plain_texts
from tickwork.model.expressions.cel_reading import Joined, aggregates_of, known_words, limits_of, reads_of
from tickwork.model.expressions.cel_tokens import Token, tokenize
from tickwork.model.expressions.places import refuse
from tickwork.model.policy import Scope
from tickwork.model.spending import SCALES
from tickwork.model.words import nearest, shown

MAX_VALUES = 2_000
"""Values of a record that a loop may go through again in each round."""


class CelExpression:
    """A compiled condition; meets `tickwork.model.expressions.Expression`."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        tokens = aggregates_of(text, tokenize(text))
        self.aggregates = _aggregates(text, tokens, scope)
        tokens = limits_of(text, tokens)
        self.reads = _reads(text, tokens, scope)
        self._partial = tuple([i for i, each in enumerate(self.aggregates) if each.name in PARTIAL])
        joined = Joined(text, tokens, self.aggregates)
        self._verdict = joined.verdict
        self._engine: _Engine | None = None
        if self._verdict is not None:
            self.limits = tuple(joined.limits)
        else:
            self._engine = _Engine(text, tokens, self.aggregates, scope)
            self.limits = self._engine.limits
        self.plain: PlainTest | None = self._engine.plain if self._engine is not None else None
        joined.check_alive()
        self.single = isinstance(self._verdict, Judge)
        self.upper = self._verdict is not None and all_upper(self.limits)

    def holds(
        self, amounts: Sequence[Amount], record: Callable[[], Mapping[str, Any]], raised: Decimal | None = None
    ) -> bool:
        """See Expression.holds."""
        if raised is not None and len(self.limits) != 1:
            raise ConditionError(f"`{self.text}` has {len(self.limits)} limits; exactly one can be raised")
        for index in self._partial:
            if not has_amount(amounts[index]):
                return False
        if self._verdict is not None:
            return self._verdict(amounts, raised)
        assert self._engine is not None  # noqa: S101 - one of the two is set above
        return self._engine.holds(amounts, record() if self.reads else {}, raised)


def _aggregates(text: str, tokens: Sequence[Token], scope: Scope) -> tuple[Aggregate, ...]:
    found: dict[Aggregate, None] = {}
    for token in tokens:
        if token.aggregate is None:
            continue
        if wrong := wrong_in_scope(token.aggregate, scope):
            raise refuse(text, token.start, wrong)
        found[token.aggregate] = None
        if len(found) > MAX_AGGREGATES:
            raise refuse(text, token.start, f"more than {MAX_AGGREGATES} aggregates in one condition")
    return tuple(found)


def _reads(text: str, tokens: Sequence[Token], scope: Scope) -> frozenset[str]:
    found = reads_of(tokens)
    for token in found:
        if wrong := wrong_read(token.text, scope):
            raise refuse(text, token.start, wrong)
    return frozenset(["result" if token.text == "route" else token.text for token in found])


class _Engine:
    """The part of a condition that the engine judges, with what it is handed."""

    def __init__(self, text: str, tokens: Sequence[Token], aggregates: tuple[Aggregate, ...], scope: Scope) -> None:
        self.text = text
        self._heavy = check_bounds(text, tokens)
        self._judges: list[tuple[str, Judge]] = []
        self._amounts: list[tuple[str, int, Aggregate]] = []
        names: dict[Aggregate | Limit, str] = {}
        pieces, kinds, offset = [], dict[str, str](), 0
        for token in tokens:
            said = token.limit or token.aggregate
            if token.kind == "name" and re.fullmatch(r"_\d+", token.text):
                raise refuse(text, token.start, f"unknown name `{shown(token.text)}`; {known_words(scope)}")
            if said is not None and said not in names:
                names[said] = name = f"_{len(names)}"
                kinds[name] = self._declare(name, said, aggregates)
                if len(names) > 2 * MAX_AGGREGATES:
                    raise refuse(text, token.start, f"more than {MAX_AGGREGATES} limits in one condition")
            pieces.append(text[offset : token.start])
            written = text[token.start : token.end]
            pieces.append(_in_place(written, names[said]) if said is not None else token.text.ljust(len(written)))
            offset = token.end
        self.limits = tuple([judge.limit for _, judge in self._judges])
        self._reads = tuple(dict.fromkeys(token.text for token in reads_of(tokens)))
        self.plain = plain_texts(tokens)
        plain = "".join(pieces) + text[offset:]
        environment = _environment(tuple(kinds.items()), self._reads)
        try:
            self._expression = environment.compile(plain)
        except RuntimeError as error:
            raise self._explain(error, names, scope) from None
        kind = self._expression.return_type().name()
        if kind not in ("BOOL", "DYN"):
            what = TYPES.get(kind.lower(), kind.lower())
            raise refuse(
                text, tokens[0].start, f"the condition is {what}, not true or false; compare it with something"
            )
        if (safe := guarded(plain)) != plain:
            try:
                self._expression = environment.compile(safe)
            except RuntimeError:
                raise ConditionError("its divisions stand too deep inside each other; simplify it", 1, 1) from None

    def _declare(self, name: str, said: Aggregate | Limit, aggregates: tuple[Aggregate, ...]) -> str:
        """Notes what the variable `name` stands for; gives its CEL type."""
        if isinstance(said, Limit):
            self._judges.append((name, Judge(said, aggregates.index(said.aggregate))))
            return "BOOL"
        self._amounts.append((name, aggregates.index(said), said))
        return "INT" if whole(said) else "DOUBLE"

    def holds(self, amounts: Sequence[Amount], record: Mapping[str, Any], raised: Decimal | None) -> bool:
        """Whether the condition is true."""
        if self.plain is not None and (held := self.plain.holds(record.get("result"))) is not None:
            return held
        try:
            values: dict[str, Any] = {name: judge(amounts, raised) for name, judge in self._judges}
            for name, index, aggregate in self._amounts:
                amount = amounts[index]
                values[name] = amount if whole(aggregate) else as_float(aggregate, amount)
            for name in self._reads:
                values[name] = route_of(record.get("result")) if name == "route" else record.get(name)
            if "telemetry" in values:
                check_finite(values["telemetry"])
            if any(has_nul(values[name]) for name in self._reads):
                raise ConditionError(HIDDEN)
            if self._heavy:
                check_size([values[name] for name in self._reads], MAX_VALUES)
            outcome = self._expression.eval(data=values)
            value, kind = outcome.value(), outcome.type().name()
        except ConditionError as error:
            raise self._failed(str(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever the engine stumbles over, a policy fails closed
            raise self._failed(self._plainly(str(error)) or type(error).__name__) from None
        if kind == "ERROR":
            raise self._failed(self._plainly(str(value)))
        if not isinstance(value, bool):
            raise self._failed(f"it gave {TYPES.get(kind.lower(), kind.lower())}, not true or false")
        return value

    def _failed(self, why: str) -> ConditionError:
        return ConditionError(f"condition `{shown(self.text)}` failed: {why}")

    def _plainly(self, said: str) -> str:
        told = plainly(re.sub(r"\s*\[[A-Z_]+\]\s*$", "", said).partition("\n")[0][:300], self.text)
        if divides_by_zero(said):
            return "it divides by zero"
        if "Iteration budget" in told:
            return "it takes too many steps (10,000 rounds of all, exists, map and filter are allowed)"
        if "int too big" in told or "overflow" in told:
            return "a whole number is too big for CEL (64 bits)"
        return told

    def _explain(self, error: RuntimeError, names: Mapping[Any, str], scope: Scope) -> ConditionError:
        found = explain(error, known_words(scope))
        told = str(found)[:500]
        if unknown := re.match(r"unknown name `(\w+)`", told):
            told = _unknown(unknown[1], told)
        elif "cannot compare" in told and "double" in told and "int" in told.split():
            told += "; write the number with a point (5.0), or the count as double(count())"
        for said, name in names.items():
            told = re.sub(rf"(?<!\w){name}(?!\w)", str(said), told)
        return ConditionError(told, found.line, found.column)


def _unknown(name: str, told: str) -> str:
    if name in SCALES:
        return f"`{name}` alone is no value; write sum({name}), or telemetry.{name} for this record's own"
    if name in NAMES:
        return f"`{name}` is an aggregate only when it is called and stands alone, as in sum(tokens_used) or count()"
    near = nearest(name, (*NAMES, *VARIABLES))
    return f"unknown name `{shown(name)}`; did you mean `{near}`?" if near else told


def _in_place(written: str, name: str) -> str:
    """Blanks of the same shape, with `name` in the longest line of them."""
    lines = written.split("\n")
    widest = max(range(len(lines)), key=lambda index: len(lines[index]))
    return "\n".join((name if index == widest else "").ljust(len(line)) for index, line in enumerate(lines))


@lru_cache(maxsize=1024)
def _environment(kinds: tuple[tuple[str, str], ...], reads: tuple[str, ...]) -> Any:
    from cel_expr_python import cel  # only policies that need the engine pay for it

    fields = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    types = {"result": cel.Type.DYN, "route": cel.Type.STRING}
    variables = {name: getattr(cel.Type, kind) for name, kind in kinds}
    return cel.NewEnv(variables=variables | {name: types.get(name, fields) for name in reads})
