"""What every BlobStore has to do."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tickwork.errors import NotFound, StoreCorrupt, UsageError
from tickwork.testing.conformance.checks import equal, expect, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.ports import BlobStore


class BlobStoreConformance:
    """Subclass it, and implement `open`, `reopen` and `damage`."""

    async def open(self) -> BlobStore:
        """An empty store, not started."""
        raise NotImplementedError

    async def reopen(self, store: BlobStore) -> BlobStore:
        """Another store, not started, on what `store` (stopped) keeps."""
        raise NotImplementedError

    async def damage(self, store: BlobStore, tenant_id: str, uri: str) -> None:
        """Changes one byte of the stored blob, behind the store's back."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BlobStore]:
        """A started store, stopped afterwards."""
        store = await self.open()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def test_what_is_put_is_got(self) -> None:
        """Empty, small, and every byte value."""
        async with self.opened() as store:
            for data in (b"", b"x", bytes(range(256)) * 300):
                uri, digest = await store.put("acme", data)
                equal(digest, hashlib.sha256(data).hexdigest(), "put answers with the SHA-256")
                equal(await store.get("acme", uri), data, "get returns what was put")
                equal(await store.get("acme", uri, digest), data, "get checks against the right SHA-256")

    async def test_50_megabytes_go_round(self) -> None:
        """Large blobs are whole."""
        async with self.opened() as store:
            data = hashlib.sha256(b"seed").digest() * (50 * 1024 * 1024 // 32)
            uri, digest = await store.put("acme", data)
            expect(await store.get("acme", uri, digest) == data, "a blob of 50 MB comes back as it was")

    async def test_putting_twice_is_putting_once(self) -> None:
        """The same content has the same URI, also for writers at the same time."""
        async with self.opened() as store:
            data = b"the same" * 20_000
            first = await store.put("acme", data)
            equal(await store.put("acme", data), first, "the same content has the same URI")
            other = b"raced for" * 20_000
            raced = await asyncio.gather(*(store.put("acme", other) for _ in range(8)))
            equal(len(set(raced)), 1, "writers at the same time get the same URI")
            equal(await store.get("acme", raced[0][0]), other, "and the blob is whole")

    async def test_it_is_there_after_a_restart(self) -> None:
        """What put acknowledged is kept."""
        store = await self.open()
        await store.start()
        uri, digest = await store.put("acme", b"kept")
        await store.stop()
        again = await self.reopen(store)
        await again.start()
        try:
            equal(await again.get("acme", uri, digest), b"kept", "a blob survives a restart")
        finally:
            await again.stop()

    async def test_an_unknown_blob_is_not_found(self) -> None:
        """A URI of the right form with nothing behind it."""
        async with self.opened() as store:
            uri, digest = await store.put("acme", b"there")
            missing = uri.replace(digest, hashlib.sha256(b"not there").hexdigest())
            with refused(NotFound, "a missing blob is NotFound"):
                await store.get("acme", missing)

    async def test_a_tenant_sees_its_own_only(self) -> None:
        """The same content of two tenants is two blobs, and neither reads the other's."""
        async with self.opened() as store:
            mine, _ = await store.put("acme", b"secret")
            yours, _ = await store.put("umbrella", b"secret")
            expect(mine != yours, "tenants do not share a URI")
            with refused(UsageError, "a foreign tenant's URI is refused"):
                await store.get("umbrella", mine)
            only, digest = await store.put("acme", b"only here")
            with refused(NotFound, "putting in one tenant does not create it in another"):
                await store.get("umbrella", yours.replace(hashlib.sha256(b"secret").hexdigest(), digest))
            expect(only != mine, "different content has different URIs")

    async def test_no_uri_leads_out_of_the_store(self) -> None:
        """Neither a crafted URI nor a crafted tenant reaches another path."""
        async with self.opened() as store:
            uri, digest = await store.put("acme", b"data")
            for crafted in (
                uri.replace(digest, "../" + digest),
                uri.replace(digest, "../../etc/passwd"),
                uri.replace("acme", "acme/../umbrella"),
                uri.replace("acme", ".."),
                uri + "/..",
                uri + "\n",
                "file:///etc/passwd",
                "/etc/passwd",
                "",
            ):
                with refused(UsageError, f"the URI {crafted!r} is refused"):
                    await store.get("acme", crafted)
            for tenant in ("..", "", "a/b", ".hidden", "a\x00b", "a" * 64):
                with refused(UsageError, f"the tenant {tenant!r} is refused"):
                    await store.put(tenant, b"data")
                with refused(UsageError, f"the tenant {tenant!r} is refused"):
                    await store.get(tenant, uri)

    async def test_damage_is_noticed(self) -> None:
        """One changed byte, or another SHA-256 in the record, is StoreCorrupt."""
        async with self.opened() as store:
            uri, digest = await store.put("acme", b"precious" * 1000)
            with refused(StoreCorrupt, "another SHA-256 than the record's is noticed"):
                await store.get("acme", uri, hashlib.sha256(b"else").hexdigest())
            await self.damage(store, "acme", uri)
            with refused(StoreCorrupt, "one changed byte is noticed"):
                await store.get("acme", uri, digest)

    async def test_stopping_twice_is_fine(self) -> None:
        """Stop has no second effect."""
        async with self.opened() as store:
            await store.stop()
