"""Executions that used something, for the suites about money; the same arguments give the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.ids import exec_id
from tickwork.model.records import Event, Execution, Telemetry
from tickwork.testing.conformance.specimens import BEGAN

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime


def spent(
    of: Lifetime,
    number: int,
    *,
    tokens: int = 10,
    cost: int = 0,
    model: str | None = "small",
    custom: dict[str, Any] | None = None,
    unpriced: bool = False,
    **changes: Any,
) -> Execution:
    """An execution that waited 3 us, took 5, and used 1 token in, 2 out and `tokens` in all."""
    name = changes.get("name", "fetch")
    facts: dict[str, Any] = {
        "exec_id": exec_id(of.lifetime_id, "", name, number, 1),
        "kind": "task",
        "name": name,
        "branch": "",
        "iteration": number,
        "attempt": 1,
        "parents": (),
        "edge_taken": "NORMAL",
        "created_at": BEGAN,
        "started_at": BEGAN + 3,
        "finished_at": BEGAN + 8,
        "status": "SUCCEEDED",
        "executor": "a1b2c3 python/0.1.0",
        "telemetry": Telemetry(1, 2, tokens, cost, model, custom, unpriced=unpriced),
    }
    return Execution(**(facts | changes))


def superseded(late: Execution, named: str) -> Event:
    """The event that keeps a late execution."""
    plain = msgspec.to_builtins(late, builtin_types=(bytes,))
    return Event(f"superseded:{late.exec_id}:{named}", "superseded", {"exec_id": late.exec_id, "execution": plain})
