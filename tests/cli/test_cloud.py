"""The commands on the profile cloud: they record and publish, and a service in another process goes on with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.cloud import cloud
from tests.cli.process import COMMAND, Cli, environment

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

__all__ = ["cloud"]


@contextmanager
def served(graph: str, env: dict[str, str], folder: Path) -> Iterator[None]:
    """A service that has the graph's code, and has to end with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", graph, "--listen", listen],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=env,
            cwd=folder,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
    assert code == 0, (folder / "serve.log").read_text()


@pytest.fixture
def serving(cloud: dict[str, str], approval: str, home: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A service that has the graph's code; the environment of a command beside it."""
    with served(approval, environment(home) | cloud, tmp_path):
        yield cloud


def test_commands_reach_what_services_run(cli: Cli, serving: dict[str, str], approval: str) -> None:
    asked = cli("run", approval, "--input", '"tea"', "--json", "--quiet", code=12, **serving).json
    one = asked["lifetime_id"]
    assert (asked["status"], asked["executions"]) == ("WAITING", 2)
    (question,) = cli("inbox", "--json", **serving).json
    assert question["lifetime_id"] == one

    answered = cli("lifetimes", "answer", one, '{"verdict": "reject"}', "--quiet", **serving)
    assert "`tickwork serve` goes on with it" in answered.err
    again = cli("lifetimes", "resume", one, "--json", "--quiet", code=12, **serving).json
    assert again["status"] == "WAITING"
    assert again["executions"] > asked["executions"]

    cli("lifetimes", "pause", one, "--reason", "lunch", **serving)
    assert cli("lifetimes", "show", one, "--json", **serving).json["status"] == "PAUSED"
    cli("lifetimes", "resume", one, "--no-run", **serving)
    cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--node", "approve", **serving)
    done = cli("lifetimes", "watch", one, "--json", **serving).json
    assert done["status"] == "COMPLETED"
    assert cli("lifetimes", "resume", one, "--json", "--quiet", **serving).json["result"] == done["result"]
    assert cli("lifetimes", "replay", one, "--json", **serving).json["identical"] is True
    assert {row["status"] for row in cli("lifetimes", "list", "--json", **serving).json} == {"COMPLETED"}


def test_what_waits_is_aborted_and_forked(cli: Cli, serving: dict[str, str], approval: str) -> None:
    answers = Path(approval).with_name("answers.yaml")
    answers.write_text("approve: {verdict: accept}\n")
    done = cli("run", approval, "--input", '"tea"', "--answers", str(answers), "--json", "--quiet", **serving).json
    assert done["status"] == "COMPLETED"

    one = done["lifetime_id"]
    forked = cli("lifetimes", "fork", one, "--at", "draft", "--json", "--quiet", code=12, **serving).json
    assert forked["lifetime_id"] != one
    assert forked["status"] == "WAITING"
    aborted = cli("lifetimes", "abort", forked["lifetime_id"], "--reason", "enough", "--json", **serving).json
    assert aborted["status"] == "ABORTED"

    by_name = cli("run", "approval", "--input", '"milk"', "--json", "--quiet", code=12, **serving).json
    assert by_name["status"] == "WAITING", "the code is where it is served, and need not be here"


def test_where_nobody_serves_it_is_said_and_who_comes_first_takes_it_up(
    cli: Cli, cloud: dict[str, str], approval: str, home: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", approval, "--input", '"tea"', "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home) | cloud,
        cwd=os.fspath(Path(approval).parent),
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "Nothing has moved for 5 s" in said
    assert "tickwork serve" in said
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "goes on where it is served" in rest
    (one,) = cli("lifetimes", "list", "--json", **cloud).json
    assert one["status"] in ("PENDING", "RUNNING"), "it is recorded"

    # With such a lease no sweeper finds it in time: what was sent before the first plane ever ran is not lost.
    with served(approval, environment(home) | cloud | {"TICKWORK_LEASE": "600"}, tmp_path):
        until = time.monotonic() + 60
        while one["status"] != "WAITING" and time.monotonic() < until:
            (one,) = cli("lifetimes", "list", "--json", **cloud).json
    assert one["status"] == "WAITING"


def test_policies_and_graphs_are_put_into_the_database(cli: Cli, cloud: dict[str, str], approval: str) -> None:
    rules = Path(approval).with_name("rules.yaml")
    rules.write_text("version: 1\npolicies:\n  - {name: loops, when: count() > 50, action: warn}\n")
    assert cli("graph", "register", approval, **cloud).out.startswith("sha256:")
    cli("guardrails", "apply", str(rules), **cloud)
    assert "loops" in cli("guardrails", "list", **cloud).out
    assert cli("dead-letters", "list", "--json", **cloud).json == []
    assert "tickwork_" in cli("metrics", **cloud).out
    assert cli("usage", "--json", **cloud).json["rows"] == []
