"""The cloud profile as it is deployed, in the process of the tests: two members of each role on the real servers.

Each member is a runtime with one role and connections of its own; they know each other by nothing but the bus and the
database. A ninth without a role is the client. Because all share one process, a graph of closures can be bound at both
executors, and a test's gates and counters work wherever its code runs.

The members' loop runs in a thread of its own for as long as the fleet lives: they beat and sweep while other tests run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Awaitable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.adapters import servers
from tests.adapters.postgres_stores import administrator, drop, make_roles, with_options
from tickwork.adapters.bus.kafka import KafkaBus
from tickwork.clock import SystemClock
from tickwork.model import messages
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.ports import StoredGraph
from tickwork.profiles import Profile
from tickwork.runtime import Role, Runtime
from tickwork.sdk.loading import BoundGraph

T = TypeVar("T")

ROLES: tuple[Role, ...] = ("data-plane", "control-plane", "executor", "sweeper")
EACH = 2
LEASE = 3.0
"""Seconds of silence after which a member is given up: what a restart leaves behind is taken up so much later."""

TOPICS = (
    messages.DATA_PLANE, messages.CONTROL_PLANE, messages.TASK_INPUTS, messages.PLAN_INPUTS, messages.CANCELLATIONS,
    messages.RECEIPTS,
)  # fmt: skip
"""Of a tenant: made when it is first used, and found by the members some time after."""

THREADS = 54
"""For calls that block: so many as nine processes on two cores have."""

AHEAD = 3
"""Tenants whose topics are made before they are needed."""

_NEXT = itertools.count(1)


class Client(Runtime):
    """The runtime whose service a test uses. It runs nothing; what it is given to run, all executors are given."""

    members: tuple[Runtime, ...] = ()

    async def bind(self, bound: BoundGraph, *, tenant: str = DEFAULT_TENANT) -> StoredGraph:
        """Registers the graph, and has both executors run its code."""
        stored = await super().bind(bound, tenant=tenant)
        for member in self.members:
            if "executor" in member.roles:
                await member.bind(bound, tenant=tenant)
        return stored

    async def guard(self, waiting: Awaitable[T]) -> T:
        """As of one runtime: fails when a loop of any member fails."""
        task = asyncio.ensure_future(super().guard(waiting))
        failed = [member._failed for member in self.members if member._failed is not None]
        try:
            waited: set[asyncio.Future[Any]] = {task, *failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for each in failed:
                if each.done():
                    await each
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Fleet:
    """The client and the eight members. `name`: of their schema and prefix; `loop`: theirs, in another thread."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name, self.database, self._loop = name, with_options(servers.postgres(), schema=name), loop
        self._profile = profile(name, self.database)
        self.client = Client(self._profile, roles=frozenset())
        self._bus = KafkaBus(self._profile.bus_url, SystemClock())
        self._tenants: list[asyncio.Task[str]] = []

    def perform(self, story: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine where the members are, and waits for it."""
        future = asyncio.run_coroutine_threadsafe(story, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    async def start(self) -> None:
        """When this returns, all have joined their groups."""
        await self.client.__aenter__()  # makes the tables, so that the members need not
        await self._bus.start()
        self._tenants = [asyncio.create_task(self._tenant(f"t{next(_NEXT)}")) for _ in range(AHEAD)]
        await asyncio.gather(*self._tenants)
        await self.muster()

    async def stop(self) -> None:
        """Ends the members, then the client."""
        await self.disband()
        await asyncio.gather(*self._tenants)
        await self._bus.stop()
        await self.client.__aexit__(None, None, None)

    async def tenant(self) -> str:
        """A tenant of its own for each test, whose topics are known. Those of a later one are made meanwhile."""
        self._tenants.append(asyncio.create_task(self._tenant(f"t{next(_NEXT)}")))
        return await self._tenants.pop(0)

    async def _tenant(self, name: str) -> str:
        _, directory = self._bus._started()
        await asyncio.gather(*(directory.ensure(messages.topic(each, name)) for each in TOPICS))
        return name

    async def muster(self) -> None:
        """Eight members come, which know no graph."""
        members = [Runtime(self._profile, roles=frozenset({role}), lease=LEASE) for role in ROLES for _ in range(EACH)]
        await asyncio.gather(*(member.__aenter__() for member in members))
        self.client.members = tuple(members)

    async def disband(self) -> None:
        """All members go, at once."""
        members, self.client.members = self.client.members, ()
        await asyncio.gather(*(member.__aexit__(None, None, None) for member in members))

    async def spoil(self, lifetime_id: str) -> None:
        """Makes a log unreadable."""
        admin = urlsplit(servers.postgres_admin())._replace(path=urlsplit(self.database).path).geturl()
        async with administrator(admin) as connection:
            change = f"UPDATE {self.name}.log SET body = '\\xc1' WHERE lifetime_id = $1"
            assert await connection.execute(change, lifetime_id) != "UPDATE 0"


@contextmanager
def running_fleet() -> Iterator[Fleet]:
    """A fleet with a schema, topics, blobs and keys that nobody else has."""
    name = f"fleet{os.getpid()}n{next(_NEXT)}"
    asyncio.run(make_roles())
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    thread = threading.Thread(target=loop.run_forever, name="fleet")
    thread.start()
    try:
        fleet = Fleet(name, loop)
        fleet.perform(fleet.start())
        try:
            yield fleet
        finally:
            fleet.perform(fleet.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.run(drop(servers.postgres(), name))


def profile(name: str, database: str) -> Profile:
    """The real servers, with everything under a prefix. `database`: a schema's URL."""
    return Profile(
        name="cloud",
        bus_url=f"{servers.kafka()}/{name}?partitions=3",
        state_url=database,
        blob_url=with_options(servers.s3(), prefix=name),
        kv_url=with_options(servers.redis(), prefix=f"{name}:"),
    )
