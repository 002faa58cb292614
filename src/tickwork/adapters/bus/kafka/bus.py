"""The EventBus port on Kafka: what the loop does itself. Threads poll the client, one for all that is published and
one for each subscription; what they find out comes back to the loop.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from tickwork.adapters.bus.kafka.address import Address
from tickwork.adapters.bus.kafka.client_log import ClientLog, log
from tickwork.adapters.bus.kafka.directory import Directory
from tickwork.adapters.bus.kafka.names import NEWS, checked_group, checked_pattern, checked_topic, matches
from tickwork.adapters.bus.kafka.publisher import Publisher
from tickwork.adapters.bus.kafka.subscription import KafkaSubscription
from tickwork.clock import RandomIds
from tickwork.errors import ServerAway, StorageError
from tickwork.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.ports import BusMessage, Clock, Ids

WATCH: Final = 1.0
"""Seconds between two looks whether brokers answer that did not."""


class KafkaBus:
    """One process's connection to Kafka. Made anywhere, used on the event loop that started it."""

    def __init__(self, url: str, clock: Clock, ids: Ids | None = None) -> None:
        """`ids`: give members names that no other process has; by default from the operating system's entropy."""
        self._address = Address(url, os.environ)
        self._clock, self._ids = clock, ids or RandomIds()
        self._publisher: Publisher | None = None
        self._directory: Directory | None = None
        self._subscriptions: list[KafkaSubscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._listens = False
        self._trouble = Trouble(log, f"Kafka at {self._address.label}", clock)
        self._address.logger = ClientLog(self._trouble)
        self._stopped = False

    async def start(self) -> None:
        """Connects. StorageError when no broker answers, with what to do."""
        publisher = Publisher(self._address, self._trouble)
        directory = Directory(self._address, publisher, self._clock)
        publisher.lost = directory.forget
        self._stopped = False
        try:
            await directory.connect()
            await directory.ensure(NEWS)
        except BaseException:
            await publisher.stop()
            raise
        self._publisher, self._directory = publisher, directory
        self._tasks.append(asyncio.ensure_future(self._watch(directory)))

    async def _watch(self, directory: Directory) -> None:
        """Asks, when something was wrong, whether the brokers are back."""
        while True:
            await self._clock.sleep(WATCH)
            if self._trouble.since is not None and await directory.answers():
                self._trouble.over()

    async def stop(self) -> None:
        """Closes every subscription (whoever waits in one gets []), and sends what was published."""
        self._stopped = True
        tasks, self._tasks, self._listens = self._tasks, [], False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        if self._publisher is not None:
            await self._publisher.stop()

    def _started(self) -> tuple[Publisher, Directory]:
        if self._publisher is None or self._directory is None or self._stopped:
            raise StorageError("this Kafka bus is not running: start() comes first, and after stop() it is over")
        return self._publisher, self._directory

    async def ping(self) -> None:
        """ServerAway unless brokers answer."""
        _, directory = self._started()
        if not await directory.answers():
            raise ServerAway(f"Kafka at {self._address.label} does not answer")

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """Returns once the brokers have all of them; waits while too much is on its way. StorageError."""
        publisher, directory = self._started()
        if not messages:
            return
        if checked_topic(topic) not in directory.topics:
            await directory.ensure(topic)
        await publisher.publish(self._address.prefix + topic, messages)

    async def subscribe(self, topics: Sequence[str], group: str, *, from_beginning: bool = False) -> KafkaSubscription:
        """Joins `group`; returns when this member has its share and the group its place on every topic.

        A group that the brokers do not know, or have forgotten, stands at the end of the topics that there are, or at
        their beginning.
        """
        _, directory = self._started()
        patterns = tuple(checked_pattern(pattern) for pattern in topics)
        if group:
            checked_group(group)
        for pattern in patterns:
            if not pattern.endswith(".*"):
                await directory.ensure(pattern)
        if not self._listens and any(pattern.endswith(".*") for pattern in patterns):
            await self._listen(directory)
        await directory.refresh()
        return await self._opened(patterns, group, directory, from_beginning=from_beginning)

    async def _opened(
        self, patterns: Sequence[str], group: str, directory: Directory, *, from_beginning: bool = False
    ) -> KafkaSubscription:
        place = f"{self._address.options.client_id}-{self._ids.token()}" if group else ""
        subscription = KafkaSubscription(
            self._address, directory, patterns, group, place, self._clock, self._forget, from_beginning=from_beginning
        )
        self._subscriptions.append(subscription)
        try:
            await subscription.opened()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    def _forget(self, subscription: KafkaSubscription) -> None:
        self._subscriptions.remove(subscription)

    async def _listen(self, directory: Directory) -> None:
        """Hears of new topics from now on."""
        news = await self._opened((NEWS,), "", directory)
        if not self._listens:
            self._listens = True
            self._tasks.append(asyncio.ensure_future(self._hear(news, directory)))
        else:  # two subscribed at the same time
            await news.close()

    async def _hear(self, news: KafkaSubscription, directory: Directory) -> None:
        while True:
            try:
                # Not `wait_for`, which on Python 3.11 loses a cancellation that comes together with an announcement.
                async with asyncio.timeout(self._address.options.discovery):
                    deliveries = await news.receive(1000)
            except TimeoutError:
                deliveries = []
            except StorageError as error:
                self._trouble.heard(f"new topics are found every {self._address.options.discovery:g} s only: {error}")
                await self._clock.sleep(self._address.options.discovery)
                deliveries = []
            try:
                await news.ack(deliveries)
                await (directory.heard(deliveries) if deliveries else directory.refresh())
            except StorageError as error:
                self._trouble.heard(f"new topics are looked for again later: {error}")

    def depth(self, topic: str, group: str) -> int:
        """Messages that the group has not acknowledged, on the partitions that are with this process."""
        if self._publisher is None:
            return 0
        ends, prefix = self._publisher.ends, self._address.prefix
        return sum(
            subscription.behind(lambda name: matches(topic, name), lambda name: ends.get(prefix + name, {}))
            for subscription in self._subscriptions
            if subscription.group == group
        )
