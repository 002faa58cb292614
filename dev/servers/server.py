"""What each server has to say of itself, whichever engine runs it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Protocol

from .place import Entry, Place
from .process import Launch


class Server(Protocol):
    """One of the servers. Nothing is kept in it: what has to be remembered is in the entry."""

    name: str
    port_names: tuple[str, ...]  # the first is the one that clients connect to
    start_seconds: float  # how long it may take from its start until it answers
    stop_signal: signal.Signals
    stop_seconds: float  # how long it may take to end by itself

    def secrets(self) -> dict[str, str]:
        """Passwords and the like for a new set of data."""
        ...

    def install(self, cache: Path) -> None:
        """Download what it needs, unless it is there. Raises ServiceError."""
        ...

    def prepare(self, place: Place, entry: Entry) -> Launch:
        """Write its settings, make its data folder, and say how it is started. Raises ServiceError."""
        ...

    def compose(self, place: Place, entry: Entry) -> dict[str, str]:
        """What dev/compose.yaml wants to know."""
        ...

    def check(self, entry: Entry) -> None:
        """Speak its protocol. Raises NotReady or OSError when it cannot be used."""
        ...

    def open(self, entry: Entry) -> None:
        """Make what its clients expect to find, unless it is there, then check. May be called again and again."""
        ...

    def variables(self, entry: Entry) -> dict[str, str]:
        """The environment variables that lead to it."""
        ...

    def litter(self, entry: Entry) -> list[Path]:
        """Files outside its folder that it leaves behind when it is killed."""
        ...
