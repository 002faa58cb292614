"""A graph as a Mermaid flowchart: the drawing says what it can, `tickwork` comments say the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tickwork.formats.drawn import DrawnEdge, join_label, say_the_rest
from tickwork.formats.fields import GRAPH_LIMITS, NODE
from tickwork.formats.mermaid import meant
from tickwork.formats.schema import write_join
from tickwork.model.graph import END, START, AgentGraph, Node

_SAFE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
_SAFE_TEXT = re.compile(r"[\w .,:!?/+*'-]+")
# Words that begin a statement of their own, in Mermaid or in one of its versions.
_KEYWORDS = frozenset({
    "graph", "flowchart", "subgraph", "end", "style", "linkstyle", "class", "classdef", "click", "direction",
    "default", "start", "acctitle", "accdescr", "call", "href", "interpolate",
})  # fmt: skip
_ESCAPED = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\n": "<br>"}


def write_mermaid(graph: AgentGraph) -> str:
    """The graph as a flowchart that Mermaid draws."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: AgentGraph) -> Iterator[str]:
    yield "flowchart TD"
    header: dict[str, Any] = {"name": graph.name, "version": graph.version}
    if graph.description:
        header["description"] = graph.description
    if limits := GRAPH_LIMITS.options(graph.limits):
        header["limits"] = limits
    yield _comment(header)
    ids = _ids(graph)
    for mark, text in ((START, "Start"), (END, "End")):
        if any(mark in (edge.source, edge.target) for edge in graph.edges):
            yield f"  {ids[mark]}(({text}))"
    for node in graph.nodes:
        yield from _node(node, ids[node.name])
    drawn = _drawn(graph)
    spoken = {(e.source, e.target) for e, d in zip(graph.edges, drawn, strict=True) if d.given}
    for edge, picture in zip(graph.edges, drawn, strict=True):
        if (edge.source, edge.target) in spoken:
            yield _comment({"edge": f"{edge.source} -> {edge.target}", **_given(picture.given)})
        arrow = "==>" if picture.thick else "-->"
        text = join_label(edge)
        yield f"  {ids[edge.source]} {arrow}{f'|{_text(text)}|' if text else ''} {ids[edge.target]}"


def _node(node: Node, id_: str) -> Iterator[str]:
    title = node.title or node.name
    text = _text(f"{node.kind.capitalize()}: {title}")
    yield f"  {id_}[{text}]" if node.kind == "task" else f"  {id_}{{{{{text}}}}}"
    options = NODE.options(node)
    if node.title != node.name and (not node.title or _drawn_text(title) == title):
        options.pop("title", None)
    if id_ != node.name:
        options = {"name": node.name, **options}
    if options:
        yield _comment({"node": id_, **options})


def _drawn(graph: AgentGraph) -> list[DrawnEdge]:
    drawn = []
    for edge in graph.edges:
        thick = edge.kind == "PARALLEL"
        drawn.append(DrawnEdge(edge.source, edge.target, _drawn_text(join_label(edge)), thick))
    say_the_rest(graph.edges, drawn, {node.name: node.kind for node in graph.nodes})
    return drawn


def _given(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "join": write_join(given["join"])} if "join" in given else given


def _ids(graph: AgentGraph) -> dict[str, str]:
    """Each node's id in the drawing: its name, unless Mermaid would read that as something else."""
    names = {node.name for node in graph.nodes}
    ids, count = {name: name for name in names}, 0
    for node in graph.nodes:
        if not _SAFE_ID.fullmatch(node.name) or node.name.lower() in _KEYWORDS:
            count += 1
            while f"n{count}" in names:
                count += 1
            ids[node.name] = f"n{count}"
    for mark in (START, END):
        free = mark.capitalize()
        while free in names:
            free += "_"
        ids[mark] = free
    return ids


def _text(text: str) -> str:
    if _SAFE_TEXT.fullmatch(text) and "--" not in text:
        return text
    return '"' + "".join(_ESCAPED.get(sign, sign) for sign in text) + '"'


def _drawn_text(text: str) -> str:
    """What is read back of a text once it is drawn."""
    drawn = _text(text)
    return meant(drawn[1:-1] if drawn.startswith('"') else drawn)


def _comment(tree: dict[str, Any]) -> str:
    return f"  %% tickwork: {json.dumps(tree)}"
