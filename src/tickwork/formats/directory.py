"""A graph directory: one drawing, and beside it the code and the options of its nodes.

    coding_agent/
      agent_graph.mmd        the graph, in any format (.dot .gv .mmd .mermaid .yaml .yml .json); or graph.mmd
      nodes.yaml             optional: NAME: {options}, as in a graph file
      plans/NAME/plan.py     def plan(plan_input)
      tasks/NAME/task.py     def task(task_input)

Code that lies where it is expected needs no `run`. Nothing is imported here.
"""

from __future__ import annotations

import re
from pathlib import Path

from tickwork.formats.draft import Draft, DraftNode
from tickwork.formats.schema import read_options
from tickwork.formats.tree import MAX_BYTES, Tree, Unreadable, decoded
from tickwork.formats.yaml import read_yaml
from tickwork.model.ids import NAME
from tickwork.model.problems import Location
from tickwork.model.validation import shown

GRAPH_STEMS = ("agent_graph", "graph")
SUFFIXES = (".dot", ".gv", ".mmd", ".mermaid", ".yaml", ".yml", ".json")
_WAITS = ("human", "signal", "timer", "child")
_MAKES_GRAPH = re.compile(r"^\w+[ \t]*(?::[^=\n]*)?=[ \t]*\(?\s*(?:\w+\.)?(?:Graph|AgentGraph)\(", re.MULTILINE)
_GRAPH_WORDS = re.compile(
    r"\bdigraph\b|\b(?:flowchart|graph)[ \t]+(?:TB|TD|BT|RL|LR)\b|^[ \t{]*\"?edges\"?[ \t]*:", re.MULTILINE
)


def find_graph_file(folder: Path) -> Path:
    """The one graph file of a directory. Raises Unreadable when there is none, or several."""
    found = graph_files(folder)
    if not found:
        hint = f"add agent_graph.yaml; known endings: {', '.join(SUFFIXES)}"
        if others := [path.as_posix() for path in _candidates(folder)]:
            hint += f"; or name the file: {' or '.join(others[:3])}"
        message = "this directory has no file agent_graph.* or graph.*"
        raise Unreadable(Location(str(folder)), message, hint, "no_graph_file")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:-1]) + f" and {found[-1].name}"
        raise Unreadable(
            Location(str(folder)), f"this directory has {names}", "keep one of them", "several_graph_files"
        )
    return found[0]


def graph_files(folder: Path) -> list[Path]:
    """The files of a directory that are called as a graph file is."""
    return [path for stem in GRAPH_STEMS for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]


def python_graphs(folder: Path) -> list[Path]:
    """The Python files of a directory that seem to make a graph. They are read as text, and not run."""
    return [path for path in sorted(folder.glob("*.py")) if _MAKES_GRAPH.search(_beginning(path))]


def _candidates(folder: Path) -> list[Path]:
    """Files of a directory that might be graphs under a name of their own."""
    drawn = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    return [path for path in drawn if _GRAPH_WORDS.search(_beginning(path))] + python_graphs(folder)


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def complete(draft: Draft, folder: Path) -> None:
    """Add to a draft what stands beside its graph file: the options in nodes.yaml, and the code by convention."""
    options = folder / "nodes.yaml"
    if options.is_file():
        try:
            text = decoded(options.read_bytes(), str(options))
            _merge(read_yaml(text, str(options), draft.reading.problems), draft)
        except Unreadable as error:
            draft.reading.problems.append(error.problem)
    by_convention = (folder / "tasks").is_dir() or (folder / "plans").is_dir()
    for node in draft.nodes:
        if not _bind(node, folder) and by_convention:
            _missing(node, draft)
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


def _bind(node: DraftNode, folder: Path) -> bool:
    """Let a node run the code that lies where it is expected, unless it says what it does. False: there is no code."""
    parts = node.options.value
    if not isinstance(parts, dict) or "run" in parts or any(word in parts for word in _WAITS):
        return True
    path = code_path(node.kind, node.name)
    # The name becomes part of a path: one that is not a legal name is reported elsewhere and looked up nowhere.
    if NAME.fullmatch(node.name) and _exactly(folder, path):
        node.options = Tree({**parts, "run": Tree(f"{path}:{node.kind}", node.at)}, node.options.at, node.options.keys)
        return True
    return not NAME.fullmatch(node.name)


def code_path(kind: str, name: str) -> str:
    """Where the code of a node lies in a graph directory."""
    return f"{kind}s/{name}/{kind}.py"


def missing_code(kind: str, name: str) -> tuple[str, str]:
    """What is said about a node of a graph directory that has no code, and how to mend it."""
    what, path = ("Task", code_path("task", name)) if kind == "task" else ("Plan", code_path("plan", name))
    waits = "" if kind == "plan" else ", or say what it waits for (human, signal, timer, child)"
    hint = f"write `def {kind}({kind}_input)` in {path}, or give `{name}` a `run`{waits}"
    return f"{what} `{name}` has no implementation: there is no file {path}", hint


def _missing(node: DraftNode, draft: Draft) -> None:
    draft.reading.say(node.at, "no_implementation", *missing_code(node.kind, node.name), node.name)


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
