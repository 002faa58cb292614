"""Appends to lifetimes that other processes append to as well, and prints what was acknowledged; may be killed.

    postgres_child.py URL NAME LIVES ENTRIES

Each entry is sent by every process under an id of its own, and every third one under an id that all of them use. A
line is `lifetime's number, seq or None, entry id`.
"""

from __future__ import annotations

import asyncio
import sys

from tickwork.adapters.state.postgres import PostgresStore
from tickwork.clock import SystemClock
from tickwork.model.records import Event
from tickwork.testing.conformance.specimens import append, lifetime, started


async def main(url: str, name: str, lives: int, entries: int) -> None:
    """Sends so many entries to each lifetime; all of them at the same time."""
    store = PostgresStore(url, SystemClock())
    await store.start()

    async def send(number: int) -> None:
        life = lifetime(number, ("acme", "umbrella")[number % 2])
        await store.create_lifetime(life, started(life))
        for count in range(entries):
            shared = count % 3 == 0
            entry = Event(f"shared-{count}" if shared else f"{name}-{count}", "paused")
            answer = (await store.append([append(life, entry)]))[0]
            print(number, answer.seqs[0], entry.entry_id, answer.error or "", flush=True)

    # Backwards in one of two processes, so that they meet the lifetimes in different orders.
    await asyncio.gather(*(send(n) for n in (range(lives) if name < "m" else reversed(range(lives)))))
    await store.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
