"""Where the client library's own lines go: what it warns of is trouble with the brokers, the rest is for DEBUG."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickwork.trouble import Trouble

log = logging.getLogger("tickwork.adapters.bus.kafka")


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
