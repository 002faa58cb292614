"""What happened in a simulated run, line by line, and a digest of it all.

A line is virtual time, place and deed. Two runs of one seed have the same lines; the digest says so without keeping
them. The last lines are kept for whoever looks at a failure, all of them when they are asked for.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable

LAST = 60
"""Lines that are kept of a run that nobody watches."""


class Trace:
    """The lines of one run."""

    def __init__(self, time: Callable[[], float], *, keep_all: bool = False) -> None:
        self._time = time
        self._digest = hashlib.blake2b(digest_size=16)
        self.lines: deque[str] = deque(maxlen=None if keep_all else LAST)

    def __call__(self, place: str, what: str) -> None:
        """Notes what is done, where, now."""
        line = f"{self._time():11.6f}  {place:<7} {what}"
        self.lines.append(line)
        self._digest.update(line.encode() + b"\n")

    def aside(self, place: str, what: str) -> None:
        """A line for readers that is no part of the digest."""
        self.lines.append(f"{self._time():11.6f}  {place:<7} {what}")

    @property
    def digest(self) -> str:
        """Of all lines so far, in hex."""
        return self._digest.hexdigest()


class LogReader(logging.Handler):
    """Reads what Tickwork logs meanwhile: into the trace of a run that is watched, and for what nobody expected."""

    def __init__(self, trace: Trace, unexpected: Callable[[str], None], *, watched: bool) -> None:
        super().__init__(logging.WARNING)
        self._trace, self._unexpected, self._watched = trace, unexpected, watched

    def emit(self, record: logging.LogRecord) -> None:
        """A traceback in the log is a bug that somebody swallowed."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None:
            self._unexpected(f"{record.getMessage()} [{type(error).__name__}: {error}{_where(error)}]")
        elif self._watched:
            self._trace.aside("log", f"{record.levelname.lower()}: {record.getMessage()}")


def _where(error: BaseException) -> str:
    """The innermost place of an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f", {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
