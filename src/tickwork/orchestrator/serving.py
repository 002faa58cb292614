"""How a plane takes its messages: join the group, take a batch, handle it, and only then acknowledge it.

A store or a bus that refuses for a moment is asked again, longer and longer apart; the batch stays where it is, so
nothing is lost and nothing is overtaken. What no second try can mend (a damaged store, a full disk of its own) ends the
plane.
One that is told to stop ends after the batch that it has in hand.

What a plane of the same process has for it need not go through the broker: it is offered, and taken if it would come
here anyway. Such a message is gone with the process; the log has what it says, and the sweeper finds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from tickwork.errors import StorageError, StorageFull, StoreCorrupt, StoreTooNew
from tickwork.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickwork.ports import Clock, Delivery, EventBus, Subscription

T = TypeVar("T")
M = TypeVar("M")

log = logging.getLogger(__name__)

BATCH = 1024
"""Most messages handled between two looks at the topic."""

OFFERED = 4096
"""Most messages that were offered and wait; with more they go by the bus."""

FIRST_PAUSE = 0.05
"""Seconds before the second try; each following pause is twice as long."""

LONGEST_PAUSE = 1.0
"""Seconds between two tries at most: how soon the return of a store is noticed."""

PATIENCE = 30.0
"""Seconds for which a batch is tried before the plane gives up, and its process with it."""


def hopeless(error: StorageError, *, shared: bool) -> bool:
    """Whether trying again mends nothing. `shared`: the store is a server, which may be given room meanwhile."""
    return isinstance(error, StoreCorrupt | StoreTooNew) or (isinstance(error, StorageFull) and not shared)


class Serving(Generic[T]):
    """One plane's membership in the group of its topic, for all tenants. T: what can be offered to it.

    `patience`: seconds for which a batch is tried; None: until it succeeds.
    """

    def __init__(self, bus: EventBus, name: str, clock: Clock, patience: float | None = PATIENCE) -> None:
        self._bus, self._name, self._clock, self._patience = bus, name, clock, patience
        self._subscription: Subscription | None = None
        self._trouble = Trouble(log, f"the loop of {name}", clock)
        self._stopping = self._busy = False
        self._offered: deque[T] = deque()
        self._in_hand = 0
        self._stirred = asyncio.Event()
        self.taken = 0
        """Messages that were offered and taken."""
        self.retried = 0
        """Batches that were tried again."""

    async def start(self) -> None:
        """Joins the group, so that nothing published from now on is missed.

        The first of a new installation also gets what was sent before it was there; planes can be told twice.
        """
        self._subscription = await self._bus.subscribe([f"{self._name}.*"], self._name, from_beginning=True)

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
        """No batch is taken from now on; `run` returns when the one in hand is acknowledged. Others go on with them.
        What was offered is handled yet, for nobody else has it."""
        self._stopping = True
        self._stirred.set()
        if not self._busy and self._subscription is not None:
            await self._subscription.close()

    def owns(self, topic: str, key: str) -> bool:
        """Whether messages of this key come to this member now, as far as it knows."""
        return self._subscription is not None and self._subscription.owns(topic, key)

    def offer(self, topic: str, key: str, item: T) -> bool:
        """Takes what would come here by the bus on this topic, under this key; False: it has to go by the bus."""
        if self._stopping or len(self._offered) >= OFFERED or not self.owns(topic, key):
            return False
        self._offered.append(item)
        self._stirred.set()
        return True

    async def run_offered(self, handle: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        """Hands what was offered to `handle`, in order, until cancelled; after `stop` until nothing is left of it."""
        offered = self._offered
        while offered or not self._stopping:
            if not offered:
                self._stirred.clear()
                await self._stirred.wait()
                continue
            batch = [offered.popleft() for _ in range(min(BATCH, len(offered)))]
            self._in_hand = len(batch)
            await self._surely(handle, batch)
            self.taken += len(batch)
            self._in_hand = 0

    async def _surely(self, handle: Callable[[Sequence[M]], Awaitable[None]], batch: Sequence[M]) -> None:
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
                self._trouble.heard(error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._trouble.over()
                return

    def depth(self) -> int:
        """Messages of this plane that are not done, as far as this process knows."""
        return self._bus.depth(f"{self._name}.*", self._name) + self.offered()

    def offered(self) -> int:
        """How many of them were offered here: they are gone with this process."""
        return len(self._offered) + self._in_hand
