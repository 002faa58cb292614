"""The workloads on other engines, each in a file of its own that is imported only when it is measured.

Every one is used as its documentation says, with the storage that it offers on one machine, so that each step is on
disk before the next step of its run starts (docs/benchmarks.md says where that is less than it sounds).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from benchmarks.repetition import Engine

POSTGRES_URL = "TICKWORK_POSTGRES_URL"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """An engine to measure beside Tickwork. `packages`: what it needs, first the one whose version is shown."""

    name: str
    packages: tuple[str, ...]
    storage: str
    postgres: bool = False
    """Whether it needs a server, named in TICKWORK_POSTGRES_URL."""

    def absent(self) -> str | None:
        """Why it cannot be measured here; None: it can."""
        missing = [name for name in self.packages if _version(name) is None]
        if missing:
            return f"{', '.join(missing)} is not installed: pip install '.[bench]'"
        if self.postgres and not os.environ.get(POSTGRES_URL):
            return f"it needs Postgres: set {POSTGRES_URL} to a server where databases may be created"
        return None

    def version(self) -> str:
        """Of the engine itself."""
        return _version(self.packages[0]) or "?"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


PEERS: dict[str, Peer] = {
    each.name: each
    for each in (
        Peer(
            name="langgraph",
            packages=("langgraph", "langgraph-checkpoint-sqlite"),
            storage="SQLite saver, durability sync",
        ),
        Peer(name="dbos", packages=("dbos",), storage="SQLite"),
        Peer(name="burr", packages=("apache-burr", "aiosqlite"), storage="SQLite, asynchronous persister"),
        Peer(name="absurd", packages=("absurd-sdk", "absurdctl", "psycopg"), storage="Postgres", postgres=True),
    )
}


@contextmanager
def scene(name: str, home: Path) -> Iterator[None]:
    """What a repetition needs beside its folder."""
    if name == "absurd":
        from benchmarks.peers.absurd import database

        with database(home):
            yield
    else:
        yield


def engine(name: str, home: Path) -> Engine:
    """The peer on its files in `home`."""
    if name == "langgraph":
        from benchmarks.peers.langgraph import OnLangGraph

        return OnLangGraph(home)
    if name == "dbos":
        from benchmarks.peers.dbos import OnDBOS

        return OnDBOS(home)
    if name == "burr":
        from benchmarks.peers.burr import OnBurr

        return OnBurr(home)
    from benchmarks.peers.absurd import OnAbsurd

    return OnAbsurd(home)
