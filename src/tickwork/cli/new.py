"""`tickwork new NAME`: a folder with a graph that runs, policies that hold and tests that pass, to make one's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import Json
from tickwork.model.ids import NAME

FILES = (
    "graph.yaml",
    "tasks/write.py",
    "plans/review.py",
    "policies.yaml",
    "tests/test_graph.py",
    "README.md",
    "gitignore",
)


def new(
    name: Annotated[Path, Parameter(help="The graph's name, or a path that ends in it.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Make a folder with a small graph, its Task and Plan, policies, and tests that pass."""
    word = name.name
    if not NAME.fullmatch(word):
        raise Refusal(
            f"`{word}` cannot be a graph's name.",
            "Use letters, digits, - and _, at most 128, beginning with a letter.",
        )
    if name.is_dir() and any(name.iterdir()):
        raise Refusal(f"The folder {name} is not empty, and nothing in it is overwritten.", "Choose another name.")
    if name.exists() and not name.is_dir():
        raise Refusal(f"{name} exists already and is no folder.", "Choose another name.")
    written = []
    templates = files("tickwork.cli") / "scaffold"
    try:
        for file in FILES:
            target = name / (f".{file}" if file == "gitignore" else file)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / f"{file}.template").read_text("utf-8")
            target.write_text(text.replace("{{name}}", word), "utf-8")
            written.append(str(target))
            output.say(f"  {target}", "dim")
    except OSError as error:
        raise Refusal(f"{error.filename or name} cannot be written: {error.strerror}.") from None
    if json:
        output.emit_json({"name": word, "folder": str(name), "files": written})
    output.say(f"{name} is ready. Next:", "green")
    output.say(f"    cd {name}")
    output.say('    tickwork run graph.yaml --policies policies.yaml --input \'{"topic": "durable agents"}\'')
    output.say("    pytest")
    return 0
