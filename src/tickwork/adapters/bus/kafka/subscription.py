"""The Subscription port on Kafka: what a receiver awaits. Behind it a thread polls; between them lies the inbox."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException

from tickwork.adapters.bus.kafka.failures import refused
from tickwork.adapters.bus.kafka.inbox import Inbox
from tickwork.adapters.bus.kafka.member import Member
from tickwork.adapters.bus.kafka.names import partition_of
from tickwork.errors import StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.bus.kafka.address import Address
    from tickwork.adapters.bus.kafka.directory import Directory
    from tickwork.ports import Clock, Delivery

MOST: Final = 256
"""Messages that are handed out at once, however many are asked for: what comes next waits until they are handled."""

LEAVE: Final = 15.0
"""Seconds that closing waits for the consumer to leave its group; without a broker it cannot."""

TRUST: Final = 0.75
"""After standing still for this part of its session a member asks whether it is one still: a part, because the session
began to run out with the last sign of life before that."""


class KafkaSubscription:
    """One member of a group. One coroutine at a time may wait in `receive`."""

    def __init__(
        self,
        address: Address,
        directory: Directory,
        patterns: Sequence[str],
        group: str,
        place: str,
        clock: Clock,
        forget: Callable[[KafkaSubscription], None],
        *,
        from_beginning: bool = False,
    ) -> None:
        self.group = group
        self._address, self._directory, self._forget = address, directory, forget
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: StorageError | None = None
        self._closed = False
        # A watcher reads all, and nobody else is given what it has.
        patience = TRUST * address.options.session_timeout if group else math.inf
        self._inbox = Inbox(address.prefix, lambda: self._tell(self._wake), clock, patience)
        self._member = Member(
            address, directory, patterns, group, place, clock, self._inbox, from_beginning=from_beginning
        )
        self._thread = threading.Thread(target=self._run, name=f"tickwork-kafka-{group or 'watcher'}", daemon=True)
        directory.changed.append(self._renew)
        self._thread.start()

    async def opened(self) -> None:
        """Returns when this member has its share. StorageError."""
        await asyncio.shield(self._opened)

    async def receive(self, max_messages: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        """Waits for a message; [] when the subscription is closed meanwhile, StorageError when it was before."""
        if self._waiter is not None:
            raise UsageError(f"two coroutines receive from one subscription of {self.group!r}; subscribe twice")
        while True:
            if self._closed:
                raise StorageError(f"this subscription of group {self.group!r} is closed; subscribe again")
            taken = self._inbox.take(min(max_messages, MOST), admit)
            if taken:
                return taken
            if self._failure is not None:
                raise self._failure
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
            if self._closed:
                return []

    def look_again(self) -> None:
        """Wakes the one who receives."""
        self._wake()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks messages as done, in any order; committed within a tenth of a second. What is not open is ignored."""
        self._inbox.ack(deliveries)

    def owns(self, topic: str, key: str) -> bool:
        """Whether this member has the partition that messages of this key go to."""
        count = self._directory.topics.get(topic, 0)
        return not self._closed and bool(count) and self._inbox.has(topic, partition_of(key, count))

    def share(self, topic: str) -> float:
        """The part of the topic's partitions that this member has."""
        count = self._directory.topics.get(topic, 0)
        if self._closed or not count:
            return 0.0
        return sum(self._inbox.has(topic, number) for number in range(count)) / count

    async def close(self) -> None:
        """Leaves the group; what is not acknowledged goes to its other members, in order."""
        if not self._closed:
            self._closed = True
            self._member.closing = True
            self._inbox.close()
            self._directory.changed.remove(self._renew)
            self._forget(self)
            self._wake()
        await asyncio.wait([self._ended], timeout=LEAVE)

    def behind(self, wanted: Callable[[str], bool], ends: Callable[[str], dict[int, int]]) -> int:
        """Messages on these topics that are not acknowledged, as far as is known here."""
        return self._inbox.behind(wanted, ends)

    def _renew(self) -> None:
        self._member.renew = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # In the thread

    def _run(self) -> None:
        try:
            self._member.run(lambda: self._tell(self._stands))
        except KafkaException as error:
            failure = refused(f"reading as group {self.group!r}", self._address.label, error)
            self._tell(lambda: self._failed(failure))
        except Exception as error:  # noqa: BLE001 - a receiver must hear of it, or it would wait for ever
            broke = f"{type(error).__name__}: {error}"
            failure = StorageError(f"Kafka at {self._address.label}: reading broke off: {broke}")
            self._tell(lambda: self._failed(failure))
        finally:
            self._tell(lambda: self._ended.set_result(None))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            self._member.closing = True

    def _stands(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _failed(self, failure: StorageError) -> None:
        self._failure = failure
        if not self._opened.done():
            self._opened.set_exception(failure)
            self._opened.exception()  # a closed subscription's opening may be awaited by nobody
        self._wake()
