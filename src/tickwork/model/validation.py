"""What is wrong with a graph: every problem at once, each with its place, a stable code and how to mend it.

A reader of a format (or the Python builder) makes an `AgentGraph`, which may be broken, and a `SourceMap` that says
where each part was written. `validate` compares the graph with the rules of the specification, section 2. It does no
IO, and takes time linear in the graph's size: files come from anybody. Whether an implementation can be imported is
not asked here; that needs user code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tickwork.model.answer_schema import default_fault, schema_faults
from tickwork.model.condition import ConditionError, compile_condition
from tickwork.model.graph import END, START, AgentGraph, Edge, Join, Maximum, Node
from tickwork.model.ids import NAME
from tickwork.model.money import MAX_TOKENS, dollars
from tickwork.model.problems import Location, Problem
from tickwork.model.typed import sound_graph
from tickwork.model.words import CONTROL, nearest, shown

__all__ = [
    "FROM_EDGES",
    "GREATEST",
    "LONGEST",
    "MAX_GUESSES",
    "MAX_NODES",
    "VERSION",
    "SourceMap",
    "TextStart",
    "nearest",
    "shown",
    "validate",
]

MAX_NODES = 10_000
"""Nodes of one graph: as many as one PlanExecution may open branches."""

LONGEST = 100 * 365.25 * 86_400
"""The longest duration, in seconds: a hundred years, so that every due time fits the records."""

GREATEST = {"records": 10_000_000, "visits": 10_000_000, "open_visits": 1_000_000, "depth": 100}
"""The greatest `limits` that a graph may ask for: an open visit takes memory, and each group lengthens all paths."""

VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
"""Semantic versions, as semver.org 2.0.0 spells them."""

MAX_GUESSES = 50
"""How many misspelt names get a near one proposed: looking for it compares with every name there is."""

FROM_EDGES = frozenset(
    {"no_entry", "no_final", "unreachable", "cannot_finish", "join_without_parallel", "plan_without_task"}
    | {"ambiguous_edges", "duplicate_edge"}
)
"""Codes that are drawn from the edges as a whole, and mean nothing when some edges could not be read."""

_CORRECT = "correct the number, or leave it out"
_RULES = "letters, digits, `_` and `-`, a letter first, at most 128 characters"
_WORKS = ("run", "human", "signal", "timer", "child")


class TextStart(msgspec.Struct, frozen=True):
    """Where a text that stands literally in a file begins; `indent`: the column at which its later lines begin."""

    location: Location
    indent: int


class SourceMap:
    """Where the parts of a graph were written.

    Keys are ("graph", ""), ("node", name), ("edge", index into graph.edges) and ("field", path), a path being
    `nodes.3.retry.max_attempts`, `edges.0.condition`, `version`. What is not known is looked up one level above.
    """

    def __init__(self, file: str = "") -> None:
        self.file = file
        self._places: dict[tuple[str, str | int], Location] = {}
        self._texts: dict[str, TextStart] = {}

    def put(self, kind: str, key: str | int, location: Location) -> None:
        """Remember a place; the first one given for a key stays."""
        self._places.setdefault((kind, key), location)

    def put_text(self, path: str, location: Location, indent: int = 1) -> None:
        """Remember where the text of a field begins, when it stands in the file letter by letter."""
        self._texts.setdefault(path, TextStart(location, indent))

    def get(self, kind: str, key: str | int) -> Location | None:
        """The place of exactly this key, if it is known."""
        return self._places.get((kind, key))

    def graph(self) -> Location:
        """The place of the graph as a whole."""
        return self._places.get(("graph", ""), Location(self.file))

    def field(self, path: str, *, node: str = "") -> Location:
        """The nearest known place of a field: itself, what contains it, the node called `node`, the graph."""
        rest = path
        while rest:
            if found := self._places.get(("field", rest)):
                return found
            rest = rest.rpartition(".")[0]
        parts = path.split(".")
        if parts[0] == "edges" and len(parts) > 1 and (found := self._places.get(("edge", int(parts[1])))):
            return found
        return self._places.get(("node", node)) or self.graph()

    def inside(self, path: str, line: int, column: int) -> Location:
        """The place of a line and column (from 1) of a field's text: exact where the text stands literally."""
        start = self._texts.get(path)
        if start is None or not line:
            return self.field(path)
        at = start.location
        if line == 1:
            return Location(at.file, at.line, at.column + column - 1)
        return Location(at.file, at.line + line - 1, start.indent + column - 1)


def validate(graph: AgentGraph, sources: SourceMap | None = None) -> list[Problem]:
    """Every problem of the graph, in the order of their places. An empty list: the graph can be run."""
    check = _Check(graph, sources or SourceMap())
    doubtful = check.types()
    check.header()
    for index, node in enumerate(check.graph.nodes):
        check.node(index, node)
    check.edges()
    check.paths()
    return sorted(
        (found for found in check.problems if found.code not in doubtful), key=lambda problem: problem.location
    )


class _Check:
    """One validation: the graph, where it was written, and what was found so far."""

    def __init__(self, graph: AgentGraph, sources: SourceMap) -> None:
        self.graph, self.sources = graph, sources
        self.problems: list[Problem] = []
        self.guesses: dict[str, str] = {}

    def say(self, code: str, at: Location, message: str, hint: str = "", subject: str = "") -> None:
        self.problems.append(Problem(at, code, message, hint, subject))

    def say_node(self, code: str, index: int, field: str, message: str, hint: str = "") -> None:
        name = self.graph.nodes[index].name
        place = self.sources.field(f"nodes.{index}.{field}".rstrip("."), node=name)
        self.say(code, place, message, hint, shown(name))

    def say_edge(self, code: str, index: int, field: str, message: str, hint: str = "") -> None:
        place = self.sources.field(f"edges.{index}.{field}".rstrip("."))
        self.say(code, place, message, hint, _subject(self.graph.edges[index]))

    # -- the graph as a whole

    def types(self) -> set[str]:
        """Report what has a wrong type, and go on with a graph that has none; returns the codes now in doubt."""

        graph = self.graph

        def told(path: str, wrong: str, hint: str) -> None:
            kind, *rest = path.split(".", 2)
            if kind == "limits":
                name = path.partition(".")[2]
                what = f"`limits.{name}` of the graph" if name else "`limits` of the graph"
                self.say("bad_type", self.sources.field(path), f"{what} {wrong}", hint)
                return
            part = getattr(graph, kind)[int(rest[0])] if rest else graph
            name = part.name if isinstance(part, Node) and isinstance(part.name, str) else ""
            subject = f"{part.source} -> {part.target}" if isinstance(part, Edge) else name
            owner = f"`{shown(subject)}`" if subject else f"{kind[:-1]} {int(rest[0]) + 1}" if rest else "the graph"
            what = f"`{rest[1]}` of {owner}" if len(rest) > 1 else owner if rest else f"`{kind}` of the graph"
            self.say("bad_type", self.sources.field(path, node=name), f"{what} {wrong}", hint, shown(subject))

        self.graph, doubtful = sound_graph(self.graph, told)
        return doubtful

    def header(self) -> None:
        graph = self.graph
        at = self.sources.field("name")
        if not NAME.fullmatch(graph.name):
            self.say("bad_name", at, f"`{shown(graph.name)}` is not a name for a graph", f"a name has {_RULES}")
        if not VERSION.fullmatch(graph.version):
            hint = "write a semantic version, three numbers: 1.0.0, 0.2.1-beta"
            at = self.sources.field("version")
            self.say("bad_version", at, f"`{shown(graph.version)}` is not a semantic version", hint)
        self.text(graph.description, "description", "the graph's description")
        for field, greatest in GREATEST.items():
            value = getattr(graph.limits, field)
            if not 1 <= value <= greatest:
                message = f"limits.{field} of the graph is {value}; it has to be at least 1 and at most {greatest}"
                self.say("bad_number", self.sources.field(f"limits.{field}"), message, _CORRECT)
        if not graph.nodes:
            hint = "add a Task, and the edges `start -> task` and `task -> end`"
            self.say("no_nodes", self.sources.graph(), "the graph has no nodes", hint)
        if len(graph.nodes) > MAX_NODES:
            hint = "let a Plan fan out over one Task (one Task, many branches), or split the graph with a child graph"
            message = f"the graph has {len(graph.nodes)} nodes; at most {MAX_NODES} are allowed"
            self.say("too_many_nodes", self.sources.graph(), message, hint)

    def text(self, value: str, path: str, what: str, node: str = "") -> bool:
        found = CONTROL.search(value)
        if found:
            message = f"{what} has the character U+{ord(found[0]):04X}, which cannot be shown"
            place = self.sources.field(path, node=node)
            self.say("control_character", place, message, "take it out; line breaks and tabs are fine", shown(node))
        return not found

    # -- nodes

    def node(self, index: int, node: Node) -> None:
        name = shown(node.name)
        what = "Task" if node.kind == "task" else "Plan"
        if node.name in (START, END):
            hint = "it is the mark of the entry and of the end; give the node another name"
            self.say_node("reserved_name", index, "", f"no node can be called `{name}`", hint)
        elif not NAME.fullmatch(node.name):
            self.say_node("bad_name", index, "", f"`{name}` is not a name for a {what}", f"a name has {_RULES}")
        for field in ("title", "description", "run"):
            self.text(getattr(node, field), f"nodes.{index}.{field}", f"the {field} of `{name}`", node.name)
        self.works(index, node)
        self.effect(index, node)
        self.maximum(index, node)
        self.numbers(index, node)
        self.json_value(index, "config", node.config)
        if node.memory_mb is not None and node.isolation != "subprocess":
            hint = "add `isolation: subprocess`, or leave memory_mb out"
            message = f"{what} `{name}` has a memory limit, which only a subprocess can keep"
            self.say_node("memory_without_subprocess", index, "memory_mb", message, hint)

    def works(self, index: int, node: Node) -> None:
        """A Task does one thing; a Plan decides, so it runs code or is bound to code elsewhere."""
        name = shown(node.name)
        given = [field for field in _WORKS if getattr(node, field)]
        waits = [field for field in given if field != "run"]
        if node.kind == "plan" and waits:
            hint = f"make `{name}` a Task, or let a Task before it do that"
            message = f"Plan `{name}` declares {_listed(waits)}, which only a Task can do"
            self.say_node("plan_cannot_wait", index, waits[0], message, hint)
        elif len(given) > 1:
            hint = "keep one of them, and give the others a Task each"
            message = f"Task `{name}` declares {_listed(given)}, but a Task does one thing"
            self.say_node("several_works", index, given[1], message, hint)
        if node.human:
            self.text(node.human.prompt, f"nodes.{index}.human.prompt", f"the prompt of `{name}`", node.name)
            if self.json_value(index, "human.answer_schema", node.human.answer_schema):
                self.answer_schema(index, node)
        for field, part in (("human", node.human), ("signal", node.signal)):
            if part is not None and part.default is not msgspec.UNSET:
                self.json_value(index, f"{field}.default", part.default)
        for field, called in (("signal", node.signal), ("child", node.child)):
            if called is not None and not NAME.fullmatch(called.name):
                message = f"`{shown(called.name)}` is not a name for a {'signal' if field == 'signal' else 'graph'}"
                self.say_node("bad_name", index, f"{field}.name", message, f"a name has {_RULES}")
        if node.child and node.child.version and not VERSION.fullmatch(node.child.version):
            message = f"`{shown(node.child.version)}` is not a semantic version"
            hint = "write three numbers, 1.0.0, or leave the version out to take the newest"
            self.say_node("bad_version", index, "child.version", message, hint)

    def effect(self, index: int, node: Node) -> None:
        """Only code has an effect that a second call could repeat: of the rest nothing is ever called twice."""
        if node.effect == "idempotent" or (node.kind == "task" and node.runs_code):
            return
        waits = next((field for field in _WORKS[1:] if getattr(node, field)), "")
        if node.kind == "plan":
            what, why = "Plan", "a Plan only decides"
            hint = "leave `effect` out, and let a Task after it do what must not happen twice"
        elif waits == "child":
            what, why = "Task", "it runs another graph"
            hint = "leave `effect` out, and declare it for the Tasks of that graph"
        else:
            what, why = "Task", f"a Task with `{waits}` runs no code, so there is nothing that could happen twice"
            hint = "leave `effect` out, or declare it for the Task whose code has the effect"
        message = f"{what} `{shown(node.name)}` declares the effect {node.effect}, but {why}"
        self.say_node("effect_without_code", index, "effect", message, hint)

    def maximum(self, index: int, node: Node) -> None:
        """Only code uses tokens and money; what it declares is reserved, so it has to be an amount."""
        declared = node.maximum
        if declared == Maximum():
            return
        if not node.runs_code:
            why = "runs another graph" if node.child else "runs no code"
            hint = f"leave `maximum` out{', and declare it for the nodes of that graph' if node.child else ''}"
            message = f"Task `{shown(node.name)}` declares a maximum, but it {why}"
            self.say_node("maximum_without_code", index, "maximum", message, hint)
        if declared.tokens is not None and not 0 <= declared.tokens <= MAX_TOKENS:
            bounds = f"at least 0 and at most {MAX_TOKENS}"
            message = f"maximum.tokens of `{shown(node.name)}` is {declared.tokens}; it has to be {bounds}"
            self.say_node("bad_number", index, "maximum.tokens", message, _CORRECT)
        if declared.cost_usd:
            try:
                right = dollars(declared.cost_usd)
                wrong = "" if right == declared.cost_usd else f"is written {shown(declared.cost_usd)}, not {right}"
            except ValueError as error:
                wrong = str(error)
            if wrong:
                message = f"maximum.cost_usd of `{shown(node.name)}` {wrong}"
                self.say_node("bad_number", index, "maximum.cost_usd", message, _CORRECT)

    def numbers(self, index: int, node: Node) -> None:
        retry, limits = node.retry, node.limits
        above, least = (0.0, False), (0.0, True)
        rows: list[tuple[str, float | None, tuple[float, bool], float]] = [
            ("retry.max_attempts", retry.max_attempts, (1, True), math.inf),
            ("retry.initial_interval", retry.initial_interval, least, LONGEST),
            ("retry.backoff", retry.backoff, (1, True), 1000),
            ("retry.max_interval", retry.max_interval, least, LONGEST),
            ("retry.jitter", retry.jitter, least, 1),
            ("limits.start_to_close", limits.start_to_close, above, LONGEST),
            ("limits.schedule_to_start", limits.schedule_to_start, above, LONGEST),
            ("limits.heartbeat", limits.heartbeat, above, LONGEST),
            ("limits.grace", limits.grace, least, LONGEST),
            ("memory_mb", node.memory_mb, (1, True), math.inf),
            ("human.deadline", node.human.deadline if node.human else None, above, LONGEST),
            ("signal.deadline", node.signal.deadline if node.signal else None, above, LONGEST),
            ("timer.seconds", node.timer.seconds if node.timer else None, least, LONGEST),
        ]
        for field, value, (low, included), high in rows:
            if value is None:
                continue
            enough = value >= low if included else value > low
            if not enough or not value <= high:  # NaN is neither
                bounds = f"at least {low:g}" if included else f"more than {low:g}"
                bounds += f" and at most {high:g}" if math.isfinite(high) else ""
                if high == LONGEST:
                    bounds = bounds.replace(f"{high:g}", "100 years") + " (in seconds)"
                message = f"{field} of `{shown(node.name)}` is {value:g}; it has to be {bounds}"
                self.say_node("bad_number", index, field, message, _CORRECT)

    def json_value(self, index: int, field: str, value: Any) -> bool:
        """Whether a free value can be written as JSON, which is how graphs are stored and compared."""
        try:
            json.dumps(value, allow_nan=False)
            msgspec.msgpack.encode(value)  # refuses what has more than 64 bits, and half characters
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"{field} of `{shown(self.graph.nodes[index].name)}` cannot be written as JSON: {error}"
            self.say_node("not_json", index, field, message, "use text, finite numbers, true, false, null, lists, maps")
            return False
        return True

    def answer_schema(self, index: int, node: Node) -> None:
        assert node.human  # noqa: S101 - the caller has looked
        schema = node.human.answer_schema
        if schema is None:
            return
        faults = schema_faults(schema)
        for fault in faults:
            message = f"the answer_schema of `{shown(node.name)}` cannot be used: {fault.message}"
            self.say_node(
                "bad_answer_schema", index, ".".join(["human.answer_schema", *fault.path]), message, fault.hint
            )
        if faults or node.human.default is msgspec.UNSET:
            return
        if wrong := default_fault(schema, node.human.default):
            message = f"the default answer of `{shown(node.name)}` breaks its own answer_schema: {shown(wrong)}"
            self.say_node("bad_default", index, "human.default", message, "change the default, or the schema")

    # -- edges

    def edges(self) -> None:
        graph = self.graph
        first: dict[str, int] = {}
        for index, node in enumerate(graph.nodes):
            if node.name in first:
                at = self.sources.field(f"nodes.{first[node.name]}", node=node.name)
                where = f" (the first one stands at {at})" if at.line else ""
                message = f"there are two nodes called `{shown(node.name)}`{where}"
                self.say_node("duplicate_node", index, "", message, "rename one of them, or take one out")
            first.setdefault(node.name, index)
        kinds = {name: graph.nodes[index].kind for name, index in first.items()}
        seen: set[tuple[str, str, str]] = set()
        for index, edge in enumerate(graph.edges):
            self.edge(index, edge, kinds)
            key = (edge.source, edge.target, edge.condition)
            if key in seen:
                message = f"the edge `{_subject(edge)}` is there twice"
                self.say_edge("duplicate_edge", index, "", message, "take one out, or give each its own condition")
            seen.add(key)
        self.alternatives(kinds)

    def edge(self, index: int, edge: Edge, kinds: Mapping[str, str]) -> None:
        subject = _subject(edge)
        if edge.source == END or edge.target == START:
            hint = "edges lead from `start` to the first nodes, and from the last nodes to `end`"
            message = (
                f"the edge `{subject}` leaves the end" if edge.source == END else f"`{subject}` goes back to start"
            )
            self.say_edge("bad_direction", index, "", message, hint)
            return
        self.ends(index, edge, kinds)
        if edge.kind == "PARALLEL" and kinds.get(edge.source) == "task":
            hint = "put a Plan between them, and let it choose what runs in parallel"
            message = f"`{subject}` is PARALLEL, but only a Plan can start several branches"
            self.say_edge("parallel_from_task", index, "kind", message, hint)
        self.join(index, edge)
        if self.text(edge.label, f"edges.{index}.label", f"the label of `{subject}`"):
            self.condition(index, edge, kinds)

    def ends(self, index: int, edge: Edge, kinds: Mapping[str, str]) -> None:
        """Both ends are there, they alternate, and entry and FINAL edges are what they say."""
        subject = _subject(edge)
        for field, name in (("source", edge.source), ("target", edge.target)):
            if name not in kinds and name not in (START, END):
                verb = "leaves" if field == "source" else "leads to"
                message = f"`{subject}` {verb} `{shown(name)}`, which is not a node of the graph"
                near = self.guess(name, (*kinds, START, END))
                hint = f"did you mean `{near}`?" if near else "add the node, or correct the name"
                self.say_edge("unknown_node", index, field, message, hint)
        if edge.source == START and edge.target == END:
            message, hint = "`start -> end` would end the graph before anything ran", "put a Task between them"
            self.say_edge("bad_direction", index, "", message, hint)
        elif edge.source == START and (edge.kind != "NORMAL" or edge.condition):
            message = f"`{subject}` marks an entry: it is NORMAL and has no condition"
            self.say_edge("bad_entry", index, "kind", message, "several entries start in parallel by themselves")
        elif (edge.kind == "FINAL") != (edge.target == END) and edge.source != START:
            message = f"`{subject}` is {edge.kind}, but an edge is FINAL exactly when it leads to `end`"
            hint = "write kind FINAL" if edge.target == END else "let it lead to `end`, or choose another kind"
            self.say_edge("bad_final", index, "kind", message, hint)
        kind = kinds.get(edge.source)
        if kind and kind == kinds.get(edge.target):
            word, other = ("Task", "Plan") if kind == "task" else ("Plan", "Task")
            message = f"`{subject}` leads from a {word} to a {word}; edges alternate between Tasks and Plans"
            self.say_edge("not_alternating", index, "", message, f"put a {other} between them")

    def join(self, index: int, edge: Edge) -> None:
        subject, join = _subject(edge), edge.join
        if edge.kind != "JOIN":
            if join != Join():
                message = f"`{subject}` has a join option, but its kind is {edge.kind}"
                self.say_edge("bad_join", index, "join", message, "write kind JOIN, or leave join out")
        elif join.mode == "quorum" and join.count < 1:
            message = f"the quorum of `{subject}` is {join.count}; at least one branch has to arrive"
            self.say_edge("bad_quorum", index, "join", message, "write how many branches are enough: quorum: 2")
        elif join.mode != "quorum" and join.count:
            message = f"`{subject}` joins {join.mode} and has a count of {join.count}, which only a quorum has"
            self.say_edge("bad_join", index, "join", message, f"write quorum: {join.count}, or leave the count out")

    def condition(self, index: int, edge: Edge, kinds: Mapping[str, str]) -> None:
        path, subject = f"edges.{index}.condition", _subject(edge)
        if not edge.condition or not self.text(edge.condition, path, f"the condition of `{subject}`"):
            return
        if kinds.get(edge.source) == "plan":
            message = f"`{subject}` has a condition, but it leaves a Plan, and a Plan chooses by itself"
            self.say_edge("condition_on_plan_edge", index, "condition", message, "decide in the Plan's code")
        try:
            compile_condition(edge.condition)
        except ConditionError as error:
            at = self.sources.inside(path, error.line, error.column)
            hint = 'a condition is a CEL expression, as in: result.score > 0.5, route == "accept"'
            message = f"the condition of `{subject}` does not compile: {error}"
            self.say("bad_condition", at, message, hint, subject)

    def alternatives(self, kinds: Mapping[str, str]) -> None:
        """Of a Task's edges one at most is without a condition: the default."""
        defaults: dict[str, list[int]] = {}
        for index, edge in enumerate(self.graph.edges):
            if kinds.get(edge.source) == "task" and not edge.condition:
                defaults.setdefault(edge.source, []).append(index)
        for source, found in defaults.items():
            targets = list(dict.fromkeys(shown(self.graph.edges[index].target) for index in found))
            if len(targets) > 1:
                message = f"Task `{shown(source)}` has several edges without a condition, to {_listed(targets)}"
                hint = "give all but one a condition; a Plan can start several branches at once"
                self.say_edge("ambiguous_edges", found[1], "", message, hint)

    # -- paths

    def paths(self) -> None:
        graph = self.graph
        names = graph.node
        follow: dict[str, list[str]] = {}
        back: dict[str, list[str]] = {}
        for edge in graph.edges:
            # A misspelt name is followed to what it was meant to be, so that one slip is one problem.
            source, target = self.meant(edge.source), self.meant(edge.target)
            follow.setdefault(source, []).append(target)
            back.setdefault(target, []).append(source)
        self.plans(follow)
        if not names:
            return
        if START not in follow:
            hint = f"mark the first node: start -> {shown(graph.nodes[0].name)}"
            self.say("no_entry", self.sources.graph(), "the graph has no entry: no edge leaves `start`", hint)
        if END not in back:
            hint = "let the last node lead to `end`"
            self.say("no_final", self.sources.graph(), "the graph never ends: no FINAL edge leads to `end`", hint)
        begun, ends = _reach([START], follow), _reach([END], back)
        for index, node in enumerate(graph.nodes):
            name = shown(node.name)
            if START in follow and node.name not in begun:
                hint = f"add an edge to `{name}`, or take it out"
                self.say_node("unreachable", index, "", f"`{name}` is never reached from start", hint)
            if END in back and node.name not in ends:
                hint = f"add an edge from `{name}` towards a node that leads to `end`"
                self.say_node("cannot_finish", index, "", f"no FINAL edge can be reached from `{name}`", hint)
        self.joins(follow)

    def plans(self, follow: Mapping[str, list[str]]) -> None:
        for index, node in enumerate(self.graph.nodes):
            targets = follow.get(node.name, ())
            if node.kind == "plan" and not any(target not in (START, END) for target in targets):
                message = f"Plan `{shown(node.name)}` has no Task to choose"
                hint = f"add an edge from `{shown(node.name)}` to a Task; a graph that only ends here needs no Plan"
                self.say_node("plan_without_task", index, "", message, hint)

    def joins(self, follow: Mapping[str, list[str]]) -> None:
        if len(follow.get(START, ())) > 1:
            return  # several entries are branches too
        opened = _reach([e.target for e in self.graph.edges if e.kind == "PARALLEL"], follow)
        for index, edge in enumerate(self.graph.edges):
            if edge.kind == "JOIN" and edge.source not in opened:
                message = f"`{_subject(edge)}` is a JOIN, but no PARALLEL edge leads to it: there is nothing to join"
                hint = "make the edges that open the branches PARALLEL, or make this edge NORMAL"
                self.say_edge("join_without_parallel", index, "kind", message, hint)

    def meant(self, name: str) -> str:
        return name if name in self.graph.node or name in (START, END) else self.guess(name, self.graph.node) or name

    def guess(self, name: str, known: Iterable[str]) -> str:
        if name not in self.guesses:
            self.guesses[name] = nearest(name, known) if len(self.guesses) < MAX_GUESSES else ""
        return self.guesses[name]


def _reach(begin: Iterable[str], follow: Mapping[str, list[str]]) -> set[str]:
    found, waiting = set(begin), list(begin)
    while waiting:
        for name in follow.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _subject(edge: Edge) -> str:
    return f"{shown(edge.source)} -> {shown(edge.target)}"


def _listed(words: list[str]) -> str:
    quoted = [f"`{word}`" for word in words[:5]] + ([f"{len(words) - 5} more"] if len(words) > 5 else [])
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
