"""Registered graphs, indexed for routing, kept by digest: a lifetime is pinned to the digest it started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import NotFound
from tickwork.model.graph import graph_from_json
from tickwork.orchestrator.topology import Topology

if TYPE_CHECKING:
    from tickwork.ports import StateStore


class GraphIndex:
    """Topologies by (tenant, digest), read from the store once. A digest never changes its content."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._known: dict[tuple[str, str], Topology] = {}

    def cached(self, tenant_id: str, digest: str) -> Topology | None:
        """The topology if it was read before: the hot path does not wait."""
        return self._known.get((tenant_id, digest))

    async def topology(self, tenant_id: str, digest: str) -> Topology:
        """The topology of a registered graph; NotFound when the tenant has none with this digest."""
        found = self._known.get((tenant_id, digest))
        if found is None:
            stored = await self._store.graphs(tenant_id, digest=digest)
            if not stored:
                raise NotFound(f"no graph with digest {digest} is registered for tenant `{tenant_id}`")
            found = self._known[tenant_id, digest] = Topology(graph_from_json(stored[0].body))
        return found
