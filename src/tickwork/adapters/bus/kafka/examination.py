"""What brokers, topics and groups are like: read for `tickwork doctor`, which judges it.

One thing is written, for nothing less shows that a message is taken by enough replicas, and what time a broker has: an
empty message on the topic `tickwork-doctor`, which is made when it is not there and keeps its messages for an hour.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as Resource  # type: ignore[attr-defined]  # exported, unmarked
from confluent_kafka.admin import NewTopic as New  # type: ignore[attr-defined]  # exported, unmarked
from confluent_kafka.admin import ResourceType as Kind  # type: ignore[attr-defined]  # exported, unmarked

from tickwork.adapters.bus.kafka.address import Address
from tickwork.adapters.bus.kafka.failures import cause, refused
from tickwork.adapters.bus.kafka.names import NEWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.adapters.bus.kafka.address import Options
    from tickwork.errors import StorageError
    from tickwork.ports import Clock

PROBE: Final = "tickwork-doctor"
"""The topic that the probe is published on. Its messages bear the broker's time."""

DESCRIBED: Final = 500
"""Topics whose settings are read; where there are many tenants all are made alike."""

LEAST: Final = 0.2
"""Seconds that a request gets, however late it is."""


class Topic(msgspec.Struct, frozen=True):
    """One topic. `settings`: empty when they may not be read."""

    name: str
    tenant: str
    """Empty when it is no tenant's."""
    partitions: int
    replication: int
    """Of the partition that has the fewest."""
    behind: int
    """Partitions with a replica that is not in sync."""
    leaderless: int
    settings: dict[str, str | None]


class Probe(msgspec.Struct, frozen=True):
    """What became of the message that was published. `told` 0: it bears no time of the broker."""

    seconds: float = 0.0
    asked: int = 0
    told: int = 0
    doubt: int = 0
    refusal: str = ""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out."""

    label: str
    client: str
    """The version of the client; brokers do not tell theirs."""
    seconds: float
    """Until the brokers had listed their topics."""
    brokers: int
    hosts: tuple[str, ...]
    encrypted: bool
    options: Options
    topics: tuple[Topic, ...]
    """Tickwork's, under the URL's prefix; of them the first DESCRIBED with their settings."""
    offsets: Topic | None
    """Where the brokers keep how far the groups are; None when this user does not see it."""
    defaults: dict[str, str | None]
    """Settings of a broker; empty when they may not be read."""
    members: dict[str, int]
    """By group: how many processes are in it. Without those that may not be read."""
    probe: Probe
    withheld: tuple[str, ...]
    """What this user may not read, and what the brokers said."""


async def examine(url: str, clock: Clock, limit: float, words: Iterable[str], groups: Iterable[str]) -> Examination:
    """Asks the brokers, for about `limit` seconds. `words`: how the topics of tenants begin; `groups`: to look for.

    StorageError when no broker answers, UsageError for a URL that cannot be understood.
    """
    address = Address(url, os.environ)
    return await asyncio.to_thread(_Questions(address, clock, limit).ask, tuple(words), tuple(groups))


class _Questions:
    """One round of questions, in a thread: the client blocks."""

    def __init__(self, address: Address, clock: Clock, limit: float) -> None:
        self._address, self._clock = address, clock
        self._until = clock.monotonic() + limit
        self._last: KafkaError | None = None
        self._withheld: list[str] = []
        self._admin = AdminClient(address.client() | {"error_cb": self._note})

    def _note(self, error: KafkaError) -> None:
        self._last = error

    def _left(self) -> float:
        return max(self._until - self._clock.monotonic(), LEAST)

    def ask(self, words: tuple[str, ...], groups: tuple[str, ...]) -> Examination:
        address, begun = self._address, self._clock.monotonic()
        try:
            found = self._admin.list_topics(timeout=self._left())
        except KafkaException as error:
            raise self._unreachable(error) from None
        seconds = self._clock.monotonic() - begun
        ours = sorted(name for name in found.topics if self._is_ours(name, words))
        settings = self._settings(Kind.TOPIC, ours[:DESCRIBED], "the settings of topics")
        brokers = self._settings(Kind.BROKER, [str(min(found.brokers))], "the settings of brokers")
        offsets = found.topics.get("__consumer_offsets")
        return Examination(
            label=address.label,
            client=f"librdkafka {confluent_kafka.libversion()[0]}",
            seconds=seconds,
            brokers=len(found.brokers),
            hosts=tuple(broker.rpartition(":")[0].strip("[]") for broker in address.brokers.split(",")),
            encrypted=address.options.tls,
            options=address.options,
            topics=tuple(_topic(found.topics[name], settings.get(name, {}), self._tenant(name)) for name in ours),
            offsets=None if offsets is None else _topic(offsets, {}, ""),
            defaults=next(iter(brokers.values()), {}),
            members=self._members(groups),
            probe=self._probe(),
            withheld=tuple(self._withheld),
        )

    def _unreachable(self, error: KafkaException) -> StorageError:
        self._admin.poll(0)  # what the client says of a broker waits to be asked for
        return refused("connecting", self._address.label, error, last=self._last)

    def _is_ours(self, name: str, words: tuple[str, ...]) -> bool:
        own = name.removeprefix(self._address.prefix)
        return name.startswith(self._address.prefix) and (own == NEWS or own.partition(".")[0] in words)

    def _tenant(self, name: str) -> str:
        return name.removeprefix(self._address.prefix).partition(".")[2]

    def _settings(self, kind: Kind, names: list[str], what: str) -> dict[str, dict[str, str | None]]:
        """The settings of each; what may not be read is missing, and said once."""
        if not names:
            return {}
        wanted = [Resource(kind, name) for name in names]
        found: dict[str, dict[str, str | None]] = {}
        refusal = ""
        for resource, answer in self._admin.describe_configs(wanted, request_timeout=self._left()).items():
            try:
                found[resource.name] = {name: entry.value for name, entry in answer.result(self._left()).items()}
            except (KafkaException, TimeoutError) as error:
                refusal = _said(error)
        if refusal:
            self._withheld.append(f"{what} ({refusal})")
        return found

    def _members(self, groups: tuple[str, ...]) -> dict[str, int]:
        found: dict[str, int] = {}
        names = {self._address.prefix + group: group for group in groups}
        refusal = ""
        for name, answer in self._admin.describe_consumer_groups(list(names), request_timeout=self._left()).items():
            try:
                found[names[name]] = len(answer.result(self._left()).members)
            except KafkaException as error:
                if cause(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    found[names[name]] = 0
                else:
                    refusal = _said(error)
            except TimeoutError as error:
                refusal = _said(error)
        if refusal:
            self._withheld.append(f"the members of groups ({refusal})")
        return found

    def _probe(self) -> Probe:
        """Publishes a message: how long it takes until all replicas in sync have it, and the broker's time."""
        topic = self._address.prefix + PROBE
        try:
            self._make(topic)
        except (KafkaException, TimeoutError) as error:
            return Probe(refusal=f"the topic {topic} cannot be made ({_said(error)})")
        limits: dict[str, Any] = {"delivery.timeout.ms": 4_000, "request.timeout.ms": 2_000}
        producer = Producer(self._address.producer() | limits | {"error_cb": self._note})
        first = self._published(producer, topic)  # with the connection, and the right to write idempotently
        return first if first.refusal else self._published(producer, topic)

    def _published(self, producer: Producer, topic: str) -> Probe:
        taken: list[Any] = []
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed.append(error)
            else:
                taken.append((message.timestamp(), self._clock.now()))

        begun, asked = self._clock.monotonic(), self._clock.now()
        producer.produce(topic, b"", b"", on_delivery=delivered)
        while not taken and not failed and self._clock.monotonic() < self._until:
            producer.poll(0.05)
        if not taken:
            producer.purge()
            producer.flush(LEAST)
            why = _said(KafkaException(failed[0])) if failed else "no answer in time"
            return Probe(refusal=f"a message on {topic} is not taken ({why})")
        (kind, milliseconds), at = taken[0]
        own_time = kind == confluent_kafka.TIMESTAMP_LOG_APPEND_TIME
        return Probe(
            seconds=self._clock.monotonic() - begun,
            asked=(asked + at) // 2,
            told=milliseconds * 1_000 + 500 if own_time else 0,
            doubt=(at - asked) // 2 + 500,
        )

    def _make(self, topic: str) -> None:
        options = self._address.options
        settings = {"message.timestamp.type": "LogAppendTime", "retention.ms": "3600000"}
        if options.min_insync:
            settings["min.insync.replicas"] = str(options.min_insync)
        new = New(topic, num_partitions=1, replication_factor=options.replication or -1, config=settings)
        try:
            for made in self._admin.create_topics([new], request_timeout=self._left()).values():
                made.result(self._left())
        except KafkaException as error:
            if cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _topic(found: Any, settings: dict[str, str | None], tenant: str) -> Topic:
    partitions = found.partitions.values()
    return Topic(
        found.topic,
        tenant,
        len(partitions),
        min((len(one.replicas) for one in partitions), default=0),
        sum(len(one.isrs) < len(one.replicas) for one in partitions),
        sum(one.leader < 0 for one in partitions),
        settings,
    )


def _said(error: Exception) -> str:
    return cause(error).str() if isinstance(error, KafkaException) else "no answer in time"
