"""The crash points of a process, and what happens at one: SIGKILL, SIGSTOP, an exception.

Nothing in `src` knows of them. In a process that is to be hit, `install` wraps the ports that the executor, the Data
Plane and the Control Plane are given (each gets its own wrapper, so a message is told from another by who sends it),
and the few inner steps that no port shows: the transaction, the fold, the arming of a timer.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tickwork import payloads
from tickwork.adapters.state.sqlite import group_commit
from tickwork.adapters.state.sqlite.transaction import GraphUnit, Transaction
from tickwork.errors import StorageError
from tickwork.executor.worker import Executor
from tickwork.model import messages
from tickwork.orchestrator import control_plane, rebuilding
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.data_plane import DataPlane
from tickwork.orchestrator.performing import Performer
from tickwork.orchestrator.sweeper import Sweeper
from tickwork.ports import BlobStore, BusMessage, Delivery, EventBus, KVStore, Subscription

POINTS = {
    "E1": "the executor received inputs",
    "E2": "before it claims one",
    "E3": "it has claimed one",
    "E4": "user code has been called, and has said so in the ledger",
    "E5": "user code is done, the upload of its large result begins",
    "E6": "records or an intent are about to be sent (large results are durable)",
    "E7": "they are sent, no input is acknowledged",
    "E8": "the inputs are acknowledged",
    "D1": "the Data Plane received appends",
    "D2": "in the transaction, nothing inserted",
    "D3": "rows inserted, not committed",
    "D4": "committed, references not sent",
    "D5": "references sent, appends not acknowledged",
    "D6": "the appends are acknowledged",
    "D7": "a checkpoint of the WAL begins",
    "C1": "the Control Plane received references",
    "C2": "the state is at hand, nothing folded",
    "C3": "an entry is folded",
    "C4": "decided what is to happen",
    "C5": "messages built, none sent",
    "C6": "half of them sent",
    "C7": "all sent, references not acknowledged",
    "C8": "a timer is armed",
}
FAULTS = ("kill", "stop", "error")

BLOB_LIMIT = 2_000
"""Bytes above which a result goes to the blob store in a process that is to be hit: blobs, without moving megabytes."""

CHECKPOINT_PAGES = 8
"""Likewise: a checkpoint now and then, without writing megabytes first."""


class Order(msgspec.Struct):
    """What to do at the `at`-th passing of `point`. `fault`: kill, stop, error (RuntimeError) or storage."""

    point: str
    at: int
    fault: str


class Planted(RuntimeError):
    """The exception that is raised at a point; no code expects it."""


class Points:
    """Counts the passings of every point in this process, and carries out the order when it is due."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.order: Order | None = None
        self.fired: Callable[[], None] = lambda: None
        """Called just before the fault; what it writes tells the harness that the point was reached."""
        self._lock = threading.Lock()  # user code and commits pass points in threads

    def reach(self, point: str) -> None:
        """One passing of a point."""
        order = self.order
        with self._lock:
            self.passed[point] += 1
            if order is None or order.point != point or self.passed[point] != order.at:
                return
        self.fired()
        if order.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif order.fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif order.fault == "storage":
            raise StorageError(f"planted at {point}")
        else:
            raise Planted(f"planted at {point}")


points = Points()


class Seen(msgspec.Struct, frozen=True):
    """The points that one component passes at the bus; "" where it passes none."""

    topics: str
    """Which of its subscriptions count: those whose first topic begins so."""
    received: str = ""
    sending: str = ""
    half: str = ""
    sent: str = ""
    acking: str = ""
    acked: str = ""
    only: str = ""
    """Which topics count when it sends: those that begin so."""


EXECUTOR = Seen(messages.TASK_INPUTS, "E1", sending="E6", sent="E7", acked="E8", only=messages.DATA_PLANE)
DATA = Seen(messages.DATA_PLANE, "D1", sending="D4", sent="D5", acked="D6", only=messages.CONTROL_PLANE)
CONTROL = Seen(messages.CONTROL_PLANE, "C1", sending="C5", half="C6", acking="C7")


class SeenBus:
    """The bus as one component has it."""

    def __init__(self, bus: EventBus, seen: Seen) -> None:
        self._bus, self._seen = bus, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, topic: str, batch: Sequence[BusMessage]) -> None:
        seen = self._seen
        if not topic.startswith(seen.only):
            await self._bus.publish(topic, batch)
            return
        if seen.sending:
            points.reach(seen.sending)
        if seen.half and len(batch) > 1:
            half = len(batch) // 2
            await self._bus.publish(topic, batch[:half])
            points.reach(seen.half)
            batch = batch[half:]
        await self._bus.publish(topic, batch)
        if seen.sent:
            points.reach(seen.sent)

    async def subscribe(self, topics: Sequence[str], group: str, *, from_beginning: bool = False) -> Subscription:
        subscription = await self._bus.subscribe(topics, group, from_beginning=from_beginning)
        return SeenSubscription(subscription, self._seen) if topics[0].startswith(self._seen.topics) else subscription


class SeenSubscription:
    """A subscription through which a component takes its work."""

    def __init__(self, subscription: Subscription, seen: Seen) -> None:
        self._subscription, self._seen = subscription, seen

    async def receive(self, max_messages: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        deliveries = await self._subscription.receive(max_messages, admit)
        if deliveries:
            points.reach(self._seen.received)
        return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self._seen.acking and deliveries:
            points.reach(self._seen.acking)
        await self._subscription.ack(deliveries)
        if self._seen.acked and deliveries:
            points.reach(self._seen.acked)

    def look_again(self) -> None:
        self._subscription.look_again()

    def owns(self, topic: str, key: str) -> bool:
        return self._subscription.owns(topic, key)

    def share(self, topic: str) -> float:
        return self._subscription.share(topic)

    async def close(self) -> None:
        await self._subscription.close()


class SeenBlobs:
    """The blob store as the executor has it."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        points.reach("E5")
        return await self._blobs.put(tenant_id, data)


class SeenKV:
    """The key-value store as the executor has it: where it claims inputs."""

    def __init__(self, kv: KVStore) -> None:
        self._kv = kv

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kv, name)

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        claims = if_absent and key.startswith("claim/")
        if claims:
            points.reach("E2")
        done = await self._kv.put(key, value, ttl, if_absent=if_absent)
        if claims and done:
            points.reach("E3")
        return done


def install() -> None:
    """Wraps everything, once, in this process."""
    _wrap_planes()
    _wrap_transaction()
    _wrap_control_plane()
    payloads.INLINE_LIMIT = BLOB_LIMIT
    group_commit.CHECKPOINT_PAGES = CHECKPOINT_PAGES


def _wrap_planes() -> None:
    executor, data, control = Executor.__init__, DataPlane.__init__, ControlPlane.__init__

    def executor_init(self: Executor, bus: EventBus, blobs: BlobStore, kv: KVStore, *rest: Any, **named: Any) -> None:
        executor(self, SeenBus(bus, EXECUTOR), SeenBlobs(blobs), SeenKV(kv), *rest, **named)

    def data_init(self: DataPlane, bus: EventBus, *rest: Any, **named: Any) -> None:
        data(self, SeenBus(bus, DATA), *rest, **named)

    def control_init(self: ControlPlane, bus: EventBus, *rest: Any, **named: Any) -> None:
        control(self, SeenBus(bus, CONTROL), *rest, **named)

    _put(Executor, "__init__", executor_init)
    _put(DataPlane, "__init__", data_init)
    _put(ControlPlane, "__init__", control_init)


def _wrap_transaction() -> None:
    apply, checkpoint = Transaction._apply_new, Transaction.checkpoint

    def apply_new(self: Transaction, units: Sequence[Any], now: int) -> None:
        counts = any(type(unit) is not GraphUnit for unit in units)
        if counts:
            points.reach("D2")
        apply(self, units, now)
        if counts:
            points.reach("D3")

    def make_checkpoint(self: Transaction) -> None:
        points.reach("D7")
        checkpoint(self)

    _put(Transaction, "_apply_new", apply_new)
    _put(Transaction, "checkpoint", make_checkpoint)


def _wrap_control_plane() -> None:
    fold, perform = control_plane.fold, Performer.perform

    def folded(*given: Any, **named: Any) -> Any:
        commands = fold(*given, **named)
        points.reach("C3")
        return commands

    async def performed(self: Performer, state: Any, commands: Any, *rest: Any) -> None:
        if commands:
            points.reach("C4")
        await perform(self, state, commands, *rest)

    control_plane.fold = rebuilding.fold = folded
    _put(Performer, "perform", performed)
    _around(ControlPlane, "_advance", before="C2")
    _around(Sweeper, "timer_set", after="C8")


def _around(owner: type, name: str, *, before: str = "", after: str = "") -> None:
    """Wraps a method with passings."""
    inner = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        if before:
            points.reach(before)
        result = inner(*given, **named)
        if after:
            points.reach(after)
        return result

    _put(owner, name, wrapped)


def _put(owner: type, name: str, replacement: Callable[..., Any]) -> None:
    """Sets a method that exists: a point whose method was renamed must not silently vanish."""
    if not hasattr(owner, name):
        raise AttributeError(f"{owner.__name__} has no {name}: the crash point there has to move")
    setattr(owner, name, replacement)
