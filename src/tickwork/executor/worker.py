"""The executor: takes inputs from the bus, has user code run, publishes the records, and only then acknowledges.

An input is decoded, finds its code in the registry and gets a credit of its lane (async calls, threads or
subprocesses); without one it waits here, and only a bounded number waits. What ends is collected and published
together, one message a record and one publish a topic, and the inputs are acknowledged after that: a worker that dies
before has lost nothing, because its inputs are delivered to another.

An input for a graph that this process does not know is parked, not failed: another worker may know it, or it is bound
later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from tickwork import __version__
from tickwork.errors import StorageError
from tickwork.executor.attempt import Attempt
from tickwork.executor.lanes import Lanes
from tickwork.executor.outcome import Outcome
from tickwork.model import messages
from tickwork.model.messages import Append, Cancel
from tickwork.model.records import Error, Execution
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from tickwork.executor.attempt import HistoryReader
    from tickwork.executor.registry import Registry
    from tickwork.ports import BlobStore, Clock, Delivery, EventBus, Ids, Subscription

log = logging.getLogger(__name__)

GROUP = "executors"
BATCH = 1_000
"""Most inputs taken from the bus at once."""

BACKLOG = 1_000
"""Inputs that may wait here for a credit. More than that stays on the bus, where another worker can take it."""

RECORD_LIMIT = 32 * 1024 * 1024
"""Bytes of one record. Its payloads lie in the blob store by then; what is left is text that somebody wrote."""

RETRY_PUBLISH = 1.0
"""Seconds before records are published again that the bus refused."""

REMEMBERED_CANCELS = 10_000
"""Cancelled executions remembered, because a Cancel may overtake its input."""


class Executor:
    """Runs user code for all tenants. `start`, then `run` until cancelled."""

    def __init__(
        self,
        bus: EventBus,
        blobs: BlobStore,
        clock: Clock,
        ids: Ids,
        *,
        registry: Registry,
        history: HistoryReader,
        concurrency: int = 10_000,
        threads: int = 32,
        processes: int = 8,
    ) -> None:
        self._bus, self._clock, self._registry = bus, clock, registry
        self.name = f"{ids.token()} python/{__version__}"
        """How records name this worker: boot id, language and version."""
        self._lanes = Lanes(blobs, clock, history, self._ended, concurrency, threads, processes)
        self._attempts: dict[str, Attempt] = {}
        self._parked: dict[str, list[Delivery]] = {}
        self._cancelled: dict[str, str] = {}
        self._completed: list[tuple[Attempt, Execution]] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._inputs: Subscription | None = None
        self._cancels: Subscription | None = None
        self._limit = concurrency + BACKLOG
        self._taken = 0
        registry.on_bind(self._unpark)

    async def start(self) -> None:
        """Joins its groups, so that nothing published from now on is missed."""
        self._lanes.open(asyncio.get_running_loop())
        # The empty group is one of its own: every worker hears every cancellation.
        self._cancels = await self._bus.subscribe([f"{messages.CANCELLATIONS}.*"], "")
        topics = [f"{messages.TASK_INPUTS}.*", f"{messages.PLAN_INPUTS}.*"]
        self._inputs = await self._bus.subscribe(topics, GROUP)

    async def run(self) -> None:
        """Serves until cancelled; then what is running is stopped and stays unacknowledged. After `start`."""
        if self._inputs is None or self._cancels is None:
            raise RuntimeError("start() comes before run()")
        loops = [
            asyncio.create_task(loop, name=f"executor: {name}")
            for loop, name in (
                (self._take(self._inputs), "inputs"),
                (self._hear(self._cancels), "cancellations"),
                (self._publish(self._inputs), "records"),
            )
        ]
        try:
            ended, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in ended:
                loop.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._lanes.close(self._attempts.values())
            await self._inputs.close()
            await self._cancels.close()

    async def _take(self, subscription: Subscription) -> None:
        while True:
            while (free := self._limit - self._taken) <= 0:
                self._room.clear()
                await self._room.wait()
            deliveries = await subscription.receive(min(free, BATCH))
            if not deliveries:
                return  # the bus was stopped
            for delivery in deliveries:
                await self._accept(delivery, subscription)

    async def _accept(self, delivery: Delivery, subscription: Subscription) -> None:
        try:
            message = messages.decode_input(delivery.message.value)
        except msgspec.MsgspecError as error:
            await self._bury(delivery, str(error))
            await subscription.ack([delivery])
            return
        running = self._attempts.get(message.exec_id)
        if running is not None:
            running.deliveries.append(delivery)
            return
        bound = self._registry.find(message.graph_digest, message.node)
        if bound is None:
            self._park(delivery, message.graph_digest, message.node)
            return
        attempt = Attempt(delivery, message, bound, self._lanes)
        self._attempts[message.exec_id] = attempt
        self._taken += 1
        reason = self._cancelled.pop(message.exec_id, None)
        if reason is not None:
            self._ended(attempt, _cancelled(reason))
        else:
            self._lanes.submit(attempt)

    def _park(self, delivery: Delivery, digest: str, node: str) -> None:
        parked = self._parked.setdefault(digest, [])
        if not parked:
            log.warning(
                "inputs wait for a graph that this process has not loaded: %s, node %s. Load it here "
                "(name its file or module), or start a worker that has it",
                digest,
                node,
            )
        parked.append(delivery)

    def _unpark(self, digest: str) -> None:
        parked = self._parked.pop(digest, None)
        if parked and self._inputs is not None:
            self._lanes.later(self._accept_all(parked, self._inputs))

    async def _accept_all(self, deliveries: list[Delivery], subscription: Subscription) -> None:
        for delivery in deliveries:
            await self._accept(delivery, subscription)

    async def _hear(self, subscription: Subscription) -> None:
        while True:
            deliveries = await subscription.receive(BATCH)
            if not deliveries:
                return  # the bus was stopped
            for delivery in deliveries:
                try:
                    self._cancel(messages.decode_cancel(delivery.message.value))
                except msgspec.MsgspecError as error:
                    await self._bury(delivery, str(error))
            await subscription.ack(deliveries)

    def _cancel(self, cancel: Cancel) -> None:
        if cancel.exec_ids is None:
            found = [a for a in self._attempts.values() if a.message.lifetime_id == cancel.lifetime_id]
        else:
            found = []
            for exec_id in cancel.exec_ids:
                attempt = self._attempts.get(exec_id)
                if attempt is not None:
                    found.append(attempt)
                else:
                    self._cancelled[exec_id] = cancel.reason
            while len(self._cancelled) > REMEMBERED_CANCELS:
                del self._cancelled[next(iter(self._cancelled))]
        for attempt in found:
            self._lanes.stop(attempt, _cancelled(cancel.reason))

    def _ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt is over: its record joins those that are published next."""
        attempt.done = True
        execution = attempt.execution(outcome, self._clock.now(), self.name)
        self._completed.append((attempt, execution))
        self._wake.set()

    async def _publish(self, subscription: Subscription) -> None:
        """Publishes what ended since the last time, then acknowledges its inputs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            completed, self._completed = self._completed, []
            by_tenant: dict[str, list[BusMessage]] = {}
            for attempt, execution in completed:
                message = attempt.message
                value = self._encoded(attempt, execution)
                by_tenant.setdefault(message.tenant_id, []).append(BusMessage(message.lifetime_id, value))
            for tenant_id, batch in by_tenant.items():
                await self._publish_surely(messages.topic(messages.DATA_PLANE, tenant_id), batch)
            deliveries: list[Delivery] = []
            for attempt, _ in completed:
                deliveries += attempt.deliveries
                if attempt.stopping is None:
                    attempt.ctx.detach()  # no reference cycle is left for the collector
                del self._attempts[attempt.message.exec_id]
            self._taken -= len(completed)
            self._room.set()
            await subscription.ack(deliveries)

    def _encoded(self, attempt: Attempt, execution: Execution) -> bytes:
        """The record as it travels; of one that cannot be recorded, that it cannot be."""
        message = attempt.message
        try:
            value = messages.encode(Append(message.tenant_id, message.lifetime_id, (execution,)))
            if len(value) <= RECORD_LIMIT:
                return value
            why = f"the record has {len(value):,} bytes, and {RECORD_LIMIT:,} is the limit; look at reason and details"
        except (TypeError, ValueError, OverflowError) as fault:
            why = f"the record cannot be written: {fault}"
        failed = Outcome("FAILED", None, Error("EncodingError", why, retryable=False))
        execution = attempt.execution(failed, execution.finished_at, self.name)
        return messages.encode(Append(message.tenant_id, message.lifetime_id, (execution,)))

    async def _publish_surely(self, topic: str, batch: list[BusMessage]) -> None:
        while True:
            try:
                await self._bus.publish(topic, batch)
            except StorageError as error:
                log.warning("the bus refused %d records for %s, trying again: %s", len(batch), topic, error)
                await self._clock.sleep(RETRY_PUBLISH)
            else:
                return

    async def _bury(self, delivery: Delivery, why: str) -> None:
        tenant_id = delivery.topic.partition(".")[2]
        log.error("a message on %s cannot be decoded and goes to the dead letters: %s", delivery.topic, why)
        headers = {"reason": why, "topic": delivery.topic}
        dead = BusMessage(delivery.message.key, delivery.message.value, headers)
        await self._bus.publish(messages.topic(messages.DEAD_LETTERS, tenant_id), [dead])


def _cancelled(reason: str) -> Outcome:
    return Outcome("CANCELLED", None, Error("Cancelled", reason, retryable=False))
