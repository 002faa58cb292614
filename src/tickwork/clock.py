"""The only place where time, randomness and fresh ids enter Tickwork.

Everything else takes a `Clock` and an `Ids` from the outside, so that tests and simulations can own them; a lint
rule bans the standard library's versions everywhere else.
"""

from __future__ import annotations

import asyncio
import random
import time

from tickwork.model.ids import uuid7


class SystemClock:
    """Wall time of this machine, and real sleeping."""

    def now(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never step back, for measuring spans inside one process."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspends the caller for `seconds`."""
        await asyncio.sleep(seconds)


class RandomIds:
    """Fresh ids from the operating system's entropy (or from `seed`, for a run that must repeat)."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - a seed is asked for, and ids are no secrets

    def lifetime_id(self, now: int) -> str:
        """A UUIDv7 whose time part is `now` (microseconds since the epoch)."""
        return uuid7(now // 1000, self._random.getrandbits(74))

    def token(self) -> str:
        """A short word (12 hexadecimal digits) that names a worker or a request."""
        return f"{self._random.getrandbits(48):012x}"
