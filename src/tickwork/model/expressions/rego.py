"""Conditions of policies in Rego (v1), an extra: `pip install 'tickwork[rego]'`.

What is added up is read as `input.sum.tokens_used`, `input.avg["custom.pages"]`, `input.iterations.refine`,
`input.count`, `input.elapsed`; the record as `input.result`, `input.route`, `input.telemetry`, `input.header`, and
`input.lifetime`. A comparison of one of the former with a number is judged by us in integers, in CEL and Rego alike;
other arithmetic of the engine is in double precision. What is undefined is false, as Rego has it: a missing field is no
breach. Whatever else goes wrong is a ConditionError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tickwork.model.condition import ConditionError, route_of
from tickwork.model.expressions import Aggregate, Amount, Limit, PlainTest, all_upper
from tickwork.model.expressions.aggregates import MAX_AGGREGATES, PARTIAL, Judge, as_float, has_amount, whole
from tickwork.model.expressions.bounds import check_finite, check_size
from tickwork.model.expressions.places import place
from tickwork.model.expressions.rego_reading import Reading, Verdict
from tickwork.model.expressions.rego_syntax import RULE, engine_of, parse, reason
from tickwork.model.policy import Scope
from tickwork.model.spending import CUSTOM
from tickwork.model.words import shown

MAX_STEPS = 10_000_000
"""Rounds of all loops inside each other, and the values that one round may go through."""


class RegoExpression:
    """A compiled condition; meets `tickwork.model.expressions.Expression`."""

    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        reading = Reading(parse(text), scope)
        if len(reading.aggregates) > MAX_AGGREGATES or len(reading.limits) > MAX_AGGREGATES:
            raise ConditionError(f"more than {MAX_AGGREGATES} aggregates or limits in one condition", 1, 1)
        if not reading.aggregates and not reading.reads:
            raise ConditionError("the condition has the same value for ever: it looks at nothing", 1, 1)
        self.aggregates: tuple[Aggregate, ...] = tuple(reading.aggregates)
        self.reads = frozenset(["result" if name == "route" else name for name in reading.reads])
        self._variables = tuple(reading.reads)
        self._partial = tuple([i for i, each in enumerate(self.aggregates) if each.name in PARTIAL])
        self._most = round(MAX_STEPS ** (1 / (reading.loops + 1))) if reading.loops else 0
        if reading.loops and reading.literals > self._most:
            raise ConditionError(f"its {reading.loops} loops are too many for the values that it lists", 1, 1)
        self._verdict: Verdict | None = None
        self.limits: tuple[Limit, ...] = tuple(dict.fromkeys(limit for limit, _ in reading.limits))
        self._judges = tuple([Judge(limit, self.aggregates.index(limit.aggregate)) for limit in self.limits])
        if (judged := reading.verdict()) is not None:
            self.limits, self._verdict = judged
        self.plain: PlainTest | None = None
        self.single = isinstance(self._verdict, Judge)
        self.upper = self._verdict is not None and all_upper(self.limits)
        self._source = _replaced(reading, self.limits if self._verdict is None else ())
        self._try()

    def _try(self) -> None:
        """Judges once, with nothing defined: the engine finds unknown names only then."""
        try:
            engine = engine_of(self._source)
            engine.set_input_json("{}")
            engine.eval_rule(RULE)
        except RuntimeError as error:
            raise self._told_at(reason(error)) from None

    def _told_at(self, told: str) -> ConditionError:
        quoted = told.split("`")[1] if told.count("`") > 1 else ""
        offset = self.text.find(quoted) if quoted else 0
        return ConditionError(told, *place(self.text, max(0, offset)))

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
        value = self._judged(amounts, record() if self.reads else {}, raised)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._failed(f"breach is {json.dumps(value, default=str)[:80]}, not true or false")
        return value

    def _judged(self, amounts: Sequence[Amount], record: Mapping[str, Any], raised: Decimal | None) -> Any:
        try:
            values = self._input(amounts, record, raised)
            if "telemetry" in values:
                check_finite(values["telemetry"])
            if self._most:
                check_size([values[name] for name in self._variables], self._most)
            engine = engine_of(self._source)
            # As JSON: of a dict the engine takes what it cannot hold, and falls over it.
            engine.set_input_json(json.dumps(values, allow_nan=False))
            return engine.eval_rule(RULE)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the engine's panics are no Exceptions, and a policy fails closed
            raise self._failed(reason(error) or type(error).__name__) from None

    def _input(self, amounts: Sequence[Amount], record: Mapping[str, Any], raised: Decimal | None) -> dict[str, Any]:
        values: dict[str, Any] = {f"_{index}": judge(amounts, raised) for index, judge in enumerate(self._judges)}
        for aggregate, amount in zip(self.aggregates, amounts, strict=True):
            number = amount if whole(aggregate) else as_float(aggregate, amount)
            if not aggregate.of:
                values[aggregate.name] = number
                continue
            held = values.setdefault(aggregate.name, {})
            held[aggregate.of] = number
            if aggregate.of.startswith(CUSTOM):
                held.setdefault(CUSTOM[:-1], {})[aggregate.of.removeprefix(CUSTOM)] = number
        for name in self._variables:
            values[name] = route_of(record.get("result")) if name == "route" else record.get(name)
        return values

    def _failed(self, why: str) -> ConditionError:
        return ConditionError(f"condition `{shown(self.text)}` failed: {why}")


def _replaced(reading: Reading, limits: tuple[Limit, ...]) -> str:
    """The source with each comparison that we judge as a variable of input."""
    source = reading.syntax.source
    if limits:
        number = {limit: index for index, limit in enumerate(limits)}
        for limit, span in sorted(reading.limits, key=lambda found: -int(found[1]["start"])):
            source = source[: span["start"]] + f"input._{number[limit]}".encode() + source[span["end"] :]
    return source.decode()
