"""Deterministic simulation: the real planes, executor, sweeper and stores, on virtual time, under seeded faults.

    report = run_seed(7)
    assert not report.violations, report.violations

One seed is one world: some processes, some lifetimes of random graphs, people who meddle, and a set of faults of its
own (`faults`). Everything happens on one event loop with virtual time whose every choice comes from the seed
(`scheduler`), so a seed that fails fails again, in any process. `python -m tickwork.testing.simulation` runs many.
"""

from __future__ import annotations

from tickwork.testing.simulation.faults import FAULTS, Options, draw_options
from tickwork.testing.simulation.world import Report, Violation, run_seed

__all__ = ["FAULTS", "Options", "Report", "Violation", "draw_options", "run_seed"]
