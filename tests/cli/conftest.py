"""The real executable as a process: its streams, its exit codes, its files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.process import APPROVAL, COMMAND, STEPS, Cli, Ran, environment


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cli(tmp_path: Path, home: Path) -> Cli:
    """Runs `tickwork ...` in an empty folder with a home of its own; nobody sits at a terminal."""

    def run(*arguments: str, stdin: str = "", code: int | None = 0, **env: str) -> Ran:
        done = subprocess.run(
            [*COMMAND, *arguments],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**environment(home), **env},
            timeout=50,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
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
