"""Many seeds: run them, in several processes if asked, and add up what came of them.

Each process is this very command for every n-th seed; it writes one line of JSON a seed, and this one adds up.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tickwork.clock import SystemClock
from tickwork.testing.simulation.faults import FAULTS
from tickwork.testing.simulation.world import Report, Violation, run_seed

COLLECT_EVERY = 20
"""Seeds after which garbage is collected; a world is one large cycle."""

ENOUGH = 1000
"""Seeds in which every fault must have fired."""


EXPECTED = (
    "started", "waiting", "signalled", "paused", "resumed", "abort_requested", "aborted", "timer_set", "timer_fired",
    "completed", "failed", "forked", "intent", "unknown", "reconciled", "superseded", "SUCCEEDED", "FAILED",
    "TIMED_OUT", "CANCELLED", "LeaseExpired", "StartToClose", "ScheduleToStart", "HeartbeatTimeout", "InvalidChoice",
    "ChildFailed", "waiting on human", "waiting on signal", "waiting on unknown", "waiting on poison", "dead letter",
    "policies loaded", "policies removed", "verdict warn", "verdict reject_execution", "verdict pause_lifetime",
    "verdict abort_lifetime", "verdict at record", "verdict at dispatch", "verdict tenant", "refused for the tenant",
    "verdict shadow", "verdict failed closed", "paused by a policy", "aborted by a policy", "raised", "Rejected",
    "an illegal raise refused", "handed over", "handed over and lost", "held back",
)  # fmt: skip
"""What has to happen somewhere in a campaign with all faults: a workload that never goes there proves nothing."""


class Line(msgspec.Struct):
    """What is kept of a seed."""

    seed: int
    digest: str
    violations: list[Violation]
    fired: dict[str, int]
    seen: dict[str, int]
    lifetimes: int
    entries: int
    calls: int
    ends: dict[str, int]


class Totals:
    """The sum of all seeds so far."""

    def __init__(self) -> None:
        self.seeds = self.lifetimes = self.entries = self.calls = 0
        self.fired: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.failed: list[Line] = []

    def add(self, line: Line) -> None:
        """One more seed."""
        self.seeds += 1
        self.lifetimes += line.lifetimes
        self.entries += line.entries
        self.calls += line.calls
        self.fired.update(line.fired)
        self.seen.update(line.seen)
        self.ends.update(line.ends)
        if line.violations:
            self.failed.append(line)

    def silent(self, expected: Iterable[str]) -> list[str]:
        """Faults that should have fired and never did, once there were seeds enough."""
        return [name for name in expected if not self.fired[name]] if self.seeds >= ENOUGH else []

    def unseen(self) -> list[str]:
        """What should have happened and never did, once there were seeds enough."""
        return [name for name in EXPECTED if not self.seen[name]] if self.seeds >= ENOUGH else []


def play(
    seeds: Iterable[int], *, minutes: float | None, without: Iterable[str], only: Iterable[str] | None
) -> Iterator[Line]:
    """Runs seeds one after another, until `minutes` are over."""
    clock = SystemClock()
    until = None if minutes is None else clock.monotonic() + 60 * minutes
    with without_collector() as collect:
        for count, seed in enumerate(seeds):
            if until is not None and clock.monotonic() >= until:
                return
            if count % COLLECT_EVERY == 0:
                collect()
            yield line_of(run_seed(seed, without=without, only=only))


@contextmanager
def without_collector() -> Iterator[Callable[[], int]]:
    """Garbage is collected only when the function that this gives is called."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield gc.collect
    finally:
        if enabled:
            gc.enable()


def line_of(report: Report) -> Line:
    """What is kept of a report."""
    return Line(
        report.seed, report.digest, report.violations, report.fired, report.seen, report.lifetimes, report.entries,
        report.calls, report.ends,
    )  # fmt: skip


def spread(seeds: range, jobs: int, options: list[str], on_line: Callable[[Line], None]) -> bool:
    """The same in `jobs` processes; whether all of them came to their end."""
    command = [sys.executable, "-m", "tickwork.testing.simulation", "--lines", *options]
    workers = [
        subprocess.Popen([*command, "--seeds", f"{seeds.start + job}:{seeds.stop}:{jobs}"], stdout=subprocess.PIPE)
        for job in range(min(jobs, len(seeds)))
    ]
    decode = msgspec.json.Decoder(Line).decode
    left = dict.fromkeys(workers)
    while left:
        for worker in list(left):
            text = worker.stdout.readline() if worker.stdout is not None else b""
            if text:
                on_line(decode(text))
            else:
                del left[worker]
    return all(worker.wait() == 0 for worker in workers)


def told(report: Report, lines: int) -> str:
    """A failed seed, for people: its options, what was violated, and how it came to it."""
    options: dict[str, Any] = msgspec.to_builtins(report.options)
    parts = [f"seed {report.seed} drew:"]
    parts += [f"  {name} = {value}" for name, value in options.items()]
    parts += [f"the last {min(lines, len(report.trace))} lines:", *list(report.trace)[-lines:]]
    parts += [f"{violation.invariant} does not hold: {violation.evidence}" for violation in report.violations]
    return "\n".join(parts)


def expected_faults(without: Iterable[str], only: Iterable[str] | None) -> list[str]:
    """The faults that a campaign has to see."""
    from tickwork.testing.simulation.faults import DEFAULT_OFF

    if only is not None:
        return [name for name in FAULTS if name in set(only)]
    return [name for name in FAULTS if name not in set(without) | set(DEFAULT_OFF)]
