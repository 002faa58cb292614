"""How a plane takes its messages: join the group, take a batch, handle it, and only then acknowledge it.

A store or a bus that refuses for a moment is asked again, longer and longer apart; the batch stays where it is, so
nothing is lost and nothing is overtaken. What no second try can mend (a damaged store, a full disk of its own) ends the
plane.
One that is told to stop ends after the batch that it has in hand.
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

FIRST_PAUSE = 0.05
"""Seconds before the second try; each following pause is twice as long."""

LONGEST_PAUSE = 1.0
"""Seconds between two tries at most: how soon the return of a store is noticed."""

PATIENCE = 30.0
"""Seconds for which a batch is tried before the plane gives up, and its process with it."""


def hopeless(error: StorageError, *, shared: bool) -> bool:
    """Whether trying again mends nothing. `shared`: the store is a server, which may be given room meanwhile."""
    return isinstance(error, StoreCorrupt | StoreTooNew) or (isinstance(error, StorageFull) and not shared)


class Serving:
    """One plane's membership in the group of its topic, for all tenants.

    `patience`: seconds for which a batch is tried; None: until it succeeds.
    """

    def __init__(self, bus: EventBus, name: str, clock: Clock, patience: float | None = PATIENCE) -> None:
        self._bus, self._name, self._clock, self._patience = bus, name, clock, patience
        self._subscription: Subscription | None = None
        self._stopping = self._busy = False
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
            while not self._stopping:
                deliveries = await subscription.receive(BATCH)
                if not deliveries:
                    return  # the bus was stopped
                self._busy = True
                await self._surely(handle, deliveries)
                await subscription.ack(deliveries)
                self._busy = False
        finally:
            await subscription.close()

    async def stop(self) -> None:
        """No batch is taken from now on; `run` returns when the one in hand is acknowledged. Others go on with them."""
        self._stopping = True
        if not self._busy and self._subscription is not None:
            await self._subscription.close()

    def owns(self, topic: str, key: str) -> bool:
        """Whether messages of this key come to this member now, as far as it knows."""
        return self._subscription is not None and self._subscription.owns(topic, key)

    async def _surely(self, handle: Callable[[Sequence[Delivery]], Awaitable[None]], batch: Sequence[Delivery]) -> None:
        pause, begun = FIRST_PAUSE, self._clock.monotonic()
        while True:
            try:
                await handle(batch)
            except StorageError as error:
                if hopeless(error, shared=self._patience is None):
                    raise
                if self._patience is not None and self._clock.monotonic() - begun >= self._patience:
                    raise
                self.retried += 1
                log.warning("%s: %d messages are tried again in %g s: %s", self._name, len(batch), pause, error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    def depth(self) -> int:
        """Messages of this plane that are not acknowledged, as far as this process knows."""
        return self._bus.depth(f"{self._name}.*", self._name)
