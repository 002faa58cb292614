"""A graph while it is being read: what every reader fills, and what becomes an AgentGraph at the end.

Nodes keep their options as a tree until then, so that a graph directory can add to them. A part that cannot be
understood is reported and left out; everything else goes on, so that all problems of a file come out in one go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tickwork.formats.fields import BROKEN, GRAPH_LIMITS, NODE, TEXT, Reading
from tickwork.formats.tree import Tree
from tickwork.model.graph import END, AgentGraph, Edge, EdgeKind, Join, Limits, Node, NodeKind
from tickwork.model.problems import Location

DEFAULT_VERSION = "0.1.0"
HEADER = ("name", "version", "description", "limits")
"""What a file says about the graph as a whole."""


@dataclass(slots=True)
class DraftNode:
    """A node as it was written: its options are checked at the end."""

    name: str
    kind: NodeKind
    at: Location
    options: Tree


@dataclass(slots=True)
class Draft:
    """What was read so far."""

    reading: Reading
    header: dict[str, Tree] = field(default_factory=dict)
    nodes: list[DraftNode] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    lost_edges: bool = False
    """Whether the ends of an edge could not be understood: then nothing can be said about what leads where."""
    doubtful: set[str] = field(default_factory=set)
    """Codes of problems that may come only of a part of an edge that could not be understood."""

    def add_edge(self, at: Location, places: dict[str, Tree] | None = None, **values: Any) -> None:
        """Add an edge. `places`: where its fields stand, by the names of the Edge's fields."""
        path = f"edges.{len(self.edges)}"
        self.reading.sources.put("edge", len(self.edges), at)
        for name, tree in (places or {}).items():
            self.reading.sources.put("field", f"{path}.{name}", tree.at)
            if tree.text_at:
                self.reading.sources.put_text(f"{path}.{name}", *tree.text_at)
        self.edges.append(lean_edge(**values))

    def graph(self, default_name: str) -> AgentGraph:
        """The graph, as far as it was understood."""
        sources = self.reading.sources
        nodes = []
        for index, node in enumerate(self.nodes):
            path = f"nodes.{index}"
            sources.put("node", node.name, node.at)
            sources.put("field", path, node.at)
            nodes.append(Node(name=node.name, kind=node.kind, **NODE.values(node.options, path, self.reading)))
        header = {}
        for key in ("name", "version", "description"):
            if tree := self.header.get(key):
                sources.put("field", key, tree.at)
                if key == "version" and isinstance(tree.value, float):
                    tree = Tree(str(tree.value), tree.at)  # `1.0` is a number to YAML, and no version to anybody
                value = TEXT.read(tree, key, self.reading)
                header[key] = value if isinstance(value, str) else None
        limits = Limits()
        if tree := self.header.get("limits"):
            sources.put("field", "limits", tree.at)
            read = GRAPH_LIMITS.read(tree, "limits", self.reading)
            limits = limits if read is BROKEN else read
        return AgentGraph(
            name=header.get("name") or legal_name(default_name),
            version=header.get("version") or DEFAULT_VERSION,
            description=header.get("description") or "",
            nodes=tuple(nodes),
            edges=tuple(self.edges),
            limits=limits,
        )


def lean_edge(
    source: str, target: str, kind: EdgeKind = "NORMAL", label: str = "", condition: str = "", join: Join | None = None
) -> Edge:
    """An edge that leaves to the default what equals it, so that its digest does not depend on how it was written."""
    values: dict[str, Any] = {"kind": kind, "label": label, "condition": condition}
    given = {key: value for key, value in values.items() if value and value != "NORMAL"}
    if join is not None and join != Join():
        given["join"] = join
    return Edge(source=source, target=target, **given)


def implied_kind(target: str) -> EdgeKind:
    """The kind of an edge that does not say its kind."""
    return "FINAL" if target == END else "NORMAL"


def legal_name(text: str) -> str:
    """A name for the graph, made of a file's or a folder's."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:128]
    return name if name[:1].isalpha() else f"graph_{name}"[:128].rstrip("_")
