"""The form of an exported lifetime, version 1: one JSON document a line, each with its kind in `line`.

    header                  whose lifetime it is, and the version of the form
    graph, policies         each graph and each set of policies that a log names, under its digest
    blob, data...           each payload that lies in the blob store: its size and digest, then its bytes in pieces
    lifetime, entry...      each child before its parent, the exported one last: its row, then its log from seq 1
    end                     how many lines came before, and the SHA-256 of their bytes

An entry is its published record (docs/records.md), so that the file can be read without Tickwork. The record has to
give back the very bytes that the store has: where the order of an event's facts matters for that, `keys` says it; what
a record cannot say exactly stands as it is stored, in base64 (`stored`). Nothing here depends on when or where the
file is written: the same lifetime gives the same lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tickwork.errors import TickworkError
from tickwork.model.contract import entry_from_json, execution_json
from tickwork.model.lifetime import LifetimeStatus
from tickwork.model.records import Event, Execution, LogEntry, Payload, encode_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import Entry

FORMAT = "tickwork.lifetime"
VERSION = 1

MIB = 1024 * 1024
PIECE = MIB
"""Bytes of a blob in one line."""

MAX_LINE = 128 * MIB
"""Bytes of a line: the largest entry that a store takes (64 MiB), in base64, has room."""

MAX_FILE = 8 * 1024 * MIB
"""Bytes of a file, once it is unpacked, unless the reader is told another number."""

MAX_LOG = 1024 * MIB
"""Bytes of one lifetime's entries: a lifetime is created in one transaction, from memory."""

MAX_LIFETIMES = 100_000
"""Lifetimes of a file, children included."""

STORED = msgspec.msgpack.Encoder()
_stored_decoder = msgspec.msgpack.Decoder(LogEntry)


class ExportInvalid(TickworkError):
    """A file is no whole, untouched export: nothing of it was taken over."""

    code: ClassVar[str] = "export_invalid"
    exit_code: ClassVar[int] = 4
    hint = "Nothing was imported. Export the lifetime again, and compare the sizes when the file was sent by a network."


class Line(msgspec.Struct, tag_field="line", kw_only=True, omit_defaults=True):
    """One line of the file."""


class Header(Line, tag="header", kw_only=True):
    """The first line. `tickwork`: the version that wrote it, for people."""

    format: str
    version: int
    lifetime_id: str
    tenant_id: str
    tickwork: str = ""


class GraphLine(Line, tag="graph"):
    """A graph under its digest, as it was registered; where its code lies is not said, for that is another machine."""

    name: str
    version: str
    digest: str
    graph: Raw


class PoliciesLine(Line, tag="policies"):
    """A set of policies under its digest."""

    digest: str
    policies: Raw


class BlobLine(Line, tag="blob"):
    """A payload in the blob store; its bytes follow."""

    uri: str
    sha256: str
    size: int


class DataLine(Line, tag="data"):
    """The next bytes of the blob, at most PIECE."""

    content: bytes


class LifetimeLine(Line, tag="lifetime"):
    """A lifetime's row, without what belongs to one installation, or what the log says. `created_at` is RFC 3339;
    `records`: entries that follow."""

    lifetime_id: str
    tenant_id: str
    graph: str
    status: LifetimeStatus
    created_at: str
    records: int
    reason: str | None = None
    labels: dict[str, str] = {}


class EntryLine(Line, tag="entry"):
    """An entry of the log: `record`, or what is stored of [seq, at, entry]."""

    record: Raw | UnsetType = UNSET
    keys: tuple[str, ...] | UnsetType = UNSET
    stored: bytes | UnsetType = UNSET


class EndLine(Line, tag="end"):
    """The last line."""

    lines: int
    sha256: str


AnyLine: TypeAlias = Header | GraphLine | PoliciesLine | BlobLine | DataLine | LifetimeLine | EntryLine | EndLine
Kind: TypeAlias = Literal["header", "graph", "policies", "blob", "data", "lifetime", "entry", "end"]

_decoder = msgspec.json.Decoder(AnyLine)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode_line(line: AnyLine) -> bytes:
    """The bytes of a line, its newline included."""
    return _encoder.encode(line) + b"\n"


def decode_line(raw: bytes) -> AnyLine:
    """The inverse of `encode_line`. Raises msgspec.MsgspecError, RecursionError."""
    found: AnyLine = _decoder.decode(raw)
    return found


# -- entries ----------------------------------------------------------------------------------------------------------


def entry_line(logged: LogEntry, lifetime: Lifetime) -> EntryLine:
    """The line of an entry, which gives back its very bytes."""
    try:
        record = msgspec.json.encode(execution_json(logged, lifetime))
        line = EntryLine(record=Raw(record))
        if len(record) < MAX_LINE // 2:
            if exact(read_entry(line), logged):
                return line
            if isinstance(logged.entry, Event):
                line.keys = tuple(logged.entry.data)
                if exact(read_entry(line), logged):
                    return line
    except (TickworkError, msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass  # its record cannot be made, or not be read: it travels as it is
    return EntryLine(stored=STORED.encode(logged))


def read_entry(line: EntryLine) -> LogEntry:
    """The entry of a line. Raises UsageError, MsgspecError, ValueError and their like when it says none."""
    if line.stored is not UNSET:
        return _stored_decoder.decode(line.stored)
    if line.record is UNSET:
        raise ValueError("an entry has a `record`, or `stored` bytes")
    logged = entry_from_json(msgspec.json.decode(line.record))
    if line.keys is not UNSET:
        event = logged.entry
        if not isinstance(event, Event) or sorted(event.data) != sorted(line.keys):
            raise ValueError("`keys` are not the names of this event's facts")
        event.data = {name: event.data[name] for name in line.keys}
    return logged


def exact(one: LogEntry, other: LogEntry) -> bool:
    """Whether both are the same, byte for byte."""
    return (one.seq, one.at) == (other.seq, other.at) and encode_entry(one.entry) == encode_entry(other.entry)


def said_by(record: Any, whole: Any) -> bool:
    """Whether `whole` says all that `record` says. Writers of other versions may leave fields away."""
    if isinstance(record, dict):
        return isinstance(whole, dict) and all(k in whole and said_by(v, whole[k]) for k, v in record.items())
    if isinstance(record, list):
        same = isinstance(whole, list) and len(record) == len(whole)
        return same and all(said_by(a, b) for a, b in zip(record, whole, strict=True))
    return bool(record == whole)


def payloads_of(entry: Entry) -> Iterator[Payload]:
    """Every payload that an entry holds. Raises msgspec.ValidationError."""
    if isinstance(entry, Execution):
        if entry.result is not None:
            yield entry.result
        for chosen in entry.next or ():
            if chosen.input is not None:
                yield chosen.input
        return
    for name in ("input", "payload"):
        if entry.type in ("started", "signalled") and entry.data.get(name) is not None:
            yield msgspec.convert(entry.data[name], Payload)
    if entry.type == "superseded":
        yield from payloads_of(msgspec.convert(entry.data["execution"], Execution))


def policies_of(entry: Entry) -> str:
    """The digest of the set of policies that an entry names; empty: none."""
    if not isinstance(entry, Event):
        return ""
    named = entry.data.get("policies" if entry.type == "started" else "digest")
    return named if isinstance(named, str) and entry.type in ("started", "policies", "verdict") else ""
