"""Which topics there are. A topic is made when it is first published to or asked for, and announced to all processes.

Metadata of all topics are a large answer where there are many tenants, so they are not asked for every second: who
makes a topic says so on a small topic of our own, every process with a prefix subscription listens there, and lists
all topics when something new is said, and every `discovery` seconds in case it missed it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # exported, unmarked

from tickwork.adapters.bus.kafka.failures import LEADERLESS, cause, refused
from tickwork.adapters.bus.kafka.names import NEWS, matches
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.bus.kafka.address import Address
    from tickwork.adapters.bus.kafka.publisher import Publisher
    from tickwork.ports import Clock, Delivery

log = logging.getLogger(__name__)

ANSWER: Final = 10.0
"""Seconds in which a broker answers an administrative request."""

LEAST: Final = 2.0
"""Seconds in which one answers that works."""

LOOKS: Final = 20
"""How often the list is read again when a topic that was announced is not in it yet."""

LOOK: Final = 0.05
"""Seconds between two of these."""


class Directory:
    """The topics under this bus's prefix, with their numbers of partitions."""

    def __init__(self, address: Address, publisher: Publisher, clock: Clock) -> None:
        self._address, self._publisher, self._clock = address, publisher, clock
        self.trouble = publisher.trouble
        self._admin = AdminClient(address.client())
        self._making: dict[str, asyncio.Future[None]] = {}
        self.topics: dict[str, int] = {}
        """Names without the prefix. Replaced as a whole: other threads read it."""
        self.changed: list[Callable[[], None]] = []
        """Called, in the loop, when there are new topics."""

    async def connect(self) -> None:
        """Lists the topics for the first time. StorageError when there is no broker, or it refuses."""
        loop = asyncio.get_running_loop()
        listed: asyncio.Future[dict[str, int]] = loop.create_future()

        def look() -> None:
            try:
                topics = self._listed(self._address.options.connect_timeout)
            except KafkaException as error:
                failure = error
                tell(lambda: listed.set_exception(failure))
            else:
                tell(lambda: listed.set_result(topics))

        def tell(what: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(lambda: None if listed.done() else what())

        # A thread that nobody waits for: a process that is told to end meanwhile ends.
        threading.Thread(target=look, name="tickwork-kafka-connect", daemon=True).start()
        try:
            self.topics = await listed
        except KafkaException as error:
            raise refused("connecting", self._address.label, error, last=self._publisher.last_error) from error

    def _listed(self, timeout: float) -> dict[str, int]:
        prefix, found = self._address.prefix, self._admin.list_topics(timeout=timeout)
        return {
            name.removeprefix(prefix): len(topic.partitions)
            for name, topic in found.topics.items()
            if name.startswith(prefix) and topic.error is None and topic.partitions
        }

    async def answers(self) -> bool:
        """Whether brokers do. It lists the topics: asking them to describe themselves looks cheaper, but while a broker
        starts librdkafka 2.16 aborts the process over its answer."""
        try:
            await asyncio.to_thread(self._listed, LEAST)
        except KafkaException:
            return False
        return True

    async def refresh(self) -> None:
        """Lists the topics again, and tells who wants to know when there are new ones. StorageError."""
        try:
            topics = await asyncio.to_thread(self._listed, ANSWER)
        except KafkaException as error:
            raise refused("listing the topics", self._address.label, error) from None
        self._learn(topics)

    def _learn(self, topics: dict[str, int]) -> None:
        grown = any(self.topics.get(name) != count for name, count in topics.items())
        self.topics = topics
        if grown:
            for tell in self.changed:
                tell()

    def matching(self, patterns: Sequence[str]) -> dict[str, int]:
        """The topics that these patterns ask for."""
        return {
            name: count for name, count in self.topics.items() if any(matches(pattern, name) for pattern in patterns)
        }

    def forget(self, topic: str) -> None:
        """It turned out not to exist (its name in Kafka): it is made again when it is needed."""
        self.topics = {name: n for name, n in self.topics.items() if name != topic.removeprefix(self._address.prefix)}

    async def ensure(self, topic: str) -> None:
        """Makes the topic unless it is there. StorageError."""
        if topic in self.topics:
            return
        making = self._making.get(topic)
        if making is None:
            making = self._making[topic] = asyncio.ensure_future(self._make(topic))
            making.add_done_callback(lambda _: self._making.pop(topic, None))
        await asyncio.shield(making)

    async def _make(self, topic: str) -> None:
        options, news = self._address.options, topic == NEWS
        settings = {"max.message.bytes": str(options.max_message_bytes)}
        if options.min_insync:
            settings["min.insync.replicas"] = str(options.min_insync)
        new = NewTopic(
            self._address.prefix + topic,
            num_partitions=1 if news else options.partitions,
            replication_factor=options.replication or -1,
            config=settings,
        )
        try:
            for made in self._admin.create_topics([new], request_timeout=ANSWER).values():
                await asyncio.wrap_future(made)
        except KafkaException as error:
            if cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS and not await self._there(topic):
                raise refused(f"making the topic {new.topic}", self._address.label, error) from None
            if topic not in self.topics:
                await self.refresh()
            return
        log.info("made the topic %s with %d partitions", new.topic, new.num_partitions)
        if not news:
            await self.ensure(NEWS)
            await self._publisher.publish(self._address.prefix + NEWS, [BusMessage(topic, b"")])
        self._learn(self.topics | {topic: new.num_partitions})

    async def _there(self, topic: str) -> bool:
        """Whether somebody made it who may: an administrator, where this process may not."""
        await self.refresh()
        return topic in self.topics

    async def heard(self, deliveries: Sequence[Delivery]) -> None:
        """Some process has made these topics."""
        said = {delivery.message.key for delivery in deliveries}
        for _ in range(LOOKS):
            if not said - self.topics.keys():
                return
            await self.refresh()
            if said - self.topics.keys():
                await self._clock.sleep(LOOK)

    def ends(self, topics: dict[str, int]) -> dict[tuple[str, int], int]:
        """Of every partition of these topics: the offset after its last message (blocks). KafkaException."""
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client's typing is not complete
        wanted: dict[Any, Any] = {
            TopicPartition(self._address.prefix + name, number): latest
            for name, count in topics.items()
            for number in range(count)
        }
        if not wanted:
            return {}
        results = self._admin.list_offsets(wanted, request_timeout=ANSWER)
        try:
            return {(at.topic, at.partition): found.result().offset for at, found in results.items()}
        except KafkaException as error:
            if cause(error).code() == LEADERLESS:
                # Who asks in the very moment in which a topic is made remembers for minutes that it has no leader, and
                # asks nobody again (librdkafka 2.16). Listing the topics tells the client.
                self._listed(ANSWER)
            raise
