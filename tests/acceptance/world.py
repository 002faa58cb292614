"""What the tests of lifetimes share: where they happen, and graphs that wait.

One body is a test in several places: in one runtime on virtual time, in one on real time with a home, and on the real
servers with two members of each role (see `fleet`). It measures its time in `world.hour`. Whatever a test ran, and
wherever it stands at the end, is replayed from its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import pytest

from tests.acceptance.fleet import Fleet
from tickwork import (
    Graph,
    RetryPolicy,
    human,
    plan,
    task,
)
from tickwork.clock import RandomIds
from tickwork.errors import AlreadyEnded, StoreCorrupt
from tickwork.history import History
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.lifetime import Lifetime, Question
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.ports import Clock, LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.service import Service
from tickwork.testing.virtual import EPOCH, VirtualClock, run_virtual

ONCE = RetryPolicy(max_attempts=1)


class Place(Protocol):
    """Where a world is."""

    hour: float
    """Seconds that a test calls an hour."""
    slack: float
    """Seconds that what is due may be late."""

    @property
    def runtime(self) -> Runtime:
        """Whose service is asked."""
        ...

    async def restart(self, seconds: float, breaking: str) -> None:
        """All processes go, and so much later others come, which know no graph. `breaking`: whose log breaks meanwhile,
        if any."""
        ...


class World:
    """A place, and the few things that every test here does in it."""

    def __init__(self, place: Place, tenant: str = DEFAULT_TENANT) -> None:
        self._place, self.tenant = place, tenant
        self.hour, self.slack = place.hour, place.slack

    @property
    def service(self) -> Service:
        """The use cases, for this world's tenant."""
        return _Of(self._place.runtime.service, self.tenant)  # type: ignore[return-value]  # it does what that does

    @property
    def history(self) -> History:
        """Likewise."""
        return _Of(self._place.runtime.history, self.tenant)  # type: ignore[return-value]  # it does what that does

    # -- time

    async def rest(self, hours: float = 1.0) -> None:
        """So long nobody does anything."""
        await asyncio.sleep(hours * self.hour)

    async def restart(self, *, after: float = 0.0, breaking: Lifetime | None = None) -> None:
        """All processes go, and so many hours later others come, which know no graph.

        `breaking`: when they come, this lifetime's log cannot be read.
        """
        await self._place.restart(after * self.hour, breaking.lifetime_id if breaking is not None else "")

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until it does."""
        for _ in range(1_000):
            if holds():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it does not come about")

    # -- lifetimes

    async def bind(self, graph: Graph) -> None:
        await self._place.runtime.bind(graph.bind(), tenant=self.tenant)

    async def start(self, graph: Graph, input: Any = None, **options: Any) -> Lifetime:
        await self.bind(graph)
        return await self.service.start(graph.name, input, **options)

    async def settle(self, lifetime: Lifetime | str) -> Lifetime:
        """Until it has ended or waits for somebody outside."""
        async with asyncio.timeout(5 * self.hour):
            return await self._place.runtime.guard(self.service.wait(_id(lifetime), until="settled"))

    async def end(self, lifetime: Lifetime | str) -> Lifetime:
        return await self._place.runtime.guard(self.service.wait(_id(lifetime)))

    async def result(self, lifetime: Lifetime | str) -> Any:
        ended = await self.end(lifetime)
        assert ended.status == "COMPLETED", ended.reason
        return (await self.service.result(ended.lifetime_id)).result

    async def log(self, lifetime: Lifetime | str) -> list[LogEntry]:
        found = await self.service.log(_id(lifetime), limit=10_000)
        assert [entry.seq for entry in found] == list(range(1, len(found) + 1))
        return found

    async def executions(self, lifetime: Lifetime | str, node: str | None = None) -> list[Execution]:
        found = [e.entry for e in await self.log(lifetime) if isinstance(e.entry, Execution)]
        return [each for each in found if node is None or each.name == node]

    async def asked(self, count: int) -> list[Question]:
        """The open questions, once there are so many."""
        for _ in range(1_000):
            if len(found := await self.service.questions()) >= count:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"nobody asked {count} questions")

    async def until_timer_set(self, lifetime: Lifetime | str) -> None:
        async for entry in self.service.watch(_id(lifetime)):
            if isinstance(entry.entry, Event) and entry.entry.type == "timer_set":
                return

    async def events(self, lifetime: Lifetime | str) -> list[str]:
        return [e.entry.type for e in await self.log(lifetime) if isinstance(e.entry, Event)]

    async def timers(self) -> list[str]:
        """The lifetimes that have a timer, due whenever."""
        found, _ = await self._place.runtime.store.due_timers(EPOCH)
        return [timer.lifetime_id for timer in found if timer.tenant_id == self.tenant]

    # -- the end

    async def replay_all(self) -> None:
        """Replays whatever is recorded; a log that cannot be read was broken by the test on purpose."""
        for lifetime in await self.service.list(LifetimeQuery(limit=100_000)):
            with contextlib.suppress(StoreCorrupt):
                replayed = await self.history.replay(lifetime.lifetime_id)
                assert replayed.divergence is None, replayed.divergence


def _id(lifetime: Lifetime | str) -> str:
    return lifetime if isinstance(lifetime, str) else lifetime.lifetime_id


class _Of:
    """Use cases whose tenant is always this one."""

    def __init__(self, cases: object, tenant: str) -> None:
        self._cases, self._tenant = cases, tenant

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._cases, name), tenant=self._tenant)


# -- places -----------------------------------------------------------------------------------------------------------

Body = Callable[..., Awaitable[None]]


class OneProcess:
    """One runtime after the other on a home; with a clock: on virtual time."""

    def __init__(self, home: Path, clock: Clock | None = None) -> None:
        self._home, self._clock, self._lives = home, clock, 0
        self._profile = Profile.local(home)
        self.hour, self.slack = (2.0, 10.0) if clock is None else (3600.0, 1.0)
        if clock is not None:
            # Without the home's door: a socket that is listened to keeps virtual time real.
            self._profile = msgspec.structs.replace(self._profile, home=None)
        self.runtime: Runtime

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runtime.__aexit__(None, None, None)

    async def _begin(self) -> None:
        self._lives += 1
        if self._clock is None:
            self.runtime = Runtime(self._profile)
        else:
            self.runtime = Runtime(self._profile, clock=self._clock, ids=RandomIds(seed=self._lives), threads=0)
        await self.runtime.__aenter__()

    async def restart(self, seconds: float, breaking: str) -> None:
        await self.runtime.__aexit__(None, None, None)
        await asyncio.sleep(seconds)
        if breaking:
            self._spoil(breaking)
        await self._begin()

    def _spoil(self, breaking: str) -> None:
        with sqlite3.connect(self._home / "tickwork.db") as database:
            lid = "(SELECT lid FROM lifetimes WHERE lifetime_id = ?)"
            database.execute(f"UPDATE log SET body = x'c1' WHERE lid = {lid}", (breaking,))
        database.close()


class OnServers:
    """The fleet."""

    hour, slack = 2.0, 10.0

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self.runtime = fleet, fleet.client

    async def restart(self, seconds: float, breaking: str) -> None:
        await self._fleet.disband()
        try:
            await asyncio.sleep(seconds)
            if breaking:
                await self._fleet.spoil(breaking)
        finally:
            await self._fleet.muster()  # the next test needs it, too


def _on_virtual_time(body: Body, request: pytest.FixtureRequest) -> None:
    home: Path = request.getfixturevalue("tmp_path")

    async def go() -> None:
        async with OneProcess(home, VirtualClock(asyncio.get_running_loop())) as place:
            world = World(place)
            await body(world)
            await world.replay_all()

    run_virtual(go())


def _in_a_home(body: Body, request: pytest.FixtureRequest) -> None:
    home: Path = request.getfixturevalue("tmp_path")

    async def go() -> None:
        async with OneProcess(home) as place:
            world = World(place)
            await body(world)
            await world.replay_all()

    asyncio.run(go())


def _on_the_fleet(body: Body, request: pytest.FixtureRequest) -> None:
    fleet: Fleet = request.getfixturevalue("fleet")

    async def go() -> None:
        world = World(OnServers(fleet), await fleet.tenant())
        try:
            await body(world)
            await world.replay_all()
        finally:
            for lifetime in await world.service.list(LifetimeQuery(statuses=OPEN, limit=1_000)):
                with contextlib.suppress(AlreadyEnded):  # with its parent
                    await world.service.abort(lifetime.lifetime_id)  # nothing of it goes on beside the next test

    fleet.perform(go())


OPEN = ("PENDING", "RUNNING", "WAITING", "PAUSED")
PLACES = {"virtual": _on_virtual_time, "local": _in_a_home, "cloud": _on_the_fleet}


def _in(*places: str) -> Callable[[Body], Callable[..., None]]:
    """Makes a test of a body in each of these places. Its first parameter is the world; the others are pytest's."""

    def decorate(test: Body) -> Callable[..., None]:
        def run(request: pytest.FixtureRequest, place: str, **given: Any) -> None:
            PLACES[place](functools.partial(test, **given), request)

        first, *others = inspect.signature(test).parameters.values()
        assert first.name == "world", f"{test.__name__} takes a world first"
        own = list(inspect.signature(run).parameters.values())[:2]
        run.__signature__ = inspect.Signature([*own, *others])  # type: ignore[attr-defined]  # pytest reads it
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        named = [pytest.param(each, marks=pytest.mark.servers if each == "cloud" else ()) for each in places]
        made: Callable[..., None] = pytest.mark.parametrize("place", named)(run)
        return made

    return decorate


everywhere = _in("virtual", "cloud")
"""On virtual time in one process, and on the servers with eight."""

in_real_time = _in("local", "cloud")
"""What needs threads or processes of its own, or races with the clock of the machine."""


# -- graphs -----------------------------------------------------------------------------------------------------------


def seconds_between(log: list[LogEntry], first: int, last: int) -> float:
    return (log[last].at - log[first].at) / 1e6


def took(done: Execution) -> float:
    """Seconds that an attempt ran."""
    return (done.finished_at - done.started_at) / 1e6


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
