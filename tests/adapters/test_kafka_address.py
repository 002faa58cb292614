"""A kafka:// URL is understood whole or refused with a reason, and its secrets are in no text for people."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from tickwork.adapters.bus.kafka.address import Address
from tickwork.adapters.bus.kafka.progress import NOTE_LIMIT, Progress
from tickwork.clock import SystemClock
from tickwork.errors import MissingExtra, UsageError
from tickwork.profiles import SHIPPED


def test_brokers_prefix_and_options() -> None:
    address = Address("kafka://b1,b2:9093,[::1]:9094/prod?partitions=12&replication=3&min_insync=2", {})
    assert address.brokers == "b1:9092,b2:9093,[::1]:9094"
    assert address.prefix == "prod."
    assert (address.options.partitions, address.options.replication, address.options.min_insync) == (12, 3, 2)
    assert address.client()["security.protocol"] == "PLAINTEXT"
    assert address.producer()["acks"] == "all"
    assert address.producer()["enable.idempotence"] is True
    assert address.consumer("g")["enable.auto.commit"] is False


def test_tls_and_sasl_from_the_url_and_the_environment() -> None:
    address = Address(
        "kafka://me:p%40ss@b:9093?tls=true&ca=/ca.pem",
        {"TICKWORK_KAFKA_CERT": "/c.pem", "TICKWORK_KAFKA_KEY_PASSWORD": "k3y", "TICKWORK_KAFKA_CA": "/other.pem"},
    )
    settings = address.client()
    assert settings["security.protocol"] == "SASL_SSL"
    assert settings["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (settings["sasl.username"], settings["sasl.password"]) == ("me", "p@ss")
    assert (settings["ssl.ca.location"], settings["ssl.certificate.location"]) == ("/ca.pem", "/c.pem")
    assert settings["ssl.key.password"] == "k3y"
    assert "p@ss" not in f"{address!r} {address.label}"
    given = {"TICKWORK_KAFKA_USERNAME": "me", "TICKWORK_KAFKA_PASSWORD": "x", "TICKWORK_KAFKA_SASL": "PLAIN"}
    settings = Address("kafka://b", given).client()
    assert (settings["security.protocol"], settings["sasl.mechanism"]) == ("SASL_PLAINTEXT", "PLAIN")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://b",
        "kafka://",
        "kafka://b:port",
        "kafka://b:99999",
        "kafka://b/a.b",
        "kafka://b?partitions=0",
        "kafka://b?partitions=x",
        "kafka://b?nonsense=1",
        "kafka://b?replication=1&min_insync=2",
        "kafka://b?sasl=PLAIN",
        "kafka://u:secret@b?sasl=NONE",
        "kafka://u:secret@b?compression=zip",
        "kafka://u:secret@b?delivery_timeout=0",
        "kafka://u:secret@b?delivery_timeout=nan",
        "kafka://u:secret@b?max_message_bytes=1",
    ],
)
def test_what_cannot_be_understood_is_refused_without_a_secret(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        Address(url, {})
    assert "secret" not in str(raised.value)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(("tickwork.adapters.bus.kafka", "confluent_kafka"))]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "confluent_kafka":
            raise ModuleNotFoundError(f"No module named {name!r}", name="confluent_kafka")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"tickwork\[kafka\]"):
        SHIPPED["bus"]["kafka"]("kafka://b", SystemClock())


def test_a_note_tells_the_next_owner_what_is_done_and_stays_small() -> None:
    first = Progress("t", 0, 0)
    for offset in range(10_000):
        assert first.came(offset)
        first.hand_out(offset)
    for offset in range(1, 10_000, 2):
        assert first.ack(offset)
    assert first.low == 0
    assert not first.ack(1), "twice is nothing"
    note = first.note()
    assert len(note) <= NOTE_LIMIT
    heir = Progress("t", 0, first.low, note)
    assert heir.handed == 10_000
    handed = [offset for offset in range(10_000) if heir.came(offset)]
    assert set(handed) >= set(range(0, 10_000, 2)), "nothing that is open is left out"
    assert len(handed) < 9_700


@pytest.mark.parametrize("note", ["", "nonsense", "tw1", "tw1 x", "tw1 5 7", "tw2 5", "tw1 " + "9" * 30])
def test_a_note_of_somebody_else_is_no_note(note: str) -> None:
    progress = Progress("t", 0, 0, note)
    assert progress.handed == 0
    assert all(progress.came(offset) for offset in range(10))
