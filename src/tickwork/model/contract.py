"""The published form of the log: how an entry leaves Tickwork as a v1 record, and how a record comes back.

Inside, an entry is flat and says only what is its own (`tickwork.model.records`). On the way out the lifetime's facts
(tenant, graph) are put back into each record, times become RFC 3339, billionths of a dollar a decimal, and what can
be derived is derived: latency, queue time, the SHA-256 of a payload in place, the traceparent. On the way in all of
that is taken off again, so entry -> record -> JSON -> record -> entry gives the entry that one began with. Fields that
this version does not know ride along in `Execution.extra` (of an event: `data["extra"]`), nested as they lay.

The one thing that is not kept is the layout of JSON text: a payload comes back in its compact form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from tickwork.errors import UsageError
from tickwork.model import contract_json as v1
from tickwork.model import records
from tickwork.model.contract_json import ExecutionRecord, LifetimeEventRecord
from tickwork.model.ids import traceparent
from tickwork.model.records import JSON, Event, Execution, LogEntry

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime

__all__ = [
    "ExecutionRecord",
    "LifetimeEventRecord",
    "entry_from_json",
    "execution_from_json",
    "execution_json",
    "instant",
    "nano_usd",
    "published",
    "timestamp",
    "usd",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANO = 1_000_000_000
_MONEY = re.compile(r"(-?)([0-9]{1,30})(?:\.([0-9]{1,9}))?")

_PAYLOADS = ("input", "payload")
"""Keys of an event's data that hold a payload."""
_TIMES = ("deadline", "due", "since")
"""Keys of an event's data that hold a time in microseconds."""
_MANY = ("labels", "who", "raised", "values")
"""Keys of an event's data that hold a list or a map: protobuf cannot tell an empty one from one that is not there."""
_UNEVALUABLE = "ConditionError"
"""The type that a verdict's error has outside; inside it is its text alone."""


def execution_json(entry: LogEntry, lifetime: Lifetime) -> dict[str, Any]:
    """The published JSON of a log entry: an execution's record (has `headers`), or an event's (has `type`)."""
    return v1.write(published(entry, lifetime))


def published(entry: LogEntry, lifetime: Lifetime) -> ExecutionRecord | LifetimeEventRecord:
    """The record that a log entry is for the world outside."""
    if isinstance(entry.entry, Execution):
        return _record(entry.entry, entry, lifetime)
    return _event_record(entry.entry, entry, lifetime)


def entry_from_json(data: Any) -> LogEntry:
    """The log entry that a published record says (seq and at 0: not recorded yet).

    Raises UsageError, with the path of the field, when it is neither an execution's record nor an event's.
    """
    record: ExecutionRecord | LifetimeEventRecord
    if isinstance(data, dict) and "headers" in data:
        record = v1.read(ExecutionRecord, data)
        entry: Execution | Event = _execution(record)
    elif isinstance(data, dict) and "type" in data:
        record = v1.read(LifetimeEventRecord, data)
        entry = _event(record)
    else:
        raise UsageError("record: expected an object with `headers` (an execution) or `type` (an event)")
    return LogEntry(record.seq, instant(_set(record.recorded_at) or timestamp(0)), entry)


def execution_from_json(data: Any) -> Execution:
    """The execution that a published record says; raises UsageError as `entry_from_json`, and on an event."""
    return _execution(v1.read(ExecutionRecord, data))


def timestamp(microseconds: int) -> str:
    """RFC 3339 in UTC with six digits after the second: `2026-11-22T07:10:00.000001Z`."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def instant(text: str) -> int:
    """Microseconds since the epoch; digits below them are cut. Raises UsageError when it is no RFC 3339 time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}") from None
    if moment.tzinfo is None:
        raise UsageError(f"{text!r} does not say its time zone; end it with Z for UTC")
    return (moment - _EPOCH) // _MICROSECOND


def usd(nano: int) -> str:
    """Billionths of a US dollar as the shortest exact decimal: 1 is `0.000000001`, 1_500_000_000 is `1.5`."""
    whole, fraction = divmod(abs(nano), _NANO)
    digits = f"{fraction:09d}".rstrip("0")
    return ("-" if nano < 0 else "") + (f"{whole}.{digits}" if digits else str(whole))


def nano_usd(text: str) -> int:
    """The inverse of `usd`. Raises UsageError on more than nine digits after the point, and on anything else."""
    found = _MONEY.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is not an amount in US dollars with at most nine digits after the point")
    sign, whole, fraction = found.groups(default="")
    nano = int(whole) * _NANO + int(fraction.ljust(9, "0") or "0")
    return -nano if sign else nano


def _record(x: Execution, entry: LogEntry, lifetime: Lifetime) -> ExecutionRecord:
    record = ExecutionRecord(
        headers=_headers(x, lifetime),
        telemetry=_telemetry(x),
        result=_payload(x.result),
        error=_error(x.error),
        next=[v1.Next(task=n.task, input=_payload(n.input)) for n in x.next or ()],
        reason=x.reason or "",
        seq=entry.seq,
        recorded_at=timestamp(entry.at) if entry.seq else UNSET,
    )
    v1.restore(record, x.extra or {})
    return record


def _headers(x: Execution, lifetime: Lifetime) -> v1.Headers:
    return v1.Headers(
        exec_id=x.exec_id,
        kind=x.kind,
        name=x.name,
        graph=_graph(lifetime),
        lifetime_id=lifetime.lifetime_id,
        tenant_id=lifetime.tenant_id,
        branch=x.branch,
        iteration=x.iteration,
        attempt=x.attempt,
        parents=list(x.parents),
        edge_taken=x.edge_taken,
        created_at=timestamp(x.created_at),
        started_at=timestamp(x.started_at) if x.started_at else UNSET,
        finished_at=timestamp(x.finished_at),
        status=x.status,
        executor=_executor(x.executor),
        trace=x.trace or traceparent(lifetime.lifetime_id, x.exec_id),
    )


def _graph(lifetime: Lifetime) -> v1.GraphRef:
    return v1.GraphRef(name=lifetime.graph_name, version=lifetime.graph_version, digest=lifetime.graph_digest)


def _executor(text: str) -> v1.Executor:
    """`worker language/version` in its three parts; each may be missing."""
    worker, _, sdk = text.partition(" ")
    language, _, version = sdk.partition("/")
    return v1.Executor(worker_id=worker, language=language, sdk_version=version)


def _telemetry(x: Execution) -> v1.Telemetry:
    used = x.telemetry or records.Telemetry()
    started = bool(x.started_at)  # 0: it was cancelled before it started
    return v1.Telemetry(
        tokens_in=used.tokens_in,
        tokens_out=used.tokens_out,
        tokens_used=used.tokens_used,
        cost_usd=usd(used.cost_nano_usd),
        latency_ms=max(0, x.finished_at - x.started_at) / 1000 if started else 0.0,
        queue_ms=max(0, x.started_at - x.created_at) / 1000 if started else 0.0,
        model=used.model or "",
        custom=used.custom or {},
        prices=used.prices or "",
        unpriced=used.unpriced,
    )


def _payload(payload: records.Payload | None) -> v1.Payload | UnsetType:
    if payload is None:
        return UNSET
    data = payload.inline
    value: Any = UNSET
    if data is not None:
        value = msgspec.json.decode(data) if payload.content_type == JSON else base64.b64encode(data).decode()
    return v1.Payload(
        inline=value,
        uri=UNSET if payload.uri is None else payload.uri,
        content_type=payload.content_type,
        size_bytes=payload.size if data is None else len(data),
        sha256=(payload.sha256 or "") if data is None else hashlib.sha256(data).hexdigest(),
    )


def _error(error: records.Error | None) -> v1.Error | UnsetType:
    if error is None:
        return UNSET
    return v1.Error(
        type=error.type,
        message=error.message,
        retryable=error.retryable,
        details=UNSET if error.details is None else error.details,
    )


def _event_record(event: Event, entry: LogEntry, lifetime: Lifetime) -> LifetimeEventRecord:
    record = LifetimeEventRecord(
        id=event.id,
        type=event.type,
        graph=_graph(lifetime),
        lifetime_id=lifetime.lifetime_id,
        tenant_id=lifetime.tenant_id,
        data=_event_data(event.data),
        seq=entry.seq,
        recorded_at=timestamp(entry.at) if entry.seq else UNSET,
    )
    beside = record.data.extra
    v1.restore(record, event.data.get("extra", {}))
    record.data.extra |= beside
    if (late := event.data.get("execution")) is not None:
        # A record of its own, unknown fields and all; in a log it has no place but this event's.
        record.data.execution = _record(msgspec.convert(late, Execution), LogEntry(0, 0, event), lifetime)
    return record


def _event_data(data: dict[str, Any]) -> v1.EventData:
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in data.items():
        if key == "cost_nano_usd":
            fields["cost_usd"] = usd(value)
        elif key not in v1.EventData.__struct_fields__:
            extra[key] = value
        elif value is not None and key not in ("extra", "execution"):
            fields[key] = _fact(key, value)
    return v1.EventData(**fields, extra=extra)


def _fact(key: str, value: Any) -> Any:
    """One fact of an event. What is a part of its own is an array once it was stored, and a struct before."""
    if key in _PAYLOADS:
        return _payload(msgspec.convert(value, records.Payload))
    if key in _TIMES:
        return timestamp(value)
    if key == "error":
        if isinstance(value, str):
            return v1.Error(type=_UNEVALUABLE, message=value)
        return _error(msgspec.convert(value, records.Error))
    if key == "graph":
        # A `waiting` event has the name alone, for the inbox; the record around it says the same.
        if isinstance(value, str):
            return UNSET
        return v1.GraphRef(**{part: value.get(part, "") for part in ("name", "version", "digest")})
    if key == "parent":
        lifetime_id, visit = value
        return v1.Parent(lifetime_id=lifetime_id, exec_id=visit["exec_id"], visit=visit)
    if key == "source":
        seqs, pick, joined = value
        return v1.Source(seqs=list(seqs), pick=UNSET if pick < 0 else pick, joined=joined)
    return list(value) if isinstance(value, tuple) else value


def _execution(record: ExecutionRecord) -> Execution:
    h = record.headers
    trace = None if h.trace in ("", traceparent(h.lifetime_id, h.exec_id)) else h.trace
    chose = record.next or (h.kind == "plan" and h.status == "SUCCEEDED")
    return Execution(
        exec_id=h.exec_id,
        kind=h.kind,
        name=h.name,
        branch=h.branch,
        iteration=h.iteration,
        attempt=h.attempt,
        parents=tuple(h.parents),
        edge_taken=h.edge_taken,
        created_at=instant(h.created_at),
        started_at=instant(h.started_at) if h.started_at else 0,
        finished_at=instant(h.finished_at),
        status=h.status,
        executor=_executor_text(h.executor),
        result=_stored_payload(record.result, "record.result"),
        error=_stored_error(record.error),
        telemetry=_stored_telemetry(record.telemetry),
        next=tuple(
            records.Next(n.task, _stored_payload(n.input, f"record.next.{i}.input")) for i, n in enumerate(record.next)
        )
        if chose
        else None,
        reason=record.reason or None,
        trace=trace,
        extra=v1.unknown(record) or None,
    )


def _executor_text(executor: v1.Executor | UnsetType) -> str:
    known = executor or v1.Executor()
    sdk = f"{known.language}/{known.sdk_version}" if known.sdk_version else known.language
    return f"{known.worker_id} {sdk}" if sdk else known.worker_id


def _stored_telemetry(telemetry: v1.Telemetry | UnsetType) -> records.Telemetry | None:
    used = _set(telemetry)
    if used is None:
        return None
    stored = records.Telemetry(
        tokens_in=used.tokens_in,
        tokens_out=used.tokens_out,
        tokens_used=used.tokens_used,
        cost_nano_usd=nano_usd(used.cost_usd),
        model=used.model or None,
        custom=_set(used.custom) or None,
        prices=used.prices or None,
        unpriced=used.unpriced,
    )
    return None if stored == records.Telemetry() else stored


def _stored_payload(payload: v1.Payload | UnsetType, path: str) -> records.Payload | None:
    value = _set(payload)
    if value is None:
        return None
    kind = value.content_type or JSON
    if value.inline is UNSET:
        return records.Payload(
            content_type=kind, uri=_set(value.uri), size=value.size_bytes, sha256=value.sha256 or None
        )
    if kind == JSON:
        data = msgspec.json.encode(value.inline)
    else:
        try:
            data = base64.b64decode(value.inline, validate=True)
        except (TypeError, binascii.Error):
            raise UsageError(f"{path}.inline: expected the bytes of {kind} in base64") from None
    return records.Payload(data, kind, size=len(data))


def _stored_error(error: v1.Error | UnsetType) -> records.Error | None:
    failure = _set(error)
    if failure is None:
        return None
    return records.Error(failure.type, failure.message, failure.retryable, _set(failure.details))


def _event(record: LifetimeEventRecord) -> Event:
    facts = record.data
    data: dict[str, Any] = {}
    if (late := _set(facts.execution)) is not None:
        data["execution"] = msgspec.msgpack.decode(records.encode_entry(_execution(late)))
        facts.execution = UNSET
    for key in facts.__struct_fields__:
        value = getattr(facts, key)
        if value is UNSET or key == "extra" or (key in _MANY and not value):
            continue
        if key == "cost_usd":
            data["cost_nano_usd"] = nano_usd(value)
        elif key == "error" and record.type == "verdict":
            data["error"] = value.message
        else:
            data[key] = _stored_fact(key, value)
    if record.type == "waiting":
        data["graph"] = record.graph.name
    elif record.type == "verdict":
        data.setdefault("values", {})  # a condition may read none
    data |= facts.extra
    facts.extra = {}
    if extra := v1.unknown(record):
        data["extra"] = extra
    return Event(record.id, record.type, data)


def _stored_fact(key: str, value: Any) -> Any:
    """The inverse of `_fact`, in the form that a fact has once it was stored."""
    if key in _PAYLOADS:
        return msgspec.to_builtins(_stored_payload(value, f"record.data.{key}"), builtin_types=(bytes,))
    if key in _TIMES:
        return instant(value)
    if key == "error":
        fields = list(msgspec.to_builtins(_stored_error(value)))
        # Stored as short as it goes: what is not there reads as retryable, without details.
        while fields[2:] and fields[-1] is (None if fields[3:] else True):
            fields.pop()
        return fields
    if key == "graph":
        return {"name": value.name, "version": value.version, "digest": value.digest}
    if key == "parent":
        return [value.lifetime_id, {"exec_id": value.exec_id} | (_set(value.visit) or {})]
    if key == "source":
        return [value.seqs, -1 if value.pick is UNSET else value.pick, value.joined]
    return value


def _set(value: Any) -> Any:
    """A field's value, or None when it is not set."""
    return None if value is UNSET else value
