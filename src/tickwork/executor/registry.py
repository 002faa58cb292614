"""Which code this process can run: graphs by digest, and the implementation of each of their nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tickwork.model.graph import AgentGraph, Node
from tickwork.sdk.implementation import Implementation

if TYPE_CHECKING:
    from tickwork.sdk.loading import BoundGraph


class BoundNode(msgspec.Struct, frozen=True):
    """A node with its implementation; `base` is the folder that a file reference in `run` is relative to."""

    graph: AgentGraph
    node: Node
    implementation: Implementation
    base: Path


class Registry:
    """The graphs that are bound in this process."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], BoundNode] = {}
        self._listeners: list[Callable[[str], None]] = []

    def bind(self, bound: BoundGraph) -> None:
        """Lets executors with this registry run the graph. Again for a graph that has been loaded anew."""
        graph = bound.graph
        for node in graph.nodes:
            implementation = bound.implementations.get(node.name)
            if implementation is not None:
                self._nodes[graph.digest, node.name] = BoundNode(graph, node, implementation, bound.base)
        for listener in self._listeners:
            listener(graph.digest)

    def find(self, digest: str, node: str) -> BoundNode | None:
        """The node of a bound graph; None when the graph is not bound, or its node has no code."""
        return self._nodes.get((digest, node))

    def on_bind(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the digest of every graph that is bound from now on."""
        self._listeners.append(listener)
