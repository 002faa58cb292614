"""What a postgresql:// URL says: where the server is, and, in its query, how this process is to use it.

    postgresql://user:password@host:5432/database?schema=tickwork&pool_max=8&statement_timeout=10

What is not ours there (`sslmode`, `sslrootcert`) goes to the driver and the server as it is. The
password is in no text that a person gets to see.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import msgspec

from tickwork.errors import UsageError

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ISOLATION: Final = {"read committed": "READ COMMITTED", "serializable": "SERIALIZABLE"}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this process uses the database. Times in seconds."""

    schema: str = "tickwork"
    """Where the tables lie; a schema of their own."""
    application_name: str = "tickwork"
    """What the server's lists of sessions show."""
    pool_min: int = 1
    """Connections for reading that stay open when nobody reads."""
    pool_max: int = 8
    """Connections for reading. One for appends and one for admissions come on top, so that reads cannot starve them."""
    connect_timeout: float = 5.0
    statement_timeout: float = 10.0
    """How long the server works on one statement."""
    lock_timeout: float = 8.0
    """How long a statement waits for another process; more than `idle_timeout`, which frees what a frozen one holds."""
    idle_timeout: float = 5.0
    """How long a transaction may hold its locks while its process says nothing."""
    patience: float = 15.0
    """How long a call goes on trying while the server is away, full of connections or busy with conflicts."""
    isolation: str = "read committed"
    """Or `serializable`, which CockroachDB has by default: the same results, with more that is tried again."""
    statement_cache: int = 200
    """Prepared statements a connection keeps; 0 behind a pooler that does not know them."""


class Address:
    """A parsed URL. `dsn` has the password and goes to the driver alone; `label` is for people."""

    def __init__(self, url: str) -> None:
        parts = _split(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        own = {name: value for name, value in query if name in Options.__struct_fields__}
        rest = [(name, value) for name, value in query if name not in Options.__struct_fields__]
        self.dsn = parts._replace(scheme="postgresql", query=urlencode(rest)).geturl()
        self.options = _options(own)
        self.isolation = _ISOLATION[self.options.isolation]
        hosts = parts.netloc.rpartition("@")[2] or dict(rest).get("host", "the default host")
        self.hosts = tuple(_name(host) for host in hosts.split(","))
        """The names of the servers, without their ports; a path is a socket of this machine."""
        self.label = f"{hosts}{parts.path} (schema {self.options.schema})"
        secrets = (parts.password, unquote(parts.password or ""), *(v for n, v in rest if "password" in n))
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Address({self.label})"

    def without_secrets(self, text: str) -> str:
        """The text, with every password of the URL taken out."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _name(host: str) -> str:
    return unquote(host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0])


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.password
    except ValueError as error:
        raise UsageError(
            f"The URL of the Postgres database cannot be understood ({_kind(error)}). Write "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %40 for an @ in the password."
        ) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise UsageError("The URL of a Postgres database begins with postgresql:// or postgres://.")
    return parts


def _kind(error: ValueError) -> str:
    return "its port is no number" if "port" in str(error).lower() else "it is not well formed"


def _options(own: dict[str, str]) -> Options:
    try:
        options = msgspec.convert(own, Options, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"An option in the URL of the Postgres database is wrong: {error}.") from None
    wrong = [name for name in Options.__struct_fields__ if isinstance(v := getattr(options, name), float) and not v > 0]
    if wrong:
        raise UsageError(f"`{wrong[0]}` in the URL of the Postgres database has to be more than 0 seconds.")
    if not _NAME.fullmatch(options.schema):
        raise UsageError("`schema` in the URL of the Postgres database is a lower-case name: letters, digits and _.")
    if options.isolation not in _ISOLATION:
        raise UsageError(f"`isolation` in the URL of the Postgres database is one of: {', '.join(_ISOLATION)}.")
    if not 0 <= options.pool_min <= options.pool_max or not options.pool_max:
        raise UsageError("`pool_max` in the URL of the Postgres database is at least 1, and not below `pool_min`.")
    return options
