"""What an attempt uses at most: read, written, checked and compared in every format and in Python."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.formats.graphs import read, said
from tickwork import Graph, Plan, child, plan, task
from tickwork.errors import GraphInvalid
from tickwork.formats import FORMATS, drawing, load, write_graph
from tickwork.formats.schema import graph_schema
from tickwork.model.graph import AgentGraph, Maximum, canonical_json, graph_from_json
from tickwork.model.money import dollars
from tickwork.model.validation import validate


def source(maximum: str) -> str:
    return (
        f"name: g\ntasks:\n  a: {{run: a.py:a{maximum}}}\nplans:\n  p: {{run: a.py:p, maximum: {{tokens: 5}}}}\n"
        "edges: [start -> a -> p -> a, {from: a, to: end, condition: 'true'}]\n"
    )


def graph_of(maximum: str) -> AgentGraph:
    found = read(source(maximum), "yaml")
    assert found.problems == []
    assert found.graph is not None
    return found.graph


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_writes_and_reads_it(fmt: str) -> None:
    graph = graph_of(', maximum: {tokens: 2000, cost_usd: "0.05"}')
    assert graph.node["a"].maximum == Maximum(tokens=2000, cost_usd="0.05")
    assert graph.node["a"].maximum.cost_nano_usd == 50_000_000
    back = read(write_graph(graph, fmt), fmt)
    assert back.problems == []
    assert back.graph is not None
    assert back.graph.digest == graph.digest
    assert back.graph.node["p"].maximum == Maximum(tokens=5)
    jsonschema.Draft202012Validator(graph_schema()).validate(json.loads(write_graph(graph, "json")))
    assert "[a] (at most 2,000 tokens, $0.05)\n" in drawing(graph)
    assert "{p} (at most 5 tokens)\n" in drawing(graph)


def test_a_graph_directory_takes_it_from_beside_the_drawing(tmp_path: Path) -> None:
    (tmp_path / "agent_graph.mmd").write_text("graph TD\nStart((Start)) --> a[Task: a] --> End((End))\n")
    (tmp_path / "nodes.yaml").write_text("a: {run: a.py:a, maximum: {cost_usd: 0.10}}\n")
    assert load(tmp_path).node["a"].maximum == Maximum(cost_usd="0.1")


def test_an_amount_has_one_digest_however_it_is_written() -> None:
    amounts = ["0.05", '"0.05"', '"0.050"', "0.0500", "5e-2", '"00.05"']
    assert len({graph_of(f", maximum: {{cost_usd: {amount}}}").digest for amount in amounts}) == 1
    zeros = ["0", "0.0", '"0"', '"-0.00"']
    assert {graph_of(f", maximum: {{cost_usd: {amount}}}").node["a"].maximum.cost_usd for amount in zeros} == {"0"}


def test_a_graph_without_it_is_what_it_was() -> None:
    bare = graph_of("")
    assert b"maximum" not in canonical_json(bare).replace(b'"maximum":{"tokens":5}', b"")
    assert graph_of(", maximum: {}").digest == bare.digest
    assert graph_of(', maximum: {cost_usd: "0"}').digest != bare.digest, "free is not the same as undeclared"
    stored = graph_of(", maximum: {cost_usd: 1.5}")
    assert graph_from_json(canonical_json(stored)).digest == stored.digest


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [
        ("{tokens: -1}", "3:38 bad_number maximum.tokens of `a` is -1; it has to be at least 0 and at most 1000000000"),
        ("{tokens: 1000000001}", "3:38 bad_number maximum.tokens of `a` is 1000000001; it has to be"),
        ("{tokens: 1.5}", "3:38 wrong_type `tokens` has to be a whole number, not the number 1.5"),
        ("{cost_usd: -0.01}", "3:40 bad_number `cost_usd` is -0.01; it has to be at least 0 and at most 1000000"),
        ("{cost_usd: 1000000.01}", "3:40 bad_number `cost_usd` is 1000000.01; it has to be"),
        ('{cost_usd: "0.0000000001"}', "3:40 bad_number `cost_usd` is 1E-10; it may have at most 9 digits"),
        ('{cost_usd: "$5"}', '3:40 bad_number `cost_usd` has to be an amount of US dollars, not "$5"'),
        ("{cost_usd: [5]}", "3:40 wrong_type `cost_usd` has to be an amount of US dollars: 0.05, not the list [5]"),
        ("{cost_usd: true}", "3:40 wrong_type `cost_usd` has to be an amount of US dollars: 0.05, not the word true"),
        ("{token: 5}", "3:30 unknown_key maximum has no key `token`"),
        ("5", "3:29 wrong_type `maximum` has to be a map, not the number 5"),
    ],
)
def test_what_is_no_amount_is_refused(maximum: str, expected: str) -> None:
    (problem,) = said(source(f", maximum: {maximum}"))
    assert problem.startswith(expected)


@pytest.mark.parametrize("works", ["timer: 5s", "human: Really?", "signal: go", "child: other"])
def test_what_runs_no_code_uses_nothing(works: str) -> None:
    text = source(", maximum: {tokens: 5}").replace("run: a.py:a", works)
    (problem,) = said(text)
    at = text.splitlines()[2].index("{tokens") + 1
    assert problem.startswith(f"3:{at} maximum_without_code Task `a` declares a maximum, but it runs ")


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    validator = jsonschema.Draft202012Validator(graph_schema())
    fine: list[Any] = [{}, {"tokens": 0}, {"cost_usd": 0.05}, {"cost_usd": "0.0500"}, {"cost_usd": "1000000"}]
    for maximum in fine:
        assert not list(validator.iter_errors({"tasks": {"a": {"maximum": maximum}}})), maximum
    refused: list[Any] = [
        5, {"tokens": -1}, {"tokens": 10**10}, {"tokens": "5"}, {"cost_usd": -1}, {"cost_usd": 10**7}, {"cost_usd": ""},
        {"cost_usd": "x"}, {"cost_usd": "0.0000000001"}, {"cost_usd": True}, {"cost": 1},
    ]  # fmt: skip
    for maximum in refused:
        assert list(validator.iter_errors({"tasks": {"a": {"maximum": maximum}}})), maximum


@task(maximum={"tokens": 2000, "cost_usd": "0.050"})
def ask(value: Any) -> Any:
    return value


@plan(maximum=Maximum(tokens=7))
def decide(value: Any) -> str:
    return "end"


class Review(Plan):
    maximum = Maximum(cost_usd="1.50")

    def run(self, value: Any) -> str:
        return "end"


def test_authors_declare_it_in_python() -> None:
    graph = Graph("g", "1.0.0").start(ask).then(ask, decide).then(decide, ask).edge(ask, Review, when="true")
    built = graph.then(Review, ask).final(decide, Review).build()
    assert {node.name: node.maximum for node in built.nodes} == {
        "ask": Maximum(tokens=2000, cost_usd="0.05"),
        "decide": Maximum(tokens=7),
        "Review": Maximum(cost_usd="1.5"),
    }


@pytest.mark.parametrize(
    ("maximum", "code", "message"),
    [
        ({"token": 5}, "bad_type", "`maximum` of `x` has to be a Maximum"),
        ({"tokens": "5"}, "bad_type", '`maximum.tokens` of `x` has to be a whole number, not "5"'),
        ({"tokens": -5}, "bad_number", "maximum.tokens of `x` is -5"),
        ({"cost_usd": -0.5}, "bad_number", "maximum.cost_usd of `x` is -0.5; it has to be at least 0"),
        ({"cost_usd": True}, "bad_type", "`maximum.cost_usd` of `x` has to be a text, not `True`"),
        (Maximum(cost_usd="-0.5"), "bad_number", "maximum.cost_usd of `x` is -0.5; it has to be at least 0"),
        (5, "bad_type", "`maximum` of `x` has to be a Maximum, not `5`"),
    ],
)
def test_what_is_no_amount_in_python_is_a_problem(maximum: Any, code: str, message: str) -> None:
    made = task(name="x", maximum=maximum)(lambda value: value)
    with pytest.raises(GraphInvalid) as caught:
        Graph("g", "1.0.0").start(made).final(made).build()
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.message.startswith(message)


def test_numbers_are_fine_in_python_and_a_child_declares_nothing() -> None:
    made = task(name="x", maximum={"cost_usd": 0.25})(lambda value: value)
    assert Graph("g", "1.0.0").start(made).final(made).build().node["x"].maximum == Maximum(cost_usd="0.25")
    waits = child("c", graph="other")
    assert waits.node().maximum == Maximum()


def test_a_graph_made_by_hand_has_to_have_the_one_form() -> None:
    graph = graph_of(", maximum: {cost_usd: 1.5}")
    nodes = tuple(
        type(node)(name=node.name, kind=node.kind, run=node.run, maximum=Maximum(cost_usd="1.50"))
        for node in graph.nodes
    )
    found = validate(AgentGraph(name="g", version="1.0.0", nodes=nodes, edges=graph.edges))
    assert [problem.message for problem in found] == [
        "maximum.cost_usd of `a` is written 1.50, not 1.5",
        "maximum.cost_usd of `p` is written 1.50, not 1.5",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), ("5.000", "5"), (0.1, "0.1"), (1e-9, "0.000000001"), (Decimal("1E+3"), "1000"), ("1000000", "1000000")],
)
def test_dollars_have_one_text(value: Any, text: str) -> None:
    assert dollars(value) == text
    assert dollars(text) == text


@pytest.mark.parametrize(
    "value",
    [None, True, [], "", " 5", "5 ", "1e3", "1_000", "1,5", "\u0665", "NaN", "Infinity", float("nan"), float("inf"),
     -1, "-0.000000001", 10**5000, Decimal("sNaN"), Decimal("0." + "0" * 60 + "1"), "9" * 5000, 1e-300,
     "1000000.000000001"],
    ids=range(22),
)  # fmt: skip
def test_what_is_no_amount_of_dollars_raises(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        dollars(value)
