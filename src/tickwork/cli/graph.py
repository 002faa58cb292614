"""`tickwork graph`: validate, show, convert and register graphs.

`validate`, `show` and `convert` read files as text: nothing of the author's is imported unless `--load` asks for it or
the graph is written in Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tickwork.cli import output
from tickwork.cli.failure import problem_json
from tickwork.cli.options import HERE, Json, Place
from tickwork.errors import GraphInvalid

if TYPE_CHECKING:
    from rich.text import Text

    from tickwork.model.graph import AgentGraph
    from tickwork.model.problems import Problem

app = App(name="graph", help="Validate, show, convert and register graphs.", result_action="return_value")

Source = Annotated[
    str,
    Parameter(help="A file (.yaml .json .dot .mmd .md .py:attribute), a folder, or module:attribute."),
]
Form = Literal["yaml", "json", "dot", "mermaid"]
FINDINGS = 4


@app.command
def validate(
    graph: Source,
    /,
    *,
    load: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Import the implementations too, and check that they fit."),
    ] = False,
    json: Json = False,
) -> int:
    """Check a graph; print every problem with its place and how to mend it. Exit code 4 when there is one."""
    found, problems = read(graph)
    if load:
        # Loading finds what reading found, and more.
        problems = _problems_of_loading(graph) or problems
    if json:
        output.emit_json(
            {
                "graph": None if found is None else found.label,
                "digest": None if found is None or problems else found.digest,
                "valid": not problems,
                "problems": [problem_json(p) for p in problems],
            }
        )
        return FINDINGS if problems else 0
    for problem in problems:
        output.emit_text(str(problem))
    if problems:
        output.say(f"{graph}: {output.count(len(problems), 'problem')}", "red")
        return FINDINGS
    if found is not None:
        output.say(f"{found.label} is valid: {counts(found)}", "green")
    return 0


@app.command
def show(graph: Source, /, *, json: Json = False) -> int:
    """Draw a graph in the terminal. With --json, print it as JSON."""
    from tickwork.formats import drawing

    found, problems = read(graph)
    if found is None or (json and problems):
        raise GraphInvalid(problems)
    if json:
        output.emit_text(_written(found, "json"))
        return 0
    if output.out().is_terminal:
        output.out().print(_coloured(drawing(found)), soft_wrap=True, end="")
    else:
        output.emit_text(drawing(found))
    for problem in problems:
        output.say(str(problem), "red")
    return FINDINGS if problems else 0


COLOURS = {
    "blue": r"\[[A-Za-z][\w-]*\]",
    "magenta": r"\{[A-Za-z][\w-]*\}",
    "green": r"[●◉] \w+",
    "yellow": r"[↩↑] [\w-]+",
    "dim": r"[│├└╞╘║═─▶]+",
}


def _coloured(picture: str) -> Text:
    """The drawing with its nodes and lines told apart."""
    from rich.text import Text

    text = Text(picture)
    for style, pattern in COLOURS.items():
        text.highlight_regex(pattern, style)
    return text


@app.command
def convert(
    graph: Source,
    /,
    *,
    to: Annotated[Form, Parameter(help="The format to write.")],
    output_file: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Write to this file instead of stdout.")
    ] = None,
    json: Json = False,
) -> int:
    """Write a graph in another format, with everything said that the source only implied.

    With --json the text comes in a document: graph, digest, format, text (or the file it was written to).
    """
    found = readable(graph)
    text = _written(found, to)
    about = {"graph": found.label, "digest": found.digest, "format": to}
    if output_file is None and json:
        output.emit_json({**about, "text": text, "file": None})
        return 0
    if output_file is None:
        output.emit_text(text)
        return 0
    from tickwork.cli.failure import Refusal

    try:
        output_file.write_text(text if text.endswith("\n") else text + "\n", "utf-8")
    except OSError as error:
        raise Refusal(f"{output_file} cannot be written: {error.strerror}.") from None
    if json:
        output.emit_json({**about, "text": None, "file": str(output_file)})
    output.say(f"{found.label} written to {output_file}")
    return 0


@app.command
def register(graph: Source, /, *, place: Place = HERE, json: Json = False) -> int:
    """Register a graph's name and version in the home, so that it can be started by name."""
    import asyncio

    from tickwork.cli.reach import register_graph
    from tickwork.cli.streams import load

    stored = asyncio.run(register_graph(place, load(graph)))
    if json:
        output.emit_json(
            {"name": stored.name, "version": stored.version, "digest": stored.digest, "source": stored.source}
        )
    else:
        output.say(f"{stored.name}@{stored.version} is registered for tenant {stored.tenant_id}", "green")
        output.emit_text(stored.digest)
    return 0


def read(source: str) -> tuple[AgentGraph | None, list[Problem]]:
    """The graph behind `source` and its problems. Files are read as text; Python graphs have to be loaded."""
    if _is_python(source):
        from tickwork.cli.streams import load

        try:
            return load(source).graph, []
        except GraphInvalid as error:
            return None, list(error.problems)
    from tickwork.formats import read_graph

    answer = read_graph(source)
    return answer.graph, list(answer.problems)


def readable(source: str) -> AgentGraph:
    """The graph behind `source`, which has to be valid: GraphInvalid."""
    found, problems = read(source)
    if found is None or problems:
        raise GraphInvalid(problems)
    return found


def counts(graph: AgentGraph) -> str:
    """`7 tasks, 6 plans, 20 edges`."""
    plans = sum(node.kind == "plan" for node in graph.nodes)
    words = (
        output.count(len(graph.nodes) - plans, "task"),
        output.count(plans, "plan"),
        output.count(len(graph.edges), "edge"),
    )
    return ", ".join(words)


def _is_python(source: str) -> bool:
    """`module:attribute` or `file.py[:attribute]`: a graph that only exists once its code has run."""
    path, _, attribute = source.rpartition(":")
    return source.endswith(".py") or bool(path and attribute.isidentifier() and not Path(source).exists())


def _problems_of_loading(source: str) -> list[Problem]:
    from tickwork.cli.streams import load

    try:
        load(source)
    except GraphInvalid as error:
        return list(error.problems)
    return []


def _written(graph: AgentGraph, form: Form) -> str:
    from tickwork.formats import write_graph

    return write_graph(graph, form)
