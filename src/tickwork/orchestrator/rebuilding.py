"""Rebuilds the folded state of a lifetime from its log, with the payloads that conditions read.

The log has everything; a state can be dropped at any time and made again here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.state import LifetimeState, TellParent

if TYPE_CHECKING:
    from tickwork.model.records import Entry
    from tickwork.orchestrator.graphs import GraphIndex
    from tickwork.ports import BlobStore, StateStore

PAGE = 5_000
"""Log entries read at once."""


class Rebuilder:
    """Makes states: new ones, and old ones from the log."""

    def __init__(self, store: StateStore, blobs: BlobStore, graphs: GraphIndex) -> None:
        self._store, self._blobs, self._graphs = store, blobs, graphs

    async def new_state(self, tenant_id: str, lifetime_id: str, started: Entry) -> LifetimeState:
        """The state before the first entry, `started`."""
        digest = started.data["graph"]["digest"] if isinstance(started, Event) else ""
        topology = self._graphs.cached(tenant_id, digest) or await self._graphs.topology(tenant_id, digest)
        return LifetimeState(tenant_id, lifetime_id, topology)

    async def folded(self, tenant_id: str, lifetime_id: str) -> tuple[LifetimeState | None, list[TellParent]]:
        """The state after the whole log, and what the parent was to be told; (None, []) for an unknown lifetime."""
        state: LifetimeState | None = None
        told: list[TellParent] = []
        while page := await self._store.read_log(tenant_id, lifetime_id, state.seq if state is not None else 0, PAGE):
            for logged in page:
                if state is None:
                    state = await self.new_state(tenant_id, lifetime_id, logged.entry)
                commands = fold(state, await self.complete(state, logged))
                told += [command for command in commands if isinstance(command, TellParent)]
        return state, told

    async def complete(self, state: LifetimeState, logged: LogEntry) -> LogEntry:
        """The entry with its blob's content in line, where a condition reads it."""
        entry = logged.entry
        if type(entry) is not Execution or entry.name not in state.topology.reads_result:
            return logged
        return LogEntry(logged.seq, logged.at, await self.fetched(state.tenant_id, entry))

    async def fetched(self, tenant_id: str, entry: Execution) -> Execution:
        """The execution with its blob's content in line."""
        result = entry.result
        if result is None or result.uri is None:
            return entry
        data = await self._blobs.get(tenant_id, result.uri, result.sha256)
        return msgspec.structs.replace(entry, result=msgspec.structs.replace(result, inline=data))
