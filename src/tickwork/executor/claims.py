"""Which inputs this worker has: its claims in the key-value store, renewed at each beat.

A claim keeps two workers from doing the same work when an input is delivered twice, and tells the sweeper that
somebody is at it. It is a hint: the store may forget everything at any time, and then the next beat writes it anew.
When the store does not answer, work goes on without claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model.claims import BEATS, KEPT, claim_key, claim_value, claimed_by, for_each

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from tickwork.ports import Clock, KVStore

SLICE = 256
"""Claims that are renewed in one piece."""

PAUSE = 0.01
"""Seconds between two pieces, in which the loop is the others'."""

TRIES = 3
"""How often a claim is put at one beat, when the store refuses it."""

AGAIN = 0.1
"""Of the time between two beats, before the second try; twice as much before the third."""

RECORDS = 1_000
"""Published records that are kept for a while."""

RECORD_BYTES = 1024 * 1024
"""Bytes of records that are kept."""


class Claims:
    """The claims of one worker. `lease` in seconds."""

    def __init__(self, kv: KVStore, clock: Clock, worker: str, lease: float) -> None:
        self._kv, self._clock, self._worker = kv, clock, worker
        self.lease = lease
        self.interval = lease / BEATS
        """Seconds between two beats."""
        self._ttl = lease * KEPT
        self._beat = 0
        self._value = claim_value(worker, 0)
        self.refused = 0
        """Inputs that another worker had."""

    async def take(self, work_id: str) -> bool:
        """Claims work; False when another worker has it."""
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

    async def release(self, work_ids: Iterable[str]) -> None:
        """Gives up claims: the work is done, or was not begun."""
        await for_each(work_ids, self._release)

    async def _release(self, work_id: str) -> None:
        try:
            await self._kv.delete(claim_key(work_id))
        except StorageError:
            return  # it ends by itself

    async def beat(self, held: Container[str], work_ids: Sequence[str]) -> Sequence[str]:
        """Says that this worker lives, for all of `work_ids` that it still has in `held` when their turn comes. Returns
        those for which the store did not take it.

        One that the store refuses is put again soon: a single answer that is lost must not cost a third of a lease.
        """
        self._beat += 1
        self._value = claim_value(self._worker, self._beat)
        for tried in range(TRIES):
            if tried:
                await self._clock.sleep(AGAIN * self.interval * tried)
            work_ids = await self._renew(held, work_ids)
            if not work_ids:
                break
        return work_ids

    async def _renew(self, held: Container[str], work_ids: Sequence[str]) -> list[str]:
        """Puts these claims anew; returns those that the store did not take."""
        refused: list[str] = []

        async def put(work_id: str) -> None:
            if work_id not in held:
                return  # released meanwhile
            try:
                await self._kv.put(claim_key(work_id), self._value, self._ttl)
            except StorageError:
                refused.append(work_id)

        for begin in range(0, len(work_ids), SLICE):
            if begin:
                await self._clock.sleep(PAUSE)
            await for_each(work_ids[begin : begin + SLICE], put)
        return refused


class Published:
    """The records that this worker published last, by work id.

    An input that comes again, because it was doubled or because its record got lost on the way, is answered with the
    record that it had: user code is not called for it a second time.
    """

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}
        self._bytes = 0

    def keep(self, work_id: str, record: bytes) -> None:
        """Remembers a record; the oldest go when there are too many, and a very large one is not kept."""
        if len(record) > RECORD_BYTES // 8 or work_id in self._records:
            return
        self._records[work_id] = record
        self._bytes += len(record)
        while len(self._records) > RECORDS or self._bytes > RECORD_BYTES:
            self._bytes -= len(self._records.pop(next(iter(self._records))))

    def get(self, work_id: str) -> bytes | None:
        """The record of this work; None when there was none, or it was too long ago."""
        return self._records.get(work_id)
