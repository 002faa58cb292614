"""What every engine does alike with aggregates and numbers: naming, judging exactly, showing, refusing what is dead.

An engine finds in its text what is added up (`sum(tokens_used)`) and which comparisons with a number it makes; those
are checked here when a policy is loaded, become Judges, and are judged in integers: no amount of money passes through
a float on its way to a verdict.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from tickwork.model.condition import ConditionError
from tickwork.model.expressions import Aggregate, AggregateName, Amount, Comparison, Expression, Limit
from tickwork.model.expressions.places import look_alike
from tickwork.model.ids import NAME
from tickwork.model.policy import Scope
from tickwork.model.spending import CUSTOM, SCALES, scale
from tickwork.model.words import nearest
from tickwork.model.words import shown as fit

MEASURED: tuple[AggregateName, ...] = ("sum", "max", "min", "avg")
NAMES: tuple[AggregateName, ...] = (*MEASURED, "count", "iterations", "elapsed")
PARTIAL = ("max", "min", "avg")
"""These have no value before the first record."""
TENANT = ("sum", "avg", "count")
MAX_AGGREGATES = 40
"""Different aggregates of one condition, and comparisons of them with a number."""

ELAPSED_SCALE = 1_000_000
MAX_NUMBER = Decimal(10) ** 18
MAX_DECIMALS = 18
_CUSTOM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. /-]{0,127}")
_GROUPED = re.compile(r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)")
_NUMBER = re.compile(r"(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")

COMPARE: dict[Comparison, Callable[[int, int], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
FLIPPED: dict[Comparison, Comparison] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""The comparison with its sides exchanged."""
OPPOSITE: dict[Comparison, Comparison] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_WORDS: dict[Comparison, str] = {
    "<": "under", "<=": "not over", ">": "over", ">=": "not under", "==": "exactly", "!=": "not",
}  # fmt: skip


def scale_of(aggregate: Aggregate) -> int:
    """How many kept units one unit of the aggregate has, as people write it (seconds for elapsed)."""
    if aggregate.name in MEASURED:
        return scale(aggregate.of)
    return ELAPSED_SCALE if aggregate.name == "elapsed" else 1


def whole(aggregate: Aggregate) -> bool:
    """Whether it is always a whole number in people's unit: tokens and counts are, averages are not."""
    return scale_of(aggregate) == 1 and aggregate.name != "avg"


# -- checks when a policy is loaded. Each returns what is wrong, or "". ------------------------------------------------


def wrong_measure(name: str, measure: str, write: Callable[[str], str]) -> str:
    """What is wrong with the measure of `sum` and its like; `write` spells an aggregate of a measure in the engine."""
    if measure in SCALES or (measure.startswith(CUSTOM) and _CUSTOM_NAME.fullmatch(measure.removeprefix(CUSTOM))):
        return ""
    near = nearest(measure.rpartition(".")[2], SCALES) if not measure.startswith(CUSTOM) else ""
    hint = f"did you mean `{write(near)}`?" if near else f"{name} takes {', '.join(SCALES)} or custom.NAME"
    return f"unknown measure `{fit(measure)}`; {hint}"


def wrong_node(node: str) -> str:
    """What is wrong with the node of `iterations`."""
    return "" if NAME.fullmatch(node) else f"`{fit(node)}` is no name of a node: {_strange(node)}"


def _strange(word: str) -> str:
    odd = next((sign for sign in word if not sign.isascii()), "")
    return look_alike(odd) if odd else "letters, digits, `-` and `_` make one"


def wrong_in_scope(aggregate: Aggregate, scope: Scope) -> str:
    """Why this aggregate cannot be asked for in a policy of this scope."""
    if scope != "tenant" or aggregate.name in TENANT:
        return ""
    return (
        f"a policy of the scope tenant cannot use {aggregate.name}: it is kept for each lifetime, not for a tenant; "
        "use sum, avg or count here, or the scope lifetime"
    )


def wrong_read(name: str, scope: Scope) -> str:
    """Why this variable cannot be read in a policy of this scope."""
    if scope != "tenant" or name == "lifetime":
        return ""
    return (
        f"a policy of the scope tenant cannot read {name}: it is judged before anything runs, when there is no "
        "record yet; use lifetime here, or the scope execution or lifetime"
    )


def dead(limit: Limit) -> str:
    """Why the comparison always has the same outcome: no amount is ever negative."""
    number, what = limit.number, limit.aggregate
    always: bool | None = None
    if number < 0:
        always = limit.comparison in (">", ">=", "!=")
    elif number == 0 and limit.comparison in ("<", ">="):
        always = limit.comparison == ">="
    elif limit.comparison in ("==", "!=") and what.name != "avg" and ratio(number, scale_of(what))[1] != 1:
        unit = Decimal(1) / scale_of(what)
        outcome = "never" if limit.comparison == "==" else "always"
        return f"this {outcome} holds: {what} is counted in steps of {unit:f}, so it is never {number:f}"
    if always is None:
        return ""
    return f"this {'always' if always else 'never'} holds: {what} is never negative"


# -- numbers ----------------------------------------------------------------------------------------------------------


def parse_number(text: str) -> Decimal:
    """The exact value of a number as people write it: `20000`, `20 000`, `0.05`, `2e6`. Raises ConditionError."""
    told = f"`{fit(text)}` is no number"
    plain = text.strip()
    plain = re.sub(r"[ \u00a0\u202f]", "", plain) if _GROUPED.match(plain) else plain
    if plain.startswith("-"):
        raise ConditionError(f"`{fit(text)}` is negative; a limit is 0 or more")
    if not plain.isascii() or not _NUMBER.fullmatch(plain):
        hint = "write groups of three with spaces, 20 000, not with commas" if "," in plain else "write 20000 or 0.05"
        raise ConditionError(f"{told}; {hint}")
    try:
        number = Decimal(plain)
    except InvalidOperation:
        raise ConditionError(f"{told}; write 20000 or 0.05") from None
    if number > MAX_NUMBER:
        raise ConditionError(f"`{fit(text)}` is more than any limit can be ({MAX_NUMBER:,f})")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
        raise ConditionError(f"`{fit(text)}` has more than {MAX_DECIMALS} decimals")
    return number


@lru_cache(maxsize=4096)
def ratio(number: Decimal, units: int) -> tuple[int, int]:
    """The number in kept units as a reduced fraction."""
    top, bottom = number.as_integer_ratio()
    shared = math.gcd(top * units, bottom)
    return top * units // shared, bottom // shared


class Judge:
    """A limit with its place among the amounts: judged in integers, in well under a microsecond."""

    __slots__ = ("_bottom", "_compare", "_index", "_top", "limit")

    def __init__(self, limit: Limit, index: int) -> None:
        self.limit, self._index = limit, index
        self._compare = COMPARE[limit.comparison]
        self._top, self._bottom = ratio(limit.number, scale_of(limit.aggregate))

    def __call__(self, amounts: Sequence[Amount], raised: Decimal | None) -> bool:
        """Whether the comparison is true; False for what has no amount yet."""
        top, bottom = self._top, self._bottom
        if raised is not None:
            top, bottom = ratio(raised, scale_of(self.limit.aggregate))
        amount = amounts[self._index]
        if isinstance(amount, tuple):
            return amount[1] > 0 and self._compare(amount[0] * bottom, top * amount[1])
        return amount is not None and self._compare(amount * bottom, top)


def has_amount(amount: Amount) -> bool:
    """Whether an aggregate has a value yet."""
    return amount is not None and (not isinstance(amount, tuple) or amount[1] > 0)


def as_float(aggregate: Aggregate, amount: Amount) -> float:
    """The amount in people's unit in double precision, for arithmetic. Raises OverflowError."""
    if isinstance(amount, tuple):
        return amount[0] / (amount[1] * scale_of(aggregate))
    return (amount or 0) / scale_of(aggregate)


# -- words ------------------------------------------------------------------------------------------------------------


def shown(aggregate: Aggregate, amount: Amount) -> str:
    """The amount in people's unit, exact: `10312`, `50.000000001`. An average is rounded to nine decimals."""
    if isinstance(amount, tuple):
        if not amount[1]:
            return "nothing yet"
        units = 10**9
        # Half is rounded up; no amount is negative.
        amount = (2 * amount[0] * units + amount[1] * scale_of(aggregate)) // (2 * amount[1] * scale_of(aggregate))
    else:
        units = scale_of(aggregate)
    if amount is None:
        return "nothing yet"
    return _decimal(amount, units)


def _decimal(amount: int, units: int) -> str:
    before, after = divmod(abs(amount), units)
    digits = len(str(units)) - 1
    decimals = f"{after:0{digits}d}".rstrip("0") if after else ""
    return f"{'-' if amount < 0 else ''}{before}" + (f".{decimals}" if decimals else "")


def sentence(
    expression: Expression, amounts: Sequence[Amount], raised: Decimal | None = None, *, ahead: bool = False
) -> str:
    """Why a condition holds, for people: `sum(tokens_used) is 10,312, over 10,000`.

    `ahead`: the amounts are those that it would come to with what is about to be sent out. Logs keep these words, and a
    replay compares them: they are part of the format.
    """
    place = {aggregate: index for index, aggregate in enumerate(expression.aggregates)}
    told = []
    for limit in expression.limits:
        index = place[limit.aggregate]
        if not Judge(limit, index)(amounts, raised):
            continue
        number = limit.number if raised is None else raised
        stands = _grouped(shown(limit.aggregate, amounts[index]))
        verb = "would be" if ahead and limit.aggregate.name != "elapsed" else "is"
        said = f"{limit.aggregate} {verb} {stands}"
        against = _grouped(f"{number.normalize():f}")
        told.append(said if limit.comparison == "==" else f"{said}, {_WORDS[limit.comparison]} {against}")
    return " and ".join(told) or f"`{expression.text}` holds"


def _grouped(number: str) -> str:
    before, point, after = number.partition(".")
    return f"{int(before):,}{point}{after}" if before.isdigit() else number
