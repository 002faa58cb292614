"""Clocks that disagree: each process and the store has its own wall clock, off by an offset, drifting, stepped."""

from __future__ import annotations

import asyncio

from tickwork.testing.simulation.scheduler import SimulatedLoop
from tickwork.testing.virtual import EPOCH


class SkewedClock:
    """The Clock of one machine. `offset` in seconds; `drift` is how much faster it runs (1e-4: 100 us a second)."""

    def __init__(self, loop: SimulatedLoop, offset: float = 0.0, drift: float = 0.0) -> None:
        self._loop = loop
        self._rate = 1.0 + drift
        self.offset = offset
        """Seconds off true time."""

    def step(self, seconds: float) -> None:
        """Sets the wall clock forward or back."""
        self.offset += seconds

    def now(self) -> int:
        """Wall time in microseconds; steps when `offset` is changed."""
        return EPOCH + round((self._loop.time() * self._rate + self.offset) * 1_000_000)

    def monotonic(self) -> float:
        """Virtual seconds of this machine; never steps."""
        return self._loop.time() * self._rate

    async def sleep(self, seconds: float) -> None:
        """Suspends the caller for virtual seconds of this machine."""
        await asyncio.sleep(seconds / self._rate)  # noqa: TID251 - this is an injected clock, on virtual time
