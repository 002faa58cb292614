"""The processes of the engine: `tickwork serve` with one role each, started, killed, frozen, drained, and supervised.

A process that ends by itself is started again, as any supervisor does, and counted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos import graphs
from tests.chaos.clocks import Clocks

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("data-plane", "control-plane", "executor", "sweeper")
START = 60.0
"""Seconds in which a process has to be ready."""

DRAIN = 5.0
RESTART = 1.0
"""Seconds after which one that ended by itself is started again."""


class Member:
    """One process."""

    def __init__(self, role: str, number: int, folder: Path) -> None:
        self.role, self.number = role, number
        self.log = folder / f"{role}-{number}.log"
        self.process: asyncio.subprocess.Process | None = None
        self.supervision: asyncio.Task[None] | None = None
        self.wanted = True
        """Whether it is to be started again when it ends."""
        self.frozen = False

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return f"{self.role} {self.number}"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self.process is not None
        return self.process.pid

    def text(self) -> str:
        """All that it has said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Fleet:
    """All processes of one world."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, lease: float, clocks: Clocks | None = None
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKWORK_")}
        self._environment = {**kept, **environment, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        self._folder, self._lease = folder, lease
        self.clocks = clocks
        """Of the processes; None: theirs is the machine's."""
        self.members: list[Member] = []
        self.exits: list[str] = []
        """Processes that ended by themselves, with their codes."""

    async def start(self, roles: Sequence[str] = ROLES, each: int = 2) -> None:
        """Starts so many of each role; when this returns, all are ready."""
        made = [Member(role, n + 1, self._folder) for role in roles for n in range(each)]
        self.members += made
        for member in made:
            await self.launch(member)
        await asyncio.gather(*(self.until_ready(member) for member in made))

    async def launch(self, member: Member) -> None:
        """Starts a process (again)."""
        command = [
            sys.executable, "-m", "tickwork", "serve", "--roles", member.role, "--lease", f"{self._lease:g}",
            "--drain", f"{DRAIN:g}", "--listen", "127.0.0.1:0",
        ]  # fmt: skip
        if member.role == "executor":
            command += [f"tests.chaos.graphs:{name}" for name in graphs.ATTRIBUTES]
        environment = self._environment
        if self.clocks is not None:
            environment = {**environment, **self.clocks.environment(member.name)}
        member.wanted, member.frozen = True, False
        with member.log.open("ab") as output:
            member.process = await asyncio.create_subprocess_exec(
                *command, cwd=self._folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=output, stderr=output,
            )  # fmt: skip
        member.supervision = asyncio.create_task(self._supervise(member, member.process))

    async def until_ready(self, member: Member, since: int = 0) -> None:
        """Waits until it has said that it is ready, after so many characters of what it has said."""
        deadline = time.monotonic() + START
        while " ready as " not in member.text()[since:]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{member.name} is not ready after {START:g} s:\n{member.text()[-3000:]}")
            await asyncio.sleep(0.05)

    async def _supervise(self, member: Member, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if member.wanted and member.process is process:
            self.exits.append(f"{member.name} ended with {code}: {last_words(member)}")
            await asyncio.sleep(RESTART)
            if member.wanted and member.process is process:
                await self.launch(member)

    def of(self, role: str) -> list[Member]:
        """The processes of a role."""
        return [member for member in self.members if member.role == role]

    async def kill(self, member: Member) -> None:
        """SIGKILL. It stays dead until it is launched."""
        member.wanted = False
        assert member.process is not None
        if member.process.returncode is None:
            member.process.kill()
        await member.process.wait()

    async def terminate(self, member: Member) -> float:
        """SIGTERM: how long it took to end. It stays so until it is launched."""
        member.wanted = False
        assert member.process is not None
        begun = time.monotonic()
        if member.process.returncode is None:
            member.process.terminate()
        code = await member.process.wait()
        if code:
            self.exits.append(f"{member.name} ended with {code} after SIGTERM: {last_words(member)}")
        return time.monotonic() - begun

    def freeze(self, member: Member) -> None:
        """SIGSTOP."""
        os.kill(member.pid, signal.SIGSTOP)
        member.frozen = True

    def thaw(self, member: Member) -> None:
        """SIGCONT."""
        os.kill(member.pid, signal.SIGCONT)
        member.frozen = False

    async def stop(self) -> None:
        """Ends all of them at once."""
        for member in self.members:
            member.wanted = False
            if member.process is not None and member.process.returncode is None:
                member.process.kill()
        for member in self.members:
            if member.process is not None:
                await member.process.wait()
            if member.supervision is not None:
                member.supervision.cancel()

    def tracebacks(self) -> list[str]:
        """What the processes said that no user should have to read."""
        return [f"{m.name}: a traceback in {m.log}" for m in self.members if "Traceback" in m.text()]


def last_words(member: Member) -> str:
    """The last of what a process said that its libraries did not."""
    lines = [line for line in member.text().splitlines() if line and " tickwork.adapters." not in line]
    return " ".join(lines[-2:])[:300] or "nothing"
