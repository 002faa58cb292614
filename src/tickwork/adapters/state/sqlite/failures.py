"""What SQLite says, in Tickwork's words: which error, of which file, and what to do about it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from tickwork.errors import StorageError, StorageFull, StoreCorrupt

_LOW = 64 * 1024
"""Free bytes below which a failed write is taken for a full disk: some file systems report it as an I/O error."""


def storage_error(error: sqlite3.Error, path: str) -> StorageError:
    """The error to raise for `error`, which happened on the database at `path`."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    free = _free_bytes(path)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free is not None and free < _LOW):
        left = "" if free is None else f" ({free:,} bytes are free there)"
        return StorageFull(
            f"No space left for the database {path}{left}: nothing of this write was kept, and nothing that was "
            "acknowledged is lost. Free some space; lifetimes then go on where they stand."
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(
            f"{path} cannot be read as a database: {error}. Keep a copy of it and of its -wal file, and restore a "
            "backup."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"The database {path} is locked by another process: {error}. A home has one writing process at a time; "
            "stop the other one."
        )
    left = "" if free is None else f"; {free:,} bytes are free there"
    return StorageError(
        f"The database {path} refused: {error}{left}. Check that the disk works and that this user may write there. "
        "Nothing that was acknowledged is lost."
    )


def _free_bytes(path: str) -> int | None:
    try:
        return shutil.disk_usage(Path(path).parent).free
    except OSError:
        return None
