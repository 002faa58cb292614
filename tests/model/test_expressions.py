"""What both engines promise alike: each case is spelled once for CEL and once for Rego."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.condition import ConditionError
from tickwork.model.expressions import (
    Aggregate,
    Amount,
    Comparison,
    Expression,
    Limit,
    before_dispatch,
    compile_expression,
    raisable,
)
from tickwork.model.expressions.aggregates import COMPARE, parse_number, sentence, shown
from tickwork.model.policy import Engine, Scope
from tickwork.model.spending import SCALES

ENGINES: tuple[Engine, ...] = ("cel", "rego")
Spelled = tuple[str, str]


def compiled(engine: Engine, spelled: Spelled, scope: Scope = "lifetime") -> Expression:
    return compile_expression(engine, spelled[ENGINES.index(engine)], scope)


def judged(
    expression: Expression, amounts: Sequence[Amount], record: Mapping[str, Any] | None = None, raised: str = ""
) -> bool:
    return expression.holds(amounts, lambda: record or {}, Decimal(raised) if raised else None)


def refused(engine: Engine, spelled: Spelled, scope: Scope = "lifetime") -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        compiled(engine, spelled, scope)
    assert caught.value.line >= 1
    assert caught.value.column >= 1
    assert "\n" not in str(caught.value)
    return caught.value


def attempted(engine: Engine, spelled: Spelled) -> tuple[Expression | None, str]:
    try:
        return compiled(engine, spelled), ""
    except ConditionError as refusal:
        return None, str(refusal)


TOKENS = ("sum(tokens_used) > 10000", "input.sum.tokens_used > 10000")
MONEY = ("sum(cost_usd) > 50", "input.sum.cost_usd > 50")
MIXED = ("result.score < 0.5 && sum(cost_usd) > 1", "input.result.score < 0.5; input.sum.cost_usd > 1")

JUDGED: list[tuple[Spelled, list[Amount], dict[str, Any], bool]] = [
    (TOKENS, [10_000], {}, False),
    (TOKENS, [10_001], {}, True),
    (MONEY, [50_000_000_000], {}, False),
    (MONEY, [50_000_000_001], {}, True),
    (("0.05 <= sum(cost_usd)", "0.05 <= input.sum.cost_usd"), [50_000_000], {}, True),
    (("sum(cost_usd) == 0.1", "input.sum.cost_usd == 0.1"), [100_000_000], {}, True),
    # Too large for a double, and told apart all the same.
    (
        ("sum(cost_usd) > 90071992547.409920000", "input.sum.cost_usd > 90071992547.409920000"),
        [90_071_992_547_409_920_001],
        {},
        True,
    ),
    (("count() >= 3", "input.count >= 3"), [3], {}, True),
    (("iterations('refine') > 8", "input.iterations.refine > 8"), [9], {}, True),
    (("iterations('my-node') > 8", 'input.iterations["my-node"] > 8'), [8], {}, False),
    (("elapsed() > 1.5", "input.elapsed > 1.5"), [1_500_001], {}, True),
    (("max(latency_ms) > 20", "input.max.latency_ms > 20"), [20_001], {}, True),
    (("min(tokens_in) < 2", "input.min.tokens_in < 2"), [1], {}, True),
    (("max(custom.pages) > 3", "input.max.custom.pages > 3"), [3_000_001], {}, True),
    (("sum(custom.`a-b`) > 1", 'input.sum["custom.a-b"] > 1'), [1_000_000], {}, False),
    (("avg(tokens_used) > 3.5", "input.avg.tokens_used > 3.5"), [(7, 2)], {}, False),
    (("avg(tokens_used) > 3.5", "input.avg.tokens_used > 3.5"), [(8, 2)], {}, True),
    # A third is no decimal; three thirds of it are compared.
    (("avg(cost_usd) > 0.333333333", "input.avg.cost_usd > 0.333333333"), [(10**9, 3)], {}, True),
    # Without a record there is no average, no greatest and no least.
    (("avg(tokens_used) < 3", "input.avg.tokens_used < 3"), [(0, 0)], {}, False),
    (("max(tokens_in) < 3", "input.max.tokens_in < 3"), [None], {}, False),
    (("!(min(tokens_in) > 3)", "not input.min.tokens_in > 3"), [None], {}, False),
    (("max(tokens_in) + 1 < 3", "input.max.tokens_in + 1 < 3"), [None], {}, False),
    (
        ("count() > 5 && sum(tokens_in) > 7", "input.count > 5; input.sum.tokens_in > 7"),
        [6, 7],
        {},
        False,
    ),
    (
        ("count() > 5 || sum(tokens_in) > 7", "breach if input.count > 5\nbreach if input.sum.tokens_in > 7"),
        [5, 8],
        {},
        True,
    ),
    (("!(count() <= 5)", "not input.count <= 5"), [6], {}, True),
    (MIXED, [2 * 10**9], {"result": {"score": 0.2}}, True),
    (MIXED, [2 * 10**9], {"result": {"score": 0.7}}, False),
    (MIXED, [1 * 10**9], {"result": {"score": 0.2}}, False),
    (("route == 'accept'", 'input.route == "accept"'), [], {"result": {"route": "accept"}}, True),
    (("telemetry.model == 'm'", 'input.telemetry.model == "m"'), [], {"telemetry": {"model": "m"}}, True),
    (("header.attempt > 2", "input.header.attempt > 2"), [], {"header": {"attempt": 3}}, True),
    (("lifetime.cycles > 2", "input.lifetime.cycles > 2"), [], {"lifetime": {"cycles": 2}}, False),
    (("'é sum(x) > 1' == result", '"é sum(x) > 1" == input.result'), [], {"result": "é sum(x) > 1"}, True),
    # Arithmetic is the engine's.
    (("sum(tokens_in) + sum(tokens_out) > 10", "input.sum.tokens_in + input.sum.tokens_out > 10"), [5, 6], {}, True),
    (("sum(cost_usd) / double(count()) > 0.5", "input.sum.cost_usd / input.count > 0.5"), [2 * 10**9, 3], {}, True),
    (
        ("result.all(x, x > 2) && count() > 1", "every x in input.result { x > 2 }; input.count > 1"),
        [2],
        {"result": [3, 4]},
        True,
    ),
    (("result.matches('^a+$')", 'regex.match("^a+$", input.result)'), [], {"result": "aaa"}, True),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("spelled", "amounts", "record", "expected"), JUDGED)
def test_judges(
    engine: Engine, spelled: Spelled, amounts: list[Amount], record: dict[str, Any], expected: bool
) -> None:
    expression = compiled(engine, spelled)
    assert len(expression.aggregates) == len(amounts)
    assert judged(expression, amounts, record) is expected
    assert judged(expression, amounts, record) is expected, "judging leaves nothing behind"


@pytest.mark.parametrize("engine", ENGINES)
def test_says_what_it_needs_and_limits(engine: Engine) -> None:
    spelled = (
        "route == 'x' && (sum(cost_usd) > 0.5 || iterations('refine') >= 3 || max(custom.pages) * 2.0 > 1.0)",
        """breach if { input.route == `x`; input.sum.cost_usd > 0.5 }
        breach if { input.iterations.refine >= 3; input.max.custom.pages * 2 > 1 }""",
    )
    found = compiled(engine, spelled)
    money, refine = Aggregate("sum", "cost_usd"), Aggregate("iterations", "refine")
    assert found.aggregates == (money, refine, Aggregate("max", "custom.pages"))
    assert found.reads == {"result"}
    assert set(found.limits) == {Limit(money, ">", Decimal("0.5")), Limit(refine, ">=", Decimal(3))}
    assert raisable(found) is None
    assert not before_dispatch(found)
    assert before_dispatch(compiled(engine, TOKENS))
    assert not found.single
    assert not compiled(engine, MIXED).single
    assert not compiled(engine, ("count() > 1 && elapsed() > 2", "input.count > 1; input.elapsed > 2")).single
    assert compiled(engine, TOKENS).single
    assert compiled(engine, ("!(max(tokens_in) <= 5)", "not input.max.tokens_in <= 5")).single


@pytest.mark.parametrize("engine", ENGINES)
def test_the_record_is_asked_for_only_when_it_is_read(engine: Engine) -> None:
    def never() -> dict[str, Any]:
        raise AssertionError

    assert compiled(engine, TOKENS).holds([10_001], never)
    assert not compiled(engine, ("sum(tokens_in) * 2 > 3", "input.sum.tokens_in * 2 > 3")).holds([1], never)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("spelled", [TOKENS, ("10000 < sum(tokens_used)", "10000 < input.sum.tokens_used")])
def test_a_limit_can_be_raised(engine: Engine, spelled: Spelled) -> None:
    expression = compiled(engine, spelled)
    assert raisable(expression) == Limit(Aggregate("sum", "tokens_used"), ">", Decimal(10_000))
    assert judged(expression, [15_000])
    assert not judged(expression, [20_000], raised="20000")
    assert judged(expression, [20_001], raised="20000")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_limit_beside_something_else_can_be_raised(engine: Engine) -> None:
    expression = compiled(engine, MIXED)
    record = {"result": {"score": 0.2}}
    assert judged(expression, [2 * 10**9], record)
    assert not judged(expression, [2 * 10**9], record, raised="2")
    assert judged(expression, [2 * 10**9 + 1], record, raised="2")


@pytest.mark.parametrize("engine", ENGINES)
def test_two_limits_cannot_be_raised(engine: Engine) -> None:
    expression = compiled(engine, ("count() > 1 && elapsed() > 2", "input.count > 1; input.elapsed > 2"))
    assert raisable(expression) is None
    with pytest.raises(ConditionError, match="2 limits"):
        judged(expression, [1, 1], raised="5")


DEAD: list[tuple[Spelled, str]] = [
    (("true", "true"), "same value for ever"),
    (("1 > 2", "1 > 2"), "same value for ever|never change"),
    (("count() > 1 && true", "input.count > 1; true"), "`true` has the same value for ever"),
    (("sum(tokens_used) < 0", "input.sum.tokens_used < 0"), "never holds: sum.tokens_used. is never negative"),
    (("count() <= -1", "input.count <= -1"), "never holds"),
    (("0 > elapsed()", "0 > input.elapsed"), "never holds"),
    (("sum(cost_usd) >= 0", "input.sum.cost_usd >= 0"), "always holds"),
    (("sum(cost_usd) > -1", "input.sum.cost_usd > -1"), "always holds"),
    (("sum(cost_usd) != -1", "input.sum.cost_usd != -1"), "always holds"),
    (("sum(tokens_used) == 1.5", "input.sum.tokens_used == 1.5"), "never holds.*in steps of 1"),
    (("count() != 0.5", "input.count != 0.5"), "always holds"),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("spelled", "told"), DEAD)
def test_refuses_what_never_changes(engine: Engine, spelled: Spelled, told: str) -> None:
    assert re.search(told, str(refused(engine, spelled)))


UNKNOWN: list[tuple[Spelled, str]] = [
    (("sum(tokens_usde) > 1", "input.sum.tokens_usde > 1"), "did you mean `.*tokens_used"),
    (("sum(x.y) > 1", 'input.sum["x.y"] > 1'), "unknown measure `x.y`"),
    (("summ(tokens_used) > 1", "input.summ.tokens_used > 1"), "did you mean `(input.)?sum`"),
    (("tokens_used > 1", "tokens_used > 1"), r"write (sum\(|input.sum.)tokens_used"),
    (("resutl.x > 1", "input.resutl.x > 1"), "did you mean `(input.)?result`"),
    (("iterations('no node') > 1", 'input.iterations["no node"] > 1'), "no name of a node"),
    (
        ("iterations('r\u0435fine') > 1", 'input.iterations["r\u0435fine"] > 1'),
        "CYRILLIC SMALL LETTER IE looks like `e`",
    ),
    (("c\u043eunt() > 1", "input.c\u043eunt > 1"), "CYRILLIC SMALL LETTER O looks like `o`"),
    (("sum(tokens_used) > 'x'", 'input.sum.tokens_used > "x"'), "cannot compare int with string|`x` is none"),
    (("count() > 1e99", "input.count > 1e99"), "more than any limit can be"),
    (("count() > 0.0000000000000000001", "input.count > 0.0000000000000000001"), "more than 18 decimals"),
    (("nosuch(count()) > 1", "nosuch(input.count) > 1"), "nosuch"),
    (("count() > 1\u200b", "input.count > 1\u200b"), "ZERO WIDTH SPACE cannot be seen"),
    (("count() > 1 \x00", "input.count > 1 \x00"), "control character"),
    (("result == '\u202e'", 'input.result == "\u202e"'), "RIGHT-TO-LEFT OVERRIDE"),
    (("result == '\ud800'", 'input.result == "\ud800"'), "cannot be seen"),
    (("count() >", "input.count >"), "breaks off"),
    (("", " \n"), "empty"),
    (("count() > (1", "input.count > (1"), "never closed"),
    (("count() > 1)", "input.count > 1)"), "closes nothing"),
    (("count() > 1 " * 400, "input.count > 1 " * 400), "at most 4096"),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("spelled", "told"), UNKNOWN)
def test_refuses_what_has_no_meaning(engine: Engine, spelled: Spelled, told: str) -> None:
    assert re.search(told, str(refused(engine, spelled)))


TENANT: list[tuple[Spelled, str]] = [
    (("max(tokens_in) > 3", "input.max.tokens_in > 3"), "cannot use max: it is kept for each lifetime"),
    (("min(tokens_in) > 3", "input.min.tokens_in > 3"), "cannot use min"),
    (("iterations('a') > 3", "input.iterations.a > 3"), "cannot use iterations"),
    (("elapsed() > 3", "input.elapsed > 3"), "cannot use elapsed"),
    (("result.x > 3", "input.result.x > 3"), "cannot read result.*there is no record yet"),
    (("route == 'x'", "input.route == `x`"), "cannot read route"),
    (("header.attempt > 3", "input.header.attempt > 3"), "cannot read header"),
    (("telemetry.tokens_in > 3", "input.telemetry.tokens_in > 3"), "cannot read telemetry"),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("spelled", "told"), TENANT)
def test_a_tenants_policy_knows_sums_only(engine: Engine, spelled: Spelled, told: str) -> None:
    compiled(engine, spelled, "lifetime")
    compiled(engine, spelled, "execution")
    with pytest.raises(ConditionError, match=told):
        compiled(engine, spelled, "tenant")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tenants_policy_takes_sum_avg_count_and_the_lifetime(engine: Engine) -> None:
    spelled = (
        "sum(cost_usd) > 5 && avg(tokens_in) > 2 && count() > 1 && lifetime.cycles > 2",
        "input.sum.cost_usd > 5; input.avg.tokens_in > 2; input.count > 1; input.lifetime.cycles > 2",
    )
    found = compiled(engine, spelled, "tenant")
    assert judged(found, [6 * 10**9, (9, 3), 2], {"lifetime": {"cycles": 3}})


FAILING: list[tuple[Spelled, list[Amount], dict[str, Any], str]] = [
    (("sum(cost_usd) / double(count()) > 1.0", "input.sum.cost_usd / input.count > 1"), [10**9, 0], {}, "by zero"),
    (("sum(tokens_in) / count() > 1", "input.sum.tokens_in / input.count > 1"), [1, 0], {}, "by zero"),
    (("result.a / result.b > 1.0", "input.result.a / input.result.b > 1"), [], {"result": {"a": 1.0, "b": 0}}, "zero"),
    (("size(result) > 1", "count(input.result) > 1"), [], {"result": 5}, "size|count"),
    (
        ("telemetry.custom.x < 1.0", "input.telemetry.custom.x < 1"),
        [],
        {"telemetry": {"custom": {"x": float("nan")}}},
        "no number",
    ),
    (
        ("telemetry.custom.x < 1.0", "input.telemetry.custom.x < 1"),
        [],
        {"telemetry": {"custom": {"x": float("-inf")}}},
        "no number",
    ),
    (("result.x == 'a'", "input.result.x == `a`"), [], {"result": {"x": "\ud800"}}, "failed"),
    (("result.x == 'a'", "input.result.x == `a`"), [], {"result": {"x": object()}}, "failed"),
    (
        (
            "result.all(x, result.all(y, x == y))",
            "every x in input.result { every y in input.result { x == y } }",
        ),
        [],
        {"result": [1] * 3_000},
        "too many for the loops",
    ),
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("spelled", "amounts", "record", "told"), FAILING)
def test_fails_closed(
    engine: Engine, spelled: Spelled, amounts: list[Amount], record: dict[str, Any], told: str
) -> None:
    expression = compiled(engine, spelled)
    with pytest.raises(ConditionError, match=told) as caught:
        judged(expression, amounts, record)
    assert "\n" not in str(caught.value)
    assert "failed: " in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pattern_cannot_explode(engine: Engine) -> None:
    text = "ab" * 2**19
    catastrophic = ("result.matches('^(a+|b+|(ab)+)+$c')", "regex.match(`^(a+|b+|(ab)+)+$c`, input.result)")
    assert not judged(compiled(engine, catastrophic), [], {"result": text})
    for pattern in ("((((a?b?){5}){5}){5}){5}c", "a{100000}", "((a{1,90}){1,90}){2,}"):
        spelled = (f"result.matches('{pattern}')", f"regex.match(`{pattern}`, input.result)")
        with pytest.raises(ConditionError, match="repeats written out"):
            compiled(engine, spelled)
    with pytest.raises(ConditionError, match="text in quotes"):
        compiled(engine, ("result.a.matches(result.b)", "regex.match(input.result.a, input.result.b)"))


# -- exactness --------------------------------------------------------------------------------------------------------

numbers = st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=12)


@given(
    engine=st.sampled_from(ENGINES),
    measure=st.sampled_from(sorted(SCALES)),
    comparison=st.sampled_from(sorted(COMPARE)),
    number=numbers,
    apart=st.integers(-2, 2),
    flipped=st.booleans(),
)
def test_compares_as_decimals_do(
    engine: Engine, measure: str, comparison: Comparison, number: Decimal, apart: int, flipped: bool
) -> None:
    compare: Any = COMPARE[comparison]  # it is declared for whole numbers, and takes Decimals as well
    amount = max(0, int(number * SCALES[measure]) + apart)
    left, right = Decimal(amount) / SCALES[measure], number
    cel, rego = f"sum({measure})", f"input.sum.{measure}"
    spelled = (f"{cel} {comparison} {number:f}", f"{rego} {comparison} {number:f}")
    if flipped:
        spelled = (f"{number:f} {comparison} {cel}", f"{number:f} {comparison} {rego}")
        left, right = right, left
    expression, refusal = attempted(engine, spelled)
    if expression is None:
        assert "this always holds" in refusal or "this never holds" in refusal
        assert compare(left, right) is ("always" in refusal)
        return
    assert judged(expression, [amount]) is compare(left, right)


@given(engine=st.sampled_from(ENGINES), total=st.integers(0, 10**15), count=st.integers(1, 10**6), number=numbers)
def test_averages_are_compared_as_fractions(engine: Engine, total: int, count: int, number: Decimal) -> None:
    spelled = (f"avg(cost_usd) > {number:f}", f"input.avg.cost_usd > {number:f}")
    expected = total * 10**12 > int(number * 10**12) * 10**9 * count
    assert judged(compiled(engine, spelled), [(total, count)]) is expected


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "amount", "told"),
    [
        (Aggregate("sum", "tokens_used"), 10_312, "10312"),
        (Aggregate("sum", "cost_usd"), 50_000_000_001, "50.000000001"),
        (Aggregate("sum", "cost_usd"), 50_500_000_000, "50.5"),
        (Aggregate("max", "latency_ms"), 1_500, "1.5"),
        (Aggregate("max", "latency_ms"), None, "nothing yet"),
        (Aggregate("elapsed"), 2_000_000, "2"),
        (Aggregate("avg", "tokens_used"), (10, 3), "3.333333333"),
        (Aggregate("avg", "cost_usd"), (3 * 10**9, 2), "1.5"),
        (Aggregate("avg", "cost_usd"), (0, 0), "nothing yet"),
        (Aggregate("sum", "custom.pages"), 1, "0.000001"),
    ],
)
def test_shows_amounts_exactly(aggregate: Aggregate, amount: Amount, told: str) -> None:
    assert shown(aggregate, amount) == told


@pytest.mark.parametrize("engine", ENGINES)
def test_tells_why_in_a_sentence(engine: Engine) -> None:
    assert sentence(compiled(engine, TOKENS), [10_312]) == "sum(tokens_used) is 10,312, over 10,000"
    assert sentence(compiled(engine, TOKENS), [20_312], Decimal(20_000)) == "sum(tokens_used) is 20,312, over 20,000"
    both = compiled(engine, ("count() >= 5 && sum(cost_usd) > 0.5", "input.count >= 5; input.sum.cost_usd > 0.5"))
    told = "count() is 5, not under 5 and sum(cost_usd) is 1,000.25, over 0.5"
    assert sentence(both, [5, 1_000_250_000_000]) == told
    reading = compiled(engine, ("header.attempt > 2", "input.header.attempt > 2"))
    assert sentence(reading, []) == f"`{reading.text}` holds"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20000", "20000"),
        ("20 000", "20000"),
        ("1\u202f000\u00a0000", "1000000"),
        (" 0.05 ", "0.05"),
        ("2e6", "2000000"),
    ],
)
def test_reads_numbers_as_people_write_them(text: str, number: str) -> None:
    assert parse_number(text) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("NaN", "no number"),
        ("inf", "no number"),
        ("-1", "negative"),
        ("1e999999999", "no number"),
        ("1e30", "more than any limit"),
        ("1e-30", "more than 18 decimals"),
        ("20,000", "not with commas"),
        ("2_000", "no number"),
        ("20 00", "no number"),
        ("", "no number"),
        ("0x10", "no number"),
        ("\u0663", "no number"),
        ("9" * 5_000, "no number"),
    ],
)
def test_refuses_other_numbers(text: str, told: str) -> None:
    with pytest.raises(ConditionError, match=told):
        parse_number(text)
