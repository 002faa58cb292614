"""The command line answers at once: help costs the parser, not the engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.cli.process import COMMAND, Cli
from tickwork.cli.main import COMMANDS

HEAVY = ("msgspec", "pydantic", "asyncio", "sqlite3", "ruamel.yaml", "jsonschema", "cel_expr_python", "rich")


def best_of(command: list[str], times: int = 5) -> float:
    spans = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COLUMNS": "80"})
        spans.append(time.perf_counter() - begun)
    return min(spans)


def test_help_is_a_small_multiple_of_python_itself() -> None:
    bare = best_of([sys.executable, "-c", "import rich.console, inspect, dataclasses"])
    ours = best_of([sys.executable, "-m", "tickwork.cli.main", "--help"])
    assert ours < bare * 5 + 0.1, f"--help took {ours * 1000:.0f} ms, python with rich {bare * 1000:.0f} ms"


def test_importing_the_entry_point_loads_nothing_heavy() -> None:
    code = f"import sys, tickwork.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_engine() -> None:
    code = (
        "import sys\nfrom tickwork.cli.main import call\ncall(['--help'])\n"
        "print([m for m in ('pydantic', 'sqlite3', 'ruamel.yaml', 'tickwork.service', 'tickwork.formats') "
        "if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", [name for _, name, _, _ in COMMANDS])
def test_the_executable_finds_each_command(command: str) -> None:
    """In a process that has imported nothing yet: the other tests fork theirs from one that has imported all."""
    done = subprocess.run([*COMMAND, command, "--help"], check=True, capture_output=True, text=True)
    assert f"Usage: tickwork {command}" in done.stdout
    assert done.stderr == ""


def test_help_and_version_go_to_stdout(cli: Cli) -> None:
    listed = cli("--help")
    for command in ("demo", "new", "run", "graph", "lifetimes", "inbox", "schema", "doctor"):
        assert f" {command} " in listed.out
    assert listed.err == ""
    assert cli("--version").out.strip().count(".") == 2
