"""Leases: who works on what, how long that is believed, and when a worker is given up.

A worker claims what it takes in the key-value store, `claim/<exec_id>` = `<worker>:<beat>`, and writes every claim
anew at each beat. The sweeper watches the claims of visits that were sent long ago. It compares values, not clocks: a
claim that has not changed for a whole lease on the watcher's own monotonic clock belongs to a worker that is gone.
No claim at all, twice and half a lease apart, means that nobody ever got the input: it is sent again.

All of it is a hint and may vanish. What counts is the log: the first entry about an attempt decides, and what a worker
that was only slow says later is kept as `superseded`.

So that a store that forgets or does not answer is not taken for workers that are dead, a watcher counts only the time
in which the store kept what it was given. It looks for a key that nobody ever changes (EPOCH), and tries to write it:
the time between two looks of which one fails does not count. When that is long, or the key is another, all begins anew.
As long as it is so, nobody is given up. What may be run twice is sent again after some leases without any word, each
time later; a call that may have been made waits for the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from tickwork.errors import StorageError
from tickwork.model.claims import EPOCH, KEPT, LEASE, claim_key, claim_value, for_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tickwork.ports import Clock, KVStore

Verdict = Literal["alive", "lost", "absent", "unclear"]

UNHEARD = 3
"""Leases without a word after which an input is sent again although the store of claims tells nothing."""

SLOWEST = 3
"""What nobody claims is sent again at longer and longer intervals, each twice the one before, so many times."""

SLOWEST_UNHEARD = 5
"""Likewise when the store tells nothing: then somebody may be at it, and each time is perhaps one call more."""

GIVEN_UP = claim_value("nobody", 0)
"""The claim on an attempt that is given up: whoever gets its input late finds it taken."""

SURVEYS = 20
"""How often in a lease a watcher looks whether the store still keeps what it is given."""


class _Seen(msgspec.Struct):
    """What was seen of one execution: by the watcher's monotonic clock, or (`well`) by the time in which the store was
    well."""

    heard: float
    """When its worker was last heard of; when it was looked at first or sent again, if that is later."""
    looked: float
    claim: bytes | None = None
    """Its claim, as it was found last."""
    since: float = 0.0
    """When (well) that value was found first."""
    absent: float | None = None
    """Since when (well) every look that was answered has found nothing."""
    sent: int = 0
    """How often it was said that nobody has it."""


class Leases:
    """What one watcher has seen of the claims of others."""

    def __init__(self, kv: KVStore, clock: Clock, lease: float = LEASE) -> None:
        self._kv, self._clock = kv, clock
        self.lease = lease
        self._seen: dict[str, _Seen] = {}
        self._looked = clock.monotonic()
        self._epoch: bytes | None = None
        self._well = 0.0
        """Seconds in which the store is known to have kept what it was given."""
        self._forgot = 0.0
        """When (well) it was last seen to have forgotten something, or to have been ill for long."""
        self._surveyed: float | None = None
        self._answered = clock.monotonic()
        """When it was last well."""
        self._ill = True
        """Whether it did not answer since."""

    def begin(self) -> None:
        """Begins a round of looks. After a pause that was longer than it should be, nothing seen before it counts:
        if this process was frozen, so may have been the workers."""
        now = self._clock.monotonic()
        if now - self._looked > self.lease / 2:
            self._seen.clear()
        self._looked = now

    def forget(self) -> None:
        """Forgets what was not looked at for long: it is over."""
        before = self._clock.monotonic() - KEPT * self.lease
        for exec_id in [known for known, seen in self._seen.items() if seen.looked < before]:
            del self._seen[exec_id]

    async def looks(self, asked: Mapping[str, bool], *, glance: bool = False) -> dict[str, Verdict]:
        """Looks at several executions; of each, whether its user code may have been called (see `look`)."""
        verdicts: dict[str, Verdict] = {}

        async def look(exec_id: str) -> None:
            verdicts[exec_id] = await self.look(exec_id, called=asked[exec_id], glance=glance)

        if asked:
            await self._survey(self._clock.monotonic())  # before all of them, not beside them
        await for_each(asked, look)
        return verdicts

    async def look(self, exec_id: str, *, called: bool = False, glance: bool = False) -> Verdict:
        """`alive`: its worker beats; `lost`: it has stopped; `absent`: nobody has it; `unclear`: look again later.

        `glance`: only whether its worker beats; that nobody has it yet says nothing so soon. `called`: it is a call
        that must not be made twice, and may have been made. It is never `absent`, and `lost` only by what was seen
        while the store was well.
        """
        self.begin()  # this process may be frozen in the middle of a round, too
        now = self._clock.monotonic()
        await self._survey(now)
        value, answered = await self._claim(exec_id)
        seen = self._seen.get(exec_id)
        if seen is None:
            seen = self._seen[exec_id] = _Seen(heard=now, looked=now)
        seen.looked = now
        if value is not None:
            return self._present(seen, value, now)
        if glance:
            return "unclear"
        if answered:
            if seen.absent is None:
                seen.absent = self._well_at(now)
            waited = self._well - max(seen.absent, self._forgot)
            if called:
                return "lost" if waited >= KEPT * self.lease else "unclear"
            if waited >= self.lease / 2 * 2 ** min(seen.sent, SLOWEST):
                return _sent_again(seen, now)
        unheard = now - seen.heard >= UNHEARD * self.lease * 2 ** min(seen.sent, SLOWEST_UNHEARD)
        return _sent_again(seen, now) if unheard and not called else "unclear"

    async def given_up(self, lost: Iterable[str]) -> set[str]:
        """Of executions that were judged `lost`, those that nobody has begun with since: nobody will now.

        Between the look and what is recorded of it another worker may get the same input, when the claim has run out.
        So the claim that was judged is taken over, in one step, before anything is recorded. Of two, one gets it. A
        store that does not answer now keeps nobody from being given up: as ever, claims are only hints.
        """
        still: set[str] = set()

        async def take_over(exec_id: str) -> None:
            seen, key, ttl = self._seen.get(exec_id), claim_key(exec_id), KEPT * self.lease
            if seen is None:
                return
            try:
                if seen.claim is None or seen.absent is not None:
                    taken = await self._kv.put(key, GIVEN_UP, ttl, if_absent=True)
                else:
                    taken = await self._kv.replace(key, seen.claim, GIVEN_UP, ttl)
            except StorageError:
                taken = True
            if taken:
                still.add(exec_id)

        await for_each(lost, take_over)
        return still

    def _present(self, seen: _Seen, value: bytes, now: float) -> Verdict:
        """There is a claim: is it the same for too long?"""
        seen.absent = None
        if value == GIVEN_UP:  # what was recorded of it then may have been lost on its way
            seen.claim = value
            return "lost"
        if value != seen.claim:
            first = seen.claim is None
            seen.claim, seen.since, seen.heard = value, self._well_at(now), now
            return "unclear" if first else "alive"
        return "lost" if self._well - max(seen.since, self._forgot) >= self.lease else "alive"

    async def _claim(self, exec_id: str) -> tuple[bytes | None, bool]:
        """The claim of an execution, and whether the store answered."""
        if self._ill:
            return None, False
        try:
            return await self._kv.get(claim_key(exec_id)), True
        except StorageError:
            return None, False

    def _well_at(self, now: float) -> float:
        """The time of the store's being well, if it still is."""
        return self._well if self._ill else self._well + max(0.0, now - self._answered)

    async def _survey(self, now: float) -> None:
        """Looks whether the store takes what it is given, and has kept what it was given before."""
        before = self._surveyed
        if before is not None and now - before < self.lease / SURVEYS:
            return
        self._surveyed = now
        # Nobody else ever writes these bytes: two watchers that begin at the very same time mean the same epoch.
        mine = f"{self._clock.now()}:{now}".encode()
        try:
            found: bytes | None = mine
            if not await self._kv.put(EPOCH, mine, if_absent=True):
                found = await self._kv.get(EPOCH)
        except StorageError:
            self._ill = True
            return
        between = now - self._answered
        at_length = between > self.lease / 2  # workers may have lost beats, or this watcher was frozen
        if not self._ill and not at_length:
            self._well += between
        if found is None or found != self._epoch or at_length:
            self._epoch, self._forgot = found, self._well
        self._ill, self._answered = False, self._clock.monotonic()


def _sent_again(seen: _Seen, now: float) -> Verdict:
    """What is said when nobody has it: whoever asked sends it again, and looking begins anew."""
    seen.sent += 1
    seen.heard, seen.absent = now, None
    return "absent"
