"""Values that are typed on a command line: JSON, `@FILE`, or `-` for stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tickwork.cli.failure import Refusal


def read_json(text: str, what: str) -> Any:
    """The value of `text`, given as the option or argument `what`. Raises Refusal with the place of what is wrong."""
    source, given = _given(text, what)
    try:
        return json.loads(given, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{source}:{error.lineno}:{error.colno}"
        raise Refusal(f"{place}: this is not JSON: {error.msg}.", _hint(text, what)) from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{source}: this is not JSON: {error}.", _hint(text, what)) from None


def read_answer(text: str, what: str) -> Any:
    """As `read_json`, but a plain word that is no JSON is taken as text: `answer ID yes` needs no quotes."""
    if text == "-" or text.lstrip().startswith(("@", "{", "[", '"')):
        return read_json(text, what)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _given(text: str, what: str) -> tuple[str, str]:
    """Where the JSON comes from, in words, and the JSON."""
    try:
        if text == "-":
            return "stdin", sys.stdin.buffer.read().decode()
        if text.startswith("@"):
            return text[1:], Path(text[1:]).read_text("utf-8")
    except OSError as error:
        raise Refusal(f"{what}: {text[1:]} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Refusal(f"{what}: {text[1:] or 'stdin'} is not UTF-8 text.") from None
    return what, text


def _hint(text: str, what: str) -> str:
    if text == "-" or text.startswith("@") or len(text) > 200 or text.lstrip().startswith(("{", "[", '"')):
        return "Names and text stand in double quotes; no comma follows the last item."
    return f"If it is meant as text, quote it twice: {what} '{json.dumps(text)}'"


def _no_constant(word: str) -> None:
    raise ValueError(f"JSON has no {word}")
