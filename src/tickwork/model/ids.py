"""Ids that come from causality.

An execution, a timer, a fan-out group is named by what caused it: (lifetime, branch, node, iteration, attempt).
The same cause always yields the same id, so a duplicate delivery meets its twin and drops out wherever ids are
unique; nobody has to remember what was seen. Only lifetimes get fresh ids (UUIDv7, made by the injected `Ids`).
"""

from __future__ import annotations

import hashlib
import re

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
"""What a graph and a node may be called (spec section 2)."""

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a tenant may be called: it becomes part of topics, paths and keys, so it is kept to a safe alphabet."""

DEFAULT_TENANT = "default"

ROOT_BRANCH = ""
"""The branch of everything outside a fan-out group."""


def _digest(*parts: str | int) -> str:
    """24 hexadecimal digits (96 bits) that name the given parts and nothing else."""
    text = "\x1f".join([str(p) for p in parts])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def exec_id(lifetime_id: str, branch: str, node: str, iteration: int, attempt: int) -> str:
    """The id of one attempt at one visit of a node."""
    return _digest("exec", lifetime_id, branch, node, iteration, attempt)


def child_lifetime_id(parent_exec_id: str, now: int) -> str:
    """The UUIDv7 of the lifetime that the execution `parent_exec_id` starts; `now` (us) is when that was logged."""
    bits = int.from_bytes(hashlib.blake2b(b"child\x1f" + parent_exec_id.encode(), digest_size=10).digest(), "big")
    return uuid7(now // 1000, bits & ((1 << 74) - 1))


def group_path(branch: str, node: str, iteration: int) -> str:
    """The path of the fan-out group that this visit of a Plan opens inside `branch`."""
    return f"{branch}/{node}:{iteration}" if branch else f"{node}:{iteration}"


def branch_path(group: str, index: int) -> str:
    """The path of branch number `index` (from 0) of a fan-out group."""
    return f"{group}.{index}"


def parent_group(branch: str) -> tuple[str, int]:
    """The group a branch belongs to and its index there. The root branch has none: ValueError."""
    if branch == ROOT_BRANCH:
        raise ValueError("the root branch belongs to no fan-out group")
    group, _, index = branch.rpartition(".")
    return group, int(index)


def in_group(path: str, group: str) -> bool:
    """Whether a branch (or a group inside it) lies in one of the branches of `group`, at any depth."""
    return path.startswith(group + ".")


def traceparent(lifetime_id: str, execution: str) -> str:
    """The W3C traceparent of an execution: the lifetime is the trace, the execution the span."""
    span = hashlib.blake2b(execution.encode(), digest_size=8).hexdigest()
    return f"00-{lifetime_id.replace('-', '')}-{span}-01"


def uuid7(milliseconds: int, bits: int) -> str:
    """A UUID version 7 (RFC 9562) from a Unix time in milliseconds and 74 random bits."""
    rand_a, rand_b = bits >> 62, bits & ((1 << 62) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0x2 << 62 | rand_b
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
