"""What a response of a language model says about its use, whichever of the common shapes it has.

OpenAI's chat completions and responses, Anthropic's messages, and whatever speaks like one of them: a dict, a Pydantic
model, any object with these attributes. Nothing of either package is imported; a shape is known by its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "prompt_cache_hit_tokens",
)
"""Fields of a usage that count tokens."""

DETAILS = (
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
    "cache_creation",
    "server_tool_use",
)
"""Fields of a usage that break a count down."""

WORDS = ("cost", "service_tier", "speed")

LOOKED_FOR = (
    "it looks for a `usage` with prompt_tokens and completion_tokens, or with input_tokens and output_tokens, as the "
    "responses of OpenAI and Anthropic have it"
)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of a model used, in tokens. `tokens_in` counts cached tokens too, `tokens_out` those of reasoning.

    `tokens_used` is what the response says in total, and never less than in and out together.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_used: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Of `tokens_in`: written to the provider's cache; `cache_write_5m` and `cache_write_1h` are parts of it."""
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    audio_in: int = 0
    audio_out: int = 0
    reasoning: int = 0
    web_searches: int = 0
    cost: Decimal | None = None
    """US dollars, where the response itself says them."""
    terms: dict[str, str] = {}
    """What the price depends on besides: the service tier, the speed."""


def field(thing: Any, name: str) -> Any:
    """A field of a dict or an attribute of an object; None when it has none of that name."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def model_of(response: Any) -> str | None:
    """The model that the response names."""
    model = field(response, "model")
    return model if isinstance(model, str) and model else None


def usage_fields(usage: Any) -> dict[str, Any]:
    """The fields of a usage that are known here, without those that say nothing."""
    found = {name: field(usage, name) for name in (*COUNTS, *DETAILS, *WORDS)}
    return {name: value for name, value in found.items() if value is not None}


def used_by(response: Any) -> Used | None:
    """What a response used; None when it has no usage. Raises ValueError when its usage is no usage."""
    usage = field(response, "usage")
    fields = usage_fields(usage) if usage is not None else {}
    return used(fields, response) if any(name in fields for name in COUNTS) else None


def used(usage: Mapping[str, Any], response: Any) -> Used:
    """What these fields of a usage say. Raises ValueError for a number of tokens that is none."""
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        into, out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        details_in, details_out = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    else:
        into, out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        details_in, details_out = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    # Anthropic counts cached tokens beside the input, all others within it.
    beside_read, beside_write = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    into += beside_read + beside_write
    within = max(_count(details_in, "cached_tokens"), _count(usage, "prompt_cache_hit_tokens"))
    made = usage.get("cache_creation")
    return Used(
        tokens_in=into,
        tokens_out=out,
        tokens_used=max(_count(usage, "total_tokens"), into + out),
        cache_read=beside_read + within,
        cache_write=beside_write + _count(details_in, "cache_write_tokens"),
        cache_write_5m=_count(made, "ephemeral_5m_input_tokens"),
        cache_write_1h=_count(made, "ephemeral_1h_input_tokens"),
        audio_in=_count(details_in, "audio_tokens"),
        audio_out=_count(details_out, "audio_tokens"),
        reasoning=_count(details_out, "reasoning_tokens") or _count(details_out, "thinking_tokens"),
        web_searches=_count(usage.get("server_tool_use"), "web_search_requests"),
        cost=_cost(usage.get("cost")),
        terms=_terms(usage, response),
    )


def is_response(value: Any) -> bool:
    """Whether a value is beyond doubt the response of a model, with its usage: one that a Task may have returned."""
    kind = field(value, "object")
    shaped = (isinstance(kind, str) and kind in ("chat.completion", "text_completion", "response")) or (
        field(value, "type") == "message" and field(value, "role") == "assistant"
    )
    return shaped and model_of(value) is not None and field(value, "usage") is not None


def _count(usage: Any, name: str) -> int:
    value = field(usage, name) if usage is not None else None
    if value is None:
        return 0
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise ValueError(f"the response's usage says {name}={value!r:.80}, which is not a number of tokens")
    return int(value)


def _cost(value: Any) -> Decimal | None:
    """What the endpoint charged, as some endpoints say; anything that is no amount says nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if cost.is_finite() and cost >= 0 else None


def _terms(usage: Mapping[str, Any], response: Any) -> dict[str, str]:
    terms = {"service_tier": field(response, "service_tier"), "speed": usage.get("speed")}
    if usage.get("service_tier") == "batch":
        terms["processing"] = "batch"
    return {name: value for name, value in terms.items() if isinstance(value, str)}
