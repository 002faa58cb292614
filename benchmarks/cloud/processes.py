"""CPU time and memory of processes and of all that they started, as the kernel shows them (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

Usage = dict[str, float]
"""By name of a role or a server: seconds of CPU, or bytes."""


def cpu_seconds(named: Mapping[str, Iterable[int]]) -> Usage:
    """Seconds of CPU so far, of these processes and their children, those that have ended included."""
    children = _children()
    return {name: sum(_spent(each, children) for each in pids) for name, pids in named.items()}


def resident_bytes(named: Mapping[str, Iterable[int]]) -> Usage:
    """Bytes of memory held now. What the processes of one server share is counted once."""
    children = _children()
    found: Usage = {}
    for name, pids in named.items():
        private, shared = 0, 0
        for pid in (each for root in pids for each in _family(root, children)):
            status = _status(pid)
            private += status.get("RssAnon", 0) + status.get("RssFile", 0)
            shared = max(shared, status.get("RssShmem", 0))
        found[name] = float(private + shared)
    return found


def less(after: Usage, before: Usage) -> Usage:
    """What was used between two looks."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _fields(int(folder.name))):
            found.setdefault(int(fields[1]), []).append(int(folder.name))
    return found


def _family(pid: int, children: dict[int, list[int]]) -> list[int]:
    return [pid, *(each for child in children.get(pid, ()) for each in _family(child, children))]


def _spent(root: int, children: dict[int, list[int]]) -> float:
    """Of the process, and of the ended ones whom it or its children waited for."""
    ticks = 0
    for pid in _family(root, children):
        if fields := _fields(pid):
            ticks += sum(int(each) for each in fields[11:15])
    return ticks / TICK


def _fields(pid: int) -> list[str]:
    """What stands in /proc/PID/stat from the state on; [] when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
