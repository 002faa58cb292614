"""Verdicts: what the policies in force say to a record, to a dispatch, to a tenant's totals. Pure.

A `Guard` belongs to the folded state of one lifetime and is advanced with it. It is made when a set comes into force,
from what was spent until then, so it is itself a fold of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.expressions.aggregates import sentence, shown
from tickwork.model.policy import STRICTNESS
from tickwork.model.records import Event
from tickwork.orchestrator.guardrails.counters import Counter
from tickwork.orchestrator.guardrails.stations import ceiling, measures_of_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from decimal import Decimal

    from tickwork.model.expressions import Amount
    from tickwork.model.graph import Node
    from tickwork.model.policy import Action
    from tickwork.model.records import Execution
    from tickwork.model.spending import Quantity, Total
    from tickwork.orchestrator.guardrails.counters import Spent, Use
    from tickwork.orchestrator.guardrails.rules import Rule, Rules

Place = Literal["record", "dispatch"]

VERDICT = "verdict"


class Verdict(msgspec.Struct):
    """One policy that is breached, or cannot be evaluated, and what is done about it."""

    rule: Rule
    at: Place
    exec_id: str
    node: str
    values: dict[str, str]
    """The aggregates that the condition reads, as they were seen, in people's units."""
    reason: str
    """One sentence: what was found."""
    failed: bool = False
    """It could not be evaluated, so it fails closed."""

    @property
    def action(self) -> Action:
        """What is done, unless the policy is in shadow."""
        return "pause_lifetime" if self.failed else self.rule.policy.action

    @property
    def enforced(self) -> bool:
        """Whether something is done, beside the verdict's being recorded."""
        return not self.rule.policy.shadow and self.action != "warn"

    @property
    def sentence(self) -> str:
        """The one line that lists, logs and exit messages show."""
        return f"policy {self.rule.label}: {self.reason}"

    def event(self, digest: str, number: int | str) -> Event:
        """The log's entry. `number` keeps the verdicts apart that one rule gives about one execution; "once": it
        gives one in a lifetime, about whatever comes first."""
        policy = self.rule.policy
        about = number if number == "once" else f"{self.exec_id}:{self.at}:{number}"
        data: dict[str, Any] = {
            "policy": self.rule.label,
            "layer": self.rule.layer,
            "scope": policy.scope,
            "action": self.action,
            "shadow": policy.shadow,
            "digest": digest,
            "exec_id": self.exec_id,
            "node": self.node,
            "at": self.at,
            "values": self.values,
            "reason": self.reason,
        }
        if self.failed:
            data["error"] = self.reason
        return Event(f"{VERDICT}:{self.rule.label}:{about}", "verdict", data)


def strictest(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict whose action is taken; None when none is enforced."""
    enforced = [verdict for verdict in verdicts if verdict.enforced]
    return max(enforced, key=lambda verdict: STRICTNESS[verdict.action], default=None)


class Watch:
    """A rule in force for one lifetime, with its counters."""

    __slots__ = ("ceiling", "counters", "rule", "standing")

    def __init__(self, rule: Rule, counters: list[Counter], ceiling: int | None) -> None:
        self.rule, self.counters = rule, counters
        self.ceiling = ceiling
        """As `stations.ceiling`."""
        self.standing = False
        """Its condition held when it was last judged, and that is recorded."""


class Guard:
    """The rules that concern one lifetime, and how far it is from each."""

    __slots__ = (
        "_calm_dispatches",
        "_calm_records",
        "_counters",
        "_layout",
        "_moves",
        "_nodes",
        "_stations",
        "digest",
        "raised",
        "rules",
        "started_at",
        "watches",
    )

    def __init__(
        self,
        rules: Rules,
        graph: str,
        labels: dict[str, str],
        nodes: Mapping[str, Node],
        spent: Mapping[tuple[str, str], Spent],
        started_at: int,
        raised: Mapping[str, Decimal],
    ) -> None:
        self.rules, self.digest = rules, rules.digest
        self._nodes = nodes
        self.started_at = started_at
        self._layout = layout = rules.layout(graph, labels, nodes)
        self._stations = layout.stations
        self._counters = counters = [Counter(aggregate) for aggregate in layout.aggregates]
        starts = layout.starts
        self.watches = [
            Watch(rule, counters[starts[index] : starts[index + 1]], layout.ceilings[index])
            for index, rule in enumerate(layout.rules)
        ]
        self._moves = 0
        """What moved limits or verdicts so far. While it stands still, what was within its limits still is."""
        self._calm_records: dict[str, int] = {}
        self._calm_dispatches: dict[str, int] = {}
        """By node: how far things had moved when all was found to be within."""
        self.raised: dict[str, Decimal] = {}
        self._raise(raised)
        for (node, model), used in spent.items():
            for index in layout.about(nodes.get(node), node):
                watch = self.watches[index]
                if watch.rule.match.of_model(model):
                    for counter in watch.counters:
                        counter.fill(node, used)

    def _raise(self, raised: Mapping[str, Decimal]) -> None:
        self._moves += 1
        self.raised = dict(raised)
        for watch, plain in zip(self.watches, self._layout.ceilings, strict=True):
            number = raised.get(watch.rule.label) if raised else None
            watch.ceiling = plain if number is None else ceiling(watch.rule, number)

    def reads_result(self, node: str) -> bool:
        """Whether a policy looks at what this node returns."""
        return self._stations[node].reads_result

    def tenants(self, node: str) -> tuple[tuple[Rule, ...], tuple[Quantity, ...]]:
        """The tenant's rules that match a node, and what they add up."""
        return self._stations[node].asked

    def measures(self, done: Execution) -> tuple[str, ...]:
        """What of a record the rules want measured."""
        station = self._stations[done.name]
        return station.measures if done.telemetry is not None else station.times

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def count(self, done: Execution, use: Use) -> None:
        """Adds a record to what the rules count."""
        station = self._stations[done.name]
        counters = self._counters
        if use.amounts or station.iterations or station.modelled:
            self._moves += 1
        if use.amounts:
            for measure, place in station.sums:
                counters[place].level += use.amounts.get(measure, 0)
        if use.ran:
            for place in station.counts:
                counters[place].level += 1
            for place in station.iterations:
                if done.iteration >= counters[place].level:
                    counters[place].level = done.iteration + 1
        for place in station.spreads:
            counters[place].add(done, use)
        if station.modelled:
            model = _model(done)
            for index in station.modelled:
                if self.watches[index].rule.match.of_model(model):
                    for counter in self.watches[index].counters:
                        counter.add(done, use)

    def recorded(self, done: Execution, use: Use, now: int, facts: Callable[[], Mapping[str, Any]]) -> list[Verdict]:
        """Judges a record that was counted. `now` in us; `facts` gives what conditions read of it."""
        station = self._stations[done.name]
        counters, watches, found = self._counters, self.watches, list[Verdict]()
        calm = self._calm_records.get(done.name) == self._moves and not use.faults
        within = True
        for index, place in station.limits if calm else station.all_limits:
            watch = watches[index]
            if counters[place].level > watch.ceiling or use.faults:  # type: ignore[operator]  # these have one
                within = False
                self._judge_record(watch, done, use, now, facts, found)
            elif watch.standing:
                watch.standing = False
        for index in station.timed:
            if now - self.started_at > watches[index].ceiling:  # type: ignore[operator]  # these have one
                self._judge_record(watches[index], done, use, now, facts, found)
        for index in station.others if calm else station.all_others:
            self._judge_record(watches[index], done, use, now, facts, found)
        if not calm and within and not any(watches[index].standing for index in station.still):
            self._calm_records[done.name] = self._moves
        if station.modelled:
            model = _model(done)
            for index in station.modelled:
                if watches[index].rule.match.of_model(model):
                    self._judge_record(watches[index], done, use, now, facts, found)
        if use.faults:
            for rule, wanted in station.tenants:
                fault = next((use.faults[name] for name in wanted if name in use.faults), None)
                if fault is not None and rule.match.of_model(_model(done)):
                    found.append(_unknown(rule, "record", done.exec_id, done.name, fault))
        return found

    def _judge_record(
        self,
        watch: Watch,
        done: Execution,
        use: Use,
        now: int,
        facts: Callable[[], Mapping[str, Any]],
        found: list[Verdict],
    ) -> None:
        rule = watch.rule
        if "result" in rule.expression.reads and done.status != "SUCCEEDED":
            return  # there is none
        alone = rule.policy.scope == "execution"
        if alone:
            amounts = [counter.only(done, use) for counter in watch.counters]
        else:
            amounts = [counter.amount(now - self.started_at) for counter in watch.counters]
        fault = None
        if use.faults:
            fault = next((use.faults[name] for name in measures_of_rule(rule) if name in use.faults), None)
        verdict = self._judge(watch, "record", done.exec_id, done.name, amounts, facts, fault)
        if verdict is not None and (alone or self._news(watch, verdict)):
            found.append(verdict)

    def overdue(self, now: int) -> list[Verdict]:
        """Judges the rules about elapsed time when nothing is recorded: `now` in us."""
        found = []
        for watch in self.watches:
            if not watch.rule.before_dispatch or not any(c.name == "elapsed" for c in watch.counters):
                continue
            amounts = [counter.amount(now - self.started_at) for counter in watch.counters]
            verdict = self._judge(watch, "record", "", "", amounts, dict, None)
            if verdict is not None and self._news(watch, verdict):
                found.append(verdict)
        return found

    def deadlines(self) -> list[tuple[str, int]]:
        """When (us) each rule that is nothing but a limit of elapsed time is to be looked at, by its label."""
        found = []
        for watch in self.watches:
            limit = watch.rule.limit
            if limit is not None and limit.aggregate.name == "elapsed" and watch.rule.expression.single:
                seconds = self.raised.get(watch.rule.label, limit.number)
                found.append((watch.rule.label, self.started_at + int(seconds * 1_000_000) + 1))
        return found

    # -- what is about to be sent out ---------------------------------------------------------------------------------

    def dispatched(
        self, exec_id: str, node: str, iteration: int, now: int, facts: Callable[[], Mapping[str, Any]]
    ) -> list[Verdict]:
        """Judges a dispatch as if all that is in flight, and it too, were recorded with the most they may use."""
        station = self._stations[node]
        counters, watches = self._counters, self.watches
        near: list[int] = []
        calm = self._calm_dispatches.get(node) == self._moves
        for index, place, part in station.budgets if calm else station.all_budgets:
            watch, counter = watches[index], counters[place]
            if counter.level + counter.reserved + part > watch.ceiling:  # type: ignore[operator]  # these have one
                near.append(index)
            elif watch.standing:
                watch.standing = False
        if not calm and not near:
            self._calm_dispatches[node] = self._moves
        for index, place in station.turns:
            watch = watches[index]
            if max(counters[place].level, iteration + 1) > watch.ceiling:  # type: ignore[operator]  # these have one
                near.append(index)
            elif watch.standing:
                watch.standing = False
        for index in station.clocks:
            watch = watches[index]
            if now - self.started_at > watch.ceiling:  # type: ignore[operator]  # these have one
                near.append(index)
            elif watch.standing:
                watch.standing = False
        if not near and not station.weighed:
            return []
        asked = [watches[index] for index in sorted([*near, *station.weighed])]
        return self._weighed(asked, exec_id, node, iteration, now, facts)

    def _weighed(
        self,
        watches: Sequence[Watch],
        exec_id: str,
        node: str,
        iteration: int,
        now: int,
        facts: Callable[[], Mapping[str, Any]],
    ) -> list[Verdict]:
        """The verdicts of these rules over a dispatch, by their conditions."""
        maximum = self._nodes[node].maximum
        found: list[Verdict] = []
        for watch in watches:
            amounts: list[Amount] = [
                now - self.started_at if c.name == "elapsed" else c.level + c.step(node, iteration, maximum)
                for c in watch.counters
            ]
            verdict = self._judge(watch, "dispatch", exec_id, node, amounts, facts, None)
            if verdict is not None and self._news(watch, verdict):
                found.append(verdict)
        return found

    def reserve(self, node: str, times: int = 1) -> None:
        """Reserves the most that one execution of this node may use; `times` -1: gives it back."""
        station = self._stations[node]
        if station.reserves:
            self._moves += 1
        for place, part in station.shares:
            self._counters[place].reserved += times * part

    def settle_anew(self, raised: Mapping[str, Decimal]) -> None:
        """Somebody has looked and lets the lifetime go on: what stood is judged again, under the limits given now."""
        self._raise({**self.raised, **raised})
        for watch in self.watches:
            watch.standing = False

    # -- one rule -----------------------------------------------------------------------------------------------------

    def _judge(
        self,
        watch: Watch,
        at: Place,
        exec_id: str,
        node: str,
        amounts: Sequence[Amount],
        facts: Callable[[], Mapping[str, Any]],
        fault: str | None,
    ) -> Verdict | None:
        rule = watch.rule
        if fault is not None:
            return _unknown(rule, at, exec_id, node, fault)
        verdict = judged(rule, amounts, facts, self.raised.get(rule.label), at, exec_id, node)
        if verdict is None:
            watch.standing = False
        return verdict

    def _news(self, watch: Watch, verdict: Verdict) -> bool:
        """Whether this has to be recorded: what only says so again is not, what is done again is.

        Over a budget nothing more is sent out, so its pause needs no repetition; a pause over a record is about that
        record, and each one that cannot be evaluated fails closed.
        """
        standing, watch.standing = watch.standing, True
        self._moves += 1
        if not standing or not verdict.enforced:
            return not standing
        return verdict.failed or verdict.action != "pause_lifetime" or not watch.rule.before_dispatch


def judged(
    rule: Rule,
    amounts: Sequence[Amount],
    facts: Callable[[], Mapping[str, Any]],
    raised: Decimal | None,
    at: Place,
    exec_id: str,
    node: str,
) -> Verdict | None:
    """The verdict of one rule; None when its condition does not hold."""
    expression = rule.expression
    try:
        if not expression.holds(amounts, facts, raised):
            return None
    except (TickworkError, msgspec.MsgspecError, ValueError, RecursionError) as error:  # also: a result that is no JSON
        return Verdict(rule, at, exec_id, node, _values(rule, amounts), f"it cannot be evaluated: {error}", failed=True)
    reason = sentence(expression, amounts, raised, ahead=at == "dispatch")
    return Verdict(rule, at, exec_id, node, _values(rule, amounts), reason)


def _unknown(rule: Rule, at: Place, exec_id: str, node: str, fault: str) -> Verdict:
    return Verdict(rule, at, exec_id, node, {}, f"it cannot be evaluated: {fault}", failed=True)


def _model(done: Execution) -> str:
    return (done.telemetry.model if done.telemetry is not None else None) or ""


def _values(rule: Rule, amounts: Sequence[Amount]) -> dict[str, str]:
    aggregates = rule.expression.aggregates
    return {str(aggregate): shown(aggregate, amount) for aggregate, amount in zip(aggregates, amounts, strict=True)}


def tenant_amount(name: str, total: Total, declared: int) -> Amount:
    """How an aggregate of a tenant's rule would stand with this dispatch recorded, too, and all that is in flight."""
    if name == "sum":
        return total.amount + total.reserved + declared
    if name == "count":
        return total.executions + total.reserved_executions + 1
    return (total.amount, total.executions) if total.executions else None
