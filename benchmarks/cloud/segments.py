"""What lies in Kafka's log files: how many messages, in how many batches, how many bytes, on which topics.

Only the heads of the batches are read (their format, version 2, is fixed for good), so it costs little.
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Offset, length, epoch, version, checksum, attributes, last offset's delta, two times, producer, its epoch, its first
sequence, number of records."""


class Traffic(msgspec.Struct):
    """Of one kind of topic, all tenants and partitions together."""

    messages: int = 0
    batches: int = 0
    bytes: int = 0
    """Keys, values and all that stands around them."""


def traffic(data: Path, prefix: str) -> dict[str, Traffic]:
    """By the topic's word (`data-plane`): what was published under this prefix and is on disk."""
    found: dict[str, Traffic] = {}
    for segment in sorted(data.glob(f"{prefix}.*/*.log")):
        name = segment.parent.name.removeprefix(f"{prefix}.").rpartition("-")[0].partition(".")[0]
        _read(segment, found.setdefault(name, Traffic()))
    return found


def less(after: dict[str, Traffic], before: dict[str, Traffic]) -> dict[str, Traffic]:
    """What came between two looks."""
    nothing = Traffic()
    found = {}
    for name, now in after.items():
        was = before.get(name, nothing)
        came = Traffic(now.messages - was.messages, now.batches - was.batches, now.bytes - was.bytes)
        if came.messages > 0:
            found[name] = came
    return found


def _read(segment: Path, into: Traffic) -> None:
    with segment.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            _, length, _, version, *_, count = _HEAD.unpack(head)
            if version != 2 or length <= 0:
                return  # what is preallocated and not written yet
            into.messages += count
            into.batches += 1
            into.bytes += length + 12
            file.seek(length + 12 - _HEAD.size, 1)
