"""Admission: what a tenant's policies say to dispatches, asked of the ledger in one atomic step a batch.

The ledger knows the totals of all processes, so it is the one thing that the Control Plane asks on its way. It is
asked by exec id, so asking twice is asking once. A refusal is recorded as the verdict; that a dispatch was admitted is
shown by its execution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.spending import EXECUTIONS
from tickwork.orchestrator.guardrails.judging import Verdict, judged, strictest, tenant_amount
from tickwork.ports import OVER, Demand

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from tickwork.model.spending import Total
    from tickwork.orchestrator.guardrails.rules import Rule, Rules
    from tickwork.orchestrator.state import LifetimeState, Visit
    from tickwork.ports import Ledger


class Question(msgspec.Struct):
    """One dispatch to ask about, and the rules that have a say in it."""

    demand: Demand
    rules: tuple[Rule, ...]
    digest: str
    raised: dict[str, Decimal]
    facts: dict[str, Any]
    """What a condition sees as `lifetime`, if one looks at it."""


class Answer(msgspec.Struct):
    """What was said: whether it may be sent, or is over and nothing is to be done, and the verdicts to record."""

    admitted: bool
    over: bool
    verdicts: list[Verdict]


class Admission:
    """Asks the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def question(self, state: LifetimeState, visit: Visit, current: Rules) -> Question | None:
        """What has to be asked before this visit is sent; None: no tenant's policy has a say. `current`: the rules that
        are loaded now."""
        graph, guard = state.topology.graph, state.guard
        node = graph.node[visit.node]
        if guard is not None and guard.rules is current:
            rules, quantities = guard.tenants(visit.node)
        else:
            rules, quantities = current.layout(graph.name, state.labels, graph.node).stations[visit.node].asked
        if not rules:
            return None
        demand = Demand(
            state.tenant_id, state.lifetime_id, visit.exec_id, node.kind, node.name, graph.name, state.labels,
            node.maximum.tokens or 0, node.maximum.cost_nano_usd,
            quantities,
        )  # fmt: skip
        facts = state.facts() if any(rule.expression.reads for rule in rules) else {}
        return Question(demand, rules, current.digest, state.raised, facts)

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Judges and reserves, in this order, in one step."""
        asked = {question.demand.exec_id: question for question in questions}
        said: dict[str, list[Verdict]] = {}

        def judge(demand: Demand, totals: Sequence[Total]) -> Verdict | None:
            said[demand.exec_id] = found = _verdicts(asked[demand.exec_id], totals)
            return strictest(found)

        refusals = await self._ledger.admit([question.demand for question in questions], judge)
        return [
            Answer(refusal is None, refusal is OVER, said.get(question.demand.exec_id, []))
            for question, refusal in zip(questions, refusals, strict=True)
        ]


def _verdicts(question: Question, totals: Sequence[Total]) -> list[Verdict]:
    """What each rule says to a dispatch, as if it were recorded already with the most that it may use."""
    demand = question.demand
    facts = {"lifetime": question.facts}
    found: list[Verdict] = []
    given = iter(totals)
    for rule in question.rules:
        amounts = [
            tenant_amount(aggregate.name, next(given), declared_by(demand, aggregate.of or EXECUTIONS))
            for aggregate in rule.expression.aggregates
        ]
        raised = question.raised.get(rule.label)
        if raised is None and rule.ceiling is not None and amounts[0] <= rule.ceiling:  # type: ignore[operator]  # a sum
            continue
        verdict = judged(rule, amounts, lambda: facts, raised, "dispatch", demand.exec_id, demand.node)
        if verdict is not None:
            found.append(verdict)
    return found


def declared_by(demand: Demand, measure: str) -> int:
    """The most of a measure that this dispatch declares to use."""
    if measure == "cost_usd":
        return demand.cost_nano_usd
    return demand.tokens if measure in ("tokens_used", "tokens_in", "tokens_out") else 0
