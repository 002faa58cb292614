"""The pool without a server: who gives up waiting has given up, and what is counted of connections is right again."""

from __future__ import annotations

import asyncio

import pytest

from tickwork.adapters.meters import Meters
from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.postgres.connections import Pool
from tickwork.adapters.state.postgres.failures import REASONS, CommitUnknown, why
from tickwork.clock import SystemClock
from tickwork.errors import StorageError


def pool(size: int = 1, patience: float = 5.0) -> Pool:
    """Of a server that is not there: nobody listens on port 9."""
    return Pool(Address(f"postgresql://me@127.0.0.1:9/none?patience={patience:g}"), SystemClock(), Meters(), size)


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_is_never_lost(steps: int) -> None:
    """It may come at any step of the loop, also at the one at which there is a slot."""
    one = pool()

    async def use() -> None:
        async with one.connection():
            pass

    using = asyncio.create_task(use())
    for _ in range(steps):
        await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert one.busy == 0
    with pytest.raises(ConnectionRefusedError):  # and the slot is free: this one gets as far as the server
        await use()


async def test_who_waits_for_a_slot_too_long_is_told_what_to_do() -> None:
    one = pool(patience=0.05)
    await one._slots.acquire()
    with pytest.raises(StorageError, match="were busy for"):
        async with one.connection():
            pass
    assert one.busy == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CommitUnknown(), "commit_unknown"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection"),
    ],
)
def test_every_reason_is_a_known_one(error: Exception, reason: str) -> None:
    assert why(error) == reason
    assert reason in REASONS
