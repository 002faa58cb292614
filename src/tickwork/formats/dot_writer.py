"""A graph as GraphViz DOT: everything said in attributes, nothing left to be implied."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tickwork.formats.dot import TEXTS
from tickwork.formats.dot_tokens import quoted
from tickwork.formats.drawn import DrawnEdge, say_the_rest
from tickwork.formats.fields import GRAPH_LIMITS, NODE
from tickwork.model.graph import END, START, AgentGraph, Edge, Join, Node

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS = frozenset({"node", "edge", "graph", "digraph", "subgraph", "strict"})
_STYLES = {"PARALLEL": "bold", "JOIN": "dashed"}


def write_dot(graph: AgentGraph) -> str:
    """The graph as a digraph that Graphviz can draw too."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: AgentGraph) -> Iterator[str]:
    yield f"digraph {_id(graph.name)} {{"
    header = {"version": graph.version} | ({"description": graph.description} if graph.description else {})
    if limits := GRAPH_LIMITS.options(graph.limits):
        header["limits"] = json.dumps(limits)
    yield f"  graph [{_attributes(header)}]"
    names = {node.name for node in graph.nodes}
    for mark in (START, END):
        if any(mark in (edge.source, edge.target) for edge in graph.edges) and mark not in names:
            yield f"  {mark} [shape=circle]"
    for node in graph.nodes:
        yield f"  {_id(node.name)} [{_attributes(_node(node))}]"
    for edge, drawn in zip(graph.edges, _drawn(graph), strict=True):
        attributes = _attributes(_edge(edge, drawn))
        yield f"  {_id(edge.source)} -> {_id(edge.target)}" + (f" [{attributes}]" if attributes else "")
    yield "}"


def _node(node: Node) -> dict[str, str]:
    found = {"type": node.kind, "shape": "box" if node.kind == "task" else "hexagon"}
    for name, value in NODE.options(node).items():
        text = isinstance(value, str) and name in TEXTS
        found["label" if name == "title" else name] = value if text else json.dumps(value, ensure_ascii=False)
    return found


def _drawn(graph: AgentGraph) -> list[DrawnEdge]:
    drawn = []
    for edge in graph.edges:
        given: dict[str, Any] = {} if edge.kind == "NORMAL" else {"kind": edge.kind}
        given |= {"condition": edge.condition} if edge.condition else {}
        drawn.append(DrawnEdge(edge.source, edge.target, edge.label, given=given))
    say_the_rest(graph.edges, drawn, {node.name: node.kind for node in graph.nodes})
    return drawn


def _edge(edge: Edge, drawn: DrawnEdge) -> dict[str, str]:
    found: dict[str, str] = {key: drawn.given[key] for key in ("kind", "condition") if key in drawn.given}
    if edge.label:
        found["label"] = edge.label
    if edge.join != Join():
        found["join"] = edge.join.mode
        found |= {"quorum": str(edge.join.count)} if edge.join.mode == "quorum" else {}
    if edge.kind in _STYLES:
        found["style"] = _STYLES[edge.kind]
    return found


def _attributes(attributes: dict[str, str]) -> str:
    return ", ".join(f"{key}={quoted(value)}" for key, value in attributes.items())


def _id(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _KEYWORDS else quoted(name)
