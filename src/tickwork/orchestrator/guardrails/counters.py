"""What the executions of one lifetime used, added up so that a check costs the same however long the lifetime is.

A `Counter` is one aggregate of one rule, with what is reserved for work in flight. `Spent` keeps everything that a
policy could ask for, by node and model, for states that may get other policies later. Pure.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from tickwork.model.spending import CUSTOM, MAX_COUNTERS, SCALES, Unmeasurable, measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwork.model.expressions import Aggregate, Amount
    from tickwork.model.graph import Maximum
    from tickwork.model.records import Execution

MEASURES = tuple(SCALES)
TIMES = ("latency_ms", "queue_ms")


class Tally(msgspec.Struct):
    """One measure over the executions that say something of it."""

    said: int = 0
    amount: int = 0
    high: int = 0
    low: int = 0

    def add(self, value: int) -> None:
        """Counts one more."""
        if not self.said:
            self.high = self.low = value
        elif value > self.high:
            self.high = value
        elif value < self.low:
            self.low = value
        self.said += 1
        self.amount += value

    def merge(self, other: Tally) -> None:
        """Counts all that the other one has."""
        if other.said:
            self.high = max(self.high, other.high) if self.said else other.high
            self.low = min(self.low, other.low) if self.said else other.low
            self.said += other.said
            self.amount += other.amount


class Use(msgspec.Struct):
    """What one record says was used, by measure; and what it says that is no amount."""

    ran: bool
    amounts: dict[str, int]
    faults: dict[str, str]


def measures_of(done: Execution) -> tuple[str, ...]:
    """The measures that a record says something of."""
    used = done.telemetry
    if used is None:
        return TIMES
    return MEASURES + tuple([CUSTOM + name for name in islice(used.custom, MAX_COUNTERS)]) if used.custom else MEASURES


def use_of(done: Execution, measures: Iterable[str], *, ran: bool) -> Use:
    """Measures a record. What cannot be measured counts nothing, and is named in `faults`."""
    use = Use(ran, {}, {})
    for name in measures:
        try:
            if value := measured(done, name):
                use.amounts[name] = value
        except Unmeasurable as fault:
            use.faults[name] = str(fault)
    return use


class Spent(msgspec.Struct):
    """What the executions of one node on one model used."""

    executions: int = 0
    """Attempts that were made."""
    iterations: int = 0
    """The most visits of the node in one branch."""
    measures: dict[str, Tally] = {}

    def add(self, use: Use, iteration: int) -> None:
        """Counts one more record."""
        self.executions += use.ran
        if use.ran:
            self.iterations = max(self.iterations, iteration + 1)
        for name, value in use.amounts.items():
            tally = self.measures.get(name)
            if tally is None:
                tally = self.measures[name] = Tally()
            tally.add(value)


NOTHING = Tally()
"""Of counters that need none; never added to."""


class Counter:
    """How one aggregate of one rule stands, over the nodes and models that the rule matches."""

    __slots__ = ("executions", "level", "name", "of", "reserved", "tally")

    def __init__(self, aggregate: Aggregate) -> None:
        self.name, self.of = aggregate.name, aggregate.of
        self.level = 0
        """Of sum, count, iterations and max: the amount."""
        self.reserved = 0
        """What is in flight may add so much to it."""
        self.executions = 0
        self.tally = NOTHING if aggregate.name in ("sum", "count", "iterations", "elapsed") else Tally()
        """Of avg and min: the measure, over so many executions."""

    def fill(self, node: str, spent: Spent) -> None:
        """Counts what was spent before."""
        tally = spent.measures.get(self.of)
        if self.name == "iterations":
            if node == self.of:
                self.level = max(self.level, spent.iterations)
        elif self.name == "count":
            self.level += spent.executions
        elif self.name == "sum":
            self.level += tally.amount if tally is not None else 0
        else:
            self.executions += spent.executions
            if tally is not None:
                self.tally.merge(tally)
                if self.name == "max":
                    self.level = max(self.level, tally.high)

    def add(self, done: Execution, use: Use) -> None:
        """Counts one more record."""
        if self.name == "sum":
            self.level += use.amounts.get(self.of, 0)
        elif self.name == "count":
            self.level += use.ran
        elif self.name == "iterations":
            if use.ran and done.iteration >= self.level and done.name == self.of:
                self.level = done.iteration + 1
        elif self.name == "max":
            self.executions += use.ran
            if (value := use.amounts.get(self.of, 0)) > self.level:
                self.level = value
        elif self.name != "elapsed":
            self.executions += use.ran
            if (said := use.amounts.get(self.of)) is not None:
                self.tally.add(said)

    def only(self, done: Execution, use: Use) -> Amount:
        """What the aggregate is over this one record, for a policy about single executions."""
        if self.name == "count":
            return 1
        if self.name == "iterations":
            return done.iteration + 1 if done.name == self.of else 0
        if self.name == "elapsed":
            return max(0, done.finished_at - done.created_at)
        value = use.amounts.get(self.of, 0)
        return (value, 1) if self.name == "avg" else value

    def amount(self, elapsed: int) -> Amount:
        """How it stands. `elapsed` in us."""
        name, tally = self.name, self.tally
        if name in ("sum", "count", "iterations"):
            return self.level
        if name == "elapsed":
            return elapsed
        if not self.executions:
            return None
        if name == "avg":
            return (tally.amount, self.executions)
        if name == "max":
            return self.level
        # Who says nothing of a measure used none of it.
        return tally.low if tally.said >= self.executions else 0

    def step(self, node: str, iteration: int, maximum: Maximum) -> int:
        """How much further it would be with all that is in flight recorded, and one more execution of this node."""
        if self.name == "sum":
            return self.reserved + declared(self.of, maximum)
        if self.name == "count":
            return self.reserved + 1
        if self.name == "iterations" and node == self.of:
            return max(0, iteration + 1 - self.level)
        return 0


def share(aggregate: Aggregate, maximum: Maximum) -> int:
    """The part of an aggregate that one execution of a node reserves while it is in flight."""
    if aggregate.name == "sum":
        return declared(aggregate.of, maximum)
    return 1 if aggregate.name == "count" else 0


def declared(measure: str, maximum: Maximum) -> int:
    """The most of a measure that a node's declaration allows, in kept units; 0 when it declares nothing."""
    if measure == "cost_usd":
        return maximum.cost_nano_usd
    if measure in ("tokens_used", "tokens_in", "tokens_out"):
        return maximum.tokens or 0
    return 0
