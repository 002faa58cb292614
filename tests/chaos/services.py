"""A set of servers of the suite's own, started by dev/services in a folder of its own: they may be killed.

The shared set that other tests use is never touched. PostgreSQL syncs its writes here, whatever TICKWORK_SERVICES_FAST
says: a server that is killed must not have promised what only its memory had.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from tests.adapters.servers import SERVICES, _variables

NAMES = ("kafka", "postgres", "redis", "s3")


class Services:
    """The four servers: `urls` by the variables that dev/services prints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.urls: dict[str, str] = {}
        self._killed: set[str] = set()

    async def start(self) -> None:
        """Starts all servers."""
        self.urls = _variables(await self._run("up"))

    async def restore(self) -> None:
        """Starts again what was killed, with its data and under its old URL."""
        if self._killed:
            await self._run("up", *sorted(self._killed))
            self._killed.clear()

    async def stop(self) -> None:
        """Ends all of them and removes what they wrote."""
        await self._run("down", "--wipe")

    async def kill(self, name: str) -> None:
        """SIGKILL: it says goodbye to nobody."""
        state = json.loads((self._folder / "state.json").read_text())
        os.kill(state["servers"][name]["pid"], signal.SIGKILL)
        self._killed.add(name)

    async def database(self, name: str, tablespace: str = "pg_default") -> None:
        """Makes a database of this name, for the engine's role."""
        admin = await asyncpg.connect(self.urls["TICKWORK_POSTGRES_ADMIN_URL"])
        try:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await admin.execute(f'CREATE DATABASE "{name}" OWNER tickwork TABLESPACE "{tablespace}"')
        finally:
            await admin.close()

    def admin(self, database: str = "postgres") -> str:
        """The URL of a database as a user who sees all rows."""
        return self.urls["TICKWORK_POSTGRES_ADMIN_URL"].rpartition("/")[0] + f"/{database}"

    async def _run(self, command: str, *names: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "TICKWORK_SERVICES_FAST"}
        process = await asyncio.create_subprocess_exec(
            SERVICES, command, *names, env={**environment, "TICKWORK_SERVICES_DIR": str(self._folder)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"dev/services {command} failed:\n{out.decode()}\n{err.decode()}")
        return out.decode()


def through(urls: Mapping[str, str], ports: Mapping[str, int], database: str) -> dict[str, str]:
    """The environment of a process that reaches everything through the proxy, in a world of its own."""
    login = urls["TICKWORK_POSTGRES_URL"].partition("://")[2].rpartition("@")[0]
    s3, _, query = urls["TICKWORK_S3_URL"].partition("?")
    fields = [field for field in query.split("&") if not field.startswith("endpoint=")]
    fields += [f"endpoint=http://127.0.0.1:{ports['s3']}", f"prefix={database}", "timeout=10"]
    return {
        "TICKWORK_PROFILE": "cloud",
        "TICKWORK_BUS_URL": f"kafka://127.0.0.1:{ports['kafka']}/{database.replace('_', '-')}",
        "TICKWORK_STATE_URL": f"postgresql://{login}@127.0.0.1:{ports['postgres']}/{database}",
        "TICKWORK_BLOB_URL": s3 + "?" + "&".join(fields),
        "TICKWORK_KV_URL": f"redis://127.0.0.1:{ports['redis']}/0",
    }


def upstreams(urls: Mapping[str, str]) -> dict[str, str]:
    """Where each server is, for the proxy."""
    endpoint = next(f for f in urls["TICKWORK_S3_URL"].partition("?")[2].split("&") if f.startswith("endpoint="))
    return {
        "kafka": urls["TICKWORK_KAFKA_URL"].partition("://")[2],
        "postgres": urls["TICKWORK_POSTGRES_URL"].rpartition("@")[2].partition("/")[0],
        "redis": urls["TICKWORK_REDIS_URL"].partition("://")[2].partition("/")[0],
        "s3": endpoint.partition("://")[2],
    }
