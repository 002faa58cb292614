"""A graph as a picture for a terminal.

Nodes are followed from start in declared order. What has one way on goes straight down, what has several branches
off; a node that was drawn already is only named, with `↩` when the way leads back to one it came through.
"""

from __future__ import annotations

from collections.abc import Iterator

from tickwork.formats.fields import GRAPH_LIMITS
from tickwork.model.graph import END, START, AgentGraph, Edge, Maximum, Node

_WAITS = ("human", "signal", "timer", "child")


def draw(graph: AgentGraph) -> str:
    """The drawing, ending with what its signs mean."""
    return "\n".join([*_header(graph), *_Drawing(graph).lines(), *_unreached(graph), "", *_legend(graph)]) + "\n"


def _header(graph: AgentGraph) -> Iterator[str]:
    tasks = sum(node.kind == "task" for node in graph.nodes)
    plans = len(graph.nodes) - tasks
    yield f"{graph.label}  {_count(tasks, 'Task')}, {_count(plans, 'Plan')}, {_count(len(graph.edges), 'edge')}"
    if graph.description:
        yield from graph.description.strip().split("\n")
    if limits := GRAPH_LIMITS.options(graph.limits):
        yield "limits: " + ", ".join(f"{name} {bound:,}" for name, bound in limits.items())
    yield ""


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _legend(graph: AgentGraph) -> Iterator[str]:
    kinds = {edge.kind for edge in graph.edges}
    signs = ["[task]", "{plan}", "↩ back to", "↑ drawn above"]
    signs += ["═▶ PARALLEL"] if "PARALLEL" in kinds else []
    signs += ["⋈ JOIN"] if "JOIN" in kinds else []
    yield "   ".join([*signs, "◉ end"])


class _Drawing:
    """Walks the graph depth first with a stack of its own: a chain of ten thousand nodes is no reason to fail."""

    def __init__(self, graph: AgentGraph) -> None:
        self.graph, self.drawn = graph, set[str]()
        # The nodes on the way from start to here, in order; a dict, because every edge asks whether it leads back.
        self.path: dict[str, None] = {}

    def lines(self) -> Iterator[str]:
        yield "● start"
        # Each item: an edge, the indent it is drawn at, whether it is one of several, the last of them, and how long
        # the path was where it leaves.
        stack = self.leaving(START, "")
        while stack:
            edge, indent, branching, last, depth = stack.pop()
            while len(self.path) > depth:
                self.path.popitem()
            fresh = edge.target in self.graph.node and edge.target not in self.drawn
            target = self.target(edge)
            if not branching:
                yield f"{indent}{'║' if edge.kind == 'PARALLEL' else '│'} {_label(edge)}".rstrip()
                yield f"{indent}{target}"
                below = indent
            else:
                tee, corner, line = ("╞═", "╘═", "═") if edge.kind == "PARALLEL" else ("├─", "└─", "─")
                text = _label(edge)
                yield f"{indent}{corner if last else tee}{f' {text} ' if text else ''}{line}▶ {target}"
                below = indent + ("   " if last else "│  ")
            if fresh:
                self.drawn.add(edge.target)
                self.path[edge.target] = None
                stack += self.leaving(edge.target, below)

    def leaving(self, name: str, indent: str) -> list[tuple[Edge, str, bool, bool, int]]:
        """The edges out of a node, the first one on top of the stack."""
        edges = self.graph.outgoing.get(name, ())
        many, depth = len(edges) > 1, len(self.path)
        items = [(edge, indent, many, index == len(edges) - 1, depth) for index, edge in enumerate(edges)]
        return items[::-1]

    def target(self, edge: Edge) -> str:
        name = edge.target
        if name == END:
            return "◉ end"
        node = self.graph.node.get(name)
        if node is None:
            return f"? {name}"
        if name in self.drawn:
            return f"{'↩' if name in self.path else '↑'} {name}"
        return _box(node)


def _box(node: Node) -> str:
    shape = f"[{node.name}]" if node.kind == "task" else f"{{{node.name}}}"
    does = [f"({word})" for word in _WAITS if getattr(node, word) is not None]
    does += [f"({node.effect})"] if node.effect != "idempotent" else []
    does += [f"(at most {_most(node.maximum)})"] if node.maximum != Maximum() else []
    return " ".join([shape, *node.title.split(), *does])


def _most(maximum: Maximum) -> str:
    tokens = f"{maximum.tokens:,} tokens" if maximum.tokens is not None else ""
    return ", ".join(part for part in (tokens, f"${maximum.cost_usd}" if maximum.cost_usd else "") if part)


def _label(edge: Edge) -> str:
    label = " ".join(edge.label.split())
    parts = []
    if edge.kind == "JOIN":
        mode = f"quorum {edge.join.count}" if edge.join.mode == "quorum" else edge.join.mode
        parts.append(f"⋈ {mode}")
    if label:
        parts.append(label)
    if edge.condition and edge.condition != f'route == "{label}"':
        parts.append(f"if {' '.join(edge.condition.split())}")
    return " · ".join(parts)


def _unreached(graph: AgentGraph) -> Iterator[str]:
    found, waiting = {START}, [START]
    while waiting:
        for edge in graph.outgoing.get(waiting.pop(), ()):
            if edge.target not in found:
                found.add(edge.target)
                waiting.append(edge.target)
    lost = [node for node in graph.nodes if node.name not in found]
    if lost:
        yield from ["", "never reached:", *(f"  {_box(node)}" for node in lost)]
