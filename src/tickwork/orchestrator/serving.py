"""How a plane takes its messages: join the group, take a batch, handle it, and only then acknowledge it.

A store or a bus that refuses for a moment is asked again, longer and longer apart; the batch stays where it is, so
nothing is lost and nothing is overtaken. What no second try can mend (a full disk, a damaged file) ends the plane.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tickwork.errors import StorageError, StorageFull, StoreCorrupt, StoreTooNew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickwork.ports import Clock, Delivery, EventBus, Subscription

log = logging.getLogger(__name__)

BATCH = 1024
"""Most messages handled between two looks at the topic."""

TRIES = 10
"""How often a batch is tried before the plane gives up and its process with it: about half a minute in all."""

FIRST_PAUSE = 0.05
"""Seconds before the second try; each following pause is twice as long."""

HOPELESS = (StorageFull, StoreCorrupt, StoreTooNew)
"""Storage errors that trying again does not mend."""


class Serving:
    """One plane's membership in the group of its topic, for all tenants."""

    def __init__(self, bus: EventBus, name: str, clock: Clock) -> None:
        self._bus, self._name, self._clock = bus, name, clock
        self._subscription: Subscription | None = None
        self.retried = 0
        """Batches that were tried again."""

    async def start(self) -> None:
        """Joins the group, so that nothing published from now on is missed."""
        self._subscription = await self._bus.subscribe([f"{self._name}.*"], self._name)

    async def run(self, handle: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        """Hands batches to `handle` until cancelled. After `start`. What was not acknowledged comes again."""
        subscription = self._subscription
        if subscription is None:
            raise RuntimeError("start() comes before run()")
        try:
            while True:
                deliveries = await subscription.receive(BATCH)
                if not deliveries:
                    return  # the bus was stopped
                await self._surely(handle, deliveries)
                await subscription.ack(deliveries)
        finally:
            await subscription.close()

    async def _surely(self, handle: Callable[[Sequence[Delivery]], Awaitable[None]], batch: Sequence[Delivery]) -> None:
        for attempt in range(TRIES):
            try:
                await handle(batch)
            except HOPELESS:
                raise
            except StorageError as error:
                if attempt == TRIES - 1:
                    raise
                self.retried += 1
                pause = FIRST_PAUSE * 2**attempt
                log.warning("%s: %d messages are tried again in %g s: %s", self._name, len(batch), pause, error)
                await self._clock.sleep(pause)
            else:
                return

    def depth(self) -> int:
        """Messages of this plane that are not acknowledged, as far as this process knows."""
        return self._bus.depth(f"{self._name}.*", self._name)
