"""The published record: nothing is lost on the way out to JSON and back, and the JSON is as agreed."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.orchestrator.driver import Run
from tests.orchestrator.driver import graph as core_graph
from tickwork.errors import UsageError
from tickwork.model import contract_json as v1
from tickwork.model.contract import (
    entry_from_json,
    execution_from_json,
    execution_json,
    instant,
    nano_usd,
    published,
    timestamp,
    usd,
)
from tickwork.model.ids import traceparent
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import (
    BYTES,
    Error,
    Event,
    EventType,
    Execution,
    LogEntry,
    Next,
    Payload,
    Telemetry,
    decode_entry,
    encode_entry,
    json_payload,
)
from tickwork.model.schema import schemas

LIFETIME = Lifetime(
    lifetime_id="019ab000-0000-7000-8000-000000000001",
    tenant_id="acme",
    graph_name="hello",
    graph_version="1.2.3",
    graph_digest="sha256:" + "ab" * 32,
    status="RUNNING",
    created_at=1_795_331_400_000_001,
    updated_at=1_795_331_400_000_001,
)
START = 1_795_331_400_000_001  # 2026-11-22T07:10:00.000001Z

PLAN = Execution(
    exec_id="abcdefghijklmnopqrstuvwx",
    kind="plan",
    name="decide",
    branch="split:0.3",
    iteration=2,
    attempt=1,
    parents=("p1", "p2"),
    edge_taken="fetch->decide",
    created_at=START,
    started_at=START + 250,
    finished_at=START + 1_750,
    status="SUCCEEDED",
    executor="a1b2c3 python/0.1.0",
    result=json_payload({"route": "on", "n": 1.5}),
    telemetry=Telemetry(10, 5, 15, 1, "some-model", {"hits": 3}),
    next=(Next("work", json_payload([1, None])), Next("work")),
    reason="two are left",
)

words = st.text(max_size=12)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        words,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(words, json_values, max_size=3)
times = st.integers(0, 4_000_000_000_000_000)
counts = st.integers(0, 2**53 - 1)
payloads = st.one_of(
    st.builds(json_payload, json_values),
    st.builds(lambda data: Payload(data, BYTES, size=len(data)), st.binary(max_size=40)),
    st.builds(
        lambda uri, size, sha: Payload(None, BYTES, uri, size, sha),
        words,
        counts,
        st.none() | st.just("cd" * 32),
    ),
)
errors = st.builds(Error, names, words, st.booleans(), json_values)
# A new field has a name that this version does not use for another.
new_fields = st.dictionaries(names.map("x_".__add__), json_values, max_size=2)
telemetries = st.builds(
    Telemetry,
    counts,
    counts,
    counts,
    st.integers(-(10**15), 10**15),
    st.none() | names,
    st.none() | st.dictionaries(words, json_values, min_size=1, max_size=3),
    st.none() | st.just("genai-prices 0.2.3"),
    st.booleans(),
).map(lambda used: None if used == Telemetry() else used)


@st.composite
def executions(draw: st.DrawFn) -> Execution:
    kind = draw(st.sampled_from(["task", "plan"]))
    status = draw(st.sampled_from(["SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"]))
    chooses = kind == "plan" and status == "SUCCEEDED"
    executor = draw(st.sampled_from(["", "a1b2c3", "a1b2c3 python", "a1b2c3 python/0.1.0"]))
    chosen = draw(st.lists(st.builds(Next, names, st.none() | payloads), max_size=3)) if chooses else []
    extra: dict[str, Any] = draw(new_fields)
    headers = draw(new_fields)
    if headers:
        extra["headers"] = headers
    if chosen and draw(st.booleans()):
        extra["next"] = {str(len(chosen) - 1): {"x_weight": 2}}
    return Execution(
        exec_id=draw(names),
        kind=kind,
        name=draw(names),
        branch=draw(st.sampled_from(["", "split:0.3", "split:0.3/inner:1.0"])),
        iteration=draw(st.integers(0, 2**31 - 1)),
        attempt=draw(st.integers(1, 2**31 - 1)),
        parents=tuple(draw(st.lists(names, max_size=3))),
        edge_taken=draw(words),
        created_at=draw(times),
        started_at=draw(times),
        finished_at=draw(times),
        status=status,
        executor=executor,
        result=draw(st.none() | payloads),
        error=draw(st.none() | errors),
        telemetry=draw(telemetries),
        next=tuple(chosen) if chooses else None,
        reason=draw(st.none() | st.text(min_size=1, max_size=12)),
        trace=draw(st.none() | st.just("00-" + "1" * 32 + "-" + "2" * 16 + "-00")),
        extra=extra or None,
    )


def as_stored(error: Error) -> list[Any]:
    """An error inside an event's data: no longer than it has to be."""
    if error.details is not None:
        return [error.type, error.message, error.retryable, error.details]
    return [error.type, error.message] if error.retryable else [error.type, error.message, False]


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(get_args(EventType)))
    error = words if kind == "verdict" else errors.map(as_stored)
    fields: dict[str, st.SearchStrategy[Any]] = {
        "input": payloads,
        "labels": st.dictionaries(words, words, min_size=1, max_size=2),
        "parent": st.tuples(words, st.fixed_dictionaries({"exec_id": words, "iteration": counts})),
        "exec_id": words,
        "answer_schema": objects,
        "deadline": times,
        "since": times,
        "who": st.lists(words, min_size=1, max_size=2),
        "payload": payloads,
        "by": words,
        "executions": counts,
        "cost_nano_usd": st.integers(-(10**15), 10**15),
        "due": times,
        "source": st.tuples(st.lists(counts, max_size=3), st.integers(-1, 10), st.booleans()),
        "error": error,
        "worker": words,
        "action": st.sampled_from(["retry", "ask"]),
        "reason": words,
        "execution": executions().map(lambda late: msgspec.to_builtins(late, builtin_types=(bytes,))),
        "lifetime_id": words,
        "seq": counts,
        "replaced": st.booleans(),
        "into": st.just(LIFETIME.lifetime_id),
        "policies": words,
        "raised": st.dictionaries(words, words, min_size=1, max_size=2),
        "policy": words,
        "layer": words,
        "scope": words,
        "shadow": st.booleans(),
        "digest": words,
        "at": st.sampled_from(["record", "dispatch"]),
        "values": st.dictionaries(words, words, min_size=1, max_size=2),
    }
    data = draw(st.fixed_dictionaries({}, optional=fields)) | draw(new_fields)
    if kind == "started":
        data["graph"] = {"name": "hello", "version": "1.2.3", "digest": "sha256:" + "ab" * 32}
    if kind == "waiting":
        data["graph"] = LIFETIME.graph_name
    if kind == "verdict":
        data.setdefault("values", {})  # it always has them, though a condition may read none
    if "payload" in data and draw(st.booleans()):
        data["extra"] = {"x_outer": 1, "data": {"payload": {"x_inner": None}}}
    return Event(draw(words), kind, data)


def through_text(data: Any) -> Any:
    """What arrives after the JSON travelled as text."""
    return json.loads(json.dumps(data))


@given(executions(), st.integers(1, 2**53 - 1), times)
def test_an_execution_survives_publication_and_json(execution: Execution, seq: int, at: int) -> None:
    entry = LogEntry(seq, at, execution)
    data = execution_json(entry, LIFETIME)
    assert entry_from_json(through_text(data)) == entry
    assert execution_from_json(data) == execution
    assert v1.write(v1.read(v1.ExecutionRecord, through_text(data))) == data


@given(events(), st.integers(1, 2**53 - 1), times)
def test_an_event_survives_publication_and_json(event: Event, seq: int, at: int) -> None:
    as_stored = decode_entry(encode_entry(event))
    data = execution_json(LogEntry(seq, at, event), LIFETIME)
    assert data == execution_json(LogEntry(seq, at, as_stored), LIFETIME), "before and after it was stored"
    again = entry_from_json(through_text(data))
    assert (again.seq, again.at) == (seq, at)
    assert isinstance(again.entry, Event)
    assert isinstance(as_stored, Event)
    assert (again.entry.id, again.entry.type) == (event.id, event.type)
    assert again.entry.data == as_stored.data


def test_what_the_core_records_is_within_the_contract() -> None:
    """No fact of an event, and nothing of an execution, that the contract has no field for."""

    def failing(visit: Any, run: Any) -> Any:
        if visit.node == "plan":
            return ["work", "work"]
        if visit.node == "plan_end":
            return ["end"]
        return Error("ValueError", "no", retryable=False) if visit.branch.endswith(".1") else {"n": 1}

    fan = core_graph("start -> plan", "plan => work", "work >> plan_end | settled", "plan_end -> end")
    completed = Run(fan, failing)
    failed = Run(core_graph("start -> work", "work -> end | result.missing > 1"), lambda visit, run: {})
    for run in (completed.start().finish(), failed.start().finish()):
        for entry in run.log:
            data = execution_json(LogEntry(entry.seq, entry.at, entry.entry), LIFETIME)
            kind = v1.ExecutionRecord if isinstance(entry.entry, Execution) else v1.LifetimeEventRecord
            record = v1.read(kind, through_text(data))
            assert not v1.unknown(record)
            if entry.seq > 1:  # the driver leaves the graph out of its `started`
                assert entry_from_json(data).entry == decode_entry(encode_entry(entry.entry))
    assert (completed.status, failed.status) == ("COMPLETED", "FAILED")


@given(executions() | events())
def test_what_is_published_meets_the_published_schema(entry: Execution | Event) -> None:
    data = execution_json(LogEntry(1, START, entry), LIFETIME)
    name = "ExecutionRecord" if isinstance(entry, Execution) else "LifetimeEvent"
    jsonschema.Draft202012Validator(schemas()[name]).validate(data)


@pytest.mark.parametrize("name", ["ExecutionRecord", "LifetimeEvent"])
def test_the_schemas_are_schemas_with_words(name: str) -> None:
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in [schema, *schema["$defs"].values()]:
        assert part["description"]
        for field, described in part["properties"].items():
            assert described.get("description"), f"{part['title']}.{field} says nothing"
            assert field != "extra"


def test_the_schema_refuses_what_is_wrong() -> None:
    validator = jsonschema.Draft202012Validator(schemas()["ExecutionRecord"])
    for path, value in [("status", "DONE"), ("attempt", 0), ("created_at", "yesterday"), ("exec_id", 7)]:
        data = execution_json(LogEntry(1, START, PLAN), LIFETIME)
        data["headers"][path] = value
        assert not validator.is_valid(data), path


def test_the_json_is_as_agreed() -> None:
    data = execution_json(LogEntry(7, START + 2_000, PLAN), LIFETIME)
    assert data == {
        "headers": {
            "exec_id": "abcdefghijklmnopqrstuvwx",
            "kind": "plan",
            "name": "decide",
            "graph": {"name": "hello", "version": "1.2.3", "digest": "sha256:" + "ab" * 32},
            "lifetime_id": LIFETIME.lifetime_id,
            "tenant_id": "acme",
            "branch": "split:0.3",
            "iteration": 2,
            "attempt": 1,
            "parents": ["p1", "p2"],
            "edge_taken": "fetch->decide",
            "created_at": "2026-11-22T07:10:00.000001Z",
            "started_at": "2026-11-22T07:10:00.000251Z",
            "finished_at": "2026-11-22T07:10:00.001751Z",
            "status": "SUCCEEDED",
            "executor": {"worker_id": "a1b2c3", "language": "python", "sdk_version": "0.1.0"},
            "trace": traceparent(LIFETIME.lifetime_id, PLAN.exec_id),
        },
        "telemetry": {
            "tokens_in": 10,
            "tokens_out": 5,
            "tokens_used": 15,
            "cost_usd": "0.000000001",
            "latency_ms": 1.5,
            "queue_ms": 0.25,
            "model": "some-model",
            "custom": {"hits": 3},
            "prices": "",
            "unpriced": False,
        },
        "result": {
            "inline": {"route": "on", "n": 1.5},
            "content_type": "application/json",
            "size_bytes": 22,
            "sha256": hashlib.sha256(b'{"route":"on","n":1.5}').hexdigest(),
        },
        "next": [
            {
                "task": "work",
                "input": {
                    "inline": [1, None],
                    "content_type": "application/json",
                    "size_bytes": 8,
                    "sha256": hashlib.sha256(b"[1,null]").hexdigest(),
                },
            },
            {"task": "work"},
        ],
        "reason": "two are left",
        "seq": 7,
        "recorded_at": "2026-11-22T07:10:00.002001Z",
    }


def test_what_policies_record_is_published_as_it_reads() -> None:
    verdict = Event(
        "verdict:graph/token-budget:e1:record:1",
        "verdict",
        {
            "policy": "graph/token-budget",
            "layer": "graph",
            "scope": "lifetime",
            "action": "pause_lifetime",
            "shadow": False,
            "digest": "sha256:" + "cd" * 32,
            "exec_id": "e1",
            "node": "work",
            "at": "record",
            "values": {"sum(tokens_used)": "10001"},
            "reason": "sum(tokens_used) is 10001",
            "error": "the cost of model `m` is not known",
        },
    )
    data = execution_json(LogEntry(3, START, verdict), LIFETIME)
    error = {"type": "ConditionError", "message": "the cost of model `m` is not known", "retryable": False}
    assert data["type"] == "verdict"
    assert data["data"] == verdict.data | {"error": error}
    assert entry_from_json(through_text(data)).entry == verdict
    others = [
        Event("policies:1", "policies", {"digest": ""}),
        Event("paused:1", "paused", {"reason": "a budget", "by": "tickwork", "policy": "graph/token-budget"}),
        Event("resumed:1", "resumed", {"by": "ann", "raised": {"graph/token-budget": "20000"}}),
    ]
    for event in others:
        shown = execution_json(LogEntry(4, START, event), LIFETIME)
        assert shown["data"] == event.data
        assert entry_from_json(through_text(shown)).entry == event


def test_null_is_a_result_and_no_result_is_none() -> None:
    null = msgspec.structs.replace(PLAN, result=json_payload(None))
    absent = msgspec.structs.replace(PLAN, result=None)
    assert execution_json(LogEntry(1, 0, null), LIFETIME)["result"]["inline"] is None
    assert "result" not in execution_json(LogEntry(1, 0, absent), LIFETIME)


def test_bytes_are_base64_and_a_blob_is_its_address() -> None:
    data = bytes(range(256))
    inline = msgspec.structs.replace(PLAN, result=Payload(data, BYTES, size=256))
    shown = execution_json(LogEntry(1, 0, inline), LIFETIME)["result"]
    assert base64.b64decode(shown["inline"]) == data
    assert shown["sha256"] == hashlib.sha256(data).hexdigest()
    blob = msgspec.structs.replace(PLAN, result=Payload(None, BYTES, "blob://acme/x", 50_000_000, "ef" * 32))
    assert execution_json(LogEntry(1, 0, blob), LIFETIME)["result"] == {
        "uri": "blob://acme/x",
        "content_type": BYTES,
        "size_bytes": 50_000_000,
        "sha256": "ef" * 32,
    }


def test_unknown_fields_survive_at_every_level_through_the_stored_form() -> None:
    data = execution_json(LogEntry(1, START, PLAN), LIFETIME)
    data["x_top"] = {"deep": [1]}
    data["headers"]["x_zone"] = "eu"
    data["headers"]["graph"]["x_stage"] = "canary"
    data["headers"]["executor"]["x_host"] = "h1"
    data["telemetry"]["x_cached_tokens"] = 4
    data["telemetry"] |= {"prices": "genai-prices 0.2.3", "unpriced": True}
    data["result"]["x_codec"] = None
    data["next"][1]["x_weight"] = 2
    data["next"][0]["input"]["x_codec"] = "z"
    stored = decode_entry(encode_entry(execution_from_json(data)))
    assert isinstance(stored, Execution)
    assert stored.extra
    assert execution_json(LogEntry(1, START, stored), LIFETIME) == data


def test_a_field_called_extra_is_unknown_like_any_other() -> None:
    data = execution_json(LogEntry(1, START, PLAN), LIFETIME) | {"extra": 5}
    assert execution_json(LogEntry(1, START, execution_from_json(data)), LIFETIME) == data


def test_what_other_printers_write_is_read() -> None:
    data = execution_json(LogEntry(1, START, PLAN), LIFETIME)
    ours = entry_from_json(data)
    data["seq"] = "1"
    data["telemetry"]["tokens_in"] = "10"  # int64 as protobuf prints it
    data["headers"]["created_at"] = "2026-11-22T09:10:00.000001999+02:00"
    data["error"] = None  # null: not set
    assert entry_from_json(data) == ours
    for name in ("telemetry", "reason", "recorded_at"):
        del data[name]
    assert execution_from_json(data).telemetry is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["headers"].pop("exec_id"), "record.headers: exec_id is missing"),
        (lambda d: d["headers"].update(attempt="one"), "record.headers.attempt"),
        (lambda d: d["headers"].update(status="DONE"), "record.headers.status"),
        (lambda d: d["headers"].update(created_at="2026-13-40T00:00:00Z"), "is not a time"),
        (lambda d: d["telemetry"].update(cost_usd="1e-3"), "record.telemetry.cost_usd"),
        (lambda d: d["result"].update(content_type=BYTES, inline="no base64!"), "record.result.inline"),
        (lambda d: d.update(next={}), "record.next: expected a list"),
        (lambda d: d["next"].append("work"), "record.next.2: expected an object"),
        (lambda d: d.pop("headers"), "expected an object with `headers`"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(change: Any, words: str) -> None:
    data = execution_json(LogEntry(1, START, PLAN), LIFETIME)
    change(data)
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        entry_from_json(data)


def test_clocks_that_disagree_give_no_negative_time() -> None:
    skewed = msgspec.structs.replace(PLAN, started_at=START - 5_000, finished_at=START - 9_000)
    record = published(LogEntry(1, START, skewed), LIFETIME)
    assert isinstance(record, v1.ExecutionRecord)
    assert isinstance(record.telemetry, v1.Telemetry)
    assert (record.telemetry.latency_ms, record.telemetry.queue_ms) == (0, 0)


def test_what_never_started_has_no_start_and_took_no_time() -> None:
    cancelled = msgspec.structs.replace(PLAN, status="CANCELLED", started_at=0, next=None)
    data = execution_json(LogEntry(1, START, cancelled), LIFETIME)
    assert "started_at" not in data["headers"]
    assert (data["telemetry"]["latency_ms"], data["telemetry"]["queue_ms"]) == (0, 0)
    assert execution_from_json(data) == cancelled


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_timestamp_and_back(microseconds: int) -> None:
    text = timestamp(microseconds)
    assert instant(text) == microseconds
    assert len(text) == len("2026-11-22T07:10:00.000001Z")
    assert datetime.fromisoformat(text).tzinfo == UTC


@pytest.mark.parametrize("text", ["2026-11-22", "2026-11-22T07:10:00", "", "now"])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        instant(text)


@given(st.integers(-(10**30), 10**30))
def test_money_and_back_is_exact(nano: int) -> None:
    assert nano_usd(usd(nano)) == nano


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (-20_000_000, "-0.02"), (10**9, "1"), (10**10, "10")],
)
def test_money_is_the_shortest_decimal(nano: int, text: str) -> None:
    assert usd(nano) == text


@pytest.mark.parametrize("text", ["", "1e-3", "0.0000000001", "1,5", "$1", "NaN", "1\n", "٣"])
def test_money_that_is_not_exact_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        nano_usd(text)
