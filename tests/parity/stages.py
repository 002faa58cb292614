"""The installations that are compared: a runtime each, with its files, or on the real servers."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.adapters import servers
from tests.adapters.postgres_stores import with_options
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

PREFIX = f"parity{os.getpid()}"
"""Of topics, blobs and the schema of this process of tests: the servers are shared."""


class Installation:
    """A runtime on one profile, and what goes out of it and into it."""

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
async def installed(profile: Profile) -> AsyncIterator[Installation]:
    """One process with all roles."""
    async with Runtime(profile) as runtime:
        blobs = profile.open_blobs(runtime.clock)
        await blobs.start()
        try:
            yield Installation(runtime, blobs)
        finally:
            await blobs.stop()


def local(folder: Path) -> Profile:
    """The local profile in a folder."""
    return Profile.local(folder)


def cloud(database: str) -> Profile:
    """The real servers, with topics and blobs under a prefix that nobody else has. `database`: a schema's URL."""
    return Profile(
        name="cloud",
        bus_url=f"{servers.kafka()}/{PREFIX}?partitions=3",
        state_url=database,
        blob_url=with_options(servers.s3(), prefix=PREFIX),
        kv_url=servers.redis(),
    )
