"""Many lifetimes at once against one cap of their tenant: how far is it passed, and how far might it have been?

    python -m benchmarks.overshoot                          10,000 lifetimes, once
    python -m benchmarks.overshoot --lives 1000 --runs 20   20 times 1,000
    python -m benchmarks.overshoot --kills 5                killed five times meanwhile, and started again

Every lifetime is one Task that declares at most 100 tokens, thinks for a moment, and uses 20 to 100. Some break their
word and use 400. The cap is about half of what all of them want, so many are paused. Whenever all have come to rest,
some of those are resumed, until nothing more is admitted. The real Runtime runs them, on disk; what was spent is added
up from the logs afterwards.

The bound: with declared maxima a cap is passed by no more than what the attempts that were in flight when the last one
was admitted used beyond their declaration. It is computed from the logs: from all that was recorded after the cause of
the last attempt that ran (its start, or a resume), which is never less. What an attempt spent that died with its
process and has no record, nobody knows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork import Graph, task
from tickwork.model.records import Event, Execution
from tickwork.model.spending import UsageQuery
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

DECLARED = 100
LEAST = 20
MORE = 400
"""Tokens of those that break their word."""

BREAKERS = 0.02
SHARE = 0.5
"""The cap, as a share of what all would use."""

THINK = 0.3
"""Seconds that a Task takes at most."""

AT_ONCE = 500
"""Starts that are under way at the same time."""

SEED = 4
PATIENCE = 120.0
"""Seconds after which a run that does not come to rest is an error."""


class Outcome(msgspec.Struct, kw_only=True):
    """What one run came to, in tokens."""

    lives: int
    limit: int
    spent: int
    """By the logs."""
    reported: int
    """By the store's own sums."""
    bound: int
    """What the attempts in flight at the last admission used beyond their declaration."""
    completed: int
    paused: int
    kills: int = 0
    lost: int = 0
    """Attempts that were lost with their process."""
    seconds: float = 0.0

    @property
    def overshoot(self) -> int:
        """What was spent beyond the limit."""
        return max(0, self.spent - self.limit)

    def line(self) -> str:
        """For people."""
        killed = f", {self.kills} kills, {self.lost} attempts lost" if self.kills else ""
        return (
            f"{self.lives:,} lifetimes in {self.seconds:.1f} s: spent {self.spent:,} of {self.limit:,} tokens, "
            f"overshoot {self.overshoot}, bound {self.bound} ({self.completed:,} completed, {self.paused:,} "
            f"paused{killed})"
        )


def limit_of(lives: int) -> int:
    """The cap for so many lifetimes."""
    return round(lives * SHARE * (DECLARED + LEAST) / 2)


def graph(breakers: float = BREAKERS, think: float = THINK) -> Graph:
    """The Task, by itself."""

    @task(maximum={"tokens": DECLARED})
    async def spend(number: int, ctx: Any) -> int:
        dice = random.Random(f"{SEED}/{number}/{ctx.attempt}")
        await asyncio.sleep(think * dice.random())
        used = MORE if dice.random() < breakers else dice.randint(LEAST, DECLARED)
        ctx.telemetry.record(tokens_used=used, cost_usd=0)
        return number

    return Graph("overshoot", "1.0.0").start(spend).final(spend)


def prepare(home: Path, lives: int) -> None:
    """Writes the cap down where the local profile finds it."""
    folder = home / "policies"
    folder.mkdir(parents=True, exist_ok=True)
    rule = f"{{name: cap, scope: tenant, when: sum(tokens_used) > {limit_of(lives)}, action: pause_lifetime}}"
    (folder / "cap.yaml").write_text(f"version: 1\npolicies:\n  - {rule}\n")


async def live(home: Path, lives: int, breakers: float = BREAKERS) -> None:
    """Starts all lifetimes that are not started yet, and returns when none moves any more."""
    async with Runtime(Profile.local(home)) as runtime:
        await runtime.bind(graph(breakers).bind())
        numbers = iter(range(lives))

        async def start() -> None:
            for number in numbers:
                await runtime.service.start("overshoot", number, idempotency_key=f"life-{number}")

        await runtime.guard(asyncio.gather(*[start() for _ in range(AT_ONCE)]))
        while (paused := await _at_rest(runtime, lives)) and (room := await _room(runtime, lives)):
            names = iter(paused[:room])

            async def resume(names: Iterator[str] = names) -> None:
                for name in names:
                    await runtime.service.resume(name)

            await runtime.guard(asyncio.gather(*[resume() for _ in range(AT_ONCE)]))


async def _room(runtime: Runtime, lives: int) -> int:
    """How many are resumed: twice as many as would be admitted; none, when nothing would."""
    rows = await runtime.store.usage(UsageQuery(tenant_id="default"))
    return 2 * (max(0, limit_of(lives) - (rows[0].tokens_used if rows else 0)) // DECLARED)


async def _at_rest(runtime: Runtime, lives: int) -> list[str]:
    """The lifetimes that are paused, once none moves."""
    until = time.monotonic() + PATIENCE
    while await runtime.service.list(LifetimeQuery(statuses=("RUNNING", "PENDING"), limit=1)):
        if time.monotonic() > until:
            raise TimeoutError(f"lifetimes still run after {PATIENCE:g} s")
        await runtime.guard(asyncio.sleep(0.1))
    paused = await runtime.service.list(LifetimeQuery(statuses=("PAUSED",), limit=10 * lives))
    return [lifetime.lifetime_id for lifetime in paused]


async def outcome(home: Path, lives: int) -> Outcome:
    """Adds up what the logs say."""
    done: list[tuple[int, int]] = []
    last = 0
    found = Outcome(lives=lives, limit=limit_of(lives), spent=0, reported=0, bound=0, completed=0, paused=0)
    async with Runtime(Profile.local(home), readonly=True) as runtime:
        for lifetime in await runtime.service.list(LifetimeQuery(limit=10 * lives)):
            found.completed += lifetime.status == "COMPLETED"
            found.paused += lifetime.status == "PAUSED"
            resumed = 0
            for logged in await runtime.service.log(lifetime.lifetime_id, limit=1_000):
                entry = logged.entry
                if isinstance(entry, Event):
                    resumed = logged.at if entry.type == "resumed" else resumed
                    if entry.type != "superseded":
                        continue
                    entry = msgspec.convert(entry.data["execution"], Execution)
                used = entry.telemetry.tokens_used if entry.telemetry is not None else 0
                found.spent += used
                found.lost += entry.error is not None and entry.error.type == "LeaseExpired"
                last = max(last, resumed, entry.created_at)
                done.append((logged.at, used))
        rows = await runtime.store.usage(UsageQuery(tenant_id="default"))
        found.reported = rows[0].tokens_used if rows else 0
    found.bound = sum(max(0, used - DECLARED) for at, used in done if at >= last)
    return found


def once(home: Path, lives: int, breakers: float = BREAKERS) -> Outcome:
    """One run in this process."""
    prepare(home, lives)
    began = time.perf_counter()
    asyncio.run(live(home, lives, breakers))
    seconds = time.perf_counter() - began
    return msgspec.structs.replace(asyncio.run(outcome(home, lives)), seconds=seconds)


def killed(home: Path, lives: int, kills: int) -> Outcome:
    """One run in processes of its own, which are killed and started again.

    When they are killed goes by what was spent, not by the clock: on a fast machine too each kill meets a run that
    has some of its way to go.
    """
    prepare(home, lives)
    dice = random.Random(SEED)
    marks = sorted(dice.uniform(0.1, 0.9) * limit_of(lives) for _ in range(kills))
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.overshoot", "--home", str(home), "--lives", str(lives)]
    root = Path(__file__).resolve().parents[1]
    for mark in marks:
        process = subprocess.Popen(command, cwd=root)
        while _spent(home) < mark:
            if process.poll() is not None:
                raise RuntimeError(
                    f"a process ended with code {process.returncode} before {mark:,.0f} tokens were spent"
                )
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command, cwd=root, check=False, timeout=10 * PATIENCE)
    if last.returncode:
        raise RuntimeError(f"the last process ended with code {last.returncode}")
    seconds = time.perf_counter() - began
    return msgspec.structs.replace(asyncio.run(outcome(home, lives)), seconds=seconds, kills=kills)


def _spent(home: Path) -> int:
    """Tokens by the store's sums, read beside the process that writes them."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{home / 'tickwork.db'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT coalesce(sum(tokens_used), 0) FROM usage").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not created yet


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a run passed its bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overshoot", description=__doc__)
    parser.add_argument("--lives", type=int, default=10_000, help="lifetimes of one run (default 10,000)")
    parser.add_argument("--runs", type=int, default=1, help="how often (default once)")
    parser.add_argument("--kills", type=int, default=0, help="times that the process is killed meanwhile")
    parser.add_argument("--breakers", type=float, default=BREAKERS, help=f"share of those that use {MORE} tokens")
    parser.add_argument("--home", type=Path, help="run in this home and report nothing: what a killed run starts")
    given = parser.parse_args(arguments)
    if given.home is not None:
        asyncio.run(live(given.home, given.lives, given.breakers))
        return 0
    worst = 0
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            found = killed(home, given.lives, given.kills) if given.kills else once(home, given.lives, given.breakers)
        print(found.line(), flush=True)
        worst = max(worst, found.overshoot - found.bound)
    print("every cap held within its bound" if worst <= 0 else f"a cap was passed by {worst} more than its bound")
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
