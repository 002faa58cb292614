"""Appends a second into Postgres, from one process: `python -m benchmarks.postgres` with TICKWORK_POSTGRES_URL.

1,000 lifetimes, entries of about 400 bytes. Beside it what the same server does with nothing in between: commits of
one row on 20 connections, and batches of bare rows on four. Tables are made in a schema of their own and removed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from tickwork.adapters.state.postgres import PostgresStore
from tickwork.clock import SystemClock
from tickwork.model.lifetime import Lifetime
from tickwork.testing.conformance.specimens import append, execution, lifetime, started

SCHEMA = f"bench_{os.getpid()}"
LIVES = 1_000


def with_schema(url: str) -> str:
    """The URL, for the tables of this run."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode([*parse_qsl(parts.query), ("schema", SCHEMA)])).geturl()


async def batches(store: PostgresStore, lives: list[Lifetime], size: int, seconds: float, first: int) -> float:
    """Entries a second when one caller sends batches of so many lifetimes, one entry each."""
    sent, number, until = 0, first, time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < until:
        for start in range(0, len(lives), size):
            await store.append([append(life, execution(life, number)) for life in lives[start : start + size]])
            sent += len(lives[start : start + size])
        number += 1
    return sent / (time.perf_counter() - began)


async def callers(store: PostgresStore, lives: list[Lifetime], count: int, seconds: float, first: int) -> str:
    """Appends a second, and how long one takes, when so many callers append one entry at a time."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def call(life: Lifetime) -> None:
        number = first
        while (began := time.perf_counter()) < until:
            await store.append([append(life, execution(life, number))])
            took.append(time.perf_counter() - began)
            number += 1

    began = time.perf_counter()
    await asyncio.gather(*(call(life) for life in lives[:count]))
    rate = len(took) / (time.perf_counter() - began)
    took.sort()
    p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
    return f"{rate:10,.0f}/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms"


async def floor(url: str, seconds: float) -> tuple[float, float]:
    """Commits of one bare row a second, and bare rows a second in batches of 500."""
    pool = await asyncpg.create_pool(url, min_size=20, max_size=20)
    await pool.execute(f'CREATE TABLE "{SCHEMA}".bare (a text, b bigint, c text, d bytea, PRIMARY KEY (a, b))')
    body, until, counts = os.urandom(400), time.perf_counter() + seconds, [0, 0]

    async def commits(worker: int) -> None:
        async with pool.acquire() as connection:
            while time.perf_counter() < until:
                counts[0] += 1
                await connection.execute(
                    f'INSERT INTO "{SCHEMA}".bare VALUES ($1, $2, $3, $4)', f"w{worker}", counts[0], "x" * 32, body
                )

    began = time.perf_counter()
    await asyncio.gather(*(commits(n) for n in range(20)))
    one = counts[0] / (time.perf_counter() - began)
    until = time.perf_counter() + seconds

    async def rows(worker: int) -> None:
        async with pool.acquire() as connection:
            while time.perf_counter() < until:
                numbers = list(range(counts[1], counts[1] + 500))
                counts[1] += 500
                await connection.execute(
                    f'INSERT INTO "{SCHEMA}".bare SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], '
                    "$4::bytea[]) ON CONFLICT DO NOTHING",
                    *([f"r{worker}"] * 500, numbers, ["x" * 32] * 500, [body] * 500),
                )

    began = time.perf_counter()
    await asyncio.gather(*(rows(n) for n in range(4)))
    many = counts[1] / (time.perf_counter() - began)
    await pool.close()
    return one, many


async def main(url: str, seconds: float) -> None:
    """Measures everything once and prints it."""
    store = PostgresStore(with_schema(url), SystemClock())
    await store.start()
    try:
        for fact, value in (await store.ping()).items():
            print(f"{fact:20} {value}")
        one, many = await floor(url, seconds)
        print(f"\n{'bare commits, 20 connections':44} {one:10,.0f}/s")
        print(f"{'bare rows, batches of 500, 4 connections':44} {many:10,.0f}/s")
        lives = [lifetime(n) for n in range(LIVES)]
        began = time.perf_counter()
        await asyncio.gather(*(store.create_lifetime(life, started(life)) for life in lives))
        print(f"{'new lifetimes':44} {LIVES / (time.perf_counter() - began):10,.0f}/s")
        for number, size in enumerate((1_000, 100), 1):
            rate = await batches(store, lives, size, seconds, number * 1_000_000)
            print(f"{f'appends, batches of {size} lifetimes':44} {rate:10,.0f}/s")
        for number, count in enumerate((1, 20, 1_000), 3):
            told = await callers(store, lives, count, seconds, number * 1_000_000)
            print(f"{f'appends one by one, {count} callers':44} {told}")
    finally:
        await store.stop()
        connection = await asyncpg.connect(url)
        await connection.execute(f'DROP SCHEMA "{SCHEMA}" CASCADE')
        await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each line is measured")
    asyncio.run(main(os.environ["TICKWORK_POSTGRES_URL"], parser.parse_args().seconds))
