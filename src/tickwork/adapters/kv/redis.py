"""The key-value store on Redis (or Valkey, or what else speaks its protocol).

    redis://[user:password@]host[:port][/database]?prefix=&timeout=&ca=      rediss:// is the same over TLS

What is asked while an answer is awaited goes out together, in the order in which it was asked, as soon as that answer
is there: one connection serves a whole process, and the more is asked at the same time, the less each costs.

Nothing here is the truth, and Redis may lose all of it at any time: then a `get` finds nothing. What must not happen is
that work waits for a Redis that does not answer. So the first request that finds it gone takes `timeout` seconds at
most, and all others fail at once, while one task of this store looks for it in the background; from the moment when it
answers again, everything goes on. For the same reason `start` succeeds without Redis, and says so in the log: a worker
that comes back during an outage works. A Redis that answers and refuses (a wrong password) is an error at start.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tickwork.adapters.meters import SECONDS, Meters
from tickwork.errors import MissingExtra, StorageError, UsageError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tickwork.ports import Clock

log = logging.getLogger(__name__)

PREFIX = "tickwork:"
"""What every key begins with, unless the URL says otherwise: the database may be shared."""

TIMEOUT = 1.0
"""Seconds that a connection or an answer may take."""

BATCH = 512
"""Most commands that go out together."""

CONNECTIONS = 2
"""Of one process: for the commands, and for looking whether Redis is back."""

SEARCH = (0.05, 2.0)
"""Seconds between two looks for a Redis that is gone: at first, and at most. Each wait is twice the one before."""

REPLACE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return 0
"""
"""Compare and set, which only the newest servers have as a command."""

_OPTIONS = ("prefix", "timeout", "ca")


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A Redis URL, checked."""

    host: str
    port: int
    database: int
    user: str | None
    password: str | None
    tls: bool
    prefix: str = PREFIX
    timeout: float = TIMEOUT
    ca: str | None = None
    """A file with the certificates to trust, in place of the system's."""

    def __repr__(self) -> str:
        return f"RedisAddress({self.where})"

    @property
    def where(self) -> str:
        """How messages name it: without user and password."""
        return f"Redis at {self.host}:{self.port}/{self.database}"


def read_address(url: str) -> RedisAddress:
    """The URL's meaning. Raises UsageError with what is wrong, never with the URL: it may hold a password."""
    form = "redis://[user:password@]host[:port][/database], or rediss:// for TLS"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"the URL of the key-value store is malformed; write {form}") from None
    database = parts.path.strip("/") or "0"
    if not host or not re.fullmatch(r"[0-9]{1,5}", database) or parts.fragment:
        raise UsageError(f"the URL of the key-value store names no host or no database by its number; write {form}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise UsageError(f"a Redis URL knows no `{unknown[0]}`; it knows {', '.join(_OPTIONS)}")
    timeout = options.get("timeout", str(TIMEOUT))
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", timeout) or float(timeout) == 0:
        raise UsageError("timeout= of a Redis URL is a number of seconds above 0: timeout=0.5")
    return RedisAddress(
        host=host,
        port=port or 6379,
        database=int(database),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        prefix=options.get("prefix", PREFIX),
        timeout=float(timeout),
        ca=options.get("ca"),
    )


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is like: read for `tickwork doctor`, which judges it."""

    where: str
    host: str
    encrypted: bool
    seconds: float
    """Until the first answer, with the connection."""
    facts: dict[str, str]
    """What INFO says; empty when this user may not ask."""
    keeps: bool
    """What was set could be read back."""
    replaces: bool
    """It compares and sets: its user may run EVAL."""
    asked: int
    """Microseconds, by this host's clock, in the middle of asking for `told`."""
    told: int
    """Microseconds, by the server's clock; 0 when this user may not ask."""
    doubt: int
    """Microseconds that `asked` may be off."""


async def examine(url: str, clock: Clock) -> Examination:
    """Asks the server once. StorageError when it cannot be reached or refuses."""
    from redis.exceptions import RedisError

    address = read_address(url)
    redis: Any = _client(address)
    key = f"{address.prefix}doctor"
    try:
        begun = clock.monotonic()
        await redis.ping()
        seconds = clock.monotonic() - begun
        said = await _answer(redis, "INFO")
        before = clock.now()
        time = await _answer(redis, "TIME")
        after = clock.now()
        await redis.execute_command("SET", key, b"1", "PX", 60_000)
        kept = await redis.execute_command("GET", key)
        replaced = await _answer(redis, "EVAL", REPLACE, 1, key, b"1", b"2", 60_000)
        await redis.execute_command("DEL", key)
    except (RedisError, OSError) as error:
        raise StorageError(f"{address.where} does not serve the key-value store ({_reason(error)}).") from None
    finally:
        await redis.aclose()
    told = 0 if time is None else int(time[0]) * 1_000_000 + int(time[1])
    return Examination(
        where=address.where,
        host=address.host,
        encrypted=address.tls,
        seconds=seconds,
        facts={} if said is None else {str(name): str(value) for name, value in said.items()},
        keeps=kept == b"1",
        replaces=replaced == 1,
        asked=(before + after) // 2,
        told=told,
        doubt=(after - before) // 2,
    )


async def _answer(redis: Any, *command: Any) -> Any:
    """What it says to a command that administrators may have taken away; then None."""
    from redis.exceptions import ResponseError

    try:
        return await redis.execute_command(*command)
    except ResponseError:
        return None


class RedisKV:
    """The KVStore port on Redis. Raises UsageError for a malformed URL, MissingExtra without the client."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._address = read_address(url)
        self._clock = clock
        self._redis = _client(self._address)
        self._gone: str | None = None
        """Why Redis does not answer; None while it does."""
        self._search: asyncio.Task[None] | None = None
        self._asked: deque[tuple[tuple[Any, ...], asyncio.Future[Any]]] = deque()
        """Commands that wait to be sent, and who waits for their answers."""
        self._sender: asyncio.Task[None] | None = None
        """Runs as long as there are any."""
        self._stopped = False
        self.meters = Meters(("gone",))
        """What it counts of its own work. Nothing is sent twice here: `gone` is a look for a Redis that is gone."""
        self._round_trip = self.meters.histogram("answer_seconds", "Time until what went out was answered", SECONDS)

    @property
    def reachable(self) -> bool:
        """Whether Redis answered last."""
        return self._gone is None and not self._stopped

    async def start(self) -> None:
        """Connects; goes on without Redis when it cannot be reached. StorageError when Redis refuses."""
        from redis.exceptions import RedisError

        self._stopped, self._gone = False, None
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            if _answered(error):
                await self.stop()
                raise StorageError(
                    f"{self._address.where} refuses ({_reason(error)}). Check the user, the password and the number "
                    "of the database in TICKWORK_KV_URL."
                ) from None
            self._lost(error)

    async def stop(self) -> None:
        """Closes all connections. Twice is fine."""
        self._stopped = True
        for task in (self._search, self._sender):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._search = self._sender = None
        await self._redis.aclose()

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none, it expired, or Redis forgot it."""
        found: bytes | None = await self._ask("GET", self._address.prefix + key)
        return found

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        """Sets it for `ttl` seconds (None: no end). With `if_absent`, only when there is none: False if there is."""
        options: tuple[Any, ...] = ("NX",) if if_absent else ()
        if ttl is not None:
            options += ("PX", _milliseconds(ttl))
        return bool(await self._ask("SET", self._address.prefix + key, value, *options))

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """Sets it to `new` for `ttl` seconds if it is `old` now, in one step; else False."""
        return bool(await self._ask("EVAL", REPLACE, 1, self._address.prefix + key, old, new, _milliseconds(ttl)))

    async def delete(self, key: str) -> None:
        """Removes it; fine when it is not there."""
        await self._ask("DEL", self._address.prefix + key)

    async def ping(self) -> None:
        """StorageError unless Redis answers; at once while it is known to be gone."""
        await self._ask("PING")

    async def _ask(self, *command: Any) -> Any:
        """Has a command sent, and returns its answer. StorageError: at once while Redis is known to be gone."""
        if self._stopped:
            raise self._stop_error()
        if self._gone is not None:
            raise self._refused(self._gone)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((command, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all(), name="kv: sending")
        found = await answer
        if isinstance(found, StorageError):
            raise found
        if isinstance(found, Exception):
            if not _answered(found):
                self._lost(found)
            raise self._refused(_reason(found))
        return found

    async def _send_all(self) -> None:
        """Sends what was asked, as much at a time as has come together, until nothing is left."""
        batch: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        try:
            while self._asked:
                batch = [self._asked.popleft() for _ in range(min(BATCH, len(self._asked)))]
                answers = await self._answers([command for command, _ in batch])
                for (_, waiting), answer in zip(batch, answers, strict=True):
                    if not waiting.done():  # nobody waits for it any more
                        waiting.set_result(answer)
        finally:
            self._sender = None
            for _, waiting in (*batch, *self._asked):
                if not waiting.done():
                    waiting.set_result(self._stop_error())
            self._asked.clear()

    async def _answers(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """One answer a command: what Redis said, or why it did not."""
        if self._gone is not None:
            return [self._refused(self._gone)] * len(commands)
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        begun = self._clock.monotonic()
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
            if not _answered(error):
                self._lost(error)  # what waits behind these is not sent, each to wait as long
            return [error] * len(commands)
        self._round_trip.observe(self._clock.monotonic() - begun)
        return answers

    def _stop_error(self) -> StorageError:
        return StorageError(f"the store on {self._address.where} was stopped; start it first")

    def _refused(self, reason: str) -> StorageError:
        return StorageError(
            f"{self._address.where} does not serve the key-value store ({reason}). Work goes on without claims; check "
            "that it runs, can be reached from here, and has memory left."
        )

    def _lost(self, error: BaseException) -> None:
        """Notes that Redis is gone, and begins to look for it."""
        if self._gone is None and not self._stopped:
            self._gone = _reason(error)
            log.warning(
                "%s is gone (%s): work goes on without claims until it is back", self._address.where, self._gone
            )
            self._search = asyncio.create_task(self._find(), name="kv: looking for Redis")

    async def _find(self) -> None:
        """Looks for Redis until it answers."""
        wait, longest = SEARCH
        while True:
            await self._clock.sleep(wait)
            wait = min(2 * wait, longest)
            self.meters.retried("gone")
            try:
                await self._redis.connection_pool.disconnect(
                    inuse_connections=False
                )  # after a failover: of the old one
                await self._redis.ping()
            except Exception as error:  # noqa: BLE001 - whatever a look raises, the next one may find it
                self._gone = _reason(error)
            else:
                self._gone = None
                log.info("%s is back", self._address.where)
                return


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))


def _client(address: RedisAddress) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as Disconnected
    except ModuleNotFoundError as error:
        raise MissingExtra.of("a store in redis:// needs", "redis", error) from None
    tls: dict[str, Any] = {}
    if address.tls:
        tls = {"connection_class": SSLConnection, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if address.ca:
            tls["ssl_ca_certs"] = address.ca
    pool = BlockingConnectionPool(
        **{"connection_class": Connection, **tls},
        max_connections=CONNECTIONS,
        timeout=address.timeout,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user,
        password=address.password,
        socket_timeout=address.timeout,
        socket_connect_timeout=address.timeout,
        socket_keepalive=True,
        # A connection that was cut while it lay idle is opened anew, once. What times out is not tried twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        client_name="tickwork",
        protocol=2,  # every server speaks it
    )
    return Redis.from_pool(pool)


def _answered(error: BaseException) -> bool:
    """Whether Redis is there and said no; else it is gone, loads its data, or has become a replica."""
    from redis.exceptions import AuthenticationError, DataError, InvalidResponse, ReadOnlyError, ResponseError

    if isinstance(error, ReadOnlyError):
        return False
    return isinstance(error, AuthenticationError | DataError | InvalidResponse | ResponseError)


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
