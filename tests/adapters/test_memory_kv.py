"""The key-value store inside one process keeps the promises of the port, and its bound."""

from __future__ import annotations

from tickwork.adapters.kv.memory import MemoryKV
from tickwork.testing.conformance import KVStoreConformance, SettableClock


class TestMemoryKV(KVStoreConformance):
    async def open(self) -> MemoryKV:
        return MemoryKV(self.clock)


async def test_it_holds_no_more_than_its_bound() -> None:
    clock = SettableClock()
    store = MemoryKV(clock, max_keys=10)
    for n in range(10):
        await store.put(f"k{n}", b"1", ttl=5 if n in (3, 4) else None)
    clock.advance(6)
    await store.put("new", b"1")
    assert [n for n in range(10) if await store.get(f"k{n}") is None] == [3, 4], "what has expired goes first"
    await store.put("k0", b"2")
    for n in range(20, 23):
        await store.put(f"k{n}", b"1")
    assert len(store._values) == 10
    assert await store.get("k0") == b"2", "then what was written longest ago"
    assert await store.get("k1") is None
