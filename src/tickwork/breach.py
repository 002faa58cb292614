"""What a policy stopped a lifetime over: read back from its log, and the limit that would let it go on.

The log's `paused` or `aborted` entry names the policy, the `verdict` before it says what was seen and where.
"""

from __future__ import annotations

import contextlib
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.records import Event

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.ports import StateStore

PAGE = 500
"""Log entries looked at at once, from the end back."""

STOPS = {"PAUSED": "paused", "ABORTED": "aborted"}


class Breach(msgspec.Struct):
    """Why a policy stopped a lifetime."""

    policy: str
    """Its label: `tenant/daily-spend`."""
    verdict: dict[str, Any]
    """As the log has it."""
    higher: tuple[str, ...] = ()
    """What to raise so that it goes on, where limits do: `token-budget=20000`."""


async def breach_of(store: StateStore, policies: PolicyIndex, lifetime: Lifetime) -> Breach | None:
    """The breach over which the lifetime is PAUSED or ABORTED; None when no policy did that."""
    kind = STOPS.get(lifetime.status)
    policy: str | None = None
    last = lifetime.last_seq
    while kind is not None and last > 0:
        first = max(0, last - PAGE)
        page = await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, first, last - first)
        events = [logged.entry for logged in reversed(page) if isinstance(logged.entry, Event)]
        for index, event in enumerate(events):
            if policy is None and event.type in (kind, "resumed"):
                policy = event.data.get("policy") if event.type == kind else None
                if policy is None:
                    return None
            elif policy is not None and _is_verdict(event, policy):
                there = [one.data for one in events[index:] if _same_place(one, event)]
                higher = await _higher(policies, there) if kind == "paused" else ()
                return Breach(policy, event.data, higher)
        last = first
    return None


def _is_verdict(event: Event, policy: str) -> bool:
    return event.type == "verdict" and event.data.get("policy") == policy and not event.data.get("shadow")


def _same_place(other: Event, verdict: Event) -> bool:
    """Whether another verdict stopped the lifetime at the same place: its limit has to be raised, too."""
    data = other.data
    if other.type != "verdict" or data.get("shadow") or data.get("action") == "warn":
        return False
    return bool((data["exec_id"], data["at"]) == (verdict.data["exec_id"], verdict.data["at"]))


async def _higher(policies: PolicyIndex, verdicts: list[dict[str, Any]]) -> tuple[str, ...]:
    """Twice each limit, or twice what was seen where that is more; () when one of them has no such limit."""
    found: dict[str, str] = {}
    for verdict in verdicts:
        await policies.ensure(verdict["digest"])
        rules = policies.rules(verdict["digest"])
        named = rules.named(verdict["policy"])
        limit = named[0].limit if named else None
        if limit is None or "error" in verdict:
            return ()
        numbers = [limit.number]
        with contextlib.suppress(KeyError, InvalidOperation):  # it may say that there is nothing yet
            numbers.append(Decimal(verdict["values"][str(limit.aggregate)]))
        name = named[0].policy.name
        name = name if len(rules.named(name)) == 1 else named[0].label
        found.setdefault(name, f"{name}={(max(numbers) * 2).normalize():f}")
    return tuple(found.values())
