"""What models cost: by a list of one's own, by genai-prices, and never silently nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.executor.rig import rig
from tickwork.sdk.context import Context
from tickwork.sdk.nodes import task
from tickwork.sdk.prices import FROM_RESPONSE, Cost, Price, PriceList, Prices, PricesInvalid, read_prices
from tickwork.sdk.usage import Used

TABLE = f"genai-prices {genai_prices.__version__}"
DAY = 1_790_000_000_000_000  # 2026-09-21
THOUSANDS = Used(tokens_in=1000, tokens_out=100, tokens_used=1100)


def listed(tmp_path: Path, text: str) -> PriceList:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return read_prices(path)


# ---------------------------------------------------------------------------------------------------------------------
# genai-prices


def test_the_table_prices_a_model_by_its_name_alone() -> None:
    prices = Prices()
    assert prices.cost("gpt-4o-2024-08-06", THOUSANDS, DAY) == Cost(3_500_000, TABLE)
    assert prices.cost("gpt-4o", THOUSANDS, DAY) == Cost(3_500_000, TABLE)


def test_cached_written_and_other_tokens_have_prices_of_their_own() -> None:
    used = Used(tokens_in=1000, tokens_out=100, cache_read=200, cache_write=300, cache_write_5m=200, cache_write_1h=100)
    # 500 at 3 dollars a million, 200 at 0.30, 200 at 3.75, 100 for an hour at 6, 100 out at 15.
    assert Prices().cost("claude-sonnet-4-5", used, DAY) == Cost(4_410_000, TABLE)


def test_the_terms_of_a_call_change_its_price() -> None:
    flex = Used(tokens_in=1_000_000, tokens_out=1_000_000, terms={"service_tier": "flex"})
    found = Prices().cost("o3", flex, 1_792_000_000_000_000)
    assert found == Cost(5_000_000_000, TABLE)


def test_who_sells_it_is_told_by_name_or_by_address() -> None:
    prices, model = Prices(), "llama-3.3-70b-versatile"
    assert prices.cost(model, THOUSANDS, DAY) is None
    by_name = prices.cost(model, THOUSANDS, DAY, provider="groq")
    assert by_name is not None
    assert prices.cost(model, THOUSANDS, DAY, url="https://api.groq.com/openai/v1/") == by_name
    assert prices.cost("gpt-4o", THOUSANDS, DAY, url="http://127.0.0.1:8080/v1/") == Cost(3_500_000, TABLE)
    assert prices.cost("gpt-4o", THOUSANDS, DAY, provider="nobody") is None


@pytest.mark.parametrize("model", ["zzz", "", None, "gpt-nothing", "x" * 10_000, "\udc80"])
def test_an_unknown_model_has_no_cost(model: str | None) -> None:
    assert Prices().cost(model, THOUSANDS, DAY) is None


def test_a_listed_model_without_a_price_for_what_was_used_has_no_cost() -> None:
    prices = Prices()
    assert prices.cost("gemma-3", THOUSANDS, DAY, provider="google") is None
    embedding = "text-embedding-3-small"
    assert prices.cost(embedding, Used(tokens_in=1000), DAY, provider="openai") == Cost(20_000, TABLE)
    assert prices.cost(embedding, THOUSANDS, DAY, provider="openai") is None


def test_a_usage_whose_parts_are_more_than_the_whole_has_no_cost() -> None:
    assert Prices().cost("gpt-4o", Used(tokens_in=10, cache_read=20), DAY) is None


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=10))
def test_sums_of_costs_are_exact(calls: list[tuple[int, int]]) -> None:
    prices = Prices()
    total = 0
    for into, out in calls:
        found = prices.cost("gpt-4o-mini", Used(tokens_in=into, tokens_out=out), DAY)
        assert found is not None
        total += found.nano_usd
    assert total == sum(into * 150 + out * 600 for into, out in calls)


# ---------------------------------------------------------------------------------------------------------------------
# Who wins


def test_an_own_price_wins_over_the_response_and_both_over_the_table() -> None:
    charged = Used(tokens_in=1000, tokens_out=100, cost=Decimal("0.000000002"))
    assert Prices().cost("gpt-4o", charged, DAY) == Cost(2, FROM_RESPONSE)
    own = Prices(own=PriceList("prices.yaml 1", {"gpt-*": Price(1_000_000, 0)}))
    assert own.cost("gpt-4o", charged, DAY) == Cost(1000, "prices.yaml 1")


def test_the_exact_name_wins_over_patterns_and_the_first_pattern_over_the_next() -> None:
    models = {"a*": Price(1, 0), "ab*": Price(2, 0), "abc": Price(3, 0), "[x]": Price(4, 0)}
    own = PriceList("prices.yaml 1", models)
    found = {name: own.find(name) for name in ("abc", "abd", "ab", "b", "x", "[x]")}
    assert {name: price and price.input for name, price in found.items()} == {
        "abc": 3, "abd": 1, "ab": 1, "b": None, "x": None, "[x]": 4,
    }  # fmt: skip


@given(
    st.builds(Price, *[st.integers(0, 10**12)] * 2, st.none() | st.integers(0, 10**12), st.none() | st.integers(0, 9)),
    *[st.integers(0, 10**6)] * 4,
)
def test_own_prices_are_exact_to_half_a_billionth(price: Price, rest: int, read: int, write: int, out: int) -> None:
    used = Used(tokens_in=rest + read + write, tokens_out=out, cache_read=read, cache_write=write)
    exact = Fraction(rest * price.input + out * price.output, 1_000_000)
    exact += Fraction(read * (price.input if price.cache_read is None else price.cache_read), 1_000_000)
    exact += Fraction(write * (price.input if price.cache_write is None else price.cache_write), 1_000_000)
    assert price.cost(used) == round(exact)


# ---------------------------------------------------------------------------------------------------------------------
# The file


def test_a_list_says_dollars_per_million_tokens(tmp_path: Path) -> None:
    text = (
        'models:\n  mine: {input: "0.50", output: 1.5, cache_read: "0.000000001"}\n  "own/*": {input: 0, output: 0}\n'
    )
    own = listed(tmp_path, text)
    assert own.models == {"mine": Price(500_000_000, 1_500_000_000, 1), "own/*": Price(0, 0)}
    name, digest = own.name.split()
    assert (name, len(digest)) == ("prices.yaml", 12)
    assert listed(tmp_path, text + "# a comment\n").name != own.name


def test_all_that_is_wrong_with_a_list_is_told_with_its_place(tmp_path: Path) -> None:
    text = (
        "modells: 1\n"
        "models:\n"
        "  a: {input: -1, output: much, in: 3}\n"
        "  b: {input: 1}\n"
        "  c: 5\n"
        "  d: {input: 0.0000000001, output: 2000000}\n"
        "  e: {input: true, output: [1]}\n"
    )
    with pytest.raises(PricesInvalid) as caught:
        listed(tmp_path, text)
    said = str(caught.value)
    assert said.startswith("10 problems in the prices:\n")
    for place, words in (
        ("1:1", "a list of prices has no key `modells`"),
        ("3:14", "`input` is -1; it has to be at least 0"),
        ("3:26", '`output` has to be an amount of US dollars, not "much"'),
        ("3:32", "a price has no key `in`"),
        ("4:3", "the price of `b` lacks `output`"),
        ("5:6", "`c` has to be a map such as"),
        ("6:14", "at most 9 digits"),
        ("6:36", "`output` is 2000000"),
        ("7:14", "has to be an amount of US dollars, not bool"),
        ("7:28", "has to be an amount of US dollars, not list"),
    ):
        assert any(f"prices.yaml:{place}: " in line and words in line for line in said.splitlines()), (place, said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no `models`"),
        ("[1]", "has to be a map"),
        ("models: []", "`models` has to be a map"),
        ("models:\n  a: &x {input: 1, output: 1}\n  b: *x\n", "the anchor `&x` is not allowed"),
        ("models:\n  a: {input: 1, output: 1}\n  a: {input: 2, output: 1}\n", "the key `a` is given twice"),
        ("models: {a: {input: 1", "this is not YAML"),
        ("a: " + "[" * 100, "nested more than"),
    ],
)
def test_a_hostile_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PricesInvalid) as caught:
        listed(tmp_path, text)
    assert words in str(caught.value)


def test_the_file_is_named_by_the_environment_or_lies_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("TICKWORK_PRICES", raising=False)
    prices = Prices.from_environment(home)
    assert prices.fault(0) is None
    (home / "prices.yaml").write_text("models: {m: {input: 1, output: 1}}")
    assert prices.fault(0.5) is None
    assert prices.own is None, "it is not looked at more than once a second"
    assert prices.fault(1.5) is None
    assert prices.own is not None
    monkeypatch.setenv("TICKWORK_PRICES", str(tmp_path / "other.yaml"))
    named = Prices.from_environment(home)
    fault = named.fault(0)
    assert fault is not None
    assert "other.yaml: No such file" in str(fault)
    assert "take TICKWORK_PRICES out of the environment" in str(fault)


def test_a_list_that_was_changed_holds_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: {m: {input: 1, output: 1}}")
    prices = Prices(path)
    assert prices.fault(0) is None
    first = prices.cost("m", THOUSANDS)
    path.write_text("models: {m: {input: 2, output: 1, x: 1}}")
    assert isinstance(prices.fault(2), PricesInvalid)
    assert prices.own is None
    path.write_text("models: {m: {input: 22, output: 1}}")
    assert prices.fault(4) is None
    assert first is not None
    assert prices.cost("m", THOUSANDS) != first
    path.unlink()
    assert prices.fault(6) is None
    assert prices.own is None


# ---------------------------------------------------------------------------------------------------------------------
# In the executor

calls: list[str] = []


@task
def asks(which: str, ctx: Context) -> Any:
    calls.append(which)
    ctx.telemetry.record(tokens_in=1_000_000, model="mine")
    return which


@task(isolation="subprocess")
def asks_far_away(which: str, ctx: Context) -> Any:
    ctx.telemetry.record(tokens_in=1_000_000, model="mine")
    return which


@task
async def asks_async(which: str, ctx: Context) -> Any:
    calls.append(which)


async def test_a_broken_list_fails_the_attempt_before_anything_is_spent(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: {mine: {input: 1}}")
    calls.clear()
    async with rig(asks, asks_async, asks_far_away, prices=Prices(path)) as r:
        for node in ("asks", "asks_async", "asks_far_away"):
            record = await r.call(node, "a")
            assert record.status == "FAILED"
            assert record.error is not None
            assert (record.error.type, record.error.retryable) == ("PricesInvalid", False)
            assert "prices.yaml:1:10: the price of `mine` lacks `output`" in record.error.message
            assert record.telemetry is None
        assert calls == []


async def test_many_attempts_fail_side_by_side(tmp_path: Path) -> None:
    async with rig(asks_async, prices=Prices(tmp_path / "absent.yaml", required=True), concurrency=2) as r:
        await r.send(*(r.message("asks_async", "a", iteration=n) for n in range(900)))
        records = await r.receive(900)
        assert {record.error and record.error.type for record in records} == {"PricesInvalid"}


async def test_the_own_list_holds_wherever_code_runs(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text('models: {mine: {input: "0.25", output: 1}}')
    async with rig(asks, asks_far_away, prices=Prices(path)) as r:
        for node in ("asks", "asks_far_away"):
            record = await r.call(node, "a")
            assert record.telemetry is not None
            assert record.telemetry.cost_nano_usd == 250_000_000
            assert (record.telemetry.prices or "").startswith("prices.yaml ")


def test_the_table_is_only_loaded_when_a_price_is_asked_for() -> None:
    code = (
        "import sys, tickwork\n"
        "loaded = lambda: 'genai_prices' in sys.modules\n"
        "assert not loaded()\n"
        "from tickwork.sdk.values import TaskInput\n"
        "import tickwork.executor.worker\n"
        "c = TaskInput({}, node='n').context\n"
        "c.telemetry.record(tokens_in=5, cost_usd='0.1', model='m')\n"
        "assert not loaded()\n"
        "c.telemetry.record(tokens_in=5, model='gpt-4o')\n"
        "assert loaded()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TICKWORK_PRICES": ""})
