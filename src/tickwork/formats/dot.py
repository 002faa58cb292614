"""GraphViz DOT: an own, linear reader of the subset that describes graphs.

    digraph hello {
      graph [version="1.0.0"]
      fetch [type="task", label="Fetch docs", run="tasks.py:fetch", retry="{\"max_attempts\": 5}"]
      start -> fetch -> judge;  judge -> end
    }

Node and edge statements, chains, groups `{a b}`, attribute lists, `node [..]` and `edge [..]` defaults, comments, and
subgraphs (flattened). Names of Graphviz' own attributes are left alone; options that are more than a text hold JSON.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, get_args

from tickwork.formats.dot_tokens import Token, tokens
from tickwork.formats.draft import HEADER, Draft, DraftNode
from tickwork.formats.drawn import DrawnEdge, understand
from tickwork.formats.fields import BROKEN, NODE, TEXT, Reading
from tickwork.formats.json import read_json
from tickwork.formats.schema import DOUBTS, KINDS
from tickwork.formats.tree import MAX_DEPTH, Tree, Unreadable, plain, planted
from tickwork.model.graph import END, START, Join, JoinMode, NodeKind
from tickwork.model.problems import Location
from tickwork.model.validation import nearest, shown

Attributes = dict[str, Token]

# What Graphviz itself reads; it is for the eye, and says nothing about the graph.
_DRAWING = """
    _background arrowhead arrowsize arrowtail bb bgcolor center charset class clusterrank color colorscheme comment
    compound concentrate constraint decorate dir distortion dpi edgetooltip fillcolor fixedsize fontcolor fontname
    fontnames fontpath fontsize forcelabels gradientangle group head_lp headclip headlabel headport headtooltip height
    href id image imagepath imagepos imagescale k labelangle labeldistance labelfloat labelfontcolor labelfontname
    labelfontsize labelhref labeljust labelloc labeltooltip landscape layer layers layout len levels lheight lhead lp
    ltail lwidth margin maxiter minlen mindist mode model newrank nodesep nojustify normalize nslimit ordering
    orientation outputorder overlap pack packmode pad page pagedir pencolor penwidth peripheries pos quantum rank
    rankdir ranksep ratio regular remincross root rotate samehead sametail samplepoints scale sep shape shapefile
    sides size skew smoothing sortv splines start style stylesheet tail_lp tailclip taillabel tailport tailtooltip
    target tooltip truecolor url vertices viewport weight width xdotversion xlabel xlp
"""
DRAWING = frozenset(_DRAWING.split())
TEXTS = frozenset({"title", "description", "run", "effect", "isolation"})
"""Options of a node that are a text; the others hold JSON."""
_NODE_KEYS = {"type": "", "label": "", **{f.name: "" for f in NODE.fields}}
_EDGE_KEYS = dict.fromkeys(("kind", "label", "condition", "join", "quorum"), "")
_GRAPH_KEYS = dict.fromkeys((*HEADER, "label"), "")


@dataclass(slots=True)
class _Node:
    """A node as the file names it: the defaults that held there first, and what its own statements say."""

    at: Location
    defaults: Attributes
    given: Attributes = field(default_factory=dict)


@dataclass(slots=True)
class _Scope:
    """The defaults that hold inside one pair of braces, and the nodes named there."""

    node: Attributes
    edge: Attributes
    names: dict[str, Token] = field(default_factory=dict)


def read_dot(text: str, file: str, reading: Reading) -> Draft:
    """The draft that a DOT text describes. Raises Unreadable where it stops being DOT."""
    return _Parser(text, file, reading).graph()


class _Parser:
    def __init__(self, text: str, file: str, reading: Reading) -> None:
        self.tokens = tokens(text, file)
        self.token = next(self.tokens)
        self.draft, self.reading = Draft(reading), reading
        self.drawn: list[tuple[DrawnEdge, Attributes]] = []
        self.nodes: dict[str, _Node] = {}

    # -- tokens

    def advance(self) -> Token:
        token, self.token = self.token, next(self.tokens)
        return token

    def took(self, sign: str) -> bool:
        if self.token.kind == sign:
            self.advance()
            return True
        return False

    def word(self, *words: str) -> bool:
        """Whether the next token is one of DOT's own words."""
        return self.token.kind == "id" and not self.token.quoted and self.token.text.lower() in words

    def fault(self, message: str, hint: str = "") -> Unreadable:
        found = "the end of the file" if self.token.kind == "eof" else f"`{shown(self.token.text)}`"
        return Unreadable(self.token.at, f"{message}, not {found}", hint)

    def name(self, what: str) -> Token:
        if self.token.kind != "id":
            raise self.fault(
                f"{what} is expected here", "put a name with other signs than letters and digits in quotes"
            )
        return self.advance()

    # -- statements

    def graph(self) -> Draft:
        self.reading.sources.put("graph", "", self.token.at)
        if self.word("strict"):
            self.advance()
        if not self.word("digraph"):
            hint = "begin with `digraph name {`; edges of an undirected graph lead nowhere"
            raise self.fault("`digraph` is expected here", hint)
        self.advance()
        if self.token.kind == "id":
            name = self.advance()
            self.draft.header["name"] = Tree(name.text, name.at)
        if not self.took("{"):
            raise self.fault("`{` is expected here")
        self.statements(_Scope({}, {}), 1)
        if self.token.kind != "eof":
            raise self.fault("the end of the file is expected here", "one file holds one graph")
        self.finish()
        return self.draft

    def statements(self, scope: _Scope, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Unreadable(self.token.at, f"braces are nested more than {MAX_DEPTH} deep", "flatten them", "too_deep")
        while not self.took("}"):
            if self.token.kind == "eof":
                raise self.fault("`}` is expected here", "a brace was opened and not closed")
            if not self.took(";") and not self.took(","):
                self.statement(scope, depth)

    def statement(self, scope: _Scope, depth: int) -> None:
        if self.word("graph", "node", "edge"):
            word = self.advance().text.lower()
            if self.token.kind != "[":
                raise self.fault("`[` is expected here", f'to call a node {word}, put the name in quotes: "{word}"')
            attributes = self.attributes()
            if word == "graph":
                self.graph_attributes(attributes, depth)
            else:
                (scope.node if word == "node" else scope.edge).update(attributes)
            return
        first = self.operand(scope, depth)
        if len(first) == 1 and self.token.kind == "=":
            self.advance()
            self.graph_attributes({first[0].text: self.name("a value")}, depth)
            return
        operands = [first]
        while self.token.kind == "->":
            self.advance()
            operands.append(self.operand(scope, depth))
        if self.token.kind == "--":
            raise self.fault("`->` is expected here", "edges of a digraph are written a -> b")
        given = self.attributes()
        if len(operands) > 1:
            self.edges(operands, {**scope.edge, **given})
        elif len(first) == 1 and not first[0].group:
            self.node(first[0], given)

    def operand(self, scope: _Scope, depth: int) -> list[Token]:
        """A node, or all nodes of a subgraph."""
        if self.word("subgraph"):
            self.advance()
            if self.token.kind == "id":
                self.advance()
        elif self.token.kind != "{":
            token = self.name("a node, an edge or an attribute")
            while self.took(":"):
                self.name("a port")
            if self.token.kind != "=":
                scope.names[token.text] = token
                self.see(token, scope)
            return [token]
        if not self.took("{"):
            raise self.fault("`{` is expected here")
        inner = _Scope(dict(scope.node), dict(scope.edge))
        self.statements(inner, depth + 1)
        scope.names |= inner.names
        return [Token(t.kind, t.text, t.at, t.quoted, group=True) for t in inner.names.values()]

    def attributes(self) -> Attributes:
        found: Attributes = {}
        while self.took("["):
            while not self.took("]"):
                key = self.name("an attribute")
                if not self.took("="):
                    raise self.fault(f"`=` is expected after the attribute {shown(key.text)}")
                found[key.text] = self.name("a value")
                found[key.text].key_at = key.at
                if not self.took(","):
                    self.took(";")
        return found

    # -- meaning

    def graph_attributes(self, attributes: Attributes, depth: int) -> None:
        for key, token in attributes.items():
            if depth == 1 and key == "limits":
                if tree := self.json(key, token):
                    self.draft.header[key] = tree
            elif depth == 1 and key in HEADER:
                self.draft.header[key] = Tree(token.text, token.at)
            elif depth == 1:
                self.check_key(key, token, _GRAPH_KEYS, "a graph")

    def check_key(self, key: str, token: Token, known: dict[str, str], where: str) -> None:
        """An attribute that neither Tickwork nor Graphviz knows is probably a slip of the pen."""
        if key not in known and key.lower() not in DRAWING:
            self.reading.unknown_key(key, token.key_at or token.at, known, where)

    def see(self, token: Token, scope: _Scope) -> None:
        if token.text not in self.nodes:
            self.nodes[token.text] = _Node(token.at, dict(scope.node))

    def node(self, token: Token, attributes: Attributes) -> None:
        node = self.nodes[token.text]
        kind, other = node.given.get("type"), attributes.get("type")
        if kind and other and kind.text != other.text:
            message = f"there are two nodes called `{shown(token.text)}`, one of type {shown(kind.text)}"
            hint = "rename one of them, or take one out"
            self.reading.say(token.at, "duplicate_node", message, hint, shown(token.text))
        if attributes and not node.given:
            node.at = token.at  # the statement that describes a node is its place, not the edge that named it first
        node.given |= attributes

    def edges(self, operands: list[list[Token]], attributes: Attributes) -> None:
        for left, right in itertools.pairwise(operands):
            if len(self.drawn) + len(left) * len(right) > 200_000:
                raise Unreadable(left[0].at, "the graph has more than 200000 edges", "", "too_large")
            for source in left:
                for target in right:
                    self.drawn.append((DrawnEdge(source.text, target.text, at=source.at), attributes))

    def finish(self) -> None:
        marks: dict[str, str] = {}
        for name, node in self.nodes.items():
            attributes = {**node.defaults, **node.given}
            if name.lower() in (START, END) and "type" not in node.given:
                marks[name] = name.lower()
                continue
            for key, token in attributes.items():
                self.check_key(key, token, _NODE_KEYS, f"node `{shown(name)}`")
            if kind := self.kind(name, node.at, attributes):
                self.draft.nodes.append(DraftNode(name, kind, node.at, self.options(attributes, node.at)))
        kinds = {drafted.name: drafted.kind for drafted in self.draft.nodes}
        for edge, attributes in self.drawn:
            edge.source, edge.target = marks.get(edge.source, edge.source), marks.get(edge.target, edge.target)
            self.edge(edge, attributes)
        understand([edge for edge, _ in self.drawn], kinds, self.draft)

    def kind(self, name: str, at: Location, attributes: Attributes) -> NodeKind | None:
        given = attributes.get("type")
        if given and given.text in get_args(NodeKind):
            return "task" if given.text == "task" else "plan"
        if given:
            near = nearest(given.text, get_args(NodeKind))
            hint = f"did you mean `{near}`?" if near else 'write type="task" or type="plan"'
            message = f"the type of `{shown(name)}` cannot be `{shown(given.text)}`"
            self.reading.say(given.at, "unknown_word", message, hint, shown(name))
            return "task"  # so that its edges do not lead to a node that is not there
        if not any(key in _NODE_KEYS for key in attributes):
            return None  # only named in edges: the validation says that it is unknown
        message = f"node `{shown(name)}` does not say whether it is a Task or a Plan"
        self.reading.say(at, "missing_key", message, 'write type="task" or type="plan"', shown(name))
        return "task"

    def options(self, attributes: Attributes, at: Location) -> Tree:
        """The node's options as a tree: texts as they are, everything else the JSON that the attribute holds."""
        parts: dict[str, Tree] = {}
        keys: dict[str, Location] = {}
        for key, token in attributes.items():
            name = "title" if key == "label" else key
            if key not in _NODE_KEYS or key == "type" or (key == "label" and "title" in attributes):
                continue
            tree = Tree(token.text, token.at) if name in TEXTS else self.json(key, token)
            if tree is not None and (name != "title" or tree.value):
                parts[name], keys[name] = tree, token.key_at or token.at
        return Tree(parts, at, keys)

    def json(self, key: str, token: Token) -> Tree | None:
        try:
            return planted(plain(read_json(token.text)), token.at)
        except Unreadable as error:
            message = f"the attribute {shown(key)} holds no JSON: {error.problem.message}"
            self.reading.say(token.at, "syntax", message, 'write JSON in it, as in retry="{\\"max_attempts\\": 5}"')
            return None

    def edge(self, edge: DrawnEdge, attributes: Attributes) -> None:
        for key, token in attributes.items():
            self.check_key(key, token, _EDGE_KEYS, "an edge")
            if key in _EDGE_KEYS:
                edge.places["join" if key == "quorum" else key] = Tree(token.text, token.at, text_at=token.text_at)
        if label := attributes.get("label"):
            edge.label = label.text
        if kind := attributes.get("kind"):
            value = KINDS.read(Tree(kind.text, kind.at), "kind", self.reading)
            if value is BROKEN:
                self.draft.doubtful |= DOUBTS["kind"]
            else:
                edge.given["kind"] = value
        if condition := attributes.get("condition"):
            edge.given["condition"] = TEXT.read(Tree(condition.text, condition.at), "condition", self.reading)
        self.join(edge, attributes)

    def join(self, edge: DrawnEdge, attributes: Attributes) -> None:
        mode, quorum = attributes.get("join"), attributes.get("quorum")
        if mode is None and quorum is None:
            return
        word = mode.text if mode else "quorum"
        edge.given.setdefault("kind", "JOIN")
        if word not in get_args(JoinMode):
            near = nearest(word, get_args(JoinMode))
            hint = f"did you mean `{near}`?" if near else "it is one of all, settled, any, quorum"
            at = mode.at if mode else edge.at
            self.reading.say(at, "unknown_word", f"`join` cannot be `{shown(word)}`", hint)
            return
        if quorum and not (quorum.text.isascii() and quorum.text.isdigit() and len(quorum.text) < 10):
            message = f"`quorum` has to be a whole number, not `{shown(quorum.text)}`"
            self.reading.say(quorum.at, "wrong_type", message, "write quorum=2")
            return
        values: dict[str, Any] = {"mode": word} | ({"count": int(quorum.text)} if quorum else {})
        edge.given["join"] = Join(**values)
