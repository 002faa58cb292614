"""What `ctx.telemetry.record` adds up: tokens, money, counters of the author's own."""

from __future__ import annotations

import decimal
import threading
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.records import Telemetry
from tickwork.model.spending import MAX_CUSTOM
from tickwork.sdk.context import Context
from tickwork.sdk.encoding import EncodingError
from tickwork.sdk.telemetry import MAX_COUNT
from tickwork.sdk.values import TaskInput


def ctx() -> Context:
    return TaskInput({}, node="n").context


def recorded(*calls: dict[str, Any]) -> Telemetry:
    c = ctx()
    for call in calls:
        c.telemetry.record(**call)
    assert c.used is not None
    return c.used


def test_numbers_count_and_everything_else_is_the_last_one() -> None:
    used = recorded(
        {"hits": 3, "seconds": 0.1, "note": "a", "cached": True, "parts": [1], "mixed": "x"},
        {"hits": 4, "seconds": 0.2, "note": "b", "cached": False, "parts": [2, -3], "mixed": 5},
        {"hits": 0, "mixed": 6, "spent": Decimal("1.5")},
    )
    assert used.custom == {
        "hits": 7, "seconds": 0.3, "note": "b", "cached": False, "parts": [2, -3], "mixed": 11, "spent": 1.5,
    }  # fmt: skip
    assert isinstance(used.custom["hits"], int)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_counter_is_the_sum_of_its_calls(counts: list[int]) -> None:
    assert recorded(*({"n": count} for count in counts)).custom == {"n": sum(counts)}


@given(st.lists(st.decimals(0, 1000, places=6), min_size=1, max_size=20))
def test_a_counter_with_decimals_is_their_sum_to_the_millionth(numbers: list[Decimal]) -> None:
    custom = recorded(*({"n": float(number)} for number in numbers)).custom
    assert custom is not None
    assert round(custom["n"] * 1_000_000) == sum(numbers) * 1_000_000


@pytest.mark.parametrize(
    "value", [-1, -0.5, float("inf"), float("nan"), float("-inf"), MAX_CUSTOM + 1, 1e13, Decimal(-1), Decimal("NaN")]
)
def test_a_counter_that_is_none_is_refused(value: Any) -> None:
    c = ctx()
    with pytest.raises(ValueError, match=r"telemetry: n is .*has to be between 0 and 1,000,000,000,000"):
        c.telemetry.record(tokens_in=5, n=value)
    assert c.used == Telemetry(), "and nothing of that call is recorded"


def test_a_counter_has_an_end() -> None:
    c = ctx()
    c.telemetry.record(n=MAX_CUSTOM)
    with pytest.raises(ValueError, match="n adds up to"):
        c.telemetry.record(tokens_in=1, n=1)
    assert c.used is not None
    assert (c.used.custom, c.used.tokens_used) == ({"n": MAX_CUSTOM}, 0)


def test_what_json_cannot_say_is_no_custom_value() -> None:
    with pytest.raises(EncodingError, match="telemetry `it` cannot be recorded"):
        ctx().telemetry.record(it=object())
    with pytest.raises(EncodingError, match="more than 64 bits"):
        ctx().telemetry.record(it=2**70)


def test_a_cost_that_is_given_is_the_cost() -> None:
    used = recorded(
        {"tokens_in": 1000, "model": "gpt-4o", "cost_usd": "0.1"},
        {"tokens_in": 1000, "model": "nobody-knows", "cost_usd": 0},
        {"cost_usd": 0.2},
    )
    assert used == Telemetry(2000, 0, 2000, 300_000_000, "nobody-knows")


def test_without_a_cost_the_model_has_its_price() -> None:
    used = recorded({"tokens_in": 1000, "tokens_out": 100, "model": "gpt-4o"}, {"cost_usd": "0.000000001"})
    assert used.cost_nano_usd == 3_500_001
    assert used.prices is not None
    assert used.prices.startswith("genai-prices ")
    assert not used.unpriced


def test_a_model_that_nobody_knows_is_never_free(caplog: pytest.LogCaptureFixture) -> None:
    c = ctx()
    for _ in range(3):
        c.telemetry.record(tokens_in=1000, model="zzz-unknown-1")
    c.telemetry.record(cost_usd="0.5")
    assert c.used == Telemetry(3000, 0, 3000, 500_000_000, "zzz-unknown-1", None, None, True)
    (warning,) = caplog.records
    assert 'models: {"zzz-unknown-1": {input: "0.50", output: "1.50"}}' in warning.getMessage()


def test_tokens_that_are_neither_in_nor_out_have_no_price(caplog: pytest.LogCaptureFixture) -> None:
    ctx().telemetry._prices.warned.clear()
    assert recorded({"tokens_used": 7, "model": "gpt-4o"}) == Telemetry(0, 0, 7, 0, "gpt-4o", None, None, True)
    assert "its cost follows from tokens_in and tokens_out" in caplog.text


def test_a_model_without_tokens_asks_for_no_price() -> None:
    assert recorded({"model": "zzz-unknown-2", "hits": 1}) == Telemetry(0, 0, 0, 0, "zzz-unknown-2", {"hits": 1})


def test_tokens_of_no_model_are_never_free(caplog: pytest.LogCaptureFixture) -> None:
    ctx().telemetry._prices.warned.clear()
    assert recorded({"tokens_in": 7}) == Telemetry(7, 0, 7, unpriced=True)
    assert "no model was named" in caplog.text
    assert recorded({"tokens_in": 7, "cost_usd": 0}) == Telemetry(7, 0, 7)


def test_money_is_exact_whatever_user_code_does_to_decimals() -> None:
    with decimal.localcontext(decimal.Context(prec=2)):
        used = recorded({"tokens_in": 123_457, "tokens_out": 7, "model": "gpt-4o"})
    assert used.cost_nano_usd == 123_457 * 2_500 + 7 * 10_000


def test_ten_times_a_tenth_is_one() -> None:
    assert recorded(*[{"cost_usd": 0.1}] * 10).cost_nano_usd == 1_000_000_000


def test_sums_have_an_end() -> None:
    c = ctx()
    c.telemetry.record(tokens_in=MAX_COUNT)
    with pytest.raises(ValueError, match="tokens_in is"):
        c.telemetry.record(tokens_in=1)
    assert c.used is not None
    assert c.used.tokens_in == MAX_COUNT


def test_threads_add_up() -> None:
    c = ctx()

    def work() -> None:
        for _ in range(200):
            c.telemetry.record(tokens_in=1, cost_usd="0.000000001", n=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert c.used == Telemetry(1600, 0, 1600, 1600, None, {"n": 1600})
