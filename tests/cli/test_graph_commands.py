"""`tickwork graph`: problems with their places, drawings, conversions; nothing runs unless it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.process import Cli
from tickwork.formats import load

BROKEN = """tickwork: 1
name: broken
version: 1.0.0
tasks:
  fetch: steps.py:fetch
plans:
  decide: steps.py:decide
edges:
  - start -> fetch
  - fetch -> decde
  - decide -> end
"""


def test_a_valid_graph_is_said_to_be_so_on_stderr(cli: Cli, approval: str) -> None:
    ran = cli("graph", "validate", approval)
    assert ran.out == ""
    assert "approval@1.0.0 is valid: 2 tasks, 2 plans, 6 edges" in ran.err


def test_problems_are_data_with_their_places(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    ran = cli("graph", "validate", "broken.yaml", code=4)
    assert "broken.yaml:10:" in ran.out
    assert "decde" in ran.out
    document = cli("graph", "validate", "broken.yaml", "--json", code=4).json
    assert document["valid"] is False
    first = next(problem for problem in document["problems"] if problem["line"] == 10)
    assert set(first) == {"file", "line", "column", "code", "subject", "message", "hint"}


def test_validate_imports_nothing_unless_it_is_asked_to(cli: Cli, approval: str) -> None:
    code = Path(approval).parent / "steps.py"
    code.write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise RuntimeError('planted')\n")
    ran = cli("graph", "validate", approval, "--json")
    assert ran.json["valid"] is True
    assert not code.with_name("ran").exists()
    loaded = cli("graph", "validate", approval, "--load", "--json", code=4)
    assert code.with_name("ran").exists()
    assert any("planted" in problem["message"] for problem in loaded.json["problems"])


def test_a_graph_of_python_is_validated_by_loading_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(
        "from tickwork import Graph, plan, task\n\n@task\ndef work(value):\n    return value\n\n"
        "@plan\ndef decide(plan_input):\n    return 'end'\n\n"
        "graph = Graph('tiny', '1.0.0')\ngraph.start(work)\ngraph.then(work, decide)\n"
        "graph.edge(decide, work)\ngraph.final(decide)\n"
    )
    assert cli("graph", "validate", "tiny.py:graph", "--json").json["graph"] == "tiny@1.0.0"
    assert "tiny@1.0.0" in cli("graph", "show", "tiny.py").out


def test_show_draws_every_node(cli: Cli, approval: str) -> None:
    drawn = cli("graph", "show", approval).out
    for word in ("start", "draft", "ask", "approve", "decide", "end", "accept", "reject"):
        assert word in drawn
    assert "\x1b" not in drawn


@pytest.mark.parametrize("form", ["yaml", "json", "dot", "mermaid"])
def test_convert_keeps_the_digest(cli: Cli, approval: str, tmp_path: Path, form: str) -> None:
    suffix = {"mermaid": "mmd"}.get(form, form)
    target = tmp_path / f"out.{suffix}"
    cli("graph", "convert", approval, "--to", form, "--output", str(target))
    assert load(target).digest == load(approval).digest
    assert cli("graph", "convert", approval, "--to", form).out == target.read_text()


def test_a_graph_with_problems_is_not_converted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    ran = cli("graph", "convert", "broken.yaml", "--to", "json", code=4)
    assert ran.out == ""
    assert "broken.yaml:10:" in ran.err


def test_register_keeps_a_version_for_ever(cli: Cli, approval: str) -> None:
    ran = cli("graph", "register", approval, "--json")
    assert ran.json["digest"] == load(approval).digest
    cli("graph", "register", approval)
    path = Path(approval)
    path.write_text(path.read_text().replace("May `", "Shall `"))
    refused = cli("graph", "register", approval, "--json", code=1)
    assert refused.json["error"]["code"] == "graph_conflict"
