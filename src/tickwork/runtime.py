"""The composition root: the only place that knows every part.

`async with Runtime(profile) as runtime:` opens the adapters, starts the planes, the executor and the sweeper as
background loops of one process, and closes everything in order at the end. When a loop fails (the disk is full, the
database is gone) whoever waits through the runtime gets that error instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tickwork.accounts import Accounts
from tickwork.adapters.patience import Patience
from tickwork.clock import RandomIds, SystemClock
from tickwork.errors import TickworkError, UsageError
from tickwork.executor.registry import Registry
from tickwork.executor.worker import GROUP, Executor
from tickwork.formats.policy_files import PolicyFiles
from tickwork.history import History
from tickwork.home import Door, HomeLock
from tickwork.letters import Letters
from tickwork.metrics import VARIABLE, Measurements
from tickwork.model import messages
from tickwork.model.claims import LEASE
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.data_plane import DataPlane
from tickwork.orchestrator.graphs import GraphIndex
from tickwork.orchestrator.leases import Leases
from tickwork.orchestrator.policies import PolicyIndex
from tickwork.orchestrator.rebuilding import Rebuilder
from tickwork.orchestrator.serving import PATIENCE
from tickwork.orchestrator.sweeper import Sweeper
from tickwork.orchestrator.watchers import Watchers
from tickwork.probes import OK, UNAVAILABLE, ProbeServer
from tickwork.profiles import Profile
from tickwork.sdk.loading import BoundGraph, is_loading
from tickwork.sdk.prices import Prices
from tickwork.service import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import TracebackType
    from typing import Self, TypeVar

    from tickwork.executor.pace import TenantRates
    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import LogEntry
    from tickwork.orchestrator.control_plane import Predecessors
    from tickwork.outcome import Outcome
    from tickwork.ports import BlobStore, Clock, EventBus, Ids, KVStore, StateAdapter, StoredGraph
    from tickwork.sdk.builder import Graph

    T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_MOVING = 100_000
"""Lifetimes that move in one process at the same time; those that wait are rows and do not count."""

Role = Literal["data-plane", "control-plane", "executor", "sweeper"]

ROLES: Final[frozenset[Role]] = frozenset({"data-plane", "control-plane", "executor", "sweeper"})
"""What a process may do for lifetimes. On a profile of one process it does all of it."""

STARTING = "it starts"

ANSWER = 2.0
"""Seconds in which a store answers that is well."""

LOOK = 0.01
"""Seconds between two looks whether all is recorded, while it drains."""

PLANES = ("control plane", "hand-over", "data plane", "dead letters")
"""Loops that end by themselves once they are told to stop."""

HAND_OVER = 5.0
"""Seconds that an executor which is to stop keeps its place while its work ends; then others get what comes."""


class Runtime:
    """All services of one process.

    `roles`: which loops run here; where several processes share bus and store, the others are found by nothing else.
    `readonly` opens the store alone, beside a process that writes. `recover`: a graph that is bound has its lifetimes
    taken up that a dead process left running; without it (a run of one lifetime) nothing moves here but what is
    started or carried on here. `lease`: seconds of silence after which a worker is given up. `max_moving`: lifetimes
    that move at the same time; above it new starts are refused (`Overloaded`), and what runs goes on. `guarded`: it
    does not start with policies that cannot be enforced; without it they are only named in the log, so that they can
    be mended. `pool`: the group of executors that this one belongs to (see Executor). `waits`: while a server is away
    that processes share, it waits for it instead of failing to start. `hand_over`: where processes share a broker, what
    the Data Plane has for a lifetime of this process's Control Plane goes to it in memory, not through the broker.
    `rates`: how many executions a second the executors of the pool begin for a tenant.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        roles: frozenset[Role] = ROLES,
        pool: str = GROUP,
        readonly: bool = False,
        recover: bool = True,
        concurrency: int = 10_000,
        threads: int = 32,
        lease: float = LEASE,
        max_moving: int = MAX_MOVING,
        guarded: bool = True,
        waits: bool = False,
        hand_over: bool = True,
        rates: TenantRates | None = None,
    ) -> None:
        self.profile = profile
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or RandomIds()
        self.roles: frozenset[Role] = frozenset() if readonly else roles
        self._pool, self._rates = pool, rates
        self._shared = not profile.alone
        self._readonly = readonly
        self._recover, self._hand_over = recover, hand_over
        self._limits = {"concurrency": concurrency, "threads": threads}
        self._lease, self._max_moving = lease, max_moving
        self._guarded = guarded and not readonly
        self._stack = AsyncExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self._control_plane: ControlPlane | None = None
        self._executor: Executor | None = None
        self._sweeper: Sweeper | None = None
        self._standing = STARTING
        """Why it takes no work; empty: it does."""
        self._patience = Patience(self.clock, waits=waits and self._shared)

    async def __aenter__(self) -> Self:
        await self._patience.surely(self._start_or_close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start_or_close(self) -> None:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            self._loops.clear()
            self._failed = None
            raise

    async def _start(self) -> None:
        self._failed = asyncio.get_running_loop().create_future()
        predecessors: Predecessors = "alive" if self._shared else "stopped"
        if self.profile.home is not None and not self._readonly:
            lock = HomeLock(self.profile.home)
            lock.acquire()
            self._stack.callback(lock.release)
            predecessors = "crashed" if lock.crashed else "stopped"
        self.store: StateAdapter = self.profile.open_store(self.clock, readonly=self._readonly)
        blobs = self.profile.open_blobs(self.clock)
        bus = self.profile.open_bus(self.clock)
        kv = self.profile.open_kv(self.clock)
        # Whoever only reads needs neither messages nor claims: records are there when the broker is not.
        for adapter in (self.store, blobs) if self._readonly else (self.store, blobs, bus, kv):
            await self._patience.surely(adapter.start)
            self._stack.push_async_callback(adapter.stop)
        await self._use_cases(bus, blobs)
        opened = {"state": self.store, "blob": blobs}
        self.measurements.servers = opened if self._readonly else opened | {"bus": bus, "kv": kv}
        if not self._readonly:
            await self._planes(bus, blobs, kv, predecessors)
            await self._doors()
            self._calm_collector()
        self._standing = ""

    async def _use_cases(self, bus: EventBus, blobs: BlobStore) -> None:
        """What can be asked of this process, whether or not lifetimes run in it."""
        store = self.store
        self._data_plane = DataPlane(bus, store, store, self.clock, None if self._shared else PATIENCE)
        self._watchers = Watchers()
        self._data_plane.on_commit.append(self._watchers.notify)
        self.policies = PolicyIndex(store, store, self.clock, self._policy_files())
        await (self.policies.start() if self._guarded else self.policies.refresh())
        graphs = GraphIndex(store)
        self._rebuilder = Rebuilder(store, blobs, graphs, self.policies)
        self.service = Service(
            store, blobs, self.policies, self._rebuilder, self._data_plane, self._watchers, self.clock, self.ids,
            live=not self._readonly and not self._shared,
        )  # fmt: skip
        self.history = History(
            store, blobs, graphs, self.policies, self._rebuilder, self._data_plane, self.clock, self.ids
        )
        self.letters = Letters(store, bus, self.service, self.clock)
        self.accounts = Accounts(store, self.policies, self._rebuilder, self.clock)
        self.measurements = Measurements(self.accounts, self.clock, None if self._readonly else self.metrics)

    async def _planes(self, bus: EventBus, blobs: BlobStore, kv: KVStore, predecessors: Predecessors) -> None:
        """The loops in which lifetimes run, as far as this process has their roles."""
        data_plane, roles = self._data_plane, self.roles
        data_plane.on_commit.append(self.measurements.seen)
        self.registry = Registry()
        if "executor" in roles:
            self._executor = Executor(
                bus, blobs, kv, self.clock, self.ids,
                registry=self.registry, history=self._history, lease=self._lease, pool=self._pool,
                prices=Prices.from_environment(self.profile.home), rates=self._rates, **self._limits,
            )  # fmt: skip
        if "control-plane" in roles:
            self._control_plane = self._controlling(bus, blobs, predecessors)
        if roles & {"control-plane", "sweeper"}:
            self._sweeper = Sweeper(
                self.store, data_plane, self._control_plane, Leases(kv, self.clock, self._lease), self.clock,
                own=not self._recover or "sweeper" not in roles, timers="sweeper" in roles, shared=self._shared,
            )  # fmt: skip
            data_plane.on_timer = self._sweeper.timer_set
        self.measurements.usage = not self._shared or "sweeper" in roles
        self.service.measure = self.metrics
        if self._shared or self._control_plane is None:
            self.service.carry_on = self._nudged
        self._stack.push_async_callback(self._stop_loops)
        # All are in their groups before the first of them works: what one sends another one of this process may get.
        if self._executor is not None:
            await self._executor.start()
        if self._control_plane is not None:
            await self._control_plane.start()
        if "data-plane" in roles:
            await data_plane.start()
        if self._executor is not None:
            self._run(self._executor.run(), "executor")
        if self._control_plane is not None:
            self._run(self._control_plane.run(), "control plane")
            if self._shared and self._hand_over:
                data_plane.hand_over = self._control_plane.offer
                self._run(self._control_plane.run_offered(), "hand-over")
        if "data-plane" in roles:
            self._run(data_plane.run(), "data plane")
            self._run(data_plane.run_dead_letters(), "dead letters")
        if self._sweeper is not None:
            self._run(self._sweeper.run(), "sweeper")
        self._run(self.policies.run(), "policies")

    def _controlling(self, bus: EventBus, blobs: BlobStore, predecessors: Predecessors) -> ControlPlane:
        control_plane = ControlPlane(
            bus, self.store, blobs, self._rebuilder, self.policies, self.store, self._data_plane, self.clock,
            predecessors, None if self._shared else PATIENCE,
        )  # fmt: skip
        control_plane.on_stuck.append(self._watchers.stuck)
        self._data_plane.on_refused.append(self._watchers.stuck)
        control_plane.on_idle.append(self._watchers.idle)
        self.service.settling.activity = control_plane.activity
        self.service.carry_on = control_plane.take_up
        self.service.pressure = self.history.pressure = lambda: control_plane.moving() / self._max_moving
        return control_plane

    async def _nudged(self, tenant_id: str, lifetime_id: str) -> LifetimeStatus | None:
        """Has a lifetime carried on by whoever gets its references; its status by its log, None when it has ended."""
        state, _ = await self._rebuilder.folded(tenant_id, lifetime_id)
        if state is None or state.ending is not None:
            return None
        await self._data_plane.publish([messages.nudge(tenant_id, lifetime_id, state.seq, state.at)])
        return state.status

    async def _doors(self) -> None:
        """How other processes reach this one."""
        if self.profile.home is not None:
            door = Door(
                self.profile.home, service=self.service, history=self.history, letters=self.letters,
                accounts=self.accounts, measurements=self.measurements,
            )  # fmt: skip
            await door.start()
            self._stack.push_async_callback(door.stop)
        if (where := os.environ.get(VARIABLE)) and self.roles:
            served = ProbeServer(where, {"/metrics": self.measurements.page}, f"{VARIABLE}=")
            await served.start()
            self._stack.push_async_callback(served.stop)

    def _policy_files(self) -> PolicyFiles | None:
        """Where policies lie in files: TICKWORK_POLICIES, a file or a folder, or the home's folder `policies`.

        Processes that share a store have those in the store alone: two with different files would enforce by turns.
        """
        named = os.environ.get("TICKWORK_POLICIES")
        if named and self._shared:
            raise UsageError(
                f"TICKWORK_POLICIES={named} is for one process; on the profile {self.profile.name} all have the "
                "policies of the store: tickwork guardrails apply FILE"
            )
        if named:
            return PolicyFiles(Path(named), required=True)
        return PolicyFiles(self.profile.home / "policies") if self.profile.home is not None else None

    def _calm_collector(self) -> None:
        """What is alive now stays, and records make no cycles: the collector need not look so often (a fifth of W3)."""
        gc.collect()
        gc.freeze()
        self._stack.callback(gc.unfreeze)
        self._stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(200_000, 20, 100)

    def _run(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._loop_ended)
        self._loops.append(task)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None or self._failed is None or self._failed.done():
            return
        if not isinstance(error, TickworkError):
            log.error("the %s stopped", task.get_name(), exc_info=error)
        self._failed.set_exception(error)
        self._failed.exception()  # seen: a runtime that is being closed need not warn about it

    async def _stop_loops(self) -> None:
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _history(self, tenant_id: str, lifetime_id: str, limit: int) -> list[LogEntry]:
        """The newest `limit` entries of a lifetime, for `ctx.history()`."""
        found = await self.store.get_lifetime(tenant_id, lifetime_id)
        last = found[0].last_seq if found else 0
        return await self.store.read_log(tenant_id, lifetime_id, max(0, last - limit), limit)

    async def bind(self, bound: BoundGraph, *, tenant: str = DEFAULT_TENANT) -> StoredGraph:
        """Registers a graph, lets this process's executor run its code, and takes up what was left running.

        Raises GraphConflict when its name@version is registered with another content.
        """
        stored = await self._patience.surely(
            lambda: self.service.register(bound.graph, tenant=tenant, source=bound.source)
        )
        self.registry.bind(bound)
        if self._recover and not self._shared and self._sweeper is not None:
            taken = await self._sweeper.recover(tenant, stored.digest)
            if taken:
                log.info("took up %d lifetimes of %s@%s that were left running", taken, stored.name, stored.version)
        return stored

    def all_bound(self) -> None:
        """All graphs are bound that this process's executor serves."""
        if self._executor is not None:
            self._executor.complete()

    def metrics(self) -> dict[str, float]:
        """Counters since the start, and the sizes and bounds of every queue, by `component_name`."""
        parts: dict[str, Mapping[str, float]] = {
            "data_plane": {**self._data_plane.counts, "queued": self._data_plane.depth()},
            "policies": self.policies.counts,
        }
        if self._control_plane is not None:
            parts["control_plane"] = {**self._control_plane.metrics(), "moving_limit": self._max_moving}
        if self._executor is not None:
            parts["executor"] = self._executor.metrics()
        if self._sweeper is not None:
            parts["sweeper"] = self._sweeper.counts
        return {f"{part}_{name}": value for part, values in parts.items() for name, value in values.items()}

    # -- for those who look after the process -------------------------------------------------------------------------

    def probes(self) -> dict[str, Callable[[], Awaitable[tuple[str, bytes]]]]:
        """What a ProbeServer answers."""
        return {"/healthz": self._healthy, "/readyz": self._ready, "/metrics": self._measured}

    async def _measured(self) -> tuple[str, bytes]:
        if self._failed is None or self._standing == STARTING:
            return UNAVAILABLE, b"It starts.\n"
        return await self.measurements.page()

    async def _healthy(self) -> tuple[str, bytes]:
        if self._failed is not None and self._failed.done():
            return UNAVAILABLE, f"{self._failed.exception()}\n".encode()
        return OK, b"It lives.\n"

    async def _ready(self) -> tuple[str, bytes]:
        if self._patience.reason:
            return UNAVAILABLE, f"Not ready: {self._patience.reason}\n".encode()
        if self._standing:
            return UNAVAILABLE, f"Not ready: {self._standing}.\n".encode()
        try:
            async with asyncio.timeout(ANSWER):
                await self.store.ping()
        except TimeoutError:
            return UNAVAILABLE, f"Not ready: the store does not answer within {ANSWER:g} s.\n".encode()
        return await self._healthy()

    async def drain(self, seconds: float) -> int:
        """Takes no more work, lets what is in hand end for so long, and leaves the groups: others go on with the rest.

        What is not over by then is given up with this process, and made again when its leases have run out. Returns how
        many executions that are.
        """
        self._standing = "it is being stopped"
        until = self.clock.monotonic() + seconds
        left_over = 0 if self._executor is None else await self._executor.drain(min(HAND_OVER, seconds), seconds)
        while not self._shared and self._data_plane.depth() and self.clock.monotonic() < until:
            await self.clock.sleep(LOOK)  # nobody else would record it
        left = max(until - self.clock.monotonic(), 1.0)
        planes = [self._data_plane.stop()]
        if self._control_plane is not None:
            planes.append(self._control_plane.stop())
        await asyncio.gather(*planes)
        loops = [loop for loop in self._loops if loop.get_name() in PLANES]
        if loops:
            await asyncio.wait(loops, timeout=left)
        return left_over

    async def guard(self, waiting: Awaitable[T]) -> T:
        """Awaits `waiting`, unless a loop of this runtime fails first: then raises that failure (StorageError...)."""
        task: asyncio.Future[T] = asyncio.ensure_future(waiting)
        failed = self._failed
        if failed is None:
            raise RuntimeError("the runtime was not started")
        waited: set[asyncio.Future[Any]] = {task, failed}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await failed
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def run(
    graph: Graph | BoundGraph,
    input: Any = None,
    *,
    profile: Profile | None = None,
    tenant: str = DEFAULT_TENANT,
    labels: dict[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Outcome:
    """Runs a graph from a script, to its end or until it waits for somebody, and returns how it stands.

    `profile`: default is what the environment says, the local profile in `.tickwork/`, so every step is on disk and
    `tickwork lifetimes resume ID` goes on after a crash. Raises GraphInvalid, GraphConflict, HomeInUse, StorageError;
    UsageError while the module is being loaded by Tickwork itself (a resume, a subprocess): it would run again and
    again.
    """
    if is_loading():
        raise UsageError(
            "`tickwork.run(...)` runs while this module is loaded: put it under `if __name__ == '__main__':`"
        )
    if isinstance(graph, str):
        raise UsageError(f"run() takes a graph; for a file: run(load_graph({graph!r})), from tickwork.sdk.loading")
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises instead of saying no
        raise UsageError("an event loop runs here already (a notebook?): use `async with Runtime(...)`, not run()")
    bound = graph if isinstance(graph, BoundGraph) else graph.bind()

    async def go() -> Outcome:
        async with Runtime(profile or Profile.from_environment(), recover=False) as runtime:
            stored = await runtime.bind(bound, tenant=tenant)
            lifetime = await runtime.service.start(
                stored.digest, input, tenant=tenant, labels=labels, idempotency_key=idempotency_key
            )
            if idempotency_key is not None and not lifetime.ended and lifetime.status != "PAUSED":
                await runtime.service.resume(lifetime.lifetime_id, tenant=tenant)  # perhaps another process left it
            await runtime.guard(runtime.service.wait(lifetime.lifetime_id, tenant=tenant, until="settled"))
            return await runtime.service.result(lifetime.lifetime_id, tenant=tenant)

    return asyncio.run(go())
