"""The Data Plane: the only writer of the log.

It takes Appends in batches, has them persisted in one transaction (a duplicate is no new entry), and only then
publishes the references and acknowledges. A crash between those steps repeats work that is harmless to repeat.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from tickwork.errors import StorageError
from tickwork.model import messages
from tickwork.model.records import Execution, Payload
from tickwork.orchestrator.serving import Serving
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.messages import Append, Committed
    from tickwork.model.records import Entry
    from tickwork.ports import Appended, Delivery, EventBus, StateStore

log = logging.getLogger(__name__)


class DataPlane:
    """Persists, then republishes. `run` serves the topic; `record` is for callers that need to know it is on disk."""

    def __init__(self, bus: EventBus, store: StateStore) -> None:
        self._bus = bus
        self._store = store
        self._serving = Serving(bus, messages.DATA_PLANE)
        self.on_commit: list[Callable[[Committed], None]] = []
        """Called in this process for each reference, once it is durable; without entries when only a status changed."""
        self.on_refused: list[Callable[[str, Exception], None]] = []
        """Called in this process with a lifetime whose entries the store does not take, and why."""
        self.on_timer: Callable[[int], None] | None = None
        """Called with the due time (us) of the earliest timer of a batch."""

    async def start(self) -> None:
        """Joins its group, so that nothing published from now on is missed."""
        await self._serving.start()

    async def run(self) -> None:
        """Serves the topics of all tenants until cancelled. After `start`."""
        await self._serving.run(self.run_once)

    async def run_once(self, deliveries: Sequence[Delivery]) -> None:
        """Persists one batch of messages; what cannot be decoded goes to the dead letters."""
        batch: list[Append] = []
        for delivery in deliveries:
            try:
                batch.append(messages.decode_append(delivery.message.value))
            except msgspec.MsgspecError as error:
                await self._bury(delivery, str(error))
        if batch:
            for append, appended in zip(batch, await self.record(batch), strict=True):
                if appended.error is not None:
                    log.error("lifetime %s: an append was refused: %s", append.lifetime_id, appended.error)
                    for listener in self.on_refused:
                        listener(append.lifetime_id, StorageError(appended.error))

    async def record(self, batch: Sequence[Append]) -> list[Appended]:
        """Persists these Appends and publishes their references. Raises StorageError; then nothing was published."""
        results = await self._store.append(batch)
        await self.publish(
            [
                reference
                for append, appended in zip(batch, results, strict=True)
                if (reference := _reference(append, appended)) is not None
            ]
        )
        for append in batch:
            if not append.entries and append.projection is not None:
                for listener in self.on_commit:
                    listener(messages.Committed(append.tenant_id, append.lifetime_id, 0, 0, ()))
        if self.on_timer is not None:
            due = [t.due for a in batch if a.projection is not None for t in a.projection.timers_set]
            if due:
                self.on_timer(min(due))
        return results

    async def publish(self, references: Sequence[Committed]) -> None:
        """Sends references to the Control Plane and to whoever watches in this process."""
        by_tenant: dict[str, list[BusMessage]] = {}
        for reference in references:
            message = BusMessage(reference.lifetime_id, messages.encode(reference))
            by_tenant.setdefault(reference.tenant_id, []).append(message)
            for listener in self.on_commit:
                listener(reference)
        for tenant_id, batch in by_tenant.items():
            await self._bus.publish(messages.topic(messages.CONTROL_PLANE, tenant_id), batch)

    async def _bury(self, delivery: Delivery, why: str) -> None:
        tenant_id = delivery.topic.partition(".")[2]
        log.error("a message on %s cannot be decoded and goes to the dead letters: %s", delivery.topic, why)
        headers = {"reason": why, "topic": delivery.topic}
        dead = BusMessage(delivery.message.key, delivery.message.value, headers)
        await self._bus.publish(messages.topic(messages.DEAD_LETTERS, tenant_id), [dead])


def _reference(append: Append, appended: Appended) -> Committed | None:
    """The reference to what is new in the log; None when all of it was there before."""
    if appended.error is not None or not append.entries:
        return None
    fresh = [(seq, entry) for seq, entry in zip(appended.seqs, append.entries, strict=True) if seq is not None]
    if not fresh:
        return None
    entries = tuple([_lighten(entry) for _, entry in fresh])
    return messages.Committed(append.tenant_id, append.lifetime_id, fresh[0][0], appended.at, entries)


def _lighten(entry: Entry) -> Entry:
    """The entry without a payload that is too large to travel with a reference."""
    if type(entry) is not Execution or entry.result is None or entry.result.inline is None:
        return entry
    if entry.result.size <= messages.REFERENCE_INLINE_LIMIT:
        return entry
    light = Payload(None, entry.result.content_type, None, entry.result.size, entry.result.sha256)
    return msgspec.structs.replace(entry, result=light)
