"""Claims on a real Redis that is flushed all the time, or away: who lives is not given up, who died is found.

The Redis is real, the time of worker and watcher is the test's: a second takes as long as what is done in it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from tests.adapters import servers
from tests.adapters.tcp_faults import TcpProxy, tcp_proxy
from tickwork.adapters.kv.redis import RedisKV
from tickwork.clock import SystemClock
from tickwork.executor.claims import Claims
from tickwork.model.claims import KEPT, LEASE
from tickwork.orchestrator.leases import UNHEARD, Leases, Verdict

pytestmark = pytest.mark.servers

DATABASE = 8
"""One that nothing else uses: it is flushed."""


class Hand(SystemClock):
    """A clock that a test sets."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Whoever sleeps goes on at once: the seconds are counted elsewhere."""


class Watched:
    """A worker that beats, a watcher, and the Redis between them."""

    def __init__(self, kv: RedisKV, proxy: TcpProxy, redis: Redis) -> None:
        self.kv, self.proxy, self.redis = kv, proxy, redis
        self.clock = Hand()
        self.claims = Claims(kv, self.clock, "worker", LEASE)
        self.leases = Leases(kv, self.clock, LEASE)
        self.work = [uuid.uuid4().hex for _ in range(100)]
        self.beats = True
        self.flushes = False

    async def see(self, leases: float, *, called: bool = True) -> set[Verdict]:
        """What is said of the work in so many leases."""
        found: set[Verdict] = set()
        for _ in range(round(leases * LEASE)):
            self.clock.time += 1
            if self.beats and self.clock.time % self.claims.interval == 0:
                await self.claims.beat(frozenset(self.work), self.work)
            if self.flushes:
                await self.redis.flushdb()
            if self.clock.time % 2 == 0:
                found |= set((await self.leases.looks(dict.fromkeys(self.work, called))).values())
        return found


async def play(scene: Callable[[Watched], Awaitable[None]]) -> None:
    parts = urlsplit(servers.redis())
    async with tcp_proxy(parts.hostname or "", parts.port or 6379) as proxy:
        place = f"redis://127.0.0.1:{proxy.port}/{DATABASE}?prefix={uuid.uuid4().hex}:&timeout=5"
        kv = RedisKV(place, SystemClock())
        redis = Redis.from_url(f"redis://{parts.netloc}/{DATABASE}")
        await kv.start()
        try:
            at = Watched(kv, proxy, redis)
            assert all([await at.claims.take(work_id) for work_id in at.work])
            await scene(at)
        finally:
            await kv.stop()
            await redis.aclose()


async def test_all_is_flushed_every_second() -> None:
    async def scene(at: Watched) -> None:
        at.flushes = True
        assert "lost" not in await at.see(KEPT + 1)
        at.beats = False
        assert "lost" not in await at.see(KEPT + 1), "nothing tells the dead from the living now"
        assert "absent" in await at.see(UNHEARD, called=False)
        at.flushes = False
        assert "lost" not in await at.see(KEPT - 1)
        assert "lost" in await at.see(2)

    await play(scene)


async def test_redis_is_away_for_leases_and_comes_back_with_all_it_had() -> None:
    async def scene(at: Watched) -> None:
        assert await at.see(2) <= {"unclear", "alive"}
        await at.proxy.leave()
        assert await at.see(2) == {"unclear"}
        assert "absent" in await at.see(UNHEARD, called=False)
        await at.proxy.listen()
        while not at.kv.reachable:  # noqa: ASYNC110 - it says it to nobody
            await asyncio.sleep(0.01)
        assert await at.see(2) <= {"unclear", "alive"}
        at.beats = False
        assert "lost" in await at.see(1.5)

    await play(scene)
