"""The real servers that adapters are tested on: from the environment, else started by `dev/services`.

One function per server. In CI a server that is missing is a failure, never a test that is skipped.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[2] / "dev" / "services"

# Read when the module is imported: the tests' own environment forgets the developer's TICKWORK_* settings.
GIVEN = {name: value for name, value in os.environ.items() if name.startswith("TICKWORK_") and name.endswith("_URL")}


def postgres() -> str:
    """The URL of a PostgreSQL server, as a user who owns the database."""
    return _url("TICKWORK_POSTGRES_URL", "postgres")


def postgres_admin() -> str:
    """The URL of the same server, as a user who may make roles: the owner, when nobody else is named."""
    mine = postgres()
    if "TICKWORK_POSTGRES_URL" in GIVEN:
        return GIVEN.get("TICKWORK_POSTGRES_ADMIN_URL", mine)
    return _url("TICKWORK_POSTGRES_ADMIN_URL", "postgres")


def redis() -> str:
    """The URL of a Redis server. Its databases are shared: a test has keys of its own."""
    return _url("TICKWORK_REDIS_URL", "redis")


def s3() -> str:
    """The URL of a bucket that S3 serves, with its credentials."""
    return _url("TICKWORK_S3_URL", "s3")


def kafka() -> str:
    """The URL of a Kafka broker, without a prefix."""
    return _url("TICKWORK_KAFKA_URL", "kafka")


def _url(name: str, service: str) -> str:
    found = GIVEN.get(name) or _started(service).get(name)
    if not found:
        pytest.fail(f"`{SERVICES} up {service}` printed no {name}")
    return found


@functools.cache
def _started(service: str) -> dict[str, str]:
    """Starts a service, or finds it running: the variables that say where."""
    if os.environ.get("CI"):
        pytest.fail(f"CI has to start {service} before the tests and name it in the environment")
    return start(service)


def start(service: str, folder: Path | None = None) -> dict[str, str]:
    """Starts a service (in a set of its own, when a folder is given): the variables that say where."""
    return _variables(_run("up", service, folder))


def end(service: str, folder: Path) -> None:
    """Ends a service of a set of its own. Started again it has its data, under the same URL."""
    _run("down", service, folder)


def _run(command: str, service: str, folder: Path | None) -> str:
    own = {} if folder is None else {"TICKWORK_SERVICES_DIR": str(folder)}
    ran = subprocess.run(
        [SERVICES, command, service],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **own},
    )
    if ran.returncode:
        pytest.fail(f"`{SERVICES} {command} {service}` failed:\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


def _variables(printed: str) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in printed.splitlines())
    return {name.strip(): value.strip().strip("'\"") for name, _, value in lines if name.startswith("TICKWORK_")}


def free_port() -> int:
    """A port of loopback that nobody had a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
