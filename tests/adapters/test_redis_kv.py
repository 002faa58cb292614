"""The key-value store on a real Redis keeps the promises of the port; without Redis it fails at once, and recovers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from tests.adapters import servers
from tests.adapters.tcp_faults import TcpProxy, tcp_proxy
from tickwork.adapters.kv.redis import RedisKV, read_address
from tickwork.clock import SystemClock
from tickwork.errors import StorageError, UsageError
from tickwork.executor.claims import Claims
from tickwork.profiles import Profile
from tickwork.testing.conformance import KVStoreConformance

pytestmark = pytest.mark.servers


def prefix() -> str:
    return f"test:{uuid.uuid4().hex}:"


def url(port: int | None = None, database: str = "0", options: str = "") -> str:
    parts = urlsplit(servers.redis())
    place = parts.netloc if port is None else f"127.0.0.1:{port}"
    return f"redis://{place}/{database}?prefix={prefix()}{options}"


class TestRedisKV(KVStoreConformance):
    def setup_method(self) -> None:
        super().setup_method()
        self.url = url()

    async def open(self) -> RedisKV:
        return RedisKV(self.url, SystemClock())

    async def pass_time(self, seconds: float) -> None:
        """Brings the end of every key nearer, in place of waiting for it."""
        client = Redis.from_url(servers.redis())
        async for key in client.scan_iter(match=read_address(self.url).prefix + "*"):
            left = await client.pttl(key)
            if left >= 0:
                await client.pexpire(key, left - round(seconds * 1000))
        await client.aclose()


@asynccontextmanager
async def proxied(options: str = "") -> AsyncIterator[tuple[RedisKV, TcpProxy]]:
    """A started store behind a proxy that works, so far."""
    parts = urlsplit(servers.redis())
    async with tcp_proxy(parts.hostname or "", parts.port or 6379) as proxy:
        store = RedisKV(url(proxy.port, options=options), SystemClock())
        await store.start()
        try:
            yield store, proxy
        finally:
            await store.stop()


async def back(store: RedisKV) -> None:
    """Waits until the store has found its Redis."""
    for _ in range(500):
        if store.reachable:
            return
        await asyncio.sleep(0.01)
    pytest.fail("Redis is back, and the store has not found it in 5 s")


def test_the_profile_finds_it_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (servers.redis(), servers.redis().replace("redis://", "rediss://")):
        monkeypatch.setenv("TICKWORK_KV_URL", place)
        assert isinstance(Profile.from_environment("test").open_kv(SystemClock()), RedisKV)


async def test_a_short_ttl_ends_by_redis_own_clock() -> None:
    store = RedisKV(url(), SystemClock())
    await store.start()
    await store.put("k", b"1", ttl=0.02)
    await store.put("brief", b"1", ttl=0.0000001)
    await asyncio.sleep(0.04)
    assert [await store.get("k"), await store.get("brief")] == [None, None]
    await store.stop()


async def test_two_prefixes_do_not_meet() -> None:
    one, two = RedisKV(url(), SystemClock()), RedisKV(url(), SystemClock())
    await one.put("k", b"one")
    assert await two.put("k", b"two", if_absent=True)
    assert [await one.get("k"), await two.get("k")] == [b"one", b"two"]
    await asyncio.gather(one.stop(), two.stop())


async def test_when_all_is_flushed_it_goes_on_with_nothing() -> None:
    place = url(database="9")  # a database of its own: others use the first one now
    store = RedisKV(place, SystemClock())
    await store.start()
    flusher = Redis.from_url(place.partition("?")[0])
    won = 0
    for n in range(200):
        if n % 50 == 0:
            await flusher.flushdb()
        won += await store.put("claim", b"%d" % n, 30, if_absent=True)
    assert won == 4, "one winner after each flush"
    await flusher.flushdb()
    assert await store.get("claim") is None
    await flusher.aclose()
    await store.stop()


async def test_it_survives_a_restart_of_redis(tmp_path: Path) -> None:
    place = servers.start("redis", tmp_path)["TICKWORK_REDIS_URL"]
    store = RedisKV(place, SystemClock())
    await store.start()
    try:
        await asyncio.gather(*(store.put(f"k{n}", b"1") for n in range(50)))
        await asyncio.to_thread(servers.end, "redis", tmp_path)
        with pytest.raises(StorageError, match=r"does not serve the key-value store .*Connect"):
            await store.get("k1")
        await asyncio.to_thread(servers.start, "redis", tmp_path)
        await back(store)
        assert await store.get("k1") is None, "this Redis writes nothing to disk"
        assert await store.put("k1", b"2", if_absent=True)
    finally:
        await store.stop()
        await asyncio.to_thread(servers.end, "redis", tmp_path)


async def test_connections_that_were_cut_are_made_anew_without_a_word() -> None:
    async with proxied() as (store, proxy):
        await asyncio.gather(*(store.put(f"k{n}", b"1") for n in range(50)))
        proxy.cut()
        assert await asyncio.gather(*(store.get(f"k{n}") for n in range(50))) == [b"1"] * 50


@pytest.mark.slow
async def test_a_redis_that_hangs_costs_one_timeout_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async with proxied("&timeout=0.3") as (store, proxy):
        caplog.set_level(logging.INFO)
        proxy.answering = False
        claims = Claims(store, SystemClock(), "worker", lease=30)
        began = time.monotonic()
        taken = [await claims.take(f"work{n}") for n in range(200)]
        await claims.release(f"work{n}" for n in range(200))
        assert time.monotonic() - began < 1.0
        began = time.monotonic()
        await claims.beat({f"work{n}" for n in range(200)}, [f"work{n}" for n in range(200)])
        assert time.monotonic() - began < claims.interval, "a beat is over before the next, also one that is repeated"
        assert all(taken), "work goes on without claims"
        proxy.answering = True
        proxy.cut()  # what was swallowed never comes
        await back(store)
        assert await store.put("k", b"1", if_absent=True)
        said = [record.message for record in caplog.records if record.name == "tickwork.adapters.kv.redis"]
        assert len(said) == 2, said
        assert "is gone" in said[0]
        assert "is back" in said[1]


@pytest.mark.slow
async def test_a_redis_that_hangs_costs_all_who_ask_at_once_one_timeout() -> None:
    async with proxied("&timeout=0.3") as (store, proxy):
        proxy.answering = False
        began = time.monotonic()
        asked = await asyncio.gather(*(store.get(f"k{n}") for n in range(3000)), return_exceptions=True)
        assert time.monotonic() - began < 1.0
        assert {type(answer) for answer in asked} == {StorageError}


async def test_started_again_it_does_not_remember_that_redis_was_gone() -> None:
    async with proxied() as (store, proxy):
        await proxy.leave()
        with pytest.raises(StorageError):
            await store.get("k")
        await store.stop()
        await proxy.listen()
        await store.start()
        assert await store.put("k", b"1")


async def test_it_starts_without_redis_and_finds_it_later() -> None:
    async with proxied() as (_, proxy):
        await proxy.leave()
        store = RedisKV(url(proxy.port), SystemClock())
        await store.start()
        assert not store.reachable
        with pytest.raises(StorageError, match=f"Redis at 127.0.0.1:{proxy.port}/0 does not serve"):
            await store.put("k", b"1")
        await proxy.listen()
        await back(store)
        assert await store.put("k", b"1")
        await store.stop()


async def test_whatever_is_asked_goes_over_few_connections_and_in_order() -> None:
    async with proxied() as (store, proxy):
        await asyncio.gather(*(store.put(f"k{n % 10}", b"%d" % n) for n in range(2000)))
        assert [await store.get(f"k{n}") for n in range(10)] == [b"%d" % (1990 + n) for n in range(10)]
        assert proxy.taken <= 2


async def test_whoever_gives_up_waiting_disturbs_nobody() -> None:
    async with proxied() as (store, _):
        waiting = [asyncio.create_task(store.put(f"k{n}", b"%d" % n)) for n in range(100)]
        await asyncio.sleep(0)
        for task in waiting[::3]:
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [answer is True for answer in done] == [n % 3 != 0 for n in range(100)]
        assert await store.get("k1") == b"1"


async def test_stopping_ends_what_is_waited_for() -> None:
    async with proxied("&timeout=5") as (store, proxy):
        proxy.answering = False
        waiting = [asyncio.create_task(store.get(f"k{n}")) for n in range(600)]
        await asyncio.sleep(0.05)
        await store.stop()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in done} == {StorageError}


async def test_a_redis_that_refuses_is_told_at_start_and_no_password_is() -> None:
    parts = urlsplit(servers.redis())
    for bad in (f"redis://nobody:hunter2@{parts.netloc}/0", f"redis://{parts.netloc}/9999"):
        with pytest.raises(StorageError, match=f"Redis at {parts.netloc}/.* refuses") as told:
            await RedisKV(bad, SystemClock()).start()
        assert "hunter2" not in str(told.value)
        assert told.value.__cause__ is None


async def test_a_value_of_the_wrong_kind_is_an_answer_not_an_outage() -> None:
    place = url()
    store = RedisKV(place, SystemClock())
    await store.start()
    client = Redis.from_url(servers.redis())
    await client.lpush(read_address(place).prefix + "list", b"1")
    with pytest.raises(StorageError, match="WRONGTYPE"):
        await store.get("list")
    assert store.reachable
    await client.delete(read_address(place).prefix + "list")
    await client.aclose()
    await store.stop()


async def test_after_stop_it_says_so() -> None:
    store = RedisKV(url(), SystemClock())
    await store.start()
    await store.stop()
    with pytest.raises(StorageError, match="was stopped"):
        await store.get("k")
    await store.start()
    assert await store.get("k") is None
    await store.stop()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("redis://", "names no host"),
        ("redis://:hunter2@/0", "names no host"),
        ("redis://host/hunter2", "no database by its number"),
        ("redis://host:hunter2/0", "malformed"),
        ("redis://host?timout=1", "knows no `timout`; it knows prefix, timeout, ca"),
        ("redis://host?timeout=0", "above 0"),
        ("redis://host?timeout=hunter2", "above 0"),
    ],
)
def test_a_malformed_url_is_refused_and_not_repeated(bad: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as told:
        RedisKV(bad, SystemClock())
    assert "hunter2" not in str(told.value)


def test_a_password_may_hold_any_character() -> None:
    address = read_address("redis://me:p%40ss%2Fw%3Frd@host:7000/3?timeout=0.5&prefix=")
    assert (address.user, address.password, address.port, address.database) == ("me", "p@ss/w?rd", 7000, 3)
    assert (address.timeout, address.prefix) == (0.5, "")
    assert "p@ss" not in repr(address)
