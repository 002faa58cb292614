"""Where the objects lie: the URL of an object store, read and checked, and the client that is made of it.

    s3://<bucket>?endpoint=&region=&access_key_id=&secret_access_key=&session_token=&sse=&kms_key=&prefix=&timeout=
    gs://<bucket>?endpoint=&service_account=&prefix=&timeout=

All of it but the bucket may be left out: then the region, the endpoint and the credentials come from where the makers'
own tools take them (the `AWS_*` or `GOOGLE_*` variables, the identity of the machine or the container). Nothing of the
URL but the bucket and the endpoint ever stands in a message: the rest may be secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from tickwork.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, GCSStore, RetryConfig, S3Config, S3Credential, S3Store

SSE_C_KEY = "TICKWORK_S3_SSE_C_KEY"
"""The variable with the 32 bytes, in base64, of a customer's own key (`sse=sse-c`). A URL is no place for it."""

TIMEOUT = 30.0
"""Seconds without a byte after which a request is given up, unless the URL says another `timeout`."""

RETRIES = 5
"""How often the client tries a request again, within `timeout`: after an answer of 5xx, a cut, or no connection."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_SSE = ("AES256", "aws:kms", "aws:kms:dsse", "sse-c")
_SHARED = {"endpoint", "prefix", "timeout"}
_OPTIONS = {
    "s3": _SHARED | {"region", "access_key_id", "secret_access_key", "session_token", "sse", "kms_key"},
    "gs": _SHARED | {"service_account"},
}


class Address(msgspec.Struct, frozen=True):
    """An object store's URL, checked. Its options may be secret, so it has no text form."""

    scheme: str
    bucket: str
    options: dict[str, str]
    sse_c_key: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.where})"

    @property
    def where(self) -> str:
        """How messages name it."""
        endpoint = self.options.get("endpoint")
        return f"the bucket `{self.bucket}`" + (f" at {endpoint}" if endpoint else f" ({self.scheme}://)")

    @property
    def secrets(self) -> list[str]:
        """What must not stand in any message."""
        names = ("secret_access_key", "session_token")
        return [self.options.get(name, "") for name in names] + [self.sse_c_key or ""]

    @property
    def prefix(self) -> str:
        """What every name begins with: empty, or ending in a slash."""
        prefix = self.options.get("prefix", "")
        return f"{prefix}/" if prefix else ""


def read_address(url: str, environment: Mapping[str, str]) -> Address:
    """The URL's meaning. Raises UsageError with what is wrong, never with the URL."""
    parts = urlsplit(url)
    scheme = parts.scheme
    known = _OPTIONS[scheme]
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"a {scheme}:// URL has no user before the bucket; give access_key_id= and secret_access_key=")
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(f"a {scheme}:// URL names a bucket of lowercase letters, digits, `-` and `.` after the //")
    if parts.path.strip("/") or parts.fragment:
        raise UsageError(f"after the bucket of a {scheme}:// URL come options only; a folder in it is prefix=<name>")
    options = dict(parse_qsl(parts.query, keep_blank_values=False))
    unknown = sorted(options.keys() - known)
    if unknown:
        raise UsageError(f"a {scheme}:// URL knows no `{unknown[0]}`; it knows {', '.join(sorted(known))}")
    _check(options)
    key = _customer_key(environment) if options.get("sse") == "sse-c" else None
    return Address(scheme, parts.netloc, options, key)


def _check(options: Mapping[str, str]) -> None:
    endpoint, prefix, sse = options.get("endpoint"), options.get("prefix"), options.get("sse")
    if endpoint is not None:
        _check_endpoint(endpoint)
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise UsageError("prefix= of a blob URL is names of letters, digits, `.`, `_`, `-`, parted by single slashes")
    if sse is not None and sse not in _SSE:
        raise UsageError(f"sse= of an s3:// URL is one of {', '.join(_SSE)}")
    if ("kms_key" in options) != (sse in ("aws:kms", "aws:kms:dsse")):
        raise UsageError("kms_key= of an s3:// URL goes with sse=aws:kms or sse=aws:kms:dsse, and they with it")
    if ("access_key_id" in options) != ("secret_access_key" in options):
        raise UsageError("access_key_id= and secret_access_key= of an s3:// URL go together: give both or neither")
    if "session_token" in options and "access_key_id" not in options:
        raise UsageError("session_token= of an s3:// URL goes with access_key_id= and secret_access_key=")
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", options.get("timeout", "1")) or options.get("timeout") == "0":
        raise UsageError("timeout= of a blob URL is a number of seconds: timeout=30")


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise UsageError("endpoint= of a blob URL is no URL: write endpoint=https://host:port") from None
    if not well_formed or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError("endpoint= of a blob URL is http:// or https://, a host, perhaps a port, and nothing else")


def _customer_key(environment: Mapping[str, str]) -> str:
    value = environment.get(SSE_C_KEY)
    if not value:
        raise UsageError(f"sse=sse-c needs a key: put 32 random bytes, in base64, into {SSE_C_KEY}, and never lose it")
    try:
        length = len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        length = -1
    if length != 32:
        raise UsageError(f"{SSE_C_KEY} is not the base64 of 32 bytes; `openssl rand -base64 32` makes such a key")
    return value


def connect(address: Address) -> S3Store | GCSStore:
    """The client of an address; nothing is sent yet. Raises MissingExtra, UsageError."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import GCSStore
    except ModuleNotFoundError as error:
        raise MissingExtra.of("blobs in s3:// or gs:// need", "s3", error) from None
    try:
        if address.scheme == "s3":
            return _s3(address)
        options = address.options
        config: GCSConfig = {}
        if "endpoint" in options:
            config["base_url"] = options["endpoint"]
        if "service_account" in options:
            config["service_account"] = options["service_account"]
        client, retries = _client(options), _retries(options)
        return GCSStore(address.bucket, config=config, client_options=client, retry_config=retries)
    except (BaseError, ValueError, OSError):
        # What it complains about may quote what is secret.
        raise UsageError(
            f"no client can be made for {address.where}: an option of its URL, or a variable of the environment that "
            "belongs to it (AWS_*, GOOGLE_*), is malformed"
        ) from None


def _s3(address: Address) -> S3Store:
    from obstore.store import S3Store

    options = address.options
    config: S3Config = {}
    if "endpoint" in options:
        config["endpoint"] = options["endpoint"]
    if "region" in options:
        config["region"] = options["region"]
    if "sse" in options:
        config["server_side_encryption"] = options["sse"]
    if "kms_key" in options:
        config["sse_kms_key_id"] = options["kms_key"]
    if address.sse_c_key is not None:
        config["sse_customer_key_base64"] = address.sse_c_key
    client, retries = _client(options), _retries(options)
    if "access_key_id" not in options:
        return S3Store(address.bucket, config=config, client_options=client, retry_config=retries)

    def given() -> S3Credential:
        """The URL's own, whole: a session token of the environment belongs to another key."""
        return {
            "access_key_id": options["access_key_id"],
            "secret_access_key": options["secret_access_key"],
            "token": options.get("session_token"),
            "expires_at": None,
        }

    return S3Store(
        address.bucket, config=config, client_options=client, retry_config=retries, credential_provider=given
    )


def _client(options: Mapping[str, str]) -> ClientConfig:
    timeout = timedelta(seconds=float(options.get("timeout", TIMEOUT)))
    return {
        "allow_http": options.get("endpoint", "").startswith("http://"),
        "connect_timeout": min(timeout, timedelta(seconds=5)),
        "read_timeout": timeout,
        # A blob of any size may take its time while bytes come; only what trickles for ever is cut off.
        "timeout": 20 * timeout,
    }


def _retries(options: Mapping[str, str]) -> RetryConfig:
    return {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=float(options.get("timeout", TIMEOUT))),
        # Each wait is drawn at random below its bound, so that a thousand workers do not come back together.
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
    }
