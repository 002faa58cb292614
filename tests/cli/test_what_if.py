"""`tickwork guardrails what-if`, as a person types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

AGENT = """
from tickwork import END, Graph, plan, task

@plan
def decide(job, ctx):
    return "refine" if ctx.iteration < ctx.lifetime.input else END

@task
def refine(job, ctx):
    ctx.telemetry.record(tokens_used=1000, cost_usd="0.0123456")
    return {"draft": ctx.iteration}

graph = Graph("writer", "1.0.0")
graph.start(decide)
graph.then(decide, refine)
graph.edge(refine, decide)
graph.final(decide)
"""

STRICT = """
version: 1
policies:
  - {name: token-budget, when: sum(tokens_used) > 3500, action: abort_lifetime}
  - {name: loop-cap, when: iterations('refine') > 2, action: pause_lifetime}
"""


@pytest.fixture
def agent(tmp_path: Path) -> str:
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "strict.yaml").write_text(STRICT)
    budget = "version: 1\npolicies: [{name: budget, when: sum(tokens_used) > 3500, action: abort_lifetime}]\n"
    (tmp_path / "budget.yaml").write_text(budget)
    (tmp_path / "wide.yaml").write_text(budget.replace("3500", "90000"))
    return "agent.py:graph"


@pytest.fixture
def two(cli: Cli, agent: str) -> list[str]:
    """Lifetimes of two and of five rounds, both completed."""
    return [str(cli("run", agent, "--input", rounds, "--json").json["lifetime_id"]) for rounds in ("2", "5")]


def test_what_would_have_been_stopped_is_shown_and_gates(cli: Cli, two: list[str]) -> None:
    shown = cli("guardrails", "what-if", "budget.yaml")
    assert "would have been stopped" in shown.out
    assert two[1][:13] in shown.out
    assert two[0][:13] not in shown.out
    assert "$0.0123" in shown.out
    assert "Judged 2 lifetimes with 16 records under 1 policy." in shown.err
    assert "1 lifetime that completed would have been stopped: 1 aborted." in shown.err

    cli("guardrails", "what-if", "budget.yaml", "--max-killed", "1")
    beyond = cli("guardrails", "what-if", "budget.yaml", "--max-killed", "0", code=4)
    assert "--max-killed is 0" in beyond.err
    assert "Nothing would have been stopped." in cli("guardrails", "what-if", "wide.yaml", "--max-killed", "0").err


def test_for_machines_everything_is_exact(cli: Cli, two: list[str]) -> None:
    told = cli("guardrails", "what-if", "strict.yaml", "--json", "--max-killed", "0", code=4).json
    assert (told["lifetimes"], told["records"], told["total"]["killed"]) == (2, 16, {"paused": 1, "aborted": 0})
    assert [row["policy"] for row in told["policies"]] == ["installation/token-budget", "installation/loop-cap"]
    (one,) = told["changed"]
    assert (one["lifetime_id"], one["status"], one["killed"]) == (two[1], "COMPLETED", "paused")
    stop = one["stop"]
    assert (stop["policy"], stop["at"], stop["node"]) == ("installation/loop-cap", "dispatch", "refine")
    log = cli("lifetimes", "log", two[1], "--json").json
    assert log[stop["seq"] - 1]["headers"]["name"] == "decide"
    assert one["saved"]["tokens_used"] == 3_000
    assert one["saved"]["cost_usd"] == "0.0370368"
    assert one["used"]["cost_usd"] == "0.061728"

    lines = cli("guardrails", "what-if", "strict.yaml", "--jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == told["changed"]


def test_which_lifetimes(cli: Cli, two: list[str]) -> None:
    def killed(*options: str) -> int:
        told = cli("guardrails", "what-if", "budget.yaml", "--json", *options).json
        return int(told["total"]["killed"]["aborted"])

    assert killed("--since", "30d") == killed("--graph", "writer") == killed("--all-tenants") == 1
    assert killed("--until", "2020-01-01") == killed("--graph", "other") == killed("--tenant", "acme") == 0
    assert killed("--since", "2099-01-01") == 0
    wrong = cli("guardrails", "what-if", "budget.yaml", "--since", "yesterday", code=2)
    assert "--since yesterday: that is no time." in wrong.err


def test_what_is_in_force_is_replaced_or_stays_beside(cli: Cli, two: list[str]) -> None:
    cli("guardrails", "apply", "strict.yaml")
    stopped = cli("run", "agent.py:graph", "--input", "9", "--json", code=12).json["lifetime_id"]

    told = cli("guardrails", "what-if", "wide.yaml", "--json").json
    (one,) = told["changed"]
    assert (one["lifetime_id"], told["total"]["spared"], told["total"]["paused"]) == (stopped, 1, 0)
    assert one["spared"][0]["policy"] == "installation/loop-cap"
    assert "really stopped, and not now" in cli("guardrails", "what-if", "wide.yaml").out

    told = cli("guardrails", "what-if", "wide.yaml", "--with-current", "--json").json
    assert (told["unchanged"], told["total"]["spared"], told["total"]["paused"]) == (1, 0, 1)


def test_what_cannot_be_judged_is_refused(cli: Cli, agent: str, tmp_path: Path) -> None:
    assert "Say which policies" in cli("guardrails", "what-if", code=2).err
    assert "There is no Tickwork home" in cli("guardrails", "what-if", "budget.yaml", code=13).err
    (tmp_path / "wrong.yaml").write_text("version: 1\npolicies: [{name: a, when: sum(token_used) > 1, action: warn}]\n")
    assert "did you mean" in cli("guardrails", "what-if", "wrong.yaml", "budget.yaml", code=4).err
    assert "not.yaml" in cli("guardrails", "what-if", "not.yaml", code=13).err


def test_it_works_beside_the_process_that_holds_the_home(cli: Cli, approval: str, tmp_path: Path, home: Path) -> None:
    waits = [*COMMAND, "run", approval, "--input", '"tea"', "--wait", "--json"]
    holder = subprocess.Popen(
        waits, cwd=tmp_path, env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        (tmp_path / "few.yaml").write_text(
            "version: 1\npolicies: [{name: few, when: count() > 1, action: pause_lifetime}]\n"
        )
        for _ in range(400):
            found = cli("inbox", "--json", code=None)
            if found.code == 0 and found.json:
                break
        told = cli("guardrails", "what-if", "few.yaml", "--json").json
        assert told["total"]["paused"] == 1
        assert holder.poll() is None
        (one,) = told["changed"]
        cli("lifetimes", "abort", one["lifetime_id"])
        holder.wait(30)
    finally:
        holder.kill()
        holder.communicate()
