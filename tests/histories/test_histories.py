"""Recorded lifetimes of every shape fold and route to the same choices for ever.

When one of these fails, code that decides has changed: lifetimes that exist would go on otherwise than they began.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.histories.form import FOLDER, History, read, write
from tests.histories.record import ALL, record
from tickwork.model.contract import entry_from_json, execution_json
from tickwork.model.records import Event, EventType, Execution, Status, decode_entry, encode_entry
from tickwork.orchestrator.replay import replay

FILES = sorted(FOLDER.glob("*.jsonl"))
WHOLE = 500 * 1024

ADDED = [None, False]
"""`prices` and `unpriced`, the fields that Telemetry has had since these were recorded."""

SHORTER = {"condition_on_everything"}
"""Recorded with a Telemetry of six fields: they read back as they are, and are written with ADDED at its end."""


def histories() -> Iterator[History]:
    return (read(path.read_bytes()) for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_it_is_decided_as_it_was(path: Path) -> None:
    history = read(path.read_bytes())
    assert history.graph.digest == history.lifetime.graph_digest
    found = replay(history.graph, history.log, rules_of=history.rules)
    assert found.divergence is None
    assert found.entries == len(history.log) == history.lifetime.last_seq
    assert found.edges == sum(isinstance(e.entry, Execution) for e in history.log)
    assert found.ended == history.lifetime.ended


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_it_reads_back_as_it_was(path: Path) -> None:
    history = read(path.read_bytes())
    again = write(history)
    if path.stem in SHORTER:
        stored, written = ([msgspec.json.decode(line) for line in b.splitlines()] for b in (path.read_bytes(), again))
        assert stored != written
        assert stored == [_as_it_was(line) for line in written]
        assert read(again).log == history.log
    else:
        assert again == path.read_bytes()
    for digest, policies in history.policies.items():
        assert policies.digest == digest
    for logged in history.log:
        record = msgspec.json.decode(msgspec.json.encode(execution_json(logged, history.lifetime)))
        back = entry_from_json(record)
        assert (back.seq, back.at) == (logged.seq, logged.at)
        assert decode_entry(encode_entry(back.entry)) == logged.entry


def _as_it_was(line: Any) -> Any:
    """A line without what Telemetry has had since: nothing else of it may differ."""
    if isinstance(line, list) and isinstance(line[2], list) and line[2][0] == "x":
        telemetry = line[2][1 + Execution.__struct_fields__.index("telemetry")]
        if telemetry is not None:
            assert telemetry[6:] == ADDED
            del telemetry[6:]
    return line


def test_all_shapes_are_recorded_and_small() -> None:
    assert {path.stem.partition(".")[0] for path in FILES} == set(ALL)
    assert len(FILES) >= 100
    assert sum(path.stat().st_size for path in FILES) < WHOLE


def test_every_edge_join_status_event_and_end_is_among_them() -> None:
    edges: set[str] = set()
    joins: set[str] = set()
    statuses: set[str] = set()
    events: set[str] = set()
    errors: set[str] = set()
    reasons: set[str] = set()
    for history in histories():
        edges |= {edge.kind for edge in history.graph.edges}
        joins |= {edge.join.mode for edge in history.graph.edges if edge.kind == "JOIN"}
        reasons.add((history.lifetime.reason or "").partition(":")[0])
        for logged in history.log:
            if isinstance(logged.entry, Event):
                events.add(logged.entry.type)
            else:
                statuses.add(logged.entry.status)
                errors.add(logged.entry.error.type if logged.entry.error is not None else "")
    assert edges == {"NORMAL", "PARALLEL", "JOIN", "FINAL"}
    assert joins == {"all", "settled", "any", "quorum"}
    assert statuses == set(Status.__args__)
    assert events == set(EventType.__args__)
    assert {"Cancelled", "DeadlineExceeded", "InvalidChoice", "LeaseExpired", "ChildFailed", "StartToClose"} <= errors
    assert {"no_final_edge", "limit_exceeded"} <= reasons


@pytest.mark.slow
def test_the_script_makes_the_same_bytes_each_time() -> None:
    for shape in list(ALL)[::5]:
        first, again = ({name: write(made) for name, made in record(shape)} for _ in range(2))
        assert first == again, shape


def test_every_action_at_every_place_is_among_them() -> None:
    verdicts: set[tuple[str, str, str]] = set()
    ways: set[str] = set()
    for history in histories():
        for logged in history.log:
            event = logged.entry
            if not isinstance(event, Event):
                ways.add(event.error.type if event.error is not None else "")
            elif event.type == "verdict":
                verdicts.add((event.data["scope"], event.data["at"], event.data["action"]))
                ways |= {name for name in ("shadow", "error") if event.data.get(name)}
            elif event.type in ("paused", "aborted") and event.data.get("policy"):
                ways.add(event.type)
            elif event.data.get("raised"):
                ways.add("raised")
    actions = {"warn", "reject_execution", "pause_lifetime", "abort_lifetime"}
    assert {action for scope, at, action in verdicts if (scope, at) == ("execution", "record")} == actions
    assert {action for scope, at, action in verdicts if (scope, at) == ("lifetime", "dispatch")} == actions
    assert {action for scope, at, action in verdicts if (scope, at) == ("tenant", "dispatch")} == actions
    assert {action for scope, at, action in verdicts if (scope, at) == ("lifetime", "record")} >= actions - {
        "reject_execution"
    }
    assert {"shadow", "error", "paused", "aborted", "raised", "Rejected"} <= ways
