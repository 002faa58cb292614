"""Asks a person in the terminal: the prompt, then the answer's JSON Schema as a form, until the answer fits it.

Lines are read by the event loop itself (the terminal edits them), so nothing blocks while the person thinks, and
Ctrl-C ends the waiting at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

    from tickwork.model.lifetime import Question

Schema = dict[str, Any]
SKIP = object()
"""What an optional field yields when the person leaves it out."""


class Lines(Protocol):
    """Where typed lines come from."""

    async def read(self) -> str:
        """The next line without its newline. Raises EOFError at the end."""
        ...


class Keyboard:
    """Lines of this process's stdin."""

    def __init__(self) -> None:
        self._rest = b""

    async def read(self) -> str:
        """The next line without its newline. Raises EOFError at the end (Ctrl-D)."""
        while b"\n" not in self._rest:
            chunk = await _next_chunk(sys.stdin.fileno())
            if not chunk:
                raise EOFError
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")


async def _next_chunk(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65_536)


def interactive() -> bool:
    """Whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Form:
    """Turns one question into an answer that fits its schema."""

    def __init__(self, console: Console, lines: Lines) -> None:
        self._console = console
        self._lines = lines

    async def ask(self, question: Question, *, refused: str = "") -> Any:
        """The person's answer. Raises EOFError when there is none."""
        self._show(question, refused)
        schema = question.answer_schema or {}
        while True:
            answer = await self._value(schema, "", required=True)
            reason = complaint(schema, answer)
            if not reason:
                return answer
            self._complain(reason)

    def _show(self, question: Question, refused: str) -> None:
        from rich.panel import Panel
        from rich.text import Text

        from tickwork.cli.output import day_time

        foot = [f"until {day_time(question.deadline)}"] if question.deadline else []
        if question.who:
            foot.append("for " + ", ".join(question.who))
        self._console.print(
            Panel(
                Text(question.prompt or "(no prompt)"),
                title=Text(f" {question.node} asks "),
                title_align="left",
                subtitle=Text(f" {'; '.join(foot)} ") if foot else None,
                subtitle_align="left",
                border_style="yellow",
                padding=(0, 1),
            )
        )
        if refused:
            self._complain(refused)

    def _complain(self, reason: str) -> None:
        self._console.print(f"  That is not accepted: {reason}", style="red")

    async def _value(self, schema: Schema, name: str, *, required: bool) -> Any:
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return await self._choice(schema, name, required=required)
        if schema.get("type") == "object" and schema.get("properties"):
            return await self._object(schema, name)
        return await self._typed(schema, name, required=required)

    async def _object(self, schema: Schema, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        needed = schema.get("required", ())
        for field, part in schema["properties"].items():
            path = f"{name}.{field}" if name else field
            value = await self._value(part if isinstance(part, dict) else {}, path, required=field in needed)
            if value is not SKIP:
                answer[field] = value
        return answer

    async def _choice(self, schema: Schema, name: str, *, required: bool) -> Any:
        options = schema["enum"]
        words = [one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in options]
        self._describe(schema, name)
        for number, word in enumerate(words, 1):
            self._console.print(f"    {number}  {word}")
        while True:
            typed = await self._line(f"  {name or 'choice'} [1-{len(words)}]", schema)
            if not typed and (left := _left_out(schema, required=required)) is not None:
                return left[0]
            if typed in words:
                return options[words.index(typed)]
            if typed.isdecimal() and 1 <= int(typed) <= len(words):
                return options[int(typed) - 1]
            fitting = [n for n, word in enumerate(words) if typed and word.lower().startswith(typed.lower())]
            if len(fitting) == 1:
                return options[fitting[0]]
            self._complain(f"choose a number from 1 to {len(words)}, or one of: {', '.join(words)}.")

    async def _typed(self, schema: Schema, name: str, *, required: bool) -> Any:
        self._describe(schema, name)
        while True:
            label = f"  {name or 'answer'}{_kind_hint(schema)}{'' if required else ' (empty: leave it out)'}"
            typed = await self._line(label, schema)
            if not typed and (left := _left_out(schema, required=required)) is not None:
                return left[0]
            try:
                value = read_typed(schema, typed)
            except ValueError as error:
                self._complain(str(error))
                continue
            reason = complaint(schema, value)
            if not reason:
                return value
            self._complain(reason)

    def _describe(self, schema: Schema, name: str) -> None:
        text = schema.get("description") or (schema.get("title") if name else "")
        if text:
            from rich.padding import Padding
            from rich.text import Text

            self._console.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)))

    async def _line(self, label: str, schema: Schema) -> str:
        if "default" in schema:
            label += f" (empty: {msgspec.json.encode(schema['default']).decode()})"
        self._console.print(f"{label}: ", end="", style="bold")
        try:
            return (await self._lines.read()).strip()
        except EOFError:
            self._console.print()
            raise


def _left_out(schema: Schema, *, required: bool) -> tuple[Any] | None:
    """What an empty line means: the default, leaving the field out, or (None) nothing."""
    if "default" in schema:
        return (schema["default"],)
    return None if required else (SKIP,)


def _kind_hint(schema: Schema) -> str:
    kind = schema.get("type")
    if kind == "boolean":
        return " [y/n]"
    if kind in ("integer", "number"):
        return f" [{kind}]"
    if kind == "array" and _of_strings(schema):
        return " [words, separated by commas]"
    return " [JSON]" if kind in ("array", "object") else ""


def _of_strings(schema: Schema) -> bool:
    items = schema.get("items")
    return isinstance(items, dict) and items.get("type") == "string"


def read_typed(schema: Schema, typed: str) -> Any:
    """What a typed line means for this schema. Raises ValueError with the reason."""
    kind = schema.get("type")
    if kind == "string":
        return typed
    if kind == "boolean":
        if typed.lower() in ("y", "yes", "true"):
            return True
        if typed.lower() in ("n", "no", "false"):
            return False
        raise ValueError("write y or n.")
    if kind == "array" and _of_strings(schema) and not typed.startswith("["):
        return [word.strip() for word in typed.split(",") if word.strip()]
    if kind is None and not typed.startswith(("{", "[", '"')) and not _looks_like_json(typed):
        return typed
    try:
        return msgspec.json.decode(typed)
    except msgspec.DecodeError:
        article = {"integer": "a whole number", "number": "a number", "null": "null"}.get(str(kind), "JSON")
        raise ValueError(f"`{typed}` is not {article}.") from None


def _looks_like_json(typed: str) -> bool:
    with contextlib.suppress(msgspec.DecodeError):
        msgspec.json.decode(typed)
        return True
    return False


def complaint(schema: Schema, answer: Any) -> str:
    """Why `answer` breaks `schema`, in one line; empty when it fits. A schema that is none accepts everything."""
    if not schema:
        return ""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    try:
        error = best_match(Draft202012Validator(schema).iter_errors(answer))
    except SchemaError:
        return ""
    if error is None:
        return ""
    where = ".".join(str(part) for part in error.absolute_path)
    return f"{where}: {error.message}" if where else error.message
