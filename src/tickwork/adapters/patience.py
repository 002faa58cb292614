"""How a service starts while a server is away: it waits, tries again with growing pauses, and says what it waits for.

Only what passes by itself is waited for: a server that cannot be reached, or that is starting (ServerAway, as each
adapter judges). A refusal that somebody has to mend (a wrong password, a database that is not there or not migrated, a
bucket that does not exist) is an error at once, as it is for a command.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tickwork.errors import ServerAway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from tickwork.ports import Clock

    T = TypeVar("T")

log = logging.getLogger("tickwork.serve")

FIRST_PAUSE: Final = 0.25
"""Seconds before the second try; each following pause is twice as long."""

LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries at most: how soon the return of a server is noticed."""

AGAIN: Final = 30.0
"""Seconds until it is said once more what is waited for; each following silence is twice as long."""


class Patience:
    """Tries for as long as it takes, if it `waits`; else once."""

    def __init__(self, clock: Clock, *, waits: bool) -> None:
        self._clock, self._waits = clock, waits
        self.reason = ""
        """What it waits for; empty while it does not."""

    async def surely(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns, once it does. Raises what does not pass by itself."""
        pause, silence, waiting = FIRST_PAUSE, AGAIN, False
        begun = spoke = self._clock.monotonic()
        try:
            while True:
                try:
                    return await attempt()
                except ServerAway as error:
                    if not self._waits:
                        raise
                    said = str(error)
                self.reason = f"it waits for a server: {said}"
                now = self._clock.monotonic()
                if not waiting:
                    waiting, spoke = True, now
                    log.warning("waiting for a server, and trying again: %s", said)
                elif now - spoke >= silence:
                    spoke, silence = now, 2 * silence
                    log.warning("waiting still, for %.0f s now: %s", now - begun, said)
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self.reason = ""
