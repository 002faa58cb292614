"""Which inputs this worker has: its claims in the key-value store, renewed at each beat.

A claim keeps two workers from doing the same work when an input is delivered twice, and tells the sweeper that
somebody is at it. It is a hint: the store may forget everything at any time, and then the next beat writes it anew.
When the store does not answer, work goes on without claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model.claims import BEATS, KEPT, claim_key, claim_value, claimed_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.ports import KVStore

DONE = 10_000
"""Work that this worker has done whose ids are remembered: an input that comes again is not run again."""


class Claims:
    """The claims of one worker. `lease` in seconds."""

    def __init__(self, kv: KVStore, worker: str, lease: float) -> None:
        self._kv, self._worker = kv, worker
        self.interval = lease / BEATS
        """Seconds between two beats."""
        self._ttl = lease * KEPT
        self._beat = 0
        self._value = claim_value(worker, 0)
        self._done: dict[str, None] = {}
        self.refused = 0
        """Inputs that another worker had, or that were done here before."""

    async def take(self, work_id: str) -> bool:
        """Claims work; False when another worker has it, or when it was done here."""
        if work_id in self._done:
            self.refused += 1
            return False
        key = claim_key(work_id)
        try:
            if await self._kv.put(key, self._value, self._ttl, if_absent=True):
                return True
            found = await self._kv.get(key)
        except StorageError:
            return True
        if found is None or claimed_by(found) == self._worker:
            return True
        self.refused += 1
        return False

    async def release(self, work_ids: Iterable[str], *, done: bool = True) -> None:
        """Gives up claims: the work is done, or was not begun."""
        for work_id in work_ids:
            if done:
                self._done[work_id] = None
            try:
                await self._kv.delete(claim_key(work_id))
            except StorageError:
                continue  # it ends by itself
        while len(self._done) > DONE:
            del self._done[next(iter(self._done))]

    async def beat(self, work_ids: Iterable[str]) -> None:
        """Says that this worker lives, for all that it has."""
        self._beat += 1
        self._value = claim_value(self._worker, self._beat)
        for work_id in work_ids:
            try:
                await self._kv.put(claim_key(work_id), self._value, self._ttl)
            except StorageError:
                return  # the next beat tries again
