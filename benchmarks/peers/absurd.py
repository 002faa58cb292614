"""The workloads on Absurd: a task for a run, every piece of user code a `ctx.step`, all in Postgres.

Each repetition has a database of its own beside the one that TICKWORK_POSTGRES_URL names; `database` makes it with
`absurdctl` (which calls `psql`) and drops it. The worker runs in this process; tasks are spawned through a second
client, as an application would. After a kill a task runs again when its claim has ended: by itself, after as long as it
was claimed for (`CLAIM` here; Absurd's default is 120 s).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from absurd_sdk import AsyncAbsurd

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result
from benchmarks.peers import POSTGRES_URL

QUEUE = "bench"
CLAIM = 3
"""Seconds for which a worker holds a run; each step prolongs it."""
LONG_CLAIM = 3600
"""The same where thousands of runs share the worker."""


def _name(home: Path) -> str:
    return f"tickwork_bench_{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"


def _url(home: Path) -> str:
    return urlsplit(os.environ[POSTGRES_URL])._replace(path=f"/{_name(home)}").geturl()


@contextmanager
def database(home: Path) -> Iterator[None]:
    """The database of the repetition in `home`, with Absurd's schema and a queue."""
    control = str(Path(sys.executable).with_name("absurdctl"))
    environment = os.environ | {"ABSURD_DATABASE_URL": _url(home)}
    with psycopg.connect(os.environ[POSTGRES_URL], autocommit=True) as server:
        server.execute(f"CREATE DATABASE {_name(home)}".encode())
        try:
            for arguments in (["init"], ["create-queue", QUEUE]):
                subprocess.run([control, *arguments], env=environment, check=True, capture_output=True, timeout=60)
            yield
        finally:
            server.execute(f"DROP DATABASE {_name(home)} WITH (FORCE)".encode())


class OnAbsurd:
    """The workloads on Absurd."""

    def __init__(self, home: Path) -> None:
        self._worker = AsyncAbsurd(_url(home), queue_name=QUEUE)
        self._client = AsyncAbsurd(_url(home), queue_name=QUEUE)
        self._left = 0

    async def __aenter__(self) -> Self:
        self._worker.register_task("loop")(self._loop)
        self._worker.register_task("fan")(self._fan)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._worker.close()
        await self._client.close()

    async def line(self, cycles: int) -> None:
        """One task of `cycles` cycles."""
        await self._client.spawn("loop", {"n": cycles, "seconds": 0.0}, queue=QUEUE)
        await self._worker.work_batch(batch_size=1, claim_timeout=CLAIM)

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many tasks at the same time; each step takes `seconds`."""
        for _ in range(runs):
            await self._client.spawn("loop", {"n": cycles, "seconds": seconds}, queue=QUEUE)
        self._left = runs
        await self._worker.start_worker(concurrency=runs + 1, claim_timeout=LONG_CLAIM)

    async def fan(self, width: int, rounds: int) -> None:
        """One task that opens `width` branches and joins them, `rounds` times."""
        await self._client.spawn("fan", {"width": width, "rounds": rounds}, queue=QUEUE)
        await self._worker.work_batch(batch_size=1, claim_timeout=LONG_CLAIM)

    async def go_on(self) -> None:
        """Waits for the task that a dead process left: its claim has to end first."""
        self._left = 1
        await self._worker.start_worker(claim_timeout=CLAIM)

    async def _loop(self, given: Any, context: Any) -> dict[str, Any]:
        i = 0

        async def decide() -> dict[str, bool]:
            return {"go": i < given["n"]}

        async def work() -> dict[str, Any]:
            if given["seconds"]:
                await asyncio.sleep(given["seconds"])
            METER.tick()
            LEDGER.call(i)
            return result(i + 1, given["n"])

        while (await context.step("decide", decide))["go"]:
            i = (await context.step("work", work))["i"]
        self._done()
        return {"i": i}

    async def _fan(self, given: Any, context: Any) -> dict[str, Any]:
        async def decide() -> dict[str, bool]:
            return {"go": True}

        async def part(k: int) -> Any:
            async def body() -> dict[str, Any]:
                METER.tick()
                return result(k, 0)

            return await context.step(f"part-{k}", body)

        for _ in range(given["rounds"]):
            await context.step("decide", decide)
            await asyncio.gather(*[part(k) for k in range(given["width"])])
        self._done()
        return {}

    def _done(self) -> None:
        """The worker stops polling once all tasks have ended."""
        self._left -= 1
        if self._left <= 0:
            self._worker.stop_worker()
