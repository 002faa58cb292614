"""Blobs in a real S3 server keep the promises of the port: also when it fails, is slow, or loses its answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import obstore
import pytest
from obstore.store import S3Store

from tests.adapters import servers
from tests.adapters.http_faults import FaultyProxy, faulty_proxy
from tickwork.adapters.blob.objects import ObjectBlobs
from tickwork.adapters.blob.objects.address import SSE_C_KEY
from tickwork.clock import SystemClock
from tickwork.errors import NotFound, StorageError, StoreCorrupt, UsageError
from tickwork.profiles import Profile
from tickwork.testing.conformance import BlobStoreConformance

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


def options() -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(servers.s3()).query).items()}


def url(bucket: str = "", **changed: str | None) -> str:
    """The server's URL, below a prefix that is new, with some options changed (None: left out)."""
    merged = {**options(), "prefix": f"test/{uuid.uuid4().hex}", **changed}
    kept = {name: value for name, value in merged.items() if value is not None}
    return f"s3://{bucket or urlsplit(servers.s3()).netloc}?{urlencode(kept)}"


def behind(of: str) -> S3Store:
    """The same bucket, without our adapter."""
    parts = urlsplit(of)
    given = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return S3Store(
        parts.netloc,
        prefix=given["prefix"],
        endpoint=given["endpoint"],
        access_key_id=given["access_key_id"],
        secret_access_key=given["secret_access_key"],
        region=given["region"],
        client_options={"allow_http": True},
    )


class TestS3Blobs(BlobStoreConformance):
    def setup_method(self) -> None:
        self.url = url()

    async def open(self) -> ObjectBlobs:
        return ObjectBlobs(self.url, SystemClock())

    async def reopen(self, store: object) -> ObjectBlobs:
        return ObjectBlobs(self.url, SystemClock())

    async def damage(self, store: object, tenant_id: str, uri: str) -> None:
        objects, path = behind(self.url), uri.removeprefix("blob://")
        data = bytearray((await (await objects.get_async(path)).bytes_async()).to_bytes())
        data[100] ^= 1
        await objects.put_async(path, bytes(data))


@asynccontextmanager
async def failing(**changed: str | None) -> AsyncIterator[tuple[ObjectBlobs, FaultyProxy]]:
    """A started store behind a proxy that works, so far."""
    async with faulty_proxy(options()["endpoint"]) as proxy:
        blobs = ObjectBlobs(url(**{"endpoint": proxy.url, "timeout": "2", **changed}), SystemClock())
        await blobs.start()
        proxy.met.clear()
        yield blobs, proxy
        await blobs.stop()


def test_the_profile_finds_it_by_its_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_BLOB_URL", url())
    assert isinstance(Profile.from_environment("test").open_blobs(SystemClock()), ObjectBlobs)


# -- what fails


async def test_a_third_of_all_requests_failing_loses_nothing() -> None:
    async with failing(timeout="20") as (blobs, proxy):
        dice = random.Random(7)
        proxy.fault = lambda method, path: "5xx" if dice.random() < 0.3 else "none"
        kept = [os.urandom(2_000) for _ in range(30)] + [os.urandom(17 * 1024 * 1024)]
        put = await asyncio.gather(*(blobs.put("acme", data) for data in kept))
        got = await asyncio.gather(*(blobs.get("acme", uri, digest) for uri, digest in put))
        assert got == kept
        assert ("PUT", "5xx") in proxy.met
        assert ("GET", "5xx") in proxy.met


@pytest.mark.parametrize("fault", ["lost", "hang"])
async def test_a_put_whose_answer_is_lost_is_a_put(fault: str) -> None:
    async with failing() as (blobs, proxy):
        faults = iter([fault])
        proxy.fault = lambda method, path: next(faults, "none") if method == "PUT" else "none"
        uri, digest = await blobs.put("acme", b"kept" * 1000)
        assert proxy.met[0] == ("PUT", fault)
        assert ("HEAD", "none") in proxy.met, "the server was asked whether it is there"
        assert len([method for method, _ in proxy.met if method == "PUT"]) <= 2, "the client may have tried once more"
        assert await blobs.get("acme", uri, digest) == b"kept" * 1000


async def test_a_server_that_is_slow_is_waited_for() -> None:
    async with failing() as (blobs, proxy):
        proxy.fault = lambda method, path: "slow"
        uri, digest = await blobs.put("acme", b"late")
        assert await blobs.get("acme", uri, digest) == b"late"


@pytest.mark.parametrize("size", [10_000, 9 * 1024 * 1024])
@pytest.mark.parametrize("fault", ["short", "changed"])
async def test_a_read_that_is_damaged_on_its_way_is_made_again(fault: str, size: int) -> None:
    async with failing() as (blobs, proxy):
        data = os.urandom(size)
        uri, digest = await blobs.put("acme", data)
        faults = iter([fault])
        proxy.fault = lambda method, path: next(faults, "none")
        proxy.met.clear()
        assert await blobs.get("acme", uri, digest) == data
        assert [f for _, f in proxy.met][:1] == [fault]


async def test_a_read_that_is_always_damaged_is_corrupt() -> None:
    async with failing() as (blobs, proxy):
        uri, digest = await blobs.put("acme", b"x" * 10_000)
        proxy.fault = lambda method, path: "changed"
        with pytest.raises(StoreCorrupt, match="SHA-256 differs"):
            await blobs.get("acme", uri, digest)


async def test_a_server_that_stays_away_is_told_in_a_sentence() -> None:
    async with failing(timeout="0.5") as (blobs, proxy):
        uri, _ = await blobs.put("acme", b"there")
        proxy.fault = lambda method, path: "5xx"
        with pytest.raises(StorageError, match=r"Storing blob://acme/\w+ failed: .* cannot be reached.*503.*SlowDown"):
            await blobs.put("acme", b"not there")
        proxy.fault = lambda method, path: "hang"
        with pytest.raises(StorageError, match=r"Reading blob://acme/\w+ failed: .* cannot be reached"):
            await blobs.get("acme", uri)
        proxy.fault = lambda method, path: "none"
        assert await blobs.get("acme", uri) == b"there"


async def test_half_an_object_under_the_name_is_replaced() -> None:
    place = url()
    blobs = ObjectBlobs(place, SystemClock())
    data = b"whole" * 100
    digest = hashlib.sha256(data).hexdigest()
    await behind(place).put_async(f"acme/{digest}", data[:50])
    uri, _ = await blobs.put("acme", data)
    assert await blobs.get("acme", uri, digest) == data


# -- what is wrong from the beginning


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"access_key_id": "AKIANOBODY", "secret_access_key": "hunter2hunter2"}, "does not accept the credentials"),
        ({"secret_access_key": "hunter2hunter2"}, "does not accept the credentials .*403.*SignatureDoesNotMatch"),
        ({"endpoint": "http://127.0.0.1:1", "secret_access_key": "hunter2hunter2"}, "cannot be reached .*Connect"),
    ],
)
async def test_a_store_that_cannot_start_says_why_and_tells_no_secret(changed: dict[str, str], said: str) -> None:
    with pytest.raises(StorageError, match=f"^Starting the blob store failed: the bucket `tickwork` .*{said}") as told:
        await ObjectBlobs(url(timeout="1", **changed), SystemClock()).start()
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None
    assert "\n" not in str(told.value)


async def test_without_any_credentials_it_says_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1/169.254.169.254")
    store = ObjectBlobs(url(access_key_id=None, secret_access_key=None, timeout="1"), SystemClock())
    with pytest.raises(StorageError, match=r"needs credentials, and none were found.*AWS_ACCESS_KEY_ID"):
        await store.start()


async def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["secret_access_key"])
    blobs = ObjectBlobs(url(access_key_id=None, secret_access_key=None), SystemClock())
    await blobs.start()
    uri, _ = await blobs.put("acme", b"mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another key")
    assert await ObjectBlobs(url(prefix=blobs._prefix.rstrip("/")), SystemClock()).get("acme", uri) == b"mine"


async def test_a_missing_bucket_is_named_and_not_made() -> None:
    name = f"missing-{uuid.uuid4().hex[:12]}"
    for _ in range(2):
        with pytest.raises(StorageError, match=f"the bucket `{name}` at .* does not exist. Create it"):
            await ObjectBlobs(url(bucket=name), SystemClock()).start()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("s3://", "names a bucket"),
        ("s3://Bucket!", "names a bucket"),
        ("s3://key:hunter2@bucket", "no user before the bucket"),
        ("s3://bucket/folder", "prefix="),
        ("s3://bucket?regoin=x", "knows no `regoin`; it knows access_key_id"),
        ("s3://bucket?prefix=../other", "prefix= of a blob URL"),
        ("s3://bucket?prefix=a//b", "prefix= of a blob URL"),
        ("s3://bucket?endpoint=ftp://x", "endpoint= of a blob URL"),
        ("s3://bucket?endpoint=http://user:hunter2@x", "endpoint= of a blob URL"),
        ("s3://bucket?endpoint=http://x:hunter2", "endpoint= of a blob URL"),
        ("s3://bucket?secret_access_key=hunter2", "go together"),
        ("s3://bucket?session_token=hunter2", "goes with access_key_id="),
        ("s3://bucket?sse=rot13", "sse= of an s3:// URL is one of AES256, aws:kms"),
        ("s3://bucket?sse=aws:kms", "kms_key= of an s3:// URL goes with"),
        ("s3://bucket?kms_key=hunter2", "kms_key= of an s3:// URL goes with"),
        ("s3://bucket?sse=sse-c", f"base64, into {SSE_C_KEY}"),
        ("s3://bucket?timeout=soon", "number of seconds"),
        ("s3://bucket?timeout=0", "number of seconds"),
        ("gs://bucket?sse=AES256", "knows no `sse`"),
        ("gs://bucket?service_account=/nowhere/hunter2.json", "malformed"),
    ],
)
def test_a_malformed_url_is_refused_and_not_repeated(bad: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as told:
        ObjectBlobs(bad, SystemClock())
    assert "hunter2" not in str(told.value)


def test_it_has_no_text_that_tells_a_secret() -> None:
    secret = options()["secret_access_key"]
    blobs = ObjectBlobs(servers.s3(), SystemClock())
    assert secret not in repr(blobs) + str(vars(blobs)["_client"])


# -- tenants


async def test_no_tenant_reaches_another_ones_objects() -> None:
    place = url()
    blobs = ObjectBlobs(place, SystemClock())
    theirs, digest = await blobs.put("umbrella", b"theirs")
    for crafted in (
        theirs,
        f"blob://acme/../umbrella/{digest}",
        f"blob://acme/%2e%2e/umbrella/{digest}",
        f"blob://acme%2f..%2fumbrella/{digest}",
        f"s3://tickwork/umbrella/{digest}",
        f"umbrella/{digest}",
        theirs + "?versionId=1",
        theirs.upper(),
    ):
        with pytest.raises(UsageError):
            await blobs.get("acme", crafted)
    with pytest.raises(NotFound):
        await blobs.get("acme", f"blob://acme/{digest}")
    listed = [meta["path"] for meta in await behind(place).list().collect_async()]
    assert listed == [f"umbrella/{digest}"]
    with pytest.raises(UsageError):
        await blobs.put("..", b"data")


# -- size, encryption, many at once


MEMORY = """
import asyncio, hashlib, os, sys
from tickwork.adapters.blob.objects import ObjectBlobs
from tickwork.clock import SystemClock

def peak():
    with open("/proc/self/status") as status:  # ru_maxrss would begin with what the parent had
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

async def main():
    blobs = ObjectBlobs(sys.argv[1], SystemClock())
    await blobs.start()
    await blobs.get("acme", (await blobs.put("acme", b"x" * 3_000_000))[0])
    data = os.urandom(64 * 1024 * 1024)
    before = peak()
    uri, digest = await blobs.put("acme", data)
    put = peak()
    del data
    got = await blobs.get("acme", uri, digest)
    assert hashlib.sha256(got).hexdigest() == digest
    print(put - before, peak() - before)
    await blobs.stop()

asyncio.run(main())
"""


async def test_a_large_blob_is_not_copied_in_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", MEMORY, url()], capture_output=True, check=False, text=True)
    assert ran.returncode == 0, ran.stderr
    put, both = (float(word) for word in ran.stdout.split())
    assert put < 24, f"putting 64 MiB took {put} MiB beside them"
    assert both < 24, f"getting 64 MiB took {both} MiB beside them"


ENDS = """
import asyncio, os, sys
from tickwork.adapters.blob.objects import ObjectBlobs
from tickwork.clock import SystemClock

async def main():
    blobs = ObjectBlobs(sys.argv[1], SystemClock())
    await blobs.start()
    await asyncio.gather(*(blobs.put("acme", os.urandom(100_000)) for _ in range(8)))
    await blobs.stop()

asyncio.run(main())
"""


async def test_a_process_that_has_stopped_its_store_ends_without_a_crash() -> None:
    place = url()
    for _ in range(10):
        ran = subprocess.run([sys.executable, "-c", ENDS, place], capture_output=True, check=False, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")


async def test_many_writers_of_the_same_content_put_one_object() -> None:
    place = url()
    stores = [ObjectBlobs(place, SystemClock()) for _ in range(2)]
    for times, data in ((10, os.urandom(50_000)), (3, os.urandom(9 * 1024 * 1024))):
        put = await asyncio.gather(*(store.put("acme", data) for store in stores for _ in range(times)))
        assert len(set(put)) == 1
        assert await stores[0].get("acme", *put[0]) == data
    assert len(await behind(place).list().collect_async()) == 2


async def test_a_customers_own_key_is_needed_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SSE_C_KEY, base64.b64encode(os.urandom(32)).decode())
    place = url(sse="sse-c")
    blobs = ObjectBlobs(place, SystemClock())
    await blobs.start()
    for data in (b"secret" * 1000, os.urandom(9 * 1024 * 1024)):
        uri, digest = await blobs.put("acme", data)
        assert await blobs.put("acme", data) == (uri, digest)
        assert await blobs.get("acme", uri, digest) == data
        with pytest.raises(obstore.exceptions.BaseError):
            await behind(place).get_async(f"acme/{digest}")
        monkeypatch.setenv(SSE_C_KEY, key := base64.b64encode(os.urandom(32)).decode())
        with pytest.raises(StorageError) as told:
            await ObjectBlobs(place, SystemClock()).get("acme", uri, digest)
        assert key not in str(told.value)


@pytest.mark.parametrize("key", ["", "short", base64.b64encode(b"x" * 31).decode(), "ä" * 44])
def test_a_key_that_is_none_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SSE_C_KEY, key)
    with pytest.raises(UsageError, match=SSE_C_KEY) as told:
        ObjectBlobs("s3://bucket?sse=sse-c", SystemClock())
    assert not key or key not in str(told.value)
