"""What adapters of databases have in common about logs: how one begins, and what is read of it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.errors import StoreCorrupt
from tickwork.model.records import LogEntry, decode_entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.messages import Append


def check_beginning(lifetime: Lifetime, started: Append) -> None:
    """ValueError unless these entries can be the first of this lifetime."""
    if (started.tenant_id, started.lifetime_id) != (lifetime.tenant_id, lifetime.lifetime_id):
        raise ValueError("a lifetime is created with entries of its own")
    if started.expect:
        raise ValueError("the log of a new lifetime is empty, so no last seq of it can be expected")
    ats = started.ats
    if ats is not None and (len(ats) != len(started.entries) or any(a > b for a, b in pairwise(ats))):
        raise ValueError("history has one time for each entry, and none before the one before it")


def log_entries(rows: Iterable[Any], lifetime_id: str, damaged: str) -> list[LogEntry]:
    """Entries of (seq, at, body) rows. StoreCorrupt when a body cannot be decoded; `damaged`: what it may come of."""
    entries = []
    for seq, at, body in rows:
        try:
            entries.append(LogEntry(seq, at, decode_entry(body)))
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(
                f"Entry {seq} of lifetime {lifetime_id} cannot be read: {error}. {damaged}; restore a backup. "
                "Other lifetimes are not affected."
            ) from None
    return entries
