"""What a server says about itself: facts for `tickwork doctor`, in words that say what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.state.postgres.schema import SHARED_TABLES

if TYPE_CHECKING:
    from tickwork.adapters.state.postgres.address import Address
    from tickwork.adapters.state.postgres.connections import Connection


async def facts(connection: Connection, sql: dict[str, str], address: Address, schema: int) -> dict[str, str]:
    """Technology, version, where it is, whether it keeps what it acknowledges and keeps tenants apart, what is free."""
    name = address.options.schema
    tables = [row[0] for row in await connection.fetch(sql["find_tables"], name)]
    walled = [table for table in tables if table not in SHARED_TABLES]
    row = await connection.fetchrow(sql["describe_server"], name, walled)
    if row is None:
        return {}
    cockroach = "CockroachDB" in row["version"]
    return {
        "technology": "CockroachDB" if cockroach else "PostgreSQL",
        "version": row["version"].split(" on ")[0].split("(")[0].removeprefix("PostgreSQL ").strip(),
        "place": f"{address.label}, as {row['login']}",
        "schema": str(schema),
        "durability": _durability(row["fsync"], row["synchronous_commit"], row["full_page_writes"], row["standbys"]),
        "row-level security": f"forced on {row['forced']} of {len(walled)} tables of tenants",
        "connections": f"{row['connections']} to this database, max_connections {row['max_connections']}",
    }


def _durability(fsync: str | None, commits: str | None, pages: str | None, standbys: str | None) -> str:
    """Whether a commit that was acknowledged survives a power cut, and the loss of the machine."""
    if fsync == "off" or commits == "off" or pages == "off":
        return (
            f"NOT SAFE: fsync {fsync}, synchronous_commit {commits}, full_page_writes {pages}; what was acknowledged "
            "may be lost. Set all three to on"
        )
    standby = f"synchronous standbys: {standbys}" if standbys else "no synchronous standby"
    return f"fsync {fsync}, synchronous_commit {commits}, {standby}"
