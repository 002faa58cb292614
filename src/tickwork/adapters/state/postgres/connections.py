"""Connections and transactions: which role a transaction works as, for which tenant, and what is tried again.

Nothing is set for longer than a transaction but the timeouts, so a connection that goes back to its pool carries
nothing of the tenant that it served, also behind a pooler. A transaction that fails for a reason that passes (the
server restarts, another process was first) is made again as a whole, for as long as the URL's `patience` lasts; all
that is written here may be written twice. The one exception, appends, looks what became of the first try.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import asyncpg

from tickwork.adapters.state.postgres.failures import CommitUnknown, Failures, lost, passes, storage_error, why
from tickwork.errors import StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tickwork.adapters.meters import Meters
    from tickwork.adapters.state.postgres.address import Address
    from tickwork.ports import Clock

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

APP: Final = "tickwork_app"
"""The role that works for one tenant: row-level security shows it that tenant's rows alone."""

SYSTEM: Final = "tickwork_system"
"""The role that works for all tenants: it writes the log and walks what is open."""

ALL: Final = "*"
"""What the system's transactions name in place of a tenant."""

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between tries."""

GOLDEN = 0.6180339887
"""Multiples of it spread over the unit interval, so that processes that fail together come back apart."""


def place_of_this_process() -> int:
    """A number that processes seldom share, also where all of them have the same pid."""
    return int.from_bytes(
        hashlib.blake2b(f"{socket.gethostname()} {os.getpid()}".encode(), digest_size=6).digest(), "big"
    )


class Patience:
    """Decides about each failure of one call: sleeps before the next try, which is counted, or raises StorageError."""

    def __init__(self, address: Address, clock: Clock, meters: Meters | None = None) -> None:
        self._address = address
        self._clock = clock
        self._meters = meters
        self._until = clock.monotonic() + address.options.patience
        self._tries = 0

    async def after(self, error: Exception) -> None:
        """Returns when it is time to try again."""
        if not passes(error) or self._clock.monotonic() >= self._until:
            raise told(self._address, error) from error
        if self._meters is not None:
            self._meters.retried(why(error))
        pause = min(FIRST_PAUSE * 2**self._tries, LONGEST_PAUSE)
        self._tries += 1
        await self._clock.sleep(pause * (0.5 + 0.5 * ((place_of_this_process() + self._tries) * GOLDEN % 1)))


def told(address: Address, error: BaseException) -> StorageError:
    """The error to raise for one of the driver's."""
    if isinstance(error, StorageError):
        return error
    cause = error.__cause__ if isinstance(error, CommitUnknown) and error.__cause__ else error
    said = address.without_secrets(str(cause).strip().replace("\n", " ") or type(cause).__name__).rstrip(".")
    return storage_error(cause, address.label, said)


class Pool:
    """Up to `size` connections to one database; the one that was used last is used next. Belongs to one event loop."""

    def __init__(self, address: Address, clock: Clock, meters: Meters, size: int, kept: int = 1) -> None:
        self._address = address
        self._clock = clock
        self._meters = meters
        self.size = size
        self.busy = 0
        """Connections that are being used, or made."""
        self._slots = asyncio.Semaphore(size)
        self._kept = kept
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one use. One that is in doubt afterwards is thrown away."""
        try:
            # Not wait_for: up to Python 3.11 it loses a cancellation that comes as the slot does.
            async with asyncio.timeout(self._address.options.patience):
                await self._slots.acquire()
        except TimeoutError:
            raise StorageError(
                f"All connections of this process to {self._address.label} were busy for "
                f"{self._address.options.patience:g} seconds. Raise pool_max in the URL, or ask for less at a time."
            ) from None
        self.busy += 1
        try:
            found = self._take() or await connect(self._address)
            try:
                yield found
            finally:
                if found.is_closed() or found.is_in_transaction() or self._closed or len(self._idle) >= self._kept:
                    found.terminate()
                else:
                    self._idle.append(found)
        finally:
            self.busy -= 1
            self._slots.release()

    async def run(
        self, role: str, tenant: str | None, work: Callable[[Connection], Awaitable[T]], *, readonly: bool = False
    ) -> T:
        """What `work` returns in a transaction of its own, once that is committed. Tried again as the module says."""
        patience = Patience(self._address, self._clock, self._meters)
        while True:
            try:
                return await self.attempt(role, tenant, work, readonly=readonly)
            except (*Failures, CommitUnknown) as error:
                await patience.after(error)

    async def attempt(
        self, role: str, tenant: str | None, work: Callable[[Connection], Awaitable[T]], *, readonly: bool = False
    ) -> T:
        """The same, tried once. Raises what the driver raises; CommitUnknown when the answer to COMMIT was lost."""
        if self._closed:
            raise StorageError(f"The database {self._address.label} is not open.")
        async with self.connection() as connection:
            try:
                await connection.execute(self._opening(role, all_tenants=tenant is None, readonly=readonly))
                if tenant is not None:
                    await name_tenant(connection, tenant)
                result = await work(connection)
                await _commit(connection)
            except BaseException as error:
                if lost(error):  # also one that answers still, but is in doubt, or leads to a standby
                    connection.terminate()
                else:
                    await _roll_back(connection)
                raise
            return result

    async def close(self) -> None:
        """Closes what is idle; what is in use is closed when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(*Failures):
                await connection.close(timeout=self._address.options.connect_timeout)

    @property
    def idle(self) -> int:
        """Connections that stay open for the next use."""
        return len(self._idle)

    def _take(self) -> Connection | None:
        while self._idle:
            found = self._idle.pop()
            if not found.is_closed():
                return found
        return None

    def _opening(self, role: str, *, all_tenants: bool, readonly: bool) -> str:
        """Nothing in it comes from outside but the schema's name, which was checked to be one."""
        tenant = f"; SET LOCAL tickwork.tenant = '{ALL}'" if all_tenants else ""
        level = (
            self._address.isolation if not readonly else "REPEATABLE READ"
        )  # all that one read asks is of one moment
        access = "READ ONLY" if readonly else "READ WRITE"
        return (
            f"BEGIN ISOLATION LEVEL {level} {access}; SET LOCAL ROLE {role}; "
            f'SET LOCAL search_path = "{self._address.options.schema}"{tenant}'
        )


async def name_tenant(connection: Connection, tenant: str) -> None:
    """From now until its end the transaction works for this tenant."""
    await connection.execute("SELECT set_config('tickwork.tenant', $1, true)", tenant)


async def connect(address: Address) -> Connection:
    """A new connection with the timeouts of the URL."""
    options = address.options
    settings = {
        "statement_timeout": _milliseconds(options.statement_timeout),
        "lock_timeout": _milliseconds(options.lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(options.idle_timeout),
        "client_min_messages": "error",
        "application_name": options.application_name,
    }
    try:
        return await asyncpg.connect(
            address.dsn,
            timeout=options.connect_timeout,
            # A peer that has vanished answers no statement: then the connection is given up.
            command_timeout=options.statement_timeout + options.connect_timeout,
            statement_cache_size=options.statement_cache,
            server_settings=settings,
        )
    except asyncpg.ClientConfigurationError as error:
        raise UsageError(
            f"The URL of the database {address.label} cannot be used: {address.without_secrets(str(error))}."
        ) from None


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


async def _commit(connection: Connection) -> None:
    try:
        await connection.execute("COMMIT")
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if lost(error) or (isinstance(error, asyncpg.PostgresError) and error.sqlstate == "40003"):
            connection.terminate()
            raise CommitUnknown("the connection was lost in the middle of COMMIT") from error
        raise


async def _roll_back(connection: Connection) -> None:
    """Leaves the connection without a transaction, or closed."""
    if connection.is_closed():
        return
    try:
        await connection.execute("ROLLBACK")
    except BaseException as error:
        connection.terminate()
        if not isinstance(error, Failures):
            raise
