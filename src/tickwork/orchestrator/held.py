"""The folded states that a Control Plane has in memory: of lifetimes that move, and of some that wait.

One that waits is dropped when memory is wanted, the one that waits longest first. Of one that should move it is known
since when it has not, and since when nobody has looked at it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwork.orchestrator.state import LifetimeState
    from tickwork.ports import Clock

IDLE_STATES = 1_000
"""Folded states of lifetimes that wait or are paused that are kept in memory; the longest idle one goes first."""

LEFT = 10_000
"""Lifetimes that left the memory whose ids are remembered: a first reference to one of them is no new lifetime."""


class HeldStates:
    """States by lifetime id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.moving: dict[str, LifetimeState] = {}
        self.idle: OrderedDict[str, LifetimeState] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._moved: dict[str, float] = {}
        """When each lifetime that should move did so last, on the monotonic clock, the longest ago first."""
        self._checked: dict[str, float] = {}
        """Since when such a lifetime was not rechecked, likewise."""

    def __contains__(self, lifetime_id: str) -> bool:
        return lifetime_id in self.moving or lifetime_id in self.idle

    def get(self, lifetime_id: str) -> LifetimeState | None:
        """The state, moving or idle."""
        return self.moving.get(lifetime_id) or self.idle.get(lifetime_id)

    def take(self, lifetime_id: str) -> LifetimeState | None:
        """The state, to be filed again: an idle one is not in memory meanwhile."""
        return self.moving.get(lifetime_id) or self.idle.pop(lifetime_id, None)

    def has_left(self, lifetime_id: str) -> bool:
        """Whether it was here not long ago."""
        return lifetime_id in self._left

    def file(self, state: LifetimeState, *, moved: bool) -> None:
        """Keeps the state where it belongs now. `moved`: something has happened to it just now."""
        lifetime_id = state.lifetime_id
        if state.status == "RUNNING":
            self.idle.pop(lifetime_id, None)
            self.moving[lifetime_id] = state
            self._watch(lifetime_id, moved=moved)
            return
        self.moving.pop(lifetime_id, None)
        if state.ending is None or state.pending:
            self.idle[lifetime_id] = state
            if _demands(state):
                self._watch(lifetime_id, moved=moved)
            else:
                self._unwatch(lifetime_id)
            if len(self.idle) > IDLE_STATES:
                self._leave(self.idle.popitem(last=False)[0])
        else:
            self.idle.pop(lifetime_id, None)
            self._leave(lifetime_id)

    def drop(self, lifetime_id: str) -> None:
        """Forgets the state, not that it was here."""
        self.moving.pop(lifetime_id, None)
        self.idle.pop(lifetime_id, None)
        self._leave(lifetime_id)

    def looked_at(self, lifetime_id: str) -> None:
        """One that stands still was looked at just now."""
        if self._checked.pop(lifetime_id, None) is not None:
            self._checked[lifetime_id] = self._clock.monotonic()

    def still(self, seconds: float, again: float) -> list[str]:
        """Lifetimes that should move, and have not for so long; or have not been rechecked for four times as long, for
        one branch that moves all the time must not hide another that stands still. Longest first. `again`: seconds
        before one that stands still is looked at again."""
        now = self._clock.monotonic()
        still = itertools.takewhile(lambda known: now - self._moved[known] >= seconds, self._moved)
        found = [known for known in still if now - self._checked.get(known, 0.0) >= again]
        overdue = itertools.takewhile(lambda known: now - self._checked[known] >= 4 * seconds, self._checked)
        return [*found, *overdue]

    def watched(self) -> list[str]:
        """Lifetimes that should move."""
        return list(self._moved)

    def _watch(self, lifetime_id: str, *, moved: bool) -> None:
        """This lifetime should move by itself; when it has stood still for long, it is rechecked."""
        now = self._clock.monotonic()
        if moved or lifetime_id not in self._moved:
            self._moved.pop(lifetime_id, None)
            self._moved[lifetime_id] = now
        self._checked.setdefault(lifetime_id, now)

    def _unwatch(self, lifetime_id: str) -> None:
        self._moved.pop(lifetime_id, None)
        self._checked.pop(lifetime_id, None)

    def _leave(self, lifetime_id: str) -> None:
        self._unwatch(lifetime_id)
        self._left[lifetime_id] = None
        if len(self._left) > LEFT:
            self._left.popitem(last=False)


def _demands(state: LifetimeState) -> bool:
    """Whether a lifetime that waits or is paused has something on its way that may get lost."""
    if state.pending:
        return True
    return any(v.phase == "sent" or (v.phase in ("waiting", "timer") and not v.asked) for v in state.open.values())
