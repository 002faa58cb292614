"""The executor: takes inputs from the bus, has user code run, publishes the records, and only then acknowledges.

An input is decoded, finds its code in the registry and gets a credit of its lane (async calls, threads or
subprocesses); without one it waits here, and only a bounded number waits. What ends is collected and published
together, one message a record and one publish a topic, and the inputs are acknowledged after that: a worker that dies
before has lost nothing, because its inputs are delivered to another.

An input for a graph that this process does not know is parked, not failed: another worker may know it, or it is bound
later.

What is taken is claimed (`claims`), so that no second worker takes it and the sweeper knows that somebody is at it. Of
an `at_most_once` Task the intent is recorded before its code is called, and only the worker whose intent is in the log
may call it (`intents`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from tickwork import __version__
from tickwork.errors import StorageError
from tickwork.executor.attempt import Attempt
from tickwork.executor.claims import Claims, Published
from tickwork.executor.lanes import Lanes
from tickwork.executor.outcome import Outcome
from tickwork.executor.pace import Pace, TenantRates
from tickwork.executor.verdicts import hook_of, verdict
from tickwork.model import messages
from tickwork.model.claims import LEASE, for_each
from tickwork.model.lifetime import Projection
from tickwork.model.messages import Append, Cancel, Receipt
from tickwork.model.records import Error, Execution, intent
from tickwork.ports import BusMessage
from tickwork.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.executor.attempt import HistoryReader
    from tickwork.executor.registry import Registry
    from tickwork.model.messages import NodeInput
    from tickwork.model.records import Entry
    from tickwork.ports import BlobStore, Clock, Delivery, EventBus, Ids, KVStore, Subscription
    from tickwork.sdk.prices import Prices

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

PARKED = 10_000
"""Inputs for graphs that are not loaded here that are kept for the moment when one is. The oldest ones beyond it are
let go: nobody has claimed them, so the sweeper sends them again."""

STRANGE = 5.0
"""Seconds that an input may wait for its graph before that is told: a worker that starts takes inputs at once, and its
graphs are bound one after the other."""

DRAIN_LOOK = 0.02
"""Seconds between two looks whether all is recorded, while it drains."""

REMEMBERED_CANCELS = 10_000
"""Cancelled executions remembered, because a Cancel may overtake its input."""


class Executor:
    """Runs user code for all tenants. `start`, then `run` until cancelled."""

    def __init__(
        self,
        bus: EventBus,
        blobs: BlobStore,
        kv: KVStore,
        clock: Clock,
        ids: Ids,
        *,
        registry: Registry,
        history: HistoryReader,
        concurrency: int = 10_000,
        threads: int = 32,
        processes: int = 8,
        lease: float = LEASE,
        prices: Prices | None = None,
        pool: str = GROUP,
        rates: TenantRates | None = None,
    ) -> None:
        """`pool`: the group that shares the inputs of all graphs. One of another name serves its own graphs alone and
        leaves all others to the pools that know them; the empty one is a pool of this worker alone. `rates`: how many
        executions a second the pool begins for a tenant."""
        self._bus, self._clock, self._registry = bus, clock, registry
        self._publishing = Trouble(log, "sending records", clock)
        self.name = f"{ids.token()} python/{__version__}"
        """How records name this worker: boot id, language and version."""
        self._claims = Claims(kv, clock, self.name, lease)
        self._published = Published()
        self._lanes = Lanes(blobs, clock, history, concurrency, threads, processes, self, prices)
        self._pace = Pace(rates or TenantRates(), clock, self._lanes.later)
        self._attempts: dict[str, Attempt] = {}
        """By work id: at most one attempt at a time at the same work."""
        self._claiming: dict[str, Attempt] = {}
        """Those that are being claimed: their input may come a second time meanwhile."""
        self._begun = 0
        """Attempts that were made of inputs so far, which numbers them."""
        self._failure: Exception | None = None
        """What went wrong when an attempt published its own record: the executor's loop ends of it."""
        self._asking: dict[str, Attempt] = {}
        """Attempts whose intent is not in the log yet, by the intent's entry id."""
        self._parked: dict[str, dict[str, Delivery]] = {}
        self._cancelled: dict[str, str] = {}
        self._completed: list[tuple[Attempt, Entry]] = []
        self._permits: list[Attempt] = []
        self.counts = {"taken": 0, "recorded": 0, "repeated_intents": 0, "repeated_records": 0, "undecodable": 0}
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._inputs: Subscription | None = None
        self._cancels: Subscription | None = None
        self._receipts: Subscription | None = None
        self._limit = concurrency + BACKLOG
        self._taken = 0
        self._pool = pool
        self._complete = False
        self._draining = False
        self._receiving: asyncio.Task[None] | None = None
        """The loop that takes inputs, while it waits for some."""
        registry.on_bind(self._unpark)

    async def start(self) -> None:
        """Joins its groups, so that nothing published from now on is missed."""
        self._lanes.open(asyncio.get_running_loop())
        # The empty group is one of its own: every worker hears every cancellation, and every receipt.
        self._cancels = await self._bus.subscribe([f"{messages.CANCELLATIONS}.*"], "")
        self._receipts = await self._bus.subscribe([f"{messages.RECEIPTS}.*"], "")
        topics = [f"{name}.*" for name in messages.INPUTS]
        self._inputs = await self._bus.subscribe(topics, self._pool)

    async def run(self) -> None:
        """Serves until cancelled; then what is running is stopped and stays unacknowledged. After `start`."""
        if self._inputs is None or self._cancels is None or self._receipts is None:
            raise RuntimeError("start() comes before run()")
        loops = [
            asyncio.create_task(loop, name=f"executor: {name}")
            for loop, name in (
                (self._take(self._inputs), "inputs"),
                (self._hear(self._cancels, self._on_cancel), "cancellations"),
                (self._hear(self._receipts, self._on_receipt), "receipts"),
                (self._publish(self._inputs), "records"),
                (self._beat(), "beats"),
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
            for subscription in (self._inputs, self._cancels, self._receipts):
                await subscription.close()

    async def drain(self, hand_over: float, seconds: float) -> int:
        """Takes no more inputs; returns when what is in hand is recorded, at the latest after so many seconds: how much
        of it is not.

        After `hand_over` seconds it leaves the group, so that others get what comes: what still runs here is claimed.
        """
        self._draining = True
        if self._receiving is not None:
            self._receiving.cancel()
        begun = self._clock.monotonic()
        for until in (begun + hand_over, begun + seconds):
            while self._taken and self._clock.monotonic() < until:
                await self._clock.sleep(DRAIN_LOOK)
            if self._inputs is not None:
                await self._inputs.close()
        return self._taken

    def complete(self) -> None:
        """All graphs that are served here are bound: inputs of others are for other pools, if this is a named one."""
        self._complete = True
        if self._pool != GROUP:
            parked, self._parked = self._parked, {}
            left = [delivery for waiting in parked.values() for delivery in waiting.values()]
            if left and self._inputs is not None:
                self._lanes.later(self._inputs.ack(left))

    async def _take(self, subscription: Subscription) -> None:
        while True:
            while (free := self._limit - self._taken) <= 0 and not self._draining:
                self._room.clear()
                await self._room.wait()
            deliveries = await self._received(subscription, free)
            if not deliveries:
                return  # the bus was stopped
            await self._accept_all(deliveries, subscription)

    async def _received(self, subscription: Subscription, free: int) -> list[Delivery]:
        if not self._draining:
            self._receiving = task = asyncio.current_task()
            try:
                return await subscription.receive(min(free, BATCH), self._pace.gate(subscription))
            except asyncio.CancelledError:
                # The drain cancels the waiting alone; who ends the executor in the same moment cancels a second time.
                if not self._draining or task is None or task.uncancel():
                    raise
            finally:
                self._receiving = None
        await asyncio.Event().wait()  # until the executor ends: nothing more is taken
        return []

    async def _accept_all(self, deliveries: list[Delivery], subscription: Subscription) -> None:
        """Takes what is new among these inputs: one after the other, but for the claims, which all go out together."""
        wanted: list[Attempt] = []
        for delivery in deliveries:
            attempt = await self._sort(delivery, subscription)
            if attempt is not None:
                wanted.append(attempt)
            else:
                self._pace.give_back(messages.tenant_of(delivery.topic))
        await for_each(wanted, self._claim)

    async def _sort(self, delivery: Delivery, subscription: Subscription) -> Attempt | None:
        """The attempt that an input asks for; None when there is nothing to begin, and its input is cared for."""
        try:
            message = messages.decode_input(delivery.message.value)
        except msgspec.MsgspecError as error:
            await self._bury(delivery, str(error))
            await subscription.ack([delivery])
            return None
        work_id = message.work_id
        running = self._attempts.get(work_id) or self._claiming.get(work_id)
        if running is not None:
            running.deliveries.append(delivery)
            return None
        record = self._published.get(work_id)
        if record is not None:
            self.counts["repeated_records"] += 1
            again = BusMessage(message.lifetime_id, record)
            await self._publish_surely(messages.topic(messages.DATA_PLANE, message.tenant_id), [again])
            await subscription.ack([delivery])
            return None
        bound = self._registry.find(message.graph_digest, message.node)
        if bound is None:
            if self._complete and self._pool != GROUP:
                await subscription.ack([delivery])
            else:
                await self._park(delivery, message, subscription)
            return None
        self._begun += 1
        name = f"{self.name} #{self._begun}"
        hook = hook_of(bound) if message.reconcile else None
        attempt = self._claiming[work_id] = Attempt(delivery, message, hook or bound, self._lanes, name)
        self._taken += 1
        return attempt

    async def _claim(self, attempt: Attempt) -> None:
        """Begins an attempt, unless another worker has it."""
        message = attempt.message
        work_id = message.work_id
        attempt.claimed = self._clock.monotonic()
        taken = await self._claims.take(work_id)
        del self._claiming[work_id]
        if not taken:
            self._taken -= 1
            self._pace.give_back(messages.tenant_of(attempt.deliveries[0].topic))
            self._room.set()
            if self._inputs is not None:
                await self._inputs.ack(attempt.deliveries)
            return
        self._attempts[work_id] = attempt
        self.counts["taken"] += 1
        reason = self._cancelled.pop(message.exec_id, None)
        if reason is not None:
            self.ended(attempt, _cancelled(reason))
        elif message.reconcile and attempt.bound.implementation.reconcile is None:
            self.ended(attempt, Outcome("FAILED", None, Error("NoHook", f"`{message.node}` has no reconcile hook")))
        else:
            self._lanes.submit(attempt)

    async def _park(self, delivery: Delivery, message: NodeInput, subscription: Subscription) -> None:
        parked = self._parked.setdefault(message.graph_digest, {})
        if not parked:
            self._lanes.later(self._tell_if_still_parked(message))
        before = parked.pop(message.work_id, None)
        if before is not None:
            await subscription.ack([before])  # the sweeper sent it again
        elif self._parked_count() >= PARKED:
            await self._let_go_of_oldest(subscription)
        parked[message.work_id] = delivery

    async def _tell_if_still_parked(self, message: NodeInput) -> None:
        await self._clock.sleep(STRANGE)
        if self._parked.get(message.graph_digest):
            log.warning(
                "inputs wait for a graph that this process has not loaded: %s, node %s. Load it here "
                "(name its file or module), or start a worker that has it",
                message.graph_digest,
                message.node,
            )

    def _parked_count(self) -> int:
        return sum(len(parked) for parked in self._parked.values())

    async def _let_go_of_oldest(self, subscription: Subscription) -> None:
        oldest = next(parked for parked in self._parked.values() if parked)
        await subscription.ack([oldest.pop(next(iter(oldest)))])

    def _unpark(self, digest: str) -> None:
        parked = self._parked.pop(digest, None)
        if parked and self._inputs is not None:
            self._lanes.later(self._accept_all(list(parked.values()), self._inputs))

    # -- what every worker hears

    async def _hear(self, subscription: Subscription, handle: Callable[[bytes], None]) -> None:
        while True:
            deliveries = await subscription.receive(BATCH)
            if not deliveries:
                return  # the bus was stopped
            for delivery in deliveries:
                try:
                    handle(delivery.message.value)
                except msgspec.MsgspecError as error:
                    await self._bury(delivery, str(error))
            await subscription.ack(deliveries)

    def _on_cancel(self, value: bytes) -> None:
        self._cancel(messages.decode_cancel(value))

    def _on_receipt(self, value: bytes) -> None:
        receipt = messages.decode_receipt(value)
        attempt = self._asking.get(receipt.entry_id)
        if attempt is not None and attempt.name == receipt.worker:
            self._permit(attempt, receipt)

    async def _beat(self) -> None:
        """Says that this worker lives, and asks again for receipts that did not come."""
        while True:
            await self._clock.sleep(self._claims.interval)
            begun = self._clock.monotonic()
            for entry_id, attempt in list(self._asking.items()):
                if attempt.done or self._silent(attempt):
                    self._refuse(entry_id, attempt)
            held = list(self._attempts.values())
            refused = frozenset(await self._claims.beat(self._attempts, [each.message.work_id for each in held]))
            for attempt in held:
                if attempt.message.work_id not in refused:
                    attempt.claimed = begun
            self.counts["repeated_intents"] += len(self._asking)
            self._permits += self._asking.values()
            self._wake.set()

    # -- at most once

    def ask_permit(self, attempt: Attempt) -> None:
        """User code may not be called before the log shows that it was this worker that was going to."""
        self._asking[intent(attempt.message.exec_id, attempt.name).id] = attempt
        self._permits.append(attempt)
        self._wake.set()

    def _permit(self, attempt: Attempt, receipt: Receipt) -> None:
        if receipt.accepted and not attempt.done and not self._silent(attempt):
            del self._asking[receipt.entry_id]
            self._lanes.permitted(attempt)
        else:
            self._refuse(receipt.entry_id, attempt)

    def _silent(self, attempt: Attempt) -> bool:
        """Whether its claim was not renewed for a lease, so that it may have been given up: this process was frozen, or
        the store of claims did not answer. Somebody may have found out by now that the call was not made."""
        return self._clock.monotonic() - attempt.claimed >= self._claims.lease

    def _refuse(self, entry_id: str, attempt: Attempt) -> None:
        """Another worker was first, or the attempt was given up: what becomes of it is not for this one to say."""
        del self._asking[entry_id]
        if not attempt.done:
            self.give_back(attempt)

    def give_back(self, attempt: Attempt) -> None:
        """The attempt does not begin here: nothing is recorded of it, and nobody has it any more."""
        self._lanes.drop(attempt)
        self._lanes.later(self._dropped(attempt))

    async def _dropped(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.message.work_id, None)
        self._taken -= 1
        self._room.set()
        await self._claims.release([attempt.message.work_id])
        if self._inputs is not None:
            await self._inputs.ack(attempt.deliveries)

    def _cancel(self, cancel: Cancel) -> None:
        if cancel.exec_ids is None:
            found = [a for a in self._attempts.values() if a.message.lifetime_id == cancel.lifetime_id]
            claiming = [a for a in self._claiming.values() if a.message.lifetime_id == cancel.lifetime_id]
            self._cancelled |= {attempt.message.exec_id: cancel.reason for attempt in claiming}
        else:
            found = []
            for exec_id in cancel.exec_ids:
                attempt = self._attempts.get(exec_id)  # a hook is not cancelled: it only looks
                if attempt is not None:
                    found.append(attempt)
                else:
                    self._cancelled[exec_id] = cancel.reason
            while len(self._cancelled) > REMEMBERED_CANCELS:
                del self._cancelled[next(iter(self._cancelled))]
        for attempt in found:
            self._lanes.stop(attempt, _cancelled(cancel.reason))

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt is over: what is recorded of it joins what is published next."""
        attempt.done = True
        self._completed.append((attempt, verdict(attempt, outcome, self._clock.now(), self.name)))
        self._wake.set()

    async def _publish(self, subscription: Subscription) -> None:
        """Publishes what ended since the last time, then acknowledges its inputs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            await self._flush(subscription)

    async def publish_alone(self) -> None:
        """Publishes at once what ended, where it was the only attempt: there is nothing to collect."""
        if self._inputs is not None and len(self._attempts) == 1 and self._completed:
            self._wake.clear()
            try:
                await self._flush(self._inputs)
            except Exception as error:  # noqa: BLE001 - whatever it is ends the executor, not only this attempt's task
                self._failure = error
                self._wake.set()

    async def _flush(self, subscription: Subscription) -> None:
        permits, self._permits = self._permits, []
        completed, self._completed = self._completed, []
        by_tenant: dict[str, list[BusMessage]] = {}
        for attempt in permits:
            if not attempt.done:
                by_tenant.setdefault(attempt.message.tenant_id, []).append(self._intent(attempt))
        for attempt, entry in completed:
            message = attempt.message
            value = self._encoded(attempt, entry)
            self._published.keep(message.work_id, value)
            by_tenant.setdefault(message.tenant_id, []).append(BusMessage(message.lifetime_id, value))
        for tenant_id, batch in by_tenant.items():
            await self._publish_surely(messages.topic(messages.DATA_PLANE, tenant_id), batch)
        if completed:
            await self._settle([attempt for attempt, _ in completed], subscription)

    async def _settle(self, completed: list[Attempt], subscription: Subscription) -> None:
        """Lets go of attempts whose records are published."""
        deliveries: list[Delivery] = []
        for attempt in completed:
            deliveries += attempt.deliveries
            if attempt.stopping is None:
                attempt.ctx.detach()  # no reference cycle is left for the collector
            del self._attempts[attempt.message.work_id]
        self._taken -= len(completed)
        self.counts["recorded"] += len(completed)
        self._room.set()
        await self._claims.release([attempt.message.work_id for attempt in completed])
        await subscription.ack(deliveries)

    def _intent(self, attempt: Attempt) -> BusMessage:
        message = attempt.message
        # Not the worker but this one attempt: should the input come to it again when all is over, it is refused.
        entry = intent(message.exec_id, attempt.name)
        append = Append(message.tenant_id, message.lifetime_id, (entry,), receipt=attempt.name)
        return BusMessage(message.lifetime_id, messages.encode(append))

    def _encoded(self, attempt: Attempt, entry: Entry) -> bytes:
        """The record as it travels; of one that cannot be recorded, that it cannot be."""
        try:
            value = messages.encode(_append(attempt, entry))
            if len(value) <= RECORD_LIMIT:
                return value
            why = f"the record has {len(value):,} bytes, and {RECORD_LIMIT:,} is the limit; look at reason and details"
        except (TypeError, ValueError, OverflowError) as fault:
            why = f"the record cannot be written: {fault}"
        failed = Outcome("FAILED", None, Error("EncodingError", why, retryable=False))
        return messages.encode(_append(attempt, attempt.execution(failed, self._clock.now(), self.name)))

    def metrics(self) -> dict[str, float]:
        """Counters and sizes of this worker, by name."""
        return {
            **self.counts,
            "refused": self._claims.refused,
            "queued": sum(self._bus.depth(f"{name}.*", self._pool) for name in messages.INPUTS),
            "tenants_held": len(self._pace.held_back),
            "rate_waits": self._pace.waits,
            "held": self._taken,
            "held_limit": self._limit,
            "parked": self._parked_count(),
            "parked_limit": PARKED,
        }

    async def _publish_surely(self, topic: str, batch: list[BusMessage]) -> None:
        while True:
            try:
                await self._bus.publish(topic, batch)
            except StorageError as error:
                self._publishing.heard(error)
                await self._clock.sleep(RETRY_PUBLISH)
            else:
                self._publishing.over()
                return

    async def _bury(self, delivery: Delivery, why: str) -> None:
        tenant_id = messages.tenant_of(delivery.topic)
        self.counts["undecodable"] += 1
        headers = {"reason": f"it cannot be decoded: {why}", "topic": delivery.topic}
        dead = BusMessage(delivery.message.key, delivery.message.value, headers)
        await self._bus.publish(messages.topic(messages.DEAD_LETTERS, tenant_id), [dead])


def _append(attempt: Attempt, entry: Entry) -> Append:
    """What is recorded of an attempt. Of an `at_most_once` Task somebody may have been asked about it meanwhile."""
    message = attempt.message
    projection = None
    if message.effect == "at_most_once":
        closed = (message.exec_id,) if isinstance(entry, Execution) else ()
        projection = Projection("RUNNING", questions_closed=closed)
    return Append(message.tenant_id, message.lifetime_id, (entry,), projection)


def _cancelled(reason: str) -> Outcome:
    return Outcome("CANCELLED", None, Error("Cancelled", reason, retryable=False))
