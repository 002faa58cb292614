"""What the rules have to do with each node of a graph, worked out once for all its lifetimes. Pure.

Most rules are upper limits of what only grows, and most of the time they are kept. So each amount that is kept count of
has a bar, the greatest that is within the limits on it: while no amount is over its bar none of these rules can hold,
and none has to be asked. The others are asked each time. Amounts and bars stand at places in lists of the lifetime.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from tickwork.model.expressions.aggregates import scale_of
from tickwork.model.graph import Maximum
from tickwork.orchestrator.guardrails.counters import TIMES, WIDTHS, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from tickwork.model.expressions import Aggregate, Limit
    from tickwork.model.graph import Node
    from tickwork.model.records import Execution
    from tickwork.orchestrator.guardrails.rules import Rule

FAR = 1 << 256
"""A bar that nothing gets over."""

MODELS = 256
"""Models of a node whose Moves are remembered: a worker may name any."""

ALONE = ("sum", "max", "min", "avg")
"""What an aggregate over one single record is: the amount that the record says."""

GROWING = ("sum", "count", "iterations", "max", "avg", "elapsed")
"""What passes an upper limit only by a record, a dispatch or a time that is over it. An average is no more than its
limit as long as no record is."""


class Layout:
    """The rules that concern lifetimes with some labels, and where the amounts stand that they need."""

    __slots__ = ("_tenants", "bars", "clocks", "counted", "first", "growing", "levels", "means", "nodes", "rules",
                 "size", "stations", "tense", "timed")  # fmt: skip

    def __init__(self, rules: Sequence[Rule], tenants: Sequence[Rule], nodes: Mapping[str, Node]) -> None:
        self.rules = tuple(rules)
        self._tenants = tuple(tenants)
        self.nodes = nodes
        self.size = 0
        counted: list[tuple[tuple[Aggregate, int], ...]] = []
        for rule in rules:
            mine = []
            for aggregate in rule.expression.aggregates:
                mine.append((aggregate, self.size))
                self.size += WIDTHS[aggregate.name]
            counted.append(tuple(mine))
        self.counted = tuple(counted)
        """The aggregates of each rule, and where their amounts begin."""
        self.growing = tuple([index for index, rule in enumerate(rules) if grows(rule)])
        """Rules that need not be asked while nothing is over a bar."""
        barred = [(each, place) for index in self.growing for each, place in self.counted[index]
                  if rules[index].policy.scope == "lifetime"]  # fmt: skip
        self.means = tuple([place for each, place in barred if each.name == "avg"])
        self.clocks = tuple([place for each, place in barred if each.name == "elapsed"])
        self.levels = tuple([place for each, place in barred if each.name not in ("avg", "elapsed")])
        self.bars = tuple(self.raised({}))
        self.timed = tuple([rule for rule in rules if rule.due(0) is not None])
        """Rules that are nothing but limits of elapsed time."""
        self.first = min([self.bars[place] for place in self.clocks], default=FAR)
        """How long (us) a lifetime may take before it is over a bar."""
        self.tense = any(self.bars[place] < 0 for place in self.levels)
        """Whether one that has used nothing is over a bar."""
        self.stations = Stations(self)

    def raised(self, raised: Mapping[str, Decimal]) -> list[int]:
        """The bars, under the limits as they were raised."""
        bars = [FAR] * self.size
        for index in self.growing:
            rule = self.rules[index]
            number = raised.get(rule.label)
            place_of = dict(self.counted[index])
            for limit in rule.expression.limits:
                place = place_of[limit.aggregate]
                bars[place] = min(bars[place], ceiling(limit, number))
        return bars

    def about(self, node: Node | None, name: str) -> list[int]:
        """The rules that match a node."""
        kind = node.kind if node is not None else ""
        return [index for index, rule in enumerate(self.rules) if rule.match.node(kind, name)]

    def tenants(self, node: Node | None, name: str) -> tuple[tuple[Rule, tuple[str, ...]], ...]:
        """The tenant's rules that match a node, with what they add up."""
        kind = node.kind if node is not None else ""
        return tuple([(rule, measures_of_rule(rule)) for rule in self._tenants if rule.match.node(kind, name)])


class Stations(dict[str, "Station"]):
    """What there is to do, by node: worked out when it is first asked for."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout

    def __missing__(self, name: str) -> Station:
        found = self[name] = Station(self._layout, self._layout.nodes.get(name), name)
        return found


class Station:
    """What there is to do at one node."""

    __slots__ = ("_about", "_choosy", "_layout", "_moves", "_name", "_plain", "asked", "budgets", "measures",
                 "reads_result", "shares", "tenants", "times", "turns", "weighed")  # fmt: skip

    def __init__(self, layout: Layout, node: Node | None, name: str) -> None:
        maximum = node.maximum if node is not None else Maximum()
        rules = layout.rules
        self._layout, self._name = layout, name
        self._about = about = layout.about(node, name)
        self._moves: dict[str, Moves] = {}
        self._choosy = any(rules[index].match.model for index in about)
        self._plain = self._moves_of("")
        """What a record moves that names no model; or any, when no rule looks at it."""
        self.tenants = layout.tenants(node, name)
        """The tenant's rules, with what they add up: the ledger judges them; what it cannot add up is seen here."""
        self.asked = (
            tuple([rule for rule, _ in self.tenants]),
            tuple([quantity for rule, _ in self.tenants for quantity in rule.quantities]),
        )
        """The tenant's rules once more, with the totals that the ledger has to give for them."""
        measures = [measure for index in about for measure in measures_of_rule(rules[index])]
        measures += [measure for _, wanted in self.tenants for measure in wanted]
        self.measures = tuple(dict.fromkeys(measures))
        """What of a record is to be measured; `times` of one without telemetry."""
        self.times = tuple([measure for measure in self.measures if measure in TIMES])
        self.reads_result = any("result" in rules[index].expression.reads for index in about)
        self.budgets = tuple([i for i in about if rules[i].before_dispatch and rules[i].policy.scope != "execution"])
        """Rules that are judged before the node is sent out."""
        self.weighed = tuple([index for index in self.budgets if index not in layout.growing])
        """Those that have to be asked each time."""
        counted = [pair for index in about for pair in layout.counted[index]]
        self.shares = tuple([(place, part) for each, place in counted if (part := share(each, maximum))])
        """What one execution reserves while it is in flight."""
        budgeted = {place for index in self.budgets for _, place in layout.counted[index]}
        self.turns = tuple([
            place for each, place in counted
            if place in budgeted and each.name == "iterations" and each.of == name
        ])  # fmt: skip
        """Amounts that are the visits of this very node."""

    def moves(self, done: Execution) -> Moves:
        """What a record of this node moves."""
        if not self._choosy or done.telemetry is None or not done.telemetry.model:
            return self._plain
        return self._moves.get(done.telemetry.model) or self._moves_of(done.telemetry.model)

    def _moves_of(self, model: str) -> Moves:
        if len(self._moves) >= MODELS:
            self._moves.clear()
        rules = self._layout.rules
        mine = [index for index in self._about if rules[index].match.of_model(model)]
        found = self._moves[model] = Moves(self._layout, mine, self._name)
        return found


class Moves:
    """What a record moves, and who looks at it."""

    __slots__ = ("asked", "attempts", "looked", "measured", "sizes", "turns")

    def __init__(self, layout: Layout, mine: Sequence[int], name: str) -> None:
        self.looked = tuple(sorted(mine, key=lambda index: _turn(layout.rules[index])))
        """All rules that judge a record, in the order of their verdicts."""
        self.asked = tuple([index for index in self.looked if index not in layout.growing])
        """Those that have to be asked each time."""
        self.attempts: tuple[int, ...] = ()
        """Places that count attempts."""
        self.sizes: tuple[int, ...] = ()
        """Places that count the attempts which an average, a maximum or a minimum is over."""
        self.turns: tuple[int, ...] = ()
        """Places that hold the most visits of this very node."""
        self.measured: dict[str, Measured] = {}
        """What an amount of each measure moves."""
        alone = {index for index in mine if layout.rules[index].policy.scope == "execution"}
        for index in mine:
            for each, place in layout.counted[index]:
                if each.name == "count":
                    self.attempts += (place,)
                elif each.name == "iterations":
                    self.turns += (place,) if each.of == name else ()
                elif each.name != "elapsed":
                    self.sizes += (place + 1,) if WIDTHS[each.name] > 1 else ()
                    self.measured.setdefault(each.of, Measured()).take(each, place, alone=index in alone)


class Measured:
    """What an amount of one measure is added to (`sums`; `means`: and compared with the bar by itself), and what it may
    be the greatest or the least of."""

    __slots__ = ("highs", "lows", "means", "sums")

    def __init__(self) -> None:
        self.sums: tuple[int, ...] = ()
        self.means: tuple[int, ...] = ()
        self.highs: tuple[int, ...] = ()
        self.lows: tuple[int, ...] = ()

    def take(self, aggregate: Aggregate, place: int, *, alone: bool) -> None:
        """Notes an aggregate of this measure. `alone`: it is judged over single records."""
        if aggregate.name == "max":
            self.highs += (place,)
        elif aggregate.name == "min":
            self.lows += (place,)
        elif aggregate.name == "avg" or alone:
            self.means += (place,)
        else:
            self.sums += (place,)


def model_of(done: Execution) -> str:
    """The model that a record names ("": none)."""
    return (done.telemetry.model if done.telemetry is not None else None) or ""


def _turn(rule: Rule) -> int:
    """When a rule has its say about a record: plain limits first, those of time next, those of models last."""
    if rule.match.model:
        return 3
    single = rule.expression.single and grows(rule) and rule.policy.scope != "execution"
    if not single or rule.expression.aggregates[0].name == "avg":
        return 2
    return 1 if rule.expression.aggregates[0].name == "elapsed" else 0


def grows(rule: Rule) -> bool:
    """Whether it cannot hold as long as every amount is within its limit, and amounts only grow."""
    if not rule.expression.upper:
        return False
    known = ALONE if rule.policy.scope == "execution" else GROWING
    return all(aggregate.name in known for aggregate in rule.expression.aggregates)


def ceiling(limit: Limit, raised: Decimal | None = None) -> int:
    """The greatest amount, in kept units, that is within an upper limit; `raised` takes the place of its number."""
    number = (raised if raised is not None else limit.number) * scale_of(limit.aggregate)
    return floor(number) if limit.comparison == ">" else ceil(number) - 1


def measures_of_rule(rule: Rule) -> tuple[str, ...]:
    """What a rule adds up."""
    return tuple([each.of for each in rule.expression.aggregates if each.of and each.name != "iterations"])
