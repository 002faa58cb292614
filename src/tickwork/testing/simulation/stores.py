"""State, key-value and blob store of a simulation: the real ones (or a dict), behind lines that fail.

A write may fail before it is done, take seconds, fail although it was committed, or be committed seconds after it
failed. What a process has sent is done even when the process dies meanwhile: the store is another machine.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from tickwork.errors import NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tickwork.adapters.kv.memory import MemoryKV
    from tickwork.adapters.state.sqlite import SqliteStore
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.messages import Append
    from tickwork.model.spending import Total
    from tickwork.ports import Appended, Demand
    from tickwork.testing.simulation.faults import Faults
    from tickwork.testing.simulation.process import SimulatedProcess
    from tickwork.testing.simulation.scheduler import Place, SimulatedLoop

WRITES = frozenset(
    {
        *("append", "create_lifetime", "put_graph", "bury", "forget_dead_letter"),
        *("put_policies", "put_policy_set", "admit"),
    }
)
"""Methods of the state store that change something; all others read."""

LONGEST_STALL = 40.0
"""Seconds; longer than a lease."""


class Database:
    """The one state store, on its own machine."""

    def __init__(self, loop: SimulatedLoop, store: SqliteStore, place: Place) -> None:
        self.store, self.place = store, place
        self.on_append: list[Callable[[str, Append, Appended], None]] = []
        """Called with the process that asked, and what became of it."""
        self.on_create: list[Callable[[Lifetime], None]] = []
        """Called with each lifetime that is about to be created."""
        self.on_judged: list[Callable[[Demand, Sequence[Total], Any], None]] = []
        """Called within each judging of a demand, with the totals that it was judged by and what was said."""
        self.on_track: list[Callable[[frozenset[str]], None]] = []
        """Called with labels by which usage is kept apart from now on."""
        self._loop = loop

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something on the store's machine."""
        self._loop.spawn(self.place, work)

    def run(self, method: str, /, *args: Any, **options: Any) -> asyncio.Task[Any]:
        """Does a call on the store's machine, whatever becomes of who asked."""
        if method == "create_lifetime":
            for listener in self.on_create:
                listener(args[0])
        if method == "admit":
            demands, judge = args
            args = (demands, partial(self._judged, judge))
        return self._loop.spawn(self.place, getattr(self.store, method)(*args, **options))

    def _judged(self, judge: Callable[[Demand, Sequence[Total]], Any], demand: Demand, totals: Sequence[Total]) -> Any:
        verdict = judge(demand, totals)
        for listener in self.on_judged:
            listener(demand, totals, verdict)
        return verdict


class SimulatedStore:
    """The StateAdapter port of one process: every method of the store, with faults.

    Reservations are the store's, so they outlive the process that made them; one that was made although the process
    heard of an error stands until its execution is recorded or its lifetime ends.
    """

    def __init__(self, database: Database, faults: Faults, process: SimulatedProcess) -> None:
        self._database, self._faults, self._process = database, faults, process

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It goes on without this process."""

    def track(self, labels: frozenset[str]) -> None:
        """A setting of the adapter itself: no message, and no faults."""
        self._database.store.track(labels)
        for listener in self._database.on_track:
            listener(labels)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self._write if name in WRITES else self._read, name)

    async def _read(self, name: str, /, *args: Any, **options: Any) -> Any:
        await self._process.travel()
        if self._faults.strikes("store.unreadable", self._process.name, name):
            raise StorageError(f"the state store did not answer {name}")
        await self._stall(name)
        return await getattr(self._database.store, name)(*args, **options)

    async def _write(self, name: str, /, *args: Any, **options: Any) -> Any:
        process, faults = self._process, self._faults
        await process.travel()
        if faults.strikes("store.refuse", process.name, name):
            raise StorageError(f"the state store refused {name}; nothing was done")
        if faults.strikes("store.lands_late", process.name, name):
            self._later(name, args, options)
            raise StorageError(f"the state store did not answer {name} in time")
        await self._stall(name)
        result = await asyncio.shield(self._database.run(name, *args, **options))
        self._note(name, args, result)
        if faults.strikes("store.lost_answer", process.name, name):
            raise StorageError(f"the connection to the state store broke after {name}")
        return result

    def _later(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        async def land() -> None:
            await asyncio.sleep(delay)  # noqa: TID251 - virtual time of the simulation itself
            # What it says is of no interest to anybody any more.
            result = (await asyncio.gather(self._database.run(name, *args, **options), return_exceptions=True))[0]
            self._note(name, args, result)

        delay = self._faults.dice.spread(0.001, LONGEST_STALL)
        self._database.spawn(land())

    async def _stall(self, name: str) -> None:
        if self._faults.strikes("store.stall", self._process.name, name):
            await asyncio.sleep(self._faults.dice.spread(0.01, LONGEST_STALL))  # noqa: TID251 - virtual time
            self._process.check()

    def _note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "append" and not isinstance(result, BaseException):
            for append, appended in zip(args[0], result, strict=True):
                for listener in self._database.on_append:
                    listener(self._process.name, append, appended)


class SimulatedKV:
    """The KVStore port of one process: a MemoryKV that forgets and fails."""

    def __init__(self, kv: MemoryKV, faults: Faults, process: SimulatedProcess) -> None:
        self._kv, self._faults, self._process = kv, faults, process

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It goes on without this process."""

    async def get(self, key: str) -> bytes | None:
        """As the store, or nothing."""
        await self._arrive(f"get {key}")
        if self._faults.strikes("kv.miss", self._process.name, key):
            return None
        return await self._kv.get(key)

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        """As the store; a value that is there is overlooked now and then."""
        await self._arrive(f"put {key}", "kv writes")
        if if_absent and self._faults.strikes("kv.miss", self._process.name, key):
            if_absent = False
        return await self._kv.put(key, value, ttl, if_absent=if_absent)

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """As the store."""
        await self._arrive(f"replace {key}", "kv writes")
        return await self._kv.replace(key, old, new, ttl)

    async def delete(self, key: str) -> None:
        """As the store."""
        await self._arrive(f"delete {key}", "kv writes")
        await self._kv.delete(key)

    async def _arrive(self, what: str, also: str = "kv") -> None:
        await self._process.travel()
        now = self._process.world.loop.time()
        if self._faults.is_out("kv", now) or self._faults.is_out(also, now):
            raise StorageError("the key-value store is away")
        if self._faults.strikes("kv.refuse", self._process.name, what):
            raise StorageError("the key-value store did not answer")


class Blobs:
    """Blobs in a dict, named by their content, shared by all processes."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}


class SimulatedBlobs:
    """The BlobStore port of one process."""

    def __init__(self, blobs: Blobs, faults: Faults, process: SimulatedProcess) -> None:
        self._blobs, self._faults, self._process = blobs, faults, process

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It goes on without this process."""

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        """Keeps it: (uri, SHA-256); StorageError before or after that."""
        await self._arrive("put")
        digest = hashlib.sha256(data).hexdigest()
        uri = f"blob://{tenant_id}/{digest}"
        self._blobs.kept[uri] = bytes(data)
        if self._faults.strikes("blob.lost_answer", self._process.name, "put"):
            raise StorageError("the connection to the blob store broke after put")
        return uri, digest

    async def get(self, tenant_id: str, uri: str, sha256: str | None = None) -> bytes:
        """What was kept; NotFound."""
        await self._arrive("get")
        if not uri.startswith(f"blob://{tenant_id}/") or uri not in self._blobs.kept:
            raise NotFound(f"there is no blob {uri}")
        return self._blobs.kept[uri]

    async def _arrive(self, what: str) -> None:
        process, faults = self._process, self._faults
        await process.travel()
        if faults.is_out("blob", process.world.loop.time()):
            raise StorageError("the blob store is away")
        if faults.strikes("blob.refuse", process.name, what):
            raise StorageError("the blob store refused")
        if faults.strikes("blob.slow", process.name, what):
            await asyncio.sleep(faults.dice.spread(0.1, 20))  # noqa: TID251 - virtual time
            process.check()
