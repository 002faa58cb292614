"""What is CEL's own: places in the text, spaced numbers, what is left to the engine, and hostile texts."""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.condition import ConditionError
from tickwork.model.expressions import Aggregate, Limit
from tickwork.model.expressions.bounds import pattern_size
from tickwork.model.expressions.cel import CelExpression
from tickwork.model.expressions.cel_plain import plain_texts
from tickwork.model.expressions.cel_tokens import tokenize


def judged(text: str, amounts: list[Any], record: dict[str, Any] | None = None) -> bool:
    return CelExpression(text, "lifetime").holds(amounts, lambda: record or {})


def outcome(text: str, record: dict[str, Any]) -> tuple[int, str]:
    """What comes of a text that somebody made up: the line and the words of its refusal, or nothing."""
    try:
        expression = CelExpression(text, "lifetime")
        expression.holds([1] * len(expression.aggregates), lambda: record)
    except ConditionError as error:
        return error.line, str(error)
    return 0, ""


PLACES: list[tuple[str, int, int]] = [
    ("sum(tokens_usde) > 1", 1, 5),
    ("count() > 1 &&\n  sum(tokens_in) > 'x'", 2, 18),
    ("sum(\n  tokens_used\n) * 2 > 5 &&\n result.x == foo", 4, 14),
    ("count() > 10 000 && bar > 1", 1, 21),
    ("count() > 10\u202f000 && bar > 1", 1, 21),
    ("'\U0001d4b3' == result && count() * 2 > bar", 1, 32),
    ("5\n< count() && bar", 2, 14),
    ("count() > 1 // sum(\n && bar", 2, 5),
    ("sum(tokens_in)", 1, 1),
    ("result.x > 1 &&\n1 > 2", 2, 1),
    ("count() > 1 && sum(tokens_in) < 0", 1, 16),
    ("count() = 1", 1, 9),
    ("result.a.matches('x') && result.matches(result.b)", 1, 41),
    ("'abc", 1, 1),
    ("count() > 1 && (\n(count() > 2)", 1, 16),
]


@pytest.mark.parametrize(("text", "line", "column"), PLACES)
def test_names_the_place(text: str, line: int, column: int) -> None:
    with pytest.raises(ConditionError) as caught:
        CelExpression(text, "lifetime")
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u202f"])
def test_takes_digit_groups_as_one_number(space: str) -> None:
    found = CelExpression(f"sum(tokens_used) > 1{space}010{space}000", "lifetime")
    assert found.limits == (Limit(Aggregate("sum", "tokens_used"), ">", Decimal(1_010_000)),)
    assert judged(f"sum(cost_usd) > 10{space}000.5", [10_000_500_000_001])
    assert judged(f"result.x + count() > 10{space}000", [1], {"result": {"x": 10_000}})
    assert judged(f"result == '10{space}000'", [], {"result": f"10{space}000"})


@pytest.mark.parametrize("text", ["count() > 10 00", "count() > 1000 000", "count() > 10  000", "count() > 10\t000"])
def test_refuses_other_groups(text: str) -> None:
    with pytest.raises(ConditionError, match="digit groups have three digits"):
        CelExpression(text, "lifetime")


@pytest.mark.parametrize(
    "text",
    [
        "result == 'sum(tokens_used) > 1'",
        'result == "count()"',
        "result == '''count() \n > 1'''",
        "result == r'\\d' || result == 'count()'",
        "result == 'x\\'count()'",
        "result == 1 // count() > 5",
        "result.count > 1",
        "result.sum == 1",
        "[1].exists(max, max > result)",
    ],
)
def test_finds_no_aggregate_where_none_is(text: str) -> None:
    assert CelExpression(text, "lifetime").aggregates == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("count(x) > 1", r"count\(\) takes nothing"),
        ("elapsed(1) > 1", r"elapsed\(\) takes nothing"),
        ("iterations(refine) > 1", r"iterations\('refine'\)"),
        ("iterations('a', 'b') > 1", "one node and nothing else"),
        ("iterations() > 1", "in quotes"),
        ("sum() > 1", "sum takes a measure"),
        ("sum('tokens_used') > 1", "without quotes"),
        ("sum(tokens_used + 1) > 1", r"outside: sum\(tokens_used\) \+ 1"),
        ("sum(custom) > 1", r"sum\(custom.pages\)"),
        ("sum(telemetry.cost_usd) > 1", r"did you mean `sum\(cost_usd\)`"),
        ("result.sum(tokens_used) > 1", "alone is no value|stands alone"),
        ("result.count() > 1", "only when it is called and stands alone"),
        ("count() > 1 and count() < 9", "CEL writes `&&` for `and`"),
        ("count() ≥ 1", "looks like `>=`"),
        ("result == “x”", 'looks like `"`'),
        ("_0 > 1 && count() > 2", "unknown name `_0`"),
        ("sum(cost_usd) * 2.0 > 1", r"write the number with a point \(5.0\)"),
        ("result.matches('\\\\d+', 1)", "text in quotes"),
        ("result.matches('a\\x7b99\\x7d')", "raw text"),
        ("a.b.c", "unknown name `a`"),
    ],
)
def test_teaches(text: str, told: str) -> None:
    with pytest.raises(ConditionError, match=told):
        CelExpression(text, "lifetime")


def test_reads_how_comparisons_are_joined() -> None:
    text = "!(count() > 1 && !(elapsed() <= 2)) || ((sum(tokens_in) == 3))"
    found = CelExpression(text, "lifetime")
    assert [limit.comparison for limit in found.limits] == ["<=", "<=", "=="], "what `!` turns round is told turned"
    for count in (1, 2):
        for elapsed in (2_000_000, 2_000_001):
            for tokens in (2, 3):
                expected = not (count > 1 and elapsed > 2_000_000) or tokens == 3
                assert found.holds([count, elapsed, tokens], dict) is expected


def test_a_condition_of_limits_alone_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    assert judged("sum(tokens_used) > 10 000 || !(count() < 3)", [1, 3])


@pytest.mark.parametrize(
    ("text", "amounts", "record", "expected"),
    [
        ("count() > 5 ? result.x == 1 : sum(cost_usd) > 7", [6, 0], {"result": {"x": 1}}, True),
        ("count() > 5 ? result.x == 1 : sum(cost_usd) > 7", [5, 7 * 10**9 + 1], {"result": {}}, True),
        ("(count() > 5) == (elapsed() > 5)", [6, 5], {}, False),
        ("result.exists(x, x == 1 && sum(cost_usd) > 0.1)", [100_000_001], {"result": [1]}, True),
        # The name of a variable may be a loop's own, and that of an aggregate too.
        ("[1, 2].exists(count, count > 1 && count() > 3)", [4], {}, True),
        ("sum(cost_usd) / double(count()) / 2.0 > 0.5", [3 * 10**9, 2], {}, True),
        ("1.0 / (sum(cost_usd) / 2.0) > 0.5 && result.a[0].b / 2 == 1", [10**9], {"result": {"a": [{"b": 2}]}}, True),
        ("result.x / -2 == -1", [], {"result": {"x": 2}}, True),
        ("has(result.x) && result.x > 0x10", [], {"result": {"x": 17}}, True),
        ("result.`a-b` == b'x' || count() > 0x10", [17], {"result": {"a-b": 1}}, True),
    ],
)
def test_leaves_the_rest_to_the_engine(text: str, amounts: list[int], record: dict[str, Any], expected: bool) -> None:
    assert judged(text, amounts, record) is expected


@pytest.mark.parametrize(
    ("text", "amounts", "record", "told"),
    [
        ("result.x > 1", [], {"result": {}}, "`result` has no field `x`"),
        ("result.x > 1", [], {"result": None}, "no fields|failed"),
        ("result.x > 1", [], {"result": {"x": "a"}}, "cannot compare string with int"),
        ("result.flag", [], {"result": {"flag": 1}}, "gave int, not true or false"),
        ("sum(tokens_in) * 2 > 1", [2**62], {}, "too big for CEL"),
        ("sum(tokens_in) + 1 > 1", [2**80], {}, "too big for CEL"),
        ("sum(cost_usd) * 2.0 > 1.0", [10**400], {}, "failed"),
        ("1.0 / (sum(cost_usd) - 1.0) > 1.0", [10**9], {}, "divides by zero"),
        ("1.0 / (1.0 / (sum(cost_usd) / 0.0)) > 1.0", [10**9], {}, "divides by zero"),
        ("result.all(x, 1.0 / x > 0.1)", [], {"result": [1.0, 0.0]}, "divides by zero"),
        ("count() % (count() - 1) == 0", [1], {}, "divides by zero"),
        ("result.all(a, a.all(b, b.all(c, c < 2)))", [], {"result": [[[1] * 10] * 12] * 12}, "failed"),
        ("result.all(x, x > 0)", [], {"result": [1] * 20_000}, "too many steps"),
        ("header.x == 1", [], {}, "failed"),
        ("result.text.contains('rm -rf')", [], {"result": {"text": "a\0rm -rf /"}}, "has a NUL in it"),
        ("header.name == 'a'", [], {"header": {"name": "a\0b"}}, "has a NUL in it"),
    ],
)
def test_fails_closed(text: str, amounts: list[int], record: dict[str, Any], told: str) -> None:
    expression = CelExpression(text, "lifetime")
    if "b.all(c" in text:
        expression.holds(amounts, lambda: record)  # 1,440 values: within what may be gone through again
        record = {"result": [[[1] * 20] * 20] * 20}
    with pytest.raises(ConditionError, match=told):
        expression.holds(amounts, lambda: record)


def test_a_guard_before_a_division_is_heard() -> None:
    text = "count() > 0 && sum(cost_usd) / double(count()) > 0.5"
    assert not judged(text, [0, 10**9])
    assert judged(text, [1, 10**9])


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2_000 + "count()" + ")" * 2_000 + " > 1",
        "[" * 2_000,
        "{" * 4_000,
        "!" * 3_000 + "(count() > 1)",
        "-" * 3_000 + "count() > 1",
        "result" + ".x" * 2_000 + " == 1",
        "result" + "[0" * 1_000 + "]" * 1_000 + " == 1",
        "count() > 1" + " || count() > 1" * 270,
        "1" + "+1" * 1_900 + " > count()",
        "1.0" + "/(1.0" * 20 + "/sum(cost_usd)" + ")" * 20 + " > 1.0",
        "1.0" + "/result.x" * 300 + " > 1.0",
        "true ? " * 500 + "true",
        "'" + "\\" * 3_999,
        '"""' + '"' * 4_000,
        "count()" * 500,
        "a" * 4_000,
        "0" * 4_000 + " < count()",
        "1" + " 000" * 1_000 + " < count()",
        "/" * 4_000,
        "result.matches('" + "(" * 2_000 + "')",
        "result.matches('" + "[a" * 1_000 + "')",
    ],
)
def test_hostile_texts_end_soon(text: str) -> None:
    began = time.perf_counter()
    assert len(outcome(text, {"result": 1})[1]) < 1_000
    assert time.perf_counter() - began < 2


@given(st.text(st.sampled_from("sumcount()xyz 'result.>=<&|!?:[]{}/0123 \n\"\\_-"), max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    line, told = outcome(text, {"result": {}})
    assert 0 <= line <= text.count("\n") + 1
    assert "\n" not in told


@given(
    st.lists(st.sampled_from(["count() > 1", "elapsed() > 1", "(", ")", "!", "&&", "||", "true == result"]), max_size=9)
)
def test_joins_as_cel_itself_does(words: list[str]) -> None:
    """The reading of `&&`, `||`, `!` and parentheses is held against the engine's own."""
    text = " ".join(words)
    plain = text.replace("count()", "header.count").replace("elapsed()", "header.elapsed")
    try:
        ours = CelExpression(text, "lifetime")
    except ConditionError:
        ours = None
    try:
        theirs = CelExpression(plain, "lifetime")
    except ConditionError:
        theirs = None
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    for count in (1, 2):
        for elapsed in (1, 2):
            amounts = {"count": count, "elapsed": elapsed * 1_000_000}
            record = {"header": {"count": count, "elapsed": elapsed}, "result": True}
            given_ = [amounts[each.name] for each in ours.aggregates]
            assert ours.holds(given_, lambda held=record: held) is theirs.holds([], lambda held=record: held)


def test_words_keep_their_places() -> None:
    text = "sum(tokens_in)>10 000 // x\n&& r'\\' == result.`a b`"
    for token in tokenize(text):
        assert text[token.start : token.end].replace(" ", "") == token.text.replace(" ", "")


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        ("a{10}", 10),
        ("[a-z]{4}-\\d{2}", 7),
        ("(ab){3}", 9),
        ("((a{3}){3}){2,4}", 52),
        ("a{2,}", 2),
        ("[]{9}]", 1),
    ],
)
def test_sizes_a_pattern(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


# -- what is answered without the engine ------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "a", "rm -rf", "x rm -rf /", "\u00e9", "a\0rm -rf", "\U0001f600"])
VALUES = st.one_of(
    TEXTS, st.none(), st.booleans(), st.floats(allow_nan=False), st.sampled_from([7, 2**64 - 1, 2**64, -(2**63) - 1])
)
RESULTS = st.one_of(VALUES, st.dictionaries(st.sampled_from(["text", "more", "a\0b"]), st.one_of(
    VALUES, st.lists(VALUES, max_size=2), st.dictionaries(st.sampled_from(["text", "n"]), VALUES, max_size=2)
), max_size=3))  # fmt: skip
ASKED = st.sampled_from([
    "result.text.contains('rm -rf')", "result.text.startsWith('x')", "result.more.text.endsWith('/')",
    "result.text == 'a'", "result.more.text != ''",
])  # fmt: skip


@given(asked=st.lists(ASKED, min_size=1, max_size=3), joined=st.sampled_from([" || ", " && "]), result=RESULTS)
def test_plain_questions_are_answered_as_the_engine_answers_them(asked: list[str], joined: str, result: Any) -> None:
    expression = CelExpression(joined.join(asked), "execution")
    engine = expression._engine
    assert engine is not None
    assert engine.plain is not None
    said = []
    for plain in (engine.plain, None):
        engine.plain = plain
        try:
            said.append(str(expression.holds([], lambda: {"result": result})))
        except ConditionError as error:
            said.append(str(error))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("result.a.b.contains('x')", True),
        ("result.a == 'x' && result.b != \"y\"", True),
        ("result == 'x'", True),
        ("result.contains('x')", True),
        ("result.a.contains('x') || result.b == 'y' && result.c == 'z'", False),
        ("result.a.contains('\\\\d')", False),
        ("result.a.contains(r'x')", False),
        ("result.a.contains('''x''')", False),
        ("result.a.matches('x')", False),
        ("!result.a.contains('x')", False),
        ("result.a[0].contains('x')", False),
        ("result.a.contains(result.b)", False),
        ("header.name == 'x'", False),
        ("result.a == 1", False),
        ("'x' == result.a", False),
    ],
)
def test_knows_which_questions_are_plain(text: str, plain: bool) -> None:
    assert (plain_texts(tokenize(text)) is not None) is plain
