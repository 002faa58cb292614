"""How a lifetime begins: its row and its `started` entry, in one transaction. Used for people's starts and children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Append, Committed
from tickwork.model.records import Event
from tickwork.orchestrator.enforcing import deadlines
from tickwork.orchestrator.projection import project

if TYPE_CHECKING:
    from tickwork.model.records import Payload
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.state import Visit
    from tickwork.ports import StateStore, StoredGraph


PARENT_LABEL = "tickwork.parent"
"""The label of a child lifetime that names its parent, so that a family can be listed."""


def first_entries(
    lifetime: Lifetime, payload: Payload | None, parent: tuple[str, Visit] | None = None, rules: Rules | None = None
) -> Append:
    """The Append that begins this lifetime's log, with the timers that the fold would ask for."""
    data: dict[str, Any] = {
        "lifetime_id": lifetime.lifetime_id,
        "graph": {
            "name": lifetime.graph_name,
            "version": lifetime.graph_version,
            "digest": lifetime.graph_digest,
        },
        "input": msgspec.to_builtins(payload, builtin_types=(bytes,)),
    }
    if lifetime.labels:
        data["labels"] = lifetime.labels
    if parent is not None:
        data["parent"] = [parent[0], msgspec.to_builtins(parent[1], builtin_types=(bytes,))]
    timers: tuple[Event, ...] = ()
    at = lifetime.created_at
    if rules is not None and rules.digest:
        data["policies"] = rules.digest
        mine = [rule for rule in rules.timed if rule.concerns(lifetime.graph_name, lifetime.labels)]
        timers = deadlines([(rule.label, due) for rule in mine if (due := rule.due(at)) is not None], at)
    # The log and the first reference have to name one time: the first visits are dated with it.
    entries = (Event("started", "started", data), *timers)
    projection = project(lifetime.tenant_id, lifetime.lifetime_id, timers) if timers else None
    return Append(lifetime.tenant_id, lifetime.lifetime_id, entries, projection, ats=(at,) * len(entries))


def new_lifetime(
    lifetime_id: str, graph: StoredGraph, now: int, labels: dict[str, str], idempotency_key: str | None
) -> Lifetime:
    """The row of a lifetime that starts now (us)."""
    return Lifetime(
        lifetime_id=lifetime_id,
        tenant_id=graph.tenant_id,
        graph_name=graph.name,
        graph_version=graph.version,
        graph_digest=graph.digest,
        status="RUNNING",
        created_at=now,
        updated_at=now,
        labels=labels,
        idempotency_key=idempotency_key,
    )


async def begin(
    store: StateStore,
    data_plane: DataPlane,
    lifetime: Lifetime,
    payload: Payload | None,
    parent: tuple[str, Visit] | None = None,
    rules: Rules | None = None,
) -> tuple[Lifetime, bool]:
    """Creates the lifetime durably and hands its first reference on; (the first one, False) when it exists already.

    `rules`: the set in force, which the store has.
    """
    started = first_entries(lifetime, payload, parent, rules)
    made, created = await store.create_lifetime(lifetime, started)
    if created:
        reference = Committed(made.tenant_id, made.lifetime_id, 1, made.created_at, started.entries)
        await data_plane.announce([started], [reference])
    return made, created
