"""What both ways to run the servers have to offer, and the wait until a server can be used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from .place import Entry, Place, State
from .probes import NotReady
from .process import tail
from .server import Server
from .trouble import ServiceError

Word = Literal["up", "down", "crashed", "stuck"]


@dataclass(frozen=True)
class Condition:
    """How a server is. `note` says what is wrong and what to do."""

    state: Word
    note: str = ""


class Engine(Protocol):
    """A way to run servers."""

    def up(self, server: Server, entry: Entry) -> None:
        """Start it unless it runs, and wait until it can be used. Raises ServiceError."""
        ...

    def down(self, server: Server, entry: Entry) -> None:
        """End it, if it runs."""
        ...

    def condition(self, server: Server, entry: Entry) -> Condition:
        """How it is at this moment."""
        ...

    def logs(self, server: Server) -> str:
        """The end of what it logged."""
        ...

    def wipe(self, state: State) -> None:
        """Remove its data; nothing runs any more."""
        ...


def wait_until_open(server: Server, entry: Entry, is_alive: Callable[[], bool], given_up: threading.Event) -> None:
    """Returns when the server can be used. Raises ServiceError when it died, or its time is over."""
    deadline = time.monotonic() + server.start_seconds
    while True:
        try:
            server.open(entry)
            return
        except (NotReady, OSError) as error:
            why = str(error)
        if not is_alive():
            raise ServiceError("it ended while it was starting")
        if time.monotonic() > deadline:
            raise ServiceError(f"it cannot be used after {server.start_seconds:.0f} s: {why}")
        if given_up.wait(0.1):
            raise ServiceError("interrupted")


def look(server: Server, entry: Entry) -> Condition:
    """The condition of a server whose process or container runs."""
    try:
        server.check(entry)
    except (NotReady, OSError) as error:
        return Condition("stuck", f"it runs and does not answer: {error}. dev/services logs {server.name}")
    return Condition("up")


def with_log(server: Server, place: Place, error: ServiceError) -> ServiceError:
    """The same, with the last lines of the log."""
    lines = "\n".join("    " + line for line in tail(place.log(server.name), 12).splitlines())
    return ServiceError(f"{error}. The end of {place.log(server.name)}:\n{lines}")
