"""The same adapter on Google Cloud Storage's interface: gs:// puts if absent, or in parts, and checks what it reads."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.adapters.gs_server import GsServer, gs_server
from tickwork.adapters.blob.objects import ObjectBlobs
from tickwork.clock import SystemClock
from tickwork.errors import NotFound, StorageError, StoreCorrupt
from tickwork.profiles import Profile


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GOOGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "a token that nobody checks")


@asynccontextmanager
async def opened(bucket: str = "blobs") -> AsyncIterator[tuple[ObjectBlobs, GsServer]]:
    async with gs_server("blobs") as server:
        yield ObjectBlobs(f"gs://{bucket}?endpoint={server.url}&prefix=app&timeout=2", SystemClock()), server


def test_the_profile_finds_it_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_BLOB_URL", "gs://blobs")
    assert isinstance(Profile.from_environment("test").open_blobs(SystemClock()), ObjectBlobs)


@pytest.mark.parametrize("size", [0, 1000, 9 * 1024 * 1024])
async def test_what_is_put_is_got_and_put_once(size: int) -> None:
    async with opened() as (blobs, server):
        await blobs.start()
        data = os.urandom(size)
        put = await asyncio.gather(*(blobs.put("acme", data) for _ in range(3)))
        assert len(set(put)) == 1
        uri, digest = put[0]
        assert digest == hashlib.sha256(data).hexdigest()
        assert uri == f"blob://acme/{digest}"
        assert await blobs.get("acme", uri, digest) == data
        assert sorted(server.objects) == ["app/.tickwork", f"app/acme/{digest}"]
        assert (("PUT", "0") in server.met) == (size < 8 * 1024 * 1024), "a small one is put only if it is absent"


async def test_damage_and_absence_are_told() -> None:
    async with opened() as (blobs, server):
        uri, digest = await blobs.put("acme", b"precious")
        server.objects[f"app/acme/{digest}"] = b"precioux"
        with pytest.raises(StoreCorrupt):
            await blobs.get("acme", uri)
        del server.objects[f"app/acme/{digest}"]
        with pytest.raises(NotFound):
            await blobs.get("acme", uri)


async def test_a_missing_bucket_is_named() -> None:
    async with opened("other") as (blobs, _):
        with pytest.raises(StorageError, match=r"the bucket `other` at .* does not exist"):
            await blobs.start()
