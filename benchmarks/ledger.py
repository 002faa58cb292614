"""The ledger of W5: which calls of the task were made, written down before the task returns; and the kill."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


class Ledger:
    """Off until W5 opens it. In its first life the process kills itself in call number `kill_at`."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._kill_at: int | None = None
        self.went_on: float | None = None
        """When (seconds since the epoch) the first call of this process was made."""

    def open(self, file: Path, kill_at: int | None) -> None:
        """From now on calls are written down."""
        self._file, self._kill_at = file, kill_at

    def call(self, i: int) -> None:
        """The task was called with `i`."""
        if self._file is None:
            return
        if self.went_on is None:
            self.went_on = time.time()
        with self._file.open("a") as file:
            file.write(f"{i}\n")
        if i == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def calls(file: Path) -> list[int]:
        """All calls of all lives, in order."""
        return [int(line) for line in file.read_text().split()]


LEDGER = Ledger()
