"""The published records as types, and their JSON.

These are the messages of proto/tickwork/v1/records.proto, field by field; `tickwork.model.contract` makes them from the
internal log and back. Inside Tickwork nothing runs on them: they exist where a record leaves or enters.

The JSON is protobuf's canonical mapping: fields without presence are always written, the others (UNSET here) only when
they are set; null reads as not set, except for `inline` and `details`; a number may come as a string. What a reader
does not know is kept in the `extra` of its own part and written again beside its neighbours.
"""

from __future__ import annotations

from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tickwork.errors import UsageError
from tickwork.model.records import EventType, Status

Time: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$",
        extra_json_schema={"format": "date-time"},
    ),
]
"""RFC 3339; written in UTC with six digits after the second, as in `2026-11-22T07:10:00.000001Z`."""

Money: TypeAlias = Annotated[str, Meta(pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,9})?$")]
"""US dollars, exact."""

Count: TypeAlias = Annotated[int, Meta(ge=0)]


class Part(msgspec.Struct, kw_only=True):
    """A message of the contract. `extra`: fields of a newer contract, as they came."""

    extra: dict[str, Any] = {}


class GraphRef(Part):
    """A graph by name, version and content."""

    name: Annotated[str, Meta(description="The graph's name.")]
    version: Annotated[str, Meta(description="Its semantic version.")]
    digest: Annotated[str, Meta(description="sha256: and 64 hexadecimal digits over the graph's canonical JSON.")]


class Executor(Part):
    """The process that ran an attempt."""

    worker_id: Annotated[str, Meta(description="The worker's id. Empty: no worker was involved.")] = ""
    language: Annotated[str, Meta(description="The language of the SDK, in lower case.")] = ""
    sdk_version: Annotated[str, Meta(description="The version of the SDK.")] = ""


class Headers(Part, kw_only=True):
    """Who, where, when, and how it ended."""

    exec_id: Annotated[str, Meta(description="Names the attempt; derived from what caused it.")]
    kind: Annotated[Literal["task", "plan"], Meta(description="What kind of node it is.")]
    name: Annotated[str, Meta(description="The node's name in the graph.")]
    graph: Annotated[GraphRef, Meta(description="The graph that the lifetime runs.")]
    lifetime_id: Annotated[str, Meta(description="The lifetime: a UUIDv7.")]
    tenant_id: Annotated[str, Meta(description="The tenant that owns the lifetime.")]
    branch: Annotated[str, Meta(description="Path through the fan-out groups. Empty: outside of any.")] = ""
    iteration: Annotated[Count, Meta(description="Earlier visits of this node in this branch. From 0.")] = 0
    attempt: Annotated[int, Meta(ge=1, description="Which attempt at this visit it is. From 1.")]
    parents: Annotated[list[str], Meta(description="Exec ids of the executions before it, in branch order.")] = []
    edge_taken: Annotated[str, Meta(description="The edge that led here, as source->target.")] = ""
    created_at: Annotated[Time, Meta(description="When the entry that caused this attempt was recorded. UTC.")]
    started_at: Annotated[Time | UnsetType, Meta(description="When user code was called; unset: never. UTC.")] = UNSET
    finished_at: Annotated[Time, Meta(description="When user code ended. UTC.")]
    status: Annotated[Status, Meta(description="How the attempt ended.")]
    executor: Annotated[Executor | UnsetType, Meta(description="Who ran it.")] = UNSET
    trace: Annotated[str, Meta(description="W3C traceparent.")] = ""


class Telemetry(Part):
    """What an attempt used."""

    tokens_in: Annotated[Count, Meta(description="Tokens sent to models.")] = 0
    tokens_out: Annotated[Count, Meta(description="Tokens received from models.")] = 0
    tokens_used: Annotated[Count, Meta(description="All tokens that count against a budget.")] = 0
    cost_usd: Annotated[Money, Meta(description="US dollars, a decimal exact to 1e-9.")] = "0"
    latency_ms: Annotated[float, Meta(ge=0, description="Milliseconds from started_at to finished_at.")] = 0.0
    queue_ms: Annotated[float, Meta(ge=0, description="Milliseconds from created_at to started_at.")] = 0.0
    model: Annotated[str, Meta(description="The model that was used most. Empty: none.")] = ""
    custom: Annotated[dict[str, Any] | UnsetType, Meta(description="What else user code recorded, by name.")] = UNSET
    prices: Annotated[str, Meta(description="The price tables of cost_usd. Empty: user code said it.")] = ""
    unpriced: Annotated[bool, Meta(description="Part of what it used has no known price.")] = False


class Payload(Part):
    """A value: in place (`inline`) or where it lies (`uri`); neither: left out of this copy."""

    inline: Annotated[Any, Meta(description="The JSON value; of another content type: its bytes in base64.")] = UNSET
    uri: Annotated[str | UnsetType, Meta(description="Where the bytes lie in the Blob Store.")] = UNSET
    content_type: Annotated[str, Meta(description="The media type of the bytes.")] = ""
    size_bytes: Annotated[Count, Meta(description="How many bytes; of JSON in place, its compact form.")] = 0
    sha256: Annotated[str, Meta(description="SHA-256 of the bytes, in hexadecimal. Empty: left out.")] = ""


class Error(Part):
    """Why an attempt failed."""

    type: Annotated[str, Meta(description="The name of the error's class.")]
    message: Annotated[str, Meta(description="For people.")] = ""
    retryable: Annotated[bool, Meta(description="Whether another attempt might succeed.")] = False
    details: Annotated[Any, Meta(description="Whatever the author attached.")] = UNSET


class Next(Part):
    """One choice of a Plan."""

    task: Annotated[str, Meta(description="The Task to run, or `end` to take the FINAL edge.")]
    input: Annotated[Payload | UnsetType, Meta(description="The Task's own input.")] = UNSET


class ExecutionRecord(Part):
    """One attempt at a Task or a Plan."""

    headers: Annotated[Headers, Meta(description="Identity, place in the graph, times, outcome.")]
    telemetry: Annotated[Telemetry | UnsetType, Meta(description="What the attempt used.")] = UNSET
    result: Annotated[Payload | UnsetType, Meta(description="What the node returned.")] = UNSET
    error: Annotated[Error | UnsetType, Meta(description="Why the attempt did not succeed.")] = UNSET
    next: Annotated[list[Next], Meta(description="What a Plan chose, in its order.")] = []
    reason: Annotated[str, Meta(description="Why a Plan chose so. Empty: it gave none.")] = ""
    seq: Annotated[Count, Meta(description="Place in the lifetime's log, from 1. 0: not recorded yet.")] = 0
    recorded_at: Annotated[Time | UnsetType, Meta(description="When it was recorded. UTC.")] = UNSET


class Parent(Part):
    """The execution that started a child lifetime."""

    lifetime_id: Annotated[str, Meta(description="Its lifetime: a UUIDv7.")]
    exec_id: Annotated[str, Meta(description="The execution: its result is the child's result.")]
    visit: Annotated[dict[str, Any] | UnsetType, Meta(description="For Tickwork alone; hand it on as it is.")] = UNSET


class Source(Part):
    """A value that stands in the log already, by its place."""

    seqs: Annotated[list[int], Meta(description="The entries that hold it, in branch order.")] = []
    pick: Annotated[Count | UnsetType, Meta(description="The choice whose input it is, from 0.")] = UNSET
    joined: Annotated[bool, Meta(description="Whether it is the list of the entries' results.")] = False


class EventData(Part):
    """The facts of an event; which fields are set depends on its type."""

    graph: Annotated[GraphRef | UnsetType, Meta(description="started: the graph it was started with.")] = UNSET
    input: Annotated[Payload | UnsetType, Meta(description="started: the input of the lifetime.")] = UNSET
    labels: Annotated[dict[str, str] | UnsetType, Meta(description="started: labels.")] = UNSET
    parent: Annotated[Parent | UnsetType, Meta(description="started: the execution that started a child.")] = UNSET
    exec_id: Annotated[str | UnsetType, Meta(description="The execution that it is about.")] = UNSET
    node: Annotated[str | UnsetType, Meta(description="waiting: the node that waits. verdict: its node.")] = UNSET
    branch: Annotated[str | UnsetType, Meta(description="waiting: the branch that waits.")] = UNSET
    on: Annotated[str | UnsetType, Meta(description="waiting: human, signal, unknown or poison.")] = UNSET
    prompt: Annotated[str | UnsetType, Meta(description="waiting: what a person is asked.")] = UNSET
    answer_schema: Annotated[dict[str, Any] | UnsetType, Meta(description="waiting: schema of the answer.")] = UNSET
    deadline: Annotated[Time | UnsetType, Meta(description="waiting: until when. UTC.")] = UNSET
    who: Annotated[list[str] | UnsetType, Meta(description="waiting: who may answer.")] = UNSET
    name: Annotated[str | UnsetType, Meta(description="waiting, signalled: the signal's name.")] = UNSET
    payload: Annotated[Payload | UnsetType, Meta(description="signalled: what came along.")] = UNSET
    by: Annotated[str | UnsetType, Meta(description="Who did it.")] = UNSET
    reason: Annotated[str | UnsetType, Meta(description="Why.")] = UNSET
    executions: Annotated[Count | UnsetType, Meta(description="At the end: executions in the log.")] = UNSET
    tokens_used: Annotated[Count | UnsetType, Meta(description="At the end: tokens of all executions.")] = UNSET
    cost_usd: Annotated[Money | UnsetType, Meta(description="At the end: US dollars of all executions.")] = UNSET
    timer_id: Annotated[str | UnsetType, Meta(description="timer_set, timer_fired: the timer.")] = UNSET
    due: Annotated[Time | UnsetType, Meta(description="timer_set: when it fires. UTC.")] = UNSET
    purpose: Annotated[str | UnsetType, Meta(description="timer_set: retry, deadline or timer.")] = UNSET
    source: Annotated[Source | UnsetType, Meta(description="completed: where its result stands.")] = UNSET
    error: Annotated[Error | UnsetType, Meta(description="failed: what failed it. verdict: no evaluation.")] = UNSET
    since: Annotated[Time | UnsetType, Meta(description="waiting: since when. UTC.")] = UNSET
    worker: Annotated[str | UnsetType, Meta(description="intent, unknown: the worker of the call.")] = UNSET
    action: Annotated[str | UnsetType, Meta(description="reconciled: retry or ask. verdict: what follows.")] = UNSET
    execution: Annotated[ExecutionRecord | UnsetType, Meta(description="superseded: what came too late.")] = UNSET
    lifetime_id: Annotated[str | UnsetType, Meta(description="started: its own. forked: where it came from.")] = UNSET
    seq: Annotated[Count | UnsetType, Meta(description="forked: how many entries both share.")] = UNSET
    replaced: Annotated[bool | UnsetType, Meta(description="forked: whether exec_id has another result.")] = UNSET
    into: Annotated[str | UnsetType, Meta(description="forked: the lifetime that begins here.")] = UNSET
    policies: Annotated[str | UnsetType, Meta(description="started: digest of the policies in force.")] = UNSET
    raised: Annotated[dict[str, str] | UnsetType, Meta(description="resumed: raised limits by policy.")] = UNSET
    policy: Annotated[str | UnsetType, Meta(description="paused, aborted, verdict: the policy's label.")] = UNSET
    layer: Annotated[str | UnsetType, Meta(description="verdict: where the policy was written.")] = UNSET
    scope: Annotated[str | UnsetType, Meta(description="verdict: execution, lifetime or tenant.")] = UNSET
    shadow: Annotated[bool | UnsetType, Meta(description="verdict: only recorded, nothing is done.")] = UNSET
    digest: Annotated[str | UnsetType, Meta(description="policies, verdict: digest of the set.")] = UNSET
    at: Annotated[str | UnsetType, Meta(description="verdict: judged at the record or the dispatch.")] = UNSET
    values: Annotated[dict[str, str] | UnsetType, Meta(description="verdict: aggregates as seen.")] = UNSET


class LifetimeEventRecord(Part):
    """Something that happened to the lifetime as a whole."""

    id: Annotated[str, Meta(description="Unique in its lifetime; derived from what caused the event.")]
    type: Annotated[EventType, Meta(description="What happened.")]
    graph: Annotated[GraphRef, Meta(description="The graph that the lifetime runs.")]
    lifetime_id: Annotated[str, Meta(description="The lifetime: a UUIDv7.")]
    tenant_id: Annotated[str, Meta(description="The tenant that owns the lifetime.")]
    data: Annotated[EventData, Meta(description="The facts.")]
    seq: Annotated[Count, Meta(description="Place in the lifetime's log, from 1. 0: not recorded yet.")] = 0
    recorded_at: Annotated[Time | UnsetType, Meta(description="When it was recorded. UTC.")] = UNSET


P = TypeVar("P", bound=Part)


def write(part: Part) -> dict[str, Any]:
    """The JSON object of a part, its unknown fields included."""
    written = {
        name: _plain(value)
        for name in part.__struct_fields__
        if name != "extra" and (value := getattr(part, name)) is not UNSET
    }
    return {**part.extra, **written} if part.extra else written


def read(kind: type[P], data: Any, path: str = "record") -> P:
    """The part that a JSON object says. Raises UsageError with the path of the first field that does not fit."""
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected an object, got {type(data).__name__}")
    fields = _fields(kind)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in data.items():
        if name not in fields:
            extra[name] = value
        elif value is not None or fields[name].any_json:
            known[name] = fields[name].read(value, f"{path}.{name}")
    missing = [name for name, field in fields.items() if field.required and name not in known]
    if missing:
        raise UsageError(f"{path}: {', '.join(missing)} is missing")
    return kind(**known, extra=extra)


def unknown(part: Part) -> dict[str, Any]:
    """All unknown fields of a part and of those below it, nested as they lie; members of a list by their index."""
    found = dict(part.extra)
    for name, below in _below(part):
        inner = (
            {str(i): fields for i, item in enumerate(below) if (fields := unknown(item))}
            if isinstance(below, list)
            else unknown(below)
        )
        if inner:
            found[name] = inner
    return found


def restore(part: Part, fields: dict[str, Any]) -> None:
    """The inverse of `unknown`: puts the unknown fields back where they came from."""
    rest = dict(fields)
    for name, below in _below(part):
        inner = rest.pop(name, {})
        if isinstance(below, list):
            for index, item in enumerate(below):
                restore(item, inner.get(str(index), {}))
        else:
            restore(below, inner)
    part.extra = rest


def _below(part: Part) -> list[tuple[str, Any]]:
    """The fields of a part that hold parts, or lists of them."""
    values = ((name, getattr(part, name)) for name in part.__struct_fields__)
    return [
        (name, value)
        for name, value in values
        if isinstance(value, Part) or (isinstance(value, list) and value and isinstance(value[0], Part))
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return write(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class _Field(msgspec.Struct, frozen=True):
    """How one field is read."""

    accepts: Any
    part: type[Part] | None
    many: bool
    required: bool

    @property
    def any_json(self) -> bool:
        """Whether null is a value of its own here."""
        return self.accepts is Any

    def read(self, value: Any, path: str) -> Any:
        if self.part is not None and self.many:
            if not isinstance(value, list):
                raise UsageError(f"{path}: expected a list, got {type(value).__name__}")
            return [read(self.part, item, f"{path}.{i}") for i, item in enumerate(value)]
        if self.part is not None:
            return read(self.part, value, path)
        if self.any_json:
            return value
        try:
            return msgspec.convert(value, self.accepts, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"{path}: {error}") from None


@lru_cache(maxsize=64)
def _fields(kind: type[Part]) -> dict[str, _Field]:
    """The fields of a part by name, `extra` left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.name == "extra":
            continue
        value_type = _without_unset(hints[field.name])
        bare = get_args(value_type)[0] if get_origin(value_type) is Annotated else value_type
        many = get_origin(bare) is list
        item = get_args(bare)[0] if many else bare
        part = item if isinstance(item, type) and issubclass(item, Part) else None
        found[field.name] = _Field(Any if bare is Any else value_type, part, many, field.required)
    return found


def _without_unset(hint: Any) -> Any:
    """The type that a set field has: `Annotated[X | UnsetType, ...]` is X."""
    union = get_args(hint)[0]
    if get_origin(union) not in (UnionType, Union):
        return hint
    return next(member for member in get_args(union) if member is not UnsetType)
