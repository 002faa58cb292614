"""The EventBus port on Kafka: what the loop does itself. Threads poll the client, one for all that is published and
one for each subscription; what they find out comes back to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from tickwork.adapters.bus.kafka.address import Address
from tickwork.adapters.bus.kafka.directory import Directory
from tickwork.adapters.bus.kafka.names import NEWS, checked_group, checked_pattern, checked_topic, matches
from tickwork.adapters.bus.kafka.publisher import Publisher
from tickwork.adapters.bus.kafka.subscription import KafkaSubscription
from tickwork.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.ports import BusMessage, Clock

log = logging.getLogger(__name__)


class KafkaBus:
    """One process's connection to Kafka. Made anywhere, used on the event loop that started it."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._address = Address(url, os.environ)
        self._clock = clock
        self._publisher: Publisher | None = None
        self._directory: Directory | None = None
        self._subscriptions: list[KafkaSubscription] = []
        self._listening: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Connects. StorageError when no broker answers, with what to do."""
        publisher = Publisher(self._address)
        directory = Directory(self._address, publisher, self._clock)
        publisher.lost = directory.forget
        self._stopped = False
        try:
            await asyncio.to_thread(directory.connect)
            await directory.ensure(NEWS)
        except BaseException:
            await publisher.stop()
            raise
        self._publisher, self._directory = publisher, directory

    async def stop(self) -> None:
        """Closes every subscription (whoever waits in one gets []), and sends what was published."""
        self._stopped = True
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening])
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        if self._publisher is not None:
            await self._publisher.stop()

    def _started(self) -> tuple[Publisher, Directory]:
        if self._publisher is None or self._directory is None or self._stopped:
            raise StorageError("this Kafka bus is not running: start() comes first, and after stop() it is over")
        return self._publisher, self._directory

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """Returns once the brokers have all of them; waits while too much is on its way. StorageError."""
        publisher, directory = self._started()
        if not messages:
            return
        if checked_topic(topic) not in directory.topics:
            await directory.ensure(topic)
        await publisher.publish(self._address.prefix + topic, messages)

    async def subscribe(self, topics: Sequence[str], group: str) -> KafkaSubscription:
        """Joins `group`; returns when this member has its share and the group its place on every topic."""
        _, directory = self._started()
        patterns = tuple(checked_pattern(pattern) for pattern in topics)
        if group:
            checked_group(group)
        for pattern in patterns:
            if not pattern.endswith(".*"):
                await directory.ensure(pattern)
        if self._listening is None and any(pattern.endswith(".*") for pattern in patterns):
            await self._listen(directory)
        await directory.refresh()
        return await self._opened(patterns, group, directory)

    async def _opened(self, patterns: Sequence[str], group: str, directory: Directory) -> KafkaSubscription:
        subscription = KafkaSubscription(self._address, directory, patterns, group, self._clock, self._forget)
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
        if self._listening is None:
            self._listening = asyncio.ensure_future(self._hear(news, directory))
        else:  # two subscribed at the same time
            await news.close()

    async def _hear(self, news: KafkaSubscription, directory: Directory) -> None:
        while True:
            try:
                deliveries = await asyncio.wait_for(news.receive(1000), self._address.options.discovery)
            except TimeoutError:
                deliveries = []
            except StorageError as error:
                log.warning("new topics are found every %g s only: %s", self._address.options.discovery, error)
                await self._clock.sleep(self._address.options.discovery)
                deliveries = []
            try:
                await news.ack(deliveries)
                await (directory.heard(deliveries) if deliveries else directory.refresh())
            except StorageError as error:
                log.warning("new topics are looked for again later: %s", error)

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
