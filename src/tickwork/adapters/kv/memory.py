"""The key-value store inside one process: a dict whose values expire by the injected clock.

It is bounded: when `max_keys` are held and none has expired, the key that was written longest ago goes. Nobody may rely
on a value anyway.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwork.ports import Clock

MAX_KEYS = 100_000


class MemoryKV:
    """The KVStore port on a dict."""

    def __init__(self, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._values: dict[str, tuple[bytes, float]] = {}  # in the order in which they were written

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Forgets everything."""
        self._values.clear()

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or it expired."""
        found = self._values.get(key)
        if found is None:
            return None
        value, end = found
        if self._clock.monotonic() >= end:
            del self._values[key]
            return None
        return value

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        """Sets it for `ttl` seconds (None: no end). With `if_absent`, only when there is none: False if there is."""
        if if_absent and await self.get(key) is not None:
            return False
        self._values.pop(key, None)
        if len(self._values) >= self._max_keys:
            self._make_room()
        end = math.inf if ttl is None else self._clock.monotonic() + ttl
        self._values[key] = (bytes(value), end)
        return True

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """Sets it to `new` for `ttl` seconds if it is `old` now; else False."""
        return await self.get(key) == old and await self.put(key, new, ttl)

    async def delete(self, key: str) -> None:
        """Removes it; fine when it is not there."""
        self._values.pop(key, None)

    def _make_room(self) -> None:
        """Drops what has expired; when that is nothing, the oldest tenth, so that this walk stays rare."""
        now = self._clock.monotonic()
        gone = [key for key, (_, end) in self._values.items() if now >= end]
        for key in gone or list(self._values)[: max(1, self._max_keys // 10)]:
            del self._values[key]
