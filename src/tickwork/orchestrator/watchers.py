"""Who waits for news of which lifetime in this process. Costs nothing for a lifetime that nobody waits for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model.records import Execution

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tickwork.model.messages import Committed

REMEMBERED = 1_000
"""Lifetimes that cannot go on whose reason is kept for whoever asks later."""


class News:
    """One who waits: `wait` returns when something has happened since the last `clear`.

    Ten thousand may wait at the same time, so it is a flag and a future; an asyncio.Event would be seven times as
    large.
    """

    __slots__ = ("_fresh", "_lifetime_id", "_registry", "_waiter")

    def __init__(self, registry: dict[str, News | list[News]], lifetime_id: str) -> None:
        self._registry, self._lifetime_id = registry, lifetime_id
        self._fresh = False
        self._waiter: asyncio.Future[None] | None = None

    def clear(self) -> None:
        """What has happened so far is known."""
        self._fresh = False

    def set(self) -> None:
        """Something has happened."""
        self._fresh = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Returns at the next news, or at once when there were some since `clear`."""
        if not self._fresh:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def __enter__(self) -> Self:
        known = self._registry.get(self._lifetime_id)
        if known is None:
            self._registry[self._lifetime_id] = self
        else:
            self._registry[self._lifetime_id] = [*(known if isinstance(known, list) else [known]), self]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        known = self._registry.pop(self._lifetime_id)
        if isinstance(known, list):
            left = [news for news in known if news is not self]
            self._registry[self._lifetime_id] = left[0] if len(left) == 1 else left


class Watchers:
    """Wakes up whoever waits for news of a lifetime in this process. Costs nothing when nobody waits."""

    def __init__(self) -> None:
        self._all: dict[str, News | list[News]] = {}
        self._turns: dict[str, News | list[News]] = {}
        self._stuck: dict[str, Exception] = {}

    def notify(self, reference: Committed) -> None:
        """There are new entries in this lifetime's log, or (no entries) its status has changed."""
        lifetime_id = reference.lifetime_id
        if self._stuck:
            self._stuck.pop(lifetime_id, None)
        _tell(self._all.get(lifetime_id))
        turns = self._turns.get(lifetime_id)
        # An execution alone neither ends a lifetime nor makes it wait.
        if turns is not None and not all(type(entry) is Execution for entry in reference.entries or (None,)):
            _tell(turns)

    def idle(self, lifetime_id: str) -> None:
        """The lifetime does nothing by itself now."""
        _tell(self._turns.get(lifetime_id))

    def stuck(self, lifetime_id: str, error: Exception) -> None:
        """The lifetime cannot go on in this process: whoever waits for it gets the error."""
        self._stuck[lifetime_id] = error
        if len(self._stuck) > REMEMBERED:
            del self._stuck[next(iter(self._stuck))]
        _tell(self._all.get(lifetime_id))
        _tell(self._turns.get(lifetime_id))

    def check(self, lifetime_id: str) -> None:
        """Raises StorageError with the reason when the lifetime cannot go on."""
        error = self._stuck.get(lifetime_id)
        if error is not None:
            raise StorageError(f"lifetime {lifetime_id} cannot go on: {error}") from error

    def watching(self, lifetime_id: str, *, turns: bool = False) -> News:
        """Used with `with`: what is told of each news; with `turns`, only when the status may have changed."""
        return News(self._turns if turns else self._all, lifetime_id)


def _tell(waiting: News | list[News] | None) -> None:
    if isinstance(waiting, list):
        for news in waiting:
            news.set()
    elif waiting is not None:
        waiting.set()
