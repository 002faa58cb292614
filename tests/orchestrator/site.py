"""Several processes on one bus, one store and one key-value store, on virtual time: workers come, freeze and go."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.executor.rig import Ill
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.adapters.kv.memory import MemoryKV
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import RandomIds
from tickwork.errors import StorageError
from tickwork.executor.registry import Registry
from tickwork.executor.worker import Executor
from tickwork.model.records import Event, Execution
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.data_plane import DataPlane
from tickwork.orchestrator.graphs import GraphIndex
from tickwork.orchestrator.leases import Leases
from tickwork.orchestrator.policies import PolicyIndex
from tickwork.orchestrator.rebuilding import Rebuilder
from tickwork.orchestrator.replay import replay
from tickwork.orchestrator.sweeper import Sweeper
from tickwork.orchestrator.watchers import Watchers
from tickwork.sdk.loading import BoundGraph
from tickwork.service import Service
from tickwork.testing.virtual import VirtualClock, run_virtual


class IllKV(MemoryKV):
    """A store of claims that can be away, refuse what is written, and forget."""

    away = refuses_writes = False

    async def get(self, key: str) -> bytes | None:
        if self.away:
            raise StorageError("the key-value store is away")
        return await super().get(key)

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        if self.away or self.refuses_writes:
            raise StorageError("the key-value store takes nothing")
        return await super().put(key, value, ttl, if_absent=if_absent)

    async def delete(self, key: str) -> None:
        if self.away or self.refuses_writes:
            raise StorageError("the key-value store takes nothing")
        await super().delete(key)

    async def flush_every(self, seconds: float) -> None:
        """FLUSHALL, again and again."""
        while True:
            await self._clock.sleep(seconds)
            self._values.clear()


class Beats(VirtualClock):
    """The clock of a worker that can be frozen: then its beats stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.alive = asyncio.Event()
        self.alive.set()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.alive.wait()


class Site:
    """The shared part, and one process that has the planes; workers come and go."""

    def __init__(self, folder: Path, bound: BoundGraph) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.bus, self.kv = MemoryBus(), IllKV(self.clock)
        self.store, self.blobs = SqliteStore(":memory:", self.clock), Ill(folder)
        self.bound, self.ids = bound, RandomIds(3)
        self.planes = DataPlane(self.bus, self.store, self.store, self.clock)
        policies = PolicyIndex(self.store, self.store, self.clock)
        rebuilder = Rebuilder(self.store, self.blobs, GraphIndex(self.store), policies)
        self.control = ControlPlane(
            self.bus, self.store, self.blobs, rebuilder, policies, self.store, self.planes, self.clock
        )
        watchers = Watchers()
        self.planes.on_commit.append(watchers.notify)
        self.service = Service(self.store, self.blobs, policies, rebuilder, self.planes, watchers, self.clock, self.ids)
        self.sweeper = Sweeper(self.store, self.planes, self.control, Leases(self.kv, self.clock), self.clock)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.store.start()
        await self.service.register(self.bound.graph)
        await self.planes.start()
        await self.control.start()
        for loop in (self.planes.run(), self.control.run(), self.sweeper.run()):
            self.tasks.append(asyncio.create_task(loop))

    async def worker(self) -> tuple[Beats, asyncio.Task[None]]:
        clock, registry = Beats(asyncio.get_running_loop()), Registry()
        registry.bind(self.bound)
        executor = Executor(
            self.bus, self.blobs, self.kv, clock, self.ids, registry=registry, history=self._history, threads=0
        )
        await executor.start()
        self.tasks.append(asyncio.create_task(executor.run()))
        return clock, self.tasks[-1]

    async def _history(self, *_: Any) -> list[Any]:
        return []

    async def entries(self, lifetime_id: str) -> list[Execution | Event]:
        log = await self.service.log(lifetime_id)
        assert replay(self.bound.graph, log).divergence is None
        return [logged.entry for logged in log]


@asynccontextmanager
async def site(bound: BoundGraph) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        made = Site(Path(stack.enter_context(tempfile.TemporaryDirectory())), bound)
        await made.start()
        try:
            yield made
        finally:
            for running in made.tasks:
                running.cancel()
            await asyncio.gather(*made.tasks, return_exceptions=True)
            await made.store.stop()


def play(bound: BoundGraph, scene: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        async with site(bound) as made:
            await scene(made)

    run_virtual(main())
