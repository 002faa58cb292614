"""The shape of a graph file: what YAML and JSON have in common, in both directions, and its JSON Schema."""

from __future__ import annotations

import itertools
from typing import Any, get_args

from tickwork.formats.draft import HEADER, Draft, DraftNode, implied_kind
from tickwork.formats.fields import BROKEN, GRAPH_LIMITS, NODE, TEXT, WHOLE, Choice, Reading
from tickwork.formats.tree import Tree
from tickwork.model.graph import END, AgentGraph, Edge, EdgeKind, Join, JoinMode, NodeKind
from tickwork.model.ids import NAME
from tickwork.model.validation import nearest, shown

FORMAT_VERSION = 1
KINDS = Choice(get_args(EdgeKind))
JOIN_WORDS = Choice(tuple(word for word in get_args(JoinMode) if word != "quorum"))

_GRAPH_KEYS = {
    "tickwork": "the version of this format: 1",
    "name": "the graph's name; the file's name when it is left out",
    "version": "its semantic version; 0.1.0 when it is left out",
    "description": "what it is for",
    "limits": "bounds of one lifetime; what exceeds one ends it as FAILED",
    "tasks": "the nodes that work: NAME: {options}",
    "plans": "the nodes that decide: NAME: {options}",
    "edges": "what leads where: `a -> b`, or {from: a, to: b, ...}",
}
_EDGE_KEYS = {
    "from": "`start`, or a node",
    "to": "a node, or `end`",
    "kind": "FINAL into `end`, JOIN where join is given, else NORMAL",
    "label": "what the drawing shows",
    "condition": "CEL expression; only out of a Task",
    "join": "when a JOIN fires: all, settled, any, or {quorum: 2}",
}
_FIELDS = {"from": "source", "to": "target"}
# What a part of an edge that could not be understood may bring about: it is not reported then.
DOUBTS = {
    "kind": {"join_without_parallel", "bad_join", "bad_final", "bad_entry", "parallel_from_task"},
    "join": {"join_without_parallel", "bad_join"},
    "condition": {"ambiguous_edges", "duplicate_edge"},
}


def read_tree(tree: Tree, reading: Reading) -> Draft:
    """Make a draft of the tree of a YAML or JSON file."""
    draft = Draft(reading)
    reading.sources.put("graph", "", tree.at)
    if not isinstance(tree.value, dict):
        reading.wrong_type(tree, "the file", "a map with the keys tasks, plans and edges")
        draft.lost_edges = True
        return draft
    for key, part in tree.value.items():
        if key in HEADER:
            draft.header[key] = part
        elif key in ("tasks", "plans"):
            read_nodes(part, "task" if key == "tasks" else "plan", draft)
        elif key == "edges":
            _edges(part, draft)
        elif key == "tickwork":
            if part.value != FORMAT_VERSION or isinstance(part.value, bool):
                message = f"this is version {shown(str(part.value))} of the graph format, and only 1 is known"
                reading.say(part.at, "format_version", message, "write `tickwork: 1`, or use a newer Tickwork")
        else:
            reading.unknown_key(key, tree.keys[key], _GRAPH_KEYS, "a graph")
    return draft


def read_nodes(tree: Tree, kind: NodeKind, draft: Draft) -> None:
    """Add the nodes of one kind: a map from names to options."""
    if not isinstance(tree.value, dict):
        draft.reading.wrong_type(tree, "tasks" if kind == "task" else "plans", "a map of names to options")
        draft.lost_edges = True
        return
    for name, options in tree.value.items():
        draft.nodes.append(DraftNode(name, kind, tree.keys[name], read_options(options, name, draft.reading)))


def read_options(tree: Tree, name: str, reading: Reading) -> Tree:
    """The options of a node as a map: nothing and a lone `run` are short for one."""
    if isinstance(tree.value, dict):
        return tree
    if isinstance(tree.value, str):
        return Tree({"run": tree}, tree.at, {"run": tree.at})
    if tree.value is not None:
        reading.wrong_type(tree, name, "a map of options, or the name of the code to run")
    return Tree({}, tree.at)


def _edges(tree: Tree, draft: Draft) -> None:
    if not isinstance(tree.value, list):
        draft.reading.wrong_type(tree, "edges", "a list")
        draft.lost_edges = True
        return
    for part in tree.value:
        if isinstance(part.value, str):
            _chain(part, part.value, draft)
        elif isinstance(part.value, dict):
            _edge(part, part.value, draft)
        else:
            draft.reading.wrong_type(part, "edges", "a list of `a -> b` or {from: a, to: b}")
            draft.lost_edges = True


def _chain(tree: Tree, text: str, draft: Draft) -> None:
    """`a -> b`, or a longer chain."""
    names = [name.strip() for name in text.split("->")]
    if len(names) < 2 or not all(names) or any(" " in name for name in names):
        hint = "write `a -> b`; for options write {from: a, to: b, label: ...}"
        draft.reading.say(tree.at, "bad_edge", f"`{shown(text)}` is not an edge", hint)
        draft.lost_edges = True
        return
    for source, target in itertools.pairwise(names):
        draft.add_edge(tree.at, source=source, target=target, kind=implied_kind(target))


def _edge(tree: Tree, given: dict[str, Tree], draft: Draft) -> None:
    reading, values = draft.reading, dict[str, Any]()
    parts = _meant_keys(tree, given, draft)
    for key, part in parts.items():
        if key == "kind":
            value = KINDS.read(part, key, reading)
        elif key == "join":
            value = read_join(part, reading)
        else:
            value = TEXT.read(Tree(part.value, part.at), key, reading)
        if value is BROKEN:
            draft.doubtful |= DOUBTS.get(key, set())
        else:
            values[_FIELDS.get(key, key)] = value
    for key in ("from", "to"):
        if key not in parts:
            hint = f"add `{key}`: {_EDGE_KEYS[key]}"
            reading.say(tree.at, "missing_key", f"an edge needs the key `{key}`", hint)
    if "source" not in values or "target" not in values:
        draft.lost_edges = True
        return
    if "kind" not in values:
        values["kind"] = "JOIN" if "join" in parts and values["target"] != END else implied_kind(values["target"])
    draft.add_edge(tree.at, {_FIELDS.get(key, key): part for key, part in parts.items()}, **values)


def _meant_keys(tree: Tree, given: dict[str, Tree], draft: Draft) -> dict[str, Tree]:
    """The parts of an edge under the keys that were meant: one slip of the pen hides no other problem."""
    parts = {key: part for key, part in given.items() if key in _EDGE_KEYS}
    for key in [key for key in given if key not in _EDGE_KEYS]:
        near = draft.reading.unknown_key(key, tree.keys[key], _EDGE_KEYS, "an edge")
        if near and near not in parts:
            parts[near] = given[key]
        else:
            draft.doubtful.update(*DOUBTS.values())
    return parts


def read_join(tree: Tree, reading: Reading) -> Any:
    """When a JOIN fires: a word, or {quorum: n}."""
    if not isinstance(tree.value, dict):
        if tree.value == "quorum":
            reading.say(tree.at, "bad_quorum", "a quorum needs its number", "write {quorum: 2}")
            return BROKEN
        if isinstance(tree.value, str) and nearest(tree.value, get_args(JoinMode)) == "quorum":
            message = f"`join` cannot be `{shown(tree.value)}`"
            reading.say(tree.at, "unknown_word", message, "did you mean {quorum: 2}?")
            return BROKEN
        word = JOIN_WORDS.read(tree, "join", reading)
        return word if word is BROKEN else Join(mode=word) if word != "all" else Join()
    unknown = [key for key in tree.value if key != "quorum"]
    for key in unknown:
        reading.unknown_key(key, tree.keys[key], {"quorum": 2}, "join")
    if unknown:
        return BROKEN
    if "quorum" not in tree.value:
        return reading.wrong_type(tree, "join", "all, settled, any or {quorum: 2}")
    count = WHOLE.read(tree.value["quorum"], "quorum", reading)
    return count if count is BROKEN else Join(mode="quorum", count=count)


def write_tree(graph: AgentGraph) -> dict[str, Any]:
    """The graph as the tree that `read_tree` understands; defaults left out."""
    tree: dict[str, Any] = {"tickwork": FORMAT_VERSION, "name": graph.name, "version": graph.version}
    if graph.description:
        tree["description"] = graph.description
    if limits := GRAPH_LIMITS.options(graph.limits):
        tree["limits"] = limits
    for key, kind in (("tasks", "task"), ("plans", "plan")):
        if nodes := {node.name: NODE.options(node) for node in graph.nodes if node.kind == kind}:
            tree[key] = nodes
    tree["edges"] = [_write_edge(edge) for edge in graph.edges]
    return tree


def _write_edge(edge: Edge) -> str | dict[str, Any]:
    tree: dict[str, Any] = {"from": edge.source, "to": edge.target}
    if edge.kind != implied_kind(edge.target):
        tree["kind"] = edge.kind
    if edge.label:
        tree["label"] = edge.label
    if edge.condition:
        tree["condition"] = edge.condition
    if edge.join != Join():
        tree["join"] = write_join(edge.join)
    return f"{edge.source} -> {edge.target}" if len(tree) == 2 else tree


def write_join(join: Join) -> str | dict[str, int]:
    """The inverse of `read_join`."""
    return {"quorum": join.count} if join.mode == "quorum" else join.mode


def graph_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a graph file, YAML or JSON."""
    name = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    text = {"type": "string"}
    run = {"type": "string", "description": "short for {run: ...}"}
    nodes = {"type": "object", "propertyNames": name, "additionalProperties": {"$ref": "#/$defs/node"}}
    quorum = {
        "type": "object",
        "properties": {"quorum": {"type": "integer", "minimum": 1}},
        "required": ["quorum"],
        "additionalProperties": False,
    }
    edge_types: dict[str, dict[str, Any]] = {
        "kind": KINDS.schema(),
        "join": {"anyOf": [JOIN_WORDS.schema(), quorum]},
        "from": name,
        "to": name,
    }
    edge = {
        "type": "object",
        "properties": {key: {**edge_types.get(key, text), "description": about} for key, about in _EDGE_KEYS.items()},
        "required": ["from", "to"],
        "additionalProperties": False,
    }
    types: dict[str, dict[str, Any]] = {
        "tickwork": {"const": FORMAT_VERSION},
        "name": name,
        "limits": GRAPH_LIMITS.schema(),
        "tasks": nodes,
        "plans": nodes,
        "edges": {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "->"}, {"$ref": "#/$defs/edge"}]}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tickwork graph",
        "type": "object",
        "properties": {key: {**types.get(key, text), "description": about} for key, about in _GRAPH_KEYS.items()},
        "additionalProperties": False,
        "$defs": {"node": {"anyOf": [NODE.schema(), run, {"type": "null"}]}, "edge": edge},
    }
