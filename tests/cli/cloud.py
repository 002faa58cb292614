"""The profile cloud on the servers that tests share: every test has a prefix, a schema and keys of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.adapters import servers
from tests.adapters.postgres_stores import drop, make_roles, with_options

_NEXT = itertools.count(1)


@pytest.fixture
def cloud() -> Iterator[dict[str, str]]:
    """The environment of a process on the profile cloud. Nothing is in its schema yet."""
    import asyncio

    name = f"cli{os.getpid()}-{next(_NEXT)}"
    schema = name.replace("-", "_")
    asyncio.run(make_roles())
    yield {
        "TICKWORK_PROFILE": "cloud",
        "TICKWORK_BUS_URL": f"{servers.kafka()}/{name}",
        "TICKWORK_STATE_URL": with_options(servers.postgres(), schema=schema),
        "TICKWORK_BLOB_URL": f"{servers.s3()}&prefix={name}",
        "TICKWORK_KV_URL": f"{servers.redis()}?prefix={name}:",
    }
    asyncio.run(drop(servers.postgres(), schema))
