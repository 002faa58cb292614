"""What user code gets in place of a client or a stream: the same to all appearances, with a Meter that listens.

A proxy has every attribute of what it stands for, and passes for it where a library looks at its class.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tickwork.sdk.capture import Meter

CALLS = frozenset({"create", "parse", "stream"})
"""Methods of a client that call a model."""

PARTS = frozenset({"chat", "completions", "responses", "messages", "embeddings", "beta"})
"""Parts of a client on the way to such a method."""

COPIES = frozenset({"with_options", "copy"})
"""Methods that return another client like it."""

FINALS = frozenset({"get_final_message", "get_final_completion", "get_final_response"})
"""Methods of a stream that read it to its end and return the whole response."""


class Proxy:
    """Stands for an object, and has all that it has."""

    __slots__ = ("_target",)

    def __init__(self, target: Any) -> None:
        self._target = target

    @property  # type: ignore[misc]  # nobody sets the class of a proxy
    def __class__(self) -> Any:
        """What isinstance sees: libraries look whether they were given the client or the stream that they know."""
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class Client(Proxy):
    """A client, or a part of one, whose calls are seen."""

    __slots__ = ("_see",)

    def __init__(self, target: Any, see: Callable[[Any], Any]) -> None:
        super().__init__(target)
        self._see = see

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in PARTS:
            return Client(found, self._see)
        if name in CALLS and callable(found):
            return _after(found, self._see)
        if name in COPIES and callable(found):
            return _after(found, lambda copy: Client(copy, self._see))
        return found

    def __enter__(self) -> Self:
        self._target.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self._target.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        await self._target.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return await self._target.__aexit__(kind, error, trace)


def _after(call: Callable[..., Any], then: Callable[[Any], Any]) -> Callable[..., Any]:
    @wraps(call)
    def called(*args: Any, **options: Any) -> Any:
        return then(call(*args, **options))

    return called


class _Followed(Proxy):
    """What streams of both kinds have in common."""

    __slots__ = ("_iterator", "_meter")

    def __init__(self, target: Any, meter: Meter) -> None:
        super().__init__(target)
        self._meter = meter
        self._iterator: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return _after(found, self._final) if name in FINALS and callable(found) else found

    def _final(self, result: Any) -> Any:
        if inspect.isawaitable(result):

            async def later() -> Any:
                return self._final(await result)

            return later()
        self._meter.response(result)
        return result


class Stream(_Followed):
    """A stream that is followed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._target)
        try:
            chunk = next(self._iterator)
        except StopIteration:
            self._meter.exhausted()
            raise
        self._meter.feed(chunk)
        return chunk

    def close(self) -> None:
        """Ends the stream, as its own `close` does."""
        self._meter.end(self._target)
        if hasattr(self._target, "close"):
            self._target.close()

    def __enter__(self) -> Self:
        if hasattr(self._target, "__enter__"):
            self._target.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._meter.end(self._target)
        return self._target.__exit__(kind, error, trace) if hasattr(self._target, "__exit__") else None


class AsyncStream(_Followed):
    """An async stream that is followed."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = aiter(self._target)
        try:
            chunk = await anext(self._iterator)
        except StopAsyncIteration:
            self._meter.exhausted()
            raise
        self._meter.feed(chunk)
        return chunk

    async def close(self) -> None:
        """Ends the stream, as its own `close` or `aclose` does."""
        self._meter.end(self._target)
        close = getattr(self._target, "close", None) or getattr(self._target, "aclose", None)
        if close is not None:
            await close()

    aclose = close

    async def __aenter__(self) -> Self:
        if hasattr(self._target, "__aenter__"):
            await self._target.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._meter.end(self._target)
        return await self._target.__aexit__(kind, error, trace) if hasattr(self._target, "__aexit__") else None


class PendingStream(Proxy):
    """What `client.messages.stream(...)` returns: the stream comes when it is entered."""

    __slots__ = ("_meter", "_stream")

    def __init__(self, target: Any, meter: Meter) -> None:
        super().__init__(target)
        self._meter = meter
        self._stream: Any = None

    def __enter__(self) -> Stream:
        self._stream = self._target.__enter__()
        self._meter.begin()
        return Stream(self._stream, self._meter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._meter.end(self._stream)
        return self._target.__exit__(kind, error, trace)

    async def __aenter__(self) -> AsyncStream:
        self._stream = await self._target.__aenter__()
        self._meter.begin()
        return AsyncStream(self._stream, self._meter)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._meter.end(self._stream)
        return await self._target.__aexit__(kind, error, trace)
