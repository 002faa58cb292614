"""One process runs a lifetime, another one steers it; and a process dies and another one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

Running = subprocess.Popen[str]

SLOW = """
import pathlib, time

def draft(value, ctx):
    pathlib.Path(__file__).with_name("started").touch()
    gate = pathlib.Path(__file__).with_name("gate")
    while not gate.exists() and not ctx.cancelled:
        time.sleep(0.01)
    return {"text": "it"}
"""


@pytest.fixture
def held(tmp_path: Path, home: Path, approval: str) -> Iterator[Running]:
    """`tickwork run --wait` that has just asked its question."""
    running = subprocess.Popen(
        [*COMMAND, "run", approval, "--wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    )
    assert running.stderr is not None
    with running:
        for line in running.stderr:
            if "event waiting" in line:
                break
        yield running
        running.kill()


def commands(text: str) -> str:
    """The text with each command as it is typed where `tickwork` is on PATH."""
    return text.replace(f"{sys.executable} -m tickwork", "tickwork")


def document(running: Running) -> dict[str, object]:
    out, _ = running.communicate(timeout=30)
    loaded: dict[str, object] = json.loads(out)
    return loaded


def test_an_answer_from_another_terminal_reaches_the_run(cli: Cli, held: Running) -> None:
    (question,) = cli("inbox", "--json").json
    one = question["lifetime_id"]
    refused = cli("lifetimes", "answer", one, '{"verdict": "perhaps"}', "--json", code=2)
    assert refused.json["error"]["code"] == "answer_refused"
    told = cli("lifetimes", "answer", one, '{"verdict": "accept"}')
    assert "the process that holds the home goes on with it" in told.err
    assert document(held)["status"] == "COMPLETED"
    assert held.returncode == 0


def test_pause_and_abort_from_another_terminal(cli: Cli, held: Running) -> None:
    (one,) = cli("lifetimes", "list", "--json").json
    paused = cli("lifetimes", "pause", one["lifetime_id"], "--reason", "lunch", "--json").json
    assert paused["status"] == "PAUSED"
    followed = cli("lifetimes", "resume", one["lifetime_id"], "--json", code=12)
    assert (followed.json["status"], followed.json["reason"]) == ("WAITING", "waits for an answer to `approve`")
    assert f"process {held.pid} holds the home and runs it" in followed.err
    assert cli("lifetimes", "resume", one["lifetime_id"], "--no-run", "--json").json["status"] in ("RUNNING", "WAITING")
    aborted = cli("lifetimes", "abort", one["lifetime_id"], "--reason", "enough", "--by", "ada")
    assert "is ABORTED" in aborted.err or f"abort requested; process {held.pid} ends it" in aborted.err
    ended = document(held)
    assert (ended["status"], ended["reason"]) == ("ABORTED", "enough (by ada)")
    assert held.returncode == 11


def test_a_home_has_one_writing_process(cli: Cli, held: Running, approval: str) -> None:
    refused = cli("run", approval, "--json", code=1)
    assert refused.json["error"]["code"] == "home_in_use"
    assert f"process {held.pid}" in refused.err
    assert "--home" in refused.err
    cli("lifetimes", "list")
    assert [row["state"] for row in cli("doctor", "--json").json["checks"] if row["check"] == "holder"] == ["note"]


def test_watch_follows_from_another_process(cli: Cli, held: Running, tmp_path: Path, home: Path) -> None:
    (one,) = cli("lifetimes", "list", "--json").json
    watching = subprocess.Popen(
        [*COMMAND, "lifetimes", "watch", one["lifetime_id"], "--jsonl"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    )
    with watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert first["type"] == "started"
        cli("lifetimes", "answer", one["lifetime_id"], '{"verdict": "accept"}')
        rest = [json.loads(line) for line in watching.stdout]
    assert watching.returncode == 0
    outcome = rest.pop()
    assert (outcome["lifetime_id"], outcome["status"]) == (one["lifetime_id"], "COMPLETED")
    assert cli("lifetimes", "watch", one["lifetime_id"], "--json").json == outcome
    assert rest[-1]["type"] == "completed"
    assert [first["seq"], *(record["seq"] for record in rest)] == list(range(1, len(rest) + 2))
    assert document(held)["status"] == "COMPLETED"


def test_a_pause_keeps_what_is_in_flight(cli: Cli, tmp_path: Path, home: Path, approval: str) -> None:
    code = Path(approval).with_name("steps.py")
    code.write_text(code.read_text().replace("def draft", "def old_draft") + SLOW)
    with subprocess.Popen(
        [*COMMAND, "run", approval, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    ) as running:
        while not code.with_name("started").exists():
            assert running.poll() is None
            os.sched_yield()
        (one,) = cli("lifetimes", "list", "--json").json
        paused = cli("lifetimes", "pause", one["lifetime_id"], "--reason", "lunch")
        assert f"process {running.pid} still records what is in flight" in paused.err
        assert running.stderr is not None
        for line in running.stderr:
            if "pausing: waiting for what is in flight" in line:
                break
        else:
            pytest.fail("the run left its work behind")
        code.with_name("gate").touch()
        ended = document(running)
    assert (running.returncode, ended["status"], ended["reason"]) == (12, "PAUSED", "lunch")
    log = cli("lifetimes", "log", one["lifetime_id"], "--json").json
    assert [r["headers"]["status"] for r in log if "headers" in r] == ["SUCCEEDED"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_stopped_goes_on(cli: Cli, tmp_path: Path, home: Path, approval: str, how: signal.Signals) -> None:
    code = Path(approval).with_name("steps.py")
    code.write_text(code.read_text().replace("def draft", "def old_draft") + SLOW)
    running = subprocess.Popen(
        [*COMMAND, "run", approval, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    )
    while not code.with_name("started").exists():
        assert running.poll() is None
        os.sched_yield()
    running.send_signal(how)
    out, said = running.communicate(timeout=30)
    (one,) = cli("lifetimes", "list", "--json").json
    assert one["status"] == "RUNNING"
    assert f"left behind: tickwork lifetimes resume {one['lifetime_id'][:13]}" in commands(cli("lifetimes", "list").out)
    assert f"left behind: tickwork lifetimes resume {one['lifetime_id']}" in commands(
        cli("lifetimes", "show", one["lifetime_id"]).out
    )
    assert any(row["check"] == "left behind" for row in cli("doctor", "--json").json["checks"])
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert json.loads(out)["lifetime_id"] == one["lifetime_id"]
        assert f"tickwork lifetimes resume {one['lifetime_id']}" in said
        assert "Traceback" not in said
    code.with_name("gate").touch()
    (tmp_path / "answers.yaml").write_text("approve: {verdict: accept}\n")
    done = cli("lifetimes", "resume", one["lifetime_id"], "--answers", "answers.yaml", "--json")
    assert done.json["status"] == "COMPLETED"
    log = cli("lifetimes", "log", one["lifetime_id"], "--json").json
    assert [record["seq"] for record in log] == list(range(1, len(log) + 1))
    drafts = [r["headers"] for r in log if r.get("headers", {}).get("name") == "draft"]
    assert [h["status"] for h in drafts if h["status"] == "SUCCEEDED"] == ["SUCCEEDED"]
