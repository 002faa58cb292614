"""What the executions of one lifetime used, added up so that a check costs the same however long the lifetime is.

A `Counter` shows one aggregate of one rule, with what is reserved for work in flight. `Spent` keeps everything that a
policy could ask for, by node and model, for states that may get other policies later. Pure.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from tickwork.model.spending import CUSTOM, MAX_COUNTERS, SCALES, Unmeasurable, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.expressions import Aggregate, AggregateName, Amount
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


class Use(msgspec.Struct):
    """What one record says was used, by measure; and what it says that is no amount."""

    ran: bool
    amounts: dict[str, int]
    faults: dict[str, str]


NOTHING_USED = (Use(False, {}, {}), Use(True, {}, {}))
"""Of records that nobody wants measured; by whether they ran."""


def measures_of(done: Execution) -> tuple[str, ...]:
    """The measures that a record says something of."""
    used = done.telemetry
    if used is None:
        return TIMES
    return MEASURES + tuple([CUSTOM + name for name in islice(used.custom, MAX_COUNTERS)]) if used.custom else MEASURES


def use_of(done: Execution, measures: Sequence[str], *, ran: bool) -> Use:
    """Measures a record. What cannot be measured counts nothing, and is named in `faults`."""
    if not measures:
        return NOTHING_USED[ran]
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
"""Of measures that nobody says anything of; never added to."""

WIDTHS: dict[AggregateName, int] = {
    "sum": 1, "count": 1, "iterations": 1, "elapsed": 1, "max": 2, "avg": 2, "min": 3,
}  # fmt: skip
"""How many amounts are kept for an aggregate: its own; of max, avg and min the number of attempts that were made; of
min the number of records that say something of the measure."""


class Counter:
    """How one aggregate of one rule stands, over the nodes and models that the rule matches: a place in the lists of a
    lifetime."""

    __slots__ = ("_held", "_levels", "_place", "name", "of")

    def __init__(self, aggregate: Aggregate, place: int, levels: list[int], held: list[int]) -> None:
        self.name, self.of = aggregate.name, aggregate.of
        self._place, self._levels, self._held = place, levels, held

    @property
    def reserved(self) -> int:
        """What is in flight may add so much to it."""
        return self._held[self._place]

    def fill(self, node: str, spent: Spent) -> None:
        """Counts what was spent before."""
        levels, place, tally = self._levels, self._place, spent.measures.get(self.of, NOTHING)
        if self.name == "iterations":
            if node == self.of:
                levels[place] = max(levels[place], spent.iterations)
        elif self.name == "count":
            levels[place] += spent.executions
        elif self.name in ("sum", "avg"):
            levels[place] += tally.amount
        elif self.name == "max":
            levels[place] = max(levels[place], tally.high)
        elif self.name == "min" and tally.said:
            add_low(levels, place, tally.low, tally.said)
        if WIDTHS[self.name] > 1:
            levels[place + 1] += spent.executions

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
        name, levels, place = self.name, self._levels, self._place
        if name == "elapsed":
            return elapsed
        if WIDTHS[name] == 1:
            return levels[place]
        attempts = levels[place + 1]
        if not attempts:
            return None
        if name == "avg":
            return (levels[place], attempts)
        # Who says nothing of a measure used none of it.
        return 0 if name == "min" and levels[place + 2] < attempts else levels[place]

    def ahead(self, node: str, iteration: int, maximum: Maximum, elapsed: int) -> int:
        """How it would stand with all that is in flight recorded, and one more execution of this node."""
        if self.name == "elapsed":
            return elapsed
        level = self._levels[self._place]
        if self.name == "sum":
            return level + self.reserved + declared(self.of, maximum)
        if self.name == "count":
            return level + self.reserved + 1
        return max(level, iteration + 1) if node == self.of else level


def add_low(levels: list[int], place: int, low: int, said: int) -> None:
    """Counts records that say at least `low` of a measure, for the least of all."""
    levels[place] = min(levels[place], low) if levels[place + 2] else low
    levels[place + 2] += said


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
