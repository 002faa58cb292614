"""TLS and SCRAM, on a real broker that takes nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.adapters.kafka_secure import PASSWORD, USER, SecureBroker, secure_broker
from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock
from tickwork.errors import StorageError
from tickwork.ports import BusMessage

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("secure")) as made:
        yield made


def url(broker: SecureBroker, *, password: str = PASSWORD, trusted: bool = True, tls: bool = True) -> str:
    options = f"tls={str(tls).lower()}&connect_timeout=5" + (f"&ca={broker.ca}" if trusted else "")
    return f"kafka://{USER}:{quote(password, safe='')}@{broker.address}/secure?{options}"


async def test_messages_go_through_tls_as_a_user(broker: SecureBroker) -> None:
    bus = KafkaBus(url(broker), SystemClock())
    await bus.start()
    subscription = await bus.subscribe(["news.*"], "readers")
    try:
        await bus.publish("news.acme", [BusMessage("key", b"one"), BusMessage("key", b"two")])
        got: list[bytes] = []
        while len(got) < 2:
            for delivery in await subscription.receive(10):
                got.append(delivery.message.value)
                await subscription.ack([delivery])
        assert got == [b"one", b"two"]
    finally:
        await subscription.close()
        await bus.stop()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password": "another"}, "uthentication"),
        ({"trusted": False}, "certificate"),
        ({"tls": False, "trusted": False}, "tls in the URL"),
    ],
)
async def test_who_may_not_come_in_is_told_why(broker: SecureBroker, wrong: dict[str, Any], words: str) -> None:
    bus = KafkaBus(url(broker, **wrong), SystemClock())
    with pytest.raises(StorageError) as caught:
        await bus.start()
    said = str(caught.value)
    assert words in said
    assert broker.address in said
    assert PASSWORD not in said
    assert "another" not in said
    await bus.stop()
