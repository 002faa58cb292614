"""SQL as files of a package: its statements by name, and the steps of its schema in order."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """A step of the schema, from version `number - 1` to `number`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def statements_of(package: str) -> dict[str, str]:
    """The statements of the package's folder sql/, by the name of their file."""
    folder = files(package) / "sql"
    return {f.name.removesuffix(".sql"): f.read_text(encoding="utf-8") for f in folder.iterdir()}


@cache
def migrations_of(package: str) -> tuple[Migration, ...]:
    """All migrations of the package that this version of Tickwork knows, in order."""
    folder = files(package) / "migrations"
    found = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return tuple(Migration(int(name[:4]), name, (folder / name).read_text(encoding="utf-8")) for name in found)
