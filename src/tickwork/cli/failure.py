"""What a person sees when a command cannot do what it was asked to, and the exit code that a script sees."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tickwork.errors import AnswerRefused, Conflict, GraphInvalid, PolicyInvalid, TickworkError, UsageError

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from tickwork.model.problems import Problem

INTERRUPTED = 130


class Refusal(UsageError):
    """Words that the command line cannot follow, with what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class WrongPerson(AnswerRefused):
    """An answer by somebody who is not asked, with how to say who answers."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class GraphUnavailable(Conflict):
    """A lifetime's graph cannot be loaded as it was: its code is not known, or it has changed since."""

    code: ClassVar[str] = "graph_unavailable"


def report(error: TickworkError, *, as_json: bool) -> int:
    """Prints an error that speaks to a person; returns its exit code."""
    from tickwork.cli.output import as_called

    hint = str(getattr(error, "hint", ""))
    if as_json:
        document: dict[str, Any] = {"code": error.code, "message": str(error), "hint": hint}
        if isinstance(error, GraphInvalid | PolicyInvalid):
            document["problems"] = [problem_json(p) for p in error.problems]
        _print_json({"error": document})
    print(as_called(str(error)), file=sys.stderr)
    if hint:
        print(f"    {as_called(hint)}", file=sys.stderr)
    if debugging():
        traceback.print_exception(error)
    return error.exit_code


def usage(error: CycloptsError, *, as_json: bool) -> int:
    """Prints what the parser did not understand, with the nearest thing that it would; exit code 2."""
    message = " ".join(str(error).split())
    chain = " ".join(["tickwork", *(error.command_chain or ())])
    hint = f"See `{chain} --help`."
    if as_json:
        _print_json({"error": {"code": "invalid_argument", "message": message, "hint": hint}})
    from tickwork.cli.output import as_called

    print(f"{message}\n    {as_called(hint)}", file=sys.stderr)
    return 2


def crash(error: Exception, *, as_json: bool, home: str = "") -> int:
    """A fault of ours: one line for the person, the traceback into a file; exit code 1."""
    text = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    where = _keep(text, home)
    message = f"tickwork failed: {what}"
    hint = f"This is a fault of Tickwork. The details are in {where}; please report it with that file."
    if as_json:
        _print_json({"error": {"code": "internal", "message": message, "hint": hint}})
    print(f"{message}\n    {hint}", file=sys.stderr)
    if debugging():
        print(text, file=sys.stderr)
    return 1


def debugging() -> bool:
    """Whether the person asked for tracebacks."""
    return os.environ.get("TICKWORK_DEBUG", "") not in ("", "0")


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem for machines."""
    return {
        "file": problem.location.file,
        "line": problem.location.line,
        "column": problem.location.column,
        "code": problem.code,
        "subject": problem.subject,
        "message": problem.message,
        "hint": problem.hint,
    }


def _keep(text: str, home: str) -> str:
    """Writes a traceback into the home, or into the temporary folder when the home cannot take it."""
    from tickwork.clock import SystemClock

    name = f"crash-{SystemClock().now()}.txt"
    named = Path(home or os.environ.get("TICKWORK_HOME") or ".tickwork")
    for folder in (named, Path(tempfile.gettempdir())):
        try:
            path = folder / name
            path.write_text(text)
        except OSError:
            continue
        return str(path)
    print(text, file=sys.stderr)
    return "the lines above (no folder could take them)"


def _print_json(document: Any) -> None:
    from tickwork.cli.output import emit_json

    emit_json(document)
