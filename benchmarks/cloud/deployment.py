"""One installation of Tickwork on the servers: a database and topics of its own, and processes that serve its roles.

The processes are those that an operator starts, `tickwork serve`; the benchmark itself is a client beside them, with no
role. What they say goes to files in the deployment's folder, which is removed with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from benchmarks.cloud import graphs
from benchmarks.cloud.servers import ROOT, Servers
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.service import Service

ROLES = ("data-plane", "control-plane", "executor", "sweeper")
ALL = ",".join(ROLES)
TENANTS = ("a", "b")
READY = 60.0
"""Seconds in which all processes have to be ready."""

END = 10.0
"""Seconds that a process may take to end when it is told to."""

_counter = iter(range(1_000_000))


class Process:
    """One `tickwork serve`."""

    def __init__(self, roles: str, folder: Path, number: int, environment: dict[str, str]) -> None:
        self.name = roles if roles != ALL else "all roles"
        self.said = folder / f"said-{self.name.replace(' ', '-')}-{number}"
        command = [sys.executable, "-m", "tickwork", "serve", "--roles", roles, "--listen", "127.0.0.1:0"]
        command += ["--drain", "1", "--tenant", TENANTS[0]]
        if "executor" in roles:
            command += ["benchmarks.cloud.graphs:LOOP", "benchmarks.cloud.graphs:THINK"]
        with self.said.open("wb") as said:
            self.child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)

    def ready(self) -> bool:
        """Whether it takes work. RuntimeError with what it said, when it has ended."""
        if self.child.poll() is not None:
            raise RuntimeError(f"`tickwork serve --roles {self.name}` ended:\n{self.said.read_text()[-2000:]}")
        found = re.search(r"listening on ([^,\s]+)", self.said.read_text())
        if found is None:
            return False
        try:
            with urllib.request.urlopen(f"http://{found[1]}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def end(self) -> None:
        """Ends it: nobody needs what it has in hand."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait(END)


class Deployment:
    """`async with`: processes that are ready, and a client (`service`). `each`: processes for each role;
    `tenant_rate`: executions a second of a tenant that executors begin; 0: as many as come."""

    def __init__(self, servers: Servers, *, each: int = 1, together: bool = False, tenant_rate: float = 0.0) -> None:
        self._servers = servers
        self._rates = {"TICKWORK_TENANT_RATE": f"{tenant_rate:g}"} if tenant_rate else {}
        self._roles = [ALL] * each if together else [role for role in ROLES for _ in range(each)]
        self.prefix = f"bench{os.getpid()}x{next(_counter)}"
        self._holder = tempfile.TemporaryDirectory(prefix="tickwork-cloud-run-")
        self.folder = Path(self._holder.name)
        self.processes: list[Process] = []

    @property
    def service(self) -> Service:
        """The use cases, as a client has them."""
        return self._client.service

    @property
    def pids(self) -> dict[str, list[int]]:
        """By role and server, and `client` for the benchmark itself."""
        found: dict[str, list[int]] = {}
        for process in self.processes:
            found.setdefault(process.name, []).append(process.child.pid)
        return found | {name: list(pids) for name, pids in self._servers.pids.items()}

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)
        await self.close()

    async def _open(self) -> None:
        urls, admin = self._servers.urls, self._servers.urls["TICKWORK_POSTGRES_ADMIN_URL"]
        connection = await asyncpg.connect(admin)
        try:
            await connection.execute(f'CREATE DATABASE "{self.prefix}" OWNER tickwork')
        finally:
            await connection.close()
        self.database = await asyncpg.connect(
            f"{admin.rpartition('/')[0]}/{self.prefix}", server_settings={"search_path": "tickwork"}
        )
        given = {
            "TICKWORK_PROFILE": "cloud",
            "TICKWORK_BUS_URL": f"{urls['TICKWORK_KAFKA_URL']}/{self.prefix}",
            "TICKWORK_STATE_URL": f"{urls['TICKWORK_POSTGRES_URL'].rpartition('/')[0]}/{self.prefix}",
            "TICKWORK_BLOB_URL": urls["TICKWORK_S3_URL"],
            "TICKWORK_KV_URL": f"{urls['TICKWORK_REDIS_URL']}?prefix={self.prefix}:",
        }
        self._client = Runtime(Profile.cloud(given), roles=frozenset())
        await self._client.__aenter__()
        await self.register(TENANTS)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKWORK_")}
        environment |= given | {graphs.FOLDER: str(self.folder)} | self._rates
        self.processes = [Process(roles, self.folder, n, environment) for n, roles in enumerate(self._roles)]
        until = time.monotonic() + READY
        waiting = list(self.processes)
        while waiting:
            if time.monotonic() > until:
                said = waiting[0].said.read_text()[-2000:]
                raise RuntimeError(f"{waiting[0].name} is not ready after {READY:g} s:\n{said}")
            await asyncio.sleep(0.2)
            waiting = [process for process in waiting if not await asyncio.to_thread(process.ready)]

    async def register(self, tenants: Sequence[str]) -> None:
        """Makes the graphs known to tenants; more may come while the processes run."""
        for tenant in tenants:
            for graph in (graphs.LOOP, graphs.THINK):
                await self.service.register(graph.build(), tenant=tenant)

    async def close(self) -> None:
        """Ends the processes and removes the database; Kafka's topics go with the servers."""
        for process in self.processes:
            process.end()
        if database := getattr(self, "database", None):
            await database.close()
            connection = await asyncpg.connect(self._servers.urls["TICKWORK_POSTGRES_ADMIN_URL"])
            await connection.execute(f'DROP DATABASE IF EXISTS "{self.prefix}" WITH (FORCE)')
            await connection.close()
        self._holder.cleanup()

    @property
    def logs(self) -> Path:
        """Where Kafka keeps what is published."""
        return self._servers.logs

    def complaints(self) -> str:
        """What the processes warned of."""
        lines = []
        for process in self.processes:
            said = process.said.read_text(errors="replace").splitlines()
            lines += [f"{process.name}: {line}" for line in said if " WARNING " in line or " ERROR " in line]
        return "\n".join(lines)
