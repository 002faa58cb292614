"""The event loop of a simulation: virtual time that jumps, and a seeded choice of what runs next.

Every callback belongs to a *place* (a simulated process, the network, the people outside), known by a context
variable that tasks and futures hand on by themselves. The loop picks a place at random and runs the next callback of
that place: in the order in which they were scheduled, as asyncio promises within a process, or (`shuffled`) any of
them, which is more than any real loop does and finds what silently leans on that order.

A place that is frozen keeps its callbacks while time goes on. One that is dead keeps them for ever: nothing in it runs
any more, no `finally` and no `except`, as after a SIGKILL. They are let go at the very end, with all ports cut, so
that no coroutine is destroyed half-way.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from tickwork.testing.simulation.dice import Dice

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OWNER: contextvars.ContextVar[Place] = contextvars.ContextVar("simulated place")
"""Whose callback runs."""


class Stuck(Exception):
    """The simulation runs on and on, or nothing will ever happen in it."""


class Place:
    """Where code runs: a queue of callbacks that share one fate. `host` is whatever its code has to find."""

    __slots__ = ("context", "halted", "host", "name", "queue")

    def __init__(self, name: str, host: Any = None) -> None:
        self.name, self.host = name, host
        self.queue: list[asyncio.Handle] = []
        self.halted = False
        """Frozen or dead: what is queued stays queued."""
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)


class SimulatedLoop(asyncio.BaseEventLoop):
    """One thread, no files, no real time."""

    _stopping: bool
    """Of the superclass: somebody has called `stop`."""

    def __init__(self, dice: Dice, *, shuffled: bool = False, most_callbacks: int = 1_000_000) -> None:
        super().__init__()
        self.steps = 0
        """Callbacks run so far."""
        self._dice, self._shuffled, self._most = dice, shuffled, most_callbacks
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Place]] = []
        self._timer_count = 0
        self._active: list[Place] = []
        """Places with something to run that are not halted."""
        self._places: list[Place] = []
        self.outside = self.place("world")

    def place(self, name: str, host: Any = None) -> Place:
        """A new place."""
        made = Place(name, host)
        self._places.append(made)
        return made

    def halt(self, place: Place) -> None:
        """Nothing of this place runs until `go_on`."""
        place.halted = True
        if place in self._active:
            self._active.remove(place)

    def go_on(self, place: Place) -> None:
        """What was held back runs."""
        place.halted = False
        if place.queue and place not in self._active:
            self._active.append(place)

    def release(self) -> None:
        """The end: every place runs again, so that what is pending can be taken down in order."""
        self._most += self.steps
        for place in self._places:
            self.go_on(place)

    def spawn(self, place: Place, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine as a task of this place."""
        return self.create_task(work, context=place.context.copy())

    # -- what asyncio asks of a loop

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Queues a callback at the place that its context belongs to."""
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(context.get(OWNER, self.outside), handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Queues a callback once `delay` virtual seconds have passed."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Queues a callback at a virtual time."""
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, handle, context.get(OWNER, self.outside)))
        return handle

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> NoReturn:
        """There are no threads here."""
        raise RuntimeError("a simulation has no threads: something asked for one")

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> NoReturn:
        """There are no threads here."""
        raise RuntimeError("a simulation has no threads: something called from one")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    def _process_events(self, event_list: list[Any]) -> None:
        """No files are watched."""

    def _run_once(self) -> None:
        """Runs callbacks until the loop is told to stop."""
        active, draw, shuffled = self._active, self._dice.random, self._shuffled
        while not self._stopping:
            if not active:
                self._pass_time()
                continue
            place = active[int(draw() * len(active))] if len(active) > 1 else active[0]
            queue = place.queue
            handle = queue.pop(int(draw() * len(queue)) if shuffled and len(queue) > 1 else 0)
            if not queue:
                active.remove(place)
            if handle.cancelled():
                continue
            self.steps += 1
            if self.steps > self._most:
                raise Stuck(f"{self.steps} callbacks have run and there is no end: something goes round in circles")
            handle._run()  # noqa: SLF001 - a loop is what runs handles

    def _pass_time(self) -> None:
        """Moves on to the next timer, and to all that are due with it."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing will ever happen: no callback is queued and no timer is set")
        now = self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= now:
            _, _, handle, place = heapq.heappop(timers)
            if not handle.cancelled():
                self._enqueue(place, handle)

    def _enqueue(self, place: Place, handle: asyncio.Handle) -> None:
        place.queue.append(handle)
        if not place.halted and len(place.queue) == 1:
            self._active.append(place)
