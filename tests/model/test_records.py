"""The stored form of a log entry: nothing is lost, and entries of older versions stay readable."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.records import (
    BYTES,
    Error,
    Event,
    Execution,
    Next,
    Payload,
    Telemetry,
    decode_entry,
    encode_entry,
    json_payload,
    payload_value,
)

EXECUTION = Execution(
    *("e1", "task", "work", "", 0, 1, ("e0",), "decide->work", 1, 2, 3),
    status="SUCCEEDED",
)

texts = st.text(max_size=10)
numbers = st.integers(0, 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
payloads = st.builds(Payload, st.none() | st.binary(max_size=20), texts, st.none() | texts, numbers, st.none() | texts)
executions = st.builds(
    Execution,
    exec_id=texts,
    kind=st.sampled_from(["task", "plan"]),
    name=texts,
    branch=texts,
    iteration=numbers,
    attempt=numbers,
    parents=st.lists(texts, max_size=3).map(tuple),
    edge_taken=texts,
    created_at=numbers,
    started_at=numbers,
    finished_at=numbers,
    status=st.sampled_from(["SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"]),
    executor=texts,
    result=st.none() | payloads,
    error=st.none() | st.builds(Error, texts, texts, st.booleans(), plain),
    telemetry=st.none()
    | st.builds(Telemetry, numbers, numbers, numbers, numbers, st.none() | texts, st.none() | st.just({"a": 1})),
    next=st.none() | st.lists(st.builds(Next, texts, st.none() | payloads), max_size=3).map(tuple),
    reason=st.none() | texts,
    trace=st.none() | texts,
    extra=st.none() | st.dictionaries(texts, plain, max_size=2),
)
events = st.builds(Event, texts, st.sampled_from(["started", "paused"]), st.dictionaries(texts, plain, max_size=3))


@given(executions | events)
def test_an_entry_and_back(entry: Execution | Event) -> None:
    assert decode_entry(encode_entry(entry)) == entry


def test_an_entry_is_found_by_its_id() -> None:
    assert EXECUTION.entry_id == "e1"
    assert Event("timer:e1:set", "timer_set").entry_id == "timer:e1:set"


def test_an_entry_of_an_older_version_is_read() -> None:
    """Golden bytes: fields are only ever added at the end, with a default."""
    old = ["x", "e1", "task", "work", "", 0, 1, ["e0"], "decide->work", 1, 2, 3, "SUCCEEDED"]
    assert decode_entry(msgspec.msgpack.encode(old)) == EXECUTION
    assert decode_entry(msgspec.msgpack.encode(["e", "end", "failed", {"reason": "r"}])) == Event(
        "end", "failed", {"reason": "r"}
    )


def test_an_entry_of_a_newer_version_is_read() -> None:
    newer = msgspec.msgpack.decode(encode_entry(EXECUTION))
    assert decode_entry(msgspec.msgpack.encode([*newer, "a field of tomorrow"])) == EXECUTION


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", *map(msgspec.msgpack.encode, ([], ["z", 1], ["e", 1, "started"], ["e", "id", "exploded"]))],
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_entry(data)


@given(plain)
def test_a_json_payload_and_back(value: Any) -> None:
    payload = json_payload(value)
    assert payload.inline is not None
    assert payload.size == len(payload.inline)
    assert payload_value(payload) == value


def test_bytes_are_handed_on_as_they_are() -> None:
    assert payload_value(Payload(b"{}", BYTES, size=2)) == b"{}"


def test_no_payload_is_none() -> None:
    assert payload_value(None) is None


def test_a_blob_is_not_taken_for_a_value() -> None:
    with pytest.raises(ValueError, match="blob store at blob://x"):
        payload_value(Payload(None, BYTES, "blob://x", 5))


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        json_payload(object())
