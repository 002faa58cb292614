"""The context of one attempt: lifetime facts, telemetry, heartbeat, history, idempotency key, logger, cancellation.

It is the only thread between user code and the executor. The executor stands behind a `Channel`: in its own process
that is the attempt itself, in a subprocess it is a pipe, in an author's unit test it is nobody.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tickwork.model.ids import exec_id
from tickwork.model.records import LogEntry, Telemetry, payload_value
from tickwork.sdk.capture import capture_result
from tickwork.sdk.prices import Prices
from tickwork.sdk.telemetry import TelemetryRecorder

if TYPE_CHECKING:
    from tickwork.model.graph import AgentGraph, Node
    from tickwork.model.messages import NodeInput

_TABLE_ONLY = Prices()
"""For contexts without an executor, in an author's unit test: no list of prices of one's own."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, tuple})
"""What most Tasks return and no response of a model is."""


class Channel:
    """What an executor offers to running user code; by itself it is the one that nobody listens to."""

    __slots__ = ()
    cancelled: bool = False

    def heartbeat(self, details: Any) -> None:
        """User code is alive."""

    def recorded(self, telemetry: Telemetry) -> None:
        """The totals have changed."""

    def price_book(self) -> Prices:
        """The prices of models."""
        return _TABLE_ONLY

    async def history(self, limit: int) -> list[LogEntry]:
        """The newest entries of the lifetime's log, in order."""
        raise RuntimeError("this context has no history: it was not made by an executor")

    def history_sync(self, limit: int) -> list[LogEntry]:
        """The same, for sync code."""
        raise RuntimeError("this context has no history: it was not made by an executor")


class LifetimeFacts:
    """The lifetime that an attempt belongs to."""

    def __init__(self, message: NodeInput, graph: AgentGraph | None) -> None:
        self._message = message
        self.id = message.lifetime_id
        self.tenant = message.tenant_id
        self.graph_name = graph.name if graph else ""
        self.graph_version = graph.version if graph else ""

    @cached_property
    def input(self) -> Any:
        """What the lifetime was started with."""
        return payload_value(self._message.lifetime_input)

    @property
    def labels(self) -> dict[str, str]:
        """The labels it was started with."""
        return dict(self._message.labels or {})


class Context:
    """What user code may ask and tell during one attempt."""

    __slots__ = ("_channel", "_graph", "_lifetime", "_logger", "_message", "_node", "_telemetry")

    def __init__(
        self,
        message: NodeInput,
        graph: AgentGraph | None = None,
        node: Node | None = None,
        channel: Channel | None = None,
    ) -> None:
        self._message, self._graph, self._node = message, graph, node
        self._channel = channel
        self._lifetime: LifetimeFacts | None = None
        self._telemetry: TelemetryRecorder | None = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def lifetime(self) -> LifetimeFacts:
        """The lifetime: id, tenant, graph_name, graph_version, input, labels."""
        if self._lifetime is None:
            self._lifetime = LifetimeFacts(self._message, self._graph)
        return self._lifetime

    @property
    def node(self) -> str:
        """The name of this node."""
        return self._message.node

    @property
    def branch(self) -> str:
        """The branch this runs in; the empty string outside any fan-out."""
        return self._message.branch

    @property
    def iteration(self) -> int:
        """How often this node has run before in this branch."""
        return self._message.iteration

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._message.attempt

    @property
    def exec_id(self) -> str:
        """The id of this attempt."""
        return self._message.exec_id

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this visit of the node: pass it on to what must not happen twice."""
        message = self._message
        return exec_id(message.lifetime_id, message.branch, message.node, message.iteration, 0)

    @property
    def config(self) -> dict[str, Any]:
        """The node's free settings, from the graph."""
        return dict(self._node.config) if self._node is not None else {}

    @property
    def telemetry(self) -> TelemetryRecorder:
        """Where tokens, cost and model are recorded: `ctx.telemetry.record(tokens_in=12, model="...")`."""
        if self._telemetry is None:
            self._telemetry = TelemetryRecorder(self._channel or Channel(), self.logger, self._message.created_at)
        return self._telemetry

    @property
    def used(self) -> Telemetry | None:
        """The totals recorded so far; None when nothing was."""
        return self._telemetry.totals if self._telemetry is not None else None

    def returned(self, value: Any) -> None:
        """User code has returned `value`, says the executor. A response of a model that a Task hands on and has not
        recorded is recorded; never raises."""
        recorder = self._telemetry
        if recorder is not None:
            recorder.settle()
        kind = type(value)
        if kind in _PLAIN or (kind is dict and "usage" not in value) or self._message.kind != "task":
            return
        if recorder is None or recorder.totals == Telemetry():
            capture_result(self, value)

    def detach(self) -> None:
        """The attempt is over: nobody listens any more."""
        self._channel = None

    def heartbeat(self, details: Any = None) -> None:
        """Says that the work goes on; a node with a heartbeat limit has to say it often enough. Any thread may."""
        if self._channel is not None:
            self._channel.heartbeat(details)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt was told to stop. Async code gets asyncio.CancelledError; sync code looks here."""
        return self._channel is not None and self._channel.cancelled

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that carries the lifetime and the execution (`extra`)."""
        if self._logger is None:
            facts = {"lifetime_id": self._message.lifetime_id, "node": self.node, "exec_id": self.exec_id}
            self._logger = logging.LoggerAdapter(logging.getLogger(f"tickwork.node.{self.node}"), facts)
        return self._logger

    async def history(self, limit: int = 100) -> list[LogEntry]:
        """The newest `limit` entries of the lifetime's log, in order."""
        return await (self._channel or Channel()).history(limit)

    def history_sync(self, limit: int = 100) -> list[LogEntry]:
        """The same, for sync code."""
        return (self._channel or Channel()).history_sync(limit)
