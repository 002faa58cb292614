"""Names on the bus and names in Kafka: every topic is checked before a broker sees it.

A topic is a word, or a word, a dot and a tenant. Kafka takes `a.b` and `a_b` for the same in its metrics and refuses
the second of them; with one dot, and no `_` in the word before it, no tenant can be in another's way.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from tickwork.errors import UsageError

_TOPIC: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}(\.[A-Za-z0-9][A-Za-z0-9_-]{0,127})?")
_GROUP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

NEWS: Final = "tickwork-topics"
"""The topic on which new topics are announced. Where a group stands on it says that the group exists."""


def checked_topic(name: str) -> str:
    """The name, when it can be a topic. UsageError."""
    if not _TOPIC.fullmatch(name) or name == NEWS:
        raise UsageError(
            f"`{name[:200]}` cannot be a topic: a word of letters, digits and -, then a dot and the tenant (letters, "
            "digits, - and _); `tickwork-topics` is taken"
        )
    return name


def checked_pattern(pattern: str) -> str:
    """The pattern, when it is a topic or a prefix that ends in `.*`. UsageError."""
    if pattern.endswith(".*"):
        checked_topic(f"{pattern[:-1]}x")
    else:
        checked_topic(pattern)
    return pattern


def checked_group(name: str) -> str:
    """The name, when it can be a group. UsageError."""
    if not _GROUP.fullmatch(name):
        raise UsageError(f"`{name[:200]}` cannot be a group: letters, digits, ., - and _, at most 128")
    return name


def matches(pattern: str, topic: str) -> bool:
    """Whether the pattern asks for the topic."""
    return topic.startswith(pattern[:-1]) if pattern.endswith(".*") else topic == pattern


@functools.lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition that messages of a key go to: Murmur2 of its bytes, as Kafka's own clients have it."""
    data = key.encode()
    hashed = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _32
        hashed = (hashed * _M & _32) ^ ((word ^ word >> 24) * _M & _32)
    if rest := data[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _32
    hashed = (hashed ^ hashed >> 13) * _M & _32
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions


_M: Final = 0x5BD1E995
_32: Final = 0xFFFFFFFF
