"""The database's shape: connections with their settings, named statements, and the migrations that are applied once.

A migration is one file, `NNNN_name.sql`, applied in one transaction together with its row in `migrations` and the new
`user_version`. A file that was applied never changes; its checksum is compared on every start.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from tickwork import __version__
from tickwork.adapters.sql_files import migrations_of, statements_of
from tickwork.errors import StorageError, StoreTooNew

MEMORY = ":memory:"

BUSY_MS = 5_000
"""How long (ms) a statement waits for a lock of another process; only tools that look into the file ever hold one."""

CACHE_KIB = 4 * 1024
"""Page cache (KiB) of the writing connection: the index pages of the open lifetimes should stay in it."""

READER_CACHE_KIB = 512
"""Page cache (KiB) of a reading connection: what it reads was written a moment ago, and lies in the system's cache."""


READABLE_FROM = 1
"""The oldest schema version that is read without migrating it: what came after it only added tables."""


statements = partial(statements_of, "tickwork.adapters.state.sqlite")
"""The statements of the folder sql/, by the name of their file."""

migrations = partial(migrations_of, "tickwork.adapters.state.sqlite")
"""All migrations that this version of Tickwork knows, in order."""


def connect_writer(path: str) -> sqlite3.Connection:
    """The one connection that writes.

    It also makes every checkpoint. SQLite before 3.51.3 has a race between two connections that write or checkpoint
    a WAL (a reset of the log can be missed, and committed pages are lost); with a single one it cannot happen.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    refuse_newer(connection, path)  # before the first setting that writes to the file
    if path != MEMORY:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the group commit makes them, off the event loop
    return connection


def connect_reader(path: str) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint. StorageError when there is no database yet."""
    if not Path(path).exists():
        raise StorageError(f"There is no database at {path} yet. Start a lifetime first, or check TICKWORK_HOME.")
    connection = sqlite3.connect(
        Path(path).absolute().as_uri() + "?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA query_only = 1")
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return connection


def schema_version(connection: sqlite3.Connection) -> int:
    """How many migrations the database has seen."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def refuse_newer(connection: sqlite3.Connection, path: str) -> None:
    """StoreTooNew when the database has seen migrations that this version does not know."""
    found, known = schema_version(connection), len(migrations())
    if found > known:
        raise StoreTooNew(
            f"The database {path} has schema version {found}, and Tickwork {__version__} knows versions up to "
            f"{known}: a newer Tickwork wrote it. Upgrade Tickwork, or point TICKWORK_HOME at another folder. "
            "Nothing was changed."
        )


def require_readable(connection: sqlite3.Connection, path: str) -> None:
    """Refuses a database that a reader, who may not migrate it, cannot understand as it is."""
    refuse_newer(connection, path)
    found = schema_version(connection)
    if found < READABLE_FROM:
        raise StorageError(
            f"The database {path} has schema version {found}, and Tickwork {__version__} reads versions from "
            f"{READABLE_FROM} on. The next process that writes there (`tickwork run`, `tickwork lifetimes resume`) "
            "brings it up to date."
        )


def migrate(connection: sqlite3.Connection, path: str, now: int) -> None:
    """Brings the database to the newest version; each migration is applied wholly or not at all."""
    version = schema_version(connection)
    _refuse_foreign(connection, path, version)
    if version:
        applied = dict(connection.execute("SELECT number, checksum FROM migrations").fetchall())
        for migration in migrations()[:version]:
            if applied.get(migration.number) != migration.checksum:
                raise StorageError(
                    f"{path} was made with another text of migration {migration.name} than this Tickwork has. "
                    "Use the Tickwork that made it, or export its lifetimes there and import them here."
                )
    for migration in migrations()[version:]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if migration.number == 1:
                connection.execute(
                    "CREATE TABLE migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, "
                    "applied_at INTEGER NOT NULL)"
                )
            for statement in _split(migration.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, now),
            )
            connection.execute(f"PRAGMA user_version = {migration.number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _refuse_foreign(connection: sqlite3.Connection, path: str, version: int) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if (version == 0 and tables) or (version and "migrations" not in tables):
        raise StorageError(
            f"{path} is a database of another program (it has the tables {', '.join(sorted(tables))}). Point "
            "TICKWORK_HOME at another folder. Nothing was changed."
        )


def _split(script: str) -> list[str]:
    """The statements of a script; sqlite3's own executescript would commit in between."""
    found, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found
