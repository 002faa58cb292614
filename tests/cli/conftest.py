"""The command line in processes of its own: its streams, its exit codes, its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import forked
from tests.cli.process import APPROVAL, STEPS, Cli, Ran, environment


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cli(tmp_path: Path, home: Path) -> Cli:
    """Runs `tickwork ...` in an empty folder with a home of its own; nobody sits at a terminal."""

    def run(*arguments: str, stdin: str = "", code: int | None = 0, **env: str) -> Ran:
        ran = forked.run(arguments, tmp_path, environment(home) | env, stdin, timeout=50)
        assert "Traceback" not in ran.err, ran.err
        if code is not None:
            assert ran.code == code, f"exit code {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    return run


@pytest.fixture
def approval(tmp_path: Path) -> str:
    """A graph that drafts, asks a person, and drafts again when it is refused."""
    folder = tmp_path / "approval"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    (folder / "graph.yaml").write_text(APPROVAL)
    return str(folder / "graph.yaml")
