"""A graph directory: one drawing, and beside it the code and the options of its nodes.

    coding_agent/
      agent_graph.mmd        the graph, in any format (.dot .gv .mmd .mermaid .yaml .yml .json)
      nodes.yaml             optional: NAME: {options}, as in a graph file
      plans/NAME/plan.py     def plan(plan_input)
      tasks/NAME/task.py     def task(task_input)

Code that lies where it is expected needs no `run`. Nothing is imported here.
"""

from __future__ import annotations

from pathlib import Path

from tickwork.formats.draft import Draft, DraftNode
from tickwork.formats.schema import read_options
from tickwork.formats.tree import Tree, Unreadable, decoded
from tickwork.formats.yaml import read_yaml
from tickwork.model.ids import NAME
from tickwork.model.problems import Location
from tickwork.model.validation import shown

SUFFIXES = (".dot", ".gv", ".mmd", ".mermaid", ".yaml", ".yml", ".json")
_WAITS = ("human", "signal", "timer", "child")


def find_graph_file(folder: Path) -> Path:
    """The one graph file of a directory. Raises Unreadable when there is none, or several."""
    found = [path for suffix in SUFFIXES if (path := folder / f"agent_graph{suffix}").is_file()]
    if not found:
        hint = f"add agent_graph.yaml; known endings: {', '.join(SUFFIXES)}"
        raise Unreadable(Location(str(folder)), "this directory has no file agent_graph.*", hint, "no_graph_file")
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise Unreadable(
            Location(str(folder)), f"this directory has {names}", "keep one of them", "several_graph_files"
        )
    return found[0]


def complete(draft: Draft, folder: Path) -> None:
    """Add to a draft what stands beside its graph file: the options in nodes.yaml, and the code by convention."""
    options = folder / "nodes.yaml"
    if options.is_file():
        try:
            _merge(read_yaml(decoded(options.read_bytes(), str(options)), str(options)), draft)
        except Unreadable as error:
            draft.reading.problems.append(error.problem)
    for node in draft.nodes:
        _bind(node, folder)
    for kind in ("task", "plan"):
        _strays(kind, draft, folder)


def _merge(tree: Tree, draft: Draft) -> None:
    if not isinstance(tree.value, dict):
        draft.reading.wrong_type(tree, "the file", "a map of node names to options")
        return
    nodes = {node.name: node for node in draft.nodes}
    for name, part in tree.value.items():
        if name not in nodes:
            near = draft.reading.near(name, nodes)
            hint = f"did you mean `{near}`?" if near else "draw it in the graph file first"
            at = tree.keys[name]
            draft.reading.say(at, "unknown_node", f"`{shown(name)}` is not a node of the graph", hint, shown(name))
            continue
        more, had = read_options(part, name, draft.reading), nodes[name].options
        assert isinstance(more.value, dict)  # noqa: S101 - read_options makes a map of everything
        assert isinstance(had.value, dict)  # noqa: S101 - so do all readers
        for key in more.value:
            if key in had.value:
                message = f"{key} of `{shown(name)}` is given here and in the graph file"
                at = more.keys[key]
                hint = f"keep one of them; the other stands at {had.value[key].at}"
                draft.reading.say(at, "given_twice", message, hint, shown(name))
        nodes[name].options = Tree({**had.value, **more.value}, more.at, {**had.keys, **more.keys})


def _bind(node: DraftNode, folder: Path) -> None:
    """Let a node run the code that lies where it is expected, unless it says what it does."""
    parts = node.options.value
    if not isinstance(parts, dict) or "run" in parts or any(word in parts for word in _WAITS):
        return
    path = f"{node.kind}s/{node.name}/{node.kind}.py"
    # The name becomes part of a path: one that is not a legal name is reported elsewhere and looked up nowhere.
    if NAME.fullmatch(node.name) and _exactly(folder, path):
        node.options = Tree({**parts, "run": Tree(f"{path}:{node.kind}", node.at)}, node.options.at, node.options.keys)


def _exactly(folder: Path, path: str) -> bool:
    """Whether a file is there under this very name: some file systems do not tell cases apart, Tickwork does."""
    for part in path.split("/"):
        if not folder.is_dir() or part not in {entry.name for entry in folder.iterdir()}:
            return False
        folder /= part
    return folder.is_file()


def _strays(kind: str, draft: Draft, folder: Path) -> None:
    """Code that no node runs is most often a name spelt in two ways."""
    names = {node.name: node.kind for node in draft.nodes}
    place = folder / f"{kind}s"
    for entry in sorted(place.iterdir()) if place.is_dir() else ():
        code = entry / f"{kind}.py"
        if not code.is_file() or names.get(entry.name) == kind:
            continue
        at, name = Location(str(code)), shown(entry.name)
        if entry.name in names:
            other = "Plan" if kind == "task" else "Task"
            message = f"this is the code of a {kind}, but `{name}` is a {other} of the graph"
            hint = f"move it to {names[entry.name]}s/{name}/{names[entry.name]}.py, or change the graph"
            draft.reading.say(at, "wrong_kind", message, hint, name)
        else:
            near = draft.reading.near(entry.name, [known for known, its in names.items() if its == kind])
            hint = f"did you mean `{near}`?" if near else "add the node to the graph, or remove the folder"
            draft.reading.say(
                at, "unknown_node", f"there is code for `{name}`, which is not a node of the graph", hint, name
            )
