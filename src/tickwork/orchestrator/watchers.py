"""Who waits for news of which lifetime in this process. Costs nothing for a lifetime that nobody waits for."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tickwork.errors import StorageError
from tickwork.model.records import Execution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.model.messages import Committed

REMEMBERED = 1_000
"""Lifetimes that cannot go on whose reason is kept for whoever asks later."""


class Watchers:
    """Wakes up whoever waits for news of a lifetime in this process. Costs nothing when nobody waits."""

    def __init__(self) -> None:
        self._all: dict[str, set[asyncio.Event]] = {}
        self._turns: dict[str, set[asyncio.Event]] = {}
        self._stuck: dict[str, Exception] = {}

    def notify(self, reference: Committed) -> None:
        """There are new entries in this lifetime's log, or (no entries) its status has changed."""
        lifetime_id = reference.lifetime_id
        if self._stuck:
            self._stuck.pop(lifetime_id, None)
        for event in self._all.get(lifetime_id, ()):
            event.set()
        turns = self._turns.get(lifetime_id)
        # An execution alone neither ends a lifetime nor makes it wait.
        if turns and not all(type(entry) is Execution for entry in reference.entries or (None,)):
            for event in turns:
                event.set()

    def idle(self, lifetime_id: str) -> None:
        """The lifetime does nothing by itself now."""
        for event in self._turns.get(lifetime_id, ()):
            event.set()

    def stuck(self, lifetime_id: str, error: Exception) -> None:
        """The lifetime cannot go on in this process: whoever waits for it gets the error."""
        self._stuck[lifetime_id] = error
        if len(self._stuck) > REMEMBERED:
            del self._stuck[next(iter(self._stuck))]
        for registry in (self._all, self._turns):
            for event in registry.get(lifetime_id, ()):
                event.set()

    def check(self, lifetime_id: str) -> None:
        """Raises StorageError with the reason when the lifetime cannot go on."""
        error = self._stuck.get(lifetime_id)
        if error is not None:
            raise StorageError(f"lifetime {lifetime_id} cannot go on: {error}") from error

    @contextmanager
    def watching(self, lifetime_id: str, *, turns: bool = False) -> Iterator[asyncio.Event]:
        """An event that is set at each news; with `turns`, only when the status may have changed."""
        registry = self._turns if turns else self._all
        event = asyncio.Event()
        registry.setdefault(lifetime_id, set()).add(event)
        try:
            yield event
        finally:
            waiting = registry[lifetime_id]
            waiting.discard(event)
            if not waiting:
                del registry[lifetime_id]
