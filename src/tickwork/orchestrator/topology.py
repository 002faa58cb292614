"""Facts about a graph that routing asks for again and again, computed once for each graph digest."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tickwork.model.condition import compile_condition
from tickwork.model.graph import END, AgentGraph, Edge, Join, Node

if TYPE_CHECKING:
    from tickwork.model.condition import Condition


class Topology:
    """A graph, indexed for routing. Pure and shared by all lifetimes of that graph."""

    __slots__ = (
        "conditions",
        "digest",
        "entries",
        "graph",
        "joins",
        "limits",
        "nearest_join",
        "nodes",
        "outgoing",
        "reads_result",
        "targets",
    )

    def __init__(self, graph: AgentGraph) -> None:
        self.graph = graph
        self.digest = graph.digest
        self.limits = graph.limits
        self.nodes: dict[str, Node] = graph.node
        self.entries: tuple[Edge, ...] = graph.entries
        self.outgoing: dict[str, tuple[Edge, ...]] = graph.outgoing
        self.targets = graph.targets
        self.conditions: dict[str, Condition] = {
            edge.condition: compile_condition(edge.condition) for edge in graph.edges if edge.condition
        }
        self.joins: dict[str, Join] = {}
        for edge in graph.edges:
            if edge.kind == "JOIN" and self.joins.get(edge.target, Join()) == Join():
                self.joins[edge.target] = edge.join
        self.nearest_join: dict[str, Edge | None] = {name: self._nearest_join(name) for name in self.nodes}
        self.reads_result: frozenset[str] = frozenset(
            edge.source for edge in graph.edges if edge.condition and self.conditions[edge.condition].reads_result
        )

    def _nearest_join(self, origin: str) -> Edge | None:
        """The JOIN edge that a branch at `origin` would reach first at its own depth: breadth first, declared order.

        A failed branch counts there, so that a `settled` join learns of it.
        """
        seen = {(origin, 0)}
        queue = deque(seen)
        while queue:
            name, depth = queue.popleft()
            for edge in self.outgoing.get(name, ()):
                if edge.kind == "FINAL" or edge.target == END:
                    continue
                if edge.kind == "JOIN":
                    if depth == 0:
                        return edge
                    step = depth - 1
                else:
                    step = depth + (edge.kind == "PARALLEL")
                # Deeper than there are nodes means going round a cycle of fan-outs: nothing new is found there.
                if step <= len(self.nodes) and (edge.target, step) not in seen:
                    seen.add((edge.target, step))
                    queue.append((edge.target, step))
        return None
