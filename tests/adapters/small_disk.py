"""A disk that is full after a megabyte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kibibytes: int = 1024) -> Iterator[Path]:
    """A file system of this size, mounted on a folder inside `folder`. Only root may mount one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk; test_a_full_database covers what the others can")
    disk = folder / "small-disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
