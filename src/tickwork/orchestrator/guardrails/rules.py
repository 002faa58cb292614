"""A PolicySet ready to be judged: conditions compiled, and for each lifetime those that concern it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.model.expressions import before_dispatch, compile_expression, raisable
from tickwork.model.policy import PolicySet
from tickwork.model.spending import EXECUTIONS, Quantity
from tickwork.model.windows import first_minute
from tickwork.orchestrator.guardrails.stations import Layout, ceiling

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from tickwork.model.expressions import Aggregate, Limit
    from tickwork.model.graph import Node
    from tickwork.model.policy import Layered

LAYOUTS = 256
"""Layouts that a set remembers."""


class Rule:
    """One policy of a set, compiled."""

    __slots__ = ("before_dispatch", "ceiling", "expression", "label", "layer", "limit", "match", "policy", "quantities")

    def __init__(self, layered: Layered) -> None:
        policy = layered.policy
        self.label = layered.label
        self.layer = layered.layer
        self.policy = policy
        self.match = policy.match
        self.expression = compile_expression(policy.engine, policy.when, policy.scope)
        first_minute(policy.window, 0)  # a time zone that this machine does not know is found now
        self.before_dispatch = before_dispatch(self.expression)
        """Whether it is judged before something is sent out; else only over what is recorded."""
        self.limit: Limit | None = raisable(self.expression)
        plain = self.limit is not None and self.expression.single and self.limit.aggregate.name in ("sum", "count")
        self.ceiling = ceiling(self.limit) if plain and self.limit is not None else None
        """Of a tenant's rule that is nothing but an upper limit of a sum or a count: the greatest amount within it, in
        kept units."""
        self.quantities = tuple([self._quantity(aggregate) for aggregate in self.expression.aggregates])
        """For a tenant's policy: what each aggregate adds up."""

    def _quantity(self, aggregate: Aggregate) -> Quantity:
        return Quantity(aggregate.of or EXECUTIONS, self.match, self.policy.window)

    def due(self, started_at: int, raised: Decimal | None = None) -> int | None:
        """When (us) a rule that is nothing but a limit of elapsed time is to be looked at; None: it is another."""
        if self.limit is None or self.limit.aggregate.name != "elapsed" or not self.expression.single:
            return None
        seconds = self.limit.number if raised is None else raised
        return started_at + int(seconds * 1_000_000) + 1

    def concerns(self, graph: str, labels: dict[str, str]) -> bool:
        """Whether it is about lifetimes of this graph with these labels."""
        return self.match.lifetime(graph, labels)


class Rules:
    """A compiled PolicySet. Raises ConditionError, MissingExtra for a set that does not compile."""

    __slots__ = ("_choosy", "_layouts", "digest", "policies", "run", "tenants", "timed", "within")

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self.digest = policies.digest
        found = [Rule(layered) for layered in policies.policies]
        self.within = tuple([rule for rule in found if rule.policy.scope != "tenant"])
        """Those of the scopes `execution` and `lifetime`, judged by the fold."""
        self.timed = tuple([rule for rule in self.within if rule.due(0) is not None])
        """Those that are nothing but limits of elapsed time."""
        self.tenants = tuple([rule for rule in found if rule.policy.scope == "tenant"])
        """Those that are judged with the tenant's totals, before a dispatch."""
        self.run = PolicySet(policies=tuple([layered for layered in policies.policies if layered.layer == "run"]))
        """What was given to one lifetime alone, and stays with it when the others are loaded anew."""

        self._choosy = any(rule.match.graph or rule.match.labels for rule in found)
        self._layouts: dict[tuple[int, tuple[bool, ...]], Layout] = {}

    def layout(self, graph: str, labels: dict[str, str], nodes: Mapping[str, Node]) -> Layout:
        """The rules for lifetimes of a graph with these labels, laid out over its nodes."""
        concerned = tuple([rule.concerns(graph, labels) for rule in self.all]) if self._choosy else ()
        key = (id(nodes), concerned)  # the layout holds the nodes, so their id stays theirs
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            within = [rule for rule in self.within if rule.concerns(graph, labels)]
            tenants = [rule for rule in self.tenants if rule.concerns(graph, labels)]
            found = self._layouts[key] = Layout(within, tenants, nodes)
        return found

    @property
    def all(self) -> tuple[Rule, ...]:
        """All rules, of the layers' order within each half."""
        return self.within + self.tenants

    def named(self, name: str) -> list[Rule]:
        """The rules with this label, or, without a layer, with this name."""
        return [rule for rule in self.all if name in (rule.label, rule.policy.name)]
