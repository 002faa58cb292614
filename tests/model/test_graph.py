"""The graph's digest: it names the content, whatever the order of the nodes, and never changes by accident."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.model.graph import (
    END,
    START,
    AgentGraph,
    Child,
    Edge,
    Human,
    Join,
    Limits,
    Node,
    RetryPolicy,
    Signal,
    TimeLimits,
    Timer,
    canonical_json,
    graph_from_json,
)

GRAPH = AgentGraph(
    name="hello",
    version="1.0.0",
    nodes=(
        Node(name="greet", kind="task", run="tasks.py:greet", retry=RetryPolicy(max_attempts=5)),
        Node(name="decide", kind="plan", config={"b": 1, "a": [2]}),
        Node(name="ask", kind="task", human=Human(prompt="Fine?", default=None, who=("ann",))),
    ),
    edges=(
        Edge(source=START, target="greet"),
        Edge(source="greet", target="decide", condition="result.ok"),
        Edge(source="decide", target="ask", kind="PARALLEL"),
        Edge(source="ask", target="decide", kind="JOIN", join=Join(mode="quorum", count=2)),
        Edge(source="decide", target=END, kind="FINAL"),
    ),
)
replace: Any = msgspec.structs.replace


def test_the_canonical_form_is_golden() -> None:
    """Literal: if this fails, every registered graph would get another digest. Mend the code, not the test."""
    assert canonical_json(GRAPH).decode() == (
        '{"edges":['
        '{"join":{"count":2,"mode":"quorum"},"kind":"JOIN","source":"ask","target":"decide"},'
        '{"kind":"PARALLEL","source":"decide","target":"ask"},'
        '{"kind":"FINAL","source":"decide","target":"end"},'
        '{"condition":"result.ok","source":"greet","target":"decide"},'
        '{"source":"start","target":"greet"}],'
        '"name":"hello","nodes":['
        '{"human":{"default":null,"prompt":"Fine?","who":["ann"]},"kind":"task","name":"ask"},'
        '{"config":{"a":[2],"b":1},"kind":"plan","name":"decide"},'
        '{"kind":"task","name":"greet","retry":{"max_attempts":5},"run":"tasks.py:greet"}],"version":"1.0.0"}'
    )
    assert GRAPH.digest == "sha256:fb9ab71dd8149c38b9e13fd1eeaa67d9cfe1a59807da8d38542b6af03a57a2e0"


def test_saying_what_the_default_says_changes_nothing() -> None:
    said = RetryPolicy(max_attempts=5, initial_interval=float("1"), backoff=2, jitter=0.2, non_retryable=())
    nodes = tuple(replace(n, retry=said) if n.name == "greet" else n for n in GRAPH.nodes)
    assert replace(GRAPH, nodes=nodes, description="").digest == GRAPH.digest


names = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
nodes = st.builds(
    lambda name, kind, title, retry: Node(name=name, kind=kind, title=title, retry=retry),
    names,
    st.sampled_from(["task", "plan"]),
    st.text(max_size=5),
    st.builds(lambda n: RetryPolicy(max_attempts=n), st.integers(1, 5)),
)
edges = st.builds(
    lambda source, target, kind, condition: Edge(source=source, target=target, kind=kind, condition=condition),
    names,
    names,
    st.sampled_from(["NORMAL", "PARALLEL", "JOIN", "FINAL"]),
    st.sampled_from(["", "result.ok"]),
)
graphs = st.builds(
    lambda nodes, edges: AgentGraph(name="g", version="1.0.0", nodes=tuple(nodes), edges=tuple(edges)),
    st.lists(nodes, max_size=5, unique_by=lambda node: node.name),
    st.lists(edges, max_size=6),
)


@given(graphs)
def test_canonical_json_and_back(graph: AgentGraph) -> None:
    again = graph_from_json(canonical_json(graph))
    assert again.digest == graph.digest
    assert canonical_json(again) == canonical_json(graph)
    assert again.node == graph.node


@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_nodes_and_sources_means_nothing(graph: AgentGraph, rng: random.Random) -> None:
    shuffled = list(graph.nodes)
    rng.shuffle(shuffled)
    # Edges of one source keep their order, whatever stands between them.
    sources = [edge.source for edge in graph.edges]
    rng.shuffle(sources)
    queues = {source: iter(graph.outgoing[source]) for source in set(sources)}
    mixed = tuple(next(queues[source]) for source in sources)
    assert replace(graph, nodes=tuple(shuffled), edges=mixed).digest == graph.digest


def test_the_order_of_one_sources_edges_counts() -> None:
    """It decides which condition is asked first."""
    assert replace(GRAPH, edges=GRAPH.edges[::-1]).digest != GRAPH.digest


@pytest.mark.parametrize(
    "other",
    [
        replace(GRAPH, name="hello2"),
        replace(GRAPH, version="1.0.1"),
        replace(GRAPH, description="x"),
        replace(GRAPH, nodes=GRAPH.nodes[:-1]),
        replace(GRAPH, edges=GRAPH.edges[:-1]),
        replace(GRAPH, nodes=(replace(GRAPH.nodes[0], run="tasks.py:other"), *GRAPH.nodes[1:])),
        replace(GRAPH, nodes=(replace(GRAPH.nodes[0], config={"a": 1}), *GRAPH.nodes[1:])),
        replace(GRAPH, nodes=(replace(GRAPH.nodes[0], retry=RetryPolicy(jitter=0.0)), *GRAPH.nodes[1:])),
        replace(GRAPH, nodes=(*GRAPH.nodes[:2], replace(GRAPH.nodes[2], human=Human(prompt="Fine?", who=("ann",))))),
        replace(GRAPH, edges=(*GRAPH.edges[:4], replace(GRAPH.edges[4], label="done"))),
        replace(GRAPH, nodes=(replace(GRAPH.nodes[0], effect="at_most_once"), *GRAPH.nodes[1:])),
        replace(GRAPH, limits=Limits(visits=10)),
    ],
    ids=[
        *("name", "version", "description", "node", "edge", "run", "config", "retry", "no default answer", "label"),
        *("effect", "limits"),
    ],
)
def test_other_content_is_another_digest(other: AgentGraph) -> None:
    assert other.digest != GRAPH.digest


def test_a_default_that_is_written_out_changes_nothing() -> None:
    written = replace(
        GRAPH.nodes[1], retry=RetryPolicy(), limits=TimeLimits(), title="", isolation="inline", effect="idempotent"
    )
    limits = Limits(records=200_000, visits=50_000, open_visits=20_000, depth=100)
    nodes = (GRAPH.nodes[0], written, GRAPH.nodes[2])
    assert replace(GRAPH, nodes=nodes, limits=limits).digest == GRAPH.digest


def test_effects_and_limits_stand_in_the_canonical_form() -> None:
    """Literal, as the golden form above: what a graph says about them is part of what it is."""
    charge = Node(name="charge", kind="task", run="a.py:charge", effect="at_most_once")
    limits = Limits(records=1000, depth=2)
    graph = AgentGraph(name="pay", version="1.0.0", nodes=(charge,), edges=(), limits=limits)
    assert canonical_json(graph).decode() == (
        '{"edges":[],"limits":{"depth":2,"records":1000},"name":"pay","nodes":['
        '{"effect":"at_most_once","kind":"task","name":"charge","run":"a.py:charge"}],"version":"1.0.0"}'
    )


@pytest.mark.parametrize(
    "part",
    [
        {"limits": TimeLimits(start_to_close=30)},
        {"retry": RetryPolicy(initial_interval=5)},
        {"timer": Timer(seconds=3)},
        {"human": Human(prompt="?", deadline=60)},
    ],
    ids=["limits", "retry", "timer", "human"],
)
def test_whole_seconds_are_the_same_content_however_they_are_written(part: dict[str, Any]) -> None:
    """An author writes 30, the stored form is read back as 30.0: one graph, one digest."""
    graph = replace(GRAPH, nodes=(Node(name="n", kind="task", **part),))
    assert graph_from_json(canonical_json(graph)).digest == graph.digest


def test_a_default_join_that_is_written_out_changes_nothing() -> None:
    written = tuple(replace(edge, join=Join()) if edge.kind != "JOIN" else edge for edge in GRAPH.edges)
    assert replace(GRAPH, edges=written).digest == GRAPH.digest


def test_the_order_of_keys_in_settings_means_nothing() -> None:
    turned = replace(GRAPH.nodes[1], config={"a": [2], "b": 1})
    assert replace(GRAPH, nodes=(GRAPH.nodes[0], turned, GRAPH.nodes[2])).digest == GRAPH.digest


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        graph_from_json(b'{"name":"g","version":"1.0.0","nodes":[],"edges":[],"colour":"red"}')


def test_a_graph_is_immutable() -> None:
    with pytest.raises(AttributeError):
        GRAPH.name = "other"  # type: ignore[misc]  # this is what must fail


def test_edges_by_source() -> None:
    assert [str(edge) for edge in GRAPH.entries] == ["start->greet"]
    assert [str(edge) for edge in GRAPH.outgoing["decide"]] == ["decide->ask", "decide->end"]
    assert GRAPH.outgoing["greet"][0].condition == "result.ok"
    assert set(GRAPH.outgoing) == {START, "greet", "decide", "ask"}
    assert GRAPH.label == "hello@1.0.0"


@pytest.mark.parametrize(
    ("special", "runs"),
    [
        ({}, True),
        ({"human": Human(prompt="?")}, False),
        ({"signal": Signal(name="paid")}, False),
        ({"timer": Timer(seconds=1)}, False),
        ({"child": Child(name="sub")}, False),
    ],
)
def test_which_nodes_run_user_code(special: dict[str, Any], runs: bool) -> None:
    assert Node(name="n", kind="task", **special).runs_code is runs
