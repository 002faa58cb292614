"""What a drawing means: the reading of Mermaid and DOT edges, which have a label and a thickness and little else.

- an edge into the end is FINAL;
- a label that begins with JOIN makes a JOIN: `JOIN`, `JOIN settled`, `JOIN quorum 2: the rest is the label`;
  another word after JOIN is a problem;
- several edges of one Plan with the same label are PARALLEL, and so is a thick arrow;
- labels on the alternatives out of a Task become conditions on the result's route; an edge without a label is the
  default. The label of a Task's only edge is just a label;
- two Tasks that are joined directly (Mermaid only) have a Plan between them that passes the result on.

Whatever is given in so many words (a DOT attribute, a `tickwork` comment) goes before all that.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from tickwork.formats.draft import Draft, DraftNode, lean_edge
from tickwork.formats.passing import RUN
from tickwork.formats.tree import Tree, planted
from tickwork.model.graph import END, START, Edge, Join, JoinMode
from tickwork.model.problems import Location
from tickwork.model.words import nearest, shown

_JOIN = re.compile(r"JOIN\b(?:\s+(?:(all|settled|any)\b|quorum\s*[:= ]\s*([0-9]{1,9})\b)|)\s*:?\s*")


_JOIN_MODE = re.compile(r"JOIN\s+(?:(?:all|settled|any)\b|quorum\s*[:= ]\s*[0-9]{1,9}\b)")
_WORD_AFTER = re.compile(r"JOIN\s+([^\s:]+)")


@dataclass(slots=True)
class DrawnEdge:
    """An edge as it was drawn. `given`: fields of the Edge that were written in so many words, not implied."""

    source: str
    target: str
    label: str = ""
    thick: bool = False
    at: Location = field(default_factory=Location)
    given: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Tree] = field(default_factory=dict)


def understand(drawn: Iterable[DrawnEdge], kinds: Mapping[str, str], draft: Draft) -> None:
    """Add the edges that a drawing means to the draft."""
    drawn = list(drawn)
    for edge in drawn:
        if "kind" not in edge.given and edge.source != START and edge.target != END:
            _check_join(edge, draft)
    for edge, values in zip(drawn, meaning(drawn, kinds), strict=True):
        draft.add_edge(edge.at, edge.places, **values)


def _check_join(edge: DrawnEdge, draft: Draft) -> None:
    """Report a word after JOIN that is no way to join: it would be taken for a label, and all branches waited for."""
    found = _WORD_AFTER.match(edge.label)
    if not found or _JOIN_MODE.match(edge.label):
        return
    at = edge.places["label"].at if "label" in edge.places else edge.at
    subject, word = shown(f"{edge.source} -> {edge.target}"), shown(found[1])
    near = nearest(found[1], get_args(JoinMode))
    if found[1] == "quorum":
        message, hint = f"the quorum of `{subject}` has no number", "write how many are enough: JOIN quorum 2"
    else:
        message = f"`{subject}` cannot JOIN `{word}`"
        hint = f"did you mean `{near}`?" if near else f"it is one of {', '.join(get_args(JoinMode))}."
        hint += f" A text for people stands after a colon: JOIN: {shown(edge.label[found.start(1) :])}"
    draft.reading.say(at, "bad_join", message, hint, subject)


def bridged(drawn: list[DrawnEdge], draft: Draft) -> list[DrawnEdge]:
    """The edges with a Plan put between two Tasks that are joined directly; the Plans are added to the draft.

    The first half of such an edge keeps all that was drawn.
    """
    kinds = {node.name: node.kind for node in draft.nodes}
    found: list[DrawnEdge] = []
    for edge in drawn:
        found.append(edge)
        if edge.thick or not kinds.get(edge.source) == kinds.get(edge.target) == "task":
            continue
        name = f"{edge.source}_to_{edge.target}"[:120]
        while name in kinds:
            name += "_"
        kinds[name] = "plan"
        options = {"title": "Pass on", "run": RUN, "config": {"next": edge.target}}
        draft.nodes.append(DraftNode(name, "plan", edge.at, planted(options, edge.at)))
        found.append(DrawnEdge(name, edge.target, at=edge.at))
        edge.target = name
    return found


def meaning(drawn: list[DrawnEdge], kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """The fields of the Edge that each drawn edge stands for. `kinds`: task or plan, by node."""
    read = [_alone(edge) for edge in drawn]
    out: defaultdict[str, list[int]] = defaultdict(list)
    for index, edge in enumerate(drawn):
        out[edge.source].append(index)
    for source, indexes in out.items():
        if kinds.get(source) == "plan":
            _choices(indexes, drawn, read)
        elif kinds.get(source) == "task" and len(indexes) > 1:
            for index in indexes:
                if label := read[index]["label"]:
                    read[index]["condition"] = f"route == {cel_string(label)}"
    for edge, values in zip(drawn, read, strict=True):
        values.update(edge.given)
    return read


def _alone(edge: DrawnEdge) -> dict[str, Any]:
    """What an edge means without its neighbours."""
    values: dict[str, Any] = {"source": edge.source, "target": edge.target, "label": edge.label, "kind": "NORMAL"}
    if "kind" in edge.given:
        values["kind"] = edge.given["kind"]
    elif edge.target == END:
        values["kind"] = "FINAL"
    elif edge.source != START and (found := _JOIN.match(edge.label)):
        mode: Any = found[1] or "all"
        join = Join(mode="quorum", count=int(found[2])) if found[2] else Join(mode=mode)
        values |= {"kind": "JOIN", "join": join, "label": edge.label[found.end() :]}
    elif edge.thick and edge.source != START:
        values["kind"] = "PARALLEL"
    return values


def _choices(indexes: list[int], drawn: list[DrawnEdge], read: list[dict[str, Any]]) -> None:
    plain = [index for index in indexes if read[index]["kind"] == "NORMAL" and drawn[index].label]
    labels = Counter(drawn[index].label for index in plain)
    for index in plain:
        if labels[drawn[index].label] > 1:
            read[index]["kind"] = "PARALLEL"


def cel_string(text: str) -> str:
    """A text as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def join_label(edge: Edge) -> str:
    """The label that draws an edge: what makes it a JOIN, and its own."""
    if edge.kind != "JOIN":
        return edge.label
    mode = {"all": "", "quorum": f" quorum {edge.join.count}"}.get(edge.join.mode, f" {edge.join.mode}")
    return f"JOIN{mode}" + (f": {edge.label}" if edge.label else "")


def say_the_rest(edges: Sequence[Edge], drawn: list[DrawnEdge], kinds: Mapping[str, str]) -> None:
    """Add to what each drawn edge is `given` whatever its drawing alone would get wrong.

    What one edge is given may change what is implied for its neighbours, so this goes on until nothing is wrong;
    each round gives at least one more field, and there are four.
    """
    wrong = True
    while wrong:
        wrong = False
        for edge, picture, values in zip(edges, drawn, meaning(drawn, kinds), strict=True):
            read = lean_edge(**values)
            for name in ("kind", "label", "condition", "join"):
                if name not in picture.given and getattr(edge, name) != getattr(read, name):
                    picture.given[name] = getattr(edge, name)
                    wrong = True
