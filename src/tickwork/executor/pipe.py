"""What an executor and its subprocess say to each other: msgpack frames, each with its length before it, on two pipes.

The pipes are file descriptors of their own, so that nothing user code prints can be taken for a result.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import msgspec

from tickwork.executor.outcome import Outcome
from tickwork.model.messages import NodeInput
from tickwork.model.records import LogEntry, Telemetry
from tickwork.sdk.prices import PriceList


class Setup(msgspec.Struct, tag=True, array_like=True):
    """The first frame to the child: what to run, and under which limits."""

    message: NodeInput
    graph: bytes
    base: str
    path: list[str]
    pythonpath: str | None
    memory_mb: int | None
    parent: int
    prices: PriceList | None = None
    """The parent's own list, so that both count alike."""
    warned: list[str] = []
    """Models without a price of which somebody was warned already."""


class Stop(msgspec.Struct, tag=True, array_like=True):
    """To the child: cancel user code."""

    reason: str


class History(msgspec.Struct, tag=True, array_like=True):
    """To the child: the answer to its oldest AskHistory; `fault` when there is none."""

    entries: list[LogEntry]
    fault: str = ""


class AskHistory(msgspec.Struct, tag=True, array_like=True):
    """From the child: user code wants to see the log."""

    limit: int


class Beat(msgspec.Struct, tag=True, array_like=True):
    """From the child: a heartbeat."""

    details: Any = None


class Used(msgspec.Struct, tag=True, array_like=True):
    """From the child: the telemetry so far, so that it outlives a kill."""

    telemetry: Telemetry


class Done(msgspec.Struct, tag=True, array_like=True):
    """The last frame from the child."""

    outcome: Outcome


ToChild: TypeAlias = Setup | Stop | History
FromChild: TypeAlias = AskHistory | Beat | Used | Done

_encode = msgspec.msgpack.Encoder().encode
decode_to_child = msgspec.msgpack.Decoder(ToChild).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode

LENGTH = 8
"""Bytes of the length before each frame."""


def frame(message: ToChild | FromChild) -> bytes:
    """The bytes of a message on the pipe."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


def take_frame(buffer: bytearray) -> bytes | None:
    """Removes the first whole frame from what was read; None when it is not complete yet."""
    if len(buffer) < LENGTH:
        return None
    end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
    if len(buffer) < end:
        return None
    body = bytes(memoryview(buffer)[LENGTH:end])
    del buffer[:end]
    return body


def read_frame(fd: int) -> bytes:
    """Waits for one frame. EOFError when the other side has closed."""
    size = int.from_bytes(_read_exactly(fd, LENGTH), "big")
    return _read_exactly(fd, size)


def _read_exactly(fd: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        chunk = os.read(fd, min(size - len(found), 1 << 20))
        if not chunk:
            raise EOFError("the other side has closed the pipe")
        found += chunk
    return bytes(found)
