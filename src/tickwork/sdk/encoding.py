"""What user code returns becomes bytes here: a Task's value a payload, a Plan's answer a list of choices.

JSON is the language: what JSON cannot say (NaN, a cycle, an open file) is refused with the path to it, because a value
that changes silently on its way into the log could never be replayed. Bytes as a whole value travel as they are;
inside JSON they become base64. Whether the names that a Plan chose are legal is not asked here but by the router.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec

from tickwork.errors import TerminalError
from tickwork.model.records import BYTES, JSON, Next, Payload
from tickwork.sdk.values import Next as Choice
from tickwork.sdk.values import PlanResult

MAX_DEPTH = 500
"""How deep a value may nest: deeper than any real one, and far from the interpreter's own limit."""

MAX_PAYLOAD = 256 * 1024 * 1024
"""Bytes of one encoded value. It is in memory as a whole wherever it is used, some times over."""

_MODEL_DUMP = "model_dump"


class EncodingError(TerminalError):
    """A value that cannot be recorded. The message names its place (`$.items[3].score`) and its type."""


class PlanResultInvalid(TerminalError):
    """A Plan returned something that is not a choice."""


def _plain(value: Any) -> Any:
    """Called by the encoder for what it does not know itself: Pydantic models, and nothing else."""
    dump = getattr(value, _MODEL_DUMP, None)
    if dump is not None and not isinstance(value, type):
        return dump(mode="json")
    raise TypeError(f"{_type_name(value)} cannot be written as JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encode_value(value: Any, what: str = "the result") -> Payload:
    """The payload of a value. Raises EncodingError; `what` begins its message."""
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        _check_size(data, what)
        return Payload(data, BYTES, None, len(data))
    try:
        data = _encode(value)
    except Exception as error:  # noqa: BLE001 - an author's object may raise anything while it is written
        raise _explain(value, what, error) from None
    _check_size(data, what)
    # The encoder writes NaN as null without a word, so a null is looked at more closely; most values have none.
    if b"null" in data and (fault := _find(value, "$", (), finite_only=True)):
        raise EncodingError(f"{what} cannot be recorded: {fault}")
    return Payload(data, JSON, None, len(data))


def _check_size(data: bytes, what: str) -> None:
    if len(data) > MAX_PAYLOAD:
        raise EncodingError(
            f"{what} cannot be recorded: it has {len(data):,} bytes, and {MAX_PAYLOAD:,} is the limit; store it "
            "yourself, in a file or a bucket, and return where it lies"
        )


def json_value(value: Any, what: str) -> Any:
    """The value as it comes back from JSON: plain, and safe in a record. Raises EncodingError."""
    if isinstance(value, bytes | bytearray | memoryview):
        raise EncodingError(f"{what} cannot be recorded: $ is {_type_name(value)}; use text")
    payload = encode_value(value, what)
    plain = msgspec.json.decode(payload.inline or b"null")
    try:
        msgspec.msgpack.encode(plain)
    except OverflowError:
        raise EncodingError(f"{what} cannot be recorded: it holds an integer of more than 64 bits") from None
    return plain


def encode_plan(value: Any) -> tuple[tuple[Next, ...], Payload | None, str | None]:
    """What a Plan returned, as (choices, output, reason). Raises PlanResultInvalid and EncodingError."""
    if type(value) is str:
        return (Next(value),), None, None
    output, reason = None, None
    if isinstance(value, PlanResult):
        reason = value.reason or None
        if value.output is not msgspec.UNSET:
            output = encode_value(value.output, "the Plan's output")
        value = value.next
    if value is None:
        return (), output, reason
    if isinstance(value, list | tuple):
        return tuple([_choice(item, i) for i, item in enumerate(value)]), output, reason
    return (_choice(value, 0),), output, reason


def _choice(value: Any, index: int) -> Next:
    if isinstance(value, str):
        return Next(str(value))
    if isinstance(value, Choice):
        if value.input is msgspec.UNSET:
            return Next(value.name)
        return Next(value.name, encode_value(value.input, f"the input for `{value.name}` (choice {index})"))
    name = node_name(value)
    if name is None:
        raise PlanResultInvalid(
            f"choice {index} of the Plan is {_type_name(value)}; return the name of a Task, END, Next(name, input=...),"
            " a list of those, PlanResult(next=[...]), or None to let the branch end"
        )
    return Next(name)


def node_name(value: Any) -> str | None:
    """The name of a Task or Plan given as the object itself; None when it is something else."""
    from tickwork.sdk.nodes import Plan, Task

    if isinstance(value, Task | Plan):
        return value.name
    if isinstance(value, type) and issubclass(value, Task | Plan):
        return value.name or value.__name__
    return None


def _explain(value: Any, what: str, error: Exception) -> EncodingError:
    fault = _find(value, "$", (), finite_only=False) or f"{type(error).__name__}: {error}"
    return EncodingError(f"{what} cannot be recorded: {fault}")


def _find(value: Any, path: str, above: tuple[int, ...], *, finite_only: bool) -> str | None:
    """The first thing in `value` that cannot be recorded, with its path; None when nothing was found."""
    if value is None or isinstance(value, str | bool | int | bytes):
        return _text_fault(value, path) if isinstance(value, str) else None
    if isinstance(value, float):
        if math.isfinite(value):
            return None
        return f"{path} is {value}, for which JSON has no word; return None, or a number"
    if id(value) in above:
        return f"{path} is a cycle: it contains itself"
    if len(above) >= MAX_DEPTH:
        return f"it nests more than {MAX_DEPTH} levels deep"
    children = _children(value)
    if children is None:
        return None if finite_only else _odd(value, path)
    for step, child in children:
        if not isinstance(step, str | int | float):
            return f"{path} has the key {step!r:.80}, but keys are text"
        where = f"{path}[{step}]" if isinstance(value, list | tuple) else f"{path}.{step}"
        if fault := _find(child, where, (*above, id(value)), finite_only=finite_only):
            return fault
    return None


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return [(name, getattr(value, name)) for name in value.__struct_fields__]
    if hasattr(value, _MODEL_DUMP) and not isinstance(value, type):
        try:
            return list(value.model_dump().items())
        except Exception:  # noqa: BLE001 - a model that cannot be dumped is reported as it stands
            return None
    return None


def _text_fault(value: str, path: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{path} is text that is no Unicode: {error.reason} at character {error.start}"
    return None


def _odd(value: Any, path: str) -> str | None:
    try:
        _encode(value)
    except Exception as error:  # noqa: BLE001 - whatever it is, it says why this value cannot be written
        if hasattr(value, "__await__"):
            return f"{path} is {_type_name(value)}, which was never awaited; write `await`, or `async def`"
        return f"{path} is {_type_name(value)}, which JSON cannot say ({error})"
    return None


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        f"of type {kind.__qualname__}"
        if kind.__module__ == "builtins"
        else (f"of type {kind.__module__}.{kind.__qualname__}")
    )
