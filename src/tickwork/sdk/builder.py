"""Graphs written in Python: `g = Graph("hello", "1.0.0")`, then nodes and edges, then `g.build()`.

The builder checks nothing while it is told; `build` validates the whole and names every problem at the line of the
call that caused it.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tickwork.errors import GraphInvalid
from tickwork.model.graph import END, START, AgentGraph, Edge, EdgeKind, Join, Limits, Node
from tickwork.model.problems import Location, Problem
from tickwork.sdk.effects import implemented
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.nodes import GraphNode, Plan, Task
from tickwork.sdk.references import name_of

if TYPE_CHECKING:
    from tickwork.sdk.loading import BoundGraph

AnyNode: TypeAlias = str | GraphNode | type[GraphNode]
"""A node as the builder takes it: a decorated function, a class, an object of one, or the name of a node."""

JoinOption: TypeAlias = Literal["all", "settled", "any"] | tuple[Literal["quorum"], int] | Join

_SDK = str(Path(__file__).resolve().parent)


class Graph:
    """Collects the nodes and edges of an AgentGraph.

    A node is added by being mentioned. The name `start` stands for the entry and `end` for the end. `limits` bounds
    one lifetime of the graph: entries of its log, visits of a node, visits open at once, depth of fan-outs.
    """

    def __init__(
        self, name: str, version: str = "0.1.0", *, description: str = "", limits: Limits | None = None
    ) -> None:
        self.name, self.version, self.description = name, version, description
        self.limits = Limits() if limits is None else limits
        self._place = _caller()
        self._nodes: list[tuple[GraphNode, Location]] = []
        self._edges: list[tuple[Edge, Location]] = []
        self._known: dict[int, GraphNode] = {}
        self._problems: list[Problem] = []
        self._lost_edges = False
        self._made: set[int] = set()

    @property
    def folder(self) -> Path:
        """The folder of the file that made this graph: what its file references are relative to."""
        file = Path(self._place.file)
        return file.resolve().parent if file.is_file() else Path.cwd()

    def add(self, *nodes: AnyNode) -> Graph:
        """Adds nodes without an edge; mentioning a node in an edge adds it too."""
        for node in nodes:
            self._name(node, _caller())
        return self

    def start(self, *nodes: AnyNode) -> Graph:
        """Marks entries; several start in parallel."""
        at = _caller()
        for node in nodes:
            self._edge(Edge(source=START, target=self._name(node, at)), at)
        return self

    def edge(
        self,
        source: AnyNode,
        target: AnyNode,
        kind: EdgeKind | None = None,
        *,
        label: str = "",
        when: str = "",
        join: JoinOption | None = None,
    ) -> Graph:
        """Adds `source -> target`.

        `kind` is NORMAL unless it is given, or follows from the rest: JOIN with `join`, FINAL into `end`. `when` is a
        CEL condition, only out of a Task. `join` is "all", "settled", "any" or ("quorum", n).
        """
        at = _caller()
        ends = {"source": self._name(source, at), "target": self._name(target, at)}
        if kind is None:
            kind = "JOIN" if join is not None else "FINAL" if ends["target"] == END else "NORMAL"
        self._edge(Edge(**ends, kind=kind, label=label, condition=when, join=self._join(join, at)), at)
        return self

    def then(self, source: AnyNode, *targets: AnyNode, when: str = "") -> Graph:
        """NORMAL edges: from a Plan an exclusive choice, from a Task the first whose condition holds."""
        for target in targets:
            self.edge(source, target, when=when)
        return self

    def parallel(self, plan: AnyNode, *tasks: AnyNode, label: str = "") -> Graph:
        """PARALLEL edges from a Plan: it may choose several of them, and each many times with its own input."""
        for task in tasks:
            self.edge(plan, task, "PARALLEL", label=label)
        return self

    def join(
        self,
        source: AnyNode,
        target: AnyNode,
        mode: Literal["all", "settled", "any", "quorum"] = "all",
        count: int = 0,
        *,
        when: str = "",
    ) -> Graph:
        """A JOIN edge: `target` runs once per fan-out group, with all its branches. `count` only for a quorum."""
        return self.edge(source, target, "JOIN", when=when, join=Join(mode=mode, count=count))

    def final(self, *nodes: AnyNode, when: str = "") -> Graph:
        """FINAL edges: taking one completes the lifetime with that node's result."""
        for node in nodes:
            self.edge(node, END, "FINAL", when=when)
        return self

    def build(self) -> AgentGraph:
        """The immutable graph. Raises GraphInvalid with every problem, each at its line of Python."""
        return self._built()[0]

    def bind(self) -> BoundGraph:
        """The graph with its implementations, ready to run. Raises GraphInvalid like `build`."""
        from tickwork.sdk.loading import BoundGraph

        graph, implementations = self._built()
        return BoundGraph(graph, implementations, self._source(), self.folder)

    def _source(self) -> str:
        """How another process finds this graph: the file and the name that it has there; empty when it has none."""
        file = self._place.file
        for module in list(sys.modules.values()):
            if getattr(module, "__file__", None) == file:  # a module that failed to load is None there
                for name, value in list(vars(module).items()):
                    if value is self:
                        return f"{Path(file).resolve()}:{name}"
        return ""

    def _built(self) -> tuple[AgentGraph, dict[str, Implementation]]:
        from tickwork.model.validation import FROM_EDGES, SourceMap, validate

        sources = SourceMap(self._place.file)
        sources.put("graph", "", self._place)
        problems = list(self._problems)
        nodes: list[Node] = []
        implementations: dict[str, Implementation] = {}
        for index, (given, at) in enumerate(self._nodes):
            node, implementation = self._implemented(given, at, problems)
            nodes.append(node)
            if implementation is not None:
                implementations.setdefault(node.name, implementation)
            sources.put("node", node.name, at)
            sources.put("field", f"nodes.{index}", at)
        for index, (_, at) in enumerate(self._edges):
            sources.put("edge", index, at)
            sources.put("field", f"edges.{index}", at)
        graph = AgentGraph(
            name=self.name,
            version=self.version,
            nodes=tuple(nodes),
            edges=tuple([edge for edge, _ in self._edges]),
            description=self.description,
            limits=self.limits,
        )
        found = validate(graph, sources)
        if self._lost_edges:
            found = [problem for problem in found if problem.code not in {*FROM_EDGES, "no_nodes"}]
        problems += found
        if problems:
            raise GraphInvalid(sorted(problems))
        return graph, implementations

    def _implemented(
        self, given: GraphNode, at: Location, problems: list[Problem]
    ) -> tuple[Node, Implementation | None]:
        function = given.implementation()
        name = given.name or type(given).__name__
        if function is None:
            node = given.node()
            if node.runs_code:
                hint = "define `def run(self, value, ctx)`, sync or async"
                problems.append(Problem(at, "no_implementation", f"the class of `{name}` has no `run`", hint, name))
            return node, None
        named: Any = function if not inspect.ismethod(function) else type(given)
        run, unloadable = name_of(named, self.folder)
        if named is type(given) and vars(given) and id(given) not in self._made:
            unloadable = unloadable or "it is an object with settings of its own, which only this process has"
        node = given.node(run)
        implementation, found = implemented(node, function, given.reconcile_hook(), at, unloadable)
        problems += found
        if implementation is not None and given.isolation == "subprocess" and unloadable:
            hint = "define it at the top of a module or file, or take `isolation` out"
            message = f"`{name}` asks for a subprocess, which cannot load it: {unloadable}"
            problems.append(Problem(at, "not_loadable", message, hint, name))
        return node, implementation

    def _name(self, given: Any, at: Location) -> str:
        """The name of a node; adds it when it is new."""
        if isinstance(given, str):
            return given
        if isinstance(given, Graph):
            given = None
        if id(given) in self._known:
            known = self._known[id(given)]
            return known.name or type(known).__name__
        node = self._as_node(given, at)
        if node is None:
            return "?"
        self._known[id(given)] = node
        if not any(node is other for other, _ in self._nodes):
            self._nodes.append((node, at))
        return node.name or type(node).__name__

    def _as_node(self, given: Any, at: Location) -> GraphNode | None:
        name = getattr(given, "__name__", None) or type(given).__name__
        if isinstance(given, Task | Plan):
            return given
        if isinstance(given, type) and issubclass(given, Task | Plan):
            try:
                made = given()
                self._made.add(id(made))
                return made
            except Exception as error:  # noqa: BLE001 - an author's constructor may raise anything
                message = f"{name}() failed: {type(error).__name__}: {error}"
                hint = "give an object of it instead"
        else:
            hint = "decorate it with @task or @plan" if callable(given) else "give a Task, a Plan or the name of one"
            message = f"`{name}` is neither a Task nor a Plan"
        problem = Problem(at, "not_a_node", message, hint, name)
        if problem not in self._problems:
            self._problems.append(problem)
        return None

    def _edge(self, edge: Edge, at: Location) -> None:
        if "?" in (edge.source, edge.target):  # what it was to connect is reported already
            self._lost_edges = True
        else:
            self._edges.append((edge, at))

    def _join(self, join: JoinOption | None, at: Location) -> Join:
        match join:
            case None:
                return Join()
            case Join():
                return join
            case "all" | "settled" | "any":
                return Join(mode=join)
            case ("quorum", int(count)):
                return Join(mode="quorum", count=count)
        hint = 'write "all", "settled", "any" or ("quorum", 3)'
        self._problems.append(Problem(at, "bad_join", f"{join!r} is no join option", hint))
        return Join()

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {self.version!r})"


def _caller() -> Location:
    """The line of the author's code that called the builder."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_SDK):
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno) if frame is not None else Location()
