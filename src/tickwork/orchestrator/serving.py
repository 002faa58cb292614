"""How a plane takes its messages: join the group, take a batch, handle it, and only then acknowledge it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tickwork.ports import Delivery, EventBus, Subscription

BATCH = 1024
"""Most messages handled between two looks at the topic."""


class Serving:
    """One plane's membership in the group of its topic, for all tenants."""

    def __init__(self, bus: EventBus, name: str) -> None:
        self._bus, self._name = bus, name
        self._subscription: Subscription | None = None

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
                await handle(deliveries)
                await subscription.ack(deliveries)
        finally:
            await subscription.close()
