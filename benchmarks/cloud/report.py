"""What is printed: tables of figures, and a line for each target. The same figures go to a file as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cloud.capacity import Assumptions, Costs, Needs, Point
from benchmarks.cloud.closed import Closed
from benchmarks.cloud.latency import Latencies
from benchmarks.cloud.processes import Usage
from benchmarks.cloud.thinking import Measured
from benchmarks.cloud.window import Window

MB = 1e6


class Report:
    """Prints as it goes, and keeps what it printed for machines."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.targets: list[tuple[str, float, str, float, bool]] = []

    def title(self, text: str) -> None:
        """What comes now."""
        print(f"\n{text}", flush=True)

    def say(self, text: str) -> None:
        """A line of text."""
        print(f"  {text}", flush=True)

    def target(self, name: str, value: float, unit: str, wanted: float, *, at_most: bool = False) -> None:
        """A figure that has to reach something. A missed target is printed, not raised."""
        reached = value <= wanted if at_most else value >= wanted
        self.targets.append((name, value, unit, wanted, reached))
        self.say(
            f"{name}: {value:,.1f} {unit}, target {'at most' if at_most else 'at least'} {wanted:,.0f}: "
            f"{'reached' if reached else 'missed'}"
        )

    def closed(self, name: str, runs: Sequence[Closed]) -> Closed:
        """W2: the median run; returns it."""
        ordered = sorted(runs, key=lambda run: run.steps_per_second)
        middle = ordered[len(ordered) // 2]
        rates = ", ".join(f"{run.steps_per_second:,.0f}" for run in runs)
        self.say(f"{name}: {statistics.median(run.steps_per_second for run in runs):,.0f} steps/s ({rates})")
        self.costs(middle.used, middle.resident)
        self.traffic(middle.used)
        self.figures[name] = runs
        return middle

    def costs(self, used: Window, resident: Usage) -> None:
        """CPU of each role and server."""
        each, cores = used.per_step(), used.cores()
        self.say(f"    {'':<16}{'ms CPU/step':>12}{'cores':>8}{'steps/s a core':>16}{'MB':>8}")
        for name, spent in each.items():
            rate = f"{1e3 / spent:,.0f}" if spent > 0.0005 else ""
            memory = f"{resident[name] / MB:,.0f}" if name in resident else ""
            self.say(f"    {name:<16}{spent:>12.3f}{cores[name]:>8.2f}{rate:>16}{memory:>8}")
        self.say(f"    {'together':<16}{sum(each.values()):>12.3f}{sum(cores.values()):>8.2f}")

    def traffic(self, used: Window) -> None:
        """Commits and batches."""
        steps = max(used.steps, 1)
        self.say(
            f"    a step: {used.commits / steps:.2f} commits, {used.wal / steps:,.0f} B of write-ahead log, "
            f"{used.stored / steps:,.0f} B stored"
        )
        batches = ", ".join(
            f"{name} {came.messages / steps:.2f} x {came.bytes / came.messages:,.0f} B in batches of "
            f"{came.messages / max(came.batches, 1):.1f}"
            for name, came in used.traffic.items()
        )
        self.say(f"    messages a step: {batches}")

    def stage(self, found: Measured) -> None:
        """One stage of an open loop, in one line."""
        timed, cores = found.latency, found.used.cores()
        busy = " ".join(f"{name} {spent:.2f}" for name, spent in cores.items() if spent >= 0.005)
        late = f", {timed.late} LATE" if timed.late else ""
        self.say(
            f"{found.rate:>6,.0f} loops/s: reached {timed.reached:,.0f}, p50 {timed.p50:,.0f} p90 {timed.p90:,.0f} "
            f"p99 {timed.p99:,.0f} p999 {timed.p999:,.0f} max {timed.longest:,.0f} ms "
            f"(p99 from return {timed.p99_from_return:,.0f}; n {timed.count:,}{late})"
        )
        self.say(f"               cores: {busy}; {sum(found.used.per_step().values()):.2f} ms CPU/step")

    def tenants(self, found: Mapping[str, Latencies]) -> None:
        """The planner loops of tenants, by what they were beside."""
        for name, timed in found.items():
            self.say(
                f"{name}: p50 {timed.p50:,.0f} p90 {timed.p90:,.0f} p99 {timed.p99:,.0f} ms of {timed.count:,} loops, "
                f"{timed.reached:,.0f}/s reached" + (f", {timed.late} LATE" if timed.late else "")
            )

    def model(self, costs: Costs, checks: Sequence[tuple[Point, Usage, float, float]]) -> None:
        """What the model is made of, and how it does on runs that it was not made from."""
        of = f"ms CPU/step at {costs.highest:,.0f}/s"
        self.say(f"{'':<16}{'idle, cores':>12}{'thinking, cores/10,000':>24}{of:>24}{'power':>7}")
        for name, step in costs.step.items():
            each = f"{costs.idle[name]:>12.3f}{1e4 * costs.thinking[name]:>24.3f}{1e3 * step:>24.3f}"
            self.say(f"{name:<16}{each}{costs.power[name]:>7.2f}")
        self.say(
            f"a step: {costs.messages:.2f} messages, {costs.bus_bytes:,.0f} B on the bus, {costs.entries:.2f} rows, "
            f"{costs.stored:,.0f} B stored, {costs.wal:,.0f} B of write-ahead log, {costs.commits:.2f} commits"
        )
        for point, said, measured, in_all in checks:
            off = 100 * (in_all / measured - 1) if measured else 0.0
            parts = ", ".join(f"{name} {said[name]:.2f}/{point.cores[name]:.2f}" for name in said if said[name] > 0.02)
            self.say(
                f"at {point.steps:,.0f} steps/s the model says {in_all:.2f} cores, measured {measured:.2f} "
                f"({off:+.0f} %); said/measured: {parts}"
            )

    def needs(self, found: Needs, given: Assumptions) -> None:
        """What so many lifetimes need."""
        roles = ", ".join(f"{count} {role}" for role, count in found.processes.items())
        self.say(f"{found.lives:,} lifetimes that think {found.think:g} s, {found.loops:,.0f} planner loops/s:")
        over = f" (A SWEEPER WOULD TAKE {found.sweeper_cores:.1f} CORES)" if found.sweeper_cores > 1 else ""
        self.say(f"    processes (a core each): {roles}{over}; {found.memory_gb:.1f} GB for what they hold")
        self.say(
            f"    bus: {found.brokers} brokers of {given.broker_cores:g} cores, {found.partitions} partitions a topic, "
            f"{found.bus_mb:,.0f} MB/s with {given.replicas} copies, {found.bus_gb:,.0f} GB for {given.bus_hours:g} h"
        )
        self.say(
            f"    database: {found.database_cores:.1f} cores, {found.database_iops:,.0f} IOPS, "
            f"{found.database_gb:,.0f} GB for {given.kept_days:g} days, {found.database_shards} of them; "
            f"Redis: {found.redis_cores:.2f} cores"
        )
