"""How large the parts of the benchmark are."""

from __future__ import annotations

import msgspec

from benchmarks.cloud.schedule import Stage


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be chosen. Rates are planner loops a second, times seconds."""

    lifetimes: int = 1_000
    """Of W2."""
    cycles: int = 10
    reps: int = 3
    lives: int = 10_000
    """Lifetimes that think."""
    rates: tuple[float, ...] = (100, 200, 300, 300, 300, 400, 500, 600, 700, 800, 1_000)
    """Of the stages, one after the other; a rate that comes several times gives the median of its p99."""
    stage: float = 20.0
    idle: float = 5.0
    """How long the processes are watched before a lifetime is open, and when all are open and none moves."""
    stand: float = 30.0
    """How long all are open before that: then those who look after what stands still are at work."""
    wanted: float = 300.0
    """The rate whose p99 has a target."""
    each: tuple[int, ...] = (1, 2, 4)
    """Processes of each role, of `scale-out`."""
    scale_lifetimes: int = 500
    neighbour_rate: float = 3.0
    """Planner loops a second of each tenant that is watched."""
    neighbours: int = 10
    """Tenants that are watched."""
    neighbour_lives: int = 100
    """Of each of them."""
    noise: float = 100.0
    """How many times its load the other tenant has."""
    noise_lives: int = 3_000
    neighbour: float = 60.0
    """Seconds that it is watched, alone and with the other."""
    tenant_rate: float = 0.0
    """Executions a second that executors begin for each tenant of `neighbour`; 0: as many as come."""
    neighbour_rounds: int = 4
    """Turns in which that is done."""
    flood_lives: int = 4_000
    """Lifetimes of the tenant that floods; each takes its next step as soon as it can."""
    soak_minutes: float = 30.0
    soak_rate: float = 200.0
    minute: float = 60.0

    def stages(self) -> list[Stage]:
        """Of `loops`."""
        return [Stage(rate, self.stage) for rate in self.rates]


WHOLE = Sizes()

QUICK = Sizes(
    lifetimes=500,
    rates=(100, 200, 300, 400, 500, 600),
    stage=12.0,
    idle=3.0,
    stand=15.0,
    each=(1, 2),
    scale_lifetimes=300,
    neighbour=20.0,
    noise_lives=2_000,
    flood_lives=3_000,
)

SMALL = Sizes(
    lifetimes=20,
    cycles=3,
    reps=1,
    lives=60,
    rates=(10, 20, 30),
    stage=6.0,
    idle=1.0,
    stand=1.0,
    wanted=20.0,
    each=(1, 2),
    scale_lifetimes=20,
    neighbour_rate=3.0,
    neighbours=2,
    neighbour_lives=5,
    noise=5.0,
    noise_lives=30,
    neighbour=6.0,
    neighbour_rounds=2,
    flood_lives=40,
    soak_minutes=2,
    soak_rate=20,
    minute=5.0,
)
"""Shows that it runs."""
