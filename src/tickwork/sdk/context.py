"""The context of one attempt: lifetime facts, telemetry, heartbeat, history, idempotency key, logger, cancellation.

It is the only thread between user code and the executor. The executor stands behind a `Channel`: in its own process
that is the attempt itself, in a subprocess it is a pipe, in an author's unit test it is nobody.
"""

from __future__ import annotations

import logging
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from tickwork.model.ids import exec_id
from tickwork.model.records import LogEntry, Telemetry, payload_value

if TYPE_CHECKING:
    from tickwork.model.graph import AgentGraph, Node
    from tickwork.model.messages import NodeInput

NANO = Decimal(1_000_000_000)
MAX_COUNT = 2**53
"""Greatest number of tokens or billionths of a dollar that one attempt may report: sums stay exact in any language."""


class Channel:
    """What an executor offers to running user code; by itself it is the one that nobody listens to."""

    __slots__ = ()
    cancelled: bool = False

    def heartbeat(self, details: Any) -> None:
        """User code is alive."""

    def recorded(self, telemetry: Telemetry) -> None:
        """The totals have changed."""

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


class TelemetryRecorder:
    """What an attempt used. Calls add up; `model` and custom values are those of the last call that gave them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = Lock()
        self.totals = Telemetry()

    def record(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        tokens_used: int | None = None,
        cost_usd: Decimal | str | float = 0,
        model: str | None = None,
        **custom: Any,
    ) -> None:
        """Adds what one call used. `tokens_used` is the sum of in and out unless it is given.

        `cost_usd` is kept exactly to a billionth of a dollar. Raises ValueError for a negative or absurd number and
        EncodingError for a custom value that JSON cannot say.
        """
        from tickwork.sdk.encoding import json_value

        into, out = _count("tokens_in", tokens_in), _count("tokens_out", tokens_out)
        used = into + out if tokens_used is None else _count("tokens_used", tokens_used)
        cost = _nano_usd(cost_usd)
        plain = {key: json_value(value, f"telemetry `{key}`") for key, value in custom.items()}
        with self._lock:
            now = self.totals
            self.totals = Telemetry(
                _count("tokens_in", now.tokens_in + into),
                _count("tokens_out", now.tokens_out + out),
                _count("tokens_used", now.tokens_used + used),
                _count("cost_usd (in billionths)", now.cost_nano_usd + cost),
                model if model is not None else now.model,
                {**(now.custom or {}), **plain} or None,
            )
            self._channel.recorded(self.totals)


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
            self._telemetry = TelemetryRecorder(self._channel or Channel())
        return self._telemetry

    @property
    def used(self) -> Telemetry | None:
        """The totals recorded so far; None when nothing was."""
        return self._telemetry.totals if self._telemetry is not None else None

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


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"telemetry: {what} is {value!r}; give a whole number")
    if not 0 <= value <= MAX_COUNT:
        raise ValueError(f"telemetry: {what} is {value}; it has to be between 0 and {MAX_COUNT}")
    return value


def _nano_usd(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Decimal | str | float | int):
        raise TypeError(f"telemetry: cost_usd is {value!r}; give a Decimal, a decimal string or a number")
    try:
        # A float is taken as it is written: 0.1 means a tenth of a dollar, not its nearest binary fraction.
        exact = value if isinstance(value, Decimal) else Decimal(str(value))
        nano = (exact * NANO).quantize(Decimal(1), ROUND_HALF_EVEN)
    except InvalidOperation:
        raise ValueError(f"telemetry: cost_usd is {value!r}, which is not an amount of money") from None
    return _count("cost_usd (in billionths)", int(nano)) if nano.is_finite() else _not_money(value)


def _not_money(value: Any) -> int:
    raise ValueError(f"telemetry: cost_usd is {value!r}, which is not an amount of money")
