"""Which faults there are, which of them a seed draws, and how often each one struck.

A seed takes its own subset and rates (a swarm): with all faults at once the rare combinations drown, with few of them
they come to light. Rates of `bus`, `store`, `kv` and `blob` faults are probabilities of one call; those of `process`
and `clock` faults are times a virtual minute.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from tickwork.runtime import ROLES, Role
from tickwork.testing.simulation.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.testing.simulation.trace import Trace


class Kind(msgspec.Struct, frozen=True):
    """A fault: the bounds of its rate, and what it is."""

    low: float
    high: float
    what: str


FAULTS: dict[str, Kind] = {
    "bus.drop": Kind(0.003, 0.2, "a message is lost for ever"),
    "bus.double": Kind(0.005, 0.3, "a message comes again, at once or up to an hour later"),
    "bus.delay": Kind(0.003, 0.1, "a key's messages are held back, up to an hour"),
    "bus.garble": Kind(0.002, 0.03, "a message arrives as something that nobody can read"),
    "bus.refuse": Kind(0.003, 0.1, "publish fails, nothing was accepted"),
    "bus.lost_answer": Kind(0.003, 0.1, "publish fails, and some or all was accepted"),
    "bus.rebalance": Kind(0.2, 6, "a member is thrown out of its group and joins again"),
    "store.refuse": Kind(0.003, 0.1, "a write fails, nothing was done"),
    "store.unreadable": Kind(0.003, 0.1, "a read fails"),
    "store.stall": Kind(0.003, 0.05, "a call takes seconds"),
    "store.lost_answer": Kind(0.003, 0.15, "a write is committed, and then fails"),
    "store.lands_late": Kind(0.003, 0.05, "a write fails, and is committed seconds later"),
    "kv.flush": Kind(0.2, 10, "all keys vanish"),
    "kv.miss": Kind(0.01, 0.3, "a key is not found"),
    "kv.refuse": Kind(0.005, 0.1, "a call fails"),
    "blob.refuse": Kind(0.02, 0.3, "a call fails"),
    "blob.slow": Kind(0.02, 0.3, "a call takes seconds"),
    "blob.lost_answer": Kind(0.02, 0.3, "a blob is stored, and the call fails"),
    "process.kill": Kind(0.2, 6, "a process dies at any await"),
    "process.code": Kind(0.01, 0.7, "user code takes its process along; a probability of one call"),
    "process.poison": Kind(0.05, 0.3, "a visit ends every worker that runs it; a probability of one visit"),
    "process.stop": Kind(0.1, 3, "a process is stopped in order, and comes back"),
    "process.freeze": Kind(0.2, 4, "a process stands still, sometimes past its lease, and wakes"),
    "clock.skew": Kind(1, 1, "clocks are off by seconds or minutes, and drift"),
    "clock.step": Kind(0.2, 4, "a process's wall clock is stepped"),
    "kv.outage": Kind(0.1, 2, "no call, or no write, of the key-value store succeeds for up to five minutes"),
    "blob.outage": Kind(0.1, 2, "no call of the blob store succeeds for up to five minutes"),
}
"""All faults by name."""

DEFAULT_OFF: dict[str, str] = {}
"""Faults that are off unless they are asked for, each with the reason."""

LATER = frozenset({"kv.outage", "blob.outage"})
"""Faults with dice of their own: they were added when the worlds of many seeds were known by what happens in them."""

LONGEST_OUTAGE = 300.0
"""Seconds; many leases."""

DRAWN = 0.35
"""The chance of a fault to be among those of a seed."""


class Options(msgspec.Struct, kw_only=True):
    """What a seed drew. Printed when it fails."""

    rates: dict[str, float]
    shuffled: bool
    """Callbacks of one process run in any order, not in that of asyncio."""
    processes: int
    executors: int
    """Processes that only run user code."""
    tenants: int
    lifetimes: int
    graphs: tuple[int, ...]
    concurrency: int
    """Attempts that one worker runs at a time."""
    latency: float
    """Seconds that a call over the network takes at most; 0: none."""
    session: float
    """Seconds after which the bus gives up a member that is silent."""
    phase: float
    """Virtual seconds with faults."""
    calls: int
    """Calls of user code in one lifetime after which its Plans let it end."""
    failing: float
    """The chance of a call of user code to fail."""
    slow: float
    """The chance of a call of user code to take its time."""
    large: float
    """The chance of a result to be too large for a reference, or for the log."""
    forking: float
    """The chance of what people do to be a fork."""
    actions: float
    """Seconds between two actions of a lifetime's people, about."""
    skews: tuple[tuple[float, float], ...]
    """Offset (s) and drift of each process's clock; the first one is the store's."""
    guarded: bool = False
    """There are policies."""
    reloading: bool = False
    """Policies are loaded while lifetimes run."""
    roles: tuple[tuple[Role, ...], ...] = ()
    """What each process does, where they share the roles; else each of `processes` does everything."""
    hand_over: bool = False
    """References go past the bus where a process has both planes and the key."""
    tenant_rate: float | None = None
    """Executions a second that all executors together begin for a tenant; None: as many as come."""


def draw_options(seed: int, *, graphs: int, without: Iterable[str] = (), only: Iterable[str] | None = None) -> Options:
    """The options of a seed. `without`: faults that are not drawn; `only`: these are, all of them, and no other."""
    dice = Dice(seed, "options")
    rates: dict[str, float] = {}
    chosen = None if only is None else set(only)
    off = set(without) | (set(DEFAULT_OFF) if chosen is None else set())
    calm = dice.chance(0.05)
    for name, kind in FAULTS.items():
        mine = Dice(seed, "options", name) if name in LATER else dice
        drawn, rate = mine.chance(DRAWN), mine.spread(kind.low, kind.high) if kind.high > kind.low else kind.low
        if (drawn and not calm and name not in off) if chosen is None else name in chosen:
            rates[name] = rate
    processes = dice.choice([1, 1, 2, 2, 3])
    lifetimes = dice.choice([1, 1, 1, 2, 2, 3, 4])
    skews = [(0.0, 0.0)] * 6
    if "clock.skew" in rates:
        skews = [(dice.choice([-1, 1]) * dice.spread(0.001, 600), dice.uniform(-2e-4, 2e-4)) for _ in skews]
    return Options(
        rates=rates,
        shuffled=dice.chance(0.4),
        processes=processes,
        executors=dice.choice([0, 0, 0, 1, 2]),
        tenants=dice.choice([1, 1, 1, 2]),
        lifetimes=lifetimes,
        graphs=tuple([dice.randrange(graphs) for _ in range(dice.choice([1, 1, 2]))]),
        concurrency=dice.choice([1, 2, 4, 100]),
        latency=dice.choice([0.0, 0.0, 0.002, 0.05]),
        session=dice.choice([3.0, 10.0, 45.0]),
        # Who dies of poison comes back after a while and dies again, until it is parked.
        phase=dice.spread(5, 300) * (5 if "process.poison" in rates else 1),
        calls=dice.choice([5, 10, 20, 40]),
        failing=dice.choice([0.0, 0.05, 0.15, 0.4]),
        slow=dice.choice([0.0, 0.1, 0.5]),
        large=dice.choice([0.0, 0.0, 0.1, 0.5]),
        forking=dice.choice([0.0, 0.0, 0.0, 0.1, 0.3]),
        actions=dice.spread(0.5, 30),
        skews=tuple(skews),
        guarded=dice.chance(0.5),
        reloading=dice.chance(0.5),
        roles=_shared_roles(seed, processes),
        hand_over=Dice(seed, "hand-over").chance(0.4),
        tenant_rate=Dice(seed, "tenant-rate").choice([None, None, None, None, None, None, 3.0, 20.0]),
    )


def _shared_roles(seed: int, processes: int) -> tuple[tuple[Role, ...], ...]:
    """Every role with some of the processes, in half of the worlds that have several."""
    dice = Dice(seed, "roles")
    if processes == 1 or dice.chance(0.5):
        return ()
    found: list[list[Role]] = [[] for _ in range(processes)]
    for role in sorted(ROLES):
        for slot in dice.sample(range(processes), dice.randint(1, processes)):
            found[slot].append(role)
    return tuple([tuple(roles) for roles in found])


class Faults:
    """Decides, call by call, whether a fault strikes."""

    def __init__(self, seed: int, rates: dict[str, float], trace: Trace) -> None:
        self.dice = Dice(seed, "faults")
        self.fired: Counter[str] = Counter()
        self.on = True
        self.outages: dict[str, float] = {}
        """Until when (virtual seconds) what is out."""
        self.stood_still: set[str] = set()
        """Processes that were ever frozen."""
        self._rates, self._trace = rates, trace

    def strikes(self, name: str, place: str, where: str) -> bool:
        """Whether this fault strikes this call."""
        rate = self._rates.get(name)
        if rate is None or not self.on or self.dice.random() >= rate:
            return False
        self.struck(name, place, where)
        return True

    def struck(self, name: str, place: str, where: str = "") -> None:
        """Counts a fault that was made to strike."""
        self.fired[name] += 1
        self._trace(place, f"! {name} {where}".rstrip())

    def is_out(self, what: str, now: float) -> bool:
        """Whether this part of the world does not answer now."""
        return self.on and now < self.outages.get(what, 0.0)

    def pause_before(self, name: str) -> float | None:
        """Seconds until this fault of a process strikes next; None: it is not among those of this seed."""
        rate = self._rates.get(name)
        return None if rate is None else self.dice.expovariate(rate / 60)
