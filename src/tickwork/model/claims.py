"""What a worker and the sweeper agree on: how work is claimed in the key-value store, and for how long that counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")

LEASE = 30.0
"""Seconds of silence after which a worker is given up (the runtime's `lease`)."""

BEATS = 3
"""How often a worker is heard in that time."""

KEPT = 4
"""Leases after which a claim that nobody renews is forgotten altogether."""

EPOCH = "claims/epoch"
"""The key by which watchers see that the store forgot: what it holds is never changed, and has no end."""

AT_ONCE = 64
"""Claims that one process is asking about at the same time. A store that is reached over a network answers them all in
the time of a few."""


def claim_key(work_id: str) -> str:
    """The key of a claim on this work: an exec id, or `reconcile_work` of one."""
    return f"claim/{work_id}"


def claim_value(worker: str, beat: int) -> bytes:
    """The value: who has it, and a number that grows as long as he lives."""
    return f"{worker}:{beat}".encode()


def claimed_by(value: bytes) -> str:
    """The worker of a claim's value."""
    return value.rpartition(b":")[0].decode()


def reconcile_work(exec_id: str) -> str:
    """The id of asking the reconcile hook about an execution: other work than the execution itself."""
    return f"{exec_id}?"


async def for_each(items: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """Does something with the claim of each item, AT_ONCE at a time, begun in order. What `do` raises ends it."""
    left = list(items)
    left.reverse()

    async def work_off() -> None:
        while left:
            await do(left.pop())

    if len(left) <= 1:
        await work_off()  # no task for what is mostly one
        return
    await asyncio.gather(*[work_off() for _ in range(min(AT_ONCE, len(left)))])
