"""What is Rego's own: rules, what is undefined, what may be called, threads, and hostile texts."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.errors import MissingExtra
from tickwork.model.condition import ConditionError
from tickwork.model.expressions import compile_expression
from tickwork.model.expressions.rego import RegoExpression


def judged(text: str, amounts: list[Any], record: dict[str, Any] | None = None) -> bool:
    return RegoExpression(text, "lifetime").holds(amounts, lambda: record or {})


def outcome(text: str, record: dict[str, Any]) -> tuple[int, str]:
    """What comes of a text that somebody made up: the line and the words of its refusal, or nothing."""
    try:
        expression = RegoExpression(text, "lifetime")
        expression.holds([1] * len(expression.aggregates), lambda: record)
    except ConditionError as error:
        return error.line, str(error)
    return 0, ""


@pytest.mark.parametrize(
    ("text", "amounts", "record", "expected"),
    [
        ("breach if { input.count > 3; not input.elapsed <= 2 }", [4, 2_000_001], {}, True),
        ("default breach := false\nbreach if input.count > 5", [6], {}, True),
        ("# why\nbreach if input.count > 5 # so", [6], {}, True),
        ("breach := input.count > 5", [5], {}, False),
        ("breach if input.result.x else := input.count > 5", [6], {"result": {}}, True),
        ('input["sum"]["cost_usd"] > 1', [10**9 + 1], {}, True),
        ("input.count > 5 # and more", [6], {}, True),
        ("limit := input.lifetime.most\ninput.count > limit", [6], {"lifetime": {"most": 5}}, True),
        ("some x in input.result; x > 2", [], {"result": [1, 3]}, True),
        ("input.result[_] > 2", [], {"result": [1, 3]}, True),
        ("count([x | some x in input.result; x > 2]) > 1", [], {"result": [1, 3, 4]}, True),
        ("(input.count > 5) == true", [6], {}, True),
        # What is undefined is false, as everywhere in Rego.
        ("input.result.x > 1", [], {"result": {}}, False),
        ("not input.result.x", [], {"result": {}}, True),
        # Texts are greater than numbers in Rego.
        ("input.result.x > 1", [], {"result": {"x": "a"}}, True),
    ],
)
def test_judges(text: str, amounts: list[int], record: dict[str, Any], expected: bool) -> None:
    assert judged(text, amounts, record) is expected


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("input.count > 1\ninput.summ.x > 1", 2, 1, "did you mean `input.sum`"),
        ('"é" == input.result; input.cuont > 5', 1, 22, "did you mean `input.count`"),
        ("breach if {\n  input.count > 1\n  data.x\n}", 3, 3, "not at `data`"),
        ("breach if breach", 1, 11, "not at `breach`"),
        ("breach if input.count > 1\nother if input.count > 1", 2, 1, "the only rule is `breach`"),
        ("breach(x) if x > input.count", 1, 1, "the only rule is `breach`"),
        ("breach contains x if x := input.count", 1, 1, "the only rule is `breach`"),
        ("default breach := true\nbreach if input.count > 1", 1, 1, "the only default"),
        ("input.count > 1 with input as {}", 1, 17, "`with` has no place"),
        ("input.count = 1", 1, 1, "write `==` to compare"),
        ("-input.count > 1", 1, 1, "write 0 - x"),
        ("input.sum > 1", 1, 1, "write out which sum"),
        ("input.sum[input.result] > 1", 1, 1, "write out which sum"),
        ("x := input; x.count > 1", 1, 6, "name the field of input"),
        ("input[x] > 1", 1, 1, "name the field of input"),
        ("input.count.x > 1", 1, 1, "has no fields"),
        ("(input.count) > 1", 1, 1, "without parentheses"),
        ("input.count > 10 000", 1, 15, "without spaces: 10000"),
        ("x > 3; input.count > 1", 1, 1, "undefined variable `x`"),
    ],
)
def test_names_the_place(text: str, line: int, column: int, told: str) -> None:
    with pytest.raises(ConditionError, match=told) as caught:
        RegoExpression(text, "lifetime")
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        "http.send({})", "opa.runtime()", "time.now_ns()", "rand.intn(`x`, input.count)", "uuid.rfc4122(`x`)",
        "numbers.range(1, 1000000000)", "net.lookup_ip_addr(`x`)", "walk(input.result)", "trace(`x`)", "print(`x`)",
        "sprintf(`%1000000000d`, [input.count])", "crypto.sha256(`x`)", "io.jwt.decode(`x`)", "split(input.result, ``)",
        "graph.reachable({}, [1])", "regex.find_n(`a`, input.result, 1)", "json.unmarshal(input.result)",
    ],
)  # fmt: skip
def test_calls_nothing_that_reaches_out_or_has_no_bound(call: str) -> None:
    for text in (f"input.count > 1; {call}", f"x := {call}; input.count > x", f"input.result[{call}] > 1"):
        with pytest.raises(ConditionError, match="cannot call"):
            RegoExpression(text, "lifetime")


@pytest.mark.parametrize(
    ("text", "amounts", "record", "told"),
    [
        ("breach := input.count", [6], {}, "breach is 6, not true or false"),
        ("breach := true if input.count > 5\nbreach := false if input.elapsed > 3", [6, 4 * 10**6], {}, "conflicts"),
        ("to_number(input.result) > 1", [], {"result": "x"}, "number"),
        ("input.result.x % 2 == 1", [], {"result": {"x": 1.5}}, "modulo"),
        ("input.result.x == 1", [], {"result": {"x": [[[[1]]]] * 3}, "lifetime": {}}, ""),
        ("some a in input.result; some b in input.result; a > b", [], {"result": [1] * 300}, "too many for the loops"),
    ],
)
def test_fails_closed(text: str, amounts: list[int], record: dict[str, Any], told: str) -> None:
    if not told:
        assert judged(text, amounts, record) is False
        return
    with pytest.raises(ConditionError, match=told):
        judged(text, amounts, record)


def test_a_deep_record_fails_closed() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    with pytest.raises(ConditionError, match="recursion"):
        judged("input.result == 1", [], {"result": deep})


def test_loops_over_what_is_written_out_are_bounded() -> None:
    values = ",\n".join(str(value) for value in range(500))
    text = f"some a in [{values}]; some b in input.result; some c in input.result"
    with pytest.raises(ConditionError, match="too many for the values that it lists"):
        RegoExpression(text, "lifetime")


def test_judges_in_any_thread() -> None:
    expression = RegoExpression("input.result.x > 1; input.count > 2", "lifetime")
    found: list[bool] = []

    def judge() -> None:
        found.extend(expression.holds([3], lambda: {"result": {"x": 2}}) for _ in range(100))

    threads = [threading.Thread(target=judge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 400
    assert not expression.holds([2], lambda: {"result": {"x": 2}})


def test_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regorus", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tickwork\[rego\]'"):
        compile_expression("rego", "input.count > 1", "lifetime")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2_000, "[" * 40 + "]" * 40, "(" * 2_000 + "1" + ")" * 2_000, "{" * 500, '{"a":' * 40 + "1" + "}" * 40,
        "input" + "\n.a" * 1_300 + " == 1", "input.count" + "\n+1" * 1_300 + " > 1", "not " * 1_000 + "input.count > 1",
        "-" * 4_000, '"' * 4_000, "`" * 4_001, "#" * 4_000, "count(" * 500 + "1" + ")" * 500,
        "count(" * 19 + "input.result" + ")" * 19 + " > 1", "input.count > " + "9" * 4_000, "breach if " * 400,
        "input.count > 1\n" * 250, "every x in input.result {" * 8 + "x" + "}" * 8, "\ninput.result" + "[_]" * 300,
        "some x in input.result\n" * 150 + "x > 1", "breach if breach", "}\nbreach if {", "package x", "import rego.v1",
        "input.result == " + "|".join(["{1}"] * 300), "input.count > 1 else := true", "breach", "breach :=", "default",
    ],
)  # fmt: skip
def test_hostile_texts_end_soon(text: str) -> None:
    began = time.perf_counter()
    assert len(outcome(text, {"result": [[1], [2]]})[1]) < 1_000
    assert time.perf_counter() - began < 5


@given(st.text(st.sampled_from('breachif input.count[]{}();:=<> 01"`\n_xsomev,|&+-'), max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    line, told = outcome(text, {"result": {}})
    assert 0 <= line <= text.count("\n") + 1
    assert "\n" not in told
