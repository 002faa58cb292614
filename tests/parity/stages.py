"""The installations that are compared: one process with its files, or eight of them on the real servers."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.fleet import Fleet
from tests.histories.shapes import Story
from tests.histories.stage import Stage
from tickwork.model.lifetime import Lifetime
from tickwork.orchestrator.starting import PARENT_LABEL
from tickwork.ports import BlobStore, LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.transfer.exporting import Exporting
from tickwork.transfer.importing import Imported, Importing
from tickwork.transfer.reading import read


class Installation:
    """A runtime on one profile that is asked, and what goes out of the installation and into it."""

    def __init__(self, runtime: Runtime, blobs: BlobStore) -> None:
        self.runtime, self.blobs = runtime, blobs

    async def tell(self, story: Story) -> tuple[Stage, list[Lifetime]]:
        """Tells a story: the lifetimes that it left, in the order in which they began."""
        before = {one.lifetime_id for one in await self.all()}
        stage = Stage(self.runtime)
        await story.tell(stage)
        return stage, [one for one in await self.all() if one.lifetime_id not in before]

    async def all(self) -> list[Lifetime]:
        """Every lifetime, oldest first; children, whose ids come from their parents', after all others."""
        found = await self.runtime.service.list(LifetimeQuery(limit=10_000))
        return sorted(found, key=lambda one: (PARENT_LABEL in one.labels, one.lifetime_id))

    async def export(self, lifetime_id: str) -> bytes:
        """A lifetime as a file."""
        sink = io.BytesIO()
        await Exporting(self.runtime.store, self.blobs, sink).export(lifetime_id)
        return sink.getvalue()

    async def take(self, content: bytes) -> Imported:
        """Imports a file."""
        with read(io.BufferedReader(io.BytesIO(content))) as export:
            return await Importing(self.runtime.store, self.blobs, self.runtime.clock).take(export)


@asynccontextmanager
async def installed(runtime: Runtime) -> AsyncIterator[Installation]:
    """What this runtime, which is started, belongs to."""
    blobs = runtime.profile.open_blobs(runtime.clock)
    await blobs.start()
    try:
        yield Installation(runtime, blobs)
    finally:
        await blobs.stop()


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Installation]:
    """One process with all roles, on the local profile in a folder."""
    async with Runtime(Profile.local(folder)) as runtime, installed(runtime) as installation:
        yield installation


@asynccontextmanager
async def cloud(fleet: Fleet) -> AsyncIterator[Installation]:
    """Two members of each role on the real servers, asked through a client."""
    async with installed(fleet.client) as installation:
        yield installation
