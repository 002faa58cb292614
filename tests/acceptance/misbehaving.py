"""Implementations that do what they should not. At the top of a module, so that a subprocess can load them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any


async def good(value: int) -> int:
    return value


async def unencodable() -> Any:
    return {"thing": object()}


async def not_finite() -> float:
    return float("nan")


async def raises() -> float:
    return 1 / 0


async def raises_without_words() -> None:
    raise KeyError


class Unreadable(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


async def raises_unreadable() -> None:
    raise Unreadable


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def hangs() -> None:
    await asyncio.Event().wait()


def hangs_in_a_thread() -> None:
    time.sleep(30)


async def exits() -> None:
    sys.exit(3)


def exits_in_a_thread() -> None:
    sys.exit(3)


def dies() -> None:
    os._exit(3)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def takes_memory() -> int:
    return len(bytearray(4 * 1024**3))


def prints_garbage() -> str:
    for stream in (sys.stdout.buffer, sys.stderr.buffer):
        stream.write(b'\x00\xff{"status":"FAILED"}\n' * 10_000)
        stream.flush()
    os.write(1, b"\xc3\x28 more garbage\n")
    print("value of nothing")
    return "value"
