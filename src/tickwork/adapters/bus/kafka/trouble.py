"""What is said in the log while brokers refuse or are away: what is wrong, once; for how long it has been so, at
growing intervals; and that they answer again, once. All else that clients have to say of it is at the level DEBUG.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tickwork.ports import Clock

log = logging.getLogger("tickwork.adapters.bus.kafka")

AGAIN: Final = 30.0
"""Seconds between two words about trouble, at least; each following silence is twice as long."""

LONGEST: Final = 600.0


class Trouble:
    """Of one bus. Threads and the event loop may speak to it."""

    def __init__(self, label: str, clock: Clock) -> None:
        self._label, self._clock = label, clock
        self._lock = threading.Lock()
        self._told = False
        """Whether it was said that something is wrong, so that the end of it is to be said as well."""
        self._spoke: float | None = None
        self._silence = AGAIN
        self.since: float | None = None
        """When it began (monotonic seconds); None: all is well, as far as is known."""

    def heard(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            now = self._clock.monotonic()
            if self.since is None:
                self.since = now
            if self._spoke is not None and now - self._spoke < self._silence:
                log.debug("Kafka at %s: %s", self._label, what)
                return
            lasting = now - self.since
            if self._told:
                self._silence = min(2 * self._silence, LONGEST)
                log.warning("Kafka at %s does not work, for %.0f s now: %s", self._label, lasting, what)
            else:
                log.warning("Kafka at %s does not work; it is tried again and again: %s", self._label, what)
            self._told, self._spoke = True, now

    def over(self) -> None:
        """Brokers answer."""
        with self._lock:
            since, self.since = self.since, None
            if since is None or not self._told:
                return
            self._told, self._silence = False, AGAIN
            log.warning("Kafka at %s answers again, after %.0f s", self._label, self._clock.monotonic() - since)


class ClientLog:
    """Takes the lines that the client library writes: it calls this as it would call a logger."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def log(self, level: int, text: str, *given: Any) -> None:
        """One line, as `logging.Logger.log` takes it."""
        if level >= logging.WARNING:
            self._trouble.heard(text % given if given else text)
        else:
            log.debug(text, *given)
