"""Processes that outlive the command which started them, and are ended only when they are surely ours.

A process is known by its pid and the moment of its birth: a pid alone is given to another process sooner or later.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .place import Entry

MAX_LOG_BYTES = 20_000_000


@dataclass(frozen=True)
class Launch:
    """How a server is started. `user`, of a root who must not run it, is a name on this machine."""

    argv: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


def start(launch: Launch, log: Path) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that a Ctrl-C in this terminal does not reach it."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} started by dev/services\n".encode())
        output.flush()
        return subprocess.Popen(
            [os.fspath(word) for word in launch.argv],
            cwd=launch.cwd,
            env={**os.environ, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=launch.user,
            group=group_of(launch.user),
            extra_groups=None if launch.user is None else [],
        )


def group_of(user: str | None) -> int | None:
    """The group that a subprocess of this user runs in."""
    return None if user is None else pwd.getpwnam(user).pw_gid


def birth(pid: int) -> str:
    """When this process was born, in words of the system; empty when it is gone, or dead and not yet buried."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"
    listed = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    state, _, born = listed.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else born.strip()


def is_alive(entry: Entry) -> bool:
    """Whether the process that we started still runs."""
    return entry.pid is not None and bool(entry.born) and birth(entry.pid) == entry.born


def stop(entry: Entry, grace_seconds: float, ask: signal.Signals) -> None:
    """Ask it to end, kill it after `grace_seconds`, return when it is gone. A stranger with its pid is left alone."""
    for sign, seconds in ((ask, grace_seconds), (signal.SIGKILL, 10.0)):
        if entry.pid is None or not is_alive(entry):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.pid, sign)
            if sign == ask:
                os.kill(entry.pid, signal.SIGCONT)  # a frozen one cannot hear
        deadline = time.monotonic() + seconds
        while is_alive(entry) and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(entry.pid, os.WNOHANG)  # when this very command started it
            time.sleep(0.05)


def tail(log: Path, lines: int) -> str:
    """The last lines of a log file."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400 * lines))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
