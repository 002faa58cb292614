"""The three standard streams, whoever opened them or did not.

Data goes to stdout, and only ours: while an author's code is loaded or runs, whatever it writes to stdout goes to
stderr instead (`authors_turn`). What cannot be written is one clear message (`StdoutLost`), and a stream that was
closed before this process began is never taken by the next file that is opened, the database among them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tickwork.sdk.loading import BoundGraph

STDIN, STDOUT, STDERR = 0, 1, 2


class StdoutLost(OSError):
    """Stdout takes nothing any more. `left`: its reader went away, as `| head` does, which is no error."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.left = isinstance(cause, BrokenPipeError)


class _Stdout(io.FileIO):
    """Stdout that says `StdoutLost` where the system says OSError: nobody takes it for a fault of something else."""

    def write(self, data: object, /) -> int:
        """As FileIO. Raises StdoutLost."""
        try:
            return super().write(data) or 0  # type: ignore[arg-type]  # bytes of any kind, as FileIO takes them
        except OSError as error:
            raise StdoutLost(error) from None


def prepare() -> None:
    """Makes sure that there are three streams, and that stdout tells its errors apart. Once, when a process begins."""
    for descriptor, flags in ((STDIN, os.O_RDONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        _hold(descriptor, flags)
    if sys.stdin is None:
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - so does it
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    errors = None if sys.stdout is None else sys.stdout.errors
    raw = _Stdout(STDOUT, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=raw.isatty())


def _hold(descriptor: int, flags: int) -> None:
    """Puts the null device where no file is open; a stdout that is held so cannot be written, and says it."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, flags)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def forget_stdout() -> None:
    """What is still buffered for stdout goes nowhere, without another complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextlib.contextmanager
def authors_turn() -> Iterator[None]:
    """While an author's code is loaded or runs, stdout is stderr: for `print` and for what writes to descriptor 1."""
    _flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        os.dup2(kept, STDOUT)
        os.close(kept)


def _flush() -> None:
    """Empties what is buffered for descriptor 1, before it changes its meaning."""
    for stream in {id(one): one for one in (sys.stdout, sys.__stdout__) if one is not None}.values():
        with contextlib.suppress(ValueError):
            stream.flush()


def load(spec: str | Path) -> BoundGraph:
    """`load_graph`, with the author's prints on stderr."""
    from tickwork.sdk.loading import load_graph

    with authors_turn():
        return load_graph(str(spec))
