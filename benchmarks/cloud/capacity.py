"""What so and so many lifetimes need: a model of CPU, bytes and commits, made from measured runs and checked by others.

The CPU of each role and server is taken to be three things: what it takes while no lifetime is open, something for
each lifetime that thinks (its claim is renewed again and again), and something for each step. The first two are
measured. What a step costs falls with the rate, because more share a batch: a power of the rate, through the lowest and
the highest one that were held. Above the highest it is not taken to fall any further, so that the model asks for too
much rather than too little. The rates in between are its check.

What this machine cannot show stands in Assumptions and comes from nowhere but there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from benchmarks.cloud.processes import Usage
from benchmarks.cloud.window import Window

ROLES = ("data-plane", "control-plane", "executor", "sweeper")
STEPS_A_LOOP = 2
LEAST = 1e-4
"""Cores below which nothing is told from nothing."""

DAY = 86_400


class Point(msgspec.Struct, frozen=True):
    """One measured stage: so many lifetimes thinking, steps a second, and cores that each role and server took."""

    lives: int
    steps: float
    cores: Usage


class Costs(msgspec.Struct, frozen=True):
    """The inputs of the model. Cores by role or server; everything else for each step."""

    idle: Usage
    """While no lifetime is open."""
    thinking: Usage
    """For each lifetime that thinks."""
    step: Usage
    """For each step a second, at the highest rate that was held."""
    power: Usage
    """How what steps cost together grows with the rate below that: 1 as fast, 0 not at all."""
    highest: float
    """That rate, in steps a second."""
    messages: float
    """Published on the bus."""
    bus_bytes: float
    entries: float
    """Rows of the log."""
    wal: float
    """Bytes of write-ahead log."""
    stored: float
    """Bytes of tables and indexes."""
    commits: float
    memory: float = 0.0
    """Bytes in executor and Control Plane for each lifetime that thinks."""


class Assumptions(msgspec.Struct, frozen=True):
    """What was not measured here, and how full things are to be run. Change what your installation knows better."""

    busy: float = 0.6
    """Part of a core, or of a limit, that is used at the mean rate: the rest is for peaks and for one that failed."""
    peak: float = 1.5
    """The highest rate over the mean one."""
    replicas: int = 3
    """Copies of what is on the bus: each broker that follows writes, and spends CPU, like the one that leads."""
    broker_cores: float = 4.0
    broker_bytes: float = 50e6
    """Bytes a second that a broker takes in, its copies of others included."""
    partition_steps: float = 1_000.0
    """Steps a second on one partition of each topic: what one process of a role reaches in its one core, about."""
    commits_per_flush: float = 1.0
    """Commits that share one flush of the database's log."""
    page: int = 8192
    checkpoint: float = 2.0
    """Pages written back for each page that the write-ahead log filled."""
    kept_days: float = 7.0
    """How long finished lifetimes stay in the database."""
    bus_hours: float = 24.0


class Needs(msgspec.Struct, frozen=True):
    """What to provide."""

    lives: int
    think: float
    loops: float
    """Planner loops a second, on the average."""
    processes: dict[str, int]
    """Of each role; one core each. A second sweeper is a spare: each of them looks at everything."""
    sweeper_cores: float
    """What one sweeper takes; it cannot have more than one."""
    brokers: int
    partitions: int
    """Of each topic, over all tenants."""
    database_cores: float
    database_iops: float
    database_gb: float
    database_shards: int
    """Databases, where one writes no more than `DATABASE_STEPS`."""
    bus_mb: float
    """MB a second into the bus, with all copies."""
    bus_gb: float
    redis_cores: float
    memory_gb: float


DATABASE_STEPS = 20_000.0
"""Steps a second that one database is trusted with: 1 kB of write-ahead log each."""


def fitted(idle: Usage, standing: Usage, low: Point, high: Point, window: Window, memory: float) -> Costs:
    """The model through two measured rates; bytes and commits from the window of the higher one.

    `idle`: cores before any lifetime was open. `standing`: with all of them open and none moving. `memory`: bytes for
    each lifetime that thinks.
    """
    names = [name for name in high.cores if name != "client"]
    steps = max(window.steps, 1)
    # No more can be standing cost than the busiest role had at the lowest rate, whatever a short look says.
    still = {n: min(max(standing.get(n, 0.0), idle.get(n, 0.0)), low.cores[n]) for n in names}
    base = {n: min(idle.get(n, 0.0), still[n]) for n in names}
    moved = {n: (max(low.cores[n] - still[n], LEAST), max(high.cores[n] - still[n], LEAST)) for n in names}
    return Costs(
        idle=base,
        thinking={n: (still[n] - base[n]) / max(high.lives, 1) for n in names},
        step={n: moved[n][1] / high.steps for n in names},
        power={n: _power(moved[n][0], moved[n][1], low.steps, high.steps) for n in names},
        highest=high.steps,
        messages=sum(t.messages for t in window.traffic.values()) / steps,
        bus_bytes=sum(t.bytes for t in window.traffic.values()) / steps,
        entries=window.entries / steps,
        wal=window.wal / steps,
        stored=max(window.stored, 0) / steps,
        commits=window.commits / steps,
        memory=memory,
    )


def _power(low: float, high: float, low_steps: float, high_steps: float) -> float:
    return min(1.0, max(0.0, math.log(high / low) / math.log(high_steps / low_steps)))


def predicted(costs: Costs, lives: int, steps: float) -> Usage:
    """Cores of each role and server with so many lifetimes thinking and so many steps a second."""
    part = min(1.0, steps / costs.highest)
    most = max(steps, costs.highest)
    return {
        name: costs.idle[name] + lives * costs.thinking[name] + most * step * part ** costs.power[name]
        for name, step in costs.step.items()
    }


def needs(costs: Costs, lives: int, think: float, given: Assumptions | None = None) -> Needs:
    """What it takes when `lives` lifetimes are open and each thinks for `think` seconds in a loop."""
    a = given or Assumptions()
    loops = lives / think
    steps = STEPS_A_LOOP * loops * a.peak
    cores = predicted(costs, lives, steps)
    processes = {role: max(2, math.ceil(cores.get(role, 0.0) / a.busy)) for role in ROLES} | {"sweeper": 2}
    bus = costs.bus_bytes * steps * a.replicas
    brokers = max(
        a.replicas,
        math.ceil(cores.get("kafka", 0.0) * a.replicas / a.busy / a.broker_cores),
        math.ceil(bus / a.busy / a.broker_bytes),
    )
    most = max(processes.values())
    flushes = costs.commits * steps / a.commits_per_flush
    written = costs.wal * steps / a.page
    mean = STEPS_A_LOOP * loops
    return Needs(
        lives=lives,
        think=think,
        loops=loops,
        processes=processes,
        sweeper_cores=cores.get("sweeper", 0.0),
        brokers=brokers,
        partitions=max(4, _round_up(max(most, math.ceil(steps / a.partition_steps)))),
        database_cores=cores.get("postgres", 0.0) / a.busy,
        database_iops=flushes + written * (1 + a.checkpoint),
        database_gb=costs.stored * mean * DAY * a.kept_days / 1e9,
        database_shards=math.ceil(steps / DATABASE_STEPS),
        bus_mb=bus / 1e6,
        bus_gb=costs.bus_bytes * mean * a.replicas * a.bus_hours * 3600 / 1e9,
        redis_cores=cores.get("redis", 0.0) / a.busy,
        memory_gb=costs.memory * lives / 1e9,
    )


def compared(costs: Costs, points: Sequence[Point]) -> list[tuple[Point, Usage, float, float]]:
    """Of each measured point: what the model says, by name, and in all what was measured and what it says."""
    found = []
    for point in points:
        said = predicted(costs, point.lives, point.steps)
        found.append((point, said, sum(point.cores[name] for name in said), sum(said.values())))
    return found


def _round_up(number: int) -> int:
    """The next power of two: partitions are shared out evenly among 1, 2, 4 members."""
    return 1 << max(number - 1, 0).bit_length()
