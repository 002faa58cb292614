"""Verdicts: what the policies in force say to a record, to a dispatch, to a tenant's totals. Pure.

A `Guard` belongs to the folded state of one lifetime and is advanced with it. It is made when a set comes into force,
from what was spent until then, so it is itself a fold of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from tickwork.errors import TickworkError
from tickwork.model.expressions.aggregates import sentence, shown
from tickwork.model.policy import STRICTNESS
from tickwork.model.records import Event
from tickwork.orchestrator.guardrails.counters import Counter, add_low, use_of
from tickwork.orchestrator.guardrails.stations import FAR, measures_of_rule, model_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from decimal import Decimal

    from tickwork.model.expressions import Amount, PlainTest
    from tickwork.model.graph import Node
    from tickwork.model.policy import Action
    from tickwork.model.records import Execution
    from tickwork.model.spending import Quantity, Total
    from tickwork.orchestrator.guardrails.counters import Spent, Use
    from tickwork.orchestrator.guardrails.rules import Rule, Rules
    from tickwork.orchestrator.guardrails.stations import Moves, Station

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


class Watch(NamedTuple):
    """A rule in force for one lifetime, with its counters, as it stands."""

    rule: Rule
    counters: list[Counter]
    standing: bool
    """Its condition held when it was last judged, and that is recorded."""


class Guard:
    """The rules that concern one lifetime, and how far it is from each."""

    __slots__ = (
        "_bars",
        "_due",
        "_held",
        "_layout",
        "_levels",
        "_nodes",
        "_standing",
        "_stations",
        "_tense",
        "digest",
        "raised",
        "rules",
        "started_at",
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
        self._levels, self._held = [0] * layout.size, [0] * layout.size
        """Amounts, and what is in flight may add to them, by place."""
        self._standing = [False] * len(layout.rules)
        for (node, model), used in spent.items():
            for index in layout.about(nodes.get(node), node):
                if layout.rules[index].match.of_model(model):
                    for counter in self._counters(index):
                        counter.fill(node, used)
        self.raised: dict[str, Decimal] = {}
        self._bars: Sequence[int] = layout.bars
        self._due, self._tense = started_at + layout.first, layout.tense  # as most begin
        if raised or spent:
            self._raise(raised)

    @property
    def watches(self) -> list[Watch]:
        """The rules with their counters, for who wants to see them."""
        return [
            Watch(rule, self._counters(index), self._standing[index]) for index, rule in enumerate(self._layout.rules)
        ]

    def _counters(self, index: int) -> list[Counter]:
        levels, held = self._levels, self._held
        return [Counter(each, place, levels, held) for each, place in self._layout.counted[index]]

    def reads_result(self, node: str) -> bool:
        """Whether a policy looks at what this node returns."""
        return self._stations[node].reads_result

    def tenants(self, node: str) -> tuple[tuple[Rule, ...], tuple[Quantity, ...]]:
        """The tenant's rules that match a node, and what they add up."""
        return self._stations[node].asked

    # -- how far it is from being over a limit ------------------------------------------------------------------------

    def _raise(self, raised: Mapping[str, Decimal]) -> None:
        self.raised = dict(raised)
        self._bars = self._layout.raised(raised) if raised else self._layout.bars
        self._look_round()

    def _look_round(self) -> None:
        """Finds out whether all that grows is within its bar. While it is, no rule of `growing` has to be asked."""
        layout, levels, standing = self._layout, self._levels, self._standing
        for index in layout.growing:
            if standing[index]:
                self._bear(index)
        bars = self._bars
        self._due = self.started_at + min([bars[place] for place in layout.clocks], default=FAR)
        self._tense = (
            any(levels[place] + self._held[place] > bars[place] for place in layout.levels)
            or any(levels[place] > bars[place] * levels[place + 1] for place in layout.means)
            or any(standing[index] and bars[layout.counted[index][0][1]] != FAR for index in layout.growing)
        )

    def _bear(self, index: int) -> None:
        """Takes the bar away of a rule that has said all that it will ever say: it is over for good and only warns."""
        layout, rule = self._layout, self._layout.rules[index]
        if rule.policy.scope != "lifetime" or not rule.expression.single or enforces(rule):
            return
        place = layout.counted[index][0][1]
        if place in layout.levels and self._levels[place] > self._bars[place]:
            self._bars = [FAR if at == place else bar for at, bar in enumerate(self._bars)]

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def count(self, done: Execution, now: int, *, ran: bool, use: Use | None = None) -> Use | None:
        """Adds a record to what the rules count. Returns what it used if a rule has to judge it, None if none has to.

        `ran`: an attempt was made. `use`: what it used, if that is known already. `now` in us.
        """
        station = self._stations[done.name]
        moves = station.moves(done)
        if use is None:
            use = use_of(done, station.times if done.telemetry is None else station.measures, ran=ran)
        if ran or done.telemetry is not None:
            self._add(moves, use, done.iteration)
        return use if moves.asked or self._tense or use.faults or now > self._due else None

    def _add(self, moves: Moves, use: Use, iteration: int) -> None:
        levels, held, bars = self._levels, self._held, self._bars
        for measure, value in use.amounts.items():
            moved = moves.measured.get(measure)
            if moved is None:
                continue
            for place in moved.sums:
                levels[place] += value
                if levels[place] + held[place] > bars[place]:
                    self._tense = True
            for place in moved.means:
                levels[place] += value
                if value > bars[place]:
                    self._tense = True
            for place in moved.highs:
                levels[place] = max(levels[place], value)
                if value > bars[place]:
                    self._tense = True
            for place in moved.lows:
                add_low(levels, place, value, 1)
                if value > bars[place]:
                    self._tense = True
        if not use.ran:
            self._tense = True  # what is no attempt counts in sums, and in no average
            return
        for place in moves.sizes:
            levels[place] += 1
        for place in moves.attempts:
            levels[place] += 1
            if levels[place] + held[place] > bars[place]:
                self._tense = True
        for place in moves.turns:
            if iteration >= levels[place]:
                levels[place] = iteration + 1
                if iteration >= bars[place]:
                    self._tense = True

    def recorded(
        self, done: Execution, use: Use, now: int, facts: Callable[[], Mapping[str, Any]], *, again: bool = False
    ) -> list[Verdict]:
        """Judges a record that was counted. `now` in us; `facts` gives what conditions read of it.

        `again`: it was counted long ago, so whether it went over a bar is not known any more.
        """
        station = self._stations[done.name]
        moves = station.moves(done)
        near = self._tense or now > self._due or bool(use.faults) or again
        found: list[Verdict] = []
        for index in moves.looked if near else moves.asked:
            self._judge_record(index, done, use, now, facts, found)
        if near:
            self._look_round()
        if use.faults:
            for rule, wanted in station.tenants:
                fault = next((use.faults[name] for name in wanted if name in use.faults), None)
                if fault is not None and rule.match.of_model(model_of(done)):
                    found.append(_unknown(rule, "record", done.exec_id, done.name, fault))
        return found

    def _judge_record(
        self,
        index: int,
        done: Execution,
        use: Use,
        now: int,
        facts: Callable[[], Mapping[str, Any]],
        found: list[Verdict],
    ) -> None:
        rule = self._layout.rules[index]
        if "result" in rule.expression.reads and done.status != "SUCCEEDED":
            return  # there is none
        if rule.expression.plain is not None and not use.faults and _clear(rule.expression.plain, facts):
            self._standing[index] = False
            return
        counters = self._counters(index)
        alone = rule.policy.scope == "execution"
        if alone:
            amounts = [counter.only(done, use) for counter in counters]
        else:
            amounts = [counter.amount(now - self.started_at) for counter in counters]
        fault = None
        if use.faults:
            fault = next((use.faults[name] for name in measures_of_rule(rule) if name in use.faults), None)
        verdict = self._judge(index, "record", done.exec_id, done.name, amounts, facts, fault)
        if verdict is not None and (alone or self._news(index, verdict)):
            found.append(verdict)

    def overdue(self, now: int) -> list[Verdict]:
        """Judges the rules about elapsed time when nothing is recorded: `now` in us."""
        found = []
        for index, (rule, counters, _) in enumerate(self.watches):
            if not rule.before_dispatch or not any(c.name == "elapsed" for c in counters):
                continue
            amounts = [counter.amount(now - self.started_at) for counter in counters]
            verdict = self._judge(index, "record", "", "", amounts, dict, None)
            if verdict is not None and self._news(index, verdict):
                found.append(verdict)
        return found

    def deadlines(self) -> list[tuple[str, int]]:
        """When (us) each rule that is nothing but a limit of elapsed time is to be looked at, by its label."""
        found = []
        for rule in self._layout.timed:
            due = rule.due(self.started_at, self.raised.get(rule.label))
            if due is not None:
                found.append((rule.label, due))
        return found

    # -- what is about to be sent out ---------------------------------------------------------------------------------

    def let_pass(self, node: str, iteration: int, now: int) -> bool:
        """Reserves what a dispatch may use and lets it pass, if no rule has to be asked; else nothing is done."""
        station = self._stations[node]
        if station.weighed or not self._within(station, iteration, now):
            return False
        held = self._held
        for place, part in station.shares:
            held[place] += part
        return True

    def _within(self, station: Station, iteration: int, now: int) -> bool:
        """Whether every amount is within its bar, and stays so with one more dispatch."""
        if self._tense or now > self._due:
            return False
        levels, held, bars = self._levels, self._held, self._bars
        within = True
        for place, part in station.shares:
            if levels[place] + held[place] + part > bars[place]:
                within = False
        for place in station.turns:
            if iteration >= bars[place]:
                within = False
        return within

    def dispatched(
        self, exec_id: str, node: str, iteration: int, now: int, facts: Callable[[], Mapping[str, Any]]
    ) -> list[Verdict]:
        """Judges a dispatch as if all that is in flight, and it too, were recorded with the most they may use."""
        station = self._stations[node]
        within = self._within(station, iteration, now)
        found: list[Verdict] = []
        for index in station.weighed if within else station.budgets:
            maximum = self._nodes[node].maximum
            elapsed = now - self.started_at
            amounts: list[Amount] = [c.ahead(node, iteration, maximum, elapsed) for c in self._counters(index)]
            verdict = self._judge(index, "dispatch", exec_id, node, amounts, facts, None)
            if verdict is not None and self._news(index, verdict):
                found.append(verdict)
        if not within:
            self._look_round()
        return found

    def reserve(self, node: str) -> None:
        """Reserves the most that one execution of this node may use."""
        held = self._held
        for place, part in self._stations[node].shares:
            held[place] += part
            if self._levels[place] + held[place] > self._bars[place]:
                self._tense = True

    def give_back(self, node: str) -> None:
        """Gives back what was reserved for one execution of this node."""
        held = self._held
        for place, part in self._stations[node].shares:
            held[place] -= part

    def settle_anew(self, raised: Mapping[str, Decimal]) -> None:
        """Somebody has looked and lets the lifetime go on: what stood is judged again, under the limits given now."""
        self._standing = [False] * len(self._standing)
        self._raise({**self.raised, **raised})

    # -- one rule -----------------------------------------------------------------------------------------------------

    def _judge(
        self,
        index: int,
        at: Place,
        exec_id: str,
        node: str,
        amounts: Sequence[Amount],
        facts: Callable[[], Mapping[str, Any]],
        fault: str | None,
    ) -> Verdict | None:
        rule = self._layout.rules[index]
        if fault is not None:
            return _unknown(rule, at, exec_id, node, fault)
        verdict = judged(rule, amounts, facts, self.raised.get(rule.label), at, exec_id, node)
        if verdict is None:
            self._standing[index] = False
        return verdict

    def _news(self, index: int, verdict: Verdict) -> bool:
        """Whether this has to be recorded: what only says so again is not, what is done again is.

        Over a budget nothing more is sent out, so its pause needs no repetition; a pause over a record is about that
        record, and each one that cannot be evaluated fails closed.
        """
        standing, self._standing[index] = self._standing[index], True
        self._tense = True
        if not standing or not verdict.enforced:
            return not standing
        return verdict.failed or verdict.action != "pause_lifetime" or not verdict.rule.before_dispatch


def _clear(test: PlainTest, facts: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether a plain test of a result does not hold, beyond doubt."""
    try:
        return test.holds(facts()["result"]) is False
    except (TickworkError, msgspec.MsgspecError, ValueError, RecursionError):
        return False  # it is told by who asks the engine


def enforces(rule: Rule) -> bool:
    """Whether something is done when it is breached, beside the verdict's being recorded."""
    return not rule.policy.shadow and rule.policy.action != "warn"


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
