"""What every KVStore has to do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tickwork.testing.conformance.checks import SettableClock, equal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.ports import KVStore


class KVStoreConformance:
    """Subclass it, and implement `open`; `pass_time` too, when the store keeps its own time."""

    def setup_method(self) -> None:
        """Gives each test a clock of its own."""
        self.clock = SettableClock()

    async def open(self) -> KVStore:
        """The store, not started, that runs by `self.clock`."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Lets `seconds` go by for the store."""
        self.clock.advance(seconds)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[KVStore]:
        """A started store, stopped afterwards."""
        store = await self.open()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def test_a_value_is_there_until_it_is_deleted(self) -> None:
        """put, get, overwrite, delete; deleting what is not there is fine."""
        async with self.opened() as store:
            equal(await store.get("a"), None, "a key that was never written has no value")
            equal(await store.put("a", b"1"), True, "a put without a condition succeeds")
            equal(await store.put("a", b"\x00\xff"), True, "a put replaces")
            equal(await store.get("a"), b"\x00\xff", "the last value is read, byte for byte")
            await store.delete("a")
            await store.delete("a")
            equal(await store.get("a"), None, "a deleted key has no value")

    async def test_a_value_expires_after_its_ttl(self) -> None:
        """A ttl counts from the last put; no ttl never ends."""
        async with self.opened() as store:
            await store.put("short", b"1", ttl=2.0)
            await store.put("renewed", b"1", ttl=2.0)
            await store.put("kept", b"1", ttl=2.0)
            await store.put("kept", b"1")
            await self.pass_time(1.5)
            await store.put("renewed", b"2", ttl=2.0)
            equal(await store.get("short"), b"1", "a value lives for its ttl")
            await self.pass_time(1.0)
            equal(await store.get("short"), None, "a value is gone after its ttl")
            equal(await store.get("renewed"), b"2", "a new put starts a new ttl")
            equal(await store.get("kept"), b"1", "a put without ttl takes the old ttl away")

    async def test_if_absent_has_one_winner(self) -> None:
        """Of many that race for a key one gets it; it is free again after its ttl or a delete."""
        async with self.opened() as store:
            won = await asyncio.gather(*(store.put("k", b"%d" % i, 5.0, if_absent=True) for i in range(20)))
            equal(sum(won), 1, "exactly one put with if_absent succeeds")
            equal(await store.get("k"), b"%d" % won.index(True), "the value is the winner's")
            await self.pass_time(6.0)
            equal(await store.put("k", b"new", if_absent=True), True, "an expired key is free")
            equal(await store.put("k", b"late", if_absent=True), False, "a key that is there is not")
            await store.delete("k")
            equal(await store.put("k", b"newer", if_absent=True), True, "a deleted key is free")

    async def test_replace_has_one_winner(self) -> None:
        """Only what is there is replaced, by one of many; the new value has its own ttl."""
        async with self.opened() as store:
            equal(await store.replace("k", b"", b"1", 5.0), False, "what is not there is not replaced")
            equal(await store.get("k"), None, "a replace that fails leaves nothing")
            await store.put("k", b"old")
            equal(await store.replace("k", b"other", b"1", 5.0), False, "another value is not replaced")
            equal(await store.get("k"), b"old", "a replace that fails changes nothing")
            won = await asyncio.gather(*(store.replace("k", b"old", b"%d" % i, 5.0) for i in range(20)))
            equal(sum(won), 1, "exactly one replace of the same value succeeds")
            equal(await store.get("k"), b"%d" % won.index(True), "the value is the winner's")
            await self.pass_time(6.0)
            equal(await store.get("k"), None, "a replaced value is gone after its ttl")

    async def test_keys_do_not_touch_each_other(self) -> None:
        """Keys with odd characters are just keys."""
        async with self.opened() as store:
            keys = ["a", "a:b", "a b", "ä", "a/../b", "x" * 200]
            for key in keys:
                await store.put(key, key.encode())
            for key in keys:
                equal(await store.get(key), key.encode(), "each key has its own value")

    async def test_stopping_twice_is_fine(self) -> None:
        """Stop has no second effect."""
        async with self.opened() as store:
            await store.stop()
