"""The bus on Kafka keeps the promises of the port, on a real broker."""

from __future__ import annotations

import itertools
import os

import pytest

from tests.adapters import servers
from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock
from tickwork.testing.conformance import EventBusConformance

pytestmark = pytest.mark.servers

_NEXT = itertools.count(1)


def kafka_url(**options: object) -> str:
    """A prefix that no other test has, on a broker that they share."""
    prefix = f"t{os.getpid()}-{next(_NEXT)}"
    query = "&".join(f"{name}={value}" for name, value in ({"partitions": 3} | options).items())
    return f"{servers.kafka()}/{prefix}?{query}"


class TestKafkaBus(EventBusConformance):
    patience = 20.0

    async def open(self) -> KafkaBus:
        return KafkaBus(kafka_url(), SystemClock())
