"""What executions use, added up: exact integers, each once.

A measure is kept in its smallest unit: tokens in one, money in billionths of a US dollar, times in microseconds, custom
counters in millionths. Policies, usage reports and Prometheus all read these sums.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tickwork.model.policy import Match, Window

if TYPE_CHECKING:
    from tickwork.model.records import Execution, Telemetry

OURS = "tickwork"
"""The `executor` of executions that no executor made: answers by default, timers, cancellations, refusals."""

CHILD = "child:"
"""How the `executor` of the execution begins that is a child lifetime; the child's own records count its work."""

LEASE_EXPIRED = "LeaseExpired"
"""The error type of an attempt whose worker is gone."""

SCALES: dict[str, int] = {
    "tokens_in": 1,
    "tokens_out": 1,
    "tokens_used": 1,
    "cost_usd": 1_000_000_000,
    "latency_ms": 1_000,
    "queue_ms": 1_000,
}
"""How many of the kept unit one unit of each measure has, as people write it."""

CUSTOM = "custom."
CUSTOM_SCALE = 1_000_000

LARGEST = 2**63 - 1
"""The largest number that every record, message and row takes. What adds up to more stays there: over every limit."""

MAX_CUSTOM = 10**12
"""Greatest size of a custom counter."""

MAX_COUNTERS = 100
"""Custom counters of one record that are counted; further ones are recorded, and no more."""

EXECUTIONS = "executions"


def scale(measure: str) -> int:
    """How many kept units one unit of the measure has, as people write it."""
    return CUSTOM_SCALE if measure.startswith(CUSTOM) else SCALES[measure]


def ran(done: Execution) -> bool:
    """Whether an attempt was really made, so that it counts: not one that was cancelled or never sent."""
    if done.status == "CANCELLED":
        return False
    return done.executor != OURS or lost(done)


def lost(done: Execution) -> bool:
    """Whether the attempt was lost with its worker. What user code raises fails, whatever its class is called."""
    return done.status == "TIMED_OUT" and done.error is not None and done.error.type == LEASE_EXPIRED


class Unmeasurable(ValueError):
    """A record says something of a measure that is no amount: a negative one, NaN, a text. Names it."""


def measured(done: Execution, measure: str) -> int:
    """What this execution adds to a measure, in its kept unit; 0 when it says nothing. Raises Unmeasurable."""
    if measure == "latency_ms":
        return max(0, done.finished_at - done.started_at) if done.started_at else 0
    if measure == "queue_ms":
        return max(0, done.started_at - done.created_at) if done.started_at else 0
    used = done.telemetry
    if used is None:
        return 0
    if measure.startswith(CUSTOM):
        return _custom(used, measure)
    if measure == "cost_usd":
        if used.unpriced:
            raise Unmeasurable(f"the cost of model `{used.model or 'unknown'}` is not known: it has no price")
        found = used.cost_nano_usd
    else:
        found = getattr(used, measure)
    if found < 0:
        raise Unmeasurable(f"{measure} is negative")
    return found


def _custom(used: Telemetry, measure: str) -> int:
    value: Any = (used.custom or {}).get(measure.removeprefix(CUSTOM), 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unmeasurable(f"{measure} is not a number")
    if not math.isfinite(value) or not 0 <= value <= MAX_CUSTOM:
        raise Unmeasurable(f"{measure} is not between 0 and {MAX_CUSTOM:,}")
    return round(value * CUSTOM_SCALE)


class Quantity(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """What a tenant's policy adds up: a measure (or `executions`) of all that `match` takes, in a window."""

    measure: str
    match: Match = Match()
    window: Window | None = None

    @cached_property
    def key(self) -> bytes:
        """What tells it from others, short."""
        return _key(self)


_key = msgspec.msgpack.Encoder(order="deterministic").encode


class Total(msgspec.Struct, array_like=True):
    """How a Quantity stands: executions and the measure's sum that are recorded, and what is reserved beside them."""

    executions: int = 0
    amount: int = 0
    reserved_executions: int = 0
    reserved: int = 0


UsageKey = Literal["tenant", "graph", "kind", "node", "model", "hour", "day"]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What of the usage is asked for. Times in microseconds; minutes are the finest grain that is kept."""

    tenant_id: str | None
    """None: all tenants, for whoever runs the installation."""
    since: int = 0
    until: int | None = None
    by: tuple[UsageKey, ...] = ()
    """Keys that rows are kept apart by; none: one row for all."""
    graph: str | None = None
    labels: dict[str, str] = {}
    """Only lifetimes with these labels, as far as they are tracked."""


class UsageRow(msgspec.Struct, kw_only=True):
    """What was used under one combination of keys. `key` has a text for each key that was asked for, in that order:
    days as `2026-11-22` and hours as `2026-11-22T14` in UTC."""

    key: tuple[str, ...]
    executions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_used: int = 0
    cost_nano_usd: int = 0
    unpriced: int = 0
    """Executions whose cost is not wholly known."""
    latency_us: int = 0
    queue_us: int = 0
    custom: dict[str, int] = {}
    """Sums of custom counters, in millionths."""
