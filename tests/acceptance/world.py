"""What the tests of lifetimes share: a runtime on virtual time, and graphs that wait.

Whatever a test ran, and wherever it stands at the end, is replayed from its log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tickwork import (
    Graph,
    RetryPolicy,
    human,
    plan,
    task,
)
from tickwork.clock import RandomIds
from tickwork.errors import StoreCorrupt
from tickwork.model.lifetime import Lifetime, Question
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.testing.virtual import VirtualClock, run_virtual

ONCE = RetryPolicy(max_attempts=1)
HOUR = 3600.0


class World:
    """A runtime on virtual time, and the few things that every test here does with it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.service = runtime, runtime.service

    async def start(self, graph: Graph, input: Any = None, **options: Any) -> Lifetime:
        await self.runtime.bind(graph.bind())
        return await self.service.start(graph.name, input, **options)

    async def settle(self, lifetime: Lifetime) -> Lifetime:
        """Until it has ended or waits for somebody outside."""
        return await self.runtime.guard(self.service.wait(lifetime.lifetime_id, until="settled"))

    async def end(self, lifetime: Lifetime) -> Lifetime:
        return await self.runtime.guard(self.service.wait(lifetime.lifetime_id))

    async def result(self, lifetime: Lifetime) -> Any:
        ended = await self.end(lifetime)
        assert ended.status == "COMPLETED", ended.reason
        return (await self.service.result(lifetime.lifetime_id)).result

    async def log(self, lifetime: Lifetime) -> list[LogEntry]:
        found = await self.service.log(lifetime.lifetime_id, limit=10_000)
        assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
        return found

    async def executions(self, lifetime: Lifetime, node: str | None = None) -> list[Execution]:
        found = [e.entry for e in await self.log(lifetime) if isinstance(e.entry, Execution)]
        return [each for each in found if node is None or each.name == node]

    async def asked(self, count: int) -> list[Question]:
        """The open questions, once there are so many."""
        for _ in range(1_000):
            if len(found := await self.service.questions()) >= count:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"nobody asked {count} questions")

    async def until_timer_set(self, lifetime: Lifetime) -> None:
        async for entry in self.service.watch(lifetime.lifetime_id):
            if isinstance(entry.entry, Event) and entry.entry.type == "timer_set":
                return

    async def events(self, lifetime: Lifetime) -> list[str]:
        return [e.entry.type for e in await self.log(lifetime) if isinstance(e.entry, Event)]


async def replay_all(runtime: Runtime) -> None:
    """Replays whatever is recorded; a log that cannot be read was broken by the test on purpose."""
    for lifetime in await runtime.service.list(LifetimeQuery(limit=100_000)):
        with contextlib.suppress(StoreCorrupt):
            replayed = await runtime.history.replay(lifetime.lifetime_id)
            assert replayed.divergence is None, replayed.divergence


def virtual(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    """Makes a test of what happens in a world in memory."""

    def run() -> None:
        async def go() -> None:
            clock = VirtualClock(asyncio.get_running_loop())
            async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=1), threads=0) as runtime:
                await test(World(runtime))
                await replay_all(runtime)

        run_virtual(go())

    run.__name__ = test.__name__
    return run


def seconds_between(log: list[LogEntry], first: int, last: int) -> float:
    return (log[last].at - log[first].at) / 1e6


class Gate:
    """A Task's body that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled: list[str] = []

    async def wait(self, name: str = "") -> None:
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise


def gated(gate: Gate) -> Graph:
    """first (waits at the gate), a Plan, second."""

    @task
    async def first(value: int) -> int:
        await gate.wait()
        return value + 1

    @plan
    async def between() -> str:
        return "second"

    @task
    async def second(value: int) -> int:
        return value + 1

    return Graph("gated", "1.0.0").start(first).edge(first, between).edge(between, second).final(second)


def asking(name: str = "asking", **options: Any) -> Graph:
    """A question, and a Task that passes the answer on."""
    ask = human("ask", prompt="May {name} pass?", **options)

    @plan
    async def read() -> str:
        return "use"

    @task
    async def use(value: Any) -> Any:
        return value

    return Graph(name, "1.0.0").start(ask).edge(ask, read).edge(read, use).final(use)


def in_a_new_process(home: Path, epoch: int, work: Callable[[World], Awaitable[Any]]) -> Any:
    """What a process that starts at `epoch` (us) does with this home."""

    async def go() -> Any:
        clock = VirtualClock(asyncio.get_running_loop(), epoch)
        # Without the home's door: a socket that is listened to keeps virtual time real.
        profile = msgspec.structs.replace(Profile.local(home), home=None)
        async with Runtime(profile, clock=clock, threads=0) as runtime:
            done = await work(World(runtime))
            await replay_all(runtime)
            return done

    return run_virtual(go())
