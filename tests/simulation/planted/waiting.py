"""Bugs of waits: timers, signals, answers, children."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec

from tests.simulation.planted.bug import plant, swapped
from tickwork.model.messages import Append
from tickwork.model.records import Event
from tickwork.orchestrator import performing, sweeper, visits
from tickwork.orchestrator.performing import Performer
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.state import LifetimeState
from tickwork.service import Service

PATIENT: dict[str, Any] = {"lifetimes": 4, "actions": 1.0}


@plant("timers fire some seconds before they are due", "I13", calm=True)
def timer_fires_early() -> Iterator[None]:
    from tickwork.adapters.state.sqlite.store import SqliteStore

    real = SqliteStore.due_timers

    async def due_timers(self: Any, ahead: int = 0, limit: int = 1000) -> Any:
        return await real(self, max(ahead, 500_000), limit)

    with swapped(SqliteStore, "due_timers", due_timers):
        yield


@plant("a timer's firing has no id of its cause", "I13", "store.lost_answer", "store.stall", processes=3)
def timer_fires_twice() -> Iterator[None]:
    count = itertools.count()

    def fired(timer: Any) -> Append:
        event = Event(f"fired:{next(count)}", "timer_fired", {"timer_id": timer.timer_id})
        projected = project(timer.tenant_id, timer.lifetime_id, (event,))
        return Append(timer.tenant_id, timer.lifetime_id, (event,), projected)

    with swapped(sweeper, "_fired", fired):
        yield


@plant("a signal is given to every visit that waits for it", "I1", calm=True, **PATIENT)
def signal_given_twice() -> Iterator[None]:
    real = visits.signal

    def signal(state: LifetimeState, name: str, payload: Any, by: str, out: list[Any]) -> None:
        waits = [
            v
            for v in state.open.values()
            if (node := state.topology.nodes[v.node]).signal is not None
            and node.signal.name == name
            and v.phase == "waiting"
            and v.exec_id not in state.pending
        ]
        for _ in range(max(1, len(waits))):
            real(state, name, payload, by, out)

    with swapped(visits, "signal", signal):
        yield


@plant("a signal that comes before anybody waits for it is forgotten", "I1", calm=True, **PATIENT)
def early_signal_lost() -> Iterator[None]:
    with swapped(visits, "MAX_BUFFERED_SIGNALS", 0):
        yield


@plant("a second answer to one question is accepted", "I1", calm=True, **PATIENT)
def answered_twice() -> Iterator[None]:
    real = Service._tell

    async def tell(self: Any, *args: Any, **options: Any) -> int | None:
        found = await real(self, *args, **options)
        return 0 if found is None else found

    with swapped(Service, "_tell", tell):
        yield


@plant("an answer is taken from anybody, and of any form", "I1", calm=True, **PATIENT)
def answer_not_checked() -> Iterator[None]:
    from tickwork import service

    real = Service._question

    async def question(self: Any, *args: Any) -> Any:
        return msgspec.structs.replace(await real(self, *args), who=())

    with ExitStack() as stack:
        stack.enter_context(swapped(Service, "_question", question))
        stack.enter_context(swapped(service, "check_answer", lambda *_: None))
        yield


@plant("an answer is acknowledged before it is recorded", "I1", "store.refuse", **PATIENT)
def answer_acknowledged_early() -> Iterator[None]:
    from tickwork.errors import StorageError

    real = Service._tell

    async def tell(self: Any, *args: Any, **options: Any) -> int | None:
        try:
            return await real(self, *args, **options)
        except StorageError:
            return 0

    with swapped(Service, "_tell", tell):
        yield


@plant("the deadline of a wait passes without its default", "I9", calm=True, lifetimes=4)
def deadline_forgotten() -> Iterator[None]:
    with swapped(visits, "deadline", lambda *_: None):
        yield


@plant("every time that a visit is sent it starts another child", "I6", "process.kill", "bus.rebalance", lifetimes=4)
def child_started_twice() -> Iterator[None]:
    real = performing.child_lifetime_id
    count = itertools.count()

    def child_lifetime_id(parent: str, now: int) -> str:
        return real(f"{parent}.{next(count)}", now)

    with swapped(performing, "child_lifetime_id", child_lifetime_id):
        yield


@plant("the end of a child is told once, and not again when that got lost", "I9", "bus.drop", lifetimes=4)
def child_end_not_retold() -> Iterator[None]:
    async def retell(_self: Any, _state: Any, _child: str) -> None:
        """Nothing."""

    with swapped(Performer, "_retell", retell):
        yield


@plant("a child goes on when its parent gives it up", "I7", calm=True, lifetimes=4, actions=0.5)
def child_not_aborted() -> Iterator[None]:
    real = Performer._cancel

    def cancel(self: Any, state: LifetimeState, command: Any) -> None:
        nodes = state.topology.nodes
        kept = tuple([visit for visit in command.visits if nodes[visit.node].child is None])
        real(self, state, msgspec.structs.replace(command, visits=kept))

    with swapped(Performer, "_cancel", cancel):
        yield
