"""What Postgres and the way to it say, in Tickwork's words: which error, of which database, and what to do about it.

Three questions decide what becomes of an error: has the connection gone with it, does it pass by itself, and is it
about one row, so that its neighbours can go on without it.
"""

from __future__ import annotations

import asyncio
import ssl

import asyncpg

from tickwork.errors import ServerAway, StorageError, StorageFull, StoreCorrupt

CONFLICTS = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, lock timeout: another process was first; the same again may pass."""

GONE = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "25006")
"""The server stops, crashed, starts, or has ended this session; 25006: it is a standby now, so another one is asked."""

CROWDED = ("53300", "53400")

LIMITS = ("54000", "54001", "54011", "54023")
"""A row is greater than the database can keep."""

_LOCAL = (ssl.SSLCertVerificationError, FileNotFoundError, PermissionError, IsADirectoryError)
"""Errors of the operating system that are about a file or a certificate, not about the way to a server."""

Failures = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the driver raises when something is wrong with the server, the way to it, or what it was asked."""


class CommitUnknown(Exception):
    """The connection was lost while COMMIT was under way: it happened, or it did not."""


def lost(error: BaseException) -> bool:
    """Whether the connection cannot be used any more."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith("08") or state in GONE
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a ValueError is about a parameter
    return isinstance(error, asyncpg.InternalClientError | OSError | TimeoutError | asyncio.IncompleteReadError)


def passes(error: BaseException) -> bool:
    """Whether the same may succeed a little later."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in (*CONFLICTS, *CROWDED):
        return True
    return isinstance(error, CommitUnknown) or lost(error)


REASONS = (
    "conflict",
    "lock_timeout",
    "too_many_connections",
    "server_restart",
    "standby",
    "timeout",
    "connection",
    "commit_unknown",
    "recorded_before",
)
"""Why a transaction is made again, for those who count: `why` of an error, and what the writer finds by itself."""

_WHY = {
    **dict.fromkeys(("40001", "40P01"), "conflict"),
    "55P03": "lock_timeout",
    **dict.fromkeys(CROWDED, "too_many_connections"),
    **dict.fromkeys(("57P01", "57P02", "57P03"), "server_restart"),
    **dict.fromkeys(("57P05", "25P03", "25P04"), "timeout"),
    "25006": "standby",
}


def why(error: BaseException) -> str:
    """One of REASONS for an error that passes."""
    if isinstance(error, CommitUnknown):
        return "commit_unknown"
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _WHY:
        return _WHY[error.sqlstate]
    return "timeout" if isinstance(error, TimeoutError) else "connection"


def about_a_row(error: BaseException) -> bool:
    """Whether it is what was written that is wrong, so that something else can be written all the same."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in ("22", "23") or state == "P0001" or state in LIMITS
    return isinstance(error, TypeError | ValueError | OverflowError)


def storage_error(error: BaseException, where: str, said: str) -> StorageError:
    """The error to raise for `error`, which happened at the database `where`; `said` is its text without secrets."""
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    if state in ("53100", "53200"):
        return StorageFull(
            f"The database {where} has no space left: {said}. Nothing of this write was kept, and nothing that was "
            "acknowledged is lost. Free some space on the server; lifetimes then go on where they stand."
        )
    if state in ("XX001", "XX002"):
        return StoreCorrupt(
            f"The database {where} says that its files are damaged: {said}. Stop writing to it and restore a backup."
        )
    advice = _ADVICE.get(state)
    if advice is None and (lost(error) or isinstance(error, CommitUnknown)):
        advice = (
            "Check that the server runs and can be reached from here (host, port, firewall, sslmode); this process "
            "connects again by itself"
        )
    advice = advice or "See the server's log for what it means"
    kind = ServerAway if passes(error) and not isinstance(error, _LOCAL) else StorageError
    return kind(f"The database {where} refused: {said}. {advice}. Nothing that was acknowledged is lost.")


_LOGIN = "Check the user and the password in TICKWORK_STATE_URL, and the server's pg_hba.conf"
_RIGHTS = (
    "The login has to be a member of tickwork_app and tickwork_system (GRANT tickwork_app, tickwork_system TO it), and "
    "only who owns the schema can migrate it: docs/postgres.md"
)
_CROWDED = (
    "Other connections hold all that the server gives (max_connections, or the role's limit): lower pool_max in the "
    "URLs of the processes, stop some, or raise the server's limit"
)
_BUSY = "Another transaction holds what this one needs: look for long ones in pg_stat_activity, then try again"
_SLOW = "The statement took longer than statement_timeout: look at the server's load, or raise it in the URL"
_STANDBY = "This server takes no writes; it is a standby, or being failed over. Name the primary in the URL"

_ADVICE = {
    "28P01": _LOGIN,
    "28000": _LOGIN,
    "3D000": "Make the database first (CREATE DATABASE), or correct its name in TICKWORK_STATE_URL",
    "42501": _RIGHTS,
    "53300": _CROWDED,
    "53400": _CROWDED,
    "55P03": _BUSY,
    "40001": _BUSY,
    "40P01": _BUSY,
    "57014": _SLOW,
    "25006": _STANDBY,
}
