"""The fleet that the acceptance tests of the cloud profile share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.fleet import Fleet, running_fleet


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """Two members of each role. Every test has a tenant of its own there."""
    with running_fleet() as made:
        yield made
