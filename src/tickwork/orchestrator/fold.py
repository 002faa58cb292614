"""The decision core: `fold(state, log entry) -> commands`.

Pure in the sense that matters: no clock, no randomness, no IO, no logger. The same log gives the same states and the
same commands, in any process, for ever. Whatever is decided here and has to be in the log (an end, a timer, a wait)
stays in `state.pending` until the log shows it, so after a crash `outstanding` says what still has to be done.

Replay, simulation and recovery are this function over a log; routing rules are in `router`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.model.messages import REFERENCE_INLINE_LIMIT
from tickwork.model.records import Error, Event, Execution, Payload
from tickwork.orchestrator import forking, router, visits
from tickwork.orchestrator.retry import next_delay
from tickwork.orchestrator.state import (
    LEASE_EXPIRED,
    CancelRunning,
    Command,
    Dispatch,
    LifetimeState,
    Record,
    Source,
    TellParent,
    Visit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import LogEntry


class SequenceGap(ValueError):
    """The entry is not the next one of this lifetime: the caller has to read the log from `state.seq`."""


def fold(state: LifetimeState, logged: LogEntry) -> list[Command]:
    """Advances `state` by the next entry of its log and returns what has to happen because of it.

    Entries carry their payload wherever a condition of the graph reads it. Raises SequenceGap.
    """
    if logged.seq != state.seq + 1:
        raise SequenceGap(f"lifetime {state.lifetime_id}: entry {logged.seq} after {state.seq}")
    elapsed = logged.at - state.at
    state.seq, state.at = logged.seq, logged.at
    entry = logged.entry
    if state.pending:
        state.pending.pop(entry.entry_id, None)
    out: list[Command] = []
    if type(entry) is Execution:
        _on_execution(state, entry, out)
    elif isinstance(entry, Event):
        if entry.type == "forked":
            forking.rekey(state, entry, elapsed)
            out += outstanding(state)
        else:
            _on_event(state, entry, out)
    if state.exceeded is not None and state.ending is None:
        out = [command for command in out if not isinstance(command, Dispatch)]
        router.finish(state, "FAILED", f"limit_exceeded: {state.exceeded}", out)
    state.status = _status(state)
    return out


def everything(_: Visit) -> bool:
    """For `outstanding`: whoever had a visit is gone."""
    return True


def outstanding(state: LifetimeState, gone: Callable[[Visit], bool] = everything) -> list[Command]:
    """What the log demands and does not show as done, for a state that was rebuilt or has not moved for long.

    `gone`: whether a visit that was sent has to be sent again. Sending twice is harmless.
    """
    out: list[Command] = []
    if state.pending:
        entries = tuple(state.pending.values())
        given_up = tuple([_visit_of(e) for e in entries if isinstance(e, Execution) and e.status == "CANCELLED"])
        if given_up:
            out.append(CancelRunning(given_up, "the lifetime gave it up"))
        out.append(Record(entries))
    for visit in list(state.open.values()):
        if visit.phase == "sent" and gone(visit):
            visit.phase = "ready"  # while it is paused, too: who had it is gone, and the resume has to send it
        if _unsent(state, visit):
            visits.send(state, visit, out)
    return out


def _visit_of(done: Execution) -> Visit:
    """Enough of the visit that this record gives up to tell executors and children of it."""
    return Visit(
        done.exec_id, done.name, done.branch, done.iteration, done.attempt, done.parents, done.edge_taken,
        done.created_at, Source(()), (), "sent", begun=True,
    )  # fmt: skip


def _status(state: LifetimeState) -> LifetimeStatus:
    if state.ending is not None:
        # The end counts once its own entry is in the log.
        return state.status if state.pending else state.ending.status
    if state.paused:
        return "PAUSED"
    for visit in state.open.values():
        if visit.phase in ("sent", "ready", "reconciling"):
            return "RUNNING"
    return "WAITING" if state.open else "RUNNING"


def _on_execution(state: LifetimeState, done: Execution, out: list[Command]) -> None:
    state.executions += 1
    if done.telemetry is not None:
        state.tokens_used += done.telemetry.tokens_used
        state.cost_nano_usd += done.telemetry.cost_nano_usd
    visit = state.open.pop(done.exec_id, None)
    if visit is None:
        return  # cancelled or superseded meanwhile: kept in the log, goes nowhere
    if visit.timer_id is not None:
        state.timers.pop(visit.timer_id, None)
    if done.status == "SUCCEEDED":
        router.route(state, visit, done, out)
    elif done.status == "CANCELLED":
        router.settle(state, visit, done, Error("Cancelled", "the execution was cancelled", retryable=False), out)
    elif done.error is not None and done.error.type == LEASE_EXPIRED:
        visits.lose(state, visit, out)
    else:
        _retry(state, visit, done, out)


def _retry(state: LifetimeState, visit: Visit, done: Execution, out: list[Command]) -> None:
    """Opens the next attempt, now or after a timer; or lets the branch fail."""
    policy = state.topology.nodes[visit.node].retry
    delay = next_delay(policy, visit.attempt - visit.losses, done.error, visit.exec_id)
    if delay is None:
        router.settle(state, visit, done, done.error or Error(done.status, ""), out)
        return
    again = visits.next_attempt(state, visit)
    if delay > 0:
        again.phase = "backoff"
        visits.set_timer(state, again, "retry", state.at + round(delay * 1e6), out)
    else:
        visits.send(state, again, out)


def _on_event(state: LifetimeState, event: Event, out: list[Command]) -> None:
    data = event.data
    kind = event.type
    if kind == "started":
        state.lineage = data.get("lifetime_id") or state.lineage
        state.labels = data.get("labels") or {}
        parent = data.get("parent")
        state.parent = (parent[0], msgspec.convert(parent[1], Visit)) if parent else None
        given = msgspec.convert(data["input"], Payload | None)
        # A large one is read from the log when a node is given it; a state holds no large payloads.
        state.lifetime_input = given if given is None or given.size <= REFERENCE_INLINE_LIMIT else None
        router.enter(state, out)
    elif kind in ("waiting", "timer_set"):
        visit = state.open.get(data["exec_id"])
        if visit is not None:
            visit.asked = True
    elif kind == "timer_fired":
        _on_timer(state, data["timer_id"], out)
    elif kind == "signalled":
        visits.signal(state, data["name"], msgspec.convert(data["payload"], Payload | None), data.get("by", ""), out)
    elif kind == "paused":
        state.paused, state.pause_reason = True, data.get("reason") or None
    elif kind == "resumed":
        _resume(state, out)
    elif kind == "abort_requested":
        if state.ending is None:
            by, reason = data.get("by"), data.get("reason") or "aborted"
            router.finish(
                state, "ABORTED", f"{reason} (by {by})" if by else reason, out, told={"reason": reason, "by": by}
            )
    elif kind in ("intent", "unknown", "reconciled"):
        _on_trouble(state, event, out)
    elif kind in ("completed", "failed", "aborted"):
        _ended(state, event, out)


def _on_trouble(state: LifetimeState, event: Event, out: list[Command]) -> None:
    """An `at_most_once` call is about to be made; nobody knows what came of it; somebody says what to do about it."""
    visit = state.open.get(event.data["exec_id"])
    if visit is None or visit.exec_id in state.pending:
        return
    if event.type == "intent":
        visit.intent = bool(event.data["worker"])
    elif event.type == "unknown" and visit.phase in ("sent", "ready"):  # ready: rechecked during a pause
        visit.phase = "reconciling"
        visits.send(state, visit, out)
    elif event.type == "reconciled" and (visit.trouble or visit.phase == "reconciling"):
        visits.reconcile(state, visit, event.data["action"], out)


def _ended(state: LifetimeState, event: Event, out: list[Command]) -> None:
    if state.parent is not None and state.ending is not None:
        source = event.data.get("source")
        found = Source(tuple(source[0]), source[1], source[2]) if source else None
        out.append(TellParent(state.parent, state.ending.status, state.ending.reason, found))


def _resume(state: LifetimeState, out: list[Command]) -> None:
    state.paused = False
    for visit in list(state.open.values()):
        if _unsent(state, visit):
            visits.send(state, visit, out)


def _unsent(state: LifetimeState, visit: Visit) -> bool:
    if visit.exec_id in state.pending or f"{visit.timer_id}:set" in state.pending:
        return False  # its record or its timer is decided, only the log does not show it yet
    return visit.phase in ("ready", "reconciling") or (visit.phase in ("waiting", "timer") and not visit.asked)


def _on_timer(state: LifetimeState, timer_id: str, out: list[Command]) -> None:
    exec_id = state.timers.pop(timer_id, None)
    visit = state.open.get(exec_id) if exec_id is not None else None
    if visit is None or state.ending is not None or visit.exec_id in state.pending:
        return  # what it was set for is over
    visit.timer_id = None
    if visit.phase == "backoff":
        visit.phase, visit.due, visit.asked = "ready", None, False
        visits.send(state, visit, out)
    elif visit.phase == "timer":
        visits.record_own(state, visit, "SUCCEEDED", None, out)
    elif visit.phase == "waiting":
        visits.deadline(state, visit, out)
