"""From what a person names to a graph that can run: a file, a directory, `module:attribute` or `path.py:attribute`.

A graph from a file names its implementations (`run`); they are loaded here, and every one that is missing, cannot be
imported or has the wrong kind is a problem with its place. A graph from Python brings its implementations along.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from tickwork.errors import GraphInvalid, NotFound
from tickwork.model.graph import AgentGraph, Node
from tickwork.model.problems import Location, Problem
from tickwork.sdk.builder import Graph
from tickwork.sdk.effects import disagreement, implemented
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.nodes import GraphNode, Plan, Task
from tickwork.sdk.references import (
    FILE_MARK,
    ReferenceFault,
    is_file,
    is_loading,
    load_file,
    load_module,
    resolve,
    split,
)

__all__ = ["BoundGraph", "bind", "implementation_of", "is_loading", "load_graph"]

PREFERRED = ("graph", "g")
"""Attributes that are looked at first in a Python file that is named without one."""


class BoundGraph(msgspec.Struct, frozen=True, kw_only=False):
    """A graph and the code of its nodes. `source` says how to load it again; `base` is what `run` is relative to."""

    graph: AgentGraph
    implementations: dict[str, Implementation]
    source: str
    base: Path


def load_graph(spec: str) -> BoundGraph:
    """Loads what `spec` names. Raises GraphInvalid with every problem, NotFound when nothing is there."""
    path = Path(spec)
    if path.is_dir() and (only := _only_python(path)):
        path, spec = only, str(only)
    if path.exists() and path.suffix != ".py":
        return _from_file(path)
    where, attribute = (spec, "") if path.exists() else split(spec)
    try:
        if is_file(where):
            path = Path(where)
            if not path.is_file():
                raise NotFound(f"there is no graph at {where}: name a file, a directory or module:attribute")
            module = load_file(path, path.resolve().parent)
            base, source = path.resolve().parent, str(path.resolve())
        elif attribute:
            module = load_module(where, Path.cwd(), Location(spec))
            file = getattr(module, "__file__", None)
            base, source = (Path(file).resolve().parent if file else Path.cwd()), where
        else:
            raise NotFound(f"there is no file `{spec}`: name a graph's file, its directory or module:attribute")
        attribute = attribute or _only_graph(module, where)
        at = Location(getattr(module, FILE_MARK, None) or where)
        if getattr(module, attribute.partition(".")[0], None) is None:
            hint = "a graph is a Graph or an AgentGraph at the top of the module"
            raise ReferenceFault(Problem(at, "missing_attribute", f"{where} has no `{attribute}`", hint))
        return _from_object(module, attribute, f"{source}:{attribute}", base, at)
    except ReferenceFault as fault:
        raise GraphInvalid([fault.problem]) from None


def _only_python(folder: Path) -> Path | None:
    """The one Python file that makes a graph, in a directory that has no graph file."""
    from tickwork.formats.directory import graph_files, python_graphs

    found = [] if graph_files(folder) else python_graphs(folder)
    return found[0] if len(found) == 1 else None


def _from_file(path: Path) -> BoundGraph:
    from tickwork.formats import read_graph

    read = read_graph(path)
    problems = list(read.problems)
    implementations: dict[str, Implementation] = {}
    if read.graph is not None:
        implementations = _resolved(read.graph, read.base, read.sources, problems, in_folder=path.is_dir())
    if problems or read.graph is None:
        raise GraphInvalid(sorted(problems))
    return BoundGraph(read.graph, implementations, str(path.resolve()), read.base.resolve())


def bind(graph: AgentGraph, base: Path, source: str = "") -> BoundGraph:
    """Loads the implementations of a graph whose file references are relative to `base`. Raises GraphInvalid."""
    from tickwork.model.validation import SourceMap

    problems: list[Problem] = []
    implementations = _resolved(graph, base, SourceMap(source), problems)
    if problems:
        raise GraphInvalid(sorted(problems))
    return BoundGraph(graph, implementations, source, base.resolve())


def _resolved(
    graph: AgentGraph, base: Path, sources: Any, problems: list[Problem], *, in_folder: bool = False
) -> dict[str, Implementation]:
    from tickwork.formats.directory import missing_code

    found: dict[str, Implementation] = {}
    told = {problem.subject for problem in problems if problem.code == "no_implementation"}
    for index, node in enumerate(graph.nodes):
        if not node.runs_code:
            continue
        at = sources.field(f"nodes.{index}.run", node=node.name)
        what = "Task" if node.kind == "task" else "Plan"
        if node.name in told:
            continue
        if not node.run:
            hint = "add `run: package.module:function`, or `run: file.py:function` relative to the graph's file"
            message = f"{what} `{node.name}` has no implementation"
            if in_folder:
                message, hint = missing_code(node.kind, node.name)
            problems.append(Problem(at, "no_implementation", message, hint, node.name))
            continue
        try:
            found[node.name] = implementation_of(node, base, at)
        except ReferenceFault as fault:
            problems.append(fault.problem)
    return found


def implementation_of(node: Node, base: Path, at: Location) -> Implementation:
    """The implementation that a node's `run` leads to. Raises ReferenceFault."""
    return _implementation(resolve(node.run, base, at, node.name), node, base, at)


def _implementation(found: Any, node: Node, base: Path, at: Location) -> Implementation:
    what = "Task" if node.kind == "task" else "Plan"
    if isinstance(found, type) and issubclass(found, GraphNode):
        try:
            found = found()
        except Exception as error:  # noqa: BLE001 - an author's constructor may raise anything
            message = f"{node.run}() failed: {type(error).__name__}: {error}"
            problem = Problem(at, "import_failed", message, "its constructor takes no arguments", node.name)
            raise ReferenceFault(problem) from None
    if isinstance(found, Task | Plan):
        if found.kind != node.kind:
            hint = f"decorate it with @{node.kind}, or make the node a {found.kind}"
            message = f"`{node.run}` is a {found.kind.title()}, but `{node.name}` is a {what}"
            raise ReferenceFault(Problem(at, "wrong_kind", message, hint, node.name))
        if differs := disagreement(node, found, at):
            raise ReferenceFault(differs)
        function, hook = found.implementation(), found.reconcile_hook()
    else:
        function, hook = found, _hook_beside(node, base)
    if not callable(function) or isinstance(function, type) or inspect.ismodule(function):
        hint = f"a {what} is a function, or a class that derives from {what} and has `run`"
        message = f"`{node.run}` is {type(found).__name__}, which cannot be called as a {what}"
        raise ReferenceFault(Problem(at, "wrong_kind", message, hint, node.name))
    implementation, problems = implemented(node, function, hook, at)
    if implementation is None or problems:
        raise ReferenceFault(problems[0])
    return implementation


def _hook_beside(node: Node, base: Path) -> Any:
    """In a graph directory a function `reconcile` beside `def task(task_input)` is the Task's hook."""
    from tickwork.formats.directory import code_path

    if node.kind != "task" or node.run != f"{code_path('task', node.name)}:task":
        return None
    return getattr(load_file(base / code_path("task", node.name), base, node.name), "reconcile", None)


def _only_graph(module: ModuleType, where: str) -> str:
    """The attribute that a Python file means when none is named."""
    graphs = [name for name, value in vars(module).items() if isinstance(value, Graph | AgentGraph | BoundGraph)]
    distinct = {id(getattr(module, name)) for name in graphs}
    for preferred in PREFERRED:
        if preferred in graphs:
            return preferred
    if len(distinct) == 1:
        return graphs[0]
    hint = f"name one: {where}:{graphs[0] if graphs else 'graph'}"
    problem = f"{where} has several graphs: {', '.join(graphs)}" if graphs else f"{where} has no graph at its top"
    raise ReferenceFault(Problem(Location(where), "which_graph", problem, hint))


def _from_object(module: ModuleType, attribute: str, source: str, base: Path, at: Location) -> BoundGraph:
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if callable(found) and not isinstance(found, type | GraphNode):
        found = _called(found, attribute, at)
    if isinstance(found, Graph):
        bound = found.bind()
        return BoundGraph(bound.graph, bound.implementations, source, bound.base)
    if isinstance(found, BoundGraph):
        return BoundGraph(found.graph, found.implementations, source, found.base)
    if isinstance(found, AgentGraph):
        return bind(found, base, source)
    message = f"`{attribute}` is {type(found).__name__}, not a graph"
    hint = "name a Graph, an AgentGraph, or a function without parameters that returns one"
    raise ReferenceFault(Problem(at, "wrong_kind", message, hint))


def _called(function: Any, attribute: str, at: Location) -> Any:
    from tickwork.sdk.references import author_frame

    try:
        return function()
    except GraphInvalid:
        raise
    except Exception as error:  # noqa: BLE001 - an author's function may raise anything
        message = f"{attribute}() failed: {type(error).__name__}: {error}"
        raise ReferenceFault(Problem(author_frame(error) or at, "import_failed", message)) from None
