"""Appends to one lifetime for ever and prints each seq that was acknowledged; somebody kills it."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import SystemClock
from tickwork.testing.conformance.specimens import append, execution, lifetime, started


async def main(path: str, submitters: int) -> None:
    """Appends with so many submitters at a time; each line is `lifetime's number, seq, iteration`."""
    store = SqliteStore(path, SystemClock())
    await store.start()

    async def submit(number: int) -> None:
        life = lifetime(number)
        found, _ = await store.create_lifetime(life, started(life))
        for iteration in count(found.last_seq):
            answer = (await store.append([append(life, execution(life, iteration))]))[0]
            print(number, answer.seqs[0], iteration, flush=True)

    await asyncio.gather(*(submit(n) for n in range(submitters)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
