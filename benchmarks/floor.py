"""The floor: the least Python that keeps the promise "a step is on disk before the next step of its run starts".

One table, one connection, SQLite in WAL mode with synchronous=FULL, JSON bodies. Runs are coroutines; the records of
all runs that are ready at the same time share one commit, and one future tells all of them that it is done. There are
no headers, no joins, no retries, no limits: what Tickwork costs beyond this is what those are allowed to cost.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result

encode = msgspec.json.encode
INSERT = "INSERT INTO record (run, step, body) VALUES (?, ?, ?)"


async def decide(i: int, n: int) -> bool:
    return i < n


async def work(i: int, n: int, seconds: float) -> dict[str, Any]:
    if seconds:
        await asyncio.sleep(seconds)
    METER.tick()
    LEDGER.call(i)
    return result(i + 1, n)


class Floor:
    """The workloads on the floor."""

    name = "floor"

    def __init__(self, home: Path) -> None:
        self._file = home / "floor.db"
        self._rows: list[tuple[str, int, bytes]] = []
        self._commit: asyncio.Future[None] | None = None
        self._lines = 0

    async def __aenter__(self) -> Self:
        self._db = sqlite3.connect(self._file, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS record (run TEXT, step INTEGER, body BLOB, PRIMARY KEY (run, step))"
            " WITHOUT ROWID"
        )
        (self._lines,) = self._db.execute("SELECT count(DISTINCT run) FROM record").fetchone()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    async def line(self, cycles: int) -> None:
        """One run of `cycles` cycles."""
        self._lines += 1
        await self._run(f"line-{self._lines}", cycles)

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many runs at the same time; each task takes `seconds`."""
        await asyncio.gather(*[self._run(f"run-{k}", cycles, seconds) for k in range(runs)])

    async def fan(self, width: int, rounds: int) -> None:
        """One run that opens `width` branches and joins them, `rounds` times."""
        for number in range(rounds):
            step = number * (width + 1)
            await self._record("fan", step, {"out": await decide(number, rounds)})
            await asyncio.gather(*[self._branch(step + 1 + k, k) for k in range(width)])

    async def go_on(self) -> None:
        """Takes up the run that a dead process left."""
        run, last, body = self._db.execute("SELECT run, step, body FROM record ORDER BY step DESC LIMIT 1").fetchone()
        await self._run(run, msgspec.json.decode(body)["n"], done=last + 1)

    async def _run(self, run: str, cycles: int, seconds: float = 0.0, done: int = 0) -> None:
        """Odd steps are tasks: an odd count of recorded steps means that a decision is not carried out yet."""
        step, i, decided = done, done // 2, done % 2 == 1
        while True:
            if not decided:
                decided = await decide(i, cycles)
                await self._record(run, step, {"in": i, "n": cycles, "out": decided})
                step += 1
                if not decided:
                    return
            out = await work(i, cycles, seconds)
            await self._record(run, step, {"in": i, "n": cycles, "out": out})
            step, i, decided = step + 1, i + 1, False

    async def _branch(self, step: int, k: int) -> None:
        await self._record("fan", step, {"in": k, "out": await work(k, 0, 0.0)})

    async def _record(self, run: str, step: int, body: Any) -> None:
        """Returns once the record is on disk."""
        self._rows.append((run, step, encode(body)))
        if self._commit is None:
            loop = asyncio.get_running_loop()
            self._commit = loop.create_future()
            loop.call_soon(self._write)
        await self._commit

    def _write(self) -> None:
        rows, commit = self._rows, self._commit
        self._rows, self._commit = [], None
        self._db.execute("BEGIN")
        self._db.executemany(INSERT, rows)
        self._db.execute("COMMIT")
        if commit is not None:
            commit.set_result(None)
