"""A tenant's rate on a real broker: the members of a group keep it together, each its part, whoever comes and goes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.adapters.test_kafka_bus import kafka_url
from tests.adapters.test_kafka_faults import running, until
from tickwork.clock import SystemClock
from tickwork.executor.pace import Pace, TenantRates
from tickwork.ports import BusMessage, Subscription

pytestmark = pytest.mark.servers

RATE = 60.0
SECONDS = 3.0
NOISY, QUIET = "task-inputs.noisy", "task-inputs.quiet"
WAITING = 2_000
KEYS = 400


class Member:
    """One of a group that takes what its Pace allows."""

    def __init__(self, subscription: Subscription, taken: list[tuple[float, str]]) -> None:
        self.subscription, self._taken = subscription, taken
        self._later: set[asyncio.Task[None]] = set()
        rates = TenantRates(own={"noisy": RATE})
        self.pace = Pace(rates, SystemClock(), lambda work: self._later.add(asyncio.create_task(work)))
        self.task = asyncio.create_task(self._take(self.pace.gate(subscription)))

    async def _take(self, gate: Callable[[str], bool] | None) -> None:
        while deliveries := await self.subscription.receive(1_000, gate):
            now = time.monotonic()
            self._taken += [(now, delivery.topic) for delivery in deliveries]
            await self.subscription.ack(deliveries)

    async def close(self) -> None:
        await self.subscription.close()
        await self.task


async def test_members_keep_a_tenants_rate_together() -> None:
    url = kafka_url(partitions=8)
    # Members have equally many partitions of all topics together: were there as many of the quiet one, each of the two
    # could have one tenant for itself. So with eight and one, each has at least three of the noisy one's.
    async with running(url.replace("partitions=8", "partitions=1")) as bus:
        await bus.publish(QUIET, [BusMessage("first", b"")])
    async with running(url) as bus:
        taken: list[tuple[float, str]] = []
        subscriptions = [await bus.subscribe(["task-inputs.*"], "executors") for _ in range(2)]
        await bus.publish(NOISY, [BusMessage("first", b"")])
        one, two = [Member(subscription, taken) for subscription in subscriptions]
        shares = [one.subscription.share, two.subscription.share]
        await until(lambda: sum(share(NOISY) for share in shares) == 1.0 and all(share(NOISY) for share in shares))
        await until(lambda: sum(share(QUIET) for share in shares) == 1.0)
        print("shares", [(share(NOISY), share(QUIET)) for share in shares])

        await bus.publish(NOISY, [BusMessage(f"k{n % KEYS}", b"") for n in range(WAITING)])
        await asyncio.sleep(SECONDS)
        began = time.monotonic()
        sent = [began + 0.1 * n for n in range(int(SECONDS * 10))]
        for n, due in enumerate(sent):
            await asyncio.sleep(due - time.monotonic())
            await bus.publish(QUIET, [BusMessage(f"q{n}", b"")])
        await asyncio.sleep(max(0.0, began + SECONDS - time.monotonic()))
        counts = Counter(topic for at, topic in taken if began <= at < began + SECONDS)
        print(f"{counts[NOISY] / SECONDS:.0f}/s of {RATE:.0f}; {counts[QUIET]} of {len(sent)} of another tenant")
        assert 0.8 * RATE * SECONDS <= counts[NOISY] <= 1.1 * RATE * SECONDS
        assert counts[QUIET] >= len(sent) - 2, "another tenant does not wait"
        # Between two looks; in the moment of one nobody is.
        await until(lambda: one.pace.held_back == two.pace.held_back == {"noisy"})

        await two.close()  # what it had the other gets, and its part of the rate
        await until(lambda: one.subscription.share(NOISY) == 1.0)
        await asyncio.sleep(1.0)
        began = time.monotonic()
        await asyncio.sleep(SECONDS)
        rate = sum(1 for at, topic in taken if at >= began and topic == NOISY) / SECONDS
        print(f"alone {rate:.0f}/s")
        assert 0.8 * RATE <= rate <= 1.1 * RATE
        await one.close()
