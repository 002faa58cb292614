"""The servers as containers, where a Docker engine runs: dev/compose.yaml with our ports and passwords."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from dataclasses import dataclass

from . import ports
from .engine import Condition, look, wait_until_open
from .place import DEV, Entry, Place, State
from .server import Server
from .trouble import ServiceError

PULL_SECONDS = 900
# What the file demands must be set even for a command that concerns another server.
DEMANDED = ["KAFKA_PORT", "KAFKA_CLUSTER_ID", "POSTGRES_PORT", "POSTGRES_ADMIN_PASSWORD", "REDIS_PORT", "S3_PORT"]
UNSET = {**dict.fromkeys([*DEMANDED, "S3_SSE_KEY"], "0"), "S3_CONFIG": os.devnull}


def is_here() -> bool:
    """Whether a Docker engine answers and has Compose."""
    docker = shutil.which("docker")
    if not docker:
        return False
    for words in (["info"], ["compose", "version"]):
        try:
            done = subprocess.run([docker, *words], capture_output=True, check=False, timeout=10)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            return False
    return True


@dataclass(frozen=True)
class Compose:
    """Each set of servers is a project of its own. `entry.pid` is 0 while a container is meant to run."""

    place: Place
    state: State
    given_up: threading.Event

    def up(self, server: Server, entry: Entry) -> None:
        if not self._runs(server):
            ports.demand_free({"port": entry.ports["port"]})
        entry.pid = 0
        self.state.save()
        self._compose(["up", "--detach", "--no-deps", server.name], server.compose(self.place, entry))
        wait_until_open(server, entry, lambda: self._runs(server), self.given_up)

    def down(self, server: Server, entry: Entry) -> None:
        self._compose(["stop", "--timeout", f"{server.stop_seconds:.0f}", server.name])
        self._compose(["rm", "--force", server.name])
        entry.pid = None

    def condition(self, server: Server, entry: Entry) -> Condition:
        if entry.pid is None:
            return Condition("down")
        if self._runs(server):
            return look(server, entry)
        return Condition("crashed", "its container is gone. dev/services up starts it again")

    def logs(self, server: Server) -> str:
        return self._compose(["logs", "--no-color", "--tail", "200", server.name])

    def wipe(self, state: State) -> None:
        self._compose(["down", "--volumes", "--remove-orphans"])

    def _runs(self, server: Server) -> bool:
        return bool(self._compose(["ps", "--quiet", "--status", "running", server.name]).strip())

    def _compose(self, words: list[str], settings: dict[str, str] | None = None) -> str:
        compose = ["docker", "compose", "--project-name", f"tickwork-{self.place.name}"]
        try:
            done = subprocess.run(
                [*compose, "--file", str(DEV / "compose.yaml"), *words],
                env={**UNSET, **os.environ, **(settings or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=PULL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ServiceError(f"docker compose {words[0]} did not end within {PULL_SECONDS} s") from None
        if done.returncode:
            raise ServiceError(
                f"docker compose {' '.join(words)}: {done.stderr.strip()[-500:]}. Processes instead of containers: "
                "dev/services down, then TICKWORK_SERVICES_ENGINE=native dev/services up"
            )
        return done.stdout
