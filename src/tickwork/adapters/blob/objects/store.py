"""Blobs as objects, named by what is in them: `blob://<tenant>/<sha256>` is the object `<prefix><tenant>/<sha256>`.

A blob is put only if there is none of its name, in one request; a large one in parts, after a look whether it is there.
When a put fails and nobody knows how far it got, the store is asked: the object is there, whole, or it is put again.
The same content under the same name: whoever comes second, and whatever was sent twice, changes nothing. Every read is
checked against the name, and read once more before it is called corrupt, for what was damaged on its way is not lost.

Names in records say nothing of the bucket: a history can move, its blobs copied, to another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from typing import TYPE_CHECKING

from tickwork.adapters.blob.objects.address import connect, read_address
from tickwork.adapters.blob.objects.failures import REASONS, Refusals, is_final, server_code, why
from tickwork.adapters.meters import SECONDS, Meters
from tickwork.errors import NotFound, StorageError, StoreCorrupt, UsageError
from tickwork.model.ids import TENANT

if TYPE_CHECKING:
    from obstore import GetResult, PutMode
    from obstore.store import GCSStore, S3Store

    from tickwork.ports import Clock

INLINE_BYTES = 256 * 1024
"""Up to this size a hash is computed on the event loop, in a quarter of a millisecond or so."""

PART_BYTES = 8 * 1024 * 1024
"""Blobs above this size are sent in parts of it. AWS takes 10,000 parts: 80 GB."""

PARTS_AT_ONCE = 4
CHUNK_BYTES = 1024 * 1024
"""What is read of a large blob at a time."""

TRIES = 3
"""How often a whole put or get is begun; the client's own retries are inside."""

SETTLE = 0.05
"""Seconds. After its answer was taken a thread of the client still holds Python objects for some microseconds; when the
interpreter ends just then, the thread aborts the process (exit status 134 instead of 0)."""

CHECK = ".tickwork"
"""The object (below the prefix) that `start` writes and reads back. No tenant has such a name."""

_URI = re.compile(r"blob://(?P<tenant>[^/]*)/(?P<digest>[0-9a-f]{64})")


class ObjectBlobs:
    """The BlobStore port on a bucket. Raises UsageError for a malformed URL, MissingExtra without the client."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        address = read_address(url, os.environ)
        self._prefix = address.prefix
        self._where = address.where
        self._refusals = Refusals(address.where, address.secrets)
        self._client = connect(address)
        self.meters = Meters(REASONS)
        """What it counts of its own work."""
        self._puts = self.meters.histogram("put_seconds", "Time until a payload was stored", SECONDS)
        self._gets = self.meters.histogram("get_seconds", "Time until a payload was read", SECONDS)

    async def start(self) -> None:
        """Proves that the bucket is there and that these credentials may write to it and read from it."""
        from obstore.exceptions import BaseError

        path = self._prefix + CHECK
        doing = "Starting the blob store"
        try:
            await look_for_bucket(self._client, path)
            await self._client.put_async(path, b"tickwork", mode="overwrite", use_multipart=False)
            await (await self._client.get_async(path)).bytes_async()
        except (BaseError, OSError) as error:
            await self.stop()  # nobody else will
            raise self._refusals.refused(doing, error) from None

    async def stop(self) -> None:
        """Lets the client's threads finish. Connections close by themselves."""
        await self._clock.sleep(SETTLE)

    async def ping(self) -> None:
        """Asks for one object. StorageError unless the store answers."""
        from obstore.exceptions import BaseError

        try:
            await self._size(self._prefix + CHECK)
        except (BaseError, OSError) as error:
            raise self._refusals.refused("Asking the blob store", error) from None

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        """Stores `data` durably unless it is there already: (uri, SHA-256)."""
        _check_tenant(tenant_id)
        inline = len(data) <= INLINE_BYTES
        digest = _sha256(data) if inline else await asyncio.to_thread(_sha256, data)
        uri = f"blob://{tenant_id}/{digest}"
        begun = self._clock.monotonic()
        await self._put(self._path(tenant_id, digest), uri, data)
        self._puts.observe(self._clock.monotonic() - begun)
        return uri, digest

    async def get(self, tenant_id: str, uri: str, sha256: str | None = None) -> bytes:
        """The bytes behind `uri`, checked. NotFound; StoreCorrupt; UsageError when it is not this tenant's."""
        _check_tenant(tenant_id)
        named = _URI.fullmatch(uri)
        if named is None:
            raise UsageError(f"{uri!r} is no blob of this store; its URIs are blob://<tenant>/<SHA-256 in hex>")
        if named["tenant"] != tenant_id:
            raise UsageError(f"{uri} belongs to another tenant than {tenant_id}; nothing was read")
        digest = named["digest"]
        if sha256 is not None and sha256 != digest:
            raise StoreCorrupt(f"{uri} was expected to have the SHA-256 {sha256}; its record and its name disagree")
        path = self._path(tenant_id, digest)
        for _ in range(2):
            begun = self._clock.monotonic()
            data, found = await self._get(path, uri)
            if found == digest:
                self._gets.observe(self._clock.monotonic() - begun)
                return data
            self.meters.retried("damaged")
        raise StoreCorrupt(
            f"The object {path} in {self._where} is not what was written as {uri}: its SHA-256 differs. It was changed "
            "from outside; restore an earlier version of it, or a backup."
        )

    def _path(self, tenant_id: str, digest: str) -> str:
        return f"{self._prefix}{tenant_id}/{digest}"

    async def _put(self, path: str, uri: str, data: bytes) -> None:
        from obstore.exceptions import BaseError

        large = len(data) > PART_BYTES
        failure: Exception | None = None
        try:
            for number in range(TRIES):
                if failure is not None:
                    self.meters.retried(why(failure))
                size = await self._size(path) if number or large else None
                if size == len(data):
                    return
                failure = await self._send(path, data, size)
                if failure is None:
                    return
            if await self._size(path) == len(data):
                return
        except (BaseError, OSError) as error:
            failure = failure or error  # what went wrong first says more
        raise self._refusals.refused(f"Storing {uri}", failure or StorageError("it was not tried")) from None

    async def _send(self, path: str, data: bytes, size: int | None) -> Exception | None:
        """Sends it, where an object of `size` bytes lies: why nobody knows what became of it, None once it is there.
        Raises what another try would meet, too."""
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            if len(data) > PART_BYTES:  # there is no put-if-absent in parts; what is named by its content needs none
                await self._client.put_async(path, data, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            else:
                mode: PutMode = "create" if size is None else "overwrite"  # of another size: it is damaged
                await self._client.put_async(path, data, mode=mode, use_multipart=False)
        except AlreadyExistsError as error:
            return error  # or another put of it is just going on: the next look tells
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) or is_final(error):
                raise
            return error
        return None

    async def _size(self, path: str) -> int | None:
        """The size of what lies there, None without. AWS denies to say it to those who may not list the bucket."""
        from obstore.exceptions import PermissionDeniedError

        try:
            return (await self._client.head_async(path))["size"]
        except (FileNotFoundError, PermissionDeniedError):
            return None

    async def _get(self, path: str, uri: str) -> tuple[bytes, str]:
        """What lies there, and its SHA-256."""
        from obstore.exceptions import BaseError

        for last in (False,) * (TRIES - 1) + (True,):
            try:
                return await _whole(await self._client.get_async(path))
            except FileNotFoundError as error:
                if server_code(error) == "NoSuchBucket":
                    raise self._refusals.refused(f"Reading {uri}", error) from None
                raise NotFound(f"There is no blob {uri} in {self._where}.") from None
            except (BaseError, OSError) as error:
                if last or is_final(error):
                    raise self._refusals.refused(f"Reading {uri}", error) from None
                self.meters.retried(why(error))
        raise StorageError(f"Reading {uri} was never begun")  # only if TRIES were less than 1


async def look_for_bucket(client: S3Store | GCSStore, path: str) -> None:
    """Raises what the client raises when there is no such bucket, or it refuses; whether `path` is there is the same.

    Some servers make a bucket when something is put into it; a mistyped name must not become one.
    """
    from obstore.exceptions import PermissionDeniedError

    try:
        await client.get_async(path)
    except FileNotFoundError as error:
        if server_code(error) == "NoSuchBucket":
            raise
    except PermissionDeniedError as error:
        if server_code(error) not in ("AccessDenied", ""):  # AWS says so of what is missing, too
            raise


async def _whole(found: GetResult) -> tuple[bytes, str]:
    """The body, read piece by piece: beside the result itself only one piece of it is in memory."""
    if found.meta["size"] <= INLINE_BYTES:
        data = (await found.bytes_async()).to_bytes()
        return data, _sha256(data)
    body, digest = io.BytesIO(), hashlib.sha256()
    async for chunk in found.stream(CHUNK_BYTES):
        body.write(chunk)
        await asyncio.to_thread(digest.update, chunk)
    return body.getvalue(), digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_tenant(tenant_id: str) -> None:
    if TENANT.fullmatch(tenant_id) is None:
        raise UsageError(f"{tenant_id!r} is no tenant: a tenant matches {TENANT.pattern}")
