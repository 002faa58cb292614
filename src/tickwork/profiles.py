"""Profiles: which adapter serves which port. The same records, guardrails and decisions run on all of them.

`local` is one folder with one writing process at a time, `test` is memory, `cloud` is four servers that any number of
processes share. docs/profiles.md says how to choose.

Adapters are found by URL scheme, first among those shipped here, then among the entry points `tickwork.bus`,
`tickwork.state`, `tickwork.blob` and `tickwork.kv`, so that a third party can add one without asking us. Each is a
callable `(url, clock) -> adapter`, imported when it is used.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from tickwork.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwork.ports import BlobStore, Clock, EventBus, KVStore, StateAdapter

DEFAULT_HOME = ".tickwork"

NAMES = ("local", "cloud", "test")
"""The profiles that there are."""

VARIABLES = {
    "bus_url": "TICKWORK_BUS_URL",
    "state_url": "TICKWORK_STATE_URL",
    "blob_url": "TICKWORK_BLOB_URL",
    "kv_url": "TICKWORK_KV_URL",
}
"""Which variable of the environment gives which URL."""

SERVERS = {
    "bus_url": ("Kafka", "kafka://HOST:9092"),
    "state_url": ("Postgres", "postgresql://USER:PASSWORD@HOST:5432/DATABASE"),
    "blob_url": ("S3 or Google Cloud Storage", "s3://BUCKET?region=REGION, or gs://BUCKET"),
    "kv_url": ("Redis", "redis://HOST:6379/0"),
}
"""What the cloud profile needs, and the form of its URL."""

EMBEDDED = ("memory", "sqlite", "file")
"""Schemes of adapters that live in one process or on one machine's disk: separate processes do not share them."""


def _memory_bus(_url: str, _clock: Clock) -> EventBus:
    from tickwork.adapters.bus.memory import MemoryBus

    return MemoryBus()


def _kafka(url: str, clock: Clock) -> EventBus:
    try:
        from tickwork.adapters.bus.kafka import KafkaBus
    except ModuleNotFoundError as error:
        raise MissingExtra.of("a Kafka bus needs", "kafka", error) from None
    return KafkaBus(url, clock)


def _sqlite(url: str, clock: Clock, *, readonly: bool = False) -> StateAdapter:
    from tickwork.adapters.state.sqlite import SqliteStore

    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path:
        raise UsageError(f"`{url}` names no database file: write sqlite:///relative.db or sqlite:////absolute/path.db")
    return SqliteStore(path, clock, readonly=readonly)


def _postgres(url: str, clock: Clock, *, readonly: bool = False) -> StateAdapter:
    try:
        from tickwork.adapters.state.postgres import PostgresStore
    except ModuleNotFoundError as error:
        raise MissingExtra.of("a Postgres database needs", "postgres", error) from None
    return PostgresStore(url, clock, readonly=readonly)


def _files(url: str, _clock: Clock) -> BlobStore:
    from tickwork.adapters.blob.fs import FileBlobs

    return FileBlobs(Path(url.removeprefix("file://")))


def _objects(url: str, clock: Clock) -> BlobStore:
    from tickwork.adapters.blob.objects import ObjectBlobs

    return ObjectBlobs(url, clock)


def _redis(url: str, clock: Clock) -> KVStore:
    from tickwork.adapters.kv.redis import RedisKV

    return RedisKV(url, clock)


def _memory_kv(_url: str, clock: Clock) -> KVStore:
    from tickwork.adapters.kv.memory import MemoryKV

    return MemoryKV(clock)


SHIPPED: dict[str, dict[str, Callable[..., Any]]] = {
    "bus": {"memory": _memory_bus, "kafka": _kafka},
    "state": {"sqlite": _sqlite, "postgresql": _postgres, "postgres": _postgres},
    "blob": {"file": _files, "s3": _objects, "gs": _objects},
    "kv": {"memory": _memory_kv, "redis": _redis, "rediss": _redis},
}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named set of adapter URLs. `home` is the folder of an embedded profile, with one writing process at a time."""

    name: str
    bus_url: str
    state_url: str
    blob_url: str
    kv_url: str
    home: Path | None = None

    @classmethod
    def local(cls, home: Path | str | None = None) -> Profile:
        """Everything in one folder: SQLite (WAL), files, an in-process queue. Default: TICKWORK_HOME, `.tickwork`."""
        folder = Path(home or os.environ.get("TICKWORK_HOME") or DEFAULT_HOME).absolute()
        return cls(
            name="local",
            bus_url="memory://",
            state_url=f"sqlite:///{folder / 'tickwork.db'}",
            blob_url=f"file://{folder / 'blobs'}",
            kv_url="memory://",
            home=folder,
        )

    @classmethod
    def test(cls, blobs: Path | str | None = None) -> Profile:
        """Everything in memory, blobs in a temporary folder: gone with the process."""
        folder = Path(blobs) if blobs is not None else Path(tempfile.mkdtemp(prefix="tickwork-blobs-"))
        return cls(
            name="test",
            bus_url="memory://",
            state_url="sqlite:///:memory:",
            blob_url=f"file://{folder.absolute()}",
            kv_url="memory://",
        )

    @classmethod
    def cloud(cls, environment: Mapping[str, str] | None = None) -> Profile:
        """Kafka, Postgres, an object store and Redis, as the four TICKWORK_*_URL say: for any number of processes.

        Raises UsageError that names all of them that are missing, or that other processes could not share.
        """
        given = os.environ if environment is None else environment
        problems = cloud_problems(given)
        if problems:
            listed = "".join(f"\n    {name} {wrong}: {server}, {form}" for name, wrong, server, form in problems)
            raise UsageError(
                f"the profile cloud needs four servers, each named by a variable of the environment:{listed}\n"
                "docs/profiles.md says more; `--profile local` needs none of them"
            )
        urls = _urls(given)
        return msgspec.convert({"name": "cloud", **urls}, cls)

    @classmethod
    def from_environment(cls, name: str | None = None, home: Path | str | None = None) -> Profile:
        """The profile that TICKWORK_PROFILE names (default local), with any TICKWORK_*_URL in place of its own."""
        wanted = name or os.environ.get("TICKWORK_PROFILE") or "local"
        if wanted not in NAMES:
            raise UsageError(f"there is no profile `{wanted}`; use `local`, `cloud` or `test`")
        if wanted == "cloud":
            return cls.cloud()
        profile = cls.local(home) if wanted == "local" else cls.test()
        return msgspec.structs.replace(profile, **_urls(os.environ))

    @property
    def alone(self) -> bool:
        """Whether one process does everything: nobody else hears what is published on its bus."""
        return _scheme(self.bus_url) == "memory"

    def open_bus(self, clock: Clock) -> EventBus:
        """The event bus of this profile, not started."""
        bus: EventBus = _open("bus", self.bus_url, clock)
        return bus

    def open_store(self, clock: Clock, *, readonly: bool = False) -> StateAdapter:
        """The state store of this profile, not started; `readonly` beside a process that writes."""
        store: StateAdapter = _open("state", self.state_url, clock, readonly=readonly)
        return store

    def open_blobs(self, clock: Clock) -> BlobStore:
        """The blob store of this profile, not started."""
        blobs: BlobStore = _open("blob", self.blob_url, clock)
        return blobs

    def open_kv(self, clock: Clock) -> KVStore:
        """The key-value store of this profile, not started."""
        kv: KVStore = _open("kv", self.kv_url, clock)
        return kv


def cloud_problems(environment: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """What the cloud profile lacks: the variable, what is wrong with it, what it is to name, in which form."""
    found = []
    for field, (server, form) in SERVERS.items():
        name, url = VARIABLES[field], environment.get(VARIABLES[field], "")
        if not url:
            found.append((name, "is not set", server, form))
        elif _scheme(url) in EMBEDDED:
            wrong = f"is {_scheme(url)}://, which no other process could share"
            found.append((name, wrong, server, form))
    return found


def _urls(environment: Mapping[str, str]) -> dict[str, str]:
    return {field: environment[name] for field, name in VARIABLES.items() if environment.get(name)}


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _open(port: str, url: str, clock: Clock, **options: Any) -> Any:
    """Makes the adapter that the URL's scheme names. Raises UsageError when there is none."""
    scheme = _scheme(url)
    make = SHIPPED[port].get(scheme)
    if make is None:
        for entry in entry_points(group=f"tickwork.{port}", name=scheme):
            make = entry.load()
    if make is None:
        known = ", ".join(f"{name}://" for name in SHIPPED[port])
        raise UsageError(
            f"no adapter serves the {port} at `{shown(url)}`; shipped: {known}; others come as entry points"
        )
    return make(url, clock, **options)


def shown(url: str) -> str:
    """As much of a URL as people may see: passwords stand before the @, or in the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{_scheme(url)}:..."
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
