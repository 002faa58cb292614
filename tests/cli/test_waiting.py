"""A service that is started while a server is away waits for it; one that is refused ends with what is to be mended."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.adapters import servers
from tests.adapters.tcp_faults import TcpProxy
from tests.cli.cloud import cloud
from tests.cli.process import environment

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

__all__ = ["cloud"]

PATIENCE = 60


class Serving:
    """A process of `tickwork serve`, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process, self.said, self.port = process, "", 0

    async def until(self, word: str) -> None:
        """Reads on until it has said this."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while word not in self.said:
                line = (await self.process.stderr.readline()).decode()
                assert line, self.said
                self.said += line
                if found := re.search(r"listening on 127.0.0.1:(\d+)", line):
                    self.port = int(found[1])

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def stop(self) -> float:
        """SIGTERM: how long it took to end."""
        begun = time.monotonic()
        self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            _, rest = await self.process.communicate()
        self.said += rest.decode()
        return time.monotonic() - begun


@asynccontextmanager
async def serving(home: Path, given: dict[str, str]) -> AsyncIterator[Serving]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tickwork.cli.main", "serve", "--roles", "data-plane", "--listen", ":0",
        stderr=asyncio.subprocess.PIPE, env=environment(home) | given, cwd=home.parent,
    )  # fmt: skip
    try:
        yield Serving(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def place(url: str) -> tuple[str, str, int]:
    """Where a URL's server is: as it is written there, and its host and port."""
    found = re.search(r"endpoint=http://([^&/]+)", url)
    written = found[1] if found else urlsplit(url).netloc.rpartition("@")[2]
    host, _, port = written.rpartition(":")
    return written, host, int(port)


@pytest.mark.parametrize("name", ["TICKWORK_BUS_URL", "TICKWORK_STATE_URL", "TICKWORK_BLOB_URL"])
async def test_it_waits_for_a_server_that_is_away(cloud: dict[str, str], home: Path, name: str) -> None:
    written, host, port = place(cloud[name])
    proxy = TcpProxy(host, port)
    await proxy.listen()
    await proxy.leave()
    try:
        given = cloud | {name: cloud[name].replace(written, f"127.0.0.1:{proxy.port}")}
        async with serving(home, given) as one:
            await one.until("waiting for a server")
            assert await one.get("/healthz") == (200, "It lives.\n")
            status, why = await one.get("/readyz")
            assert status == 503
            assert "Not ready: it waits for a server: " in why
            assert (await one.get("/metrics"))[0] == 503
            await proxy.listen()
            await one.until("ready as data-plane")
            assert (await one.get("/readyz"))[0] == 200
            assert one.said.count("waiting for a server") == 1
            await one.stop()
            assert one.process.returncode == 0, one.said
            assert "ended in good order" in one.said
    finally:
        await proxy.close()


@pytest.mark.parametrize("name", ["TICKWORK_BUS_URL", "TICKWORK_STATE_URL", "TICKWORK_BLOB_URL"])
async def test_it_ends_at_once_while_it_waits(cloud: dict[str, str], home: Path, name: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        given = cloud | {name: cloud[name].replace(place(cloud[name])[0], f"127.0.0.1:{free.getsockname()[1]}")}
        async with serving(home, given) as one:
            await one.until("waiting for a server")
            assert await one.stop() < 3
            assert one.process.returncode == 0, one.said
            assert "ended at once" in one.said
            assert "Traceback" not in one.said


async def test_what_somebody_has_to_mend_ends_it(cloud: dict[str, str], home: Path) -> None:
    database = cloud["TICKWORK_STATE_URL"]
    login, _, rest = database.partition("://")[2].partition("@")
    wrong = {
        "TICKWORK_STATE_URL": [
            (f"postgresql://{login.partition(':')[0]}:wrong-word@{rest}", "password"),
            (database.replace(urlsplit(database).path, "/no_such_database"), "TICKWORK_STATE_URL"),
        ],
        "TICKWORK_BLOB_URL": [
            (cloud["TICKWORK_BLOB_URL"].replace("s3://", "s3://no-such-bucket-", 1), "does not exist"),
            (re.sub(r"secret_access_key=[^&]*", "secret_access_key=wrong", cloud["TICKWORK_BLOB_URL"]), "credentials"),
        ],
    }
    for name, cases in wrong.items():
        for url, said in cases:
            async with serving(home, cloud | {name: url}) as one:
                async with asyncio.timeout(PATIENCE):
                    _, err = await one.process.communicate()
                assert one.process.returncode == 1, (url, err)
                assert said in err.decode()
                assert "Traceback" not in err.decode()


async def test_a_login_that_kafka_refuses_ends_it(cloud: dict[str, str], home: Path) -> None:
    plain = servers.kafka().partition("://")[2]
    given = cloud | {"TICKWORK_BUS_URL": f"kafka://somebody:secret@{plain}/x?connect_timeout=2"}
    async with serving(home, given) as one:
        async with asyncio.timeout(PATIENCE):
            _, err = await one.process.communicate()
        assert one.process.returncode == 1, err
        assert "secret" not in err.decode()
