"""A small disk for one database: a tablespace on a file system of its own in memory, which can be filled up.

Only root can mount one; elsewhere the scenarios that need it say that they cannot be run.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import asyncpg

SIZE = "48m"
PIECE = b"\0" * 65_536


class SmallDisk:
    """Mounted between `make` and `remove`. `name`: of the tablespace."""

    def __init__(self, admin: str, name: str) -> None:
        self._admin, self.name = admin, name
        # Where the server's own user can get to: not the suite's folder, which may be for its owner alone.
        self._place = Path(tempfile.mkdtemp(prefix="tickwork-chaos-", dir="/var/tmp"))

    @staticmethod
    def possible() -> bool:
        """Whether this user may mount."""
        return os.geteuid() == 0 and shutil.which("mount") is not None

    async def make(self) -> None:
        """Mounts it and makes the tablespace."""
        await _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._place))
        inner = self._place / "space"
        inner.mkdir()
        for folder in (self._place, inner):
            folder.chmod(0o755)
        shutil.chown(inner, "nobody")  # who PostgreSQL runs as when root starts it (dev/services)
        await self._ask(f"CREATE TABLESPACE \"{self.name}\" LOCATION '{inner}'")

    def fill(self) -> None:
        """Leaves no byte free."""
        with (self._place / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(PIECE)
        if os.statvfs(self._place).f_bavail > len(PIECE):
            raise OSError(errno.EIO, "the small disk was not filled up")

    def free(self) -> None:
        """There is room again."""
        (self._place / "ballast").unlink()

    async def remove(self, database: str) -> None:
        """Takes all of it away, with the database."""
        await self._ask(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', f'DROP TABLESPACE "{self.name}"')
        await _run("umount", str(self._place))
        self._place.rmdir()

    async def _ask(self, *statements: str) -> None:
        connection = await asyncpg.connect(self._admin)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(errno.EPERM, f"{' '.join(command)}: {said.decode().strip()}")
