"""The effect ledger: an append-only file in which the steps of a workload write down that they were called.

No engine knows of it, so none can be judged too kindly. A life of the worker opens it, appends, and dies at any moment;
the campaign reads what all lives wrote, in order.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Literal

import msgspec


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thing that happened.

    `open`: the engine is open, in life `life`. `begun`: the engine promised to keep the run. `call`, `back`: user code
    was entered, and is about to return. `forgotten`: the engine denies a run that it had begun. `done`: the engine
    answered for the run with `value`.
    """

    kind: Literal["open", "begun", "call", "back", "forgotten", "done"]
    life: int
    at: float
    """Seconds since the epoch."""
    run: str = ""
    rank: int = 0
    """How many steps of the run lie before this one. Branches of a fan-out have the same rank."""
    branch: int = 0
    value: Any = None


class Ledger:
    """The ledger of one life of the worker."""

    def __init__(self, file: Path, life: int) -> None:
        self._life = life
        torn = file.exists() and not file.read_bytes().endswith(b"\n")
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if torn:
            os.write(self._file, b"\n")

    def write(self, kind: Literal["open", "begun", "forgotten", "done"], run: str = "", value: Any = None) -> None:
        """Appends; when this returns, the line is on disk."""
        self._append(Line(kind=kind, life=self._life, at=time.time(), run=run, value=value))
        os.fsync(self._file)

    async def call(self, run: str, rank: int, branch: int) -> None:
        """User code was entered; when this returns, the line is on disk.

        The wait is in a thread: an engine that writes behind the run, on the same loop, must not be held up by us.
        """
        self._append(Line(kind="call", life=self._life, at=time.time(), run=run, rank=rank, branch=branch))
        await asyncio.to_thread(os.fsync, self._file)

    def back(self, run: str, rank: int, branch: int) -> None:
        """User code returns. Not synced: a SIGKILL leaves what was written, and this must not take time from it."""
        self._append(Line(kind="back", life=self._life, at=time.time(), run=run, rank=rank, branch=branch))

    def _append(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


class Reader:
    """Reads the ledger while it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self._decoder = msgspec.json.Decoder(Line)

    def new(self) -> list[Line]:
        """The whole lines since the last call. One that a kill tore is left out: its step had not begun to work."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [line for each in whole.splitlines() if (line := self._decoded(each)) is not None]

    def _decoded(self, data: bytes) -> Line | None:
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError:
            return None
