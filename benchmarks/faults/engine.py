"""What the report asks of an engine, and which engines there are."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec


class Engine(Protocol):
    """One engine in one life of the worker. Opening it is the start of the process: what recovers by itself does."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def begin(self, run: str) -> bool:
        """Starts the run, or takes up what a start cut short by a kill has left. True: the engine has it for sure."""
        ...

    async def known(self, run: str) -> bool:
        """Whether the engine holds the run."""
        ...

    async def resume(self, run: str) -> None:
        """The documented call that makes a run go on which was cut short."""
        ...

    async def result(self, run: str) -> dict[str, Any]:
        """Waits for the run's result and does nothing that could move it on."""
        ...


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """An engine of the report. `packages`: what has to be installed, first the one whose version is shown."""

    name: str
    packages: tuple[str, ...]
    by_itself: bool
    """Whether it says that runs go on when the process starts; if not, each life after a kill calls `resume`."""
    said: str
    """How its documentation says one recovers, and what is on disk when."""

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if _version(name) is None]

    def version(self) -> str:
        """Of the engine itself."""
        return _version(self.packages[0]) or "?"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


LANGGRAPH = ("langgraph", "langgraph-checkpoint-sqlite")
CONTESTANTS: dict[str, Contestant] = {
    each.name: each
    for each in (
        Contestant(
            name="tickwork",
            packages=("tickwork",),
            by_itself=True,
            said="local profile; the process binds its graphs, lifetimes go on",
        ),
        Contestant(
            name="dbos",
            packages=("dbos",),
            by_itself=True,
            said="SQLite; DBOS.launch() recovers what is pending",
        ),
        Contestant(
            name="langgraph-sync",
            packages=LANGGRAPH,
            by_itself=False,
            said='AsyncSqliteSaver, durability="sync"; ainvoke(None) on the thread',
        ),
        Contestant(
            name="langgraph-default",
            packages=LANGGRAPH,
            by_itself=False,
            said='AsyncSqliteSaver, durability left alone ("async"); ainvoke(None) on the thread',
        ),
    )
}


def engine(name: str, home: Path) -> Engine:
    """The engine on its files in `home`. Each is imported only here: the others need not be installed."""
    if name == "tickwork":
        from benchmarks.faults.on_tickwork import OnTickwork

        return OnTickwork(home)
    if name == "dbos":
        from benchmarks.faults.on_dbos import OnDBOS

        return OnDBOS(home)
    from benchmarks.faults.on_langgraph import OnLangGraph

    return OnLangGraph(home, durability="sync" if name == "langgraph-sync" else None)
