"""Dead letters: what a message that cannot be handled looks like in the database, and how one is kept and removed.

They are written by the same transactions as the log, and only ever read by people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import msgspec

from tickwork.model.messages import DeadLetter
from tickwork.model.records import ERROR_TEXT_LIMIT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from tickwork.adapters.state.sqlite.rows import Row
    from tickwork.errors import TickworkError

LETTERS = 10_000
"""Dead letters that are kept of one tenant."""

ADDED_IN = 2
"""The schema version that has them first."""


@final
class BuryUnit:
    """Dead letters to keep."""

    __slots__ = ("error", "letters")

    def __init__(self, letters: Sequence[DeadLetter]) -> None:
        self.letters = letters
        self.error: TickworkError | None = None

    def put(self, execute: Callable[..., sqlite3.Cursor], sql: dict[str, str]) -> None:
        """Writes them, and lets the oldest go where a tenant has too many."""
        for letter in self.letters:
            execute(sql["insert_letter"], letter_row(letter))
        for tenant_id in {letter.tenant_id for letter in self.letters}:
            execute(sql["delete_oldest_letters"], {"tenant_id": tenant_id, "limit": LETTERS})


@final
class ForgetUnit:
    """One dead letter to remove; `found` says whether there was one."""

    __slots__ = ("error", "found", "letter_id", "tenant_id")

    def __init__(self, tenant_id: str, letter_id: str) -> None:
        self.tenant_id = tenant_id
        self.letter_id = letter_id
        self.found = False
        self.error: TickworkError | None = None

    def put(self, execute: Callable[..., sqlite3.Cursor], sql: dict[str, str]) -> None:
        """Removes it."""
        self.found = execute(sql["delete_letter"], (self.tenant_id, self.letter_id)).rowcount > 0


def letter_row(letter: DeadLetter) -> Row:
    """The parameters of insert_letter.sql. Text about the message is cut; the message itself never is."""
    headers = None
    if letter.headers is not None:
        headers = msgspec.json.encode({_short(name): _short(text) for name, text in letter.headers.items()}).decode()
    return (
        letter.tenant_id,
        letter.letter_id,
        letter.topic,
        letter.key,
        letter.value,
        _short(letter.reason),
        letter.at,
        headers,
    )


def letter_from(row: Row) -> DeadLetter:
    """A dead letter of a row of list_letters.sql."""
    headers = None if row[7] is None else msgspec.json.decode(row[7], type=dict[str, str])
    letter_id, tenant_id, topic, key, value, reason, at, _ = row
    return DeadLetter(letter_id, tenant_id, topic, key, value, reason, at, headers)


def _short(text: str) -> str:
    if len(text) > ERROR_TEXT_LIMIT:
        text = f"{text[:ERROR_TEXT_LIMIT]}... (cut: it had {len(text):,} characters)"
    return text.encode(errors="replace").decode()
