"""Whether and when a failed attempt is made again. Pure: the jitter is seeded from the exec id."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickwork.model.graph import RetryPolicy
    from tickwork.model.records import Error


LONGEST = 100 * 365 * 86_400.0
"""Seconds: what an error asks for may be anything, and a due time has to fit into 64 bits."""


def next_delay(policy: RetryPolicy, attempt: int, error: Error | None, exec_id: str) -> float | None:
    """Seconds until the attempt after `attempt` (from 1), or None when there is to be no other."""
    if attempt >= policy.max_attempts:
        return None
    if error is not None and (not error.retryable or error.type in policy.non_retryable):
        return None
    delay = min(policy.initial_interval * _power(policy.backoff, attempt - 1), policy.max_interval)
    delay *= 1 + policy.jitter * (2 * _unit(exec_id) - 1)
    return max(delay, _asked_for(error))


def _power(base: float, exponent: int) -> float:
    """`base ** exponent`; what overflows is far beyond any `max_interval`."""
    try:
        return float(base) ** exponent
    except OverflowError:
        return float("inf")


def _unit(exec_id: str) -> float:
    """A number in [0, 1) that belongs to this execution."""
    return int.from_bytes(hashlib.blake2b(exec_id.encode(), digest_size=6).digest(), "big") / (1 << 48)


def _asked_for(error: Error | None) -> float:
    """The `retry_after` of a RetryableError, in seconds; 0 when it has none."""
    details: Any = error.details if error is not None else None
    asked = details.get("retry_after") if isinstance(details, dict) else None
    return min(float(asked), LONGEST) if isinstance(asked, (int, float)) and asked > 0 else 0.0
