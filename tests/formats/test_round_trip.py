"""What is written is what is read back, in every format, and the seed's diagram above all."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from tests.formats.graphs import graphs, read
from tickwork.errors import UsageError
from tickwork.formats import FORMATS, drawing, read_graph, write_graph
from tickwork.formats.passing import pass_on
from tickwork.formats.schema import graph_schema, write_tree
from tickwork.model.graph import AgentGraph
from tickwork.model.validation import validate

SEED = Path(__file__).parent / "seed.mmd"


@pytest.mark.parametrize("fmt", FORMATS)
@given(graph=graphs())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_a_round_trip_keeps_the_digest(fmt: str, graph: AgentGraph) -> None:
    assert validate(graph) == [] or {p.code for p in validate(graph)} == {"join_without_parallel"}
    text = write_graph(graph, fmt)
    back = read(text, fmt)
    assert {p.code for p in back.problems} <= {"join_without_parallel"}, text
    assert back.graph is not None
    assert back.graph.digest == graph.digest, text
    assert write_graph(back.graph, fmt) == write_graph(read(write_graph(back.graph, fmt), fmt).graph, fmt)  # type: ignore[arg-type]  # it was read before


@given(graph=graphs())
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_is_written_meets_the_json_schema(graph: AgentGraph) -> None:
    jsonschema.Draft202012Validator(graph_schema()).validate(json.loads(write_graph(graph, "json")))


@given(graph=graphs())
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_every_node_stands_in_the_drawing(graph: AgentGraph) -> None:
    picture = drawing(graph)
    assert all((f"[{n.name}]" if n.kind == "task" else f"{{{n.name}}}") in picture for n in graph.nodes)


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(graph_schema())
    refused = [
        {"edges": [{"from": "a"}]}, {"tasks": {"1a": None}}, {"tasks": {"a": {"runn": "x:y"}}}, {"edge": []},
        {"edges": [{"from": "a", "to": "b", "join": {"quorum": 0}}]}, {"tasks": {"a": {"retry": {"max_attempts": 0}}}},
    ]  # fmt: skip
    for tree in refused:
        assert list(jsonschema.Draft202012Validator(graph_schema()).iter_errors(tree)), tree


def test_the_seeds_diagram_validates() -> None:
    result = read_graph(SEED)
    assert result.problems == []
    graph = result.graph
    assert graph is not None
    assert (graph.name, graph.version) == ("seed", "0.1.0")
    kinds = {str(e): e.kind for e in graph.edges}
    assert [e for e, kind in kinds.items() if kind == "PARALLEL"] == ["PlanRefine->CodeLLM1", "PlanRefine->CodeLLM2"]
    assert [e for e, kind in kinds.items() if kind == "FINAL"] == ["HumanAcceptReject1->end"]
    assert kinds["PlanRefine->TaskHITL"] == "NORMAL"
    conditions = {str(e): e.condition for e in graph.edges if e.condition}
    assert conditions == {
        "HumanAcceptReject1->end": 'route == "accept"',
        "HumanAcceptReject1->PlanRefine": 'route == "reject"',
    }
    assert graph.node["TaskLLMSubmit"].title == "Submit to LLM"
    assert graph.node["PlanRefine"].title == "Elucidate/ Do Execute"


def test_two_tasks_that_are_drawn_together_have_a_plan_between_them() -> None:
    graph = read_graph(SEED).graph
    assert graph is not None
    between = graph.node["TaskCallRAG_to_TaskLLMSubmit"]
    assert (between.kind, between.run) == ("plan", "tickwork.formats.passing:pass_on")
    assert between.config == {"next": "TaskLLMSubmit"}
    assert [(e.source, e.label) for e in graph.edges if e.target == between.name] == [("TaskCallRAG", "RAG Output")]
    assert pass_on(None, SimpleNamespace(config=between.config)) == "TaskLLMSubmit"


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_seeds_diagram_converts_and_comes_back(fmt: str) -> None:
    graph = read_graph(SEED).graph
    assert graph is not None
    for other in FORMATS:
        step = read(write_graph(graph, fmt), fmt).graph
        assert step is not None
        back = read(write_graph(step, other), other)
        assert back.problems == []
        assert back.graph is not None
        assert back.graph.digest == graph.digest


def test_a_diagram_is_found_among_prose() -> None:
    diagram = SEED.read_text()
    page = f"# Title\n\nHow a graph\nlooks:\n\n{diagram}Loading\n\nThis agent (an example) plans.\n"
    alone, found = read(diagram, "mermaid"), read(page, "mermaid")
    assert found.problems == []
    assert alone.graph is not None
    assert found.graph is not None
    assert found.graph.digest == alone.graph.digest
    fenced = read(f"# Title\n\n```mermaid\n{diagram}```\n\nLoading --> more\n", "mermaid")
    assert fenced.problems == []
    assert fenced.graph is not None
    assert fenced.graph.digest == alone.graph.digest


def test_the_drawing_of_the_seed_shows_branches_and_loops() -> None:
    graph = read_graph(SEED).graph
    assert graph is not None
    picture = drawing(graph)
    assert "╞═ LLM Results ═▶ [CodeLLM1] Tool Call 1...\n" in picture
    assert "│  └─ observe/refine ─▶ ↩ CodeLLM1\n" in picture
    assert "├─ accept ─▶ ◉ end\n" in picture
    assert "↑ HumanAcceptReject1\n" in picture


def test_yaml_is_written_for_people() -> None:
    text = (
        'tasks:\n  ask:\n    human: {prompt: "Is it\\ngood?", deadline: 90}\n  fetch: a.py:fetch\nplans:\n  p:\n'
        "edges: [start -> fetch -> p -> ask, {from: ask, to: end, condition: \"route == 'yes'\"}, ask -> p]\n"
    )
    graph = read(text, "yaml", "hello-world.yaml").graph
    assert graph is not None
    assert write_graph(graph, "yaml") == (
        "tickwork: 1\nname: hello-world\nversion: 0.1.0\ntasks:\n  ask:\n    human:\n      prompt: |-\n        Is it\n"
        "        good?\n      deadline: 90s\n  fetch:\n    run: a.py:fetch\nplans:\n  p: {}\nedges:\n"
        "  - start -> fetch\n  - fetch -> p\n  - p -> ask\n"
        "  - {from: ask, to: end, condition: \"route == 'yes'\"}\n  - ask -> p\n"
    )
    assert write_tree(graph)["tasks"]["ask"]["human"]["deadline"] == "90s"


def test_an_unknown_format_is_the_callers_mistake() -> None:
    graph = read_graph(SEED).graph
    assert graph is not None
    with pytest.raises(UsageError, match="there is no graph format `xml`; it is one of yaml, json, dot, mermaid"):
        write_graph(graph, "xml")


@pytest.mark.parametrize("fmt", FORMATS)
def test_effects_and_limits_are_written_and_read_in_every_format(fmt: str) -> None:
    text = (
        "name: pay\nversion: 1.0.0\nlimits: {records: 500, depth: 2}\ntasks:\n"
        "  charge: {run: a.py:charge, effect: at_most_once}\n  look: {run: a.py:look, effect: pure}\n"
        "  note: {run: a.py:note, effect: idempotent}\nplans: {p: a.py:p}\n"
        "edges: [start -> charge -> p, p -> look, p -> note, look -> end, note -> end]\n"
    )
    graph = read(text, "yaml").graph
    assert graph is not None
    assert {node.name: node.effect for node in graph.nodes if node.kind == "task"} == {
        "charge": "at_most_once",
        "look": "pure",
        "note": "idempotent",
    }
    assert (graph.limits.records, graph.limits.visits, graph.limits.depth) == (500, 50_000, 2)
    written = write_graph(graph, fmt)
    assert written.count("effect") == 2, "the default is left out"
    back = read(written, fmt)
    assert back.problems == []
    assert back.graph is not None
    assert (back.graph.digest, back.graph.limits) == (graph.digest, graph.limits)
    assert {n.name: n.effect for n in back.graph.nodes} == {n.name: n.effect for n in graph.nodes}


def test_the_drawing_shows_effects_and_limits() -> None:
    text = (
        "name: pay\nlimits: {open_visits: 2000}\ntasks:\n  charge: {run: a.py:charge, effect: at_most_once}\n"
        "  note: a.py:note\nplans: {p: a.py:p}\nedges: [start -> charge -> p -> note -> end]\n"
    )
    graph = read(text, "yaml").graph
    assert graph is not None
    picture = drawing(graph)
    assert "[charge] (at_most_once)\n" in picture
    assert "[note]\n" in picture
    assert "limits: open_visits 2,000\n" in picture
