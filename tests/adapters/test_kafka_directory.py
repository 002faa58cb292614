"""Which topics there are, as one client knows it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.adapters.test_kafka_bus import kafka_url
from tests.adapters.test_kafka_faults import TOPIC, running, said


class Forgetful:
    """An admin client that knows of no leader until it lists the topics."""

    def __init__(self, real: Any) -> None:
        self.real, self.listed = real, 0

    def list_topics(self, **options: Any) -> Any:
        self.listed += 1
        return self.real.list_topics(**options)

    def list_offsets(self, wanted: dict[TopicPartition, Any], **options: Any) -> Any:
        if self.listed:
            return self.real.list_offsets(wanted, **options)
        answer: Future[Any] = Future()
        answer.set_exception(KafkaException(KafkaError(KafkaError._NOENT)))
        return dict.fromkeys(wanted, answer)


@pytest.mark.servers
@pytest.mark.slow
async def test_a_client_that_remembers_a_topic_without_a_leader_lists_the_topics() -> None:
    async with running(kafka_url(partitions=2)) as bus:
        await bus.publish(TOPIC, said("k", 1, 2))
        directory = bus._directory
        assert directory is not None
        forgetful = directory._admin = Forgetful(directory._admin)  # type: ignore[assignment]  # it stands in
        with pytest.raises(KafkaException):
            directory.ends({TOPIC: 2})
        assert sum(directory.ends({TOPIC: 2}).values()) == 2
        assert forgetful.listed == 1
