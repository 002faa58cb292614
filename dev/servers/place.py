"""Where the servers' files lie, and what is remembered of them between two commands.

    TICKWORK_SERVICES_DIR    (default .services/ in the repository)  one set of servers: state, data, logs, settings
    TICKWORK_SERVICES_CACHE  (default: the user's cache folder)      downloads, shared by all sets and all clones

`state.json` holds ports, passwords and processes of this set. It is read and written under a lock on the folder, so two
`up` at once start nothing twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .trouble import ServiceError

DEV = Path(__file__).resolve().parents[1]
LOCK_SECONDS = 600  # another `up` may be downloading


@dataclasses.dataclass
class Entry:
    """What is remembered of one server.

    `ports` live from the first `up` to `down`, so that a server which is started again is found under the same URL;
    `secrets` live as long as the data, which was made with them. `pid` without a live process means that it crashed.
    """

    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)
    pid: int | None = None
    born: str = ""


class State:
    """All entries of a folder. Threads that start servers save it at once, so that no process is ever forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saving = threading.Lock()
        self.engine = ""
        self.servers: dict[str, Entry] = {}
        if path.exists():
            try:
                kept = json.loads(path.read_text())
                self.engine = kept["engine"]
                self.servers = {name: Entry(**entry) for name, entry in kept["servers"].items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ServiceError(
                    f"{path} cannot be read ({error}). It says which processes are ours: end them by hand, then remove "
                    f"the folder {path.parent}"
                ) from None

    def save(self) -> None:
        """Write it in one step; readable by its owner only, because of the passwords."""
        with self._saving:
            entries = {name: dataclasses.asdict(entry) for name, entry in self.servers.items()}
            written = json.dumps({"engine": self.engine, "servers": entries}, indent=2)
            fresh = self._path.with_suffix(".new")
            write_private(fresh, written + "\n")
            fresh.replace(self._path)


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders of one set of servers."""

    folder: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> Place:
        folder = Path(os.environ.get("TICKWORK_SERVICES_DIR") or DEV.parent / ".services").absolute()
        return cls(folder, _cache())

    @property
    def name(self) -> str:
        """A short name that no other folder has."""
        return hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]

    def of(self, server: str) -> Path:
        """The folder of one server: settings and data."""
        path = self.folder / server
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, server: str) -> Path:
        path = self.folder / "logs" / f"{server}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def state(self) -> State:
        return State(self.folder / "state.json")

    @contextlib.contextmanager
    def locked(self) -> Iterator[State]:
        """The state, with nobody else at work in this folder. Raises ServiceError when that takes too long."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusively(self.folder / "lock"):
            yield self.state()

    def wipe(self) -> None:
        """Remove data, settings, logs and state, and whatever a server keeps elsewhere; the lock stays."""
        for path in sorted(self.folder.iterdir()):
            if path.name == "lock":
                continue
            if path.is_symlink() or path.is_file():
                path.unlink()
                continue
            for link in (inner for inner in path.iterdir() if inner.is_symlink()):
                shutil.rmtree(link.resolve(), ignore_errors=True)
            shutil.rmtree(path)


def _cache() -> Path:
    if chosen := os.environ.get("TICKWORK_SERVICES_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        # Not below /root: PostgreSQL refuses to run as root, and who runs it instead cannot look in there.
        return Path("/var/cache/tickwork-services")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "tickwork-services"


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold this lock file; the system frees it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"another dev/services has held {path} for {LOCK_SECONDS} s; look for it with `fuser {path}`"
                    ) from None
                time.sleep(0.1)
        yield


def write_private(path: Path, text: str) -> None:
    """A file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def everyone_may_enter(path: Path) -> bool:
    """Whether another user can get to this path."""
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])
