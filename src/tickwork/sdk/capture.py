"""Seeing what a model's client returns: a response, a stream of it, or the client itself with all that it will return.

What is handed back behaves as what was given: a stream still streams, a client still has its methods. No package of a
provider is imported; their objects are told by what they can do.

A captured response is user code's own call and its faults are raised. What is only watched must never break the call
that is watched: a response that says nothing of its use is a warning, and makes the attempt `unpriced`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from tickwork.sdk.proxies import AsyncStream, Client, PendingStream, Proxy, Stream
from tickwork.sdk.telemetry import Call, R
from tickwork.sdk.usage import COUNTS, LOOKED_FOR, Used, field, is_response, model_of, usage_fields, used, used_by

if TYPE_CHECKING:
    from tickwork.sdk.context import Context
    from tickwork.sdk.telemetry import TelemetryRecorder

WHOLE = frozenset({"message_delta", "message_stop", "response.completed", "response.incomplete", "response.failed"})
"""Events of a stream after which its usage is complete."""


def captured(recorder: TelemetryRecorder, response: R, *, provider: str = "", url: str = "") -> R:
    """Records a response, or follows a stream of one; returns what user code goes on with. Raises ValueError."""
    if isinstance(response, Proxy):
        return response  # it is followed already
    use = used_by(response)
    if use is not None:
        if not recorder.knows(response):
            recorder.note(Call(), model_of(response), use, provider=provider, url=url)
            recorder.remember(response)
        return response
    kind = type(response)
    meter = Meter(recorder, provider, url)
    if hasattr(kind, "__anext__") or hasattr(kind, "__aiter__"):
        meter.begin()
        return cast("R", AsyncStream(response, meter))
    if hasattr(kind, "__next__") or _is_iterable(kind):
        meter.begin()
        return cast("R", Stream(response, meter))
    if hasattr(kind, "__enter__") or hasattr(kind, "__aenter__"):
        return cast("R", PendingStream(response, meter))
    model = model_of(response)
    what = f"a response of `{model}`" if model else f"an object of type {kind.__name__}"
    raise ValueError(
        f"telemetry.capture: {what} says nothing of its use; {LOOKED_FOR}. For anything else write "
        "ctx.telemetry.record(tokens_in=..., tokens_out=..., model=...)"
    )


def capture_result(ctx: Context, value: Any) -> None:
    """Records what a Task returned, if it is beyond doubt a model's response. Never raises."""
    try:
        if is_response(value):
            ctx.telemetry.capture(value)
    except Exception as fault:  # noqa: BLE001 - the Task has returned well, whatever its result says of its use
        ctx.logger.warning("the returned response was not captured: %s", fault)


def watched(recorder: TelemetryRecorder, client: R) -> R:
    """The client behind a proxy that captures."""
    url = str(getattr(client, "base_url", "") or "")
    return cast("R", Client(client, lambda result: _seen(recorder, result, url)))


def _seen(recorder: TelemetryRecorder, result: Any, url: str) -> Any:
    """What a watched call returned, captured."""
    if inspect.isawaitable(result):

        async def later() -> Any:
            return _seen(recorder, await result, url)

        return later()
    try:
        return captured(recorder, result, url=url)
    except Exception as fault:  # noqa: BLE001 - the call that is watched has succeeded
        recorder.note(Call(), model_of(result), None)
        recorder.logger.warning("a call of a model was not captured: %s", fault)
        return result


def _is_iterable(kind: type) -> bool:
    """Whether it can be iterated and is neither a collection nor a Pydantic model, which can be, too."""
    return hasattr(kind, "__iter__") and not hasattr(kind, "__len__") and not hasattr(kind, "model_dump")


class Meter:
    """Follows one stream: what it has said of its use so far is in the totals."""

    __slots__ = ("_call", "_fields", "_model", "_provider", "_recorder", "_silent", "_source", "_url", "_whole")

    def __init__(self, recorder: TelemetryRecorder, provider: str, url: str) -> None:
        self._recorder, self._provider, self._url = recorder, provider, url
        self._call = Call()
        self._model: str | None = None
        self._fields: dict[str, Any] = {}
        self._source: Any = None
        self._whole = self._silent = False

    def begin(self) -> None:
        """The model was asked: from now on something is used, and nobody knows yet how much."""
        self._recorder.note(self._call, None, None)
        self._recorder.opened(self)

    def feed(self, chunk: Any) -> None:
        """The next chunk or event. Never raises: the stream is user code's."""
        if self._silent:
            return
        try:
            self._read(chunk)
        except Exception as fault:  # noqa: BLE001 - a chunk may be anything
            self._give_up(fault)

    def _read(self, chunk: Any) -> None:
        kind = field(chunk, "type")
        kind = kind if isinstance(kind, str) else ""
        whole = kind in WHOLE
        if kind == "chunk":  # of openai's own helper around a chat's chunks
            chunk = field(chunk, "chunk")
        elif kind == "message_start":
            chunk = field(chunk, "message")
        elif kind.startswith("response."):
            chunk = field(chunk, "response")
        if chunk is None:
            return
        usage = field(chunk, "usage")
        model = model_of(chunk)
        if usage is None and (model is None or model == self._model) and not (whole and self._fields):
            return
        if usage is not None:
            self._merge(usage_fields(usage))
            # A chat's usage comes in a last chunk without choices; some endpoints say it in each one, rising.
            whole = whole or (kind in ("", "chunk") and not field(chunk, "choices"))
        self._model = model or self._model
        self._source = chunk
        self._note(whole)

    def _merge(self, fields: dict[str, Any]) -> None:
        """Counts of a stream rise: what one event leaves out, or has as zero, another one has said."""
        for name, value in fields.items():
            before = self._fields.get(name)
            if name in COUNTS and isinstance(value, int) and isinstance(before, int):
                value = max(value, before)  # noqa: PLW2901 - the greater of the two is the one that is kept
            self._fields[name] = value

    def _note(self, whole: bool) -> None:
        known = any(name in COUNTS for name in self._fields)
        use: Used | None = used(self._fields, self._source) if known else None
        self._whole = self._whole or (whole and known)
        self._recorder.note(self._call, self._model, use, whole=self._whole, provider=self._provider, url=self._url)

    def response(self, response: Any, *, whole: bool = True) -> None:
        """The response as a helper of the stream has put it together."""
        try:
            usage = field(response, "usage")
            if usage is not None and not self._silent:
                self._fields = usage_fields(usage)
                self._model, self._source = model_of(response) or self._model, response
                self._note(whole)
        except Exception as fault:  # noqa: BLE001 - as above
            self._give_up(fault)

    def exhausted(self) -> None:
        """The stream was read to its end: what it has said is all."""
        if self._fields and not self._whole and not self._silent:
            self._note(whole=True)
        self.end()

    def end(self, stream: Any = None) -> None:
        """Nobody reads on. Warns when the use is not known, or not wholly."""
        if not self._whole and not self._silent and stream is not None:
            self._look(stream)
        self._recorder.closed(self)
        if self._whole or self._silent:
            return
        self._silent = True
        what = f"of `{self._model}`" if self._model else "of a model"
        if self._fields:
            text = "a stream %s was left before its end: its tokens and its cost are only known in part"
        else:
            text = (
                "a stream %s said nothing of its use, so its tokens and its cost are not known. Read it to its end, "
                'and ask OpenAI\'s chat completions for it: stream_options={"include_usage": True}'
            )
        self._recorder.logger.warning(text, what)

    def _look(self, stream: Any) -> None:
        """A helper stream that was read past us (`text_stream`) knows how far it came."""
        for name in ("current_message_snapshot", "current_completion_snapshot"):
            try:
                snapshot = getattr(stream, name, None)
            except Exception:  # noqa: BLE001, S112 - it has read nothing yet
                continue
            if snapshot is not None:
                ended = field(snapshot, "stop_reason") or field(snapshot, "choices")
                self.response(snapshot, whole=bool(ended))

    def _give_up(self, fault: Exception) -> None:
        self._silent = True
        self._recorder.note(self._call, self._model, None)
        self._recorder.logger.warning("a stream of a model was not captured: %s", fault)
