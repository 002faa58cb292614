"""What the log says while something is tried again and again: what is wrong, once; for how long it has been so, at
growing intervals; and that it works again, once. The tries in between are at the level DEBUG.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tickwork.ports import Clock

AGAIN: Final = 30.0
"""Seconds between two words about trouble, at least; each following silence is twice as long."""

LONGEST: Final = 600.0


class Trouble:
    """Of one thing, which the log calls `label`. Threads and the event loop may speak to it."""

    def __init__(self, log: logging.Logger, label: str, clock: Clock) -> None:
        self._log, self._label, self._clock = log, label, clock
        self._lock = threading.Lock()
        self._told = False
        """Whether it was said that something is wrong, so that the end of it is to be said as well."""
        self._spoke: float | None = None
        self._silence = AGAIN
        self.since: float | None = None
        """When it began (monotonic seconds); None: all is well, as far as is known."""

    def heard(self, what: object) -> None:
        """Something is wrong."""
        with self._lock:
            now = self._clock.monotonic()
            if self.since is None:
                self.since = now
            if self._spoke is not None and now - self._spoke < self._silence:
                self._log.debug("%s: %s", self._label, what)
                return
            lasting = now - self.since
            if self._told:
                self._silence = min(2 * self._silence, LONGEST)
                self._log.warning("%s does not work, for %.0f s now: %s", self._label, lasting, what)
            else:
                self._log.warning("%s does not work; it is tried again and again: %s", self._label, what)
            self._told, self._spoke = True, now

    def over(self) -> None:
        """It works."""
        with self._lock:
            since, self.since = self.since, None
            if since is None or not self._told:
                return
            self._told, self._silence = False, AGAIN
            self._log.warning("%s works again, after %.0f s", self._label, self._clock.monotonic() - since)
