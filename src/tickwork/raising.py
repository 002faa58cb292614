"""Raising limits: what a person says when a lifetime that a budget paused may go on, checked before it is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import UsageError
from tickwork.model.condition import ConditionError
from tickwork.model.expressions.aggregates import parse_number, shown
from tickwork.model.spending import scale
from tickwork.model.words import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from tickwork.model.expressions import Limit
    from tickwork.orchestrator.guardrails.rules import Rule, Rules
    from tickwork.orchestrator.state import LifetimeState


def raised_limits(state: LifetimeState, rules: Rules, asked: Mapping[str, str]) -> dict[str, str]:
    """The limits that `asked` (policy: number as people write it) raises, by label, as the log keeps them.

    `rules`: those in force from now on. Raises UsageError: no such policy, no single limit in it, not a number, not
    higher than the limit, or used up already.
    """
    found: dict[str, str] = {}
    for name, text in asked.items():
        rule = _rule(rules, name)
        limit = rule.limit
        if limit is None:
            raise UsageError(
                f"policy `{rule.label}` has no single upper limit that could be raised (its condition is "
                f"`{rule.policy.when}`): change the policy, it is loaded without a restart, and resume"
            )
        try:
            number = parse_number(text)
        except ConditionError as error:
            raise UsageError(f"the limit of `{rule.label}` cannot be raised: {error}") from None
        before = state.raised.get(rule.label, limit.number)
        if number <= before:
            raise UsageError(
                f"the limit of `{rule.label}` is {before:,} already; raise it above that, not to {number:,}"
            )
        _not_used_up(state, rule, limit, number)
        found[rule.label] = str(number)
    return found


def _rule(rules: Rules, name: str) -> Rule:
    found = rules.named(name)
    if not found:
        known = [rule.policy.name for rule in rules.all]
        meant = nearest(name, known)
        hint = f"; did you mean `{meant}`?" if meant else f"; in force are: {', '.join(known) or 'none'}"
        raise UsageError(f"no policy `{name}` is in force for this lifetime{hint}")
    if len(found) > 1:
        listed = ", ".join(rule.label for rule in found)
        raise UsageError(f"`{name}` is the name of {len(found)} policies: {listed}; say which")
    return found[0]


def _not_used_up(state: LifetimeState, rule: Rule, limit: Limit, number: Decimal) -> None:
    """What is spent already has to leave room under the new limit, or the lifetime would pause at once again."""
    guard = state.guard
    watch = next((w for w in guard.watches if w.rule.label == rule.label), None) if guard is not None else None
    if watch is None or limit.aggregate.name not in ("sum", "count"):
        return
    counter = watch.counters[rule.expression.aggregates.index(limit.aggregate)]
    amount = counter.amount(0)
    if isinstance(amount, int):
        unit = scale(limit.aggregate.of) if limit.aggregate.of else 1
        if amount >= number * unit:
            spent = shown(limit.aggregate, amount)
            raise UsageError(
                f"{limit.aggregate} is {spent} already: with a limit of {number:,} for `{rule.label}` the lifetime "
                "would stop at once again; raise it further"
            )
