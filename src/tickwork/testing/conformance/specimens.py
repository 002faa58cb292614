"""Lifetimes, entries and rows that the state store's suite writes; the same arguments give the same ones."""

from __future__ import annotations

from typing import Any, Literal

from tickwork.model.ids import exec_id, uuid7
from tickwork.model.lifetime import Lifetime, Projection, Question, TimerRow
from tickwork.model.messages import Append, DeadLetter, dead_letter
from tickwork.model.records import Entry, Event, Execution, Telemetry, json_payload
from tickwork.ports import StoredGraph

BEGAN = 1_700_000_000_000_000
"""When (us) the specimens were made."""


def lifetime(number: int, tenant: str = "acme", **changes: Any) -> Lifetime:
    """The lifetime of this number; a higher number was started later."""
    facts: dict[str, Any] = {
        "lifetime_id": uuid7(BEGAN // 1000 + number, number),
        "tenant_id": tenant,
        "graph_name": "hello",
        "graph_version": "1.0.0",
        "graph_digest": "d" * 64,
        "status": "PENDING",
        "created_at": BEGAN + number,
        "updated_at": BEGAN + number,
    }
    return Lifetime(**(facts | changes))


def execution(of: Lifetime, iteration: int, *, text: str = "done", extra: dict[str, Any] | None = None) -> Execution:
    """The execution of node `fetch` with this iteration, in full dress."""
    return Execution(
        exec_id=exec_id(of.lifetime_id, "", "fetch", iteration, 1),
        kind="task",
        name="fetch",
        branch="",
        iteration=iteration,
        attempt=1,
        parents=(exec_id(of.lifetime_id, "", "decide", iteration, 1),),
        edge_taken="NORMAL",
        created_at=BEGAN,
        started_at=BEGAN + 1,
        finished_at=BEGAN + 2,
        status="SUCCEEDED",
        executor="a1b2c3 python/0.1.0",
        result=json_payload({"text": text}),
        telemetry=Telemetry(10, 20, 30, 1_500, "small", {"cache": True}),
        extra=extra,
    )


def append(of: Lifetime, *entries: Entry, expect: int | None = None, **projection: Any) -> Append:
    """An Append of these entries, with a projection when one is given."""
    change = Projection(**projection) if projection else None
    return Append(of.tenant_id, of.lifetime_id, entries, change, expect)


def started(of: Lifetime) -> Append:
    """The first entries of a lifetime."""
    return append(of, Event("started", "started", {"graph": "hello@1.0.0"}), status="RUNNING")


def timer(of: Lifetime, timer_id: str, due: int) -> TimerRow:
    """A timer of the lifetime."""
    return TimerRow(of.tenant_id, of.lifetime_id, timer_id, due)


def question(
    of: Lifetime,
    execution_id: str,
    since: int = BEGAN,
    prompt: str = "Shall we?",
    on: Literal["human", "signal", "unknown", "poison"] = "human",
) -> Question:
    """An open wait of the lifetime."""
    return Question(
        tenant_id=of.tenant_id,
        lifetime_id=of.lifetime_id,
        exec_id=execution_id,
        node="approve",
        branch="",
        on=on,
        since=since,
        prompt=prompt,
        answer_schema={"type": "object", "properties": {"ok": {"type": "boolean"}}},
        deadline=since + 60_000_000,
        who=("ann", "bob"),
        graph_name="hello",
    )


def graph(
    name: str, version: str = "1.0.0", tenant: str = "acme", digest: str = "", source: str = "a.yaml"
) -> StoredGraph:
    """A registered graph."""
    digest = digest or f"{name}-{version}"
    return StoredGraph(tenant, name, version, digest, b'{"name":"x"}', source, BEGAN)


def letter(number: int, tenant: str = "acme", reason: str = "it cannot be decoded", value: bytes = b"") -> DeadLetter:
    """The dead letter of this number, buried a microsecond after the one before."""
    headers = {"traceparent": "00-ab"} if number else None
    value = value or b"\xc1\x00 %d" % number
    return dead_letter(f"data-plane.{tenant}", f"key-{number}", value, reason, BEGAN + number, headers)
