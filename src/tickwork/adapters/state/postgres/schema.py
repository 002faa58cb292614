"""The database's shape: named statements, the two roles, and the migrations that are applied once.

A migration is one file, `NNNN_name.sql`, applied in one transaction together with its row in `migrations`, by one
process at a time: whoever migrates holds row 0 of that table. A file that was applied never changes; its checksum is
compared on every start. A login that may not migrate can use a database that is up to date.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from tickwork import __version__
from tickwork.adapters.sql_files import migrations_of, statements_of
from tickwork.adapters.state.postgres.connections import APP, SYSTEM, Patience, connect
from tickwork.adapters.state.postgres.failures import Failures
from tickwork.errors import StorageError, StoreTooNew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tickwork.adapters.state.postgres.address import Address
    from tickwork.adapters.state.postgres.connections import Connection
    from tickwork.ports import Clock

SHARED_TABLES = ("migrations", "policy_sets")
"""The tables whose rows belong to no tenant; all others are behind row-level security."""

TIMEOUTS = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
"""A migration takes as long as it takes; only for its locks it does not wait longer than others."""

RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateSchemaError,
    asyncpg.InternalServerError,  # "tuple concurrently updated"
)
"""What those get who make the same role, schema or table as another process at the same time."""

TRIES = 20


statements = partial(statements_of, "tickwork.adapters.state.postgres")
"""The statements of the folder sql/, by the name of their file."""

migrations = partial(migrations_of, "tickwork.adapters.state.postgres")
"""All migrations that this version of Tickwork knows, in order."""


async def open_schema(address: Address, clock: Clock, *, readonly: bool) -> int:
    """Brings the database to the newest version (not when `readonly`): the version it has then.

    StoreTooNew, StorageError when it cannot be used.
    """

    async def work(connection: Connection) -> int:
        return await _open(connection, address, clock, readonly=readonly)

    return await _connected(address, clock, work)


async def schema_version(address: Address, clock: Clock) -> int:
    """How many migrations the database has seen; nothing is changed. StoreTooNew, StorageError as `open_schema`."""

    async def work(connection: Connection) -> int:
        return len(await applied_migrations(connection, address))

    return await _connected(address, clock, work)


async def _connected(address: Address, clock: Clock, work: Callable[[Connection], Awaitable[int]]) -> int:
    """What `work` returns on a connection of its own; tried again for as long as the URL's patience lasts."""
    patience = Patience(address, clock)
    while True:
        try:
            connection = await connect(address)
            try:
                # For as long as this connection lives, which is not long. The name was checked to be one.
                await connection.execute(f'SET search_path = "{address.options.schema}"')
                return await work(connection)
            finally:
                connection.terminate()
        except Failures as error:
            await patience.after(error)


async def _open(connection: Connection, address: Address, clock: Clock, *, readonly: bool) -> int:
    applied = await applied_migrations(connection, address)
    if len(applied) == len(migrations()):
        await _check_roles(connection, address)
        return len(applied)
    if readonly:
        raise StorageError(
            f"{_behind(address, len(applied))} `tickwork db migrate` brings it up to date, or the next process that "
            "writes there and may."
        )
    try:
        await _make_roles(connection, address, clock)
        await _migrate(connection, address, clock)
    except asyncpg.InsufficientPrivilegeError as error:
        await connection.execute("ROLLBACK")
        login = await connection.fetchval("SELECT session_user")
        raise StorageError(
            f"{_behind(address, len(applied))} The login {login} may not bring it up to date "
            f"({address.without_secrets(str(error))}). Run `tickwork db migrate` once, with the URL of a login that "
            "owns the schema in TICKWORK_MIGRATE_URL; docs/postgres.md says which. Nothing was changed."
        ) from None
    await _check_roles(connection, address)
    return len(migrations())


def _behind(address: Address, found: int) -> str:
    needed = len(migrations())
    return f"The database {address.label} has schema version {found}, and Tickwork {__version__} needs {needed}."


async def applied_migrations(connection: Connection, address: Address) -> dict[int, str]:
    """The checksums of the migrations that the database has seen, once it is sure that they are ours."""
    schema = address.options.schema
    tables = [row[0] for row in await connection.fetch(statements()["find_tables"], schema)]
    if not tables:
        return {}
    if "migrations" not in tables:
        raise StorageError(
            f"The schema {schema} of {address.label} is another program's (it has the tables {', '.join(tables)}). "
            "Name another one with ?schema= in the URL. Nothing was changed."
        )
    rows = await connection.fetch("SELECT number, checksum FROM migrations WHERE number > 0")
    applied = {row[0]: row[1] for row in rows}
    if len(applied) > len(migrations()):
        raise StoreTooNew(
            f"The database {address.label} has schema version {len(applied)}, and Tickwork {__version__} knows "
            f"versions up to {len(migrations())}: a newer Tickwork wrote it. Upgrade Tickwork, or name another "
            "database. Nothing was changed."
        )
    for migration in migrations()[: len(applied)]:
        if applied.get(migration.number) != migration.checksum:
            raise StorageError(
                f"{address.label} was made with another text of migration {migration.name} than this Tickwork has. "
                "Use the Tickwork that made it, or export its lifetimes there and import them here."
            )
    return applied


async def _make_roles(connection: Connection, address: Address, clock: Clock) -> None:
    """Makes what has to be there before the first migration, where it is missing and this login may."""
    schema = address.options.schema
    for attempt in range(TRIES):
        try:
            for role in (APP, SYSTEM):
                await _make_role(connection, address, role)
            await connection.execute(f'BEGIN; CREATE SCHEMA IF NOT EXISTS "{schema}"')
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations (number bigint PRIMARY KEY, name text NOT NULL, "
                "checksum text NOT NULL, applied_at bigint NOT NULL); "
                "INSERT INTO migrations VALUES (0, 'who migrates holds this row', '', 0) "
                "ON CONFLICT (number) DO NOTHING; COMMIT"
            )
        except RACES:
            await connection.execute("ROLLBACK")
            if attempt == TRIES - 1:
                raise
            await clock.sleep(0.02)
        else:
            return


async def _make_role(connection: Connection, address: Address, role: str) -> None:
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        if not await _may_become(connection, role):
            await connection.execute(f"GRANT {role} TO CURRENT_USER")
    except asyncpg.InsufficientPrivilegeError:
        login = await connection.fetchval("SELECT session_user")
        raise StorageError(
            f"The login {login} of {address.label} may not make the roles that keep tenants apart. Let an "
            f"administrator of the server run this once: CREATE ROLE {APP} NOLOGIN; CREATE ROLE {SYSTEM} NOLOGIN; "
            f'GRANT {APP}, {SYSTEM} TO "{login}". docs/postgres.md says what they are for. Nothing was changed.'
        ) from None


async def _may_become(connection: Connection, role: str) -> bool:
    right = membership(connection)
    return bool(await connection.fetchval("SELECT pg_catalog.pg_has_role(session_user, $1, $2)", role, right))


def membership(connection: Connection) -> str:
    """The right that SET ROLE needs, as this server calls it."""
    return "SET" if connection.get_server_version().major >= 16 else "MEMBER"


async def _migrate(connection: Connection, address: Address, clock: Clock) -> None:
    schema = address.options.schema
    await connection.execute(f"BEGIN; {TIMEOUTS}")
    try:
        await connection.execute("SELECT 1 FROM migrations WHERE number = 0 FOR UPDATE")
        version = len(await applied_migrations(connection, address))  # another process may have been first
        for migration in migrations()[version:]:
            if migration.number == 1:
                await connection.execute(
                    f'GRANT USAGE ON SCHEMA "{schema}" TO {APP}, {SYSTEM}; GRANT SELECT ON migrations TO PUBLIC; '
                    f'GRANT USAGE ON SCHEMA "{schema}" TO PUBLIC'
                )
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migrations VALUES ($1, $2, $3, $4)",
                migration.number,
                migration.name,
                migration.checksum,
                clock.now(),
            )
        await connection.execute("COMMIT")
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise


async def _check_roles(connection: Connection, address: Address) -> None:
    """Refuses roles that row-level security does not hold: then one tenant could see another's rows."""
    rows = await connection.fetch(
        "SELECT rolname, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = ANY($1::text[])",
        [APP, SYSTEM],
    )
    found = {row[0]: row[1] for row in rows}
    for role in (APP, SYSTEM):
        if found.get(role, True):
            raise StorageError(
                f"The role {role} of {address.label} is missing, or it is a superuser or has BYPASSRLS, so that "
                f"tenants would not be kept apart. ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS, or see "
                "docs/postgres.md. Nothing was changed."
            )
        if not await _may_become(connection, role):
            raise StorageError(
                f"The login of {address.label} may not become {role}. Let an administrator run "
                f"GRANT {APP}, {SYSTEM} TO the login; docs/postgres.md says why. Nothing was changed."
            )
