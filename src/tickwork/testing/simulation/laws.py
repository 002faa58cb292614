"""A second reading of policies: what a condition of a simulated world means, worked out again from its text.

Only the few forms that `guarding` draws are known. Nothing here is shared with the engine's own reading, counting or
judging: amounts are added up from scratch, each time anew, from the executions of a log.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from tickwork.model.records import payload_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwork.model.graph import AgentGraph, Maximum
    from tickwork.model.policy import Layered, Match, PolicySet
    from tickwork.model.records import Execution

ACTION_ORDER = ("warn", "reject_execution", "pause_lifetime", "abort_lifetime")
"""From the mildest to the strictest."""

_AGGREGATE = re.compile(r"(sum|max|avg|count|iterations|elapsed)\(([^)]*)\) (>=|>) ([\d.]+)")
_FIELD = re.compile(r"(result|telemetry|header)\.(\w+) (==|>) (\d+)")
_MOST = 10**12


class Unclear(ValueError):
    """It cannot be said whether the condition holds."""


class Clause(NamedTuple):
    """`what(of) sign number`, or `what.of sign number`."""

    what: str
    of: str
    sign: str
    number: Decimal

    @property
    def aggregate(self) -> bool:
        """Whether it is about what is added up."""
        return self.what not in ("result", "telemetry", "header")

    @property
    def name(self) -> str:
        """What verdicts call the aggregate."""
        return f"{self.what}('{self.of}')" if self.what == "iterations" else f"{self.what}({self.of})"

    def met(self, amount: Decimal, raised: Decimal | None = None) -> bool:
        """Whether the amount, in people's unit, is over the number."""
        number = self.number if raised is None else raised
        if self.sign == "==":
            return amount == number
        return amount > number or (self.sign == ">=" and amount == number)


class Used(NamedTuple):
    """One execution as it counts. `ran`: it is an attempt that was made; a superseded result is no further one."""

    done: Execution
    ran: bool


class Law:
    """One policy."""

    def __init__(self, layered: Layered) -> None:
        self.label = f"{layered.layer}/{layered.policy.name}"
        self.policy = layered.policy
        self.match: Match = layered.policy.match
        self.clauses = [clause_of(text) for text in layered.policy.when.split(" && ")]
        numbers = [clause for clause in self.clauses if clause.aggregate]
        self.limit = numbers[0] if len(numbers) == 1 and numbers[0].sign in (">", ">=") else None
        """The one limit that can be raised."""
        self.early = all(clause.what in ("sum", "count", "iterations", "elapsed") for clause in self.clauses)
        """Whether it is judged before a dispatch, too."""

    @property
    def turn(self) -> int:
        """When it is judged over a record: limits first, then limits of time, then what else is for all models."""
        if self.match.model:
            return 3
        if len(self.clauses) > 1 or self.limit is None or self.limit.what == "avg" or self.policy.scope == "execution":
            return 2
        return int(self.limit.what == "elapsed")

    @property
    def enforced(self) -> bool:
        """Whether something is done on a breach."""
        return not self.policy.shadow and self.policy.action != "warn"

    def about(self, graph: AgentGraph, labels: dict[str, str], node: str, model: str | None) -> bool:
        """Whether it takes executions of this node. `model` None: it is not known yet, so it may be any."""
        return (
            self.concerns(graph.name, labels)
            and takes_node(self.match, graph, node)
            and (model is None or takes(self.match.model, model))
        )

    def concerns(self, graph: str, labels: dict[str, str]) -> bool:
        """Whether it is about lifetimes of this graph with these labels."""
        return takes_lifetime(self.match, graph, labels)


def takes(patterns: Sequence[str], name: str) -> bool:
    """Whether a name meets one of the patterns; none: every name does."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def takes_lifetime(match: Match, graph: str, labels: dict[str, str]) -> bool:
    """Whether a match is about lifetimes of this graph with these labels."""
    wanted = match.labels.items()
    return takes(match.graph, graph) and all(k in labels and fnmatchcase(labels[k], v) for k, v in wanted)


def takes_node(match: Match, graph: AgentGraph, node: str) -> bool:
    """Whether a match is about this node."""
    return takes(match.name, node) and match.kind in (None, graph.node[node].kind)


def laws_of(policies: PolicySet) -> list[Law]:
    """A set, read."""
    return [Law(layered) for layered in policies.policies]


def clause_of(text: str) -> Clause:
    """One comparison, read from its text."""
    if (found := _AGGREGATE.fullmatch(text)) is not None:
        return Clause(found[1], found[2].strip("'"), found[3], Decimal(found[4]))
    if (found := _FIELD.fullmatch(text)) is not None:
        return Clause(found[1], found[2], found[3], Decimal(found[4]))
    raise ValueError(f"the second opinion cannot read `{text}`")


# -- amounts ----------------------------------------------------------------------------------------------------------


def units(measure: str) -> int:
    """How many kept units one of people's has."""
    if measure.startswith("custom."):
        return 1_000_000
    return {"cost_usd": 10**9, "latency_ms": 1000, "queue_ms": 1000}.get(measure, 1)


def use(done: Execution, measure: str) -> int:
    """What an execution used, in kept units. Raises Unclear when what it says is no amount."""
    if measure in ("latency_ms", "queue_ms"):
        pair = (done.started_at, done.finished_at) if measure == "latency_ms" else (done.created_at, done.started_at)
        return max(0, pair[1] - pair[0]) if done.started_at else 0
    said = done.telemetry
    if said is None:
        return 0
    value: Any
    if measure.startswith("custom."):
        value = (said.custom or {}).get(measure.removeprefix("custom."), 0)
        number = type(value) in (int, float) and math.isfinite(value) and 0 <= value <= _MOST
        if not number:
            raise Unclear(f"{measure} is {value}")
        kept: int = round(value * 1_000_000)
        return kept
    if measure == "cost_usd" and said.unpriced:
        raise Unclear("no price is known")
    value = said.cost_nano_usd if measure == "cost_usd" else getattr(said, measure)
    if value < 0:
        raise Unclear(f"{measure} is {value}")
    return int(value)


def use_or_nothing(done: Execution, measure: str) -> int:
    """The same, with nothing for what is no amount."""
    try:
        return use(done, measure)
    except Unclear:
        return 0


def declared(maximum: Maximum, measure: str) -> int:
    """The most that a node's attempts may use, by its own word."""
    if measure == "cost_usd":
        return int(Decimal(maximum.cost_usd or 0) * 10**9)
    return (maximum.tokens or 0) if measure.startswith("tokens_") else 0


def model_of(done: Execution) -> str:
    """The model that an execution names, "" for none."""
    return (done.telemetry.model if done.telemetry is not None else None) or ""


def amount_of(clause: Clause, used: Iterable[Used], elapsed: int) -> Decimal | None:
    """What an aggregate comes to over these executions, in people's unit; None: it has no value yet."""
    if clause.what == "elapsed":
        return Decimal(elapsed) / 1_000_000
    found = list(used)
    count = sum(each.ran for each in found)
    if clause.what == "count":
        return Decimal(count)
    if clause.what == "iterations":
        return Decimal(
            max([each.done.iteration + 1 for each in found if each.ran and each.done.name == clause.of] or [0])
        )
    amounts = [use_or_nothing(each.done, clause.of) for each in found]
    if clause.what == "sum":
        return Decimal(sum(amounts)) / units(clause.of)
    if not count:
        return None
    if clause.what == "avg":
        return Decimal(sum(amounts)) / units(clause.of) / count
    return Decimal(max([0, *amounts])) / units(clause.of)


def field_of(clause: Clause, done: Execution) -> Decimal:
    """A field of a record. Raises Unclear when it has none."""
    if clause.what == "header":
        return Decimal(done.attempt)
    if clause.what == "telemetry":
        custom = (done.telemetry.custom if done.telemetry is not None else None) or {}
        if any(isinstance(value, float) and not math.isfinite(value) for value in custom.values()):
            raise Unclear("what it counts is no number")
        return Decimal(done.telemetry.tokens_used if done.telemetry is not None else 0)
    value = payload_value(done.result)
    if not isinstance(value, dict) or not isinstance(value.get(clause.of), int):
        raise Unclear(f"the result has no {clause.of}")
    return Decimal(value[clause.of])
