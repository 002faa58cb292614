"""The real planes, executors, sweepers and stores on virtual time: random worlds, seeded faults, all invariants.

A seed that fails is run again, with all that happens in it, by
`python -m tickwork.testing.simulation --seed N --trace`; `make sim` and `make sim-long` run many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from tickwork.orchestrator.data_plane import DataPlane
from tickwork.testing.simulation import FAULTS, campaign, draw_options, run_seed
from tickwork.testing.simulation.graphs import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 50
"""Seeds of one test: a few seconds."""


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, 4 * BLOCK, BLOCK)]
)
def test_no_seed_violates_an_invariant(first: int) -> None:
    only = os.environ.get("TICKWORK_SIM_SEED")
    if only and first:
        pytest.skip("one seed was asked for")
    for seed in [int(only)] if only else range(first, first + BLOCK):
        report = run_seed(seed)
        assert not report.violations, campaign.told(report, 60)


def test_a_calm_world_has_no_faults_and_every_lifetime_ends() -> None:
    for seed in range(1000, 1020):
        report = run_seed(seed, only=())
        assert not report.violations, campaign.told(report, 60)
        assert not report.fired
        assert set(report.ends) <= {"COMPLETED", "FAILED", "ABORTED"}


@pytest.mark.slow
def test_one_seed_is_one_story_in_every_process() -> None:
    stories = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tickwork.testing.simulation", "--lines", "--seeds", "0:25"]
        done = subprocess.run(
            command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, timeout=60
        )
        stories.append([msgspec.json.decode(line)["digest"] for line in done.stdout.splitlines()])
    assert len(stories[0]) == 25
    assert stories[0] == stories[1]


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_strikes_when_it_is_drawn(name: str) -> None:
    """One at a time: a fault that has gone silent is found, whatever else goes on."""
    for seed in range(200):
        drawn = draw_options(seed, graphs=POOL, only=(name,))
        report = run_seed(seed, options=msgspec.structs.replace(drawn, slow=0.5, large=0.3))
        assert not report.violations, campaign.told(report, 60)
        assert set(report.fired) <= {name}
        if report.fired:
            return
    pytest.fail(f"{name} never fired")


@pytest.mark.slow
def test_the_checkers_are_awake() -> None:
    """A Data Plane that acknowledges results and drops them is found at once."""

    @contextmanager
    def forgetful() -> Iterator[None]:
        real = DataPlane.run_once

        async def run_once(self: DataPlane, deliveries: object) -> None:
            """Nothing."""

        DataPlane.run_once = run_once
        try:
            yield
        finally:
            DataPlane.run_once = real

    found = {v.invariant for seed in range(3) for v in run_seed(seed, only=(), patches=[forgetful()]).violations}
    assert "I18" in found


def test_a_campaign_knows_what_never_happened_in_it() -> None:
    totals = campaign.Totals()
    for seed in range(campaign.ENOUGH):
        totals.add(campaign.Line(seed, "", [], {"bus.drop": 1}, {"unknown": 1}, 0, 0, 0, {}))
    assert "bus.drop" not in totals.silent(FAULTS)
    assert "kv.flush" in totals.silent(FAULTS)
    assert "unknown" not in totals.unseen()
    assert "superseded" in totals.unseen()
