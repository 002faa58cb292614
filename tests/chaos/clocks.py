"""Wall clocks that are wrong: each process of a world has one of its own, which can be set while it runs.

A library that is loaded before all others answers for the system's clock and adds what a file says. Monotonic clocks
stay what they are: they are what the system keeps right.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

WRONG = 30.0
"""Seconds by which a clock is ahead or behind at most: ten leases."""

REREAD = 1
"""Seconds after which a process has noticed that its clock was set."""


class Clocks:
    """The clocks of one world's processes, by the processes' names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "clocks"
        self._folder.mkdir()
        self._library = _library()

    def environment(self, name: str) -> dict[str, str]:
        """With which a process has to be started, so that its clock is what is set here."""
        file = self._file(name)
        if not file.exists():
            self.set(name, 0.0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": str(REREAD),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # what older versions of the library call it
        }

    def set(self, name: str, ahead: float) -> None:
        """Sets a clock so many seconds ahead of the right time, or behind it."""
        fresh = self._file(name).with_suffix(".fresh")
        fresh.write_text(f"{ahead:+.3f}")
        fresh.replace(self._file(name))  # a process never reads half of it

    def _file(self, name: str) -> Path:
        return self._folder / name.replace(" ", "-")


def _library() -> Path:
    found = importlib.util.find_spec("libfaketime")
    assert found is not None, "the extra dev has libfaketime, on Linux"
    assert found.origin is not None
    libraries = sorted(Path(found.origin).parent.glob("**/libfaketime.so*"))
    assert libraries, f"no library beside {found.origin}: wrong clocks need Linux"
    return libraries[0]
