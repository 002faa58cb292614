"""Export: a lifetime, and the children that it started, as the lines of one file.

The rows are read first, parents before children, and each log as far as its row said then. So a file is whole and in
itself consistent, also of a lifetime that runs on meanwhile. One blob at a time is in memory, and one page of a log.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import msgspec

from tickwork import __version__
from tickwork.edge import one_lifetime
from tickwork.errors import StoreCorrupt
from tickwork.model.contract import timestamp
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.orchestrator.starting import PARENT_LABEL
from tickwork.ports import LifetimeQuery
from tickwork.transfer import lines
from tickwork.transfer.lines import (
    PIECE,
    BlobLine,
    DataLine,
    EndLine,
    GraphLine,
    Header,
    LifetimeLine,
    PoliciesLine,
    encode_line,
    entry_line,
    payloads_of,
    policies_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import LogEntry, Payload
    from tickwork.ports import BlobStore, StateAdapter
    from tickwork.transfer.lines import AnyLine

PAGE = 1_000


class Sink(Protocol):
    """Where a file is written to: a binary file, opened for writing."""

    def write(self, data: bytes, /) -> object:
        """Takes these bytes."""
        ...


class Exported(msgspec.Struct, kw_only=True):
    """What a file holds. `size` in bytes, before it is packed."""

    lifetime_id: str
    lifetimes: int = 0
    records: int = 0
    blobs: int = 0
    size: int = 0
    sha256: str = ""
    """Of all lines but the last, which says the same."""


class Exporting:
    """One export, from its first line to its last."""

    def __init__(self, store: StateAdapter, blobs: BlobStore, sink: Sink) -> None:
        self._store, self._blobs, self._sink = store, blobs, sink
        self._hash = hashlib.sha256()
        self._lines = 0
        self._done = Exported(lifetime_id="")

    async def export(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT) -> Exported:
        """Writes the lifetime with this id or unique prefix of an id.

        Raises NotFound, UsageError; NotFound, StoreCorrupt when a blob or a set of policies is gone; OSError of the
        sink.
        """
        one = await one_lifetime(self._store, tenant, lifetime_id)
        self._done.lifetime_id = one.lifetime_id
        family = await self._family(one)
        self._write(
            Header(
                format=lines.FORMAT, version=lines.VERSION, lifetime_id=one.lifetime_id, tenant_id=one.tenant_id,
                tickwork=__version__,
            )
        )  # fmt: skip
        await self._graphs(family)
        policies, payloads = await self._named(family)
        for digest in sorted(policies):
            await self._policies(digest)
        for _, payload in sorted(payloads.items()):
            await self._blob(one.tenant_id, payload)
        for lifetime in family:
            await self._lifetime(lifetime)
        end = EndLine(lines=self._lines, sha256=self._hash.hexdigest())
        self._done.sha256 = end.sha256
        self._write(end)
        return self._done

    async def _family(self, one: Lifetime) -> list[Lifetime]:
        """It and its children at any depth, each child before its parent."""
        found, left = [], [one]
        while left:
            parent = left.pop()
            found.append(parent)
            left += sorted(await self._children(parent), key=lambda child: child.lifetime_id)
        return found[::-1]

    async def _children(self, parent: Lifetime) -> list[Lifetime]:
        found: list[Lifetime] = []
        query = LifetimeQuery(label=(PARENT_LABEL, parent.lifetime_id), limit=PAGE)
        while page := await self._store.list_lifetimes(parent.tenant_id, query):
            found += page
            query = msgspec.structs.replace(query, before=page[-1].lifetime_id)
        return found

    async def _graphs(self, family: Sequence[Lifetime]) -> None:
        tenant = family[0].tenant_id
        for digest in sorted({lifetime.graph_digest for lifetime in family}):
            found = await self._store.graphs(tenant, digest=digest)
            if not found:
                raise StoreCorrupt(f"the graph {digest} is missing in the store; a lifetime runs it. Restore a backup.")
            graph = found[0]
            # In one line, and otherwise as it was written.
            body = graph.body if b"\n" not in graph.body else msgspec.json.encode(msgspec.json.decode(graph.body))
            self._write(GraphLine(graph.name, graph.version, digest, msgspec.Raw(body)))

    async def _named(self, family: Sequence[Lifetime]) -> tuple[set[str], dict[str, Payload]]:
        """The sets of policies and, by uri, the payloads in the blob store that the logs name."""
        policies: set[str] = set()
        payloads: dict[str, Payload] = {}
        for lifetime in family:
            async for logged in self._log(lifetime):
                policies.add(policies_of(logged.entry))
                for payload in payloads_of(logged.entry):
                    if payload.uri is not None:
                        payloads.setdefault(payload.uri, payload)
        return policies - {""}, payloads

    async def _policies(self, digest: str) -> None:
        body = await self._store.policy_set(digest)
        if body is None:
            raise StoreCorrupt(f"the policy set {digest} is missing in the store; a log names it. Restore a backup.")
        self._write(PoliciesLine(digest, msgspec.Raw(body)))

    async def _blob(self, tenant: str, payload: Payload) -> None:
        uri = payload.uri or ""
        data = await self._blobs.get(tenant, uri, payload.sha256)
        self._write(BlobLine(uri, hashlib.sha256(data).hexdigest(), len(data)))
        for start in range(0, len(data), PIECE):
            self._write(DataLine(data[start : start + PIECE]))
        self._done.blobs += 1

    async def _lifetime(self, lifetime: Lifetime) -> None:
        self._write(
            LifetimeLine(
                lifetime_id=lifetime.lifetime_id, tenant_id=lifetime.tenant_id, graph=lifetime.graph_digest,
                status=lifetime.status, created_at=timestamp(lifetime.created_at), records=lifetime.last_seq,
                reason=lifetime.reason, labels=lifetime.labels,
            )
        )  # fmt: skip
        async for logged in self._log(lifetime):
            self._write(entry_line(logged, lifetime))
            self._done.records += 1
        self._done.lifetimes += 1

    async def _log(self, lifetime: Lifetime) -> AsyncIterator[LogEntry]:
        """The log, as far as the row says."""
        after = 0
        while after < lifetime.last_seq:
            limit = min(PAGE, lifetime.last_seq - after)
            page = await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, limit)
            if not page:
                raise StoreCorrupt(f"the log of lifetime {lifetime.lifetime_id} ends before entry {after + 1}")
            for logged in page:
                yield logged
            after = page[-1].seq

    def _write(self, line: AnyLine) -> None:
        data = encode_line(line)
        self._sink.write(data)
        self._hash.update(data)
        self._lines += 1
        self._done.size += len(data)
