"""Import: what a proved file holds goes into a store, so that a crash anywhere leaves nothing half done.

First it is looked at everything that could stand in the way, and nothing is written. Then blobs, policies and graphs,
which change nothing by being there; then each lifetime in one transaction, children first, the exported one last. What
is there already is left alone, so the same file can be imported again, and goes on where a crash ended it.

A lifetime that had not ended gets one entry more, which pauses it: the installation that it comes from may still run
it, and two that act for one lifetime would do everything twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.edge import check_words, legal_tenant
from tickwork.errors import Conflict, GraphConflict, StorageError, UsageError
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.messages import Append
from tickwork.model.records import Event
from tickwork.ports import StoredGraph
from tickwork.transfer.lines import exact

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime, LifetimeStatus
    from tickwork.model.records import LogEntry
    from tickwork.ports import BlobStore, Clock, StateAdapter
    from tickwork.transfer.reading import Carried, Export

PAGE = 1_000


class Imported(msgspec.Struct, kw_only=True):
    """What became of a file."""

    lifetime_id: str
    tenant_id: str
    status: LifetimeStatus
    """The lifetime's, as it stands in this store now."""
    graph: str
    created: list[str] = []
    """The lifetimes that are new here, children included; none: all were there already."""
    found: list[str] = []
    """Those that were there already, with the same log."""
    registered: list[str] = []
    """The graphs that were not registered here before, as name@version."""
    records: int = 0
    """Entries that were written."""
    blobs: int = 0
    diverges: str | None = None
    """What is wrong with the log, when a replay finds something."""


class Importing:
    """Takes proved files into one store. Raises the errors of `tickwork.errors`."""

    def __init__(self, store: StateAdapter, blobs: BlobStore, clock: Clock) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock

    async def take(self, export: Export, *, tenant: str = DEFAULT_TENANT, by: str = "") -> Imported:
        """Imports everything that the file holds; when this returns, it is on disk.

        Raises UsageError when the file is another tenant's; Conflict when a lifetime of it is here with another log;
        GraphConflict when one of its graphs is registered here with another content.
        """
        check_words(by)
        if export.header.tenant_id != legal_tenant(tenant):
            raise UsageError(
                f"the file is of tenant `{export.header.tenant_id}`, and its records and blobs say so; import it for "
                f"that tenant (--tenant {export.header.tenant_id}), not for `{tenant}`"
            )
        new = [digest for digest in export.graphs if await self._is_new(export, digest)]
        missing = {c.lifetime.lifetime_id for c in export.lifetimes if await self._is_missing(export, c)}
        last = export.lifetimes[-1]
        done = Imported(
            lifetime_id=last.lifetime.lifetime_id, tenant_id=tenant, status=last.lifetime.status,
            graph=f"{last.lifetime.graph_name}@{last.lifetime.graph_version}",
            diverges=None if last.divergence is None else f"at entry {last.divergence.seq} {last.divergence.what}",
        )  # fmt: skip
        if missing:
            await self._beside(export, new, done)
        for carried in export.lifetimes:
            if carried.lifetime.lifetime_id in missing and await self._create(export, carried, by):
                done.created.append(carried.lifetime.lifetime_id)
                done.records += carried.records
            else:
                done.found.append(carried.lifetime.lifetime_id)
        done.status = (await self._there(last.lifetime) or last.lifetime).status
        return done

    async def _is_new(self, export: Export, digest: str) -> bool:
        """Whether this graph has to be registered. Raises GraphConflict when it cannot be."""
        graph, _ = export.graphs[digest]
        tenant = export.header.tenant_id
        if await self._store.graphs(tenant, digest=digest):
            return False  # as it is, with the place of its code
        if await self._store.graphs(tenant, name=graph.name, version=graph.version):
            raise GraphConflict(
                f"graph {graph.label} is registered here with another content than the file's ({digest}); a "
                "registered version never changes, so this lifetime cannot be imported here"
            )
        return True

    async def _is_missing(self, export: Export, carried: Carried) -> bool:
        """Whether a lifetime is not here. Raises Conflict when one with its id has another log."""
        here = await self._there(carried.lifetime)
        if here is None:
            return True
        page: list[LogEntry] = []
        for entry in export.entries(carried):
            if not page or entry.seq > page[-1].seq:
                page = await self._store.read_log(here.tenant_id, here.lifetime_id, entry.seq - 1, PAGE)
            if not page or not exact(page[entry.seq - page[0].seq], entry):
                what = "differs" if page else "is not there yet"
                raise Conflict(
                    f"lifetime {here.lifetime_id} is here already with another log: entry {entry.seq} of the file "
                    f"{what}. Nothing was imported. To have the file's, import it into another home, or for another "
                    "installation"
                )
        return False

    async def _there(self, lifetime: Lifetime) -> Lifetime | None:
        found = await self._store.get_lifetime(lifetime.tenant_id, lifetime.lifetime_id)
        return next((one for one in found if one.lifetime_id == lifetime.lifetime_id), None)

    async def _beside(self, export: Export, new: list[str], done: Imported) -> None:
        """Blobs, policies and graphs: what the logs name, before any log names it."""
        tenant = export.header.tenant_id
        for uri in export.blobs:
            kept, _ = await self._blobs.put(tenant, export.blob(uri))
            if kept != uri:
                raise StorageError(f"the blob store here names blobs otherwise ({kept}) than the records do ({uri})")
            done.blobs += 1
        for digest, body in export.policies.items():
            await self._store.put_policy_set(digest, body)
        for digest in new:
            graph, body = export.graphs[digest]
            # Without a source: where its code lies is nobody's to say but this installation's.
            stored = StoredGraph(tenant, graph.name, graph.version, digest, body, "", self._clock.now())
            await self._store.put_graph(stored)
            done.registered.append(graph.label)

    async def _create(self, export: Export, carried: Carried, by: str) -> bool:
        """Writes a lifetime with its whole log in one transaction; False when it came to be here meanwhile."""
        log = list(export.entries(carried))
        entries, ats = [logged.entry for logged in log], [logged.at for logged in log]
        projection, now = carried.projection, max(self._clock.now(), ats[-1])
        if not carried.paused:
            pause = _pause(len(log), by)
            entries.append(pause)
            ats.append(now)
            projection = msgspec.structs.replace(projection, reason=pause.data["reason"])
        # What ended is ended by the projection: a store takes no entries for a lifetime that has ended.
        row = msgspec.structs.replace(carried.lifetime, status="RUNNING", reason=None, updated_at=now)
        append = Append(row.tenant_id, row.lifetime_id, tuple(entries), projection, ats=tuple(ats))
        made, created = await self._store.create_lifetime(row, append)
        if made.lifetime_id != row.lifetime_id or (created and made.last_seq != len(entries)):
            raise StorageError(
                f"lifetime {row.lifetime_id} was not written whole; the store has {made.last_seq} entries"
            )
        return created or await self._is_missing(export, carried)


def _pause(last_seq: int, by: str) -> Event:
    """What keeps an imported lifetime still. Its id comes from its place: a lifetime may be imported more than once."""
    reason = "imported from a file; where it comes from it may still run. Resume it here once it does not"
    data = {"reason": reason} | ({"by": by} if by else {})
    return Event(f"paused:import:{last_seq}", "paused", data)
