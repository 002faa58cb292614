"""Payloads that are too large for a message: fetched from the blob store before a call, stored there after it.

A blob store that does not answer is asked again, longer and longer apart. Nobody's code has failed by that, so nothing
of it counts as a failed attempt: what could not be fetched was not begun, and a result that waits to be stored is
there already.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from tickwork.errors import StorageError, StorageFull, StoreCorrupt
from tickwork.model.records import Payload
from tickwork.payloads import is_large, spilled

if TYPE_CHECKING:
    from tickwork.executor.outcome import Outcome
    from tickwork.model.messages import NodeInput
    from tickwork.ports import BlobStore, Clock

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
"""Seconds before the blob store is asked again; each following pause is twice as long."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries at most."""

FETCH_PATIENCE = 60.0
"""Seconds for which a call waits for its payloads. It holds a credit meanwhile."""

STORE_PATIENCE = 900.0
"""Seconds for which a result is kept here that the blob store does not take."""


class Unreachable(Exception):
    """The blob store did not answer for so long that nobody waits for it any more."""


class LargePayloads:
    """Moves payloads between messages and the blob store."""

    def __init__(self, blobs: BlobStore, clock: Clock) -> None:
        self._blobs, self._clock = blobs, clock

    async def fetch(self, message: NodeInput) -> None:
        """Puts the bytes of payloads that lie in the blob store into the message. Raises Unreachable, NotFound,
        StoreCorrupt."""
        await self._surely(message, FETCH_PATIENCE, partial(self._fetch, message))

    async def store(self, message: NodeInput, outcome: Outcome) -> None:
        """Stores large payloads as blobs: before the record is published, so that no record ever points nowhere.
        Raises Unreachable, StorageFull, UsageError."""
        await self._surely(message, STORE_PATIENCE, partial(self._store, message.tenant_id, outcome))

    async def _fetch(self, message: NodeInput) -> None:
        message.input = await self._whole(message.tenant_id, message.input)
        message.lifetime_input = await self._whole(message.tenant_id, message.lifetime_input)
        for past in message.executions:
            past.result = await self._whole(message.tenant_id, past.result)

    async def _whole(self, tenant_id: str, payload: Payload | None) -> Payload | None:
        if payload is None or payload.uri is None:
            return payload
        data = await self._blobs.get(tenant_id, payload.uri, payload.sha256)
        return Payload(data, payload.content_type, None, len(data))

    async def _store(self, tenant_id: str, outcome: Outcome) -> None:
        if outcome.result is not None:
            outcome.result = await spilled(self._blobs, tenant_id, outcome.result)
        for choice in outcome.next or ():
            if choice.input is not None:
                choice.input = await spilled(self._blobs, tenant_id, choice.input)

    async def _surely(self, message: NodeInput, patience: float, work: Callable[[], Awaitable[None]]) -> None:
        """Does it again and again while the store does not answer. What trying again does not mend is raised."""
        begun, pause = self._clock.monotonic(), FIRST_PAUSE
        while True:
            try:
                return await work()
            except (StorageFull, StoreCorrupt):
                raise
            except StorageError as error:
                if self._clock.monotonic() - begun + pause > patience:
                    raise Unreachable(
                        f"the blob store did not serve `{message.node}` of lifetime {message.lifetime_id} for "
                        f"{patience:g} s: {error}"
                    ) from None
                log.info("the blob store is asked again in %g s: %s", pause, error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


def lies_in_blobs(message: NodeInput) -> bool:
    """Whether a payload of it has to be fetched."""
    if message.input is not None and message.input.uri is not None:
        return True
    if message.lifetime_input is not None and message.lifetime_input.uri is not None:
        return True
    return any(past.result is not None and past.result.uri is not None for past in message.executions)


def has_large(outcome: Outcome) -> bool:
    """Whether a payload of it has to be stored."""
    return is_large(outcome.result) or (bool(outcome.next) and any(is_large(c.input) for c in outcome.next or ()))
