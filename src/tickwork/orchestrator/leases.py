"""Leases: who works on what, how long that is believed, and when a worker is given up.

A worker claims what it takes in the key-value store, `claim/<exec_id>` = `<worker>:<beat>`, and writes every claim
anew at each beat. The sweeper watches the claims of visits that were sent long ago. It compares values, not clocks: a
claim that has not changed for a whole lease on the watcher's own monotonic clock belongs to a worker that is gone.
No claim at all, twice and half a lease apart, means that nobody ever got the input (or that the store forgot it,
which the next beat mends): it is sent again.

All of it is a hint and may vanish. What counts is the log: the first entry about an attempt decides, and what a worker
that was only slow says later is kept as `superseded`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tickwork.errors import StorageError
from tickwork.model.claims import LEASE, claim_key

if TYPE_CHECKING:
    from tickwork.ports import Clock, KVStore

Verdict = Literal["alive", "lost", "absent", "unclear"]


class Leases:
    """What one watcher has seen of the claims of others."""

    def __init__(self, kv: KVStore, clock: Clock, lease: float = LEASE) -> None:
        self._kv, self._clock = kv, clock
        self.lease = lease
        self._seen: dict[str, tuple[bytes | None, float, float]] = {}
        """The claim of an execution, when it was seen first with this value, and when it was looked at last."""
        self._looked = clock.monotonic()

    def begin(self) -> None:
        """Begins a round of looks. After a pause that was longer than it should be, nothing seen before it counts:
        if this process was frozen, so may have been the workers."""
        now = self._clock.monotonic()
        if now - self._looked > self.lease / 2:
            self._seen.clear()
        self._looked = now

    def forget(self) -> None:
        """Forgets what was not looked at for long: it is over."""
        before = self._clock.monotonic() - 4 * self.lease
        for exec_id in [known for known, (_, _, looked) in self._seen.items() if looked < before]:
            del self._seen[exec_id]

    async def look(self, exec_id: str) -> Verdict:
        """`alive`: its worker beats; `lost`: it has stopped; `absent`: nobody has it; `unclear`: look again later."""
        self.begin()  # this process may be frozen in the middle of a round, too
        now = self._clock.monotonic()
        try:
            value = await self._kv.get(claim_key(exec_id))
        except StorageError:
            return "unclear"
        before = self._seen.get(exec_id)
        if before is None or before[0] != value:
            self._seen[exec_id] = (value, now, now)
            return "unclear" if value is None or before is None else "alive"
        self._seen[exec_id] = (value, before[1], now)
        waited = now - before[1]
        if value is None:
            if waited < self.lease / 2:
                return "unclear"
            del self._seen[exec_id]
            return "absent"
        return "lost" if waited >= self.lease else "alive"
