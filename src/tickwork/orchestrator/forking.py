"""Fork: a new lifetime that begins with the history of another one, up to any of its executions. Pure.

The entries up to there are shared as they are, times included; then `forked` says from whom and into whom. Exec ids
derive from a lifetime, so those of the shared entries still derive from the one that made them: `started` says which,
each `forked` names the next one, and so a fork of a fork needs no look ahead and shares its bytes all the same.

What is open at the fork belongs to the new lifetime from then on, under ids of its own: what was in flight is sent out
again, what waits is asked again, timers keep the time that was left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model import ids
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator import visits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.records import Entry, Next, Payload
    from tickwork.orchestrator.state import LifetimeState, Visit


class Replacement(msgspec.Struct):
    """What an execution has to have come to in the fork: a result, and for a Plan what it chose."""

    result: Payload | None
    next: tuple[Next, ...] | None = None
    reason: str | None = None


def forked_log(
    log: Sequence[LogEntry],
    seq: int,
    *,
    parent_id: str,
    fork_id: str,
    now: int,
    by: str = "",
    labels: dict[str, str] | None = None,
    replacement: Replacement | None = None,
) -> list[LogEntry]:
    """The entries that a fork of `parent_id` at its execution number `seq` begins with.

    Without a replacement the execution is the last one that is shared. With one, what is shared ends before it, and it
    stands after `forked` with its other result, under the exec id that it has in the fork. `now` in us.
    """
    done = log[seq - 1].entry
    if not isinstance(done, Execution):
        raise TypeError(f"entry {seq} is a `{done.type}` event; a lifetime is forked at an execution")
    entries = list(log[: seq if replacement is None else seq - 1])
    at = max(now, entries[-1].at)
    data: dict[str, Any] = {
        "lifetime_id": parent_id,
        "into": fork_id,
        "seq": len(entries),
        "exec_id": done.exec_id,
        "replaced": replacement is not None,
    }
    if by:
        data["by"] = by
    if labels:
        data["labels"] = labels
    entries.append(LogEntry(len(entries) + 1, at, Event(f"forked:{fork_id}", "forked", data)))
    if replacement is not None:
        entries.append(LogEntry(len(entries) + 1, at, _replaced(done, fork_id, at, by, replacement)))
    return entries


def _replaced(done: Execution, fork_id: str, at: int, by: str, replacement: Replacement) -> Execution:
    """The execution as it is in the fork. It used nothing: somebody said what came of it."""
    exec_id = ids.exec_id(fork_id, done.branch, done.name, done.iteration, done.attempt)
    return Execution(
        exec_id, done.kind, done.name, done.branch, done.iteration, done.attempt, done.parents, done.edge_taken, at, at,
        at, "SUCCEEDED", f"fork:{by}" if by else "fork", replacement.result, None, None, replacement.next,
        replacement.reason,
    )  # fmt: skip


def rekey(state: LifetimeState, event: Event, elapsed: int) -> None:
    """Makes what is open and what is pending the fork's own. `elapsed`: us since the last shared entry."""
    state.lineage = event.data["into"]
    state.labels = event.data.get("labels") or {}
    state.parent = None  # only the lifetime that a parent started answers to it
    state.paused, state.pause_reason, state.status = False, None, "RUNNING"
    # A fork is a life of its own: it has what was spent, but neither the time, nor what somebody raised for the other.
    state.started_at, state.raised, state.held = state.at, {}, []
    # What is judged again may have been judged in the shared entries, under the number of resumes that there were.
    state.resumes = state.seq
    opened, pending = list(state.open.values()), list(state.pending.values())
    state.open, state.pending, state.timers = {}, {}, {}
    for visit in opened:
        _reopen(state, visit, elapsed)
    for entry in pending:
        again = _decided_again(state, entry)
        if again is not None:
            state.pending[again.entry_id] = again


def _reopen(state: LifetimeState, visit: Visit, elapsed: int) -> None:
    """The same visit in the fork, to be handed out once more."""
    visit.exec_id = _exec_id(state, visit.branch, visit.node, visit.iteration, visit.attempt)
    visit.created_at = state.at
    visit.asked = visit.intent = visit.reserved = False
    state.open[visit.exec_id] = visit
    if visit.phase == "reconciling":
        # The hook would be asked about an id that the outside world never saw.
        visit.phase, visit.trouble = "waiting", "unknown"
    elif visit.phase == "sent":
        visit.phase, visit.begun = "ready", False
    if visit.timer_id is None or visit.due is None:
        return
    visit.due += elapsed
    purpose = visit.timer_id.partition(":")[0]
    if visit.phase == "backoff":
        visits.set_timer(state, visit, purpose, visit.due, [])
    else:
        visit.timer_id = f"{purpose}:{visit.exec_id}"
        state.timers[visit.timer_id] = visit.exec_id


def _decided_again(state: LifetimeState, entry: Entry) -> Entry | None:
    """What was decided before the fork and not recorded yet, as the fork has to record it; None: it need not."""
    if isinstance(entry, Event):
        # Timers are set anew, records judged anew; and no worker was ever given a visit that the fork gives up.
        return None if entry.type in ("timer_set", "intent", "verdict", "paused") else entry
    exec_id = _exec_id(state, entry.branch, entry.name, entry.iteration, entry.attempt)
    started_at = state.at if entry.started_at else 0
    return msgspec.structs.replace(
        entry, exec_id=exec_id, created_at=state.at, started_at=started_at, finished_at=state.at
    )


def _exec_id(state: LifetimeState, branch: str, node: str, iteration: int, attempt: int) -> str:
    return ids.exec_id(state.lineage, branch, node, iteration, attempt)
