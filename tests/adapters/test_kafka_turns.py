"""Tenants on the Kafka bus take turns, on a real broker: what one has sent does not stand before what another sends."""

from __future__ import annotations

import asyncio

import pytest

from tests.adapters.test_kafka_bus import kafka_url
from tests.adapters.test_kafka_faults import numbers, running, said, take, until
from tickwork.adapters.bus.kafka import KafkaBus, turns
from tickwork.ports import BusMessage, Subscription

pytestmark = [pytest.mark.servers, pytest.mark.slow]

FLOOD, QUIET = "data-plane.flood", "data-plane.quiet"
WAITING = 50_000
KEYS = 50
BATCH = 50
ON_ITS_WAY = 10
"""Takes, of 10 ms each, that may be without a message that the broker has."""


@pytest.fixture(autouse=True)
def _small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a flood of some thousands fills it."""
    monkeypatch.setattr(turns, "MESSAGES", 4096)


async def flood(bus: KafkaBus, count: int = WAITING) -> None:
    pad = b" " + b"." * 500
    many = [BusMessage(f"k{n % KEYS}", b"%d" % n + pad) for n in range(count)]
    for n in range(0, count, 1000):
        await bus.publish(FLOOD, many[n : n + 1000])  # one after the other: only so have they an order


async def takes_until(subscription: Subscription, topic: str) -> int:
    """Batches that are handed out until one has a message of this topic. Handling one takes a moment."""
    for count in range(1, WAITING):
        async with asyncio.timeout(25):
            got = await subscription.receive(BATCH)
        await asyncio.sleep(0.01)
        await subscription.ack(got)
        if any(d.topic == topic for d in got):
            return count
    raise AssertionError(f"nothing of {topic} came")


@pytest.mark.parametrize("group", ["g", ""])
async def test_a_flood_that_waits_does_not_stand_before_another_tenants_message(group: str) -> None:
    async with running(kafka_url(partitions=3)) as bus:
        subscription = await bus.subscribe(["data-plane.*"], group)
        await bus.publish(QUIET, said("k", 0))
        await take(subscription, 1)
        await flood(bus)
        await until(lambda: subscription._member._kept_back == {FLOOD})
        took = []
        for n in range(20):
            await bus.publish(QUIET, said("k", n))
            took.append(await takes_until(subscription, QUIET))
        print(f"takes of {BATCH} messages: {took}")
        assert sorted(took)[len(took) // 2] <= ON_ITS_WAY
        assert max(took) <= turns.MESSAGES // BATCH, "also when the flood is fetched again in that moment"


async def test_nothing_of_a_flood_is_lost_or_out_of_order_and_its_end_comes() -> None:
    async with running(kafka_url(partitions=3)) as bus:
        subscription = await bus.subscribe(["data-plane.*"], "g")
        await flood(bus, 20_000)
        seen: dict[str, list[int]] = {f"k{n}": [] for n in range(KEYS)}
        count = 0
        while count < 20_000:
            async with asyncio.timeout(25):
                got = await subscription.receive(100)
            if count % 2000 < 100:
                await asyncio.sleep(0.05)  # long enough for the flood to be kept back, again and again
            for d in got:
                assert not d.redelivered
                seen[d.message.key].append(int(d.message.value.split()[0]))
            count += len(got)
            await subscription.ack(got)
        for key, found in seen.items():
            assert found == list(range(int(key[1:]), 20_000, KEYS))
        assert bus.depth(FLOOD, "g") == 0
        await until(lambda: not subscription._member._kept_back)


async def test_a_partition_that_went_away_while_it_was_kept_back_is_read_when_it_returns() -> None:
    async with running(kafka_url(partitions=2, handover=0.1)) as bus:
        one = await bus.subscribe([FLOOD], "g")
        await flood(bus, 5000)
        await until(lambda: one._member._kept_back == {FLOOD})
        two = await bus.subscribe([FLOOD], "g")
        await until(lambda: len(one._inbox.parts) == len(two._inbox.parts) == 1)
        seen: set[bytes] = set()

        async def drain(member: Subscription) -> None:
            while True:
                got = await member.receive(500)
                seen.update(d.message.value for d in got)
                await member.ack(got)

        async with asyncio.timeout(25):
            both = [asyncio.ensure_future(drain(member)) for member in (one, two)]
            await until(lambda: len(seen) == 5000 and not one._member._kept_back)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        await two.close()
        await until(lambda: len(one._inbox.parts) == 2)
        await bus.publish(FLOOD, [BusMessage(f"k{n}", b"%d" % n) for n in range(KEYS)])
        assert sorted(numbers(await take(one, KEYS))) == list(range(KEYS))
