"""What came of a call of user code, wherever it ran: a value in its encoded form, or an Error."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from tickwork.errors import AuthorError, RetryableError, TerminalError, TickworkError
from tickwork.model.records import ERROR_TEXT_LIMIT, Error, Next, Payload, Status
from tickwork.sdk.encoding import EncodingError, encode_plan, encode_value, json_value
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.references import author_frame

DETAILS_LIMIT = 16 * 1024
"""Bytes of an error's details, as JSON, that are kept."""


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """How an attempt ended."""

    status: Status
    result: Payload | None = None
    error: Error | None = None
    next: tuple[Next, ...] | None = None
    reason: str | None = None
    explicit: bool = False
    """The author said himself whether it may be tried again: a RetryableError or a TerminalError."""


def succeeded(implementation: Implementation, value: Any) -> Outcome:
    """The outcome of a call that returned `value`. Raises EncodingError, PlanResultInvalid, OutputInvalid."""
    if implementation.kind == "plan":
        chosen, output, reason = encode_plan(value)
        return Outcome("SUCCEEDED", output, None, chosen, None if reason is None else cut(reason))
    if implementation.check is not None:
        value = implementation.check(value)
    return Outcome("SUCCEEDED", encode_value(value))


def failed(error: BaseException) -> Outcome:
    """The outcome of a call that raised `error`."""
    return Outcome("FAILED", None, describe(error), explicit=isinstance(error, AuthorError))


def describe(error: BaseException) -> Error:
    """An exception of user code as it is recorded.

    `details` has `at` (the author's line), `retry_after` (seconds) where a RetryableError asks for it, and `data`
    where the author gave details.
    """
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return Error("ExitAttempt", _exit_text(error), False, _details(error))
    retryable = not isinstance(error, TerminalError)
    if isinstance(error, TickworkError) and not isinstance(error, AuthorError):
        retryable = error.code in ("storage", "storage_full")
    return Error(type(error).__name__, cut(_text(error)), retryable, _details(error))


def _exit_text(error: BaseException) -> str:
    code = getattr(error, "code", None)
    what = f"called exit({code!r})" if isinstance(error, SystemExit) else "raised KeyboardInterrupt"
    return f"the code {what}; that ends no worker: raise an error, or return"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - an author's __str__ may raise anything
        text = f"(its text cannot be read: {type(fault).__name__})"
    # A lone surrogate has no bytes, and an error must always be recordable.
    return (text or type(error).__name__).encode("utf-8", "backslashreplace").decode()


def cut(text: str, limit: int = ERROR_TEXT_LIMIT) -> str:
    """The text, or its beginning and a note of how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters were cut)"


def _details(error: BaseException) -> dict[str, Any] | None:
    details: dict[str, Any] = {}
    place = author_frame(error)
    if place is not None:
        details["at"] = str(place)
    if isinstance(error, RetryableError) and error.retry_after is not None:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            details["retry_after"] = max(0.0, float(error.retry_after))
    data = getattr(error, "details", None) if isinstance(error, AuthorError) else None
    if data is not None:
        try:
            details["data"] = bounded(json_value(data, "the error's details"))
        except EncodingError as fault:
            details["data"] = str(fault)
    return details or None


def bounded(data: Any) -> Any:
    """An error's details, or a word about their size: an error is read by people, and must never fill a queue."""
    size = len(msgspec.json.encode(data))
    return data if size <= DETAILS_LIMIT else f"(details of {size:,} bytes were cut; {DETAILS_LIMIT:,} is the limit)"
