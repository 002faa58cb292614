"""Bugs of ends, pauses and aborts, and of what the core owes to a log that does not show it yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec

from tests.simulation.planted.bug import plant, swapped
from tickwork.model.records import Event
from tickwork.orchestrator import control_plane, fold, forking, performing, projection, router, visits
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.state import CancelRunning, LifetimeState, Record


@plant("a lifetime ends without records of what it gave up", "I7", calm=True, slow=0.5)
def end_without_cancelled() -> Iterator[None]:
    real = router._cancelled

    def cancelled(state: LifetimeState, doomed: Any, reason: str) -> tuple[Any, ...]:
        return () if len(doomed) == len(state.open) else real(state, doomed, reason)

    with swapped(router, "_cancelled", cancelled):
        yield


@plant("a FINAL edge ends the lifetime and leaves its other branches running", "I7", calm=True, slow=0.5)
def final_leaves_branches() -> Iterator[None]:
    real = router.finish

    def finish(state: LifetimeState, status: Any, reason: Any, out: Any, **told: Any) -> None:
        opened = dict(state.open) if status == "COMPLETED" else {}
        if opened:
            state.open.clear()
        real(state, status, reason, out, **told)
        state.open.update(opened)

    with swapped(router, "finish", finish):
        yield


@plant("an abort is recorded, and nobody tells the workers", "I7", calm=True, slow=0.5, actions=0.5, lifetimes=4)
def abort_leaves_work_running() -> Iterator[None]:
    real = router.finish

    def finish(state: LifetimeState, status: Any, reason: Any, out: list[Any], **told: Any) -> None:
        real(state, status, reason, out, **told)
        out[:] = [command for command in out if not isinstance(command, CancelRunning)]

    with swapped(router, "finish", finish):
        yield


@plant("an end has no id of its cause, so that it may be recorded twice", "I11", "process.kill", "store.stall")
def end_without_id() -> Iterator[None]:
    real = visits.record
    count = itertools.count()

    def record(state: LifetimeState, entries: tuple[Any, ...], out: list[Any]) -> None:
        named = [
            msgspec.structs.replace(e, id=f"end:{next(count)}") if isinstance(e, Event) and e.id == "end" else e
            for e in entries
        ]
        real(state, tuple(named), out)

    with swapped(visits, "record", record):
        yield


@plant("a pause is recorded, and visits go out all the same", "I15", calm=True, actions=0.5, slow=0.5)
def pause_stops_nothing() -> Iterator[None]:
    real = visits.send

    def send(state: LifetimeState, opened: Any, out: list[Any]) -> None:
        paused, state.paused = state.paused, False
        real(state, opened, out)
        state.paused = paused

    with swapped(visits, "send", send):
        yield


@plant("a resume forgets the visits that became ready during the pause", "I9", calm=True, actions=0.5, slow=0.5)
def resume_loses_visits() -> Iterator[None]:
    real = fold._resume

    def resume(state: LifetimeState, out: list[Any]) -> None:
        for visit in [v for v in state.open.values() if v.phase == "ready"]:
            del state.open[visit.exec_id]
        real(state, out)

    with swapped(fold, "_resume", resume):
        yield


@plant("what was decided and is not in the log is forgotten when a state is rebuilt", "I9", "bus.drop", "process.kill")
def pending_forgotten() -> Iterator[None]:
    real = fold.outstanding

    def outstanding(state: LifetimeState, *gone: Any) -> list[Any]:
        return [command for command in real(state, *gone) if not isinstance(command, Record)]

    with ExitStack() as stack:
        stack.enter_context(swapped(control_plane, "outstanding", outstanding))
        yield


@plant("a lifetime that is taken up is rebuilt, and nothing is sent again", "I9", "process.kill", "bus.drop")
def nothing_sent_again() -> Iterator[None]:
    real = fold.outstanding

    def outstanding(state: LifetimeState, *gone: Any) -> list[Any]:
        return [command for command in real(state, *gone) if isinstance(command, Record)]

    with swapped(control_plane, "outstanding", outstanding):
        yield


@plant("an entry that wakes a lifetime does not mark its row RUNNING", "I11", "process.kill", "bus.drop")
def waking_not_marked() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(swapped(projection, "wakes", lambda _: False))
        stack.enter_context(swapped(performing, "wakes", lambda _: False))
        yield


@plant("an `unknown` call counts as lost, and is made again", "I3", "process.kill", "process.code", slow=0.5)
def unknown_taken_for_lost() -> Iterator[None]:
    real = performing.Performer.give_up

    def give_up(self: Any, state: LifetimeState, lost: Any, why: str) -> None:
        real(self, state, [msgspec.structs.replace(visit, intent=False) for visit in lost], why)

    with swapped(performing.Performer, "give_up", give_up):
        yield


@plant(
    "a first reference that comes again starts its lifetime anew",
    "I6",
    "bus.double",
    processes=1,
    lifetimes=4,
    phase=300.0,
)
def folded_anew() -> Iterator[None]:
    async def was_here(_self: Any, _reference: Any) -> bool:
        return False

    with swapped(ControlPlane, "_was_here", was_here):
        yield


@plant("a fork goes on under the ids of its parent", "I6", calm=True, forking=0.3, slow=0.5, actions=0.5)
def fork_keeps_ids() -> Iterator[None]:
    def rekey(state: LifetimeState, event: Event, elapsed: int) -> None:
        state.paused, state.status, state.parent = False, "RUNNING", None
        for visit in state.open.values():
            visit.asked = visit.intent = False
            if visit.phase == "sent":
                visit.phase = "ready"

    with swapped(forking, "rekey", rekey):
        yield


@plant("a fork shares the history of its parent with times of its own", "I19", calm=True, forking=0.3, actions=0.5)
def fork_with_new_times() -> Iterator[None]:
    from tickwork import history

    real = history.forked_log

    def forked_log(log: Any, seq: int, **rest: Any) -> Any:
        entries = real(log, seq, **rest)
        return [msgspec.structs.replace(entry, at=entries[-1].at) for entry in entries]

    with swapped(history, "forked_log", forked_log):
        yield
