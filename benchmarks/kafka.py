"""The Kafka bus alone: `python -m benchmarks.kafka kafka://127.0.0.1:PORT`, one process, through the EventBus port.

Produce: publishes of 500 messages of 1 kB, ten under way at a time; a message counts when the broker has it. Consume:
the same messages, received and acknowledged. Busy receivers: their loop can do so many a second, and more wait. Round
trip: one message published, awaited at a subscription that waits for it, then the next. Medians of three rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import time
from collections.abc import Awaitable, Callable

from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock
from tickwork.ports import BusMessage, Subscription

TOPIC = "data-plane.bench"
VALUE = b"x" * 1000
BATCH = 500
ABREAST = 10
ROUNDS = 3
BUSY = (10_000, 20_000)


async def produce(bus: KafkaBus, count: int) -> None:
    batches = iter(range(count // BATCH))

    async def lane() -> None:
        for batch in batches:
            await bus.publish(TOPIC, [BusMessage(f"lifetime-{batch}-{n % 50}", VALUE) for n in range(BATCH)])

    await asyncio.gather(*(lane() for _ in range(ABREAST)))


async def consume(subscription: Subscription, count: int) -> None:
    while count > 0:
        batch = await subscription.receive(1024)
        await subscription.ack(batch)
        count -= len(batch)


async def work_off(subscription: Subscription, count: int, rate: float) -> None:
    """As `consume`, by a receiver whose loop is busy with each message: what comes waits, and is kept back."""
    while count > 0:
        batch = await subscription.receive(1024)
        until = time.perf_counter() + len(batch) / rate
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
        await subscription.ack(batch)
        count -= len(batch)


async def timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU."""
    began, usage = time.perf_counter(), _cpu()
    await work()
    return time.perf_counter() - began, _cpu() - usage


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def round_trips(bus: KafkaBus, subscription: Subscription, count: int) -> list[float]:
    """Milliseconds of each."""
    taken = []
    for n in range(count):
        waiting = asyncio.ensure_future(subscription.receive(1))
        await asyncio.sleep(0)
        began = time.perf_counter()
        await bus.publish(TOPIC, [BusMessage(f"k{n}", VALUE)])
        await subscription.ack(await waiting)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def measure(url: str, count: int, trips: int) -> None:
    place, _, query = url.partition("?")
    options = f"?{query}" if query else ""
    bus = KafkaBus(f"{place}/bench-{os.getpid()}-{time.time_ns()}{options}", SystemClock())
    await bus.start()
    try:
        subscription = await bus.subscribe([TOPIC], "bench")
        made, got = [], []
        for _ in range(ROUNDS):
            made.append(await timed(lambda: produce(bus, count)))
            got.append(await timed(lambda: consume(subscription, count)))
        for name, spans in (("produce", made), ("consume", got)):
            seconds, cpu = (statistics.median(column) for column in zip(*spans, strict=True))
            print(f"{name}: {count / seconds:,.0f} messages/s, {cpu / count * 1e6:.1f} us of CPU a message")
        for rate in BUSY:
            await produce(bus, 3 * rate)
            seconds, _ = await timed(lambda rate=rate: work_off(subscription, 3 * rate, rate))  # type: ignore[misc]  # of a default
            print(f"a receiver that can do {rate:,}: {3 * rate / seconds:,.0f} messages/s")
        await round_trips(bus, subscription, 100)
        trip = sorted(await round_trips(bus, subscription, trips))
        print(f"round trip: p50 {trip[trips // 2]:.2f} ms, p99 {trip[trips * 99 // 100]:.2f} ms")
        print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")
    finally:
        await bus.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default=os.environ.get("TICKWORK_KAFKA_URL"), help="kafka://HOST:PORT")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--trips", type=int, default=1000)
    given = parser.parse_args()
    if not given.url:
        parser.error("name a broker: kafka://127.0.0.1:PORT, or TICKWORK_KAFKA_URL (see dev/services)")
    asyncio.run(measure(given.url, given.messages, given.trips))


if __name__ == "__main__":
    main()
