"""A simulated process: a whole Runtime (or an executor alone) that can die, freeze, be stopped and come back.

Its ports are its own handles to the shared bus and stores. When it dies its callbacks stop for ever and the handles
are cut; the broker throws its members out when the session is over. Coming back is a new process with a new worker id.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tickwork.clock import RandomIds
from tickwork.errors import TickworkError
from tickwork.executor.pace import TenantRates
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.ports import StoredGraph
from tickwork.runtime import Runtime
from tickwork.testing.simulation.network import SimulatedBus
from tickwork.testing.simulation.stores import SimulatedBlobs, SimulatedKV, SimulatedStore
from tickwork.testing.virtual import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tickwork.history import History as Replays
    from tickwork.ports import BlobStore, Clock, EventBus, KVStore, StateStore
    from tickwork.profiles import Profile
    from tickwork.runtime import Role
    from tickwork.sdk.loading import BoundGraph
    from tickwork.service import Service
    from tickwork.testing.simulation.world import World


class SimulatedProfile:
    """Hands a Runtime the ports of its process."""

    home: Path | None = None
    alone = False

    def __init__(self, process: SimulatedProcess) -> None:
        self.name = "simulation"
        self._process = process

    def open_bus(self, _clock: Clock) -> EventBus:
        """The bus, as this process reaches it."""
        return cast("EventBus", self._process.bus)

    def open_store(self, _clock: Clock, *, readonly: bool = False) -> StateStore:
        """The state store, as this process reaches it."""
        return cast("StateStore", self._process.store)

    def open_blobs(self, _clock: Clock) -> BlobStore:
        """The blob store, as this process reaches it."""
        return self._process.blobs

    def open_kv(self, _clock: Clock) -> KVStore:
        """The key-value store, as this process reaches it."""
        return self._process.kv


class SimulatedRuntime(Runtime):
    """A Runtime that leaves the garbage collector of its host alone, and validates nothing twice."""

    def _calm_collector(self) -> None:
        """There are many runtimes in this process, each for milliseconds."""

    async def bind(self, bound: BoundGraph, *, tenant: str = DEFAULT_TENANT) -> StoredGraph:
        """As ever, for a graph that is known to be valid: to validate it at each start would take longest of all."""
        stored = stored_graph(bound, tenant)
        await self.store.put_graph(stored)
        self.registry.bind(bound)
        return stored


class SimulatedProcess:
    """One life of a process."""

    def __init__(self, world: World, name: str, clock: Clock, roles: frozenset[Role]) -> None:
        self.world, self.name, self.clock, self.roles = world, name, clock, roles
        self.place = world.loop.place(name, self)
        self.cut = False
        """Dead: its ports do nothing any more."""
        self.frozen = False
        self.ids = RandomIds(world.dice.getrandbits(48))
        self.worker = name
        self.bus = SimulatedBus(world.network, self)
        self.store = SimulatedStore(world.database, world.faults, self)
        self.kv = SimulatedKV(world.kv, world.faults, self)
        self.blobs = SimulatedBlobs(world.blobs, world.faults, self)
        self.service: Service | None = None
        """The use cases, once it is up."""
        self.past: Replays | None = None
        """Replays and forks, likewise."""
        self._metrics: Callable[[], dict[str, float]] = dict
        self._latency = world.options.latency
        self._tasks: list[asyncio.Task[Any]] = []
        self._told: asyncio.Future[float] | None = None
        """Told to stop, with the seconds it may take, once it is up."""
        self._main = self.spawn(self._live())
        self._main.add_done_callback(self._over, context=world.loop.outside.context)

    @property
    def up(self) -> bool:
        """Whether it lives: running or frozen."""
        return not self.cut and not self._main.done()

    def counted(self) -> dict[str, int]:
        """How many references its planes handed over in memory, and how many of them died with it; how often a tenant
        was held back."""
        found = self._metrics()
        names = {
            "handed over": "control_plane_handed_over",
            "handed over and lost": "control_plane_offered",
            "held back": "executor_rate_waits",
        }
        return {what: int(found.get(name, 0)) for what, name in names.items()}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something in this process."""
        task = self.world.loop.spawn(self.place, work)
        self._tasks.append(task)
        return task

    # -- its ports ask here

    def check(self) -> None:
        """Ends whatever still runs in a dead process."""
        if self.cut:
            raise asyncio.CancelledError("this process is dead")

    async def travel(self) -> None:
        """The way of a call over the network: the caller gives way, and often waits."""
        self.check()
        if self._latency and self.world.faults.on:
            await asyncio.sleep(self.world.latencies.random() * self._latency)  # noqa: TID251 - virtual time
            self.check()

    # -- what may happen to it

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more, and the broker learns of it later."""
        self.world.trace(self.name, "is killed")
        self.world.troubled = True
        self.cut, self.service = True, None
        self.world.loop.halt(self.place)
        self.world.after(self.world.options.session, self.bus.drop_out)

    def stop(self, seconds: float | None) -> None:
        """SIGTERM: it drains for so long, then closes everything in order; None: without draining."""
        self.world.trace(self.name, "is told to stop")
        self.world.troubled = True
        self.service = None
        if seconds is None or self._told is None or self._told.done():
            self._main.cancel()
        else:
            self._told.set_result(seconds)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.world.trace(self.name, "freezes")
        self.world.troubled = True
        self.frozen = True
        self.world.loop.halt(self.place)
        self.world.after(self.world.options.session, self._given_up)

    def thaw(self) -> None:
        """SIGCONT."""
        if self.frozen:
            self.world.trace(self.name, "wakes")
            self.frozen = False
            if not self.cut:
                self.world.loop.go_on(self.place)

    async def _given_up(self) -> None:
        if self.frozen:
            await self.bus.drop_out()

    # -- its life

    def _over(self, main: asyncio.Task[None]) -> None:
        if self.cut or self.world.closing:
            return
        self.service = None
        self.world.after(0, self.bus.drop_out)  # its connections end with it
        error = None if main.cancelled() else main.exception()
        self.world.trace(self.name, "has stopped" if error is None else f"fell: {type(error).__name__}: {error}")
        self.world.fallen(self, error)

    async def _live(self) -> None:
        profile = cast("Profile", SimulatedProfile(self))
        limit = self.world.options.concurrency
        runtime = SimulatedRuntime(
            profile, clock=self.clock, ids=self.ids, roles=self.roles, concurrency=limit, threads=0,
            hand_over=self.world.options.hand_over, rates=TenantRates(self.world.options.tenant_rate),
        )  # fmt: skip
        async with runtime:
            for tenant in self.world.tenants:
                for bound in self.world.bounds:
                    await runtime.bind(bound, tenant=tenant)
            runtime.all_bound()
            self.service, self.past, self._metrics = runtime.service, runtime.history, runtime.metrics
            self._told = self.world.loop.create_future()
            self.world.trace(self.name, f"is up as {', '.join(sorted(self.roles)) or 'a client'}")
            await runtime.drain(await runtime.guard(self._told))


def stored_graph(bound: BoundGraph, tenant: str) -> StoredGraph:
    """The graph as it is registered."""
    graph = bound.graph
    body = msgspec.json.encode(graph)
    return StoredGraph(tenant, graph.name, graph.version, graph.digest, body, bound.source, EPOCH)


def expected(error: BaseException | None) -> bool:
    """Whether a process may fall for this reason: the storage below it refused."""
    return error is None or isinstance(error, TickworkError)
