"""`tickwork new`: what it makes runs and passes its own test, at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.process import Cli, environment


def test_the_graph_runs(cli: Cli, tmp_path: Path) -> None:
    made = cli("new", "hello")
    assert made.out == ""
    assert "tickwork run graph.yaml" in made.err
    ran = cli("run", "hello/graph.yaml", "--policies", "hello/policies.yaml", "--input", '{"topic": "durable agents"}')
    assert ran.out == "durable agents, explained\n"
    assert cli("graph", "validate", "hello/graph.yaml", "--load", "--json").json["graph"] == "hello@0.1.0"


def test_its_test_passes(cli: Cli, tmp_path: Path, home: Path) -> None:
    cli("new", "made/hello")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        check=False,
        cwd=tmp_path / "made" / "hello",
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_its_policies_hold(cli: Cli, tmp_path: Path) -> None:
    cli("new", "hello")
    assert cli("guardrails", "check", "hello/policies.yaml").code == 0
    ran = cli(
        "run", "hello/graph.yaml", "--policies", "hello/policies.yaml", "--input", '{"topic": "' + "tea " * 20 + '"}',
        code=11,
    )  # fmt: skip
    assert "policy run/loop-cap: iterations('write') would be 9, over 8" in ran.err


def test_its_policies_can_be_put_in_force_for_all_runs(cli: Cli, tmp_path: Path, home: Path) -> None:
    cli("new", "hello")
    written = (tmp_path / "hello/policies.yaml").read_text()
    commented = (
        written.replace("  # - name", "  - name")
        .replace("\n  #   ", "\n    ")
        .replace("version: 1", "version: 1\ngraph: hello")
    )
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "hello.yaml").write_text(commented)
    cli("guardrails", "check", str(home / "policies" / "hello.yaml"))
    ran = cli("run", "hello/graph.yaml", "--input", '{"topic": "' + "tea " * 20 + '"}', code=11)
    assert "policy graph/loop-cap" in ran.err


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = cli("new", "mine", code=2)
    assert "not empty" in refused.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    assert "no folder" in cli("new", "file", code=2).err


def test_an_empty_folder_is_filled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cli("new", "empty")
    assert (tmp_path / "empty" / "graph.yaml").is_file()
