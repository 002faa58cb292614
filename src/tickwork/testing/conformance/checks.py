"""What the suites check with. Not `assert`: it is shipped code, and must hold under `python -O` as well."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def expect(holds: bool, promise: str) -> None:
    """Fails with the promise that was broken."""
    if not holds:
        raise AssertionError(promise)


def equal(found: Any, wanted: Any, promise: str) -> None:
    """Fails when the two differ, with both of them and the promise that was broken."""
    if found != wanted:
        raise AssertionError(f"{promise}\n  wanted: {wanted!r}\n  found:  {found!r}")


@contextmanager
def refused(kind: type[Exception], promise: str) -> Iterator[None]:
    """Fails unless the block raises `kind`."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{promise}: {kind.__name__} was not raised")


async def turn() -> None:
    """Lets everything that is ready to run on this event loop run once."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(done.set_result, None)
    await done


class SettableClock:
    """A clock that a test sets: it stands still in between, and sleeping moves it on."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.microseconds = now
        self.seconds = 0.0

    def now(self) -> int:
        """Wall time (us): what was set last."""
        return self.microseconds

    def monotonic(self) -> float:
        """Seconds: how far the clock was moved on."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Moves both times on."""
        self.seconds += seconds
        self.microseconds += round(seconds * 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Returns at once, that much later."""
        self.advance(seconds)
