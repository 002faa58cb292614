"""Where histories are made: the real planes on virtual time, code that does as it is told, ids from a seed.

Nothing here depends on the machine: the clock stands still while threads work, and begins when the runtime stands.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from tickwork.clock import RandomIds
from tickwork.model import ids
from tickwork.model.graph import AgentGraph
from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Append
from tickwork.model.policy import PolicyDocument, PolicySet, decode_set
from tickwork.model.problems import Location
from tickwork.model.records import Error, Event, Execution, LogEntry
from tickwork.ports import LifetimeQuery, StoredPolicies
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.context import Context
from tickwork.sdk.effects import implemented
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.virtual import EPOCH, VirtualClock, run_virtual

Recorded: TypeAlias = tuple[Lifetime, list[LogEntry], dict[str, PolicySet]]

NAMING = ("started", "policies", "verdict")
"""Events that name a set of policies."""

Does = dict[str, Any]
"""What a node does: the value that it returns, an exception that it raises, or a function of its Context that says."""


class StageClock(VirtualClock):
    """Virtual time that counts from `begin`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._loop = loop
        self._began: float | None = None

    def begin(self) -> None:
        self._began = self._loop.time()

    def now(self) -> int:
        return EPOCH if self._began is None else EPOCH + round((self._loop.time() - self._began) * 1_000_000)


class Stage:
    """A runtime, and what a history needs to tell its story."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.service, self.history = runtime, runtime.service, runtime.history
        self.gate = asyncio.Event()

    async def bind(self, graph: AgentGraph, does: Does) -> None:
        found = [
            implemented(node, _code(node.name, does), does.get(f"reconcile {node.name}"), Location())
            for node in graph.nodes
            if node.runs_code
        ]
        made = {implementation.name: implementation for implementation, _ in found if implementation is not None}
        await self.runtime.bind(BoundGraph(graph, made, "", Path()))

    async def start(self, graph: AgentGraph, does: Does | None = None, value: Any = None, **options: Any) -> str:
        await self.bind(graph, does or {})
        return (await self.service.start(graph.digest, value, **options)).lifetime_id

    async def run(self, graph: AgentGraph, does: Does | None = None, value: Any = None, **options: Any) -> str:
        """Starts it, and waits until it has ended or waits for somebody."""
        one = await self.start(graph, does, value, **options)
        await self.settle(one)
        return one

    async def settle(self, one: str) -> Lifetime:
        return await self.runtime.guard(self.service.wait(one, until="settled"))

    async def end(self, one: str) -> Lifetime:
        return await self.runtime.guard(self.service.wait(one))

    async def sleep(self, seconds: float) -> None:
        await self.runtime.clock.sleep(seconds)

    async def held(self) -> None:
        """For a node's body: until the story opens the gate."""
        await self.gate.wait()

    async def log(self, one: str) -> list[LogEntry]:
        return await self.service.log(one, limit=100_000)

    async def executed(self, one: str, node: str, nth: int = 0) -> str:
        """The exec id of the nth execution of a node."""
        found = [e.entry for e in await self.log(one) if isinstance(e.entry, Execution) and e.entry.name == node]
        return found[nth].exec_id

    async def record(self, one: str, *entries: Execution | Event) -> None:
        """Has entries recorded that another part of the system would have made."""
        await self.runtime._data_plane.record([Append("default", one, entries)])

    async def lose(self, one: str, node: str, attempt: int) -> None:
        """The worker of this attempt at the only node after `start` is gone: what the sweeper records then."""
        at = (await self.log(one))[-1].at
        exec_id = ids.exec_id(one, "", node, 0, attempt)
        error = Error("LeaseExpired", "its worker was not heard of for 30 s", retryable=True)
        lost = Execution(
            exec_id, "task", node, "", 0, attempt, (), f"start->{node}", at, at, at, "TIMED_OUT", "tickwork",
            error=error,
        )  # fmt: skip
        await self.record(one, lost)
        await self.sleep(1)

    async def load(self, document: PolicyDocument) -> None:
        """Puts policies in force for the tenant."""
        document = msgspec.structs.replace(document, tenant="default")
        body = msgspec.json.encode(document)
        now = self.runtime.clock.now()
        await self.runtime.store.put_policies(StoredPolicies("default", "", document.digest, body, now))
        await self.runtime.policies.refresh()

    async def recorded(self) -> list[Recorded]:
        """Everything that happened, in the order in which the lifetimes began."""
        found = await self.service.list(LifetimeQuery(limit=10_000))
        made = []
        for one in sorted(found, key=lambda each: each.lifetime_id):
            log = await self.log(one.lifetime_id)
            made.append((one, log, await self._sets(log)))
        return made

    async def _sets(self, log: list[LogEntry]) -> dict[str, PolicySet]:
        """The sets of policies that a log names."""
        events = [logged.entry for logged in log if isinstance(logged.entry, Event)]
        said = [e.data.get("policies") or e.data.get("digest") for e in events if e.type in NAMING]
        named = {digest for digest in said if isinstance(digest, str) and digest}
        bodies = {digest: await self.runtime.store.policy_set(digest) for digest in named}
        return {digest: decode_set(body) for digest, body in bodies.items() if body is not None}


def _code(name: str, does: Does) -> Callable[..., Awaitable[Any]]:
    async def body(value: Any, ctx: Context) -> Any:
        made = does.get(name, value)
        if callable(made):
            made = made(ctx)
        if isinstance(made, Awaitable):
            made = await made
        if isinstance(made, Exception):
            raise made
        return made

    return body


def perform(name: str, story: Callable[[Stage], Awaitable[None]]) -> list[Recorded]:
    """Tells a story from its beginning: the lifetimes that it left, with their logs and the policies these name."""

    async def go() -> list[Recorded]:
        clock = StageClock(asyncio.get_running_loop())
        seeded = RandomIds(seed=zlib.crc32(name.encode()))
        async with Runtime(Profile.test(), clock=clock, ids=seeded, threads=0) as runtime:
            clock.begin()
            stage = Stage(runtime)
            await story(stage)
            return await stage.recorded()

    quiet = logging.getLogger("tickwork")
    before = quiet.level
    quiet.setLevel(logging.CRITICAL)  # some stories are about failures, and they are told on purpose
    try:
        return run_virtual(go())
    finally:
        quiet.setLevel(before)
