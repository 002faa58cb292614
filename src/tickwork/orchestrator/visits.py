"""Visits of nodes: how one is opened, sent out, timed, and recorded when no executor makes its record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.model import ids
from tickwork.model.records import Error, Event, Execution, Payload, intent, json_payload
from tickwork.model.spending import OURS
from tickwork.orchestrator.guardrails.judging import strictest
from tickwork.orchestrator.state import (
    MAX_BUFFERED_SIGNALS,
    MAX_LOSSES,
    Command,
    Dispatch,
    LifetimeState,
    Record,
    Source,
    Visit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.graph import Edge
    from tickwork.model.records import Status
    from tickwork.orchestrator.guardrails.judging import Verdict

REJECTED = "Rejected"
"""The error type of an attempt whose result, or whose dispatch, a policy did not let pass."""


def open_visit(
    state: LifetimeState,
    branch: str,
    edge: Edge,
    source: Source,
    parents: tuple[str, ...],
    before: tuple[int, ...],
    out: list[Command],
) -> None:
    """Opens the first attempt of a new visit of `edge.target` in `branch`, unless a limit of the graph forbids it."""
    counts = state.branches.get(branch)
    if counts is None:
        counts = state.branches[branch] = {}
    name = edge.target
    iteration = counts.get(name, 0)
    limits = state.topology.limits
    if iteration >= limits.visits or len(state.open) >= limits.open_visits or state.seq >= limits.records:
        state.exceeded = state.exceeded or _limit(state, name, iteration)
        return
    counts[name] = iteration + 1
    exec_id = ids.exec_id(state.lineage, branch, name, iteration, 1)
    opened = Visit(exec_id, name, branch, iteration, 1, parents, str(edge), state.at, source, before)
    state.open[exec_id] = opened
    prepare_wait(state, opened)
    send(state, opened, out)


def _limit(state: LifetimeState, name: str, iteration: int) -> str:
    """Which limit of the graph does not let `name` be visited now, in words."""
    limits = state.topology.limits
    if iteration >= limits.visits:
        return f"`{name}` was visited {iteration:,} times in one branch (limits.visits)"
    if len(state.open) >= limits.open_visits:
        return f"{len(state.open):,} visits are open at the same time (limits.open_visits)"
    return f"the log has {state.seq:,} entries (limits.records)"


def next_attempt(state: LifetimeState, failed: Visit, losses: int | None = None) -> Visit:
    """Opens the attempt after `failed` of the same visit; the caller says when it goes out."""
    attempt = failed.attempt + 1
    exec_id = ids.exec_id(state.lineage, failed.branch, failed.node, failed.iteration, attempt)
    opened = Visit(
        exec_id, failed.node, failed.branch, failed.iteration, attempt, failed.parents, failed.edge_taken, state.at,
        failed.input, failed.before, losses=failed.losses if losses is None else losses,
    )  # fmt: skip
    state.open[exec_id] = opened
    prepare_wait(state, opened)
    return opened


def prepare_wait(state: LifetimeState, opened: Visit) -> None:
    """Gives the visit of a human, signal or timer node its phase and its deadline."""
    node = state.topology.nodes[opened.node]
    seconds: float | None = None
    if node.timer is not None:
        opened.phase, seconds = "timer", node.timer.seconds
    elif node.human is not None:
        opened.phase, seconds = "waiting", node.human.deadline
    elif node.signal is not None:
        opened.phase, seconds = "waiting", node.signal.deadline
    if seconds is not None:
        opened.due = state.at + round(seconds * 1e6)
        opened.timer_id = f"{'timer' if opened.phase == 'timer' else 'deadline'}:{opened.exec_id}"
        state.timers[opened.timer_id] = opened.exec_id


def send(state: LifetimeState, opened: Visit, out: list[Command]) -> None:
    """Hands a visit to whoever does it, unless the lifetime is paused or ending, or a policy forbids it."""
    if state.ending is not None or state.doomed is not None or state.paused:
        return
    if opened.phase == "timer":
        if opened.due is not None:
            set_timer(state, opened, "timer", opened.due, out)
        return
    if opened.phase == "waiting" and not opened.asked:
        node = state.topology.nodes[opened.node]
        queue = state.signals.get(node.signal.name) if node.signal is not None else None
        if queue:
            record_own(state, opened, "SUCCEEDED", queue.pop(0), out)
            return
    elif opened.phase == "ready":
        if not _admitted(state, opened, out):
            return
        opened.phase, opened.begun = "sent", True
    out.append(Dispatch(opened))


def close_visit(state: LifetimeState, exec_id: str) -> Visit | None:
    """Takes a visit out of the state; what it had reserved is given back. None when it is not open."""
    closed = state.open.pop(exec_id, None)
    if closed is not None and closed.reserved and state.guard is not None:
        closed.reserved = False
        state.guard.give_back(closed.node)
    return closed


def release(state: LifetimeState, opened: Visit) -> None:
    """Gives back what a visit has reserved."""
    opened.reserved = False
    if state.guard is not None:
        state.guard.give_back(opened.node)


# -- what policies say to it ------------------------------------------------------------------------------------------


def _admitted(state: LifetimeState, opened: Visit, out: list[Command]) -> bool:
    """Asks the policies whether this may be sent out, and reserves what it may use; or does what they want instead."""
    guard = state.guard
    if guard is None or opened.reserved:
        return True
    if guard.let_pass(opened.node, opened.iteration, state.at):
        opened.reserved = True
        return True
    found = guard.dispatched(
        opened.exec_id, opened.node, opened.iteration, state.at, lambda: {"lifetime": state.facts()}
    )
    breach = None
    if found:
        breach = strictest(found)
        tell(state, found, out)
    if breach is None:
        opened.reserved = True
        guard.reserve(opened.node)
        return True
    refuse(state, opened, breach.action, breach.rule.label, breach.sentence, out)
    return False


def tell(state: LifetimeState, found: Sequence[Verdict], out: list[Command], number: int | None = None) -> None:
    """Has verdicts recorded. `number` keeps those apart that are about the same; None: how often it was resumed."""
    if found and state.guard is not None:
        digest, number = state.guard.digest, state.resumes if number is None else number
        record(state, tuple([verdict.event(digest, number) for verdict in found]), out)


def refuse(state: LifetimeState, opened: Visit, action: str, policy: str, why: str, out: list[Command]) -> None:
    """A dispatch that a policy does not let pass: it is held, or counts as a failed attempt, or ends everything."""
    if action == "pause_lifetime":
        pause(state, policy, opened.exec_id, why, out)
    elif action == "abort_lifetime":
        state.doomed = state.doomed or (policy, why)
    else:
        error = Error(REJECTED, why, retryable=True)
        record_own(state, opened, "FAILED", None, out, error)


def pause(state: LifetimeState, policy: str, exec_id: str, why: str, out: list[Command]) -> None:
    """A policy pauses the lifetime over an execution or a dispatch; it is paused from now on."""
    if state.paused:
        return
    state.paused, state.pause_reason = True, why
    entry_id = f"paused:{policy}:{exec_id}:{state.resumes}"
    record(state, (Event(entry_id, "paused", {"reason": why, "policy": policy}),), out)


def lose(state: LifetimeState, lost: Visit, out: list[Command]) -> None:
    """An attempt was lost with its worker: the next one goes out, or waits for somebody who looks at why they die."""
    again = next_attempt(state, lost, lost.losses + 1)
    if again.losses >= MAX_LOSSES:
        again.phase, again.trouble = "waiting", "poison"
    send(state, again, out)


def reconcile(state: LifetimeState, unknown: Visit, action: str, out: list[Command]) -> None:
    """What is done about a visit in trouble: `retry` it, or `ask` a person."""
    if action == "retry" and unknown.trouble == "poison":
        unknown.phase, unknown.trouble, unknown.asked, unknown.losses = "ready", "", False, 0
        send(state, unknown, out)
    elif action == "retry":
        close_visit(state, unknown.exec_id)
        if unknown.trouble:
            send(state, next_attempt(state, unknown), out)
        else:
            lose(state, unknown, out)  # by its hook, so nobody has looked: it may be what ends its workers
    elif unknown.phase == "reconciling":
        unknown.phase, unknown.trouble, unknown.asked = "waiting", "unknown", False
        send(state, unknown, out)


def revoked(state: LifetimeState, opened: Visit) -> tuple[Event, ...]:
    """For an `at_most_once` visit that is given up: its intent, taken by nobody, so that no worker can have it."""
    if opened.intent or state.topology.nodes[opened.node].effect != "at_most_once":
        return ()
    return (intent(opened.exec_id, ""),)


def set_timer(state: LifetimeState, opened: Visit, purpose: str, due: int, out: list[Command]) -> None:
    """Has a durable timer recorded that wakes this visit at `due` (us)."""
    timer_id = f"{purpose}:{opened.exec_id}"
    opened.timer_id, opened.due = timer_id, due
    state.timers[timer_id] = opened.exec_id
    data = {"timer_id": timer_id, "due": due, "purpose": purpose, "exec_id": opened.exec_id}
    record(state, (Event(f"{timer_id}:set", "timer_set", data),), out)


def record(state: LifetimeState, entries: tuple[Execution | Event, ...], out: list[Command]) -> None:
    """Has entries added to the log, and remembers them until the log shows them."""
    for entry in entries:
        state.pending[entry.entry_id] = entry
    out.append(Record(entries))


def record_own(
    state: LifetimeState,
    opened: Visit,
    status: Status,
    result: Payload | None,
    out: list[Command],
    error: Error | None = None,
) -> None:
    """Has the execution recorded that ends this visit without an executor (`result` None: its input is handed on)."""
    record(state, (own_execution(state, opened, status, result, error),), out)


def own_execution(
    state: LifetimeState,
    opened: Visit,
    status: Status,
    result: Payload | None,
    error: Error | None = None,
    executor: str = OURS,
) -> Execution:
    """The record of a visit that no executor ran."""
    started_at = 0 if status == "CANCELLED" else opened.created_at
    return Execution(
        opened.exec_id, state.topology.nodes[opened.node].kind, opened.node, opened.branch, opened.iteration,
        opened.attempt, opened.parents, opened.edge_taken, opened.created_at, started_at, state.at, status, executor,
        result, error,
    )  # fmt: skip


def deadline(state: LifetimeState, opened: Visit, out: list[Command]) -> None:
    """The deadline of a human's or a signal's wait: the default answer, or a failure."""
    node = state.topology.nodes[opened.node]
    if node.human is not None:
        default, seconds, what = node.human.default, node.human.deadline, "nobody answered"
    elif node.signal is not None:
        default, seconds, what = node.signal.default, node.signal.deadline, f"no signal `{node.signal.name}` came"
    else:
        return
    if default is not msgspec.UNSET:
        record_own(state, opened, "SUCCEEDED", json_payload(default), out)
        return
    error = Error("DeadlineExceeded", f"{what} within {seconds:g} s", retryable=False)
    record_own(state, opened, "TIMED_OUT", None, out, error)


def signal(state: LifetimeState, name: str, payload: Payload | None, by: str, out: list[Command]) -> None:
    """Gives a signal to the visit that waits for it longest, or keeps it for the next one."""
    for opened in state.open.values():
        node = state.topology.nodes[opened.node]
        if opened.phase == "waiting" and node.signal is not None and node.signal.name == name:
            if opened.exec_id in state.pending:
                continue  # it has its signal or met its deadline already; the log does not show it yet
            done = own_execution(state, opened, "SUCCEEDED", payload, None, f"signal:{by}" if by else "signal")
            record(state, (done,), out)
            return
    queue = state.signals.setdefault(name, [])
    if len(queue) < MAX_BUFFERED_SIGNALS:
        queue.append(payload if payload is not None else json_payload(None))
