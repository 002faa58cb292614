"""`tickwork serve`: carries what is left to do, answers those who look after it, and drains when it is told to stop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

SLOW = """
tickwork: 1
name: slow
version: 1.0.0
tasks:
  wait:
    run: steps.py:wait
edges:
  - start -> wait
  - wait -> end
"""

STEPS = """
import pathlib, time

HERE = pathlib.Path(__file__).parent

async def wait(value, ctx):
    import asyncio
    with (HERE / "calls").open("a") as calls:
        calls.write("called\\n")
    while not (HERE / "gate").exists():
        await asyncio.sleep(0.01)
    return "done"
"""

Running = subprocess.Popen[str]


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A graph whose one Task runs until the file `gate` is there."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    (folder / "graph.yaml").write_text(SLOW)
    return folder


@pytest.fixture
def left_running(tmp_path: Path, home: Path, slow: Path) -> str:
    """A lifetime whose process was killed in the middle of its Task."""
    running = subprocess.Popen(
        [*COMMAND, "run", str(slow / "graph.yaml")],
        cwd=tmp_path, env=environment(home), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        assert running.stderr is not None
        while not (slow / "calls").exists():
            assert running.poll() is None, running.stderr.read()
        running.kill()
    (slow / "calls").unlink()
    listed = subprocess.run(
        [*COMMAND, "lifetimes", "list", "--json"], cwd=tmp_path, env=environment(home), capture_output=True, check=True
    )
    lifetime_id: str = json.loads(listed.stdout)[0]["lifetime_id"]
    return lifetime_id


@pytest.fixture
def serving(tmp_path: Path, home: Path, slow: Path, left_running: str) -> Iterator[tuple[Running, int]]:
    """`tickwork serve` on the local profile, ready, and the port it answers on."""
    assert left_running
    running = subprocess.Popen(
        [*COMMAND, "serve", str(slow / "graph.yaml"), "--listen", ":0"],
        cwd=tmp_path, env=environment(home), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        assert running.stderr is not None
        port = 0
        for line in running.stderr:
            if found := re.search(r"listening on 127.0.0.1:(\d+)", line):
                port = int(found[1])
            if "ready as" in line:
                break
        yield running, port
        running.kill()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def called(slow: Path, running: Running) -> None:
    while not (slow / "calls").exists():
        assert running.poll() is None


def rest(running: Running) -> str:
    assert running.stderr is not None
    return running.stderr.read()


def test_it_takes_up_what_was_left_and_drains(
    cli: Cli, serving: tuple[Running, int], slow: Path, left_running: str
) -> None:
    running, port = serving
    called(slow, running)
    assert get(port, "/healthz") == (200, "It lives.\n")
    assert get(port, "/readyz")[0] == 200
    assert "tickwork_executor_held 1.0" in get(port, "/metrics")[1]
    assert get(port, "/")[0] == 404
    running.send_signal(signal.SIGTERM)
    while get(port, "/readyz")[0] == 200:
        pass
    assert get(port, "/readyz") == (503, "Not ready: it is being stopped.\n")
    assert get(port, "/healthz")[0] == 200, "it lives until it is done"
    (slow / "gate").touch()
    assert running.wait(20) == 0
    assert "ended in good order" in rest(running)
    assert (slow / "calls").read_text() == "called\n"
    assert "SUCCEEDED" in cli("lifetimes", "log", left_running, "--json").out, "what ended meanwhile is recorded"


def test_a_second_signal_ends_it_at_once(cli: Cli, serving: tuple[Running, int], slow: Path, left_running: str) -> None:
    running, port = serving
    called(slow, running)
    running.send_signal(signal.SIGTERM)
    while get(port, "/readyz")[0] == 200:
        pass
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0
    assert "ended at once" in rest(running)
    assert cli("lifetimes", "show", left_running, "--json").json["status"] == "RUNNING", "it is taken up again"


def test_what_does_not_end_is_given_up_at_the_deadline(
    tmp_path: Path, home: Path, slow: Path, left_running: str
) -> None:
    assert left_running
    running = subprocess.Popen(
        [*COMMAND, "serve", str(slow / "graph.yaml"), "--listen", ":0", "--drain", "0.2"],
        cwd=tmp_path, env=environment(home), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with running:
        called(slow, running)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        assert "ended after 0.2 s (--drain); executions not over, to be made again: 1" in rest(running)


def test_mistakes_are_told(cli: Cli, slow: Path) -> None:
    graph = str(slow / "graph.yaml")
    assert "An executor runs the code of graphs, and none is named." in cli("serve", code=2).err
    assert "--roles names `planner`." in cli("serve", graph, "--roles", "planner,executor", code=2).err
    assert "is one process, which has all roles" in cli("serve", graph, "--roles", "executor", code=2).err
    assert "cannot be the name of a pool" in cli("serve", graph, "--pool", "a b", code=2).err
    assert "out of range" in cli("serve", graph, "--drain", "-1", code=2).err
    assert "`fast` is no number above 0" in cli("serve", graph, "--tenant-rate", "acme=fast", code=2).err
    assert "--listen nowhere is no address" in cli("serve", graph, "--listen", "nowhere", code=2).err
