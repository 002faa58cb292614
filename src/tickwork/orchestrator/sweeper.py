"""The sweeper: fires due timers, and picks up lifetimes that nobody is moving.

Timers are rows. It sleeps until the next one is due (or is woken when an earlier one is set), and records the firing
under an id that comes from the timer, so a timer fires once however many sweepers there are.

Every few seconds it looks for lifetimes that stand still although their log demands a next step: those held in this
process are rechecked, and those that no process has touched for a lease are taken up. What it records about them is
compare-and-set on the last seq, so it never acts on a lifetime that has just moved.

Where several processes share the work, the two halves may be apart. A process with a Control Plane rechecks what that
holds. A sweeper fires the timers of all, and has those that nobody moves taken up by whoever gets their references: it
sends one that has nothing in it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model.claims import BEATS
from tickwork.model.messages import Append, Committed, nudge
from tickwork.model.records import Event
from tickwork.orchestrator.inputs import BlobsAway
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.serving import hopeless
from tickwork.trouble import Trouble

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime, TimerRow
    from tickwork.orchestrator.control_plane import ControlPlane
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.leases import Leases
    from tickwork.ports import Clock, StateStore

log = logging.getLogger(__name__)

LONGEST_SLEEP = 5.0
"""Seconds after which it looks again whatever it knows."""

POLL = 0.5
"""The same where other processes set timers: how late one may fire."""

SWEEP = 2.0
"""Seconds between two looks at what stands still, at most: how late a lease is seen to have run out."""

OF_ALL = 10_000_000

SLICE = 32
"""Lifetimes that are looked at in one piece."""

GLANCES = 500
"""Lifetimes up to which all their claims are read in every sweep; those of more only when they stand still."""

REMEMBERED = 100_000
"""Lifetimes that are known to have been looked at, or said to stand still."""

PAUSE = 0.01
"""Seconds between two slices."""


class Sweeper:
    """One background loop; `run_once` is one sweep of the timers, `sweep` one of the lifetimes."""

    def __init__(
        self,
        store: StateStore,
        data_plane: DataPlane,
        control_plane: ControlPlane | None,
        leases: Leases,
        clock: Clock,
        *,
        own: bool = False,
        timers: bool = True,
        shared: bool = False,
    ) -> None:
        """`own`: leave alone what the Control Plane of this process does not hold (a run of one lifetime, or another
        process sweeps). `timers`: fire those that are due. `shared`: other processes may set timers and hold lifetimes.
        """
        self._store, self._data_plane, self._control_plane, self._clock = store, data_plane, control_plane, clock
        self._leases = leases
        self._own, self._timers, self._shared = own, timers, shared
        self._next_due: int | None = None
        self._woken = asyncio.Event()
        self._every = min(leases.lease / BEATS, SWEEP)
        self._done = 0
        self._paused: dict[str, int] = {}
        """The last seq at which a paused lifetime was looked at."""
        self._nudged: dict[str, tuple[int, float]] = {}
        """The last seq at which a lifetime was said to stand still, and when."""
        self._swept = clock.monotonic()
        self._trouble = Trouble(log, "the sweeper", clock)
        self.counts = {"timers_fired": 0, "taken_up": 0, "failed_sweeps": 0}

    def timer_set(self, due: int) -> None:
        """A timer due at `due` (us) was recorded: wake up if it comes before the one slept for."""
        if self._next_due is None or due < self._next_due:
            self._next_due = due
            self._woken.set()

    async def run(self) -> None:
        """Sweeps until cancelled. A store that refuses for a moment is asked again at the next sweep."""
        while True:
            self._woken.clear()
            self._next_due = None
            wait = longest = POLL if self._shared and self._timers else LONGEST_SLEEP
            try:
                left = await self.run_once() if self._timers else None
                wait = longest if left is None else min(left / 1e6, longest)
                if self._clock.monotonic() - self._swept >= self._every:
                    await self.sweep()
                    self._swept = self._clock.monotonic()
            except StorageError as error:
                if hopeless(error, shared=self._shared):
                    raise
                self.counts["failed_sweeps"] += 1
                self._trouble.heard(error)
            else:
                self._trouble.over()
            if self._next_due is not None:  # set meanwhile
                wait = min(wait, max(self._next_due - self._clock.now(), 0) / 1e6)
            self._next_due = self._clock.now() + round(wait * 1e6)
            await self._sleep(min(wait, self._every))

    async def run_once(self) -> int | None:
        """Fires what is due by the store's clock; returns how long (us) it is to the next timer, None without one."""
        while True:
            # Of a store that others left full of due timers ours may be the last.
            due, later = await self._store.due_timers(limit=OF_ALL if self._own else 1000)
            if self._own:
                due = [timer for timer in due if self._holds(timer.lifetime_id)]
            if not due:
                return later
            results = await self._data_plane.record([_fired(timer) for timer in due])
            self.counts["timers_fired"] += len(due)
            if all(appended.error is not None or appended.stale for appended in results):
                return later  # refused: at the next sweep, not at once

    async def sweep(self) -> None:
        """Rechecks what stands still here, and takes up what stands still anywhere."""
        self._leases.begin()
        if self._control_plane is not None:
            for lifetime_id in self._control_plane.still(self._leases.lease / 2, self._leases.lease / BEATS):
                await self._control_plane.recheck(lifetime_id, self._leases)
                await self._give_way()
            await self._glance(self._control_plane)
        self._leases.forget()
        if not self._own:
            await self._take_up_left()

    async def _glance(self, control_plane: ControlPlane) -> None:
        """While few lifetimes move, all their claims are read in every sweep: so soon a worker's death is noticed, also
        when only one of many branches stands still of it."""
        watched = control_plane.watched()
        if len(watched) <= GLANCES:
            before = self._clock.now() - round(self._every * 1e6)
            for lifetime_id in watched:
                await control_plane.glance(lifetime_id, self._leases, before)
                await self._give_way()

    async def _give_way(self) -> None:
        """Lets the others have the loop now and then: thousands may stand still, and many more move."""
        self._done += 1
        if self._done % SLICE == 0:
            await self._clock.sleep(PAUSE)

    async def _take_up_left(self) -> None:
        """Lifetimes that should move, and have not been touched by anybody for a lease.

        One that is paused is looked at once: what was decided before the pause may not be in its log.
        """
        await self._take_up("RUNNING")
        await self._take_up("PAUSED")

    async def _take_up(self, status: str) -> None:
        after = ""
        before = self._clock.now() - round(self._leases.lease * 1e6)
        while page := await self._store.open_lifetimes(after, status=status, untouched_since=before):
            elsewhere: list[Committed] = []
            for lifetime in page:
                if status == "PAUSED":
                    if self._paused.get(lifetime.lifetime_id) == lifetime.last_seq:
                        continue
                    if len(self._paused) >= REMEMBERED:
                        self._paused.clear()
                    self._paused[lifetime.lifetime_id] = lifetime.last_seq
                if self._control_plane is not None and self._holds(lifetime.lifetime_id):
                    await self._control_plane.recheck(lifetime.lifetime_id, self._leases)
                elif self._control_plane is None or self._shared:
                    if self._is_news(lifetime):
                        elsewhere.append(nudge(lifetime.tenant_id, lifetime.lifetime_id, lifetime.last_seq, before))
                else:
                    await self._take_up_here(lifetime)
                await self._give_way()
            await self._data_plane.publish(elsewhere)
            self.counts["taken_up"] += len(elsewhere)
            after = page[-1].lifetime_id

    async def _take_up_here(self, lifetime: Lifetime) -> None:
        if self._control_plane is None:
            return
        try:
            await self._control_plane.take_up(lifetime.tenant_id, lifetime.lifetime_id)
            self.counts["taken_up"] += 1
        except BlobsAway as error:
            log.warning("lifetime %s is taken up later: %s", lifetime.lifetime_id, error)

    def _is_news(self, lifetime: Lifetime) -> bool:
        """Whether whoever holds this lifetime was not told of it for a lease. Many only think, and are held."""
        now = self._clock.monotonic()
        seq, told = self._nudged.get(lifetime.lifetime_id, (-1, 0.0))
        if seq == lifetime.last_seq and now - told < self._leases.lease:
            return False
        if len(self._nudged) >= REMEMBERED:
            self._nudged.clear()
        self._nudged[lifetime.lifetime_id] = (lifetime.last_seq, now)
        return True

    def _holds(self, lifetime_id: str) -> bool:
        return self._control_plane is not None and self._control_plane.holds(lifetime_id)

    async def recover(self, tenant_id: str, digest: str) -> int:
        """Takes up every lifetime of a graph that was running when its process died; returns how many.

        One that waits needs nothing: its question or timer is a row, and what happens to it will rebuild it.
        """
        count, after = 0, ""
        if self._control_plane is None:
            return count
        while page := await self._store.open_lifetimes(after):
            for lifetime in page:
                ours = lifetime.tenant_id == tenant_id and lifetime.graph_digest == digest
                if ours and lifetime.status in ("PENDING", "RUNNING"):
                    await self._take_up_here(lifetime)
                    count += 1
            after = page[-1].lifetime_id
        return count

    async def _sleep(self, seconds: float) -> None:
        """Sleeps on the injected clock, or until a nearer timer is set."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({sleeping, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            woken.cancel()


def _fired(timer: TimerRow) -> Append:
    event = Event(f"{timer.timer_id}:fired", "timer_fired", {"timer_id": timer.timer_id})
    projection = project(timer.tenant_id, timer.lifetime_id, (event,))
    return Append(timer.tenant_id, timer.lifetime_id, (event,), projection)
