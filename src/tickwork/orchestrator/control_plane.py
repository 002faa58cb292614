"""The Control Plane: reads references, folds them, and does what the fold decides.

It keeps the folded state of the lifetimes that are moving; one that waits is dropped when memory is wanted and is
rebuilt from its log when something happens to it. It writes nothing itself: what it wants in the log goes to the Data
Plane like everybody else's, under an id that comes from its cause, so two Control Planes cannot do a thing twice.

References may come late, twice, or never. One that is late or doubled says nothing new; after one that is missing the
log is read. `recheck` is for those after which nothing came: it looks at the log, and sends again what it demands.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

import msgspec

from tickwork.errors import StorageError, StoreCorrupt, TickworkError
from tickwork.model import messages
from tickwork.model.ids import child_lifetime_id
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.admission import Admission
from tickwork.orchestrator.fold import fold, outstanding, wanted
from tickwork.orchestrator.held import IDLE_STATES, HeldStates
from tickwork.orchestrator.inputs import BlobsAway, EntryCache
from tickwork.orchestrator.performing import Performer, as_shown
from tickwork.orchestrator.projection import marked
from tickwork.orchestrator.serving import PATIENCE, Serving
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tickwork.model.lifetime import Lifetime, LifetimeStatus
    from tickwork.model.messages import Committed
    from tickwork.model.records import Entry
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.leases import Leases, Verdict
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.orchestrator.state import Command, LifetimeState, Visit
    from tickwork.ports import BlobStore, Clock, Delivery, EventBus, Ledger, StateStore

log = logging.getLogger(__name__)

Predecessors = Literal["alive", "stopped", "crashed"]
"""What is known of the workers of the processes that had a lifetime before: they may still run what they were given;
they ended in good order, and nothing runs any more; they died, perhaps of what they ran."""

UNSERVED = 10_000
"""Lifetimes whose payloads cannot be had now that are remembered; the sweeper finds any others after a lease."""

NEW_FOR = 1_000_000
"""Microseconds for which a first reference is believed to be one; an older one may have been delivered before."""


class ControlPlane:
    """Folds references and sends what follows: inputs to executors, appends to the Data Plane."""

    def __init__(
        self,
        bus: EventBus,
        store: StateStore,
        blobs: BlobStore,
        rebuilder: Rebuilder,
        policies: PolicyIndex,
        ledger: Ledger,
        data_plane: DataPlane,
        clock: Clock,
        predecessors: Predecessors = "alive",
        patience: float | None = PATIENCE,
    ) -> None:
        """`patience`: seconds for which a batch is tried that the store refuses; None: until it is handled."""
        self._predecessors = predecessors
        self._bus, self._store, self._clock = bus, store, clock
        self._cache = EntryCache(store, blobs)
        self._rebuilder = rebuilder
        admission = Admission(ledger)
        self._data_plane = data_plane
        self._performer = Performer(
            bus, store, data_plane, self._cache, self._rebuilder, policies, admission, self._carry_on,
            lambda state: self._held.get(state.lifetime_id) is state,
        )  # fmt: skip
        self._held = HeldStates(clock)
        self._unserved: dict[str, str] = {}
        """The tenants of lifetimes that need a payload which the blob store does not serve now."""
        self._serving: Serving[Committed] = Serving(bus, messages.CONTROL_PLANE, clock, patience)
        # States are advanced in place across awaits: the plane's loop, the sweeper and resumes take turns.
        self._turn = asyncio.Lock()
        self.counts = {"folded": 0, "rebuilt": 0, "rechecked": 0, "lost_attempts": 0, "stuck": 0}
        """What was done since the start of this process."""
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

    async def run_offered(self) -> None:
        """Serves what a Data Plane of this process offers, until cancelled."""
        await self._serving.run_offered(self.handle)

    async def stop(self) -> None:
        """Takes no batch from now on; `run` ends with the one in hand, `run_offered` when nothing is left."""
        await self._serving.stop()

    def offer(self, references: Sequence[Committed]) -> list[Committed]:
        """Takes references of lifetimes that are this plane's, past the bus; returns the others."""
        offer, topic = self._serving.offer, messages.topic
        return [
            reference
            for reference in references
            if not offer(topic(messages.CONTROL_PLANE, reference.tenant_id), reference.lifetime_id, reference)
        ]

    async def run_once(self, deliveries: Sequence[Delivery]) -> None:
        """Handles one batch of messages. Raises StorageError; the batch may then be handed in again."""
        references: list[Committed] = []
        for delivery in deliveries:
            try:
                references.append(messages.decode_committed(delivery.message.value))
            except msgspec.MsgspecError as error:
                await self._bury(delivery, str(error))
        await self.handle(references)

    async def handle(self, references: Sequence[Committed]) -> None:
        """Handles one batch of references. Raises StorageError; the batch may then be handed in again."""
        async with self._turn:
            for reference in references:
                try:
                    await self._handle(reference)
                except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
                    self._set_aside(reference.tenant_id, reference.lifetime_id, error)
            await self._performer.flush()

    def _set_aside(self, tenant_id: str, lifetime_id: str, error: Exception) -> None:
        """One lifetime that cannot be handled must not stop the others: it stays as it is recorded.

        One that needs a payload which the blob store does not serve now is tried again when what stands still is
        looked at. Raises the error when it concerns everybody: the store is gone. Then, too, the state is made again
        from the log, for nobody knows how much of what it demands was done.
        """
        family = (lifetime_id, *self._ancestors(self._held.get(lifetime_id)))
        self._held.drop(lifetime_id)
        if isinstance(error, BlobsAway):
            log.warning("lifetime %s needs a payload that cannot be had, and is tried again: %s", lifetime_id, error)
            if len(self._unserved) < UNSERVED:
                self._unserved[lifetime_id] = tenant_id
            return
        if isinstance(error, StorageError) and not isinstance(error, StoreCorrupt):
            raise error
        self.counts["stuck"] += 1
        log.error("lifetime %s cannot go on: %s", lifetime_id, error, exc_info=not isinstance(error, TickworkError))
        for listener in self.on_stuck:
            for member in family:  # a parent cannot go on without its child
                listener(member, error)

    async def _bury(self, delivery: Delivery, why: str) -> None:
        headers = {
            **(delivery.message.headers or {}),
            "reason": f"it cannot be decoded: {why}",
            "topic": delivery.topic,
        }
        dead = BusMessage(delivery.message.key, delivery.message.value, headers)
        await self._bus.publish(messages.topic(messages.DEAD_LETTERS, messages.tenant_of(delivery.topic)), [dead])

    # -- looking from outside -----------------------------------------------------------------------------------------

    def holds(self, lifetime_id: str) -> bool:
        """Whether the state of this lifetime is in memory: it moves, or waits, in this process."""
        return lifetime_id in self._held

    def activity(self, lifetime_id: str) -> tuple[int, tuple[str, ...]]:
        """How many visits of a lifetime are at executors or about to be, and which children it waits for."""
        state = self._held.get(lifetime_id)
        return activity_of(state) if state is not None else (0, ())

    def moving(self) -> int:
        """How many lifetimes move in this process: what new starts are measured by."""
        return len(self._held.moving)

    def metrics(self) -> dict[str, float]:
        """Counters and sizes of this plane, by name."""
        return {
            **self.counts,
            "dispatched": self._performer.dispatched,
            "refused": self._performer.refused,
            "handed_over": self._serving.taken,
            "offered": self._serving.offered(),
            "retried": self._serving.retried,
            "queued": self._serving.depth(),
            "moving": len(self._held.moving),
            "idle": len(self._held.idle),
            "idle_limit": IDLE_STATES,
            "unserved": len(self._unserved),
            "unserved_limit": UNSERVED,
        }

    # -- carrying on what stands still --------------------------------------------------------------------------------

    async def take_up(self, tenant_id: str, lifetime_id: str) -> LifetimeStatus | None:
        """Carries on a lifetime that another process has left. One that is held here needs nothing.

        Its status as the log has it; None when it has ended or cannot be handled.
        """
        async with self._turn:
            await self._take_up(tenant_id, lifetime_id)
            await self._performer.flush()
            state = self._held.get(lifetime_id)
            return state.status if state is not None else None

    async def _take_up(self, tenant_id: str, lifetime_id: str) -> None:
        if self.holds(lifetime_id):
            return
        try:
            await self._recover(tenant_id, lifetime_id, self._predecessors)
        except BlobsAway:
            raise  # whoever wants it taken up has to know
        except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
            self._set_aside(tenant_id, lifetime_id, error)

    async def _carry_on(self, child: Lifetime) -> None:
        """Carries on a child that another process may have left, or tells the one that gets its references.

        What is not ours is not held for long. Taken up here again and again it would look alive to everybody, and its
        owner would never hear of it.
        """
        if self._owns(child.tenant_id, child.lifetime_id):
            await self._take_up(child.tenant_id, child.lifetime_id)
        else:
            told = messages.nudge(child.tenant_id, child.lifetime_id, child.last_seq, child.updated_at)
            await self._data_plane.publish([told])

    def _owns(self, tenant_id: str, lifetime_id: str) -> bool:
        """Whether the references of this lifetime come to this process."""
        return self._serving.owns(messages.topic(messages.CONTROL_PLANE, tenant_id), lifetime_id)

    async def _recover(self, tenant_id: str, lifetime_id: str, workers: Predecessors) -> None:
        """Rebuilds a lifetime from its log and sends again whatever the log demands and does not show as done."""
        state, _ = await self._rebuilder.folded(tenant_id, lifetime_id)
        self.counts["rebuilt"] += 1
        if state is None or (state.ending is not None and not state.pending):
            return
        nodes = state.topology.nodes
        held = [v for v in state.open.values() if v.phase == "sent" and nodes[v.node].runs_code]
        lost = [v for v in held if workers == "crashed" or (workers == "stopped" and v.intent)]
        if state.ending is None:
            self._give_up(state, lost, "the process that ran it has ended")
        # A call that may have been made is never made again by itself, whoever is alive.
        settled = {v.exec_id for v in lost} | {v.exec_id for v in held if v.intent}
        await self._performer.perform(state, outstanding(state, lambda v: v.exec_id not in settled), None)
        self._file(state)

    def _give_up(self, state: LifetimeState, lost: Sequence[Visit], why: str) -> None:
        self.counts["lost_attempts"] += len(lost)
        self._performer.give_up(state, lost, why)

    async def recheck(self, lifetime_id: str, leases: Leases) -> None:
        """Looks at a lifetime that has not moved for long: what was lost on its way is sent again.

        Work that a living worker has claimed is left to it; the attempts of one that is gone are recorded as lost.
        """
        state = self._held.get(lifetime_id)
        if state is None:
            await self._serve_again(lifetime_id)
            return
        verdicts = await leases.looks(_at_executors(state))  # out of turn: the others go on, however long it takes
        if self._all_at_work(state, verdicts):
            self._held.looked_at(lifetime_id)
        else:
            await self._act_on(lifetime_id, leases, verdicts)

    async def glance(self, lifetime_id: str, leases: Leases, before: int) -> None:
        """Looks whether the workers beat that have its visits since `before` (us), and acts if one is gone."""
        state = self._held.get(lifetime_id)
        sent = _at_executors(state, before) if state is not None else None
        if not sent:
            return
        verdicts = await leases.looks(sent, glance=True)
        if "lost" in verdicts.values():
            await self._act_on(lifetime_id, leases, verdicts)

    async def _act_on(self, lifetime_id: str, leases: Leases, verdicts: Mapping[str, Verdict]) -> None:
        async with self._turn:
            state = self._held.get(lifetime_id)
            if state is None:
                return
            if not self._owns(state.tenant_id, lifetime_id):
                self._held.drop(lifetime_id)  # its references go to another process, which moves it
                return
            try:
                self._held.looked_at(lifetime_id)
                before = state.seq
                state = await self._catch_up(state)
                if state.seq == before:
                    await self._recheck(state, verdicts, leases)
                self._file(state, moved=state.seq > before)
            except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
                self._set_aside(state.tenant_id, lifetime_id, error)
            await self._performer.flush()

    def _all_at_work(self, state: LifetimeState, verdicts: Mapping[str, Verdict]) -> bool:
        """Whether a living worker has each visit, so that there is nothing that may have been lost."""
        visits = state.open.values()
        return bool(visits) and not state.pending and all(verdicts.get(v.exec_id) == "alive" for v in visits)

    async def _serve_again(self, lifetime_id: str) -> None:
        """Tries a lifetime again whose payloads could not be had."""
        tenant_id = self._unserved.pop(lifetime_id, None)
        if tenant_id is None:
            return
        async with self._turn:
            try:
                if not self.holds(lifetime_id):
                    await self._recover(tenant_id, lifetime_id, "alive")
            except Exception as error:  # noqa: BLE001 - one lifetime's fault, whatever it is, is not the others'
                self._set_aside(tenant_id, lifetime_id, error)
            await self._performer.flush()

    async def _recheck(self, state: LifetimeState, verdicts: Mapping[str, Verdict], leases: Leases) -> None:
        self.counts["rechecked"] += 1
        nodes = state.topology.nodes
        lost: list[Visit] = []
        absent: set[str] = set()
        for visit in state.open.values():
            if visit.phase != "sent":
                continue
            # Of one that was sent out since nothing is known yet; a child has no worker.
            verdict = verdicts.get(visit.exec_id, "unclear") if nodes[visit.node].runs_code else "absent"
            if verdict == "lost":
                lost.append(visit)
            elif verdict == "absent" and not visit.intent:
                absent.add(visit.exec_id)
        if state.ending is None and lost:
            gone = await leases.given_up([v.exec_id for v in lost])
            lost = [v for v in lost if v.exec_id in gone]
            self._give_up(state, lost, f"its worker was not heard of for {leases.lease:g} s")
        # What lists show may be what got lost: it is said again. What moves was marked so by the entry that woke it.
        shown = "RUNNING" if state.status == "RUNNING" and not state.pending else None
        await self._performer.perform(state, outstanding(state, lambda v: v.exec_id in absent), shown)

    def still(self, seconds: float, again: float) -> list[str]:
        """Lifetimes held here that should move, and have not for so long; or have not been rechecked for four times
        as long, for one branch that moves all the time must not hide another that stands still. Longest first. Before
        them those that could not be served. `again`: seconds before one that stands still is looked at again."""
        return list(dict.fromkeys([*self._unserved, *self._held.still(seconds, again)]))

    def watched(self) -> list[str]:
        """Lifetimes held here that should move."""
        return self._held.watched()

    # -- folding ------------------------------------------------------------------------------------------------------

    async def _handle(self, reference: Committed) -> None:
        lifetime_id = reference.lifetime_id
        state = self._held.take(lifetime_id)
        if state is None and reference.first_seq == 1 and reference.entries and not await self._was_here(reference):
            state = await self._rebuilder.new_state(reference.tenant_id, lifetime_id, reference.entries[0])
        if state is None:
            # Not in memory: the log has everything, this reference included.
            await self._recover(reference.tenant_id, lifetime_id, "alive")
            return
        before = state.seq
        if reference.first_seq > before + 1:
            state = await self._catch_up(state)  # an earlier reference is late or lost
        else:
            first, at = reference.first_seq, reference.at
            logged = [LogEntry(seq, at, entry) for seq, entry in enumerate(reference.entries, first)]
            state = await self._advance(state, logged)
            if not logged and state.status in ("WAITING", "PAUSED"):
                # Somebody found it among those that run: how it stands got lost on its way to the lists.
                await self._performer.perform(state, [], None)
        self._file(state, moved=state.seq > before)

    async def _was_here(self, reference: Committed) -> bool:
        """Whether the first reference of a lifetime comes again, after the lifetime has gone on or has ended."""
        if not self._held.has_left(reference.lifetime_id) and self._clock.now() - reference.at < NEW_FOR:
            return False
        last = reference.first_seq + len(reference.entries) - 1
        return bool(await self._store.read_log(reference.tenant_id, reference.lifetime_id, last, 1))

    async def _catch_up(self, state: LifetimeState) -> LifetimeState:
        """Folds what the log has and the state has not."""
        while missing := await self._store.read_log(state.tenant_id, state.lifetime_id, state.seq):
            state = await self._advance(state, missing)
        return state

    async def _advance(self, state: LifetimeState, logged: Sequence[LogEntry]) -> LifetimeState:
        """Folds the entries that are new to the state, and does what follows from all of them together.

        Returns the state to go on with.
        """
        shown = marked([each.entry for each in logged]) or as_shown(state)
        commands: list[Command] = []
        for each in logged:
            if each.seq != state.seq + 1:
                continue
            full = await self._complete(state, each.seq, each.entry)
            if type(full) is Event:
                await self._rebuilder.known(full)
                if full.type == "policies" and state.spent is None:
                    state = await self._rebuilder.recounted(state)
            commands += fold(state, LogEntry(each.seq, each.at, full))
            self.counts["folded"] += 1
        await self._performer.perform(state, wanted(state, commands) if len(logged) > 1 else commands, shown)
        return state

    async def _complete(self, state: LifetimeState, seq: int, entry: Entry) -> Entry:
        """The entry with its payload, where it is small enough to come along or a condition reads it."""
        if type(entry) is not Execution or entry.result is None:
            self._cache.put(state.lifetime_id, seq, entry)
            return entry
        stripped = entry.result.inline is None and entry.result.uri is None
        if not stripped and entry.result.uri is None:
            self._cache.put(state.lifetime_id, seq, entry)
            return entry
        if not state.reads_result(entry.name):
            return entry
        if stripped:
            (full,) = await self._store.read_entries(state.tenant_id, state.lifetime_id, [seq])
            return full.entry
        return await self._rebuilder.fetched(state.tenant_id, entry)

    def _file(self, state: LifetimeState, *, moved: bool = True) -> None:
        """Keeps the state where it belongs now, and says so when it does nothing by itself."""
        self._held.file(state, moved=moved)
        if state.status != "RUNNING":
            self._tell_idle(state)

    def _tell_idle(self, state: LifetimeState) -> None:
        """Says that this lifetime does nothing by itself now, to those who wait for it or for one of its parents."""
        for member in (state.lifetime_id, *self._ancestors(state)):
            for listener in self.on_idle:
                listener(member)

    def _ancestors(self, state: LifetimeState | None) -> list[str]:
        """Who waits for this lifetime: its parent, the parent's parent, as far as they are held here."""
        found = []
        while state is not None and state.parent is not None:
            found.append(state.parent[0])
            state = self._held.get(state.parent[0])
        return found


def activity_of(state: LifetimeState) -> tuple[int, tuple[str, ...]]:
    """How many visits of a lifetime are at executors or about to be, and which children it waits for."""
    nodes = state.topology.nodes
    sent = [v for v in state.open.values() if v.phase in ("sent", "reconciling")]
    children = [child_lifetime_id(v.exec_id, v.created_at) for v in sent if nodes[v.node].child is not None]
    return len(sent) - len(children), tuple(children)


def _at_executors(state: LifetimeState, before: int | None = None) -> dict[str, bool]:
    """The visits that were sent to executors; of each, whether its call may have been made that is made once.
    `before` (us): only those that are as old as that."""
    nodes = state.topology.nodes
    sent = [v for v in state.open.values() if v.phase == "sent" and nodes[v.node].runs_code]
    return {v.exec_id: v.intent for v in sent if before is None or v.created_at <= before}
