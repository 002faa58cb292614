"""Dead letters: what a message that cannot be handled looks like in the database, and how one is kept and removed.

All that a hostile message has a say in is kept as bytes: text in Postgres cannot hold everything that a string can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.adapters.state.postgres.rows import cleaned, columns
from tickwork.model.messages import DeadLetter
from tickwork.model.records import ERROR_TEXT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.adapters.state.postgres.connections import Connection
    from tickwork.adapters.state.postgres.rows import Row

LETTERS = 10_000
"""Dead letters that are kept of one tenant."""


async def bury(connection: Connection, sql: dict[str, str], tenant_id: str, letters: Sequence[DeadLetter]) -> None:
    """Writes letters of one tenant, and lets its oldest go when it has too many."""
    await connection.execute(sql["insert_letters"], tenant_id, *columns([letter_row(one) for one in letters], 7))
    await connection.execute(sql["delete_oldest_letters"], tenant_id, LETTERS)


def letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    """The parameters of insert_letters.sql for one letter. Text about it is cut; the message itself never is."""
    headers = None
    if letter.headers is not None:
        headers = msgspec.json.encode({_short(name): _short(text) for name, text in letter.headers.items()}).decode()
    return (
        letter.letter_id,
        _bytes(letter.topic),
        _bytes(letter.key),
        letter.value,
        _bytes(_short(letter.reason)),
        letter.at,
        headers,
    )


def letter_from(row: Row) -> DeadLetter:
    """A dead letter of a row of list_letters.sql."""
    letter_id, tenant_id, topic, key, value, reason, at, headers = row
    known = None if headers is None else msgspec.json.decode(headers, type=dict[str, str])
    return DeadLetter(letter_id, tenant_id, _text(topic), _text(key), value, _text(reason), at, known)


def _short(text: str) -> str:
    if len(text) > ERROR_TEXT_LIMIT:
        text = f"{text[:ERROR_TEXT_LIMIT]}... (cut: it had {len(text):,} characters)"
    return cleaned(text)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogatepass")
