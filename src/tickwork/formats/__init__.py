"""Graphs in and out of files: YAML, JSON, GraphViz DOT, Mermaid, and a directory with code beside the graph.

Reading executes nothing, takes time linear in the size of the file, and reports all problems at once instead of
raising. `docs/formats.md` describes each format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tickwork.errors import GraphInvalid, NotFound, StorageError, UsageError
from tickwork.model.graph import AgentGraph
from tickwork.model.problems import Location, Problem
from tickwork.model.validation import FROM_EDGES, SourceMap, validate

if TYPE_CHECKING:
    from tickwork.formats.draft import Draft
    from tickwork.formats.fields import Reading

Format = Literal["yaml", "json", "dot", "mermaid"]
FORMATS: tuple[Format, ...] = ("yaml", "json", "dot", "mermaid")
SUFFIXES: dict[str, Format] = {
    ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".dot": "dot", ".gv": "dot",
    ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "mermaid", ".txt": "mermaid",
}  # fmt: skip


@dataclass(frozen=True)
class ReadGraph:
    """What a file says. `graph` is only fit to run when `problems` is empty; None: nothing could be understood.

    `base` is the folder that file paths in `run` are relative to.
    """

    graph: AgentGraph | None
    problems: list[Problem] = field(default_factory=list)
    sources: SourceMap = field(default_factory=SourceMap)
    base: Path = field(default_factory=Path)


def read_graph(path: Path | str, text: str | None = None, *, fmt: str | None = None) -> ReadGraph:
    """Read and validate a graph file or directory; `text` takes the place of the file's content.

    `fmt` (a name of `FORMATS`) is told by the ending when it is left out. Raises NotFound when there is no such file,
    StorageError when it cannot be read and UsageError for an unknown `fmt`; whatever stands in the file becomes
    problems.
    """
    from tickwork.formats.directory import GRAPH_STEMS, complete, find_graph_file
    from tickwork.formats.fields import Reading
    from tickwork.formats.tree import Unreadable

    path = Path(path)
    if fmt is not None and fmt not in FORMATS:
        raise UsageError(f"there is no graph format `{fmt}`; it is one of {', '.join(FORMATS)}")
    folder = path if text is None and path.is_dir() else None
    reading = Reading(str(path))
    try:
        if folder:
            path = find_graph_file(folder)
            reading = Reading(str(path))
        draft = _draft(path, content(path, text), fmt or _format_of(path), reading)
    except Unreadable as error:
        return ReadGraph(None, [*reading.problems, error.problem], reading.sources, path.parent)
    if folder:
        complete(draft, folder)
    resolved = path.absolute()
    graph = draft.graph(resolved.parent.resolve().name if path.stem in GRAPH_STEMS else path.stem)
    found = validate(graph, reading.sources)
    doubtful = FROM_EDGES if draft.lost_edges else draft.doubtful
    found = [problem for problem in found if problem.code not in doubtful]
    problems = sorted([*reading.problems, *found], key=lambda problem: problem.location)
    return ReadGraph(graph, problems, reading.sources, path.parent)


def load(path: Path | str) -> AgentGraph:
    """The graph of a file or a directory. Raises GraphInvalid with every problem; otherwise as `read_graph`."""
    read = read_graph(path)
    if read.problems or read.graph is None:
        raise GraphInvalid(read.problems)
    return read.graph


def write_graph(graph: AgentGraph, fmt: str) -> str:
    """A valid graph as a file of this format. Reading it back gives the same digest. UsageError: unknown format."""
    if fmt == "dot":
        from tickwork.formats.dot_writer import write_dot

        return write_dot(graph)
    if fmt == "mermaid":
        from tickwork.formats.mermaid_writer import write_mermaid

        return write_mermaid(graph)
    from tickwork.formats.schema import write_tree

    if fmt == "json":
        from tickwork.formats.json import write_json

        return write_json(write_tree(graph))
    if fmt == "yaml":
        from tickwork.formats.yaml_writer import write_yaml

        return write_yaml(write_tree(graph))
    raise UsageError(f"there is no graph format `{fmt}`; it is one of {', '.join(FORMATS)}")


def drawing(graph: AgentGraph) -> str:
    """The graph as a picture for a terminal; see `tickwork.formats.drawing`."""
    from tickwork.formats.drawing import draw

    return draw(graph)


def content(path: Path, text: str | None = None) -> str:
    """The text of a file, or `text` in its place, checked and with every line break made `\\n`.

    Raises NotFound, StorageError, and Unreadable (`tickwork.formats.tree`) for what is too large or no text.
    """
    from tickwork.formats.tree import MAX_BYTES, decoded

    if text is not None:
        return decoded(text.encode("utf-8", "surrogatepass"), str(path))
    try:
        with path.open("rb") as file:
            return decoded(file.read(MAX_BYTES + 1), str(path))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None


def _format_of(path: Path) -> str:
    from tickwork.formats.tree import Unreadable

    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        hint = f"name the file with one of {', '.join(SUFFIXES)}, or say the format"
        raise Unreadable(Location(str(path)), f"`{path.name}` has no ending of a graph format", hint, "unknown_format")
    return found


def _draft(path: Path, text: str, fmt: str, reading: Reading) -> Draft:
    file = str(path)
    if fmt == "dot":
        from tickwork.formats.dot import read_dot

        return read_dot(text, file, reading)
    if fmt == "mermaid":
        from tickwork.formats.mermaid import read_mermaid

        return read_mermaid(text, file, reading)
    from tickwork.formats.schema import read_tree

    if fmt == "json":
        from tickwork.formats.json import read_json

        return read_tree(read_json(text, file, reading.problems), reading)
    from tickwork.formats.yaml import read_yaml

    return read_tree(read_yaml(text, file, reading.problems), reading)
