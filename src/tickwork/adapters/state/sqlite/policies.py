"""Policy documents and sets of policies: what they look like in the database, and how one is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from tickwork.ports import StoredPolicies

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from tickwork.adapters.state.sqlite.rows import Row
    from tickwork.errors import TickworkError


@final
class PolicyUnit:
    """A document to put in force. The same again, as after an answer that was lost, changes nothing."""

    __slots__ = ("document", "error")

    def __init__(self, document: StoredPolicies) -> None:
        self.document = document
        self.error: TickworkError | None = None

    def put(self, execute: Callable[..., sqlite3.Cursor], sql: dict[str, str]) -> None:
        """Writes it."""
        new = self.document
        execute(sql["insert_policies"], (new.tenant_id, new.graph, new.digest, new.body, new.at, new.by))


@final
class PolicySetUnit:
    """A set to keep under its digest."""

    __slots__ = ("body", "digest", "error")

    def __init__(self, digest: str, body: bytes) -> None:
        self.digest = digest
        self.body = body
        self.error: TickworkError | None = None

    def put(self, execute: Callable[..., sqlite3.Cursor], sql: dict[str, str]) -> None:
        """Writes it."""
        execute(sql["insert_policy_set"], (self.digest, self.body))


def policies_from(row: Row) -> StoredPolicies:
    """A document of a row of list_policies.sql and its like."""
    return StoredPolicies(*row)
