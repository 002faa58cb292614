"""What a bucket is like: tried out for `tickwork doctor`, which judges it.

Encryption, versions and rules that delete are settings of the bucket that the credentials of a service need not be able
to read. What a server says in its headers about one object tells of all three, so one is written (`.tickwork-doctor`,
below the prefix), looked at, and removed.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from tickwork.adapters.blob.objects.address import connect, read_address
from tickwork.adapters.blob.objects.failures import Refusals
from tickwork.adapters.blob.objects.store import SETTLE, look_for_bucket

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from obstore.store import GCSStore, S3Store

    from tickwork.ports import Clock

PROBE: Final = ".tickwork-doctor"
"""The object (below the prefix) that is written. No tenant has such a name."""

FIRST, SECOND = b"the first", b"the second, which must not replace it"


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out."""

    where: str
    scheme: str
    endpoint: str
    """Empty: the makers' own."""
    sse: str
    """What the URL asks for."""
    seconds: float
    """Until the first object was written."""
    same: bool
    """What was read is what was written."""
    if_absent: bool
    """A put-if-absent left the object that was there alone."""
    removed: bool
    """The object could be removed again; the services need not be able to."""
    headers: dict[str, str] | None
    """What the server said about the object, names in lower case; None: it cannot be asked."""
    asked: int
    """Microseconds, by this host's clock, in the middle of asking for the headers."""
    told: int
    """Microseconds, by the server's clock, in the middle of the second that it named; 0: it did not."""
    doubt: int
    """Microseconds that `asked` and `told` together may be off."""


async def examine(url: str, clock: Clock, limit: float) -> Examination:
    """Writes, reads, looks. `limit`: seconds after which a request is given up. StorageError, UsageError."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    given = read_address(url, os.environ)
    address = msgspec.structs.replace(given, options={**given.options, "timeout": f"{limit:.3f}"})
    client = connect(address)
    path = address.prefix + PROBE
    refusals = Refusals(address.where, address.secrets)
    begun = clock.monotonic()
    try:
        await look_for_bucket(client, path)
        await client.put_async(path, FIRST, mode="overwrite", use_multipart=False)
        seconds = clock.monotonic() - begun
        try:
            await client.put_async(path, SECOND, mode="create", use_multipart=False)
            if_absent = False
        except AlreadyExistsError:
            if_absent = True
        body = (await (await client.get_async(path)).bytes_async()).to_bytes()
    except (BaseError, OSError) as error:
        raise refusals.refused("Writing to the blob store", error) from None
    before = clock.now()
    headers = await _headers(client, path, limit)
    after = clock.now()
    told, removed = _date(headers), await _removed(client, path)
    await clock.sleep(SETTLE)
    return Examination(
        where=address.where,
        scheme=address.scheme,
        endpoint=address.options.get("endpoint", ""),
        sse=address.options.get("sse", ""),
        seconds=seconds,
        same=body == (FIRST if if_absent else SECOND),
        if_absent=if_absent and body == FIRST,
        removed=removed,
        headers=headers,
        asked=(before + after) // 2,
        told=told,
        doubt=(after - before) // 2 + 500_000,
    )


async def _removed(client: S3Store | GCSStore, path: str) -> bool:
    from obstore.exceptions import BaseError

    try:
        await client.delete_async(path)
    except (BaseError, OSError):
        return False
    return True


async def _headers(client: S3Store | GCSStore, path: str, limit: float) -> dict[str, str] | None:
    """What the server says about the object; None when these credentials cannot sign, or a key would be needed."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        signed = await obstore.sign_async(client, "HEAD", path, timedelta(seconds=60))
        found = await asyncio.to_thread(_head, signed, limit)
    except (BaseError, OSError, ValueError):
        return None
    return {name.lower(): value for name, value in found.items()}


def _head(url: str, limit: float) -> HTTPMessage:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("an object store speaks HTTP")
    request = Request(url, method="HEAD")  # noqa: S310 - the scheme was checked
    with build_opener(_NoRedirect).open(request, timeout=limit) as answer:
        headers: HTTPMessage = answer.headers
        return headers


class _NoRedirect(HTTPRedirectHandler):
    """A signed address is meant for one server."""

    def redirect_request(self, *_: object) -> None:
        raise URLError("it leads elsewhere")


def _date(headers: dict[str, str] | None) -> int:
    try:
        return int(parsedate_to_datetime((headers or {})["date"]).timestamp()) * 1_000_000 + 500_000
    except (KeyError, ValueError, TypeError):
        return 0
