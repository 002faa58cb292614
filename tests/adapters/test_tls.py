"""Postgres and Redis through TLS: whose certificate is trusted is served, who else is not. Kafka: test_kafka_tls."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.adapters import servers
from tests.adapters.certificates import Authority, PostgresTls
from tests.adapters.postgres_stores import postgres_schema, postgres_url, with_options
from tests.adapters.tcp_faults import TcpProxy, listening
from tickwork.adapters.kv.redis import RedisKV
from tickwork.adapters.state.postgres import PostgresStore
from tickwork.clock import SystemClock
from tickwork.errors import StorageError

__all__ = ["postgres_schema", "postgres_url"]  # fixtures

pytestmark = pytest.mark.servers


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_postgres_is_reached_through_tls(postgres_url: str, authority: Authority) -> None:
    there = urlsplit(postgres_url)
    assert there.hostname is not None
    async with listening(PostgresTls(there.hostname, there.port or 5432, authority.context())) as proxy:
        login = there.netloc.rpartition("@")[0]
        url = there._replace(netloc=f"{login}@localhost:{proxy.port}").geturl()
        trusting = with_options(url, sslmode="verify-full", sslrootcert=authority.file)
        store = PostgresStore(trusting, SystemClock())
        await store.start()
        assert await store.dead_letters("acme") == []
        await store.stop()

        doubting = with_options(url, sslmode="verify-full", sslrootcert=another(authority), patience=1)
        store = PostgresStore(doubting, SystemClock())
        with pytest.raises(StorageError, match="certificate") as caught:
            await store.start()
        assert str(there.password) not in str(caught.value)
        await store.stop()


async def test_redis_is_reached_through_tls(authority: Authority) -> None:
    there = urlsplit(servers.redis())
    assert there.hostname is not None
    async with listening(TcpProxy(there.hostname, there.port or 6379, authority.context())) as proxy:
        url = f"rediss://localhost:{proxy.port}{there.path}?prefix=tls-{proxy.port}:"
        kv = RedisKV(f"{url}&ca={authority.file}", SystemClock())
        await kv.start()
        assert await kv.put("key", b"value", 5, if_absent=True)
        assert await kv.get("key") == b"value"
        await kv.stop()

        for doubting in (f"{url}&ca={another(authority)}", url):
            kv = RedisKV(doubting, SystemClock())
            await kv.start()
            with pytest.raises(StorageError, match="certificate"):
                await kv.get("key")
            await kv.stop()


def another(authority: Authority) -> Path:
    """The certificate of an authority that has signed nothing here."""
    folder = authority.file.parent / "another"
    folder.mkdir(exist_ok=True)
    return Authority(folder).file
