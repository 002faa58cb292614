"""What the rules have to do with each node of a graph, worked out once for all its lifetimes. Pure.

A lifetime then only walks along short tuples: which of its counters a record moves, which of its limits it may have
passed, what a dispatch reserves. Watches and counters are named by their places in the lifetime's lists.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from tickwork.model.expressions.aggregates import scale_of
from tickwork.model.graph import Maximum
from tickwork.orchestrator.guardrails.counters import TIMES, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from tickwork.model.expressions import Aggregate
    from tickwork.model.graph import Node
    from tickwork.orchestrator.guardrails.rules import Rule

SPREADS = ("max", "min", "avg")


class Layout:
    """The rules that concern lifetimes with some labels, and the counters that they need, one behind the other."""

    __slots__ = ("_tenants", "aggregates", "ceilings", "nodes", "rules", "starts", "stations")

    def __init__(self, rules: Sequence[Rule], tenants: Sequence[Rule], nodes: Mapping[str, Node]) -> None:
        self.rules = tuple(rules)
        self._tenants = tuple(tenants)
        self.nodes = nodes
        self.aggregates: tuple[Aggregate, ...] = tuple([a for rule in rules for a in rule.expression.aggregates])
        self.starts: list[int] = [0]
        """Where the counters of each rule begin; one more, for the end."""
        for rule in rules:
            self.starts.append(self.starts[-1] + len(rule.expression.aggregates))
        self.ceilings = tuple([rule.ceiling for rule in rules])
        self.stations = Stations(self)

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

    __slots__ = (
        "all_budgets",
        "all_limits",
        "all_others",
        "asked",
        "budgets",
        "clocks",
        "counts",
        "iterations",
        "limits",
        "measures",
        "modelled",
        "others",
        "reads_result",
        "reserves",
        "shares",
        "spreads",
        "still",
        "sums",
        "tenants",
        "timed",
        "times",
        "turns",

        "weighed",
    )  # fmt: skip

    def __init__(self, layout: Layout, node: Node | None, name: str) -> None:
        maximum = node.maximum if node is not None else Maximum()
        about = layout.about(node, name)
        rules = layout.rules
        plain = [index for index in about if not rules[index].match.model]
        self.modelled = tuple([index for index in about if rules[index].match.model])
        """Rules that count, and look at, executions of some models alone."""
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
        places = [place for index in plain for place in range(layout.starts[index], layout.starts[index + 1])]
        at = [(layout.aggregates[place], place) for place in places]
        self.sums = tuple([(aggregate.of, place) for aggregate, place in at if aggregate.name == "sum"])
        self.counts = tuple([place for aggregate, place in at if aggregate.name == "count"])
        self.iterations = tuple([p for a, p in at if a.name == "iterations" and a.of == name])
        self.spreads = tuple([place for aggregate, place in at if aggregate.name in SPREADS])
        limited = [index for index in plain if layout.ceilings[index] is not None]
        self.all_limits = tuple([
            (index, layout.starts[index]) for index in limited if _first(layout, index).name != "elapsed"
        ])  # fmt: skip
        """Rules that are nothing but an upper limit, with their counter: seen at a glance."""
        self.limits = tuple([each for each in self.all_limits if layout.aggregates[each[1]].name != "sum"])
        """Those that any record may move; sums are moved by what is used alone."""
        self.reserves = any(aggregate.name == "sum" and share(aggregate, maximum) for aggregate in layout.aggregates)
        self.timed = tuple([index for index in limited if _first(layout, index).name == "elapsed"])
        """Those of time."""
        self.all_others = tuple([index for index in plain if layout.ceilings[index] is None])
        self.others = tuple([index for index in self.all_others if not _only_sums(rules[index])])
        sums = [index for index, place in self.all_limits if layout.aggregates[place].name == "sum"]
        self.still = (*sums, *[index for index in self.all_others if _only_sums(rules[index])])
        """Rules that need not be looked at while nothing has moved."""
        budgets = [i for i in about if rules[i].before_dispatch and rules[i].policy.scope != "execution"]
        single = [
            (index, layout.starts[index], _first(layout, index))
            for index in budgets
            if layout.ceilings[index] is not None
        ]
        parts = [
            (index, place, share(aggregate, maximum))
            for index, place, aggregate in single
            if aggregate.name in ("sum", "count") or (aggregate.name == "iterations" and aggregate.of != name)
        ]
        self.all_budgets = tuple(parts)
        """Rules that are judged before the node is sent out: upper limits, with what one more execution adds."""
        self.budgets = tuple([each for each in parts if each[2]])
        """Those that it adds something to; the rest is as it was when nothing else has moved it."""
        self.turns = tuple([(i, place) for i, place, a in single if a.name == "iterations" and a.of == name])
        """Upper limits of the visits of this very node."""
        seen = {index for index, *_ in (*parts, *self.turns)} | set(self.timed)
        self.weighed = tuple([index for index in budgets if index not in seen])
        """The rest of them."""
        self.clocks = tuple([index for index in budgets if index in self.timed])
        shares = [
            (place, share(layout.aggregates[place], maximum))
            for index in about
            for place in range(layout.starts[index], layout.starts[index + 1])
        ]
        self.shares = tuple([(place, part) for place, part in shares if part])
        """What one execution reserves while it is in flight."""


def ceiling(rule: Rule, raised: Decimal | None) -> int | None:
    """The greatest amount, in kept units, that is within a rule which is nothing but an upper limit; else None.

    Most rules are such limits, and most of the time they are kept: that is found without asking the condition.
    """
    limit = rule.limit
    if limit is None or not rule.expression.single or rule.policy.scope == "execution":
        return None
    if limit.aggregate.name not in ("sum", "count", "iterations", "max", "elapsed"):
        return None
    number = (raised if raised is not None else limit.number) * scale_of(limit.aggregate)
    return floor(number) if limit.comparison == ">" else ceil(number) - 1


def measures_of_rule(rule: Rule) -> tuple[str, ...]:
    """What a rule adds up."""
    return tuple([each.of for each in rule.expression.aggregates if each.of and each.name != "iterations"])


def _first(layout: Layout, index: int) -> Aggregate:
    return layout.aggregates[layout.starts[index]]


def _only_sums(rule: Rule) -> bool:
    expression = rule.expression
    scope = rule.policy.scope
    return scope == "lifetime" and not expression.reads and all(each.name == "sum" for each in expression.aggregates)
