"""Whether a lifetime does anything by itself: somebody who waits for it may go when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.orchestrator.control_plane import activity_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.model.lifetime import Lifetime
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.ports import StateStore

REMEMBERED = 1_000
"""Lifetimes of which it is remembered what was going on in them."""


class Settling:
    """Asks the Control Plane of this process; of lifetimes that other processes move it asks their logs."""

    def __init__(self, store: StateStore, rebuilder: Rebuilder, *, live: bool) -> None:
        """`live`: what moves at all moves in this process."""
        self._store, self._rebuilder, self._live = store, rebuilder, live
        self._elsewhere: dict[str, tuple[int, tuple[int, tuple[str, ...]]]] = {}
        """What was going on in lifetimes that other processes move, at which entry."""
        self.activity: Callable[[str], tuple[int, tuple[str, ...]]] | None = None
        """How much of a lifetime is in flight in this process, and the children that it waits for; set by the runtime
        that has a Control Plane."""

    async def settled(self, lifetime: Lifetime) -> bool:
        """Whether nothing will happen unless somebody outside acts: also not in the children that it waits for."""
        if self.activity is not None:
            moving, children = self.activity(lifetime.lifetime_id)
        elif self._live:
            moving, children = 0, ()
        else:
            moving, children = await self._activity_elsewhere(lifetime)
        if moving:
            return False
        if lifetime.status == "PAUSED":
            return True
        if lifetime.status == "WAITING" and await self._store.questions(lifetime.tenant_id, lifetime.lifetime_id, 1):
            return True
        for child_id in children:
            found = await self._store.get_lifetime(lifetime.tenant_id, child_id)
            if not found or found[0].ended or not await self.settled(found[0]):
                return False
        return bool(children)

    async def _activity_elsewhere(self, lifetime: Lifetime) -> tuple[int, tuple[str, ...]]:
        """How many visits other processes are at, and which children it waits for: only its log knows."""
        seq, found = self._elsewhere.get(lifetime.lifetime_id, (0, (1, ())))
        if seq == lifetime.last_seq:
            return found
        state, _ = await self._rebuilder.folded(lifetime.tenant_id, lifetime.lifetime_id)
        if state is None:
            return 1, ()
        if len(self._elsewhere) >= REMEMBERED:
            self._elsewhere.clear()
        found = activity_of(state)
        self._elsewhere[lifetime.lifetime_id] = (state.seq, found)
        return found
