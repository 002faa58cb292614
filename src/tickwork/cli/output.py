"""How things look: JSON for machines, tables for people, and the words for times, money and states."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from tickwork.model.records import Execution

Line: TypeAlias = "dict[str, Text | str]"
"""A row of a listing: its cells by column; what it has nothing for is left out."""

PIPED_WIDTH = 200
"""Columns of a table that goes into a pipe or a file: wide enough that nothing is cut."""

STATUS_STYLE = {
    "PENDING": "dim",
    "RUNNING": "cyan",
    "WAITING": "yellow",
    "PAUSED": "yellow",
    "COMPLETED": "green",
    "FAILED": "red",
    "ABORTED": "red",
    "SUCCEEDED": "green",
    "TIMED_OUT": "red",
    "CANCELLED": "dim",
}
STATUS_GLYPH = {"SUCCEEDED": "✓", "FAILED": "✗", "TIMED_OUT": "⧗", "CANCELLED": "∅"}
KIND_GLYPH = {"task": "■", "plan": "◆"}


@lru_cache(maxsize=1)
def out() -> Console:
    """Where data for people goes."""
    return _console(stderr=False)


@lru_cache(maxsize=1)
def err() -> Console:
    """Where everything that is not data goes."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, width=width, soft_wrap=False)


_VERBS = "demo|new|doctor|run|graph|lifetimes|inbox|guardrails|usage|metrics|dead-letters|schema"
_COMMAND = re.compile(rf"(?<![./\w-])tickwork (?=(?:{_VERBS})\b)")


@lru_cache(maxsize=1)
def program() -> str:
    """The executable as this shell finds it: `tickwork`, or the path that it was called by when PATH has none."""
    called = sys.argv[0] if sys.argv else ""
    if shutil.which("tickwork") or not called:
        return "tickwork"
    if Path(called).name == "tickwork":
        return called
    if Path(called).name in ("__main__.py", "main.py"):
        return f"{min(sys.executable, os.path.relpath(sys.executable), key=len)} -m tickwork"
    return "tickwork"


def as_called(text: str) -> str:
    """A message whose commands can be copied: `tickwork run` as it has to be typed in this shell."""
    name = program()
    return text if name == "tickwork" else _COMMAND.sub(lambda _: f"{name} ", text)


def say(text: str, style: str = "") -> None:
    """One message to the person, on stderr. An indented one is a command to copy: it is never broken into lines."""
    text = as_called(text)
    err().print(text, style=style or None, soft_wrap=text.startswith("    ") or not err().is_terminal)


def show(*parts: RenderableType) -> None:
    """A table or a text for people on stdout; without padding at the line's end when it goes into a pipe."""
    console = out()
    if console.is_terminal:
        for part in parts:
            console.print(part)
        return
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    emit_text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def emit_json(value: Any) -> None:
    """One document on stdout."""
    _write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def emit_lines(values: Iterable[Any]) -> None:
    """One document a line on stdout."""
    for value in values:
        _write(msgspec.json.encode(value) + b"\n")


def emit_text(text: str) -> None:
    """Text on stdout, just as it is, ending in a newline."""
    _write((text if text.endswith("\n") else text + "\n").encode(errors="replace"))


def emit_value(value: Any) -> None:
    """A result on stdout: text as it is, bytes as they are, everything else as JSON."""
    if isinstance(value, str):
        emit_text(value)
    elif isinstance(value, bytes):
        _write(value)
    else:
        emit_json(value)


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = (), shrink: str = "") -> Table:
    """A table without boxes: a heading and rows.

    In a narrow terminal the column `shrink` gives way first (its cells are made by `cell`); those in `fold` wrap.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in fold and name != shrink,
            overflow="fold" if name in fold else "ellipsis",
        )
    return made


def listing(columns: Sequence[str], lines: Sequence[Line], *, right: Sequence[str] = (), shrink: str) -> Table:
    """A table of lines; a column that no line uses is left out, it would only take room from `shrink`."""
    used = [name for name in columns if name == shrink or any(line.get(name) for line in lines)]
    made = table(*used, right=right, shrink=shrink)
    for line in lines:
        made.add_row(*(line.get(name, "") for name in used))
    return made


def cell(text: str, style: str = "") -> Text:
    """A cell that is cut, not wrapped, when its column has to give way."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def milliseconds(value: float) -> str:
    """A span of time as people say it."""
    value = max(value, 0)
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1_000:
        return f"{value:.0f} ms"
    seconds = value / 1_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def span(microseconds: int) -> str:
    """A span in microseconds as people say it."""
    return milliseconds(microseconds / 1_000)


def took(item: Execution) -> str:
    """How long an attempt ran; nothing for one that was cancelled before it started."""
    return span(item.finished_at - item.started_at) if item.started_at else ""


def clock_time(microseconds: int) -> str:
    """The time of day here, to the millisecond."""
    return datetime.fromtimestamp(microseconds / 1_000_000).astimezone().strftime("%H:%M:%S.%f")[:-3]


def day_time(microseconds: int) -> str:
    """Date and time here, to the second."""
    return datetime.fromtimestamp(microseconds / 1_000_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def money(nano_usd: int) -> str:
    """An amount in billionths of a US dollar, in dollars, with as many digits as it has and at least two."""
    dollars, rest = divmod(nano_usd, 1_000_000_000)
    digits = f"{rest:09d}".rstrip("0")
    return f"${dollars:,}.{digits:0<2}"


def count(number: int, noun: str) -> str:
    """`1 step`, `12 steps`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """For each lifetime id its shortest prefix (13 characters or more) that no other of these ids has."""
    made = {}
    for one in ids:
        length = 13
        while length < len(one) and sum(other[:length] == one[:length] for other in ids) > 1:
            length += 1
        made[one] = one[:length]
    return made


def one_line(value: Any, limit: int = 60) -> str:
    """A value in at most `limit` characters, for a table's cell."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
