"""`tickwork ...` in a process that is forked from one that has imported it: half a second less for each command.

The quick tests run hundreds of commands, and most of what a short one costs is imports. Each has a process, streams, an
environment and a folder of its own all the same. Tests that are about the executable itself, or talk to it while it
runs, start `COMMAND` (see process).
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cli.process import COMMAND, Ran

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.cli.forked_imports"])

_WRITE = os.O_WRONLY | os.O_CREAT


def run(arguments: tuple[str, ...], cwd: Path, env: dict[str, str], stdin: str, timeout: float) -> Ran:
    """Runs a command to its end. Raises TimeoutExpired, as `subprocess.run`."""
    with tempfile.TemporaryDirectory() as folder:
        given, out, err = (Path(folder, name) for name in ("in", "out", "err"))
        given.write_text(stdin, encoding="utf-8")
        streams = [(given, os.O_RDONLY), (out, _WRITE), (err, _WRITE)]
        process = _FORKS.Process(target=_become, args=(arguments, cwd, env, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([*COMMAND, *arguments], timeout)
        return Ran(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _become(arguments: tuple[str, ...], cwd: Path, env: dict[str, str], streams: list[tuple[Path, int]]) -> None:
    """Makes this process what `python -m tickwork.cli.main ARGUMENTS` is after its imports."""
    for descriptor, (path, flags) in enumerate(streams):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["tickwork", *arguments]
    sys.path[0] = os.fspath(cwd)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]  # the executable opens them anew
    from tickwork.cli.main import main

    main()
