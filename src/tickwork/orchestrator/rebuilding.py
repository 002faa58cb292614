"""Rebuilds the folded state of a lifetime from its log, with the payloads that conditions read.

The log has everything; a state can be dropped at any time and made again here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.errors import StoreCorrupt
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.inputs import blobs_of_one
from tickwork.orchestrator.state import LifetimeState, TellParent

if TYPE_CHECKING:
    from tickwork.model.records import Entry
    from tickwork.orchestrator.graphs import GraphIndex
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.ports import BlobStore, StateStore

PAGE = 5_000
"""Log entries read at once."""


class Rebuilder:
    """Makes states: new ones, and old ones from the log."""

    def __init__(self, store: StateStore, blobs: BlobStore, graphs: GraphIndex, policies: PolicyIndex) -> None:
        self._store, self._blobs, self._graphs, self._policies = store, blobs, graphs, policies

    async def new_state(
        self, tenant_id: str, lifetime_id: str, started: Entry, *, counting: bool = False
    ) -> LifetimeState:
        """The state before the first entry, `started`. `counting`: policies may come into force later in its log."""
        digest = started.data["graph"]["digest"] if isinstance(started, Event) else ""
        topology = self._graphs.cached(tenant_id, digest) or await self._graphs.topology(tenant_id, digest)
        return LifetimeState(tenant_id, lifetime_id, topology, self._policies.rules, counting=counting)

    async def folded(self, tenant_id: str, lifetime_id: str) -> tuple[LifetimeState | None, list[TellParent]]:
        """The state after the whole log, and what the parent was to be told; (None, []) for an unknown lifetime."""
        state: LifetimeState | None = None
        told: list[TellParent] = []
        while page := await self._store.read_log(tenant_id, lifetime_id, state.seq if state is not None else 0, PAGE):
            for logged in page:
                if state is None:
                    state = await self.new_state(tenant_id, lifetime_id, logged.entry, counting=True)
                commands = fold(state, await self.complete(state, logged))
                told += [command for command in commands if isinstance(command, TellParent)]
        return state, told

    async def recounted(self, state: LifetimeState) -> LifetimeState:
        """The same state, with all counted that was spent: other policies are about to come into force.

        What its commands asked for was done, or is on its way.
        """
        again: LifetimeState | None = None
        while again is None or again.seq < state.seq:
            after = again.seq if again is not None else 0
            page = await self._store.read_log(state.tenant_id, state.lifetime_id, after, min(PAGE, state.seq - after))
            if not page:
                raise StoreCorrupt(f"the log of lifetime {state.lifetime_id} ends before entry {state.seq}")
            for logged in page:
                if again is None:
                    again = await self.new_state(state.tenant_id, state.lifetime_id, logged.entry, counting=True)
                fold(again, await self.complete(again, logged))
        return again

    async def complete(self, state: LifetimeState, logged: LogEntry) -> LogEntry:
        """The entry with its blob's content in line, where a condition reads it; policies that it names are known."""
        entry = logged.entry
        if type(entry) is Event:
            await self.known(entry)
            return logged
        if not isinstance(entry, Execution) or not state.reads_result(entry.name):
            return logged
        return LogEntry(logged.seq, logged.at, await self.fetched(state.tenant_id, entry))

    async def known(self, event: Event) -> None:
        """Makes sure that the policies which an event puts in force are loaded."""
        if event.type == "policies":
            await self._policies.ensure(event.data["digest"])
        elif event.type == "started" and event.data.get("policies"):
            await self._policies.ensure(event.data["policies"])

    async def fetched(self, tenant_id: str, entry: Execution) -> Execution:
        """The execution with its blob's content in line. Raises BlobsAway."""
        result = entry.result
        if result is None or result.uri is None:
            return entry
        with blobs_of_one():
            data = await self._blobs.get(tenant_id, result.uri, result.sha256)
        return msgspec.structs.replace(entry, result=msgspec.structs.replace(result, inline=data))
