"""A tenant's cap under very many lifetimes at once: passed by no more than the bound that stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import overshoot
from benchmarks.overshoot import Outcome


def check(found: Outcome) -> None:
    print(found.line())
    assert found.completed + found.paused == found.lives
    assert found.completed, "nothing was admitted: this showed nothing"
    assert found.paused, "the cap was never met: this showed nothing"
    assert found.spent == found.reported
    assert found.overshoot <= found.bound, found.line()
    assert found.spent + overshoot.MORE > found.limit, "much was left, and nothing more was admitted"


def test_who_keeps_to_what_is_declared_never_passes_the_cap(tmp_path: Path) -> None:
    found = overshoot.once(tmp_path, 400, breakers=0.0)
    check(found)
    assert (found.overshoot, found.bound) == (0, 0)


@pytest.mark.parametrize("breakers", [0.02, 0.2, 0.5])
def test_a_thousand_lifetimes_hold_one_cap_within_the_bound(tmp_path: Path, breakers: float) -> None:
    found = overshoot.once(tmp_path, 1_000, breakers=breakers)
    check(found)
    if breakers == 0.5:
        assert found.overshoot > 0, "nobody passed the cap: this showed nothing"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_lifetimes_hold_one_cap_twenty_times(tmp_path: Path) -> None:
    for run in range(20):
        check(overshoot.once(tmp_path / str(run), 10_000, breakers=0.025 * run))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_cap_holds_although_the_process_is_killed_meanwhile(tmp_path: Path) -> None:
    found = overshoot.killed(tmp_path, 5_000, kills=4)
    check(found)
    assert found.lost, "no kill met an attempt in flight: this showed nothing"
