"""The Control Plane: reads references, folds them, and does what the fold decides.

It keeps the folded state of the lifetimes that are moving; one that waits is dropped when memory is wanted and is
rebuilt from its log when something happens to it. It writes nothing itself: what it wants in the log goes to the Data
Plane like everybody else's, under an id that comes from its cause, so two Control Planes cannot do a thing twice.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from tickwork.errors import StorageError, StoreCorrupt, TickworkError
from tickwork.model import messages
from tickwork.model.ids import child_lifetime_id
from tickwork.model.messages import Append, Cancel, Committed
from tickwork.model.records import Error, Event, Execution, LogEntry, json_payload
from tickwork.orchestrator import visits
from tickwork.orchestrator.fold import fold, outstanding
from tickwork.orchestrator.inputs import EntryCache, node_input, render_prompt
from tickwork.orchestrator.projection import marked, project, wakes
from tickwork.orchestrator.serving import Serving
from tickwork.orchestrator.starting import PARENT_LABEL, begin, new_lifetime
from tickwork.orchestrator.state import CancelRunning, Command, Dispatch, LifetimeState, Record, TellParent, Visit
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import Entry
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.graphs import GraphIndex
    from tickwork.ports import BlobStore, Delivery, EventBus, StateStore

log = logging.getLogger(__name__)

IDLE_STATES = 1_000
"""Folded states of lifetimes that wait or are paused that are kept in memory; the longest idle one goes first."""

PAGE = 5_000
"""Log entries read at once when a state is rebuilt."""


class ControlPlane:
    """Folds references and sends what follows: inputs to executors, appends to the Data Plane."""

    def __init__(
        self, bus: EventBus, store: StateStore, blobs: BlobStore, graphs: GraphIndex, data_plane: DataPlane
    ) -> None:
        self._bus, self._store, self._blobs = bus, store, blobs
        self._graphs = graphs
        self._data_plane = data_plane
        self._cache = EntryCache(store, blobs)
        self._moving: dict[str, LifetimeState] = {}
        self._idle: OrderedDict[str, LifetimeState] = OrderedDict()
        self._out: dict[str, list[BusMessage]] = {}
        self._serving = Serving(bus, messages.CONTROL_PLANE)
        self.on_stuck: list[Callable[[str, Exception], None]] = []
        """Called in this process with the lifetime that cannot go on, and why."""
        self.on_idle: list[Callable[[str], None]] = []
        """Called in this process with a lifetime that waits, is paused or has ended, each time it was looked at."""

    async def start(self) -> None:
        """Joins its group, so that nothing published from now on is missed."""
        await self._serving.start()

    async def run(self) -> None:
        """Serves the topics of all tenants until cancelled. After `start`."""
        await self._serving.run(self.run_once)

    async def run_once(self, deliveries: Sequence[Delivery]) -> None:
        """Handles one batch of references."""
        for delivery in deliveries:
            reference = messages.decode_committed(delivery.message.value)
            try:
                await self._handle(reference)
            except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
                self._set_aside(reference.lifetime_id, error)
        await self._flush()

    def _set_aside(self, lifetime_id: str, error: Exception) -> None:
        """One lifetime that cannot be handled must not stop the others: it stays as it is recorded.

        Raises the error when it concerns everybody: the store is gone.
        """
        if isinstance(error, StorageError) and not isinstance(error, StoreCorrupt):
            raise error
        log.error("lifetime %s cannot go on: %s", lifetime_id, error, exc_info=not isinstance(error, TickworkError))
        self._moving.pop(lifetime_id, None)
        self._idle.pop(lifetime_id, None)
        for listener in self.on_stuck:
            listener(lifetime_id, error)

    def holds(self, lifetime_id: str) -> bool:
        """Whether the state of this lifetime is in memory: it moves, or waits, in this process."""
        return lifetime_id in self._moving or lifetime_id in self._idle

    def activity(self, lifetime_id: str) -> tuple[int, tuple[str, ...]]:
        """How many visits of a lifetime are at executors or about to be, and which children it waits for."""
        state = self._moving.get(lifetime_id) or self._idle.get(lifetime_id)
        if state is None:
            return 0, ()
        nodes = state.topology.nodes
        sent = [v for v in state.open.values() if v.phase == "sent"]
        children = [child_lifetime_id(v.exec_id, v.created_at) for v in sent if nodes[v.node].child is not None]
        return len(sent) - len(children), tuple(children)

    async def take_up(self, tenant_id: str, lifetime_id: str) -> LifetimeStatus | None:
        """Carries on a lifetime that another process has left. One that is held here needs nothing.

        Its status as the log has it; None when it has ended or cannot be handled.
        """
        if not self.holds(lifetime_id):
            try:
                await self._recover(tenant_id, lifetime_id)
            except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
                self._set_aside(lifetime_id, error)
        state = self._moving.get(lifetime_id) or self._idle.get(lifetime_id)
        return state.status if state is not None else None

    async def _recover(self, tenant_id: str, lifetime_id: str) -> None:
        """Rebuilds a lifetime from its log and sends again whatever the log demands and does not show as done."""
        self._moving.pop(lifetime_id, None)
        self._idle.pop(lifetime_id, None)
        state = await self._rebuild(tenant_id, lifetime_id)
        if state is not None:
            await self._perform(state, outstanding(state), None)
            self._file(state)
        await self._flush()

    # -- folding ------------------------------------------------------------------------------------------------------

    async def _handle(self, reference: Committed) -> None:
        lifetime_id = reference.lifetime_id
        state = self._moving.get(lifetime_id) or self._idle.pop(lifetime_id, None)
        if state is None and reference.first_seq == 1:
            state = await self._new_state(reference)
        if state is None:
            # Not in memory: the log has everything, this reference included.
            await self._recover(reference.tenant_id, lifetime_id)
            return
        if reference.first_seq > state.seq + 1:
            # An earlier reference is late or lost; the log has what it said.
            while missing := await self._store.read_log(reference.tenant_id, lifetime_id, state.seq):
                for logged in missing:
                    await self._advance(state, logged.seq, logged.at, (logged.entry,))
        else:
            await self._advance(state, reference.first_seq, reference.at, reference.entries)
        self._file(state)

    async def _advance(self, state: LifetimeState, first_seq: int, at: int, entries: tuple[Entry, ...]) -> None:
        """Folds the entries that are new to the state, and does what follows."""
        shown = marked(entries) or state.status
        commands: list[Command] = []
        for seq, entry in enumerate(entries, first_seq):
            if seq == state.seq + 1:
                full = await self._complete(state, seq, entry)
                commands += fold(state, LogEntry(seq, at, full))
        await self._perform(state, commands, shown)

    async def _new_state(self, reference: Committed) -> LifetimeState:
        started = reference.entries[0]
        digest = started.data["graph"]["digest"] if isinstance(started, Event) else ""
        tenant_id = reference.tenant_id
        topology = self._graphs.cached(tenant_id, digest) or await self._graphs.topology(tenant_id, digest)
        return LifetimeState(tenant_id, reference.lifetime_id, topology)

    async def _complete(self, state: LifetimeState, seq: int, entry: Entry) -> Entry:
        """The entry with its payload, where it is small enough to come along or a condition reads it."""
        if type(entry) is not Execution or entry.result is None:
            self._cache.put(state.lifetime_id, seq, entry)
            return entry
        stripped = entry.result.inline is None and entry.result.uri is None
        if not stripped and entry.result.uri is None:
            self._cache.put(state.lifetime_id, seq, entry)
            return entry
        if entry.name not in state.topology.reads_result:
            return entry
        if stripped:
            (full,) = await self._store.read_entries(state.tenant_id, state.lifetime_id, [seq])
            return full.entry
        return await self._fetched(state, entry)

    async def _fetched(self, state: LifetimeState, entry: Execution) -> Execution:
        """The execution with its blob's content in line, for a condition that reads it."""
        result = entry.result
        if result is None or result.uri is None:
            return entry
        data = await self._blobs.get(state.tenant_id, result.uri, result.sha256)
        return msgspec.structs.replace(entry, result=msgspec.structs.replace(result, inline=data))

    async def _rebuild(self, tenant_id: str, lifetime_id: str) -> LifetimeState | None:
        """The state folded from the whole log; None for a lifetime that has ended or does not exist."""
        state: LifetimeState | None = None
        after = 0
        while page := await self._store.read_log(tenant_id, lifetime_id, after, PAGE):
            for logged in page:
                if state is None:
                    state = await self._new_state(Committed(tenant_id, lifetime_id, 1, logged.at, (logged.entry,)))
                entry = logged.entry
                if type(entry) is Execution and entry.name in state.topology.reads_result:
                    entry = await self._fetched(state, entry)
                fold(state, LogEntry(logged.seq, logged.at, entry))
            after = page[-1].seq
        return state if state is not None and (state.ending is None or state.pending) else None

    def _file(self, state: LifetimeState) -> None:
        """Keeps the state where it belongs now."""
        lifetime_id = state.lifetime_id
        if state.status == "RUNNING":
            self._moving[lifetime_id] = state
            return
        self._moving.pop(lifetime_id, None)
        if state.ending is None or state.pending:
            self._idle[lifetime_id] = state
            if len(self._idle) > IDLE_STATES:
                self._idle.popitem(last=False)
        self._tell_idle(state)

    def _tell_idle(self, state: LifetimeState) -> None:
        """Says that this lifetime does nothing by itself now, to those who wait for it or for one of its parents."""
        known: LifetimeState | None = state
        while known is not None:
            for listener in self.on_idle:
                listener(known.lifetime_id)
            parent = known.parent[0] if known.parent is not None else ""
            known = self._moving.get(parent) or self._idle.get(parent)

    # -- doing what was decided ---------------------------------------------------------------------------------------

    async def _perform(self, state: LifetimeState, commands: list[Command], shown: str | None) -> None:
        """Turns commands into messages. All that goes to one lifetime's log goes in one append.

        `shown` is the status that the read model has now (None: unknown).
        """
        entries: list[Entry] = []
        for command in commands:
            kind = type(command)
            if kind is Dispatch:
                await self._dispatch(state, command.visit, entries)  # type: ignore[union-attr]  # narrowed by `kind`
            elif isinstance(command, Record):
                entries += command.entries
            elif isinstance(command, CancelRunning):
                self._cancel(state, command)
            elif isinstance(command, TellParent):
                await self._tell_parent(state, command)
        ended = state.ending.status if state.ending is not None and any(_is_end(e) for e in entries) else None
        status = ended
        if ended is None and state.status != shown and not any(wakes(e) for e in entries):
            status = state.status
        if not entries and (status is None or state.ending is not None):
            return
        reason = state.ending.reason if ended and state.ending is not None else None
        if status == "PAUSED":
            reason = state.pause_reason
        as_of = None if ended else state.seq
        projection = project(state.tenant_id, state.lifetime_id, entries, status, as_of, reason)
        append = Append(state.tenant_id, state.lifetime_id, tuple(entries), projection)
        self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), state.lifetime_id, append)

    async def _dispatch(self, state: LifetimeState, visit: Visit, entries: list[Entry]) -> None:
        node = state.topology.nodes[visit.node]
        if node.runs_code:
            name = messages.TASK_INPUTS if node.kind == "task" else messages.PLAN_INPUTS
            message = await node_input(state, visit, self._cache)
            self._send(messages.topic(name, state.tenant_id), state.lifetime_id, message)
        elif node.child is not None:
            failed = await self._start_child(state, visit)
            if failed is not None:
                entries.append(visits.own_execution(state, visit, "FAILED", None, failed))
        else:
            entries.append(await self._wait(state, visit))

    async def _wait(self, state: LifetimeState, visit: Visit) -> Event:
        """The `waiting` event of a human's or a signal's wait: exactly what is asked, as it will be shown."""
        node = state.topology.nodes[visit.node]
        data: dict[str, object] = {
            "exec_id": visit.exec_id,
            "node": visit.node,
            "branch": visit.branch,
            "kind": node.kind,
            "iteration": visit.iteration,
            "attempt": visit.attempt,
            "parents": list(visit.parents),
            "edge_taken": visit.edge_taken,
            "since": visit.created_at,
            "graph": state.topology.graph.name,
        }
        if visit.due is not None:
            data["deadline"] = visit.due
        if node.human is not None:
            value = await self._cache.value(state.tenant_id, await self._cache.payload(state, visit.input))
            data |= {"on": "human", "prompt": render_prompt(node, value)}
            if node.human.answer_schema is not None:
                data["answer_schema"] = node.human.answer_schema
            if node.human.who:
                data["who"] = list(node.human.who)
        elif node.signal is not None:
            data |= {"on": "signal", "name": node.signal.name}
        return Event(f"waiting:{visit.exec_id}", "waiting", data)

    async def _start_child(self, state: LifetimeState, visit: Visit) -> Error | None:
        """Starts the child lifetime of this visit, or finds the one that an earlier try started."""
        child = state.topology.nodes[visit.node].child
        if child is None:
            return None
        found = await self._store.graphs(state.tenant_id, name=child.name, version=child.version or None)
        if not found:
            label = f"{child.name}@{child.version}" if child.version else child.name
            return Error("ChildGraphUnknown", f"graph {label} is not registered for this tenant", retryable=False)
        lifetime_id = child_lifetime_id(visit.exec_id, visit.created_at)
        labels = {**state.labels, PARENT_LABEL: state.lifetime_id}
        payload = await self._cache.payload(state, visit.input)
        lifetime = new_lifetime(lifetime_id, found[0], state.at, labels, None)
        made, created = await begin(self._store, self._data_plane, lifetime, payload, (state.lifetime_id, visit))
        if not created and made.ended:
            await self._retell(state, made.lifetime_id)
        elif not created:
            await self.take_up(state.tenant_id, made.lifetime_id)  # another process may have left it
        return None

    async def _retell(self, state: LifetimeState, child_id: str) -> None:
        """A child that ended while nobody listened: read its end from its log and tell the parent again."""
        child: LifetimeState | None = None
        for logged in await self._store.read_log(state.tenant_id, child_id, 0, 1_000_000):
            if child is None:
                child = await self._new_state(Committed(state.tenant_id, child_id, 1, logged.at, (logged.entry,)))
            entry = logged.entry
            if type(entry) is Execution and entry.name in child.topology.reads_result:
                entry = await self._fetched(child, entry)
            for command in fold(child, LogEntry(logged.seq, logged.at, entry)):
                if isinstance(command, TellParent):
                    await self._tell_parent(child, command)

    async def _tell_parent(self, child: LifetimeState, told: TellParent) -> None:
        parent_id, visit = told.parent
        result, error = None, None
        if told.status == "COMPLETED":
            result = await self._cache.payload(child, told.source) if told.source is not None else None
        else:
            reason = f"child lifetime {child.lifetime_id} ended {told.status}: {told.reason}"
            error = Error("ChildFailed", reason, retryable=told.status == "FAILED")
        done = Execution(
            visit.exec_id, "task", visit.node, visit.branch, visit.iteration, visit.attempt, visit.parents,
            visit.edge_taken, visit.created_at, visit.created_at, child.at, "FAILED" if error else "SUCCEEDED",
            f"child:{child.lifetime_id}", result or (None if error else json_payload(None)), error,
        )  # fmt: skip
        append = Append(child.tenant_id, parent_id, (done,))
        self._send(messages.topic(messages.DATA_PLANE, child.tenant_id), parent_id, append)

    def _cancel(self, state: LifetimeState, command: CancelRunning) -> None:
        nodes = state.topology.nodes
        running = tuple([v.exec_id for v in command.visits if v.phase == "sent" and nodes[v.node].runs_code])
        if running:
            cancel = Cancel(state.tenant_id, state.lifetime_id, running, command.reason)
            self._send(messages.topic(messages.CANCELLATIONS, state.tenant_id), state.lifetime_id, cancel)
        for visit in command.visits:
            if nodes[visit.node].child is not None and visit.phase == "sent":
                child_id = child_lifetime_id(visit.exec_id, visit.created_at)
                event = Event("abort:parent", "abort_requested", {"reason": command.reason, "by": "parent"})
                projection = project(state.tenant_id, child_id, (event,))
                append = Append(state.tenant_id, child_id, (event,), projection)
                self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), child_id, append)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, topic: str, key: str, message: object) -> None:
        self._out.setdefault(topic, []).append(BusMessage(key, messages.encode(message)))

    async def _flush(self) -> None:
        """Publishes what this batch produced, one call a topic."""
        out, self._out = self._out, {}
        for topic, batch in out.items():
            await self._bus.publish(topic, batch)


def _is_end(entry: Entry) -> bool:
    return isinstance(entry, Event) and entry.type in ("completed", "failed", "aborted")
