"""What the blob store and the key-value store of the cloud profile do: operations a second, one by one and 16 at once.

    eval "$(dev/services env)"; python -m benchmarks.objects [--reps 3] [--seconds 2]

Blobs go to TICKWORK_S3_URL (64 KiB and 1 MiB, each of other content; `again` puts what is there already), values to
TICKWORK_REDIS_URL. Medians of the repetitions; client and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tickwork.adapters.blob.objects import ObjectBlobs
from tickwork.adapters.kv.redis import RedisKV
from tickwork.clock import SystemClock

AT_ONCE = (1, 16)
SIZES = {"64 KiB": 64 * 1024, "1 MiB": 1024 * 1024}
Operation = Callable[[int], Awaitable[object]]


async def rate(operation: Operation, at_once: int, seconds: float) -> tuple[float, float]:
    """Operations a second, and the p99 in milliseconds, with so many going on at the same time."""
    numbers, taken = itertools.count(), []
    begun = time.perf_counter()

    async def worker() -> None:
        while (start := time.perf_counter()) - begun < seconds:
            await operation(next(numbers))
            taken.append(time.perf_counter() - start)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    spent = time.perf_counter() - begun
    return len(taken) / spent, sorted(taken)[int(len(taken) * 0.99)] * 1e3


async def blobs(url: str) -> tuple[ObjectBlobs, dict[str, Operation]]:
    """What is done with blobs, by name; and the store, to be stopped."""
    store = ObjectBlobs(f"{url}{'&' if urlsplit(url).query else '?'}prefix=bench/{uuid.uuid4().hex}", SystemClock())
    await store.start()
    operations: dict[str, Operation] = {}
    for name, size in SIZES.items():
        data = os.urandom(size)
        uri, digest = await store.put("bench", data)

        async def put(_: int, rest: bytes = data[16:]) -> object:
            return await store.put("bench", uuid.uuid4().bytes + rest)

        async def again(_: int, data: bytes = data) -> object:
            return await store.put("bench", data)

        async def get(_: int, uri: str = uri, digest: str = digest) -> object:
            return await store.get("bench", uri, digest)

        operations |= {f"put {name}": put, f"put {name} again": again, f"get {name}": get}
    return store, operations


async def values(url: str) -> tuple[RedisKV, dict[str, Operation]]:
    """What is done with values, by name; and the store, to be stopped."""
    store = RedisKV(f"{url}{'&' if urlsplit(url).query else '?'}prefix=bench:{uuid.uuid4().hex}:", SystemClock())
    await store.start()

    async def claim(number: int) -> object:
        return await store.put(f"claim/{number}", b"worker:0", 60, if_absent=True)

    async def look(number: int) -> object:
        return await store.get(f"claim/{number % 1000}")

    async def release(number: int) -> None:
        await store.delete(f"claim/{number}")

    return store, {"claim": claim, "look": look, "release": release}


async def measure(reps: int, seconds: float) -> None:
    """Prints a line for each operation."""
    print(f"{'operation':<20}{'at once':>8}{'1/s':>10}{'p99 ms':>10}")
    objects, operations = await blobs(os.environ["TICKWORK_S3_URL"])
    store, more = await values(os.environ["TICKWORK_REDIS_URL"])
    for name, operation in (operations | more).items():
        for at_once in AT_ONCE:
            seen = [await rate(operation, at_once, seconds) for _ in range(reps)]
            each, p99 = (statistics.median(column) for column in zip(*seen, strict=True))
            print(f"{name:<20}{at_once:>8}{each:>10,.0f}{p99:>10.2f}", flush=True)
    await asyncio.gather(store.stop(), objects.stop())


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects", description=__doc__)
    parser.add_argument("--reps", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each repetition")
    options = parser.parse_args()
    missing = [name for name in ("TICKWORK_S3_URL", "TICKWORK_REDIS_URL") if not os.environ.get(name)]
    if missing:
        print(f'{missing[0]} is not set: dev/services up redis s3; eval "$(dev/services env)"', file=sys.stderr)
        return 2
    asyncio.run(measure(options.reps, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
