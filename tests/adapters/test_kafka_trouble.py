"""What stands in the log while brokers are away: it is said once, then ever more seldom, and once that it is over."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.adapters import servers
from tests.adapters.tcp_faults import TcpProxy
from tests.adapters.test_kafka_bus import kafka_url
from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.adapters.bus.kafka.client_log import ClientLog, log
from tickwork.clock import SystemClock
from tickwork.trouble import Trouble


class Hand(SystemClock):
    """A clock that is set by hand."""

    time = 100.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "tickwork.adapters.bus.kafka")
    return caplog


def test_an_outage_is_told_ever_more_seldom(said: pytest.LogCaptureFixture) -> None:
    clock = Hand()
    trouble = Trouble(log, "Kafka at broker:9092", clock)
    heard_at: list[float] = []
    for second in range(601):
        clock.time = 100.0 + second
        before = len(said.messages)
        trouble.heard("refused")
        if len(said.messages) > before:
            heard_at.append(second)
    assert heard_at == [0, 30, 90, 210, 450]
    assert said.messages[1] == "Kafka at broker:9092 does not work, for 30 s now: refused"
    trouble.over()
    trouble.over()
    assert said.messages[5:] == ["Kafka at broker:9092 works again, after 600 s"]


def test_what_comes_and_goes_is_not_told_each_time(said: pytest.LogCaptureFixture) -> None:
    clock = Hand()
    trouble = Trouble(log, "Kafka at broker:9092", clock)
    for second in range(60):
        clock.time = 100.0 + second
        trouble.heard("one of three is away")
        trouble.over()
    assert len(said.messages) == 4, "twice in a minute, with their ends"
    assert trouble.since is None


def test_what_the_client_writes_is_part_of_it(said: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(log, "Kafka at broker:9092", Hand())
    client = ClientLog(trouble)
    client.log(logging.INFO, "%s [%s] %s", "FAIL", "consumer-1", "disconnected")
    assert trouble.since is None
    for _ in range(3):
        client.log(logging.WARNING, "%s [%s] %s", "REQTMOUT", "consumer-1", "timed out")
    assert said.messages == [
        "Kafka at broker:9092 does not work; it is tried again and again: REQTMOUT [consumer-1] timed out"
    ]


@pytest.mark.servers
@pytest.mark.slow
async def test_a_broker_that_is_away_is_told_in_two_lines(said: pytest.LogCaptureFixture) -> None:
    broker = servers.kafka().partition("://")[2]
    host, _, port = broker.rpartition(":")
    proxy = TcpProxy(host, int(port))
    await proxy.listen()
    bus = KafkaBus(kafka_url().replace(broker, f"127.0.0.1:{proxy.port}"), SystemClock())
    await bus.start()
    directory = bus._directory
    assert directory is not None
    try:
        # The broker says where it is, past the proxy: what is asked at the proxy alone is who comes anew.
        said.clear()
        await proxy.leave()
        lost = KafkaBus(f"kafka://127.0.0.1:{proxy.port}/lost?connect_timeout=4", SystemClock())
        with pytest.raises(Exception, match="connecting failed"):
            await lost.start()
        assert [line for line in said.messages if "does not work" in line] == said.messages
        assert len(said.messages) == 1
        bus._trouble.heard("it is away")
        async with asyncio.timeout(10):
            while bus._trouble.since is not None:  # noqa: ASYNC110 - a task of the bus asks
                await asyncio.sleep(0.05)
        assert said.messages[-1].startswith(f"Kafka at 127.0.0.1:{proxy.port} (prefix ")
        assert "works again" in said.messages[-1]
    finally:
        await bus.stop()
        await proxy.close()
