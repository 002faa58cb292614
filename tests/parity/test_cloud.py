"""Every story on the local profile and on Kafka, PostgreSQL, S3 and Redis: the same way, and each takes the other's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters import servers
from tests.adapters.postgres_stores import drop, make_roles, with_options
from tests.parity.checks import same_ways
from tests.parity.shapes import STORIES
from tests.parity.stages import PREFIX, cloud, installed, local

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a schema that nobody else has."""
    url = servers.postgres()
    asyncio.run(make_roles())
    yield with_options(url, schema=PREFIX)
    asyncio.run(drop(url, PREFIX))


async def test_every_story_goes_the_same_way_on_the_servers(tmp_path: Path, database: str) -> None:
    async with installed(local(tmp_path / "here")) as here, installed(cloud(database)) as there:
        for name, story in STORIES.items():
            await same_ways(name, story, here, there, back=True)
