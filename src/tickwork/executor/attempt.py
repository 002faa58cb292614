"""One attempt at a node, from its input to its record. User code reaches it only through its Context."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tickwork.model.messages import NodeInput
from tickwork.model.records import Error, Execution, LogEntry, Telemetry
from tickwork.sdk.context import Channel, Context
from tickwork.sdk.encoding import EncodingError, json_value

if TYPE_CHECKING:
    from tickwork.executor.outcome import Outcome
    from tickwork.executor.registry import BoundNode
    from tickwork.ports import Clock, Delivery
    from tickwork.sdk.prices import Prices

HistoryReader: TypeAlias = Callable[[str, str, int], Awaitable[list[LogEntry]]]
"""Reads the newest entries of a lifetime: (tenant, lifetime, limit)."""


class Surroundings(Protocol):
    """What attempts share: the clock, the loop, the reader of histories and the prices of models."""

    clock: Clock
    loop: asyncio.AbstractEventLoop
    history: HistoryReader
    prices: Prices


class Stoppable(Protocol):
    """Something that runs and can be told to stop: a subprocess."""

    def stop(self, reason: str) -> None:
        """Asks it to end, soon and politely."""
        ...

    def kill(self) -> None:
        """Ends it now."""
        ...


class Attempt(Channel):
    """The state of one attempt. Only the loop's thread changes it, but for the heartbeat."""

    __slots__ = (
        "beat_details",
        "bound",
        "cancelled",
        "claimed",
        "ctx",
        "deliveries",
        "done",
        "entered",
        "has_credit",
        "last_beat",
        "late",
        "message",
        "name",
        "permitted",
        "process",
        "shared",
        "started_at",
        "stopping",
        "task",
        "telemetry",
        "timers",
    )

    def __init__(
        self, delivery: Delivery, message: NodeInput, bound: BoundNode, shared: Surroundings, name: str = ""
    ) -> None:
        self.deliveries = [delivery]
        self.message, self.bound, self.shared = message, bound, shared
        self.name = name
        """How intents and receipts name it: its worker, and which of its attempts it is."""
        self.ctx = Context(message, bound.graph, bound.node, self)
        self.cancelled = False
        self.claimed = 0.0
        """When (monotonic) its claim was last written: so long ago at most did a watcher see its worker live."""
        self.started_at = 0
        self.last_beat = 0.0
        self.beat_details: Any = None
        self.task: asyncio.Task[None] | None = None
        self.process: Stoppable | None = None
        self.timers: list[asyncio.TimerHandle] = []
        self.stopping: Outcome | None = None
        """How it is recorded once it has stopped: somebody or some limit has told it to."""
        self.entered = False
        """Whether its coroutine or thread has begun."""
        self.has_credit = False
        self.permitted = message.effect != "at_most_once" or message.reconcile
        """Whether user code may be called: of an `at_most_once` Task, once its intent is in the log."""
        self.late: Outcome | None = None
        """It waited too long and is not to be started; recorded once it is sure that no other worker has started it."""
        self.done = False
        """Whether its outcome is decided; what comes later is dropped."""
        self.telemetry: Telemetry | None = None
        """What a subprocess reported."""

    def heartbeat(self, details: Any) -> None:
        """User code is alive."""
        self.last_beat = self.shared.clock.monotonic()
        if details is not None:
            self.beat_details = details

    def price_book(self) -> Prices:
        """The prices of models."""
        return self.shared.prices

    async def history(self, limit: int) -> list[LogEntry]:
        """The newest entries of the lifetime's log."""
        return await self.shared.history(self.message.tenant_id, self.message.lifetime_id, limit)

    def history_sync(self, limit: int) -> list[LogEntry]:
        """The same from a thread."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises instead of saying no
            raise RuntimeError("history_sync waits, and this code runs on the event loop: use `await ctx.history()`")
        return asyncio.run_coroutine_threadsafe(self.history(limit), self.shared.loop).result()

    def last_details(self) -> Any:
        """What the last heartbeat said, as it can be recorded."""
        try:
            return json_value(self.beat_details, "the heartbeat's details")
        except EncodingError as fault:
            return str(fault)

    def execution(self, outcome: Outcome, finished_at: int, executor: str) -> Execution:
        """The record."""
        message = self.message
        started_at = self.started_at or finished_at
        return Execution(
            message.exec_id,
            message.kind,
            message.node,
            message.branch,
            message.iteration,
            message.attempt,
            message.parents,
            message.edge_taken,
            message.created_at,
            started_at,
            finished_at,
            outcome.status,
            executor,
            outcome.result,
            outcome.error,
            self.telemetry or self.ctx.used,
            outcome.next,
            outcome.reason,
        )


def limit_error(kind: str, message: str, **details: Any) -> Error:
    """The error of an attempt that a limit ended; it may be tried again."""
    return Error(kind, message, True, {k: v for k, v in details.items() if v is not None} or None)
