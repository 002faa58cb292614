"""Records the histories anew: `python -m tests.histories.record`. Run it for a new shape, never to make a test pass.

What is recorded is how Tickwork decided when it was recorded. A change of the code that replays an old file otherwise
changes how lifetimes that exist already would go on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec

from tests.histories.form import FOLDER, History, write
from tests.histories.guarded_shapes import GUARDED
from tests.histories.shapes import SHAPES
from tests.histories.stage import perform
from tickwork.model.graph import graph_from_json

ALL = {**SHAPES, **GUARDED}


def record(name: str) -> Iterator[tuple[str, History]]:
    """The histories of one shape, by the name of their files; the lifetimes of a family are numbered."""
    story = ALL[name]
    graphs = story.graphs
    for number, (lifetime, log, policies) in enumerate(perform(name, story.tell), 1):
        graph = next(graph for graph in graphs if graph.digest == lifetime.graph_digest)
        graph = graph_from_json(msgspec.json.encode(graph))  # as it is read back: with the types of its fields
        yield (name if number == 1 else f"{name}.{number}"), History(lifetime, graph, log, policies)


def main(names: list[str]) -> None:
    """Writes the files of these shapes (of all, without names); an existing file is written only when it is named."""
    FOLDER.mkdir(exist_ok=True)
    for shape in names or ALL:
        for name, history in record(shape):
            path = FOLDER / f"{name}.jsonl"
            if path.exists() and not names:
                print(f"{path.name} is there already; name its shape to record it anew")
                continue
            path.write_bytes(write(history))
            print(f"{path.name}: {len(history.log)} entries, {history.lifetime.status}")


if __name__ == "__main__":
    main(sys.argv[1:])
