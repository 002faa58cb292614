"""Every planted bug is found, and by the invariant that it breaks: the oracle is awake.

`python -m tests.simulation.planted` measures how many seeds each one takes, with its hints or without.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.simulation.planted import PLANTED
from tickwork.testing.simulation import campaign, run_seed

AT_MOST = 300
"""Seeds in which a bug has to show under its hints."""

FIRST = {
    "join_fires_early": 6,
    "quorum_off_by_one": 64,
    "default_edge_first": 14,
    "lost_attempt_counts": 69,
    "limits_ignored": 53,
    "abort_leaves_work_running": 7,
    "waking_not_marked": 232,
    "fork_with_new_times": 6,
    "late_result_overwrites": 14,
    "status_without_as_of": 590,
    "blob_after_record": 12,
    "nothing_taken_up": 26,
    "answered_twice": 10,
    "answer_acknowledged_early": 10,
    "child_started_twice": 15,
    "child_not_aborted": 12,
    "called_without_intent": 7,
    "lease_by_wall_clock": 15,
    "frozen_sweeper_judges": 200,
    "intent_not_revoked": 280,
    "mildest_is_done": 110,
    "claims_let_go": 15,
    "record_lost_on_the_way": 13,
    "arrival_counted_twice": 64,
    "branches_by_hash": 6,
    "poison_never_parked": 7,
    "resume_loses_visits": 6,
    "unknown_taken_for_lost": 14,
    "storage_error_swallowed": 9,
    "compare_and_set_ignored": 70,
    "every_intent_accepted": 150,
    "gap_in_references_ignored": 31,
    "early_signal_lost": 92,
    "deadline_forgotten": 34,
    "claim_not_checked": 15,
    "living_worker_given_up": 32,
    "forgotten_taken_for_lost": 71,
    "outage_taken_for_silence": 16,
    "cancelled_reservation_kept": 60,
    "superseded_not_in_the_budget": 28,
}
"""Where to begin, for bugs that take longer: the first seed that shows them today. Later ones do, too."""


def _some_at_once() -> list[Any]:
    """All of them; every tenth also in the quick suite."""
    return [
        name if number % 10 == 0 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(PLANTED)
    ]


@pytest.mark.parametrize("name", _some_at_once())
def test_a_planted_bug_is_found(name: str) -> None:
    bug = PLANTED[name]
    for seed in range(FIRST.get(name, 0), FIRST.get(name, 0) + AT_MOST):
        options = bug.options(seed)
        report = run_seed(seed, options=options, patches=[bug.patch()])
        if bug.breaks in {violation.invariant for violation in report.violations}:
            clean = run_seed(seed, options=options)
            assert not clean.violations, campaign.told(clean, 60)
            return
        if seed % campaign.COLLECT_EVERY == 0:
            gc.collect()
    pytest.fail(f"{bug.what}: {bug.breaks} held in {AT_MOST} seeds from {FIRST.get(name, 0)} on")


def test_there_are_bugs_of_every_kind() -> None:
    assert len(PLANTED) >= 28
    broken = {bug.breaks for bug in PLANTED.values()}
    assert broken >= {f"I{n}" for n in (1, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19)}
    assert all(bug.what for bug in PLANTED.values())


def test_a_patch_is_gone_after_its_run() -> None:
    before = [run_seed(seed).digest for seed in range(10)]
    for bug in PLANTED.values():
        with bug.patch():
            pass
    assert [run_seed(seed).digest for seed in range(10)] == before
