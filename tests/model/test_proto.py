"""proto/ and the Python types are one contract: same fields, same types, same JSON, and nothing ever breaks it.

`python tests/model/test_proto.py` writes new fields into contract_v1.json; it refuses when an old one has changed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_tools import protoc

from tickwork.model import contract_json, graph, messages
from tickwork.model.contract import entry_from_json, execution_json
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import (
    BYTES,
    Entry,
    Error,
    Event,
    Execution,
    LogEntry,
    Next,
    Payload,
    Telemetry,
    encode_entry,
    json_payload,
)

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("contract_v1.json")
PACKAGE = "tickwork.v1"

PUBLISHED = {
    kind.__name__.removesuffix("Record") if kind is contract_json.LifetimeEventRecord else kind.__name__: kind
    for kind in vars(contract_json).values()
    if isinstance(kind, type) and issubclass(kind, contract_json.Part) and kind is not contract_json.Part
}
GRAPH = {
    kind.__name__: kind
    for kind in vars(graph).values()
    if isinstance(kind, type) and issubclass(kind, graph.Part) and kind is not graph.Part
}
MESSAGES = {
    kind.__name__: kind
    for kind in (messages.NodeInput, messages.Predecessor, messages.Append, messages.Committed, messages.Cancel)
}
NOT_PUBLISHED = {"extra"}
"""Where unknown fields are kept: by definition no field of the contract."""
INSIDE_ONLY = {("Append", field) for field in ("projection", "expect", "receipt", "ats")}
"""What the services of one installation agree among themselves: no business of a worker in another language."""
TIMES = {"created_at", "at"}
"""Integers of internal messages that are points in time."""


@cache
def files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """The compiled files, imports first."""
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contract.pb"
        flags = [f"-I{ROOT / 'proto'}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *flags, *sources]) == 0
        return tuple(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


@cache
def pool() -> descriptor_pool.DescriptorPool:
    made = descriptor_pool.DescriptorPool()
    for file in files():
        made.Add(file)
    return made


def message(name: str) -> Descriptor:
    found: Descriptor = pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# One word for the type of a field, from either side.

SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int",
    FieldDescriptor.TYPE_INT64: "int",
    FieldDescriptor.TYPE_DOUBLE: "float",
    FieldDescriptor.TYPE_BOOL: "bool",
}
WELL_KNOWN = {
    "google.protobuf.Timestamp": "time",
    "google.protobuf.Struct": "object",
    "google.protobuf.Value": "any",
}


def proto_word(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"map of {proto_word(field.message_type.fields_by_name['value'])}"
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        assert names[0].endswith("_UNSPECIFIED")
        word = "|".join(sorted(names[1:]))
    elif field.message_type is not None:
        word = WELL_KNOWN.get(field.message_type.full_name, field.message_type.name)
    else:
        word = SCALARS[field.type]
    return f"list of {word}" if field.is_repeated else word


def python_word(hint: Any, name: str = "") -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        formats = [(meta.extra_json_schema or {}).get("format") for meta in args[1:]]
        return "time" if "date-time" in formats else python_word(args[0], name)
    if hint == Entry:
        return "LogEntry"
    if origin in (Union, UnionType):
        (bare,) = [member for member in args if member not in (NoneType, msgspec.UnsetType)]
        return python_word(bare, name)
    if origin in (list, tuple):
        return f"list of {python_word(args[0])}"
    if origin is dict:
        return "object" if args[1] is Any else f"map of {python_word(args[1])}"
    if origin is Literal:
        return "|".join(sorted(args))
    if hint is int and name in TIMES:
        return "time"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "LifetimeEvent" if hint is contract_json.LifetimeEventRecord else hint.__name__
    return {str: "string", int: "int", float: "float", bool: "bool", Any: "any"}[hint]


def python_fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: python_word(hints[field.name], field.name)
        for field in msgspec.structs.fields(kind)
        if field.name not in NOT_PUBLISHED and (kind.__name__, field.name) not in INSIDE_ONLY
    }


@pytest.mark.parametrize("name", [*PUBLISHED, *GRAPH, *MESSAGES])
def test_the_python_type_has_the_fields_of_the_message(name: str) -> None:
    kind: type[msgspec.Struct] = {**PUBLISHED, **GRAPH, **MESSAGES}[name]
    assert python_fields(kind) == {field.name: proto_word(field) for field in message(name).fields}


def test_every_message_has_its_python_type() -> None:
    declared = {made.name for file in files() if file.package == PACKAGE for made in file.message_type}
    # LogEntry is the oneof that Python says as a union.
    assert declared == {*PUBLISHED, *GRAPH, *MESSAGES, "LogEntry"}
    assert {f.name: proto_word(f) for f in message("LogEntry").fields} == {
        "execution": "ExecutionRecord",
        "event": "LifetimeEvent",
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_may_be_unset_has_presence(name: str) -> None:
    """Presence decides what the JSON leaves out, so both sides have to agree on it."""
    by_name = message(name).fields_by_name
    for field in msgspec.structs.fields(PUBLISHED[name]):
        if field.name == "extra" or by_name[field.name].is_repeated:
            continue
        may_be_unset = field.default is msgspec.UNSET
        required_part = field.default is msgspec.NODEFAULT and by_name[field.name].message_type is not None
        assert by_name[field.name].has_presence == (may_be_unset or required_part), field.name


@pytest.mark.parametrize("name", GRAPH)
def test_a_default_that_is_not_zero_has_presence(name: str) -> None:
    """Else a graph that leaves the field out would say zero."""
    by_name = message(name).fields_by_name
    for field in msgspec.structs.fields(GRAPH[name]):
        proto = by_name[field.name]
        if field.default not in (msgspec.NODEFAULT, "", 0, ()) and proto.enum_type is None and not proto.is_repeated:
            assert proto.has_presence, field.name


def test_every_json_name_is_the_field_name() -> None:
    for file in files():
        if file.package == PACKAGE:
            for made in file.message_type:
                for field in made.field:
                    assert field.json_name == field.name, f"{made.name}.{field.name} needs its json_name"


def test_every_field_is_documented() -> None:
    """In the file, by a comment above it; of records also in docs/records.md."""
    page = (ROOT / "docs" / "records.md").read_text()
    for name in PUBLISHED:
        for field in message(name).fields:
            assert f"`{field.name}`" in page, f"docs/records.md does not explain {name}.{field.name}"
    text = (ROOT / "proto/tickwork/v1/records.proto").read_text().splitlines()
    for above, line in pairwise(text):
        if " = " in line and line.endswith(";") and not line.startswith("syntax") and "enum" not in line:
            value = line.split("=")[0].split()
            if len(value) > 1:  # a field, not an enum's value
                assert above.strip().startswith("//"), f"records.proto: say what this is: {line.strip()}"


# ---------------------------------------------------------------------------------------------------------------------
# The JSON is protobuf's own.

LIFETIME = Lifetime(
    lifetime_id="019ab000-0000-7000-8000-000000000001",
    tenant_id="acme",
    graph_name="hello",
    graph_version="1.2.3",
    graph_digest="sha256:" + "ab" * 32,
    status="RUNNING",
    created_at=1,
    updated_at=1,
)
T = 1_795_331_400_000_001
LATE = Execution(
    *("e2", "task", "work", "", 0, 1, (), "start->work", T, T + 1, T + 2),
    status="SUCCEEDED",
    executor="w2 python/0.1.0",
    result=json_payload("too late"),
)


def as_stored(execution: Execution) -> Any:
    return msgspec.msgpack.decode(encode_entry(execution))


SAMPLES: list[Execution | Event] = [
    Execution(
        *("e1", "plan", "decide", "split:0.3", 2, 1, ("p1", "p2"), "fetch->decide", T, T + 250, T + 1_750),
        status="SUCCEEDED",
        executor="w1 python/0.1.0",
        result=json_payload({"a": [2.5, None, True, "x", {}]}),
        telemetry=Telemetry(
            2**40, 5, 2**40 + 5, 1, "some-model", {"hits": 3, "ratio": 0.25}, "genai-prices 0.2.3", True
        ),
        next=(Next("work", json_payload(None)), Next("work")),
        reason="two are left",
    ),
    Execution(
        *("e2", "task", "work", "", 0, 1, (), "start->work", T, T + 1, T + 2),
        status="SUCCEEDED",
        result=Payload(b"\x00\xff", BYTES, size=2),
    ),
    Execution(
        *("e3", "task", "work", "", 0, 2, (), "start->work", T, T + 1, T + 2),
        status="TIMED_OUT",
        error=Error("StartToClose", "it took more than 3 s", True, {"limit": 3}),
        result=Payload(None, BYTES, "blob://acme/x", 2**33, "cd" * 32),
    ),
    Event(
        "started",
        "started",
        {
            "graph": {"name": "hello", "version": "1.2.3", "digest": "sha256:" + "ab" * 32},
            "input": [b'{"n":1.5}', "application/json", None, 9, None],
            "labels": {"team": "a"},
            "parent": ["019ab000-0000-7000-8000-000000000000", {"exec_id": "e0", "attempt": 1}],
        },
    ),
    Event("waiting:e4", "waiting", {"graph": "hello", "on": "human", "since": T, "deadline": T + 9, "who": ["ann"]}),
    Event("waiting:e5", "waiting", {"graph": "hello", "exec_id": "e5", "on": "unknown", "since": T}),
    Event("intent:e5", "intent", {"exec_id": "e5", "worker": "w1"}),
    Event("intent:e6", "intent", {"exec_id": "e6", "worker": ""}),
    Event("unknown:e5", "unknown", {"exec_id": "e5", "reason": "its worker was lost"}),
    Event("reconciled:e5", "reconciled", {"exec_id": "e5", "action": "retry", "reason": "not found", "by": "ann"}),
    Event("superseded:e2", "superseded", {"exec_id": "e2", "execution": as_stored(LATE)}),
    Event(
        "forked",
        "forked",
        {"lifetime_id": LIFETIME.lifetime_id, "seq": 12, "exec_id": "e2", "by": "ann", "replaced": False},
    ),
    Event("end", "completed", {"executions": 3, "cost_nano_usd": 5, "source": [[4, 5], -1, True]}),
    Event("end", "failed", {"reason": "no_final_edge", "error": ["Boom", "bang"]}),
    Event("policies:1", "policies", {"digest": "sha256:" + "cd" * 32}),
    Event("paused:1", "paused", {"reason": "a budget", "by": "tickwork", "policy": "graph/budget"}),
    Event("resumed:1", "resumed", {"by": "ann", "raised": {"graph/budget": "20000"}}),
    Event(
        "verdict:graph/budget:e1:dispatch:1",
        "verdict",
        {
            "policy": "graph/budget",
            "layer": "graph",
            "scope": "lifetime",
            "action": "pause_lifetime",
            "shadow": True,
            "digest": "sha256:" + "cd" * 32,
            "exec_id": "e1",
            "node": "work",
            "at": "dispatch",
            "values": {"sum(cost_usd)": "0.5"},
            "reason": "over",
            "error": "a price is missing",
        },
    ),
]


@pytest.mark.parametrize("entry", SAMPLES, ids=lambda entry: entry.entry_id)
def test_protobuf_reads_our_json_and_prints_what_we_read(entry: Execution | Event) -> None:
    ours = execution_json(LogEntry(7, T, entry), LIFETIME)
    name = "ExecutionRecord" if isinstance(entry, Execution) else "LifetimeEvent"
    kind: Any = message_factory.GetMessageClass(message(name))
    parsed = json_format.ParseDict(ours, kind())
    printed = json_format.MessageToDict(parsed, always_print_fields_with_no_presence=True)
    assert entry_from_json(printed) == LogEntry(7, T, entry)
    if isinstance(entry, Execution):
        # Byte for byte, but for int64, which protobuf prints as a string and we as a number.
        record = contract_json.read(contract_json.ExecutionRecord, printed)
        assert contract_json.write(record) == ours
    assert json_format.ParseDict(printed, kind()) == parsed
    assert kind.FromString(parsed.SerializeToString()) == parsed


def test_protobuf_carries_a_payloads_numbers_as_doubles() -> None:
    """What JSON says and a google.protobuf.Value does not; docs/records.md tells it."""
    record = execution_json(LogEntry(1, T, msgspec.structs.replace(SAMPLES[0], result=json_payload(3))), LIFETIME)
    kind: Any = message_factory.GetMessageClass(message("ExecutionRecord"))
    printed = json_format.MessageToDict(json_format.ParseDict(record, kind()))
    assert printed["result"]["inline"] == record["result"]["inline"] == 3
    assert isinstance(printed["result"]["inline"], float)


# ---------------------------------------------------------------------------------------------------------------------
# Nothing breaks.


def described(package: str = PACKAGE) -> dict[str, dict[str, str]]:
    """Messages and enums by full name; under each, by number, what stands there."""
    found: dict[str, dict[str, str]] = {}
    for file in files():
        if file.package == package:
            for made in file.message_type:
                found |= dict(_described(f"{package}.{made.name}", made))
    return dict(sorted(found.items()))


def _described(path: str, made: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, dict[str, str]]]:
    yield path, {str(field.number): _signature(made, field) for field in made.field}
    for enum in made.enum_type:
        yield f"{path}.{enum.name}", {str(value.number): value.name for value in enum.value}
    for nested in made.nested_type:
        yield from _described(f"{path}.{nested.name}", nested)


def _signature(made: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto) -> str:
    labels = descriptor_pb2.FieldDescriptorProto.Label
    types = descriptor_pb2.FieldDescriptorProto.Type
    many = "repeated " if field.label == labels.LABEL_REPEATED else ""
    optional = "optional " if field.proto3_optional else ""
    oneof = f" in {made.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") and not optional else ""
    kind = field.type_name.lstrip(".") or types.Name(field.type).removeprefix("TYPE_").lower()
    return f"{many}{optional}{kind} {field.name}{oneof}"


def breaks(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
    """What of the old contract does not hold in the new one."""
    return [
        f"{name} {number}: was `{was}`, is `{new.get(name, {}).get(number, 'gone')}`"
        for name, fields in old.items()
        for number, was in fields.items()
        if new.get(name, {}).get(number) != was
    ]


def test_the_contract_is_not_broken() -> None:
    assert not breaks(json.loads(SNAPSHOT.read_text()), described())


def test_new_fields_are_under_guard() -> None:
    added = breaks(described(), json.loads(SNAPSHOT.read_text()))
    assert not added, "run `python tests/model/test_proto.py` to keep them for ever: " + "; ".join(added)


@pytest.mark.parametrize(
    "new",
    [
        {},
        {"M": {}},
        {"M": {"2": "string a"}},
        {"M": {"1": "int64 a"}},
        {"M": {"1": "string b"}},
        {"M": {"1": "repeated string a"}},
    ],
    ids=["message gone", "field gone", "renumbered", "retyped", "renamed", "repeated"],
)
def test_a_break_is_seen(new: dict[str, dict[str, str]]) -> None:
    assert breaks({"M": {"1": "string a"}}, new)
    assert not breaks({"M": {"1": "string a"}}, {"M": {"1": "string a", "2": "string b"}, "N": {}})


def test_the_guard_looks_at_everything() -> None:
    now = described()
    assert now["tickwork.v1.Headers"]["1"] == "string exec_id"
    assert now["tickwork.v1.Headers"]["10"] == "repeated string parents"
    assert now["tickwork.v1.Headers.Status"]["3"] == "TIMED_OUT"
    assert now["tickwork.v1.Payload"]["1"] == "google.protobuf.Value inline in data"
    assert now["tickwork.v1.EventData"]["5"] == "optional string exec_id"


if __name__ == "__main__":
    if SNAPSHOT.exists() and (broken := breaks(json.loads(SNAPSHOT.read_text()), described())):
        sys.exit("This would break the contract:\n" + "\n".join(broken))
    SNAPSHOT.write_text(json.dumps(described(), indent=1) + "\n")
