"""The home of the local profile: one writing process at a time, and a door for the others.

A process that runs lifetimes holds a lock on the folder; the system releases it when the process dies, however it
dies. While it is held, other processes read the database, and ask the holder through a Unix socket to pause, abort,
answer or signal: so a verb typed in another terminal acts on the lifetime that runs here.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tickwork import errors
from tickwork.errors import HomeInUse, StorageError, TickworkError, UsageError

log = logging.getLogger(__name__)

VERBS = {
    "service": ("pause", "resume", "abort", "answer", "signal", "start", "reconcile", "metrics"),
    "history": ("fork",),
    "letters": ("resend",),
    "accounts": ("apply_policies", "remove_policies", "documents", "in_force", "budgets", "budgets_of"),
    "measurements": ("measurements",),
}
"""What the door serves: names of use cases, by whose they are; what they take and give is plain data."""

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one request through the door."""

_SOCKET_PATH_LIMIT = 100


class Holder(msgspec.Struct):
    """Who holds a home."""

    pid: int
    command: str


class HomeLock:
    """The lock on a home. `acquire` raises HomeInUse with who holds it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file: int | None = None
        self.crashed = False
        """Whether the process that had it before died without giving it back. Known once it is acquired."""

    def acquire(self) -> None:
        """Makes the folder and takes the lock, or raises HomeInUse. StorageError when the folder cannot be made."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"the home {self.home} cannot be used: {error.strerror}") from None
        if not _locked(handle, self.home):
            os.close(handle)
            raise HomeInUse(_in_use(self.home)) from None
        self._file = handle
        self.crashed = os.fstat(handle).st_size > 0
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
        os.ftruncate(handle, 0)
        os.pwrite(handle, msgspec.json.encode(Holder(os.getpid(), command)), 0)

    def release(self) -> None:
        """Gives the lock back, in good order. Twice is fine."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def _locked(handle: int, home: Path) -> bool:
    """Takes the lock. Somebody who only looks (`holder`) has it for a moment too: then it is tried again."""
    for _ in range(1_000):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if holder(home) is not None:
                return False
        else:
            return True
    return False


def holder(home: Path) -> Holder | None:
    """Who holds this home now; None when nobody does."""
    try:
        handle = os.open(home / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            return msgspec.json.decode(os.pread(handle, 4096, 0), type=Holder)
        except msgspec.MsgspecError:
            return Holder(0, "")  # it has just taken the lock and not written its name yet
    else:
        return None
    finally:
        os.close(handle)


def _in_use(home: Path) -> str:
    who = holder(home)
    by = f"process {who.pid} (`{who.command}`)" if who is not None and who.pid else "another process"
    return (
        f"the home {home} is in use by {by}, and a home has one writing process at a time; wait for it, stop it, or "
        "use another home (--home DIR or TICKWORK_HOME). list, show, log, watch, pause, resume, abort, answer, "
        "reconcile and signal work meanwhile"
    )


def door_path(home: Path) -> Path:
    """The socket of a home: inside it, or in the temporary folder when that path is too long for a socket."""
    path = home / "door.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    name = hashlib.sha256(str(home).encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"tickwork-{os.getuid()}-{name}.sock"


# -- the door ---------------------------------------------------------------------------------------------------------


class Door:
    """Serves requests of other processes of the same user: one JSON line in, one JSON line out."""

    def __init__(self, home: Path, **parts: Any) -> None:
        """`parts`: who has the use cases, by the names in VERBS."""
        self._path = door_path(home)
        self._verbs = {verb: getattr(parts[part], verb) for part, verbs in VERBS.items() for verb in verbs}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Opens the socket; only the owner of the home may connect."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MESSAGE_LIMIT)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Closes the socket. Twice is fine."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                line = await reader.readline()
            except ValueError:
                line = b""  # more than the limit
            writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the other side left, or sent more than the limit
        except asyncio.CancelledError:
            pass  # the door closes, and the other side has not finished its sentence
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line)
            verb, arguments = request["verb"], request["arguments"]
            if verb not in self._verbs:
                raise UsageError(f"the door does not serve `{verb}`")
            positional, named = arguments["positional"], arguments["named"]
            result = await self._verbs[verb](*positional, **named)
        except TickworkError as error:
            return {"error": {"type": type(error).__name__, "message": str(error)}}
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            what = "the request was not understood" if line else f"a request has at most {MESSAGE_LIMIT:,} bytes"
            return {"error": {"type": "UsageError", "message": f"{what}: {error}"}}
        except Exception as error:
            log.exception("a request through the door failed")
            return {"error": {"type": "TickworkError", "message": f"{type(error).__name__}: {error}"}}
        return {"result": msgspec.to_builtins(result)}


def call(home: Path, verb: str, *positional: Any, **named: Any) -> Any:
    """Has the process that holds `home` carry out a verb; its result as plain data.

    Raises the same error as the verb; HomeInUse when the holder does not open its door.
    """
    request = msgspec.json.encode({"verb": verb, "arguments": {"positional": positional, "named": named}}) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect(str(door_path(home)))
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                reply = msgspec.json.decode(stream.readline(MESSAGE_LIMIT))
    except (OSError, msgspec.MsgspecError) as error:
        raise HomeInUse(f"{_in_use(home)}; it did not answer on its socket: {error}") from None
    if "error" in reply:
        raise _error(reply["error"])
    return reply["result"]


def _error(told: dict[str, str]) -> TickworkError:
    kind = getattr(errors, told.get("type", ""), None)
    if not isinstance(kind, type) or not issubclass(kind, TickworkError):
        return TickworkError(told["message"])
    if issubclass(kind, errors.GraphInvalid | errors.PolicyInvalid):
        return TickworkError(told["message"])  # it is made from problems; the message lists them
    return kind(told["message"])
