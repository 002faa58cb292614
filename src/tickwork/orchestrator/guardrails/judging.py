"""Verdicts: what the policies in force say to a record, to a dispatch, to a tenant's totals. Pure.

A `Guard` belongs to the folded state of one lifetime and is advanced with it. It is made when a set comes into force,
from what was spent until then, so it is itself a fold of the log.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.expressions.aggregates import scale_of, sentence, shown
from tickwork.model.graph import Maximum
from tickwork.model.policy import STRICTNESS
from tickwork.model.records import Event
from tickwork.orchestrator.guardrails.counters import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from decimal import Decimal

    from tickwork.model.expressions import Amount
    from tickwork.model.graph import Node
    from tickwork.model.policy import Action
    from tickwork.model.records import Execution
    from tickwork.model.spending import Total
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

    __slots__ = ("ceiling", "counters", "measures", "rule", "standing")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.counters = [Counter(aggregate) for aggregate in rule.expression.aggregates]
        self.measures = _measures(rule)
        self.standing = False
        """Its condition held when it was last judged, and that is recorded."""
        self.ceiling: int | None = None
        """Of a rule that is nothing but an upper limit: the greatest amount, in kept units, that is still within it.
        Most rules are, and most of the time they are kept; so that is found without asking the condition."""

    def set_ceiling(self, raised: Decimal | None) -> None:
        """Works the ceiling out, from the limit as it is now."""
        limit = self.rule.limit
        whole = limit is not None and self.rule.expression.single
        if limit is None or not whole or self.rule.policy.scope == "execution":
            return
        if limit.aggregate.name not in ("sum", "count", "iterations", "max", "elapsed"):
            return
        number = (raised if raised is not None else limit.number) * scale_of(limit.aggregate)
        self.ceiling = floor(number) if limit.comparison == ">" else ceil(number) - 1


class Station:
    """What the rules that match one node have to do with it, worked out once."""

    __slots__ = ("budgets", "counted", "limits", "measures", "modelled", "others", "shares", "tenants", "timed")

    def __init__(self, watches: Sequence[Watch], tenants: Sequence[Rule], maximum: Maximum) -> None:
        self.modelled = tuple([watch for watch in watches if watch.rule.match.model])
        """They count, and look at, executions of some models alone."""
        plain = [watch for watch in watches if not watch.rule.match.model]
        self.counted = tuple([counter for watch in plain for counter in watch.counters if counter.name != "elapsed"])
        self.tenants = tuple([(rule, _measures(rule)) for rule in tenants])
        """The tenant's rules, with what they add up: the ledger judges them; what it cannot add up is seen here."""
        wanted = [measure for watch in watches for measure in watch.measures]
        wanted += [measure for _, measures in self.tenants for measure in measures]
        self.measures = tuple(dict.fromkeys(wanted))
        limits = [(watch, watch.counters[0]) for watch in plain if watch.ceiling is not None]
        self.limits = tuple([(watch, counter) for watch, counter in limits if counter.name != "elapsed"])
        """Rules that are upper limits: seen at a glance."""
        self.timed = tuple([watch for watch, counter in limits if counter.name == "elapsed"])
        """Those of time."""
        self.others = tuple([watch for watch in plain if watch.ceiling is None])
        self.budgets = tuple([
            watch for watch in watches if watch.rule.before_dispatch and watch.rule.policy.scope != "execution"
        ])  # fmt: skip
        """Rules that are judged before the node is sent out."""
        shares = [(counter, counter.share(maximum)) for watch in watches for counter in watch.counters]
        self.shares = tuple([(counter, share) for counter, share in shares if share])


class Guard:
    """The rules that concern one lifetime, and how far it is from each."""

    __slots__ = ("_nodes", "_stations", "_tenants", "digest", "raised", "rules", "started_at", "watches")

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
        self.watches = [Watch(rule) for rule in rules.within if rule.concerns(graph, labels)]
        self._tenants = [rule for rule in rules.tenants if rule.concerns(graph, labels)]
        self._stations: dict[str, Station] = {}
        self._raise(raised)
        for (node, model), used in spent.items():
            for watch in self._about(node):
                if watch.rule.match.of_model(model):
                    for counter in watch.counters:
                        counter.fill(node, used)

    def _about(self, node: str) -> list[Watch]:
        """The watches that match this node."""
        kind = self._nodes[node].kind if node in self._nodes else ""
        return [watch for watch in self.watches if watch.rule.match.node(kind, node)]

    def _station(self, node: str) -> Station:
        found = self._stations.get(node)
        if found is None:
            maximum = self._nodes[node].maximum if node in self._nodes else Maximum()
            kind = self._nodes[node].kind if node in self._nodes else ""
            tenants = [rule for rule in self._tenants if rule.match.node(kind, node)]
            found = self._stations[node] = Station(self._about(node), tenants, maximum)
        return found

    def _raise(self, raised: Mapping[str, Decimal]) -> None:
        self.raised = dict(raised)
        for watch in self.watches:
            watch.set_ceiling(raised.get(watch.rule.label))

    def reads_result(self, node: str) -> bool:
        """Whether a policy looks at what this node returns."""
        station = self._station(node)
        return any("result" in watch.rule.expression.reads for watch in (*station.others, *station.modelled))

    def measures(self, node: str) -> tuple[str, ...]:
        """What of a record of this node the rules want measured."""
        return self._station(node).measures

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def count(self, done: Execution, use: Use) -> None:
        """Adds a record to what the rules count."""
        station = self._station(done.name)
        for counter in station.counted:
            counter.add(done, use)
        if station.modelled:
            model = _model(done)
            for watch in station.modelled:
                if watch.rule.match.of_model(model):
                    for counter in watch.counters:
                        counter.add(done, use)

    def recorded(self, done: Execution, use: Use, now: int, facts: Callable[[], Mapping[str, Any]]) -> list[Verdict]:
        """Judges a record that was counted. `now` in us; `facts` gives what conditions read of it."""
        station = self._station(done.name)
        found: list[Verdict] = []
        for watch, counter in station.limits:
            if counter.level > watch.ceiling or use.faults:  # type: ignore[operator]  # these have one
                self._judge_record(watch, done, use, now, facts, found)
            elif watch.standing:
                watch.standing = False
        for watch in station.timed:
            if now - self.started_at > watch.ceiling:  # type: ignore[operator]  # these have one
                self._judge_record(watch, done, use, now, facts, found)
        for watch in station.others:
            self._judge_record(watch, done, use, now, facts, found)
        if station.modelled:
            model = _model(done)
            for watch in station.modelled:
                if watch.rule.match.of_model(model):
                    self._judge_record(watch, done, use, now, facts, found)
        if use.faults:
            for rule, measures in station.tenants:
                fault = next((use.faults[name] for name in measures if name in use.faults), None)
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
        fault = next((use.faults[name] for name in watch.measures if name in use.faults), None)
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
        found: list[Verdict] = []
        maximum = self._nodes[node].maximum
        for watch in self._station(node).budgets:
            counters = watch.counters
            if watch.ceiling is not None:
                counter = counters[0]
                ahead = counter.level + counter.step(node, iteration, maximum)
                if (ahead if counter.name != "elapsed" else now - self.started_at) <= watch.ceiling:
                    watch.standing = False
                    continue
            amounts: list[Amount] = [
                now - self.started_at if c.name == "elapsed" else c.level + c.step(node, iteration, maximum)
                for c in counters
            ]
            verdict = self._judge(watch, "dispatch", exec_id, node, amounts, facts, None)
            if verdict is not None and self._news(watch, verdict):
                found.append(verdict)
        return found

    def reserve(self, node: str, times: int = 1) -> None:
        """Reserves the most that one execution of this node may use; `times` -1: gives it back."""
        for counter, share in self._station(node).shares:
            counter.reserved += times * share

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


def _measures(rule: Rule) -> tuple[str, ...]:
    """What a rule adds up."""
    return tuple([each.of for each in rule.expression.aggregates if each.of and each.name != "iterations"])


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
