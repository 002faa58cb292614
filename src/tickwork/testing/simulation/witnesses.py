"""Invariants that no single log shows: what the ledger, the broker and the family of a lifetime have seen.

I3 user code is called by one worker at a time, and of `at_most_once` only after its intent was recorded · I12 only a
worker that is gone is given up · I17 tenants share no topic · I18 what cannot be read is kept as a dead letter · I19 a
fork begins as its parent did · the children of a visit are one child.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from tickwork.model.messages import DATA_PLANE, DEAD_LETTERS, PLAN_INPUTS, TASK_INPUTS, decode_input
from tickwork.model.records import Event, encode_entry
from tickwork.model.spending import LEASE_EXPIRED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.ports import BusMessage, Delivery
    from tickwork.testing.simulation.history import History
    from tickwork.testing.simulation.usercode import Call
    from tickwork.testing.simulation.world import World

STOPS_WITHIN = 30.0
"""Virtual seconds after the end of its lifetime within which a call that can be told to stop has stopped."""

SILENT = "was not heard of"
"""What is said of a worker whose lease ran out."""

GARBLED = b"\xc1"
"""What every message begins with that nobody can read."""


async def check(world: World, histories: dict[str, History]) -> None:
    """All of it, once everything is over."""
    _one_worker_at_a_time(world)
    _intents(world, histories)
    _gone(world, histories)
    _sent_once(world)
    _orphans(world, histories)
    _stopped(world, histories)
    _children(world, histories)
    _forks(world, histories)
    await _letters(world)


def _one_worker_at_a_time(world: World) -> None:
    """I3: claims keep two workers from the same work, as long as nothing befalls them or the key-value store."""
    if world.troubled or any(name.startswith("kv.") for name in world.options.rates):
        return
    for exec_id, calls in world.ledger.by_exec.items():
        for first, second in itertools.pairwise(calls):
            if first.ended is not None and second.began < first.ended and first.process != second.process:
                world.violation(
                    "I3", f"{first.node} {exec_id} was called by {first.process} and {second.process} at the same time"
                )


def _intents(world: World, histories: dict[str, History]) -> None:
    for exec_id, calls in world.ledger.by_exec.items():
        for call in calls:
            history = histories.get(call.lifetime_id)
            if history is None or history.graph.node[call.node].effect != "at_most_once":
                continue
            workers = [e.data["worker"] for e in history.events("intent") if e.data["exec_id"] == exec_id]
            if not any(workers):
                world.violation("I3", f"{call.node} {exec_id} is at_most_once and was called without a recorded intent")


def _sent_once(world: World) -> None:
    """I6: where messages are doubled and none is lost, a process sends each input once."""
    if world.troubled or world.options.processes > 1 or set(world.options.rates) - {"bus.double"}:
        return
    sent = world.network.customs.sent if world.network.customs is not None else {}
    for exec_id, count in sent.items():
        if count > 1:
            world.violation("I6", f"the input of {exec_id} was sent {count} times, and none was lost")


def _orphans(world: World, histories: dict[str, History]) -> None:
    """I7: a child that its parent gives up is aborted. Where nothing befalls processes and messages, it hears."""
    if world.troubled or any(name.startswith(("bus.", "store.")) for name in world.options.rates):
        return
    for history in histories.values():
        first = history.log[0].entry if history.log else None
        parent = first.data.get("parent") if isinstance(first, Event) else None
        if not parent or history.events("forked") or parent[0] not in histories:
            continue
        done = histories[parent[0]].executions.get(parent[1]["exec_id"])
        if done is None or done.status != "CANCELLED" or history.events("abort_requested"):
            continue
        if world.ended_at[history.lifetime.lifetime_id] > world.ended_at[parent[0]] + STOPS_WITHIN:
            world.violation("I7", f"the child {history.lifetime.lifetime_id} was given up and nobody told it")


def _gone(world: World, histories: dict[str, History]) -> None:
    """I12: where no process ever died, stopped or froze, and claims are kept, no attempt is lost with its worker; and
    a process alone does not give up what it runs itself. Whatever befalls the world, nobody is given up who runs the
    very call and never stood still: a key-value store that forgets or is away says nothing about workers."""
    _living_given_up(world, histories)
    if any(name.startswith("kv.") for name in world.options.rates):
        return
    if world.options.processes == 1 and not world.options.executors:
        _own_work_given_up(world, histories)
    if world.troubled:
        return
    # Of a call that has ended the record may be lost on its way.
    lossy = not {"bus.drop", "bus.garble"}.isdisjoint(world.options.rates)
    for history in histories.values():
        for entry in history.executions.values():
            if entry.error is not None and entry.error.type == LEASE_EXPIRED and SILENT in entry.error.message:
                world.violation("I12", f"{entry.name} {entry.exec_id} was given up, and its worker lives")
        for event in history.events("unknown"):
            exec_id = event.data["exec_id"]
            if SILENT in event.data["reason"] and (not lossy or _runs(world, exec_id)):
                world.violation("I12", f"{event.data['exec_id']} is taken for unknown, and its worker lives")


def _living_given_up(world: World, histories: dict[str, History]) -> None:
    for history in histories.values():
        silent = [e.data["exec_id"] for e in history.events("unknown") if SILENT in e.data["reason"]]
        silent += [
            entry.exec_id
            for entry in history.executions.values()
            if entry.error is not None and entry.error.type == LEASE_EXPIRED and SILENT in entry.error.message
        ]
        for exec_id in silent:
            at = world.lost_at.get(exec_id)
            if at is None:
                continue  # of a fork: it happened in the life before
            for call in world.ledger.by_exec.get(exec_id, []):
                # What a limit or a cancellation has ended, and goes on all the same, nobody waits for.
                lives = call.process not in world.faults.stood_still and not call.stubborn
                if lives and call.began < at < (call.ended or 0):
                    world.violation("I12", f"{call.node} {exec_id} was given up while {call.process} was running it")


def _runs(world: World, exec_id: str) -> bool:
    """Whether it was running when it was given up, in a process that could still record it: what no stop ends goes on
    in one that has left."""
    at, calls = world.lost_at.get(exec_id), world.ledger.by_exec.get(exec_id, [])
    if at is None or not calls:
        return False
    left = calls[-1].stubborn and calls[-1].process not in {process.name for process in world.processes if process.up}
    return not left and calls[-1].began < at < (calls[-1].ended or 0)


def _own_work_given_up(world: World, histories: dict[str, History]) -> None:
    for history in histories.values():
        # What a limit has ended was abandoned, and that is no mistake.
        known = {e.data["exec_id"] for e in history.events("unknown") if SILENT not in e.data["reason"]}
        for entry in history.executions.values():
            if entry.exec_id not in known and _runs(world, entry.exec_id):
                world.violation("I12", f"{entry.name} {entry.exec_id} was given up by the very process that ran it")


def _stopped(world: World, histories: dict[str, History]) -> None:
    """I7: what runs when its lifetime ends is told to stop. Where nothing befalls processes and messages, it hears."""
    if world.troubled or any(name.startswith(("bus.", "store.")) for name in world.options.rates):
        return
    for call in world.ledger.calls:
        history = histories.get(call.lifetime_id)
        end = world.ended_at.get(call.lifetime_id)
        if history is None or end is None or call.stubborn:
            continue
        ended = world.loop.time() if call.ended is None else call.ended
        if call.began < end and ended > end + STOPS_WITHIN:
            world.violation(
                "I7", f"{call.node} {call.exec_id} ran on for long after its lifetime had ended: {_span(call)}"
            )


def _span(call: Call) -> str:
    return f"{call.began:g} to {call.ended if call.ended is not None else 'ever':}"


def _children(world: World, histories: dict[str, History]) -> None:
    """A visit starts one child, whoever sends it and however often."""
    visits: Counter[str] = Counter()
    for history in histories.values():
        first = history.log[0].entry if history.log else None
        parent = first.data.get("parent") if isinstance(first, Event) else None
        if parent and not history.events("forked"):
            visits[parent[1]["exec_id"]] += 1
    for exec_id, count in visits.items():
        if count > 1:
            world.violation("I6", f"the visit {exec_id} started {count} children")


def _forks(world: World, histories: dict[str, History]) -> None:
    """I19: up to `forked` a fork has the very entries of its parent, with their times."""
    for history in histories.values():
        for seq, event in history.forks():
            parent = histories.get(event.data["lifetime_id"])
            if parent is None:
                world.violation("I19", f"{history.lifetime.lifetime_id} is a fork of what does not exist")
                continue
            for mine, theirs in zip(history.log[: seq - 1], parent.log, strict=False):
                if mine.at != theirs.at or encode_entry(mine.entry) != encode_entry(theirs.entry):
                    world.violation("I19", f"entry {mine.seq} of the fork {history.lifetime.lifetime_id} is another")
                    break
            if len(parent.log) < seq - 1:
                world.violation("I19", f"the fork {history.lifetime.lifetime_id} shares more than its parent has")


async def _letters(world: World) -> None:
    """I18: what was consumed although nobody could read it lies with the dead letters."""
    kept: set[bytes] = set()
    for tenant in world.tenants:
        kept.update([letter.value for letter in await world.database.store.dead_letters(tenant, 100_000)])
    lossy = any(name in world.options.rates for name in ("bus.drop", "bus.garble.twice"))
    for topic, value in world.unreadable:
        buried = value in kept or any(GARBLED + value[:9] == other for other in kept)
        direct = topic.startswith((f"{DATA_PLANE}.", f"{DEAD_LETTERS}."))
        if not buried and (direct or not lossy):
            world.violation("I18", f"what could not be read on {topic} was acknowledged and is not kept")


class Customs:
    """Watches the broker: whose messages are on whose topic, and who holds which key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: Counter[str] = Counter()
        """Inputs that were published, by exec id."""
        self.first_sent: dict[str, float] = {}
        """When (virtual seconds) each was published first."""
        self._held: dict[tuple[str, str, str], tuple[object, set[int]]] = {}

    def published(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """I17: the tenant of a message is that of its topic."""
        name, _, tenant = topic.partition(".")
        if tenant not in self.world.tenants:
            self.world.violation("I17", f"{topic} belongs to no tenant")
            return
        if name == DEAD_LETTERS:
            return
        if name in (TASK_INPUTS, PLAN_INPUTS):
            for message in messages:
                work = decode_input(message.value)
                if not work.reconcile:
                    self.sent[work.exec_id] += 1
                    self.first_sent.setdefault(work.exec_id, self.world.loop.time())
        mark = tenant.encode()
        for message in messages:
            if mark not in message.value[: 4 + len(mark)] and not message.value.startswith(GARBLED):
                self.world.violation("I17", f"a message on {topic} is of another tenant: {message.value[:24]!r}")

    def received(self, group: str, member: object, deliveries: Sequence[Delivery]) -> None:
        """A key has one holder at a time: whoever has messages of it that are not acknowledged."""
        for delivery in deliveries if group else ():  # the empty group is one of its own for each member
            key = (group, delivery.topic, delivery.message.key)
            holder, offsets = self._held.get(key, (member, set()))
            if holder is not member and offsets:
                self.world.violation(
                    "I4", f"key {key[2]} of {delivery.topic} is with two members of {group!r} at the same time"
                )
            if holder is not member:
                offsets = set()
            offsets.add(delivery.offset)
            self._held[key] = (member, offsets)

    def acknowledged(self, group: str, member: object, deliveries: Sequence[Delivery]) -> None:
        """Its messages are done."""
        for delivery in deliveries:
            held = self._held.get((group, delivery.topic, delivery.message.key))
            if held is not None and held[0] is member:
                held[1].discard(delivery.offset)

    def left(self, member: object) -> None:
        """A member left its group: it holds nothing any more."""
        for key in [key for key, (holder, _) in self._held.items() if holder is member]:
            del self._held[key]
