"""Stdout is for data alone: not for what an author's code prints, and what cannot be written is said in one line."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

CHATTY = """
tickwork: 1
name: chatty
version: 1.0.0
tasks:
  talk: steps.py:talk
  ask: {human: {prompt: "Go on?"}}
plans:
  check: steps.py:check
  decide: steps.py:decide
edges:
  - start -> talk
  - talk -> check
  - check -> ask
  - ask -> decide
  - decide -> talk
  - {from: decide, to: end}
"""
STEPS = """
import os, subprocess
print("loading")
os.write(1, b"loading, lower\\n")

def talk(value):
    print("talking")
    os.write(1, b"talking, lower\\n")
    subprocess.run(["echo", "talking, a child"], check=True)
    return "said"

def check(plan_input):
    return "ask"

def decide(plan_input):
    print("deciding")
    return "end"
"""
SAID = ("loading", "loading, lower", "talking", "talking, lower", "talking, a child")


@pytest.fixture
def chatty(tmp_path: Path) -> str:
    (tmp_path / "graph.yaml").write_text(CHATTY)
    (tmp_path / "steps.py").write_text(STEPS)
    return "graph.yaml"


def shell(tmp_path: Path, home: Path, words: str, after: str) -> subprocess.CompletedProcess[str]:
    """A command line of a shell, with its redirections."""
    return subprocess.run(
        ["bash", "-c", f"{shlex.join(COMMAND)} {words} {after}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(home),
        timeout=50,
    )


def test_what_an_author_prints_goes_to_stderr(cli: Cli, chatty: str) -> None:
    ran = cli("run", chatty, "--json", code=12)
    assert ran.json["status"] == "WAITING"
    assert all(said in ran.err for said in SAID)
    done = cli("lifetimes", "answer", ran.json["lifetime_id"], "yes", "--json")
    assert done.json["status"] == "COMPLETED"
    assert "loading" in done.err
    assert "deciding" in done.err
    assert cli("graph", "validate", chatty, "--load", "--json").json["valid"] is True


@pytest.mark.parametrize("after", [">&-", ">/dev/full"])
@pytest.mark.parametrize("words", ["schema graph", "schema", "--help", "lifetimes list --json", "new x --json"])
def test_a_stdout_that_takes_nothing_is_one_line(tmp_path: Path, home: Path, words: str, after: str) -> None:
    ran = shell(tmp_path, home, words, after)
    assert ran.returncode == 1
    assert next(line for line in ran.stderr.splitlines() if "stdout" in line).startswith("stdout cannot be written: ")
    assert "Traceback" not in ran.stderr
    assert "fault" not in ran.stderr


def test_a_closed_stdout_is_never_the_database(tmp_path: Path, home: Path, chatty: str, cli: Cli) -> None:
    ran = shell(tmp_path, home, f"run {chatty} --json", ">&- <&- 2>&-")
    assert ran.returncode == 1
    (one,) = cli("lifetimes", "list", "--json").json
    assert one["status"] == "WAITING"


def test_closed_stdin_and_stderr_are_no_trouble(tmp_path: Path, home: Path, chatty: str) -> None:
    ran = shell(tmp_path, home, f"run {chatty} --json", "<&- 2>&-")
    assert (ran.returncode, json.loads(ran.stdout)["status"]) == (12, "WAITING")


def test_a_pager_that_leaves_is_no_error(tmp_path: Path, home: Path) -> None:
    ran = shell(tmp_path, home, "--help", '| head -c 1; exit "${PIPESTATUS[0]}"')
    assert (ran.returncode, ran.stderr) == (0, "")
