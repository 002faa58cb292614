"""How a lifetime stands, and what came of it: read from its row and its log."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.breach import Breach, breach_of
from tickwork.model.lifetime import LifetimeStatus
from tickwork.model.records import Event, Execution, Payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import LogEntry
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.ports import StateStore


class Outcome(msgspec.Struct, kw_only=True):
    """How a lifetime stands: the document that `tickwork run --json` prints."""

    lifetime_id: str
    status: LifetimeStatus
    reason: str | None
    result: Any
    executions: int
    tokens_used: int
    cost_usd: Decimal
    duration_ms: float
    breach: Breach | None = None
    """What a policy stopped it over, when one did."""


async def outcome_of(
    lifetime: Lifetime,
    store: StateStore,
    policies: PolicyIndex,
    now: int,
    value: Callable[[Payload | None], Awaitable[Any]],
) -> Outcome:
    """How the lifetime stands `now` (us); `value` gives what a payload holds. NotFound for a payload that is gone."""
    until = lifetime.finished_at if lifetime.finished_at is not None else now
    outcome = Outcome(
        lifetime_id=lifetime.lifetime_id,
        status=lifetime.status,
        reason=lifetime.reason,
        result=None,
        executions=0,
        tokens_used=0,
        cost_usd=Decimal(0),
        duration_ms=max(0, until - lifetime.created_at) / 1000,
    )
    end = await _end(lifetime, store)
    if end is not None:
        outcome.executions = end.data["executions"]
        outcome.tokens_used = end.data["tokens_used"]
        outcome.cost_usd = Decimal(end.data["cost_nano_usd"]).scaleb(-9).normalize()
        if end.type == "completed":
            outcome.result = await _result(lifetime, end, store, value)
    else:
        await _count(lifetime, outcome, store)
    outcome.breach = await breach_of(store, policies, lifetime)
    return outcome


async def _end(lifetime: Lifetime, store: StateStore) -> Event | None:
    """The entry that ended the lifetime: near the end of its log."""
    if not lifetime.ended:
        return None
    page = await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, max(0, lifetime.last_seq - 50), 1000)
    for logged in page:
        if isinstance(logged.entry, Event) and ends(logged):
            return logged.entry
    return None


async def _result(
    lifetime: Lifetime, end: Event, store: StateStore, value: Callable[[Payload | None], Awaitable[Any]]
) -> Any:
    seqs, pick, joined = end.data["source"]
    values = []
    for logged in await store.read_entries(lifetime.tenant_id, lifetime.lifetime_id, seqs):
        entry = logged.entry
        if isinstance(entry, Event):
            payload = msgspec.convert(entry.data["input"], Payload | None)
        elif pick >= 0 and entry.next is not None:
            payload = entry.next[pick].input
        else:
            payload = entry.result
        values.append(await value(payload))
    return values if joined else values[0]


async def _count(lifetime: Lifetime, outcome: Outcome, store: StateStore) -> None:
    """Counts what a lifetime that has not ended has used so far."""
    after, nano = 0, 0
    while page := await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
        for logged in page:
            if isinstance(logged.entry, Execution):
                outcome.executions += 1
                if logged.entry.telemetry is not None:
                    outcome.tokens_used += logged.entry.telemetry.tokens_used
                    nano += logged.entry.telemetry.cost_nano_usd
        after = page[-1].seq
    outcome.cost_usd = Decimal(nano).scaleb(-9).normalize()


def ends(logged: LogEntry) -> bool:
    """Whether this entry ends its lifetime."""
    return isinstance(logged.entry, Event) and logged.entry.type in ("completed", "failed", "aborted")
