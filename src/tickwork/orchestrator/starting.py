"""How a lifetime begins: its row and its `started` entry, in one transaction. Used for people's starts and children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Append, Committed
from tickwork.model.records import Event

if TYPE_CHECKING:
    from tickwork.model.records import Payload
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.state import Visit
    from tickwork.ports import StateStore, StoredGraph


PARENT_LABEL = "tickwork.parent"
"""The label of a child lifetime that names its parent, so that a family can be listed."""


def first_entries(
    lifetime: Lifetime, payload: Payload | None, parent: tuple[str, Visit] | None = None, policies: str = ""
) -> Append:
    """The Append that begins this lifetime's log."""
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
    if policies:
        data["policies"] = policies
    # The log and the first reference have to name one time: the first visits are dated with it.
    entries = (Event("started", "started", data),)
    return Append(lifetime.tenant_id, lifetime.lifetime_id, entries, ats=(lifetime.created_at,))


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
    policies: str = "",
) -> tuple[Lifetime, bool]:
    """Creates the lifetime durably and hands its first reference on; (the first one, False) when it exists already.

    `policies`: the digest of the set in force, which the store has.
    """
    started = first_entries(lifetime, payload, parent, policies)
    made, created = await store.create_lifetime(lifetime, started)
    if created:
        reference = Committed(made.tenant_id, made.lifetime_id, 1, made.created_at, started.entries)
        await data_plane.publish([reference])
    return made, created
