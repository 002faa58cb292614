"""The Data Plane: the only writer of the log.

It takes Appends in batches, has them persisted in one transaction (a duplicate is no new entry), and only then
publishes the references and acknowledges. A crash between those steps repeats work that is harmless to repeat: what is
found to be recorded already is announced again by a reference without entries, so that whoever missed the first one
reads the log.

A result of an attempt that has another one already is not applied, but kept: as a `superseded` event. What nobody can
decode, and what the store refuses, goes to the dead letters.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Never

import msgspec

from tickwork.errors import StorageError
from tickwork.model import messages
from tickwork.model.messages import Append, Committed, Receipt, dead_letter
from tickwork.model.records import Event, Execution, Payload, encode_entry
from tickwork.model.spending import CHILD, OURS
from tickwork.orchestrator.serving import PATIENCE, Serving
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.messages import DeadLetter
    from tickwork.model.records import Entry
    from tickwork.ports import Appended, Clock, DeadLetters, Delivery, EventBus, StateStore

log = logging.getLogger(__name__)

NOT_WORKERS = (OURS, CHILD, "human", "signal")
"""How the `executor` of executions begins that no worker made."""


class DataPlane:
    """Persists, then republishes. `run` serves the topic; `record` is for callers that need to know it is on disk."""

    def __init__(
        self,
        bus: EventBus,
        store: StateStore,
        letters: DeadLetters,
        clock: Clock,
        patience: float | None = PATIENCE,
    ) -> None:
        """`patience`: seconds for which a batch that the store refuses is tried; None: until it is taken."""
        self._bus, self._store, self._letters, self._clock = bus, store, letters, clock
        self._serving: Serving[Never] = Serving(bus, messages.DATA_PLANE, clock, patience)
        self._burying: Serving[Never] = Serving(bus, messages.DEAD_LETTERS, clock, patience)
        self.counts = {"recorded": 0, "duplicates": 0, "superseded": 0, "refused": 0, "stale": 0, "dead_letters": 0}
        """Entries (dead letters: messages) by what became of them, since the start of this process."""
        self.on_commit: list[Callable[[Committed], None]] = []
        """Called in this process for each reference, once it is durable; without entries when only a status changed."""
        self.on_refused: list[Callable[[str, Exception], None]] = []
        """Called in this process with a lifetime whose entries the store does not take, and why."""
        self.on_timer: Callable[[int], None] | None = None
        """Called with the due time (us) of the earliest timer of a batch."""
        self.hand_over: Callable[[Sequence[Committed]], Sequence[Committed]] | None = None
        """Takes references that the Control Plane of this process would get anyway; returns those that it does not."""

    async def start(self) -> None:
        """Joins its groups, so that nothing published from now on is missed."""
        await self._serving.start()
        await self._burying.start()

    async def run(self) -> None:
        """Serves the topics of all tenants until cancelled. After `start`."""
        await self._serving.run(self.run_once)

    async def run_dead_letters(self) -> None:
        """Takes in what others could not decode, until cancelled. After `start`."""
        await self._burying.run(self.bury)

    async def stop(self) -> None:
        """Takes no batch from now on; the loops end with those in hand."""
        await self._serving.stop()
        await self._burying.stop()

    async def run_once(self, deliveries: Sequence[Delivery]) -> None:
        """Persists one batch of messages."""
        batch: list[Append] = []
        taken: list[Delivery] = []
        dead: list[DeadLetter] = []
        for delivery in deliveries:
            try:
                append = messages.decode_append(delivery.message.value)
                if append.tenant_id != messages.tenant_of(delivery.topic):
                    # The topic is what binds a message to a tenant; what it says of itself is only a word.
                    claimed = f"it is for tenant {append.tenant_id}, and came on a topic of another"
                    dead.append(self._dead(delivery, claimed))
                    continue
                batch.append(append)
                taken.append(delivery)
            except msgspec.MsgspecError as error:
                dead.append(self._dead(delivery, f"it cannot be decoded: {error}"))
        if batch:
            results = await self.record(batch)
            late: list[Append] = []
            for delivery, append, appended in zip(taken, batch, results, strict=True):
                if appended.error is not None:
                    dead.append(self._dead(delivery, appended.error))
                    await self._tell_refused(append, StorageError(appended.error))
                if appended.differs or (appended.stale and append.expect is None):
                    late += _superseded(append, appended)
                if append.receipt:
                    await self._give_receipt(append, appended)
            if late:
                self.counts["superseded"] += len(late)
                await self.record(late)
        if dead:
            await self._bury(dead)

    async def _tell_refused(self, append: Append, error: StorageError) -> None:
        """Says that a lifetime's entries are not taken; not of a lifetime that is another tenant's."""
        found = await self._store.get_lifetime(append.tenant_id, append.lifetime_id)
        if any(lifetime.lifetime_id == append.lifetime_id for lifetime in found):
            for listener in self.on_refused:
                listener(append.lifetime_id, error)

    async def record(self, batch: Sequence[Append]) -> list[Appended]:
        """Persists these Appends and publishes their references. Raises StorageError; then nothing was published."""
        results = await self._store.append(batch)
        references: list[Committed] = []
        counts = self.counts
        for append, appended in zip(batch, results, strict=True):
            if appended.error is not None:
                counts["refused"] += len(append.entries)
            elif appended.stale:
                counts["stale"] += len(append.entries)
            elif append.entries:
                reference = _reference(append, appended)
                counts["recorded"] += len(reference.entries)
                counts["duplicates"] += len(append.entries) - len(reference.entries)
                references.append(reference)
        await self.announce(batch, references)
        for append in batch:
            if not append.entries and append.projection is not None:
                for listener in self.on_commit:
                    listener(messages.Committed(append.tenant_id, append.lifetime_id, 0, 0, ()))
        return results

    async def announce(self, batch: Sequence[Append], references: Sequence[Committed]) -> None:
        """Says what of these Appends is new, and when the earliest timer of them is due."""
        await self.publish(references)
        if self.on_timer is not None:
            due = [t.due for a in batch if a.projection is not None for t in a.projection.timers_set]
            if due:
                self.on_timer(min(due))

    async def publish(self, references: Sequence[Committed]) -> None:
        """Sends references to the Control Plane and to whoever watches in this process."""
        for reference in references:
            for listener in self.on_commit:
                listener(reference)
        by_tenant: dict[str, list[BusMessage]] = {}
        for reference in references if self.hand_over is None else self.hand_over(references):
            message = BusMessage(reference.lifetime_id, messages.encode(reference))
            by_tenant.setdefault(reference.tenant_id, []).append(message)
        for tenant_id, batch in by_tenant.items():
            await self._bus.publish(messages.topic(messages.CONTROL_PLANE, tenant_id), batch)

    async def bury(self, deliveries: Sequence[Delivery]) -> None:
        """Keeps messages of the dead-letter topic; their headers say where they came from, and why."""
        dead: list[DeadLetter] = []
        for delivery in deliveries:
            headers = dict(delivery.message.headers or {})
            topic, reason = headers.pop("topic", delivery.topic), headers.pop("reason", "no reason was given")
            key, value = delivery.message.key, delivery.message.value
            letter = dead_letter(topic, key, value, reason, self._clock.now(), headers or None)
            # The topic that it came on is what binds it to a tenant; a header is only a word.
            tenant_id = messages.tenant_of(delivery.topic)
            dead.append(msgspec.structs.replace(letter, tenant_id=tenant_id))
        await self._bury(dead)

    async def _bury(self, dead: Sequence[DeadLetter]) -> None:
        for letter in dead:
            log.error(
                "a message on %s goes to the dead letters (%s): %s", letter.topic, letter.letter_id, letter.reason
            )
        self.counts["dead_letters"] += len(dead)
        await self._letters.bury(dead)

    def _dead(self, delivery: Delivery, reason: str) -> DeadLetter:
        message = delivery.message
        return dead_letter(delivery.topic, message.key, message.value, reason, self._clock.now(), message.headers)

    async def _give_receipt(self, append: Append, appended: Appended) -> None:
        """Tells a worker whether its entry is in the log as it wrote it: new, or an exact duplicate of its own."""
        accepted = appended.error is None and not appended.stale and 0 not in appended.differs
        receipt = Receipt(append.tenant_id, append.lifetime_id, append.receipt, append.entries[0].entry_id, accepted)
        message = BusMessage(append.lifetime_id, messages.encode(receipt))
        await self._bus.publish(messages.topic(messages.RECEIPTS, append.tenant_id), [message])

    def depth(self) -> int:
        """Messages that wait to be recorded."""
        return self._serving.depth()


def _reference(append: Append, appended: Appended) -> Committed:
    """The reference to what is new in the log; without entries when all of it was there before."""
    fresh = [(seq, entry) for seq, entry in zip(appended.seqs, append.entries, strict=True) if seq is not None]
    if not fresh:
        return messages.Committed(append.tenant_id, append.lifetime_id, appended.last_seq + 1, appended.at, ())
    entries = tuple([_lighten(entry) for _, entry in fresh])
    return messages.Committed(append.tenant_id, append.lifetime_id, fresh[0][0], appended.at, entries)


def _superseded(append: Append, appended: Appended) -> list[Append]:
    """What came too late: results of workers whose attempt has another one in the log, or whose lifetime has ended."""
    late: list[Append] = []
    for entry in append.entries if appended.stale else [append.entries[index] for index in appended.differs]:
        if type(entry) is Execution and entry.status != "CANCELLED" and not entry.executor.startswith(NOT_WORKERS):
            named = hashlib.blake2b(encode_entry(entry), digest_size=6).hexdigest()
            data = {"exec_id": entry.exec_id, "execution": msgspec.to_builtins(entry, builtin_types=(bytes,))}
            event = Event(f"superseded:{entry.exec_id}:{named}", "superseded", data)
            late.append(Append(append.tenant_id, append.lifetime_id, (event,)))
    return late


def _lighten(entry: Entry) -> Entry:
    """The entry without a payload that is too large to travel with a reference."""
    if type(entry) is not Execution or entry.result is None or entry.result.inline is None:
        return entry
    if entry.result.size <= messages.REFERENCE_INLINE_LIMIT:
        return entry
    light = Payload(None, entry.result.content_type, None, entry.result.size, entry.result.sha256)
    return msgspec.structs.replace(entry, result=light)
