"""Policy documents and sets of policies: what they look like in the database, and how one is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.state.postgres.ledger import lock_tenant
from tickwork.ports import StoredPolicies

if TYPE_CHECKING:
    from tickwork.adapters.state.postgres.connections import Connection
    from tickwork.adapters.state.postgres.rows import Row


async def put_document(connection: Connection, sql: dict[str, str], document: StoredPolicies) -> None:
    """Writes a document; the same again, as after an answer that was lost, changes nothing."""
    await lock_tenant(
        connection, sql, document.tenant_id
    )  # of those who put at the same time, the second sees the first
    await connection.execute(
        sql["insert_policies"],
        document.tenant_id,
        document.graph,
        document.digest,
        document.body,
        document.at,
        document.by,
    )


def policies_from(row: Row) -> StoredPolicies:
    """A document of a row of list_policies.sql and its like."""
    return StoredPolicies(*row)
