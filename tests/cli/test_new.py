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
    ran = cli("run", "hello/graph.yaml", "--input", '{"topic": "durable agents"}')
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
    assert "1 passed" in done.stdout


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
