"""What a visit is given: payloads are looked up where the log has them and put into the message for who runs it."""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.errors import StorageError, StorageFull, StoreCorrupt
from tickwork.model.messages import NodeInput, Predecessor
from tickwork.model.records import Event, Execution, Payload, json_payload, payload_value
from tickwork.orchestrator.state import Source
from tickwork.payloads import spilled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.model.graph import Node
    from tickwork.orchestrator.state import LifetimeState, Visit
    from tickwork.ports import BlobStore, StateStore

CACHE_BYTES = 4 * 1024 * 1024
"""Bytes of entries inside fan-out groups that are kept for their JOINs."""

LATEST_BYTES = 4 * 1024 * 1024
"""Bytes of the newest entries outside of them: some thousands of lifetimes take a step meanwhile, and the hot path
reads nothing back."""


class BlobsAway(StorageError):
    """The blob store does not serve a payload. It concerns the lifetime that needs it, and no other."""


@contextmanager
def blobs_of_one() -> Iterator[None]:
    """Calls of the blob store for one lifetime. Raises BlobsAway for what trying again may mend."""
    try:
        yield
    except (StorageFull, StoreCorrupt):
        raise
    except StorageError as error:
        raise BlobsAway(str(error)) from error


class _Recent:
    """Entries by (lifetime, seq) up to so many bytes, the oldest out first."""

    __slots__ = ("_bytes", "_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._kept: OrderedDict[tuple[str, int], Execution | Event] = OrderedDict()
        self._limit, self._bytes = limit, 0

    def put(self, key: tuple[str, int], entry: Execution | Event) -> None:
        before = self._kept.pop(key, None)
        self._kept[key] = entry
        self._bytes += _weight(entry) - (_weight(before) if before is not None else 0)
        while self._bytes > self._limit:
            _, old = self._kept.popitem(last=False)
            self._bytes -= _weight(old)

    def get(self, key: tuple[str, int]) -> Execution | Event | None:
        return self._kept.get(key)


class EntryCache:
    """Recent entries by (lifetime, seq); what is missing is read from the store.

    An entry outside any fan-out group is wanted for the step that it leads to and for the one after, and then hardly
    ever again. One inside a group is kept longer, for the JOIN.
    """

    def __init__(self, store: StateStore, blobs: BlobStore, limit: int = CACHE_BYTES) -> None:
        self._store, self._blobs = store, blobs
        self._latest, self._grouped = _Recent(LATEST_BYTES), _Recent(limit)

    def put(self, lifetime_id: str, seq: int, entry: Execution | Event) -> None:
        """Remembers an entry that carries its payload."""
        kept = self._grouped if type(entry) is Execution and entry.branch else self._latest
        kept.put((lifetime_id, seq), entry)

    def peek(self, lifetime_id: str, seq: int) -> Execution | Event | None:
        """The entry if it is in memory."""
        found = self._latest.get((lifetime_id, seq))
        return found if found is not None else self._grouped.get((lifetime_id, seq))

    async def entries(self, state: LifetimeState, seqs: tuple[int, ...]) -> list[Execution | Event]:
        """The entries at these seqs, payloads included (inline, or the URI of a blob)."""
        found = {seq: entry for seq in seqs if (entry := self.peek(state.lifetime_id, seq)) is not None}
        missing = [seq for seq in dict.fromkeys(seqs) if seq not in found]
        if missing:
            for logged in await self._store.read_entries(state.tenant_id, state.lifetime_id, missing):
                found[logged.seq] = logged.entry
        return [found[seq] for seq in seqs]

    async def payload(self, state: LifetimeState, source: Source) -> Payload | None:
        """The payload at a Source; of a joined one the list of the results, null for a branch that failed."""
        if source.joined:
            entries = await self.entries(state, source.seqs)
            results = [entry.result if isinstance(entry, Execution) else None for entry in entries]
            joined = json_payload([await self.value(state.tenant_id, result) for result in results])
            with blobs_of_one():
                return await spilled(self._blobs, state.tenant_id, joined)
        (entry,) = await self.entries(state, source.seqs[:1])
        if isinstance(entry, Event):
            return msgspec.convert(entry.data.get("input"), Payload | None)
        if source.pick < 0:
            return entry.result
        if entry.next is None or source.pick >= len(entry.next):
            raise StoreCorrupt(f"lifetime {state.lifetime_id}: execution {entry.exec_id} has no choice {source.pick}")
        return entry.next[source.pick].input

    async def value(self, tenant_id: str, payload: Payload | None) -> Any:
        """The value of a payload, fetched from the blob store when it lies there."""
        if payload is not None and payload.uri is not None:
            with blobs_of_one():
                data = await self._blobs.get(tenant_id, payload.uri, payload.sha256)
            payload = msgspec.structs.replace(payload, inline=data, uri=None)
        return payload_value(payload)


_OBJECT = 1_024
"""Bytes that an entry takes as Python objects, beside its payload."""


def _weight(entry: Execution | Event) -> int:
    """Bytes an entry roughly holds."""
    if isinstance(entry, Event):
        payload = entry.data.get("input") or entry.data.get("payload")
        return _OBJECT + (len(payload[0]) if payload and payload[0] else 0)
    size = _OBJECT if entry.result is None or entry.result.inline is None else _OBJECT + entry.result.size
    for choice in entry.next or ():
        size += 128 + (choice.input.size if choice.input is not None else 0)
    return size


async def node_input(state: LifetimeState, visit: Visit, cache: EntryCache) -> NodeInput:
    """The TaskInput or PlanInput of a visit.

    `input` is left out (None) when it is the result of the execution before, or the list of them at a JOIN: then it
    stands in `executions` already.
    """
    before = [entry for entry in await cache.entries(state, visit.before) if isinstance(entry, Execution)]
    source = visit.input
    in_executions = source.pick < 0 and source.seqs == visit.before
    payload = None if in_executions else await cache.payload(state, source)
    lifetime_input = state.lifetime_input or await cache.payload(state, Source((1,)))
    node = state.topology.nodes[visit.node]
    return NodeInput(
        state.tenant_id,
        state.lifetime_id,
        state.topology.digest,
        node.kind,
        visit.node,
        visit.exec_id,
        visit.branch,
        visit.iteration,
        visit.attempt,
        visit.parents,
        visit.edge_taken,
        visit.created_at,
        payload,
        tuple([_predecessor(entry) for entry in before]),
        source.joined and in_executions,
        lifetime_input,
        state.labels or None,
        node.effect,
        visit.phase == "reconciling",
    )


def _predecessor(entry: Execution) -> Predecessor:
    return Predecessor(
        entry.exec_id, entry.name, entry.kind, entry.branch, entry.iteration, entry.status, entry.result, entry.error,
        entry.reason,
    )  # fmt: skip


_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHOWN = 4_000


def render_prompt(node: Node, value: Any) -> str:
    """The question as the person sees it: `{field}` is a field of an input that is an object, `{input}` all of it."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name == "input":
            return _text(value)
        if not isinstance(value, dict):
            return match[0]
        return _text(value[name]) if name in value else ""

    return _FIELD.sub(fill, node.human.prompt).strip() if node.human is not None else ""


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
