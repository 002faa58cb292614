"""What a condition in Rego adds up, compares and reads, found in its syntax tree.

Only what can be bounded and known beforehand is let through: rules named `breach`, fields of `input` that are written
out, and functions that neither reach outside nor make much of little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, cast

from tickwork.model.condition import VARIABLES, ConditionError
from tickwork.model.expressions import Aggregate, AggregateName, Amount, Comparison, Limit
from tickwork.model.expressions.aggregates import (
    FLIPPED,
    NAMES,
    OPPOSITE,
    Judge,
    dead,
    parse_number,
    wrong_in_scope,
    wrong_measure,
    wrong_node,
    wrong_read,
)
from tickwork.model.expressions.bounds import wrong_pattern
from tickwork.model.expressions.rego_syntax import Syntax
from tickwork.model.policy import Scope
from tickwork.model.spending import CUSTOM, SCALES
from tickwork.model.words import nearest, shown

FUNCTIONS = frozenset(
    {
        *("abs", "ceil", "contains", "count", "endswith", "floor", "is_array", "is_boolean", "is_null", "is_number"),
        *("is_object", "is_string", "lower", "max", "min", "object.get", "regex.match", "round", "startswith", "sum"),
        *("to_number", "trim", "trim_prefix", "trim_space", "trim_suffix", "upper"),
    }
)
"""What a condition may call: nothing that reaches outside, tells the time, or makes much of little."""

_COMPARISONS: dict[str, Comparison] = {"Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">=", "Eq": "==", "Ne": "!="}
_LITERALS = ("Number", "String", "RawString", "Bool", "Null")
_LOOPS = ("SomeIn", "SomeVars", "Every")

Verdict = Callable[[Sequence[Amount], Decimal | None], bool]


def spell(name: str) -> Callable[[str], str]:
    """How an aggregate of a measure is written."""
    return lambda measure: f"input.{name}.{measure}"


class Reading:
    """Walks the tree once; refuses with the place what is unknown, dead, or without a bound."""

    def __init__(self, syntax: Syntax, scope: Scope) -> None:
        self.syntax, self._scope = syntax, scope
        self.aggregates: dict[Aggregate, None] = {}
        self.limits: list[tuple[Limit, dict[str, Any]]] = []
        """Each comparison with its span."""
        self.reads: dict[str, None] = {}
        """Variables, `route` as itself."""
        self.loops = 0
        self.literals = 0
        self._seen = 0
        for each in syntax.imports:
            raise syntax.refuse(each["span"], "a condition imports nothing")
        for rule in syntax.rules:
            self._rule(rule)

    def verdict(self) -> tuple[tuple[Limit, ...], Verdict] | None:
        """The limits and the judging of a condition of nothing but comparisons; None when it needs the engine."""
        at = {_extent(span): limit for limit, span in self.limits}
        place = {aggregate: index for index, aggregate in enumerate(self.aggregates)}
        bodies: list[list[Judge]] = []
        limits: dict[Limit, None] = {}
        for rule in self.syntax.rules:
            plain = rule.get("Spec")
            if plain is None:
                continue
            if plain["head"]["Compr"]["assign"] is not None or len(plain["bodies"]) != 1:
                return None
            judges = []
            for statement in plain["bodies"][0]["query"]["stmts"]:
                kind, told = next(iter(statement["literal"].items()))
                compared = told["expr"].get("BoolExpr") if kind in ("Expr", "NotExpr") else None
                limit = at.get(_extent(compared["span"])) if compared is not None else None
                if limit is None:
                    return None
                if kind == "NotExpr":
                    limit = Limit(limit.aggregate, OPPOSITE[limit.comparison], limit.number)
                limits[limit] = None
                judges.append(Judge(limit, place[limit.aggregate]))
            bodies.append(judges)

        if [len(body) for body in bodies] == [1]:
            return tuple(limits), bodies[0][0]

        def judge(amounts: Sequence[Amount], raised: Decimal | None) -> bool:
            return any(all(each(amounts, raised) for each in body) for body in bodies)

        return tuple(limits), judge

    # -- rules and statements -----------------------------------------------------------------------------------------

    def _rule(self, rule: dict[str, Any]) -> None:
        kind, told = next(iter(rule.items()))
        if kind == "Default":
            value = told["value"].get("Bool")
            if told["refr"].get("Var", {}).get("value") != "breach" or value is None or value["value"] is not False:
                raise self.syntax.refuse(told["span"], "the only default is `default breach := false`")
            return
        head = told["head"].get("Compr") if kind == "Spec" else None
        if head is None or head["refr"].get("Var", {}).get("value") != "breach":
            raise self.syntax.refuse(told["span"], "the only rule is `breach`, as in: breach if { input.count > 3 }")
        if head["assign"] is not None:
            self._visit(head["assign"]["value"])
        for body in told["bodies"]:
            if body["assign"] is not None:
                self._visit(body["assign"]["value"])
            for statement in body["query"]["stmts"]:
                before = self._seen
                self._visit(statement)
                if self._seen == before:
                    written = self.syntax.written(statement["span"])
                    message = (
                        f"`{shown(written)}` has the same value for ever; look at something: input.sum.tokens_used > 1"
                    )
                    raise self.syntax.refuse(statement["span"], message)

    def _visit(self, node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                self._visit(each)
            return
        if not isinstance(node, dict):
            return
        if node.get("with_mods"):
            raise self.syntax.refuse(node["with_mods"][0]["span"], "`with` has no place in a condition")
        for kind, told in node.items():
            if kind in ("RefDot", "RefBrack", "Var"):
                self._reference({kind: told})
            elif kind == "Call":
                self._call(told)
            elif kind == "BoolExpr":
                self._compared(told)
            elif kind == "UnaryExpr":
                raise self.syntax.refuse(told["span"], "write 0 - x for -x: Rego binds this `-` weaker than `>`")
            elif kind == "AssignExpr" and told["op"] == "Eq":
                raise self.syntax.refuse(told["span"], "write `==` to compare, `:=` to name")
            elif kind != "span":
                self.loops += kind in _LOOPS
                self.literals += kind in _LITERALS
                self._visit(told)

    def _call(self, told: dict[str, Any]) -> None:
        function = self.syntax.written(_span(told["fcn"]))
        if function not in FUNCTIONS:
            near = nearest(function, FUNCTIONS)
            hint = f"did you mean `{near}`?" if near else f"it may call {', '.join(sorted(FUNCTIONS))}"
            raise self.syntax.refuse(told["span"], f"a condition cannot call `{shown(function)}`; {hint}")
        if function == "regex.match":
            first = told["params"][0] if told["params"] else {}
            pattern = first.get("String") or first.get("RawString")
            if pattern is None:
                raise self.syntax.refuse(told["span"], "regex.match takes its pattern as a text in quotes")
            if wrong := wrong_pattern(pattern["value"]):
                raise self.syntax.refuse(pattern["span"], wrong)
        self._visit(told["params"])

    # -- comparisons --------------------------------------------------------------------------------------------------

    def _compared(self, told: dict[str, Any]) -> None:
        sides = [told["lhs"], told["rhs"]]
        if all(next(iter(side)) in _LITERALS for side in sides):
            raise self.syntax.refuse(told["span"], "this compares two values that never change")
        self._visit(sides)
        for index, side in enumerate(sides):
            aggregate = self._aggregate_at(side)
            kind, other = next(iter(sides[1 - index].items()))
            if aggregate is None or kind not in _LITERALS:
                continue
            if kind != "Number":
                written = self.syntax.written(other["span"])
                message = f"{aggregate} is a number and `{shown(written)}` is none, so this never changes"
                raise self.syntax.refuse(told["span"], message)
            if _extent(told["span"]) != (_span(told["lhs"])["start"], _span(told["rhs"])["end"]):
                raise self.syntax.refuse(told["span"], "write this comparison without parentheses inside it")
            comparison = _COMPARISONS[told["op"]]
            limit = Limit(aggregate, comparison if index == 0 else FLIPPED[comparison], self._number(other))
            if wrong := dead(limit):
                raise self.syntax.refuse(told["span"], wrong)
            self.limits.append((limit, told["span"]))

    def _number(self, told: dict[str, Any]) -> Decimal:
        written = self.syntax.written(told["span"])
        try:
            return -parse_number(written[1:].strip()) if written.startswith("-") else parse_number(written)
        except ConditionError as error:
            raise self.syntax.refuse(told["span"], str(error)) from None

    def _aggregate_at(self, node: dict[str, Any]) -> Aggregate | None:
        root, path, _ = _path(node)
        if root != "input" or not path or path[0] not in NAMES:
            return None
        aggregate, used = self._aggregate(path, _span(node))
        return aggregate if used == len(path) else None

    # -- references ---------------------------------------------------------------------------------------------------

    def _reference(self, node: dict[str, Any]) -> None:
        root, path, inner = _path(node)
        span = _span(node)
        self._visit(inner)
        self.loops += sum("Var" in each for each in inner)
        if root in ("data", "breach"):
            raise self.syntax.refuse(span, f"a condition looks at input alone, not at `{root}`")
        if root in SCALES:
            raise self.syntax.refuse(span, f"unknown name `{root}`; write input.sum.{root}")
        # For a name of the condition's own: what it stands for is looked at where it gets its value.
        self._seen += root is not None
        if root == "input":
            self._of_input(path, span)

    def _of_input(self, path: Sequence[str | None], span: dict[str, Any]) -> None:
        first = path[0] if path else None
        if first is None:
            raise self.syntax.refuse(span, "name the field of input that is meant, as in input.sum.tokens_used")
        if first in NAMES:
            aggregate, used = self._aggregate(path, span)
            if used != len(path):
                raise self.syntax.refuse(span, f"{aggregate} is a number and has no fields")
            if wrong := wrong_in_scope(aggregate, self._scope):
                raise self.syntax.refuse(span, wrong)
            self.aggregates[aggregate] = None
        elif first in VARIABLES:
            if wrong := wrong_read(first, self._scope):
                raise self.syntax.refuse(span, wrong)
            self.reads[first] = None
        else:
            near = nearest(first, (*NAMES, *VARIABLES))
            known = f"did you mean `input.{near}`?" if near else f"it has {', '.join((*NAMES, *VARIABLES))}"
            raise self.syntax.refuse(span, f"input has no field `{shown(first)}`; {known}")

    def _aggregate(self, path: Sequence[str | None], span: dict[str, Any]) -> tuple[Aggregate, int]:
        """The aggregate that the path begins with, and how many of its words it takes."""
        name = cast("AggregateName", path[0])
        if name in ("count", "elapsed"):
            return Aggregate(name), 1
        of, used = (path[1] if len(path) > 1 else None), 2
        if of == CUSTOM[:-1] and len(path) > 2 and path[2] is not None:
            of, used = CUSTOM + path[2], 3
        if of is None:
            example = "input.iterations.refine" if name == "iterations" else f"input.{name}.tokens_used"
            raise self.syntax.refuse(span, f"write out which {name} is meant, as in {example}")
        wrong = wrong_node(of) if name == "iterations" else wrong_measure(name, of, spell(name))
        if wrong:
            raise self.syntax.refuse(span, wrong)
        return Aggregate(name, of), used


def _span(node: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", next(iter(node.values()))["span"])


def _extent(span: dict[str, Any]) -> tuple[int, int]:
    return span["start"], span["end"]


def _path(node: dict[str, Any]) -> tuple[str | None, list[str | None], list[dict[str, Any]]]:
    """The variable that a reference begins with (None: something else), its fields (None: not written out), and the
    parts of it that are expressions of their own."""
    fields: list[str | None] = []
    inner: list[dict[str, Any]] = []
    while True:
        kind, told = next(iter(node.items()))
        if kind == "RefDot":
            fields.append(told["field"][1])
        elif kind == "RefBrack":
            index_kind, index = next(iter(told["index"].items()))
            fields.append(index["value"] if index_kind in ("String", "RawString") else None)
            if fields[-1] is None:
                inner.append(told["index"])
        elif kind == "Var":
            return told["value"], fields[::-1], inner
        else:
            return None, fields[::-1], [*inner, node]
        node = told["refr"]
