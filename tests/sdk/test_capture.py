"""What the clients of OpenAI and Anthropic return is recorded: the real clients, a real endpoint on loopback."""

from __future__ import annotations

import json
import logging
import re
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.executor.rig import rig
from tests.sdk.model_endpoint import CHAT_USAGE, MESSAGE_USAGE, RESPONSE_USAGE, ModelEndpoint
from tickwork.model.records import Execution, Telemetry
from tickwork.sdk.context import Context
from tickwork.sdk.nodes import task
from tickwork.sdk.prices import Price, PriceList, Prices
from tickwork.sdk.values import TaskInput

# Prices of models that are known by heart are those of old models, and the client says so.
pytestmark = pytest.mark.filterwarnings("ignore:The model '.*' is deprecated:DeprecationWarning")

GPT = "gpt-4o"
CLAUDE = "claude-sonnet-4-5-20250929"
ASK = [{"role": "user", "content": "count"}]
USAGE = {"include_usage": True}

# By hand: 800 of 1000 tokens in at 2.50 dollars a million, 200 from the cache at 1.25, 100 out at 10.
GPT_USED = Telemetry(1000, 100, 1100, 3_250_000, GPT, None, "genai-prices", False)
# 500 at 3, 300 into the cache at 3.75, 200 from it at 0.30, 100 out at 15.
CLAUDE_USED = Telemetry(1000, 100, 1100, 4_185_000, CLAUDE, None, "genai-prices", False)


def ctx() -> Context:
    return TaskInput({}, node="n").context


def used(context: Context) -> Telemetry:
    """The totals, with the version of the table taken off."""
    assert context.used is not None
    if context.used.prices:
        context.used.prices = context.used.prices.partition(" ")[0]
    return context.used


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ModelEndpoint]:
    with ModelEndpoint() as served:
        yield served


@pytest.fixture(scope="module")
def gpt(endpoint: ModelEndpoint) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{endpoint.url}/v1", api_key="k") as client:
        yield client


@pytest.fixture(scope="module")
def claude(endpoint: ModelEndpoint) -> Iterator[Anthropic]:
    with Anthropic(base_url=endpoint.url, api_key="k") as client:
        yield client


# ---------------------------------------------------------------------------------------------------------------------
# The clients, watched


def test_a_watched_client_is_used_as_before_and_its_responses_are_recorded(gpt: OpenAI) -> None:
    c = ctx()
    client = c.telemetry.watch(gpt)
    reply = client.chat.completions.create(model=GPT, messages=ASK)
    assert reply.choices[0].message.content == "one two"
    assert used(c) == GPT_USED
    assert isinstance(client, OpenAI)
    assert client.base_url == gpt.base_url
    client.with_options(max_retries=0).responses.create(model=GPT, input="count")
    assert (used(c).tokens_used, used(c).cost_nano_usd) == (2200, 6_500_000)


def test_the_same_response_counts_once(gpt: OpenAI) -> None:
    c = ctx()
    client = c.telemetry.watch(gpt)
    c.telemetry.capture(client.chat.completions.create(model=GPT, messages=ASK))
    assert used(c) == GPT_USED
    stream = client.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options=USAGE)
    assert len(list(c.telemetry.capture(stream))) == 4
    assert used(c).tokens_used == 2200


def test_parsed_responses_are_recorded(gpt: OpenAI) -> None:
    c = ctx()
    c.telemetry.watch(gpt).chat.completions.parse(model=GPT, messages=ASK)
    assert used(c) == GPT_USED
    c.telemetry.watch(gpt).responses.parse(model=GPT, input="count")
    assert used(c).tokens_used == 2200


@pytest.mark.parametrize(
    "call",
    [
        lambda c: list(c.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options=USAGE)),
        lambda c: list(c.responses.create(model=GPT, input="count", stream=True)),
        lambda c: entered(c.chat.completions.stream(model=GPT, messages=ASK, stream_options=USAGE), list),
        lambda c: entered(c.responses.stream(model=GPT, input="count"), list),
        lambda c: entered(c.responses.stream(model=GPT, input="count"), lambda s: s.get_final_response()),
    ],
    ids=["chat", "responses", "chat helper", "responses helper", "final response"],
)
def test_openai_streams_are_recorded_once(gpt: OpenAI, call: Any) -> None:
    c = ctx()
    call(c.telemetry.watch(gpt))
    assert used(c) == GPT_USED


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.create(model=CLAUDE, messages=ASK, max_tokens=9),
        lambda m: list(m.create(model=CLAUDE, messages=ASK, max_tokens=9, stream=True)),
        lambda m: entered(m.stream(model=CLAUDE, messages=ASK, max_tokens=9), list),
        lambda m: entered(m.stream(model=CLAUDE, messages=ASK, max_tokens=9), lambda s: list(s.text_stream)),
        lambda m: entered(m.stream(model=CLAUDE, messages=ASK, max_tokens=9), lambda s: s.get_final_message()),
    ],
    ids=["whole", "stream", "helper", "texts", "final message"],
)
def test_anthropic_messages_are_recorded_once(claude: Anthropic, call: Any) -> None:
    c = ctx()
    call(c.telemetry.watch(claude).messages)
    assert used(c) == CLAUDE_USED


def entered(manager: Any, then: Any) -> Any:
    with manager as stream:
        return then(stream)


async def test_async_clients_are_watched(endpoint: ModelEndpoint) -> None:
    c = ctx()
    async with c.telemetry.watch(AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key="k")) as client:
        await client.chat.completions.create(model=GPT, messages=ASK)
        stream = await client.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options=USAGE)
        assert len([chunk async for chunk in stream]) == 4
        async with client.responses.stream(model=GPT, input="count") as events:
            await events.get_final_response()
    assert used(c) == Telemetry(3000, 300, 3300, 9_750_000, GPT, None, "genai-prices", False)
    c = ctx()
    async with c.telemetry.watch(AsyncAnthropic(base_url=endpoint.url, api_key="k")) as other:
        await other.messages.create(model=CLAUDE, messages=ASK, max_tokens=9)
        async with other.messages.stream(model=CLAUDE, messages=ASK, max_tokens=9) as texts:
            assert [text async for text in texts.text_stream] == ["one ", "two"]
        raw = await other.messages.create(model=CLAUDE, messages=ASK, max_tokens=9, stream=True)
        async for _ in raw:
            pass
    assert (used(c).tokens_used, used(c).cost_nano_usd, used(c).unpriced) == (3300, 12_555_000, False)


def test_threads_share_a_watched_client(gpt: OpenAI) -> None:
    c = ctx()
    client = c.telemetry.watch(gpt)

    def work() -> None:
        for _ in range(5):
            list(client.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options=USAGE))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used(c) == Telemetry(30_000, 3_000, 33_000, 30 * 3_250_000, GPT, None, "genai-prices", False)


# ---------------------------------------------------------------------------------------------------------------------
# Streams that end early or say nothing


def test_a_stream_without_usage_is_unpriced_and_says_how_to_get_it(
    gpt: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    c = ctx()
    list(c.telemetry.watch(gpt).chat.completions.create(model=GPT, messages=ASK, stream=True))
    assert used(c) == Telemetry(model=GPT, unpriced=True)
    (record,) = caplog.records
    assert 'stream_options={"include_usage": True}' in record.getMessage()
    c.telemetry.settle()
    assert len(caplog.records) == 1, "it is said once"


def test_what_an_abandoned_stream_has_said_is_kept(claude: Anthropic, caplog: pytest.LogCaptureFixture) -> None:
    c = ctx()
    for _ in c.telemetry.watch(claude).messages.create(model=CLAUDE, messages=ASK, max_tokens=9, stream=True):
        break
    assert used(c) == Telemetry(1000, 1, 1001, 2_700_000, CLAUDE, None, "genai-prices", True)
    assert not caplog.records
    c.returned(None)
    assert "was left before its end" in caplog.text
    c = ctx()
    with c.telemetry.watch(claude).messages.stream(model=CLAUDE, messages=ASK, max_tokens=9) as stream:
        next(iter(stream.text_stream))
    assert used(c) == Telemetry(1000, 1, 1001, 2_700_000, CLAUDE, None, "genai-prices", True)


def test_a_closed_stream_closes_what_it_stands_for(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    def chunks() -> Iterator[dict[str, Any]]:
        try:
            yield {"model": "m", "choices": [1]}
            yield {"model": "m", "choices": [], "usage": CHAT_USAGE}
        finally:
            closed.append("yes")

    c = ctx()
    stream = c.telemetry.capture(chunks())
    next(stream)
    stream.close()
    assert closed == ["yes"]
    assert "said nothing of its use" in caplog.text


async def test_async_generators_are_followed_and_closed() -> None:
    closed: list[str] = []

    async def chunks() -> AsyncIterator[dict[str, Any]]:
        try:
            for n in (10, 20, 30):  # an endpoint that says its usage so far in each chunk
                usage = {"prompt_tokens": 100, "completion_tokens": n}
                yield {"model": GPT, "choices": [1], "usage": usage}
        finally:
            closed.append("yes")

    c = ctx()
    async for _ in c.telemetry.capture(chunks()):
        pass
    assert (used(c).tokens_used, used(c).unpriced, closed) == (130, False, ["yes"])
    c = ctx()
    stream: Any = c.telemetry.capture(chunks())
    async with stream:
        await anext(stream)
        await stream.aclose()
    assert (used(c).tokens_used, used(c).unpriced, closed) == (110, True, ["yes", "yes"])


def test_a_stream_is_never_broken_by_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    c = ctx()
    odd: list[Any] = [7, None, {"usage": {"prompt_tokens": -5}, "model": "m"}, {"usage": CHAT_USAGE, "model": "m"}]
    assert list(c.telemetry.capture(iter(odd))) == odd
    assert used(c) == Telemetry(model="m", unpriced=True)
    assert "prompt_tokens=-5" in caplog.text


def test_a_stream_of_a_free_model_has_a_known_cost(gpt: OpenAI) -> None:
    c = ctx()
    c.telemetry._prices = Prices(own=PriceList("prices.yaml 1", {"gpt-*": Price(0, 0)}))
    list(c.telemetry.watch(gpt).chat.completions.create(model=GPT, messages=ASK, stream=True))
    assert used(c) == Telemetry(model=GPT)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_plain_json_is_captured_and_returned(endpoint: ModelEndpoint) -> None:
    c = ctx()
    reply = post(f"{endpoint.url}/v1/chat/completions", {"model": GPT, "messages": ASK})
    assert c.telemetry.capture(reply) is reply
    assert used(c) == GPT_USED
    c = ctx()
    c.telemetry.capture(post(f"{endpoint.url}/v1/messages", {"model": CLAUDE, "messages": ASK}))
    assert used(c) == CLAUDE_USED


class Usage(BaseModel):
    input_tokens: int
    output_tokens: int


class Reply(BaseModel):
    model: str
    usage: Usage | None


@pytest.mark.parametrize(
    "response",
    [
        Reply(model="m", usage=Usage(input_tokens=3, output_tokens=4)),
        SimpleNamespace(model="m", usage=SimpleNamespace(prompt_tokens=3, completion_tokens=4, total_tokens=7)),
        {"model": "m", "usage": {"prompt_tokens": 3.0, "completion_tokens": 4, "total_tokens": None}},
        {"model": "m", "usage": SimpleNamespace(input_tokens=1, cache_read_input_tokens=2, output_tokens=4)},
    ],
    ids=["pydantic", "attributes", "dict", "mixed"],
)
def test_any_object_of_that_shape_is_captured(response: Any) -> None:
    c = ctx()
    assert c.telemetry.capture(response) is response
    assert used(c) == Telemetry(3, 4, 7, 0, "m", None, None, True)


def test_the_total_of_an_endpoint_counts_when_it_is_more() -> None:
    c = ctx()
    c.telemetry.capture({"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 50}})
    c.telemetry.capture({"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 0}})
    assert used(c).tokens_used == 57


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (7, "an object of type int says nothing of its use; it looks for a `usage` with prompt_tokens"),
        ({"model": "m"}, "a response of `m` says nothing of its use"),
        (Reply(model="m", usage=None), "ctx.telemetry.record"),
        ({"usage": {"tokens": 5}}, "object of type dict"),
        ("text", "object of type str"),
        ([{"usage": CHAT_USAGE}], "object of type list"),
        ({"usage": {"prompt_tokens": -1}}, "prompt_tokens=-1, which is not a number of tokens"),
        ({"usage": {"prompt_tokens": True}}, "prompt_tokens=True"),
        ({"usage": {"input_tokens": 2**60}}, "has to be between 0"),
    ],
)
def test_what_says_nothing_of_its_use_is_refused_with_what_to_do(response: Any, message: str) -> None:
    c = ctx()
    with pytest.raises(ValueError, match=re.escape(message)):
        c.telemetry.capture(response)
    assert used(c) == Telemetry()


def test_a_watched_call_that_says_nothing_still_returns(caplog: pytest.LogCaptureFixture) -> None:
    client = SimpleNamespace(messages=SimpleNamespace(create=lambda: SimpleNamespace(model="m")))
    c = ctx()
    assert c.telemetry.watch(client).messages.create().model == "m"
    assert used(c) == Telemetry(model="m", unpriced=True)
    assert "a call of a model was not captured" in caplog.text


def test_errors_of_a_watched_call_are_its_own() -> None:
    def refuse() -> None:
        raise ConnectionError("no")

    c = ctx()
    client = c.telemetry.watch(SimpleNamespace(responses=SimpleNamespace(create=refuse)))
    with pytest.raises(ConnectionError):
        client.responses.create()
    assert used(c) == Telemetry()


# ---------------------------------------------------------------------------------------------------------------------
# In the executor

WHOLE = {"object": "chat.completion", "model": GPT, "choices": [], "usage": CHAT_USAGE}


@task
def hands_on(which: str) -> Any:
    return {
        "chat": WHOLE,
        "responses": {"object": "response", "model": GPT, "usage": RESPONSE_USAGE},
        "message": {"type": "message", "role": "assistant", "model": CLAUDE, "usage": MESSAGE_USAGE},
        "doubtful": {"model": GPT, "usage": CHAT_USAGE},
        "empty": {**WHOLE, "usage": None},
        "broken": {**WHOLE, "usage": {"prompt_tokens": "many"}},
    }[which]


@task
async def records_itself(ctx: Context) -> Any:
    ctx.telemetry.record(tokens_in=1)
    return WHOLE


@task
async def only_touches(ctx: Context) -> Any:
    assert ctx.telemetry.totals == Telemetry()
    return WHOLE


@task(isolation="subprocess")
def far_away(url: str, ctx: Context) -> Any:
    client = ctx.telemetry.watch(OpenAI(base_url=f"{url}/v1", api_key="k"))
    for _ in client.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options=USAGE):
        pass
    ctx.telemetry.capture({"model": "ours/small", "usage": CHAT_USAGE})
    ctx.telemetry.capture({"model": "nobody-knows", "usage": CHAT_USAGE})
    return "done"


@task(isolation="subprocess")
def hands_on_far_away() -> Any:
    return WHOLE


def told(record: Execution) -> Telemetry:
    assert record.status == "SUCCEEDED", record.error
    found = record.telemetry or Telemetry()
    found.prices = (found.prices or "").partition(" ")[0]
    return found


async def test_a_response_that_a_task_returns_is_captured(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(hands_on, records_itself, only_touches) as r:
        assert told(await r.call("hands_on", "chat")) == GPT_USED
        assert told(await r.call("hands_on", "responses")) == GPT_USED
        assert told(await r.call("hands_on", "message")) == CLAUDE_USED
        for which in ("doubtful", "empty", "broken"):
            assert told(await r.call("hands_on", which)) == Telemetry(prices="")
        assert told(await r.call("records_itself")) == Telemetry(1, 0, 1, prices="", unpriced=True)
        assert told(await r.call("only_touches")) == GPT_USED
    assert "prompt_tokens='many'" in caplog.text


@pytest.mark.slow
async def test_a_subprocess_captures_by_the_prices_of_its_parent(
    endpoint: ModelEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    own = PriceList("prices.yaml 0123", {"ours/*": Price(2_000_000_000, 4_000_000_000)})
    async with rig(far_away, hands_on_far_away, prices=Prices(own=own)) as r:
        record = await r.call("far_away", endpoint.url)
        assert record.telemetry is not None
        assert record.telemetry.prices is not None
        assert record.telemetry.prices.startswith("genai-prices ")
        assert record.telemetry.prices.endswith(", prices.yaml 0123")
        # 1000 tokens in at 2 dollars a million and 100 out at 4, and what gpt-4o cost.
        assert record.telemetry.cost_nano_usd == 2_400_000 + 3_250_000
        assert (record.telemetry.tokens_used, record.telemetry.unpriced) == (3300, True)
        assert caplog.text.count("no price is known for the model `nobody-knows`") == 1
        await r.call("far_away", endpoint.url)
        assert caplog.text.count("no price is known for the model `nobody-knows`") == 1, "of each model once"
        assert told(await r.call("hands_on_far_away")) == GPT_USED
