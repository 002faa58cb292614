"""A consumer in a process of its own, for tests that end it: prints what it gets, acknowledges even numbers."""

from __future__ import annotations

import asyncio
import sys

from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock


async def consume(url: str, topic: str) -> None:
    bus = KafkaBus(url, SystemClock())
    await bus.start()
    member = await bus.subscribe([topic], "g")
    print("here", flush=True)
    while True:
        batch = await member.receive(10)
        even = [d for d in batch if int(d.message.value) % 2 == 0]
        await member.ack(even)
        for delivery in batch:
            print(int(delivery.message.value), flush=True)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2]))
