"""The decision core: `fold(state, log entry) -> commands`.

Pure in the sense that matters: no clock, no randomness, no IO, no logger. The same log gives the same states and the
same commands, in any process, for ever. Whatever is decided here and has to be in the log (an end, a timer, a wait)
stays in `state.pending` until the log shows it, so after a crash `outstanding` says what still has to be done.

Replay, simulation and recovery are this function over a log; routing rules are in `router`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.model.ids import ROOT_BRANCH, parent_group
from tickwork.model.messages import REFERENCE_INLINE_LIMIT
from tickwork.model.records import Error, Event, Execution, Payload
from tickwork.model.spending import LARGEST, lost
from tickwork.orchestrator import enforcing, forking, router, visits
from tickwork.orchestrator.guardrails.counters import measures_of, use_of
from tickwork.orchestrator.retry import next_delay
from tickwork.orchestrator.state import (
    CancelRunning,
    Command,
    Dispatch,
    Held,
    LifetimeState,
    Record,
    Source,
    TellParent,
    Visit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import LogEntry
    from tickwork.orchestrator.guardrails.judging import Verdict


class SequenceGap(ValueError):
    """The entry is not the next one of this lifetime: the caller has to read the log from `state.seq`."""


def fold(state: LifetimeState, logged: LogEntry) -> list[Command]:
    """Advances `state` by the next entry of its log and returns what has to happen because of it.

    Entries carry their payload wherever a condition of the graph reads it. Raises SequenceGap.
    """
    if logged.seq != state.seq + 1:
        raise SequenceGap(f"lifetime {state.lifetime_id}: entry {logged.seq} after {state.seq}")
    elapsed = logged.at - state.at
    state.seq = state.cause = logged.seq
    state.at = logged.at
    if logged.seq == 1:
        state.started_at = logged.at
    entry = logged.entry
    if state.pending:
        state.pending.pop(entry.entry_id, None)
    out: list[Command] = []
    if type(entry) is Execution:
        _on_execution(state, entry, out)
    elif isinstance(entry, Event):
        if entry.type == "forked":
            _on_fork(state, entry, elapsed, out)
        else:
            _on_event(state, entry, out)
    if state.ending is None and (state.exceeded is not None or state.doomed is not None):
        out = _doom(state, out)
    state.status = _status(state)
    return out


def _doom(state: LifetimeState, out: list[Command]) -> list[Command]:
    """A limit or a policy ends the lifetime, once all that this entry leads to is known: nothing of it is sent out."""
    for command in out:
        if isinstance(command, Dispatch) and command.visit.phase == "sent":
            command.visit.begun = False  # nobody has it, so there is nobody to stop
    # What has to be recorded goes along with the end.
    out = [command for command in out if not isinstance(command, Dispatch | Record)]
    if state.doomed is not None:
        policy, reason = state.doomed
        router.finish(state, "ABORTED", reason, out, told={"reason": reason, "policy": policy})
    else:
        router.finish(state, "FAILED", f"limit_exceeded: {state.exceeded}", out)
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


def wanted(state: LifetimeState, commands: Sequence[Command]) -> list[Command]:
    """Of what several entries asked for, one after the other, what the last of them leaves to be done.

    A dispatch that a later entry shows as refused, held back, done or given up is not made, and nothing is recorded
    that is recorded.
    """
    out: list[Command] = []
    for command in commands:
        if isinstance(command, Dispatch):
            visit = state.open.get(command.visit.exec_id)
            if visit is not None and visit.phase != "ready":
                out.append(Dispatch(visit))
        elif isinstance(command, Record):
            left = tuple([entry for entry in command.entries if entry.entry_id in state.pending])
            if left:
                out.append(Record(left))
        else:
            out.append(command)
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
        # A worker may claim anything: each number fits into a record, their sum has to as well.
        state.tokens_used = min(state.tokens_used + max(0, done.telemetry.tokens_used), LARGEST)
        state.cost_nano_usd = min(state.cost_nano_usd + max(0, done.telemetry.cost_nano_usd), LARGEST)
        state.unpriced = state.unpriced or done.telemetry.unpriced
    visit = visits.close_visit(state, done.exec_id)
    use = enforcing.count(state, done)
    if visit is None:
        return  # cancelled or superseded meanwhile: kept in the log, goes nowhere
    if visit.timer_id is not None:
        state.timers.pop(visit.timer_id, None)
    breach = enforcing.judge(state, done, use, out) if use is not None else None
    if breach is None:
        _follow(state, visit, done, out)
    else:
        _stop(state, visit, done, breach, out)


def _stop(state: LifetimeState, visit: Visit, done: Execution, breach: Verdict, out: list[Command]) -> None:
    """A policy does not let this record pass."""
    policy, why = breach.rule.label, breach.sentence
    if breach.action == "abort_lifetime":
        state.doomed = (policy, why)
    elif breach.action == "reject_execution":
        # The effect of an `at_most_once` Task was made, and is not made again.
        again = state.topology.nodes[visit.node].effect != "at_most_once"
        rejected = Error(visits.REJECTED, why, retryable=again) if done.status == "SUCCEEDED" else done.error
        _retry(state, visit, done, rejected, out)
    elif breach.failed or not breach.rule.before_dispatch:
        visits.pause(state, policy, done.exec_id, why, out)
        state.held.append(Held(visit, done, state.cause))  # somebody has to look at it before it leads anywhere
    else:
        # A budget is used up: nothing more is sent out, but what this record leads to is known, be it the end.
        paused, state.paused = state.paused, True
        _follow(state, visit, done, out)
        state.paused = paused
        if state.ending is None:
            visits.pause(state, policy, done.exec_id, why, out)


def _follow(state: LifetimeState, visit: Visit, done: Execution, out: list[Command]) -> None:
    """What an execution leads to, now that nothing stands in its way."""
    if done.status == "SUCCEEDED":
        router.route(state, visit, done, out)
    elif done.status == "CANCELLED":
        router.settle(state, visit, done, Error("Cancelled", "the execution was cancelled", retryable=False), out)
    elif lost(done):
        visits.lose(state, visit, out)
    else:
        _retry(state, visit, done, done.error, out)


def _retry(state: LifetimeState, visit: Visit, done: Execution, error: Error | None, out: list[Command]) -> None:
    """Opens the next attempt, now or after a timer; or lets the branch fail."""
    policy = state.topology.nodes[visit.node].retry
    delay = next_delay(policy, visit.attempt - visit.losses, error, visit.exec_id)
    if delay is None:
        router.settle(state, visit, done, error or Error(done.status, ""), out)
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
        if data.get("policies"):
            enforcing.install(state, data["policies"], out)
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
        if not data.get("policy"):  # that of a policy holds since it was decided, and somebody may have ended it since
            state.paused, state.pause_reason = True, data.get("reason") or None
    elif kind == "resumed":
        enforcing.resumed(state, data.get("raised") or {}, out)
        _resume(state, out)
    elif kind == "policies":
        enforcing.install(state, data["digest"], out)
    elif kind == "verdict":
        enforcing.refused(state, event, out)
    elif kind == "superseded":
        enforcing.count_superseded(state, event)
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


def _on_fork(state: LifetimeState, event: Event, elapsed: int, out: list[Command]) -> None:
    held = state.held
    forking.rekey(state, event, elapsed)
    if state.guard is not None:
        enforcing.install(state, state.guard.digest, out)
    for kept in held:  # in the fork it is judged as if it had just come
        if not _alive(state, kept):
            continue
        state.cause = kept.seq
        use = use_of(kept.done, measures_of(kept.done), ran=True)
        breach = enforcing.judge(state, kept.done, use, out, again=True)
        if breach is None:
            _follow(state, kept.visit, kept.done, out)
        else:
            _stop(state, kept.visit, kept.done, breach, out)
    state.cause = state.seq
    # What is decided and what is open by now is said once, with what is left of the other lifetime.
    out[:] = [command for command in out if not isinstance(command, Dispatch | Record)]
    out += outstanding(state)


def _alive(state: LifetimeState, kept: Held) -> bool:
    """Whether a record that was held still leads somewhere: what came before it may have ended its branch, or all."""
    branch = kept.visit.branch
    return state.ending is None and (branch == ROOT_BRANCH or parent_group(branch)[0] in state.groups)


def _resume(state: LifetimeState, out: list[Command]) -> None:
    state.paused, state.pause_reason = False, None
    held, state.held = state.held, []
    for kept in held:
        if _alive(state, kept):
            state.cause = kept.seq
            _follow(state, kept.visit, kept.done, out)
    state.cause = state.seq
    for visit in list(state.open.values()):
        if _unsent(state, visit):
            visits.send(state, visit, out)


def _unsent(state: LifetimeState, visit: Visit) -> bool:
    if visit.exec_id in state.pending or f"{visit.timer_id}:set" in state.pending:
        return False  # its record or its timer is decided, only the log does not show it yet
    return visit.phase in ("ready", "reconciling") or (visit.phase in ("waiting", "timer") and not visit.asked)


def _on_timer(state: LifetimeState, timer_id: str, out: list[Command]) -> None:
    exec_id = state.timers.pop(timer_id, None)
    if exec_id == "":
        enforcing.overdue(state, out)
        return
    visit = state.open.get(exec_id) if exec_id is not None else None
    if visit is None or state.ending is not None or visit.exec_id in state.pending:
        return  # what it was set for is over
    visit.timer_id = None
    if visit.phase == "backoff":
        visit.phase, visit.due, visit.asked = "ready", None, False
        visits.prepare_wait(state, visit)  # of one whose answer a policy has rejected
        visits.send(state, visit, out)
    elif visit.phase == "timer":
        visits.record_own(state, visit, "SUCCEEDED", None, out)
    elif visit.phase == "waiting":
        visits.deadline(state, visit, out)
