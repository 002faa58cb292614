"""The log of a lifetime: executions and events, as they travel and as they are stored.

An entry is encoded once, by whoever makes it, as a flat msgpack array; the Data Plane stores those bytes and passes
them on. What is the same for the whole lifetime (tenant, graph) is not repeated in each entry; `contract.py` puts
it back when a record leaves Tickwork in its published form (JSON, protobuf).

Times are integers: microseconds since 1970-01-01 UTC. Money is an integer: billionths of a US dollar (1e-9), so that
sums are exact.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Status = Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"]

JSON = "application/json"
BYTES = "application/octet-stream"
INLINE_LIMIT = 1024 * 1024
"""A payload larger than this (1 MiB) goes to the Blob Store; the record holds its URI."""

ERROR_TEXT_LIMIT = 16 * 1024
"""Characters of an error message that are kept; the rest is cut, and the cut is said."""

EventType = Literal[
    "started",
    "waiting",
    "signalled",
    "paused",
    "resumed",
    "abort_requested",
    "aborted",
    "timer_set",
    "timer_fired",
    "completed",
    "failed",
    "intent",
    "unknown",
    "reconciled",
    "superseded",
    "forked",
    "policies",
    "verdict",
]


class Payload(msgspec.Struct, array_like=True, gc=False):
    """A value: its bytes (`inline`), or where they lie (`uri`, with their SHA-256). `size` in bytes."""

    inline: bytes | None = None
    content_type: str = JSON
    uri: str | None = None
    size: int = 0
    sha256: str | None = None


class Error(msgspec.Struct, array_like=True, gc=False):
    """Why an attempt failed. `type` is the error's class name, or one of ours (`StartToClose`, `EncodingError`...)."""

    type: str
    message: str
    retryable: bool = True
    details: Any = None


class Telemetry(msgspec.Struct, array_like=True, gc=False):
    """What an attempt used. Latency and queue time are derived from the execution's times."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_used: int = 0
    cost_nano_usd: int = 0
    model: str | None = None
    custom: dict[str, Any] | None = None
    prices: str | None = None
    """The price table that `cost_nano_usd` was computed by, e.g. `genai-prices 0.2.3`; None: the code said it."""
    unpriced: bool = False
    """Part of what it used has no known price: the cost is less than the truth."""


class Next(msgspec.Struct, array_like=True, gc=False):
    """One choice of a Plan: the Task to run next, and an input of its own if it is given one."""

    task: str
    input: Payload | None = None


class Execution(msgspec.Struct, array_like=True, tag_field="tag", tag="x", gc=False):
    """One attempt at a node (spec section 3): headers, telemetry, result or error."""

    exec_id: str
    kind: Literal["task", "plan"]
    name: str
    branch: str
    iteration: int
    attempt: int
    parents: tuple[str, ...]
    edge_taken: str
    created_at: int
    started_at: int
    finished_at: int
    status: Status
    executor: str = ""
    """`worker language/sdk-version`, e.g. `a1b2c3 python/0.1.0`."""
    result: Payload | None = None
    error: Error | None = None
    telemetry: Telemetry | None = None
    next: tuple[Next, ...] | None = None
    """Only for a Plan: what it chose. None when it did not succeed."""
    reason: str | None = None
    trace: str | None = None
    """W3C traceparent when the worker brought its own; else derived from lifetime and execution."""
    extra: dict[str, Any] | None = None
    """Fields of a newer contract that this version does not know; kept as they came."""

    @property
    def entry_id(self) -> str:
        """What makes the entry unique in its lifetime."""
        return self.exec_id


class Event(msgspec.Struct, array_like=True, tag_field="tag", tag="e", gc=False):
    """Something that happened to the lifetime as a whole. `id` is unique in the lifetime; `data` by type:

    started         lifetime_id, graph {name, version, digest}, input (payload), labels, parent (lifetime, visit) for a
                    child, policies (digest of the set in force, when there is one)
    waiting         the headers of the execution that waits, on ("human" | "signal" | "unknown" | "poison"), prompt,
                    answer_schema, deadline, who, name (of the signal), graph
    signalled       name, payload, by
    paused          reason, by, policy (its label, when a policy paused it)
    resumed         by, raised {policy label: number as text}: limits that hold from here on, in this lifetime
    abort_requested reason, by
    aborted         reason, by, executions, tokens_used, cost_nano_usd
    timer_set       timer_id, due (us), purpose ("retry" | "deadline" | "timer"), exec_id
    timer_fired     timer_id
    completed       exec_id, source (where the result stands), executions, tokens_used, cost_nano_usd
    failed          reason, error, exec_id, executions, tokens_used, cost_nano_usd
    intent          exec_id, worker: user code of an `at_most_once` Task is about to be called
    unknown         exec_id, reason: nobody can tell by himself whether that call had its effect
    reconciled      exec_id, action ("retry": it did not happen | "ask": only a person can tell), reason, by
    superseded      exec_id, execution: a result that came after another one was recorded; kept, and applied to nothing
    forked          lifetime_id, seq (entries shared with it), exec_id, into (the id from here on), labels, by, replaced
                    (whether that result is another)
    policies        digest: this set is in force from here on ("": none)
    verdict         policy, layer, scope, action, shadow, digest (of the set), exec_id, node, at ("record" or
                    "dispatch"), values {aggregate: number as text}, reason, error (why it could not be evaluated)
    """

    id: str
    type: EventType
    data: dict[str, Any] = {}

    @property
    def entry_id(self) -> str:
        """What makes the entry unique in its lifetime."""
        return self.id


Entry: TypeAlias = Execution | Event


class LogEntry(msgspec.Struct, array_like=True, gc=False):
    """An entry with its place in the log: `seq` from 1 without gaps, `at` (us) when the Data Plane recorded it."""

    seq: int
    at: int
    entry: Entry


def intent(exec_id: str, worker: str) -> Event:
    """That `worker` is about to call an `at_most_once` Task ("": that nobody may any more). The first one counts."""
    return Event(f"intent:{exec_id}", "intent", {"exec_id": exec_id, "worker": worker})


_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The bytes that are stored."""
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """The inverse of `encode_entry`; raises msgspec.ValidationError."""
    entry: Entry = _entry_decoder.decode(data)
    return entry


def json_payload(value: Any) -> Payload:
    """A payload that holds `value` as JSON. Raises TypeError when JSON has no word for it."""
    data = msgspec.json.encode(value)
    return Payload(data, size=len(data))


def payload_value(payload: Payload | None) -> Any:
    """The value of an inline payload: decoded JSON, or the bytes as they are. ValueError when it lies in a blob."""
    if payload is None:
        return None
    if payload.inline is None:
        raise ValueError(f"the payload lies in the blob store at {payload.uri}; resolve it first")
    value: Any = msgspec.json.decode(payload.inline) if payload.content_type == JSON else payload.inline
    return value
