"""`tickwork doctor --profile cloud` names what is wrong with real servers: each fault here is a real one."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from redis import Redis

from tests.adapters import servers
from tests.adapters.postgres_stores import administrator
from tests.cli.cloud import cloud
from tests.cli.process import Cli
from tickwork.adapters.bus.kafka.address import Address as KafkaAddress
from tickwork.adapters.state.postgres.address import Address

pytestmark = [pytest.mark.servers, pytest.mark.slow]

__all__ = ["cloud"]

Checks = dict[str, dict[str, Any]]


def checks(cli: Cli, env: dict[str, str]) -> Checks:
    """What doctor finds, by check; exit code 4 exactly when something is wrong."""
    ran = cli("doctor", "--json", code=None, **env)
    found = {row["check"]: row for row in ran.json["checks"]}
    assert ran.code == (4 if any(row["state"] == "bad" for row in found.values()) else 0)
    assert ran.json["healthy"] is (ran.code == 0)
    return found


def bad(found: Checks) -> set[str]:
    return {check for check, row in found.items() if row["state"] == "bad"}


@pytest.fixture
def migrated(cli: Cli, cloud: dict[str, str]) -> dict[str, str]:
    cli("db", "migrate", **cloud)
    return cloud


async def _setting(name: str) -> str:
    async with administrator(servers.postgres()) as connection:
        return str(await connection.fetchval(f"SHOW {name}"))


def sql(*statements: str, admin: bool = False) -> None:
    async def run() -> None:
        async with administrator(servers.postgres_admin() if admin else servers.postgres()) as connection:
            for statement in statements:
                await connection.execute(statement)

    asyncio.run(run())


def schema_of(env: dict[str, str]) -> str:
    return Address(env["TICKWORK_STATE_URL"]).options.schema


def test_sound_servers_are_said_to_be_so(cli: Cli, migrated: dict[str, str]) -> None:
    off = [n for n in ("fsync", "synchronous_commit", "full_page_writes") if asyncio.run(_setting(n)) == "off"]
    found = checks(cli, migrated)
    assert bad(found) == ({"postgres durability"} if off else set())
    for name in off:
        assert name in found["postgres durability"]["found"]
    assert "PostgreSQL" in found["postgres"]["found"]
    assert "connected in" in found["postgres"]["found"]
    assert "version 2, current" in found["postgres schema"]["found"]
    assert "forced on all 14 tables" in found["postgres tenants"]["found"]
    assert "read back, put-if-absent works" in found["bucket"]["found"]
    assert "on all replicas in sync" in found["kafka publish"]["found"]
    assert "noeviction" in found["redis eviction"]["found"]
    for server in ("kafka", "postgres", "redis", "bucket"):
        assert found[f"{server} clock"]["state"] == "ok", "one machine has one clock"
        assert "nothing leaves this machine" in found[f"{server} TLS"]["found"]
    assert "tickwork serve --roles data-plane,control-plane,executor" in found["kafka groups"]["todo"]
    assert "sqlite" not in found
    assert "home" not in found


def test_servers_that_are_not_there_are_findings_and_no_password_is_told(cli: Cli, cloud: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dead = {
        "TICKWORK_BUS_URL": f"kafka://127.0.0.1:{port}",
        "TICKWORK_STATE_URL": f"postgresql://me:geheim@127.0.0.1:{port}/tickwork",
        "TICKWORK_BLOB_URL": f"s3://blobs?endpoint=http://127.0.0.1:{port}&region=x&access_key_id=me"
        "&secret_access_key=geheim",
        "TICKWORK_KV_URL": f"redis://:geheim@127.0.0.1:{port}/0",
    }
    ran = cli("doctor", "--json", code=4, **(cloud | dead))
    found = {row["check"]: row for row in ran.json["checks"]}
    assert bad(found) == {"kafka", "postgres", "bucket", "redis"}
    for check in bad(found):
        assert found[check]["todo"]
    assert "geheim" not in ran.out + ran.err


def test_servers_that_say_nothing_are_not_waited_for(cli: Cli, cloud: dict[str, str]) -> None:
    with _silent() as port:
        silent = {
            "TICKWORK_BUS_URL": f"kafka://127.0.0.1:{port}",
            "TICKWORK_STATE_URL": f"postgresql://me:geheim@127.0.0.1:{port}/tickwork",
            "TICKWORK_BLOB_URL": f"s3://blobs?endpoint=http://127.0.0.1:{port}&region=x&access_key_id=me"
            "&secret_access_key=geheim",
            "TICKWORK_KV_URL": f"redis://127.0.0.1:{port}/0?timeout=60",
        }
        begun = time.monotonic()
        found = checks(cli, cloud | silent)
        took = time.monotonic() - begun
    assert bad(found) == {"kafka", "postgres", "bucket", "redis"}
    assert "did not answer within 5 s" in found["redis"]["found"]
    assert took < 15, "all are asked at once, for 5 s; the rest is the start of the process on a busy machine"


@contextmanager
def _silent() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    for one in taken:
        one.close()


def test_what_is_missing_is_named_and_the_rest_is_asked_all_the_same(cli: Cli, migrated: dict[str, str]) -> None:
    del migrated["TICKWORK_BUS_URL"]
    lacking = migrated | {"TICKWORK_KV_URL": "memory://", "TICKWORK_POLICIES": "policies"}
    ran = cli("doctor", "--json", code=4, **lacking)
    said = [row["found"] for row in ran.json["checks"] if row["check"] == "profile"]
    assert any("TICKWORK_BUS_URL is not set" in text for text in said)
    assert any("TICKWORK_KV_URL is memory://" in text for text in said)
    assert any("TICKWORK_POLICIES is set" in text for text in said)
    found = {row["check"]: row for row in ran.json["checks"]}
    assert found["postgres schema"]["state"] == "ok"
    assert found["bucket"]["state"] == "ok"


def test_topics_that_lose_messages_are_found(cli: Cli, migrated: dict[str, str]) -> None:
    url = f"{migrated['TICKWORK_BUS_URL']}?min_insync=2"
    address = KafkaAddress(url, {})
    faults = {
        "data-plane.one": {"min.insync.replicas": "1"},
        "data-plane.two": {"min.insync.replicas": "2"},
        "control-plane.one": {"unclean.leader.election.enable": "true"},
        "control-plane.two": {"cleanup.policy": "compact"},
        "task-inputs.one": {"retention.ms": "3600000"},
        "task-inputs.two": {"retention.bytes": "1000000"},
        "receipts.one": {"max.message.bytes": "100000"},
    }
    admin = AdminClient(address.client())
    sound = {"max.message.bytes": "4194304"}
    made = admin.create_topics(
        [NewTopic(address.prefix + name, 4, 1, config=sound | settings) for name, settings in faults.items()]
    )
    for one in made.values():
        one.result()
    found = checks(cli, migrated | {"TICKWORK_BUS_URL": url})
    for check, topic, says in (
        ("unclean.leader.election.enable", "control-plane.one", "may lead"),
        ("cleanup.policy", "control-plane.two", "only the last message"),
        ("retention.ms", "task-inputs.one", "1.0 h"),
        ("retention.bytes", "task-inputs.two", "pushes out"),
        ("max.message.bytes", "receipts.one", "100,000, less than the 4,194,304"),
    ):
        row = found[f"kafka {check}"]
        assert row["state"] == "bad"
        assert row["found"].endswith(f": {address.prefix}{topic}"), "this topic and no other"
        assert says in row["found"]
        assert f"--entity-name {address.prefix}{topic} " in row["todo"]
    ran = cli("doctor", "--json", code=4, **(migrated | {"TICKWORK_BUS_URL": url}))
    insync = [row["found"] for row in ran.json["checks"] if row["check"] == "kafka min.insync.replicas"]
    assert any("2, and there is 1 replica" in text and "data-plane.two" in text for text in insync)
    assert any("1, fewer than the 2 of TICKWORK_BUS_URL" in text and "data-plane.one" in text for text in insync)


def test_brokers_that_are_too_few_are_found(cli: Cli, migrated: dict[str, str]) -> None:
    found = checks(cli, migrated | {"TICKWORK_BUS_URL": f"{migrated['TICKWORK_BUS_URL']}?replication=3"})
    row = found["kafka publish"]
    assert row["state"] == "bad"
    assert "cannot be made" in row["found"]
    assert "replication factor" in row["found"].lower()
    assert found["kafka clock"]["state"] == "note", "it cannot be told without a message"


def test_tables_without_their_wall_are_found(cli: Cli, migrated: dict[str, str]) -> None:
    schema = schema_of(migrated)
    sql(
        f'ALTER TABLE "{schema}".log DISABLE ROW LEVEL SECURITY',
        f'ALTER TABLE "{schema}".heads NO FORCE ROW LEVEL SECURITY',
        f'DROP POLICY of_tenant ON "{schema}".graphs',
    )
    row = checks(cli, migrated)["postgres tenants"]
    assert row["state"] == "bad"
    for wrong in ("log (off)", "heads (not forced)", "graphs (without a policy)"):
        assert wrong in row["found"]
    assert f"ALTER TABLE {schema}.log ENABLE ROW LEVEL SECURITY" in row["todo"]
    assert f"ALTER TABLE {schema}.heads FORCE ROW LEVEL SECURITY" in row["todo"]


def test_a_superuser_is_found(cli: Cli, migrated: dict[str, str]) -> None:
    owner, admin = urlsplit(migrated["TICKWORK_STATE_URL"]), urlsplit(servers.postgres_admin())
    url = owner._replace(netloc=admin.netloc).geturl()
    row = checks(cli, migrated | {"TICKWORK_STATE_URL": url})["postgres login"]
    assert row["state"] == "bad"
    assert "is a superuser and has BYPASSRLS: row-level security does not hold for it" in row["found"]
    assert "GRANT tickwork_app, tickwork_system TO NAME" in row["todo"]


@pytest.fixture
def stranger() -> Iterator[tuple[str, str]]:
    """A login that belongs to no role, and its password."""
    name = f"doctor_{time.monotonic_ns()}"
    sql(f"CREATE ROLE {name} LOGIN PASSWORD 'geheim' CONNECTION LIMIT 3", admin=True)
    sql(f"ALTER ROLE {name} SET synchronous_commit = off", admin=True)
    yield name, "geheim"
    sql(f"DROP ROLE {name}", admin=True)


def test_a_login_that_can_do_nothing_is_found(cli: Cli, migrated: dict[str, str], stranger: tuple[str, str]) -> None:
    parts = urlsplit(migrated["TICKWORK_STATE_URL"])
    url = parts._replace(netloc=f"{stranger[0]}:{stranger[1]}@{parts.hostname}:{parts.port}").geturl()
    found = checks(cli, migrated | {"TICKWORK_STATE_URL": url})
    assert {"role tickwork_app", "role tickwork_system", "postgres connections"} <= bad(found)
    assert f'GRANT tickwork_app TO "{stranger[0]}"' in found["role tickwork_app"]["todo"]
    assert "synchronous_commit" in found["postgres durability"]["found"]
    assert "3 of 3 free; a process with this URL takes up to 10" in found["postgres connections"]["found"]


def test_a_schema_that_has_to_be_migrated_is_found(cli: Cli, cloud: dict[str, str]) -> None:
    row = checks(cli, cloud)["postgres schema"]
    assert (row["state"], row["found"]) == ("bad", "version 0, and this Tickwork needs 2")
    assert "tickwork db migrate" in row["todo"]


def test_a_bucket_that_is_wrong_is_found(cli: Cli, migrated: dict[str, str]) -> None:
    url = migrated["TICKWORK_BLOB_URL"]
    missing = url.replace("s3://tickwork", "s3://no-such-bucket")
    assert "does not exist" in checks(cli, migrated | {"TICKWORK_BLOB_URL": missing})["bucket"]["found"]
    refused = url.replace("secret_access_key=", "secret_access_key=x")
    assert (
        "does not accept the credentials" in checks(cli, migrated | {"TICKWORK_BLOB_URL": refused})["bucket"]["found"]
    )


def test_encryption_is_what_the_server_says(cli: Cli, migrated: dict[str, str]) -> None:
    assert checks(cli, migrated)["bucket encryption"]["state"] == "note", "a server on this machine"
    encrypted = migrated | {"TICKWORK_BLOB_URL": f"{migrated['TICKWORK_BLOB_URL']}&sse=AES256"}
    row = checks(cli, encrypted)["bucket encryption"]
    assert (row["state"], row["found"]) == ("ok", "AES256")


def test_a_redis_that_evicts_or_runs_no_scripts_is_found(cli: Cli, migrated: dict[str, str], tmp_path: Path) -> None:
    url = servers.start("redis", tmp_path / "set")["TICKWORK_REDIS_URL"]
    try:
        with Redis.from_url(url) as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.execute_command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "+@all", "-eval")
        limited = url.replace("redis://", "redis://worker:pw@")
        found = checks(cli, migrated | {"TICKWORK_KV_URL": limited})
    finally:
        servers.end("redis", tmp_path / "set")
    assert found["redis"]["state"] == "bad"
    assert "EVAL is refused" in found["redis"]["found"]
    assert "+eval" in found["redis"]["todo"]
    row = found["redis eviction"]
    assert row["state"] == "bad"
    assert "allkeys-lru, maxmemory 100.00M" in row["found"]
    assert "noeviction" in row["todo"]


async def test_an_examination_leaves_nothing_behind(cli: Cli, migrated: dict[str, str]) -> None:
    """Nothing but the topic of the probe."""
    from tickwork.adapters.blob.objects.address import connect, read_address

    checks(cli, migrated)
    address = read_address(migrated["TICKWORK_BLOB_URL"], {})
    client = connect(address)
    assert not [one async for batch in client.list(address.prefix) for one in batch]
    await asyncio.sleep(0.1)
    with Redis.from_url(servers.redis()) as redis:
        assert not list(redis.scan_iter(f"{urlsplit(migrated['TICKWORK_KV_URL']).query.partition('=')[2]}*"))
    connection = await asyncpg.connect(servers.postgres())
    try:
        assert await connection.fetchval(f'SELECT count(*) FROM "{schema_of(migrated)}".lifetimes') == 0
    finally:
        await connection.close()
