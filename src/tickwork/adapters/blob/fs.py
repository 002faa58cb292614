"""Blobs as local files, named by what is in them: `blob://<tenant>/<sha256>` is the file
`<root>/<tenant>/<first two digits>/<sha256>`.

A blob is written to a temporary file, synced, given its name, and its folder is synced: when `put` returns, a power
cut cannot take it away, and no name ever stands for half a blob. Putting what is there already reads nothing but its
size. Every read is checked against the name. A temporary file carries the process id of its writer; at start those
that nobody writes any more are swept away.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import shutil
from itertools import count
from pathlib import Path

from tickwork.errors import NotFound, StorageError, StorageFull, StoreCorrupt, UsageError
from tickwork.model.ids import TENANT

INLINE_BYTES = 64 * 1024
"""Up to this size a read is done on the event loop; a write, which waits for the disk, never is."""

_TEMPORARY = ".writing-"
_numbers = count()
_unfinished: set[str] = set()
"""Names of the temporary files that this process is writing now. A file with its id that is not here was left by an
earlier process of the same id, as every container's is."""
_URI = re.compile(r"blob://(?P<tenant>[^/]*)/(?P<digest>[0-9a-f]{64})")


class FileBlobs:
    """The BlobStore port on a folder of this machine."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    async def start(self) -> None:
        """Makes the folder, and removes what writers that died left unfinished."""
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise self._refused(error) from error

    async def stop(self) -> None:
        """Nothing is open between calls."""

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        """Stores `data` durably unless it is there already: (uri, SHA-256)."""
        _check_tenant(tenant_id)
        temporary = f"{_TEMPORARY}{os.getpid()}-{next(_numbers)}"
        try:
            digest = await asyncio.to_thread(self._write, tenant_id, data, temporary)
        except OSError as error:
            raise self._refused(error) from error
        return f"blob://{tenant_id}/{digest}", digest

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
        try:
            small = path.stat().st_size <= INLINE_BYTES
            data = _read(path, digest) if small else await asyncio.to_thread(_read, path, digest)
        except FileNotFoundError:
            raise NotFound(f"There is no blob {uri} under {self._root}.") from None
        except OSError as error:
            raise self._refused(error) from error
        if data is None:
            raise StoreCorrupt(
                f"The file {path} is not what was written as {uri}: its SHA-256 differs. It was changed from outside, "
                "or the disk is failing; restore it from a backup."
            )
        return data

    def _path(self, tenant_id: str, digest: str) -> Path:
        return self._root / tenant_id / digest[:2] / digest

    def _prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for orphan in self._root.glob(f"*/{_TEMPORARY}*"):
            if not _is_being_written(orphan.name):
                orphan.unlink(missing_ok=True)

    def _write(self, tenant_id: str, data: bytes, temporary_name: str) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(tenant_id, digest)
        if path.exists() and path.stat().st_size == len(data):
            _sync_folder(path.parent)  # its writer may be between naming it and this very sync
            return digest
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            _sync_folder(path.parent.parent)
            _sync_folder(self._root)
        temporary = self._root / tenant_id / temporary_name
        _unfinished.add(temporary_name)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)  # the same content under the same name: whoever comes second changes nothing
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            _unfinished.discard(temporary_name)
        _sync_folder(path.parent)
        return digest

    def _refused(self, error: OSError) -> StorageError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            try:
                left = f" ({shutil.disk_usage(self._root).free:,} bytes are free there)"
            except OSError:
                left = ""
            return StorageFull(
                f"No space left for blobs under {self._root}{left}: this one was not kept, all others are safe. Free "
                "some space and try again."
            )
        return StorageError(f"The blob store under {self._root} refused: {error}. Check the disk and its permissions.")


def _check_tenant(tenant_id: str) -> None:
    if TENANT.fullmatch(tenant_id) is None:
        raise UsageError(f"{tenant_id!r} is no tenant: a tenant matches {TENANT.pattern}")


def _read(path: Path, digest: str) -> bytes | None:
    """The file's bytes, or None when they are not those that its name stands for."""
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable; a file's own fsync does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_being_written(name: str) -> bool:
    owner = name.removeprefix(_TEMPORARY).partition("-")[0]
    if not owner.isdigit():
        return False
    if int(owner) == os.getpid():
        return name in _unfinished
    try:
        os.kill(int(owner), 0)  # signal 0 asks only whether the process is there
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
