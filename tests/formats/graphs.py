"""Random valid graphs, and what tests of the formats share."""

from __future__ import annotations

import sys
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from tickwork.formats import ReadGraph, read_graph
from tickwork.model.graph import (
    AgentGraph,
    Child,
    Edge,
    Effect,
    Human,
    Join,
    Limits,
    Maximum,
    Node,
    RetryPolicy,
    Signal,
    TimeLimits,
    Timer,
)
from tickwork.model.money import dollars

# Everything that can be shown, odd signs of each format included.
SIGNS = st.one_of(
    st.sampled_from(list("\"'\\#;:|<>&{}[]()-=+%~`@!?*^$,.\n\t é漢😀\u2028\ufeff")),
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"),
)
TEXT = st.one_of(
    st.text(SIGNS, max_size=12),
    st.sampled_from(["", "JOIN", "JOIN any: x", "JOINED", "a-->b", "%% tickwork: {}", "Task: x", "null", "yes", "1e5"]),
    st.sampled_from(["x", "0x1f", "- a", "a: b", "first\nsecond", "first\n\n  third\n", "#quot;", "<br>", "end", "  "]),
)
NAMES = st.one_of(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True),
    st.sampled_from(["Start", "END", "style", "graph", "node", "a--b", "a-", "subgraph", "true", "null", "n1", "n2"]),
).filter(lambda name: name not in ("start", "end"))
SECONDS = st.one_of(st.integers(1, 10**7).map(float), st.floats(0.001, 1e8))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MAPS = st.dictionaries(TEXT, JSON, max_size=3)
CONDITIONS = st.one_of(
    st.text(SIGNS, max_size=6).map(lambda text: f"route == {msgspec.json.encode(text).decode()}"),
    st.sampled_from(["result.score > 0.5", "route == 'a' ||\n  route == 'b'", "result.x in [1, 2]", "true"]),
)


def part(struct: type[msgspec.Struct], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A struct with some of these fields; what equals a default is left to the default, as every reader does."""
    defaults = {f.name: f.default for f in msgspec.structs.fields(struct)}
    required = {name: how for name, how in fields.items() if defaults[name] is msgspec.NODEFAULT}
    optional = {name: how for name, how in fields.items() if name not in required}
    given = st.fixed_dictionaries(required, optional=optional)
    return given.map(lambda values: struct(**{k: v for k, v in values.items() if v != defaults[k] or v is None}))


def maybe(how: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), how)


RETRY = part(
    RetryPolicy,
    max_attempts=st.integers(1, 99),
    initial_interval=SECONDS,
    backoff=st.floats(1, 10),
    jitter=st.floats(0, 1),
    non_retryable=st.lists(TEXT, min_size=1, max_size=2).map(tuple),
)
LIMITS = part(TimeLimits, start_to_close=SECONDS, heartbeat=SECONDS, grace=SECONDS)
MAXIMUM = part(
    Maximum,
    tokens=st.integers(0, 10**9),
    cost_usd=st.decimals(0, 10**6, places=9).map(dollars) | st.sampled_from(["0", "0.05", "1000000"]),
)
GRAPH_LIMITS = part(Limits, records=st.integers(1, 10**7), open_visits=st.integers(1, 10**6), depth=st.integers(1, 100))
HUMAN = part(
    Human, prompt=TEXT, answer_schema=st.just({"type": ["string", "null"]}), deadline=SECONDS,
    who=st.lists(TEXT, min_size=1, max_size=2).map(tuple), default=st.none(),
)  # fmt: skip
WAITS = st.one_of(
    st.tuples(st.just("human"), HUMAN),
    st.tuples(st.just("signal"), part(Signal, name=NAMES, deadline=SECONDS, default=JSON)),
    st.tuples(st.just("timer"), part(Timer, seconds=SECONDS)),
    st.tuples(st.just("child"), part(Child, name=NAMES, version=st.just("1.2.3"))),
)


@st.composite
def nodes(draw: st.DrawFn, name: str, kind: Any) -> Node:
    values: dict[str, Any] = {"title": draw(TEXT | st.just(name)), "description": draw(TEXT)}
    if kind == "task" and draw(st.booleans()):
        waits, what = draw(WAITS)
        values[waits] = what
    else:
        values["run"] = draw(st.sampled_from(["", "tasks.py:fetch", "package.module:Class"]))
        if (maximum := draw(st.none() | MAXIMUM)) not in (None, Maximum()):
            values["maximum"] = maximum
        if kind == "task" and (effect := draw(st.sampled_from(get_args(Effect)))) != "idempotent":
            values["effect"] = effect
    if draw(st.booleans()):
        retry, limits = draw(RETRY), draw(LIMITS)
        values |= {"retry": retry} if retry != RetryPolicy() else {}
        values |= {"limits": limits} if limits != TimeLimits() else {}
        values |= {"isolation": sys.intern("subprocess"), "memory_mb": draw(st.integers(1, 4096))}
    return Node(name=name, kind=kind, config=draw(MAPS), **{k: v for k, v in values.items() if v != ""})


@st.composite
def graphs(draw: st.DrawFn) -> AgentGraph:
    """A valid graph: a ring of Tasks and Plans, an entry, an end behind one Task, and more edges of every kind."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True).filter(lambda found: len(found) % 2 == 0))
    tasks, plans = names[::2], names[1::2]
    built = [draw(nodes(name, "task")) for name in tasks] + [draw(nodes(name, "plan")) for name in plans]
    pairs = {("start", tasks[0]): "NORMAL"}
    for task, plan, following in zip(tasks, plans, [*tasks[1:], tasks[0]], strict=True):
        pairs[task, plan] = draw(st.sampled_from(["NORMAL", "NORMAL", "JOIN"]))
        pairs[plan, following] = draw(st.sampled_from(["NORMAL", "PARALLEL"]))
    pairs[tasks[-1], "end"] = "FINAL"
    for source, target in draw(st.lists(st.tuples(st.sampled_from(plans), st.sampled_from(tasks)), max_size=4)):
        pairs[source, target] = draw(st.sampled_from(["NORMAL", "PARALLEL", "JOIN"]))
    pairs[plans[0], tasks[-1]] = "PARALLEL"
    edges = []
    left = set[str]()
    for (source, target), kind in draw(st.permutations(list(pairs.items()))):
        values: dict[str, Any] = {"label": draw(TEXT), "kind": kind}
        if source in tasks and source in left:
            values["condition"] = draw(CONDITIONS)
        left.add(source)
        if kind == "JOIN":
            values["join"] = draw(st.sampled_from([Join(), Join(mode="any"), Join(mode="quorum", count=2)]))
        lean = {k: v for k, v in values.items() if v not in ("", "NORMAL", Join())}
        edges.append(Edge(source=source, target=target, **lean))
    lean = {"description": text} if (text := draw(TEXT)) else {}
    if (limits := draw(GRAPH_LIMITS)) != Limits():
        lean["limits"] = limits
    version = draw(st.sampled_from(["0.1.0", "1.2.3-beta.1+b7", "10.20.30"]))
    return AgentGraph(name=draw(NAMES), version=version, nodes=tuple(built), edges=tuple(edges), **lean)


def read(text: str, fmt: str, file: str = "g.txt") -> ReadGraph:
    return read_graph(file, text, fmt=fmt)


def said(text: str, fmt: str = "yaml") -> list[str]:
    """Each problem as `line:column code message`."""
    return [f"{p.location.line}:{p.location.column} {p.code} {p.message}" for p in read(text, fmt).problems]
