"""What a server, a login and a schema are like: read for `tickwork doctor`, which judges it. Nothing is changed."""

from __future__ import annotations

import msgspec

from tickwork.adapters.state.postgres.address import Address
from tickwork.adapters.state.postgres.connections import APP, SYSTEM, connect, told
from tickwork.adapters.state.postgres.failures import Failures
from tickwork.adapters.state.postgres.schema import (
    SHARED_TABLES,
    applied_migrations,
    membership,
    migrations,
    statements,
)
from tickwork.errors import StorageError
from tickwork.ports import Clock


class Table(msgspec.Struct, frozen=True):
    """A table that holds rows of tenants."""

    name: str
    enabled: bool
    """Row-level security is on."""
    forced: bool
    """It holds the table's owner, too."""
    policies: int


class Role(msgspec.Struct, frozen=True):
    """One of the two roles that do the work."""

    name: str
    exists: bool
    above: bool
    """It is a superuser or has BYPASSRLS."""
    member: bool
    """The login may become it."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection found out."""

    label: str
    schema: str
    version: str
    number: int
    """`server_version_num`: 180001 is 18.1."""
    seconds: float
    """From the first packet of the connection to the first answer."""
    login: str
    superuser: bool
    bypass: bool
    owner: bool
    """The login owns the tables."""
    standby: bool
    settings: dict[str, str | None]
    free: int
    """Connections that the server and the role leave to this login, beside those that are open."""
    limit: int
    """Connections that this login may have when nobody else has any."""
    wanted: int
    """Connections that a process with this URL takes."""
    encrypted: bool
    hosts: tuple[str, ...]
    found: int
    """The schema's version; -1 when it cannot be used at all."""
    newest: int
    refusal: str
    """Why the schema cannot be used; empty when it can, or is only old."""
    tables: tuple[Table, ...]
    roles: tuple[Role, ...]
    asked: int
    """Microseconds, by this host's clock, in the middle of asking for `told`."""
    told: int
    """Microseconds, by the server's clock."""
    doubt: int
    """Microseconds that `asked` may be off."""


async def examine(url: str, clock: Clock) -> Examination:
    """Asks the server on one connection. StorageError when it cannot be reached or refuses, UsageError."""
    address = Address(url)
    sql, begun = statements(), clock.monotonic()
    try:
        connection = await connect(address)
        try:
            await connection.execute(f'SET search_path = "{address.options.schema}"')
            seconds = clock.monotonic() - begun
            row = await connection.fetchrow(sql["examine_server"], address.options.schema)
            before = clock.now()
            time = await connection.fetchval(sql["tell_time"], None)
            after = clock.now()
            found, refusal = 0, ""
            try:
                found = len(await applied_migrations(connection, address))
            except StorageError as error:
                found, refusal = -1, str(error)
            tables = await connection.fetch(sql["examine_tables"], address.options.schema, list(SHARED_TABLES))
            roles = await connection.fetch(sql["examine_roles"], [APP, SYSTEM], membership(connection))
        finally:
            connection.terminate()
    except Failures as error:
        raise told(address, error) from error
    if row is None:
        raise StorageError(f"The database {address.label} does not say what it is.")
    known = {one["rolname"]: one for one in roles}
    return Examination(
        label=address.label,
        schema=address.options.schema,
        version=row["version"].split(" on ")[0].split(" (")[0],
        number=row["number"],
        seconds=seconds,
        login=row["login"],
        superuser=row["super"],
        bypass=row["bypass"],
        owner=row["owner"],
        standby=row["standby"],
        settings={name: row[name] for name in ("fsync", "synchronous_commit", "full_page_writes", "standbys")},
        free=min(row["places"] - row["sessions"], row["own_places"] - row["own_sessions"]),
        limit=min(row["places"], row["own_places"]),
        wanted=address.options.pool_max + 2,
        encrypted=row["encrypted"],
        hosts=address.hosts,
        found=found,
        newest=len(migrations()),
        refusal=refusal,
        tables=tuple(Table(one["name"], one["enabled"], one["forced"], one["policies"]) for one in tables),
        roles=tuple(
            Role(name, name in known, name in known and known[name]["above"], name in known and known[name]["member"])
            for name in (APP, SYSTEM)
        ),
        asked=(before + after) // 2,
        told=time,
        doubt=(after - before) // 2,
    )
