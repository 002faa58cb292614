"""The read model's changes that go with log entries: timers, open questions, status.

Pure; all of it can be derived from the log. The one rule that matters for safety: an entry that wakes a lifetime
marks it RUNNING in its own transaction, so that recovery, which looks for RUNNING lifetimes, finds it even when the
process dies before anybody has folded that entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tickwork.model.lifetime import Projection, Question, TimerRow
from tickwork.model.records import Event, Execution

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import Entry


WAKING: frozenset[str] = frozenset(
    {"timer_fired", "signalled", "resumed", "abort_requested", "unknown", "reconciled", "forked"}
)
"""Events after which a waiting or paused lifetime has something to do."""


def wakes(entry: Entry) -> bool:
    """Whether recovery must look at the lifetime once this entry is recorded."""
    return isinstance(entry, Execution) or entry.type in WAKING


def marked(entries: Iterable[Entry]) -> LifetimeStatus | None:
    """The status that these entries set in the read model when they were recorded; None: they left it as it was."""
    status: LifetimeStatus | None = None
    for entry in entries:
        if wakes(entry):
            status = "RUNNING"
        elif isinstance(entry, Event) and entry.type == "paused" and not entry.data.get("policy"):
            status = "PAUSED"  # a policy's may have come with entries that wake, and then these have set it
    return status


def deadline_timer(exec_id: str) -> str:
    """The id of the timer that ends a wait."""
    return f"deadline:{exec_id}"


def project(
    tenant_id: str,
    lifetime_id: str,
    entries: Iterable[Entry],
    status: LifetimeStatus | None = None,
    as_of: int | None = None,
    reason: str | None = None,
) -> Projection | None:
    """The Projection of these entries and of a new `status`; None when nothing changes.

    `as_of`: the seq of the state that `status` was computed from; None: the entries themselves set it.
    """  # fmt: skip
    timers: list[TimerRow] = []
    cleared: list[str] = []
    opened: list[Question] = []
    closed: list[str] = []
    for entry in entries:
        if status is None and wakes(entry):
            status, as_of = "RUNNING", None
        if isinstance(entry, Execution):
            closed.append(entry.exec_id)
            cleared.append(deadline_timer(entry.exec_id))
        else:
            _project_event(tenant_id, lifetime_id, entry, timers, cleared, opened, closed)
    if status is None and not (timers or cleared or opened or closed):
        return None
    return Projection(status, as_of, reason, tuple(timers), tuple(cleared), tuple(opened), tuple(closed))


def _project_event(
    tenant_id: str,
    lifetime_id: str,
    event: Event,
    timers: list[TimerRow],
    cleared: list[str],
    opened: list[Question],
    closed: list[str],
) -> None:
    data: dict[str, Any] = event.data
    if event.type == "timer_set":
        timers.append(TimerRow(tenant_id, lifetime_id, data["timer_id"], data["due"]))
    elif event.type == "timer_fired":
        cleared.append(data["timer_id"])
    elif event.type == "reconciled":
        closed.append(data["exec_id"])
    elif event.type == "waiting":
        if data.get("deadline") is not None:
            timers.append(TimerRow(tenant_id, lifetime_id, deadline_timer(data["exec_id"]), data["deadline"]))
        opened.append(
            Question(
                tenant_id=tenant_id,
                lifetime_id=lifetime_id,
                exec_id=data["exec_id"],
                node=data["node"],
                branch=data["branch"],
                on=data["on"],
                since=data["since"],
                prompt=data.get("prompt") or "",
                signal=data.get("name") or "",
                answer_schema=data.get("answer_schema"),
                deadline=data.get("deadline"),
                who=tuple(data.get("who") or ()),
                graph_name=data.get("graph") or "",
            )
        )
