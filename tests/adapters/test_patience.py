"""Waiting for servers that are away: for as long as it takes, and for nothing that somebody has to mend."""

from __future__ import annotations

import logging
import ssl

import pytest

from tickwork.adapters.patience import Patience, passes
from tickwork.clock import SystemClock
from tickwork.errors import StorageError, StorageFull


class Hand(SystemClock):
    """A clock whose sleeps pass at once."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def refused(why: BaseException | None) -> StorageError:
    error = StorageError("the database does not answer")
    error.__context__ = why
    return error


class Server:
    """One that is there after so many tries."""

    def __init__(self, tries: int) -> None:
        self.tries = tries

    async def start(self) -> str:
        self.tries -= 1
        if self.tries >= 0:
            raise refused(ConnectionRefusedError(111, "refused"))
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


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (refused(ConnectionRefusedError(111, "refused")), True),
        (refused(TimeoutError()), True),
        (refused(None), False),
        (refused(ssl.SSLCertVerificationError("not trusted")), False),
        (refused(FileNotFoundError(2, "no such certificate")), False),
        (refused(ValueError("odd")), False),
        (StorageFull("no space"), False),
    ],
)
def test_only_what_passes_by_itself_is_waited_for(error: StorageError, away: bool) -> None:
    assert passes(error) is away
