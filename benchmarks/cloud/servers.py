"""A set of real servers of the benchmark's own, by `dev/services`: on this machine, with fsync, gone afterwards.

Of a set of its own the processes are known, so that their CPU can be counted, and nobody else loads them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "dev" / "services"


class Servers(msgspec.Struct, frozen=True):
    """Where they are (`TICKWORK_KAFKA_URL`...), which processes they are, and where Kafka keeps its logs."""

    urls: dict[str, str]
    pids: dict[str, tuple[int, ...]]
    logs: Path


@contextmanager
def started() -> Iterator[Servers]:
    """The servers, for as long as the block lasts. RuntimeError with what `dev/services` said."""
    with tempfile.TemporaryDirectory(prefix="tickwork-cloud-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKWORK_")}
        cache = {name: os.environ[name] for name in ("TICKWORK_SERVICES_CACHE",) if name in os.environ}
        environment |= cache | {"TICKWORK_SERVICES_DIR": folder, "TICKWORK_SERVICES_ENGINE": "native"}
        try:
            _run("up", environment)
            said = _run("env", environment)
            lines = (line.removeprefix("export ").partition("=") for line in said.splitlines())
            urls = {name: value.strip("'\"") for name, _, value in lines if name.startswith("TICKWORK_")}
            state = json.loads((Path(folder) / "state.json").read_text())
            pids: dict[str, tuple[int, ...]] = {name: (entry["pid"],) for name, entry in state["servers"].items()}
            yield Servers(urls, pids, Path(folder) / "kafka" / "data")
        finally:
            _run("down", environment, "--wipe")


def _run(command: str, environment: dict[str, str], *options: str) -> str:
    done = subprocess.run(
        [SERVICES, command, *options], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"`dev/services {command}` failed:\n{done.stderr}")
    return done.stdout
