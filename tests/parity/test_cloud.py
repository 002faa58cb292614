"""Every story in one process with its files and in eight on real servers: the same way, and each takes the other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet, running_fleet
from tests.parity.checks import same_ways
from tests.parity.shapes import STORIES
from tests.parity.stages import cloud, local

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

PARTS = 4


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two members of each role: Kafka, PostgreSQL, S3 and Redis are all that they share."""
    with running_fleet() as made:
        yield made


@pytest.mark.parametrize("part", range(PARTS))
def test_every_story_goes_the_same_way_on_the_servers(part: int, tmp_path: Path, fleet: Fleet) -> None:
    async def go() -> None:
        async with local(tmp_path / "here") as here, cloud(fleet) as there:
            for name, story in list(STORIES.items())[part::PARTS]:
                await same_ways(name, story, here, there, back=True)

    fleet.perform(go())
