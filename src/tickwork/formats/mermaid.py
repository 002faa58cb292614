"""Mermaid flowcharts: an own reader of the subset that draws graphs, one line after the other.

    flowchart TD
      Start((Start)) --> Fetch[Task: Fetch docs]
      Fetch -- docs --> Judge{{Plan: Good enough?}}
      %% tickwork: {"node": "Fetch", "run": "tasks.py:fetch"}

What Mermaid has no word for stands in `%% tickwork:` comments, which Mermaid does not see: {"name", "version",
"description", "limits"} of the graph, {"node": NAME, options} of a node, {"edge": "a -> b", kind, label, condition,
join} of an edge; several for one pair of nodes belong to its edges in their order. Classes, styles, clicks and
subgraphs are for the eye only. Every line is read once from left to right.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from tickwork.formats.draft import HEADER as OF_GRAPH
from tickwork.formats.draft import Draft, DraftNode
from tickwork.formats.drawn import DrawnEdge, bridged, understand
from tickwork.formats.fields import BROKEN, TEXT, Reading
from tickwork.formats.json import read_json
from tickwork.formats.schema import DOUBTS, KINDS, read_join
from tickwork.formats.tree import Tree, Unreadable, plain, planted
from tickwork.model.graph import END, START, NodeKind
from tickwork.model.problems import Location
from tickwork.model.validation import shown

HEADER = re.compile(r"\s*(?:graph|flowchart)(?:-elk)?(?:\s+(TB|TD|BT|RL|LR))?\s*(?:;|$)")
_SKIPPED = re.compile(
    r"(?:subgraph|direction|style|linkStyle|classDef|class|click|accTitle|accDescr)\b(?!\s*[-=\[({&@])"
)
_ID = re.compile(r"\w+(?:-\w+)*")
_SPACE = re.compile(r"\s*")
# A link up to its head, or up to its text: `-- text -->`. `-->|text|` is read after the head.
_LINK = re.compile(
    r"(?P<head>-{2,}>|-\.+->|={2,}>)|(?P<open>-\.(?!-)|--(?![->])|==(?![=>]))|(?P<odd>[-=<~.]+[-=~.>]*[ox]?)"
)
# A run of dashes is tried once, at its begin: trying it at each dash would take quadratic time.
_HEADS = {"--": re.compile(r"(?<!-)-{2,}>"), "==": re.compile(r"(?<!=)={2,}>"), "-.": re.compile(r"(?<!\.)\.+->")}
_SHAPES = (
    ("(((", ")))", "circle"), ("((", "))", "circle"), ("([", "])", "task"), ("(", ")", "task"),
    ("[[", "]]", "task"), ("[(", ")]", "task"), ("[/", "/]", "task"), ("[", "]", "task"),
    ("{{", "}}", "plan"), ("{", "}", "plan"), (">", "]", "task"),
)  # fmt: skip
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_CLOSES = re.compile(r"end\s*(?:;|$)")
_FENCE = re.compile(r"\s*(`{3}|~{3})\s*mermaid\s*$")
_ENTITY = re.compile(r"#(\w{1,12});")
_COMMENT = re.compile(r"\s*%%\s*tickwork\s*:\s*(.*)")
_KIND = re.compile(r"\s*(task|plan)\s*:\s*", re.IGNORECASE)
# What a line of a flowchart looks like among prose: a link, a node with a shape, or one of the words that are skipped.
_STATEMENT = re.compile(r"\s*(?:$|%%|end\s*$|[\w-]+\s*(?:[\[({>]|&|-->|--|==|-\.))")


@dataclass(slots=True)
class _Node:
    """A node as the drawing names it: by id, and described once with a shape and a text."""

    id: str
    at: Location
    kind: str = ""
    title: str = ""
    text: str = ""


@dataclass(slots=True)
class _Said:
    """One `tickwork` comment."""

    at: Location
    parts: dict[str, Tree]


def read_mermaid(text: str, file: str, reading: Reading) -> Draft:
    """The draft that a flowchart describes. Faulty lines are reported, and the others go on."""
    return _Parser(file, reading).graph(text.split("\n"))


class _Parser:
    def __init__(self, file: str, reading: Reading) -> None:
        self.file, self.reading, self.draft = file, reading, Draft(reading)
        self.nodes: dict[str, _Node] = {}
        self.drawn: list[DrawnEdge] = []
        self.said: list[_Said] = []
        self.text, self.number, self.offset = "", 0, 0

    def graph(self, lines: list[str]) -> Draft:
        begin, header, end = _block(lines)
        if header < 0:
            hint = "begin with `flowchart TD`; only flowcharts describe graphs"
            raise Unreadable(Location(self.file, 1, 1), "there is no Mermaid flowchart here", hint)
        self.reading.sources.put("graph", "", Location(self.file, header + 1, 1))
        for number in range(begin, end):
            found = HEADER.match(lines[number]) if number == header else None
            self.line(lines[number], number + 1, found.end() if found else 0)
        self.finish()
        return self.draft

    # -- one line

    def line(self, text: str, number: int, offset: int) -> None:
        self.text, self.number, self.offset = text, number, offset
        try:
            if found := _COMMENT.match(text, offset):
                self.comment(found)
                return
            self.space()
            while self.offset < len(self.text) and not self.text.startswith("%%", self.offset):
                if _SKIPPED.match(self.text, self.offset) or _CLOSES.match(self.text, self.offset):
                    return
                self.statement()
        except Unreadable as error:
            self.reading.problems.append(error.problem)
            self.draft.lost_edges = True

    def here(self, offset: int | None = None) -> Location:
        return Location(self.file, self.number, (self.offset if offset is None else offset) + 1)

    def space(self) -> None:
        found = _SPACE.match(self.text, self.offset)
        self.offset = found.end() if found else self.offset

    def took(self, sign: str) -> bool:
        self.space()
        if self.text.startswith(sign, self.offset):
            self.offset += len(sign)
            return True
        return False

    def statement(self) -> None:
        """`a & b --> c -- text --> d`, up to a semicolon or the end of the line."""
        left = self.operands()
        while self.offset < len(self.text) and not self.text.startswith("%%", self.offset):
            if self.took(";"):
                self.space()
                return
            label, thick = self.link()
            right = self.operands()
            if len(self.drawn) + len(left) * len(right) > 200_000:
                raise Unreadable(self.here(), "the graph has more than 200000 edges", "", "too_large")
            for source in left:
                for target in right:
                    self.drawn.append(DrawnEdge(source.id, target.id, label, thick, source.at))
            left = [_Node(node.id, node.at) for node in right]
            self.space()

    def operands(self) -> list[_Node]:
        found = [self.operand()]
        while self.took("&"):
            found.append(self.operand())
        self.space()
        return found

    def operand(self) -> _Node:
        self.space()
        found = _ID.match(self.text, self.offset)
        if not found:
            rest = self.text[self.offset :].split(" ")[0]
            what = f"`{shown(rest)}`" if rest else "the end of the line"
            hint = "write a name made of letters, digits and `_`, then its shape: fetch[Task: Fetch docs]"
            raise Unreadable(self.here(), f"a node is expected here, not {what}", hint)
        node = _Node(found[0], self.here())
        self.offset = found.end()
        self.shape(node)
        if self.text.startswith(":::", self.offset):
            css = _ID.match(self.text, self.offset + 3)
            self.offset = css.end() if css else self.offset + 3
        self.describe(node)
        return node

    def shape(self, node: _Node) -> None:
        for begin, end, kind in _SHAPES:
            if not self.text.startswith(begin, self.offset):
                continue
            start = self.offset
            self.offset += len(begin)
            node.text, node.kind = self.until(end, f"`{end}` that closes the shape", start), kind
            said = _KIND.match(node.text)
            if said:
                node.kind = said[1].lower()
            elif kind == "circle" and node.text.lower() not in (START, END):
                hint = "write [Task: ..] or {{Plan: ..}}; only Start and End are circles"
                message = f"the circle `{shown(node.text)}` is neither Start nor End"
                raise Unreadable(self.here(start), message, hint)
            elif kind == "circle":
                node.kind = node.text.lower()
            node.title = node.text[said.end() :] if said else node.text
            return

    def until(self, end: str, what: str, start: int) -> str:
        """The text up to `end`, quoted or not, as it is meant."""
        self.space()
        quoted = self.text.startswith('"', self.offset)
        close = self.text.find('"', self.offset + 1) if quoted else self.text.find(end, self.offset)
        if close < 0:
            what = "a double quote that closes the text" if quoted else what
            raise Unreadable(self.here(start), f"{what} is missing on this line", "put texts with brackets in quotes")
        text = self.text[self.offset + quoted : close]
        self.offset = close + quoted
        if not self.took(end):
            raise Unreadable(self.here(), f"{what} is missing here", "nothing may follow a quoted text in its shape")
        return meant(text)

    def link(self) -> tuple[str, bool]:
        """A link's label, and whether it is thick."""
        self.space()
        start = self.offset
        found = _LINK.match(self.text, start)
        if not found or found["odd"]:
            rest = found["odd"] if found else self.text[start:].split(" ")[0]
            hint = "links are written -->, -- text -->, -->|text|, -.->, ==>; each statement has a line of its own"
            raise Unreadable(self.here(), f"a link is expected here, not `{shown(rest)}`", hint)
        self.offset = found.end()
        thick = found[0].startswith("=")
        if found["head"]:
            return (self.until("|", "`|` that closes the label", start) if self.took("|") else "", thick)
        head = _HEADS[found["open"]]
        self.space()
        if self.text.startswith('"', self.offset):
            begin, close = self.offset + 1, self.text.find('"', self.offset + 1)
            if close > 0:
                self.offset = close + 1
                self.space()
            ended, text = head.match(self.text, self.offset), self.text[begin:close]
        else:
            ended = head.search(self.text, self.offset)
            text = self.text[self.offset : ended.start()] if ended else ""
        if not ended:
            message = f"the head of the link `{found['open']}` is missing on this line"
            raise Unreadable(self.here(start), message, "write -- text -->, == text ==> or -. text .->")
        self.offset = ended.end()
        return meant(text), thick

    def describe(self, node: _Node) -> None:
        known = self.nodes.setdefault(node.id, node)
        if not node.kind or known is node:
            return
        if not known.kind:
            self.nodes[node.id] = node
        elif (known.kind, known.title) != (node.kind, node.title):
            texts = f"`{shown(known.text)}` and as `{shown(node.text)}`"
            message = f"there are two nodes called `{shown(node.id)}`, described as {texts}"
            hint = "give one of them another name, or take its second description out"
            self.reading.say(node.at, "duplicate_node", message, hint, shown(node.id))

    def comment(self, found: re.Match[str]) -> None:
        at = self.here(found.start(1))
        try:
            tree = planted(plain(read_json(found[1])), at)
        except Unreadable as error:
            message = f"the tickwork comment holds no JSON: {error.problem.message}"
            raise Unreadable(at, message, 'write a map, as in %% tickwork: {"version": "1.0.0"}') from None
        if not isinstance(tree.value, dict):
            raise Unreadable(at, "the tickwork comment holds no map", 'as in %% tickwork: {"version": "1.0.0"}')
        self.said.append(_Said(at, tree.value))

    # -- meaning

    def finish(self) -> None:
        marks, options = dict[str, str](), dict[str, Tree]()
        names: dict[str, str] = {}
        for said in self.said:
            self.heed(said, options, names)
        for node in self.nodes.values():
            lower = node.id.lower()
            if node.kind in (START, END) or (not node.kind and lower in (START, END)):
                marks[node.id] = node.kind or lower
            elif node.kind:
                name = names.get(node.id, node.id)
                kind: NodeKind = "task" if node.kind == "task" else "plan"
                self.draft.nodes.append(DraftNode(name, kind, node.at, self.options(node, name, options)))
        for id_, tree in options.items():
            message = f"the comment speaks of `{shown(id_)}`, which is not drawn as a node"
            self.reading.say(tree.at, "unknown_node", message, "draw it, or correct the name", shown(id_))
        for edge in self.drawn:
            edge.source = marks.get(edge.source) or names.get(edge.source, edge.source)
            edge.target = marks.get(edge.target) or names.get(edge.target, edge.target)
        self.heed_edges()
        drawn = bridged(self.drawn, self.draft)
        understand(drawn, {node.name: node.kind for node in self.draft.nodes}, self.draft)

    def options(self, node: _Node, name: str, options: dict[str, Tree]) -> Tree:
        tree = options.pop(node.id, Tree({}, node.at))
        parts = dict(tree.value) if isinstance(tree.value, dict) else {}
        keys = dict(tree.keys)
        if "title" not in parts and node.title != name:
            parts["title"], keys["title"] = Tree(node.title, node.at), node.at
        return Tree(parts, node.at, keys)

    def heed(self, said: _Said, options: dict[str, Tree], names: dict[str, str]) -> None:
        """Take in a comment about the graph or about a node."""
        about = said.parts.get("node")
        if about is not None and isinstance(about.value, str):
            parts = {key: part for key, part in said.parts.items() if key not in ("node", "name")}
            if (name := said.parts.get("name")) and isinstance(name.value, str):
                names[about.value] = name.value
            if about.value in options:
                message = f"a second comment speaks of the node `{shown(about.value)}`"
                self.reading.say(said.at, "duplicate_key", message, "write all its options in one comment")
            options[about.value] = Tree(parts, said.at, dict.fromkeys(parts, said.at))
        elif "edge" not in said.parts:
            for key, part in said.parts.items():
                if key in OF_GRAPH:
                    self.draft.header[key] = part
                else:
                    known = dict.fromkeys((*OF_GRAPH, "node", "edge"))
                    self.reading.unknown_key(key, part.at, known, "a tickwork comment")

    def heed_edges(self) -> None:
        """Give each edge what the comments say about it."""
        drawn: dict[str, list[DrawnEdge]] = {}
        for edge in self.drawn:
            drawn.setdefault(f"{edge.source} -> {edge.target}", []).append(edge)
        for said in self.said:
            if "edge" not in said.parts or "node" in said.parts:
                continue
            about = plain(said.parts.pop("edge"))
            found = drawn.get(about, []) if isinstance(about, str) else []
            if not found:
                message = f"the comment speaks of an edge `{shown(str(about))}`, which is not drawn (so often)"
                self.reading.say(said.at, "unknown_edge", message, 'write "edge": "a -> b" with the names of its nodes')
                continue
            edge = found[0]
            del found[0]
            for key, part in said.parts.items():
                self.give(edge, key, part)

    def give(self, edge: DrawnEdge, key: str, part: Tree) -> None:
        readers = {"kind": KINDS.read, "label": TEXT.read, "condition": TEXT.read}
        if key in readers:
            value = readers[key](part, key, self.reading)
        elif key == "join":
            value = read_join(part, self.reading)
        else:
            known = dict.fromkeys((*readers, "join"))
            self.reading.unknown_key(key, part.at, known, "an edge")
            return
        if value is BROKEN:
            self.draft.doubtful |= DOUBTS.get(key, set())
        else:
            edge.given[key] = value
            edge.places[key] = part


def meant(text: str) -> str:
    """A text without markup: breaks are spaces, and `#quot;` stands for a sign."""
    text = re.sub(r"[ \t]+", " ", _BREAK.sub(" ", text)).strip()
    return _ENTITY.sub(lambda found: html.unescape(f"&#{found[1]};" if found[1].isdigit() else f"&{found[1]};"), text)


def _block(lines: list[str]) -> tuple[int, int, int]:
    """Where the flowchart begins, where its header stands (-1: nowhere) and where it ends.

    A file that begins with a flowchart is one. Elsewhere it is the first fenced block, or else the first block among
    prose: it ends at the first line that is no statement of a flowchart.
    """
    begin = _after_front_matter(lines)
    header = begin
    while header < len(lines) and (not lines[header].strip() or lines[header].lstrip().startswith("%%")):
        header += 1
    if header < len(lines) and HEADER.match(lines[header]):
        return begin, header, len(lines)
    index = 0
    while index < len(lines):
        if fence := _FENCE.match(lines[index]):
            end = next((at for at in range(index + 1, len(lines)) if lines[at].strip() == fence[1]), len(lines))
            header = next((at for at in range(index + 1, end) if HEADER.match(lines[at])), -1)
            if header >= 0:
                return index + 1, header, end
            index = end
        index += 1
    header = next((at for at, line in enumerate(lines) if (found := HEADER.match(line)) and found[1]), -1)
    end = header + 1
    while 0 < end < len(lines) and (_STATEMENT.match(lines[end]) or _SKIPPED.match(lines[end].lstrip())):
        end += 1
    return header, header, end


def _after_front_matter(lines: list[str]) -> int:
    if not lines or lines[0].rstrip() != "---":
        return 0
    return next((index + 1 for index in range(1, len(lines)) if lines[index].rstrip() == "---"), 0)
