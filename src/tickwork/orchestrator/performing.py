"""Does what the fold decided: turns commands into messages to executors, the Data Plane and other lifetimes.

All that goes to one lifetime's log goes in one append. Nothing is sent before `flush`, which publishes a batch of
lifetimes with one call a topic. Everything has an id that comes from its cause, so doing it twice is doing it once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model import messages
from tickwork.model.ids import child_lifetime_id
from tickwork.model.messages import Append, Cancel
from tickwork.model.policy import STRICTNESS
from tickwork.model.records import Error, Event, Execution, Telemetry, json_payload
from tickwork.model.spending import CHILD, LEASE_EXPIRED
from tickwork.orchestrator import visits
from tickwork.orchestrator.inputs import node_input, render_prompt
from tickwork.orchestrator.policies import NO_POLICIES
from tickwork.orchestrator.projection import project, wakes
from tickwork.orchestrator.starting import PARENT_LABEL, begin, new_lifetime
from tickwork.orchestrator.state import (
    CancelRunning,
    Command,
    Dispatch,
    LifetimeState,
    Record,
    TellParent,
    Visit,
)
from tickwork.orchestrator.waits import decided_wait
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickwork.model.lifetime import Lifetime, LifetimeStatus
    from tickwork.model.messages import NodeInput
    from tickwork.model.records import Entry
    from tickwork.orchestrator.admission import Admission, Question
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.inputs import EntryCache
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.ports import EventBus, StateStore


class Performer:
    """Performs commands. `take_up(lifetime)` has a lifetime carried on that nobody may move; `is_held` says whether
    a state is the one that the Control Plane goes by."""

    def __init__(
        self,
        bus: EventBus,
        store: StateStore,
        data_plane: DataPlane,
        cache: EntryCache,
        rebuilder: Rebuilder,
        policies: PolicyIndex,
        admission: Admission,
        take_up: Callable[[Lifetime], Awaitable[None]],
        is_held: Callable[[LifetimeState], bool],
    ) -> None:
        self._bus, self._store, self._data_plane = bus, store, data_plane
        self._cache, self._rebuilder, self._take_up = cache, rebuilder, take_up
        self._policies, self._admission, self._is_held = policies, admission, is_held
        self._out: dict[str, list[BusMessage]] = {}
        self._asking: list[tuple[LifetimeState, Visit, Question, NodeInput | None]] = []
        """Dispatches that a tenant's policies have a say in; they are asked about together, at `flush`."""
        self.dispatched = 0
        """Inputs that were sent to executors."""
        self.refused = 0
        """Dispatches that a tenant's policies did not let pass."""

    async def perform(self, state: LifetimeState, commands: list[Command], shown: str | None) -> None:
        """Turns commands into messages. All that goes to one lifetime's log goes in one append.

        `shown` is the status that the read model has now (None: unknown).
        """
        entries: list[Entry] = []
        rules = self._in_force(state)
        for command in commands:
            kind = type(command)
            if kind is Dispatch:
                await self._dispatch(state, command.visit, rules, entries)  # type: ignore[union-attr]  # by `kind`
            elif isinstance(command, Record):
                entries += command.entries
            elif isinstance(command, CancelRunning):
                self._cancel(state, command)
            elif isinstance(command, TellParent):
                await self._tell_parent(state, command)
        if _outdated(state, rules):
            await self._policies.pin(rules)
            entries.append(policies_event(state.policies_seq, rules.digest))
        ended = state.ending.status if state.ending is not None and any(_is_end(e) for e in entries) else None
        status = ended
        now = as_shown(state, entries)
        if ended is None and now != shown and not any(wakes(e) for e in entries):
            status = now
        if not entries and (status is None or state.ending is not None):
            return
        reason = state.ending.reason if ended and state.ending is not None else None
        if status == "PAUSED":
            reason = state.pause_reason
        as_of = None if ended else state.seq
        projection = project(state.tenant_id, state.lifetime_id, entries, status, as_of, reason)
        append = Append(state.tenant_id, state.lifetime_id, tuple(entries), projection)
        self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), state.lifetime_id, append)

    async def _dispatch(self, state: LifetimeState, visit: Visit, rules: Rules, entries: list[Entry]) -> None:
        node = state.topology.nodes[visit.node]
        if visit.trouble or not (node.runs_code or node.child is not None):
            entries.append(await self._wait(state, visit))
            return
        # Put together while what it is made of is at hand, also for those that are asked about first.
        message = await node_input(state, visit, self._cache) if node.child is None else None
        question = self._admission.question(state, visit, rules) if rules.tenants and visit.phase == "sent" else None
        if question is not None and not await self._child_runs(state, visit):
            self._asking.append((state, visit, question, message))
        else:
            entries += await self._send_out(state, visit, message)

    async def _send_out(self, state: LifetimeState, visit: Visit, message: NodeInput | None) -> list[Entry]:
        """Hands a visit to an executor, or starts its child; what has to be recorded when it could not be started."""
        if message is None:
            failed = await self._start_child(state, visit)
            return [visits.own_execution(state, visit, "FAILED", None, failed)] if failed is not None else []
        name = messages.TASK_INPUTS if message.kind == "task" else messages.PLAN_INPUTS
        self.dispatched += 1
        self._send(messages.topic(name, state.tenant_id), state.lifetime_id, message)
        return []

    async def _child_runs(self, state: LifetimeState, visit: Visit) -> bool:
        """Whether the child of this visit was started: then it was let pass, and is not asked about again."""
        if state.topology.nodes[visit.node].child is None:
            return False
        child_id = child_lifetime_id(visit.exec_id, visit.created_at)
        return bool(await self._store.get_lifetime(state.tenant_id, child_id))

    async def _admit(self) -> None:
        """Asks about the dispatches that were gathered; sends those that are admitted, has the verdicts recorded."""
        # A state that was made again from the log meanwhile asks for itself; the old one knows too little.
        asking, self._asking = [each for each in self._asking if self._is_held(each[0])], []
        try:
            answers = await self._admission.ask([question for _, _, question, _ in asking])
        except StorageError:
            self._asking = asking + self._asking
            raise
        for (state, visit, question, message), answer in zip(asking, answers, strict=True):
            if state.open.get(visit.exec_id) is not visit or visit.phase != "sent":
                continue  # later entries of the log, folded meanwhile, say what became of it
            entries: list[Entry] = []
            # The log is folded entry by entry, and the first that is enforced is done: so the strictest comes first.
            strict = sorted(answer.verdicts, key=lambda v: (v.enforced, STRICTNESS[v.action]), reverse=True)
            for verdict in strict:
                # What only warns says so once in a lifetime: the entry has the same id each time.
                number = state.resumes if verdict.enforced else "once"
                entries.append(verdict.event(question.digest, number))
            if answer.admitted:
                entries += await self._send_out(state, visit, message)
            elif not answer.over:
                self.refused += 1
            if entries:
                append = Append(state.tenant_id, state.lifetime_id, tuple(entries))
                self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), state.lifetime_id, append)

    def _in_force(self, state: LifetimeState) -> Rules:
        """The policies that are loaded for a lifetime now."""
        run = state.guard.rules.run if state.guard is not None else NO_POLICIES
        return self._policies.current(state.tenant_id, state.topology.graph.name, run)

    async def _wait(self, state: LifetimeState, visit: Visit) -> Event:
        """The `waiting` event of a human's or a signal's wait: exactly what is asked, as it will be shown."""
        node, data = state.topology.nodes[visit.node], decided_wait(state, visit)
        if visit.trouble:
            data["prompt"] = _TROUBLE[visit.trouble].format(visit=visit)
        elif node.human is not None:
            value = await self._cache.value(state.tenant_id, await self._cache.payload(state, visit.input))
            data["prompt"] = render_prompt(node, value)
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
        run = state.guard.rules.run if state.guard is not None else NO_POLICIES
        rules = self._policies.current(state.tenant_id, found[0].name, run)
        await self._policies.pin(rules)
        begun_by = (state.lifetime_id, visit)
        made, created = await begin(self._store, self._data_plane, lifetime, payload, begun_by, rules)
        if not created and made.ended:
            await self._retell(state, made.lifetime_id)
        elif not created:
            await self._take_up(made)  # another process may have left it
        return None

    async def _retell(self, state: LifetimeState, child_id: str) -> None:
        """A child that ended while nobody listened: its log says how, and the parent is told again."""
        child, told = await self._rebuilder.folded(state.tenant_id, child_id)
        for command in told:
            if child is not None:
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
            f"{CHILD}{child.lifetime_id}", result or (None if error else json_payload(None)), error, _used(child),
        )  # fmt: skip
        append = Append(child.tenant_id, parent_id, (done,))
        self._send(messages.topic(messages.DATA_PLANE, child.tenant_id), parent_id, append)

    def _cancel(self, state: LifetimeState, command: CancelRunning) -> None:
        nodes = state.topology.nodes
        running = tuple([v.exec_id for v in command.visits if v.begun and nodes[v.node].runs_code])
        if running:
            cancel = Cancel(state.tenant_id, state.lifetime_id, running, command.reason)
            self._send(messages.topic(messages.CANCELLATIONS, state.tenant_id), state.lifetime_id, cancel)
        for visit in command.visits:
            if nodes[visit.node].child is not None and visit.begun:
                child_id = child_lifetime_id(visit.exec_id, visit.created_at)
                event = Event("abort:parent", "abort_requested", {"reason": command.reason, "by": "parent"})
                projection = project(state.tenant_id, child_id, (event,))
                append = Append(state.tenant_id, child_id, (event,), projection)
                self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), child_id, append)

    def give_up(self, state: LifetimeState, lost: Sequence[Visit], why: str) -> None:
        """Has the attempts of workers that are gone recorded as lost, unless their own records come first.

        Of an `at_most_once` call that may have been made nobody knows what became of it; one that was not made yet
        loses its intent, so that no worker that was only slow can still make it. Both only if nothing happened to the
        lifetime meanwhile. Other attempts need no such condition: the first entry about an attempt is the one that
        counts, and a branch beside it that moves all the time must not keep it from being given up.
        """
        plain: list[Entry] = []
        careful: list[Entry] = []
        for visit in lost:
            if visit.intent:
                data = {"exec_id": visit.exec_id, "reason": why}
                careful.append(Event(f"unknown:{visit.exec_id}", "unknown", data))
                continue
            error = Error(LEASE_EXPIRED, why, retryable=True)
            given_up = visits.own_execution(state, visit, "TIMED_OUT", None, error)
            if revoked := visits.revoked(state, visit):
                careful += [*revoked, given_up]
            else:
                plain.append(given_up)
        for entries, expect in ((careful, state.seq), (plain, None)):
            if entries:
                projection = project(state.tenant_id, state.lifetime_id, entries)
                append = Append(state.tenant_id, state.lifetime_id, tuple(entries), projection, expect)
                self._send(messages.topic(messages.DATA_PLANE, state.tenant_id), state.lifetime_id, append)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, topic: str, key: str, message: object) -> None:
        self._out.setdefault(topic, []).append(BusMessage(key, messages.encode(message)))

    async def flush(self) -> None:
        """Publishes what was gathered, one call a topic. What bus or ledger refuse stays for the next time."""
        if self._asking:
            await self._admit()
        while self._out:
            topic, batch = next(iter(self._out.items()))
            await self._bus.publish(topic, batch)
            del self._out[topic]


_TROUBLE = {
    "unknown": (
        "`{visit.node}` may have run and nobody knows: its worker was lost after the call began. Say what happened: it "
        "succeeded (with which result), it failed, or it did not happen and is to be run again."
    ),
    "poison": (
        "`{visit.node}` was lost with its worker {visit.losses} times; it may be what ends them. Look at the "
        "code and at its input, then let it run again, or say how it ended."
    ),
}
"""What a person is asked about a visit in trouble."""


def as_shown(state: LifetimeState, entries: Sequence[Entry] = ()) -> LifetimeStatus:
    """The status for lists, once `entries` are in the log.

    While something else is decided that the log does not show, the lifetime has something to do: whoever looks for such
    lifetimes has to find it, should this process die.
    """
    status = state.status
    if status not in ("WAITING", "PAUSED"):
        return status
    said = {entry.entry_id for entry in entries}
    if any(entry_id not in said for entry_id in state.pending):
        return "RUNNING"
    if status == "WAITING":
        for visit in state.open.values():
            if visit.phase == "waiting" and not visit.asked and f"waiting:{visit.exec_id}" not in said:
                return "RUNNING"
    return status


def policies_event(since: int, digest: str) -> Event:
    """That a set is in force from here on; `since`: the entry that put the last one in force. So each change is one."""
    return Event(f"policies:{since}", "policies", {"digest": digest})


def _used(child: LifetimeState) -> Telemetry | None:
    """What a child lifetime used, for the budgets of its parent."""
    if not child.tokens_used and not child.cost_nano_usd and not child.unpriced:
        return None
    return Telemetry(tokens_used=child.tokens_used, cost_nano_usd=child.cost_nano_usd, unpriced=child.unpriced)


def _outdated(state: LifetimeState, rules: Rules) -> bool:
    """Whether other policies were loaded than those that the lifetime's log has put in force."""
    if state.ending is not None or state.seq == 0:
        return False
    return rules.digest != (state.guard.digest if state.guard is not None else "")


def _is_end(entry: Entry) -> bool:
    return isinstance(entry, Event) and entry.type in ("completed", "failed", "aborted")
