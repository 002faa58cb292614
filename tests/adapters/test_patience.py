"""Waiting for servers that are away: for as long as it takes, and for nothing that somebody has to mend."""

from __future__ import annotations

import logging
import ssl

import asyncpg
import pytest
from confluent_kafka import KafkaError, KafkaException

from tickwork.adapters.blob.objects.failures import Refusals
from tickwork.adapters.bus.kafka.failures import refused
from tickwork.adapters.patience import Patience
from tickwork.adapters.state.postgres import failures
from tickwork.clock import SystemClock
from tickwork.errors import ServerAway, StorageError, StorageFull


class Hand(SystemClock):
    """A clock whose sleeps pass at once."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Server:
    """One that is there after so many tries."""

    def __init__(self, tries: int) -> None:
        self.tries = tries

    async def start(self) -> str:
        self.tries -= 1
        if self.tries >= 0:
            raise ServerAway("the database does not answer")
        return "here"


async def test_it_waits_with_growing_pauses_and_says_so_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    clock = Hand()
    assert await Patience(clock, waits=True).surely(Server(64).start) == "here"
    assert clock.time == 0.25 + 0.5 + 1 + 2 + 4 + 59 * 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert caplog.messages[0].startswith("waiting for a server, and trying again: the database does not answer")
    assert [text.partition(" s now")[0] for text in caplog.messages[1:]] == [
        "waiting still, for 33",
        "waiting still, for 93",
        "waiting still, for 213",
    ]


async def test_a_command_does_not_wait() -> None:
    with pytest.raises(StorageError, match="does not answer"):
        await Patience(Hand(), waits=False).surely(Server(1).start)


@pytest.mark.parametrize("kind", [StorageError, StorageFull])
async def test_what_somebody_has_to_mend_is_not_waited_for(kind: type[StorageError]) -> None:
    async def start() -> None:
        raise kind("mend it")

    with pytest.raises(StorageError, match="mend it"):
        await Patience(Hand(), waits=True).surely(start)


def postgres(error: BaseException) -> StorageError:
    return failures.storage_error(error, "here", str(error))


def objects(error: BaseException) -> StorageError:
    return Refusals("the bucket", ()).refused("Starting", error)


def kafka(code: int, last: int | None = None) -> StorageError:
    return refused(
        "connecting", "here", KafkaException(KafkaError(code)), last=None if last is None else KafkaError(last)
    )


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (postgres(ConnectionRefusedError(111, "refused")), True),
        (postgres(TimeoutError()), True),
        (postgres(asyncpg.CannotConnectNowError("starting up")), True),
        (postgres(asyncpg.TooManyConnectionsError("53300")), True),
        (postgres(ssl.SSLCertVerificationError("not trusted")), False),
        (postgres(FileNotFoundError(2, "no such certificate")), False),
        (postgres(asyncpg.InvalidPasswordError("wrong")), False),
        (postgres(asyncpg.InvalidCatalogNameError("no such database")), False),
        (postgres(asyncpg.DiskFullError("no space")), False),
        (postgres(ValueError("odd")), False),
        (kafka(KafkaError._TRANSPORT), True),
        (kafka(KafkaError._TRANSPORT, KafkaError._RESOLVE), True),
        (kafka(KafkaError._TRANSPORT, KafkaError._AUTHENTICATION), False),
        (kafka(KafkaError.TOPIC_AUTHORIZATION_FAILED), False),
        (objects(ConnectionError("tcp connect error")), True),
        (objects(OSError("status code: 503")), True),
        (objects(OSError("status code: 403")), False),
        (objects(OSError("status code: 404: <Code>NoSuchBucket</Code>")), False),
        (objects(OSError("status code: 507")), False),
    ],
)
def test_every_adapter_says_what_passes_by_itself(error: StorageError, away: bool) -> None:
    assert isinstance(error, ServerAway) is away, error
