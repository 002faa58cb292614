"""Policies on the command line: checked, put in force, listed, shown, removed; and how a breach is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

BUDGET = """
version: 1
policies:
  - {name: token-budget, when: sum(tokens_used) > 10, action: pause_lifetime}
  - {name: chatty, when: count() > 1, action: warn}
  - {name: unseen, when: count() > 1, action: abort_lifetime, shadow: true}
"""
TENANT = """
version: 1
tenant: default
policies:
  - {name: daily-spend, scope: tenant, window: 24h, when: sum(cost_usd) > 0.00015, action: pause_lifetime}
"""
WRONG = """
version: 1
policies:
  - {name: a, when: sum(tokens) > 3, action: pause}
"""
LOOP = """
tickwork: 1
name: loop
version: 1.0.0
tasks:
  write: {run: "steps.py:write"}
plans:
  review: steps.py:review
edges:
  - start -> write
  - write -> review
  - {from: review, to: write, label: again}
  - {from: review, to: end, label: good}
"""
STEPS = """
from tickwork import END

def write(value, ctx):
    ctx.telemetry.record(tokens_used=8, cost_usd="0.0001")
    return {"n": ctx.iteration + 1}

def review(plan_input):
    return END if plan_input.result["n"] >= 3 else "write"
"""


@pytest.fixture
def loop(tmp_path: Path) -> str:
    """A graph that writes three times, with eight tokens each."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "loop.yaml").write_text(LOOP)
    for name, text in (("budget", BUDGET), ("tenant", TENANT), ("wrong", WRONG)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return "loop.yaml"


@pytest.fixture
def held(tmp_path: Path, home: Path, approval: str, loop: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the home, with a lifetime that waits for an answer."""
    running = subprocess.Popen(
        [*COMMAND, "run", approval, "--wait", "--json", "--input", '"tea"'],
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


def test_check_lists_every_problem_with_its_place(cli: Cli, loop: str) -> None:
    ran = cli("guardrails", "check", "wrong.yaml", code=4)
    assert "wrong.yaml:4:25: the condition does not compile: unknown measure `tokens`" in ran.out
    assert "wrong.yaml:4:46: `action` cannot be `pause`" in ran.out
    assert "2 problems" in ran.err
    told = cli("guardrails", "check", "wrong.yaml", "--json", code=4).json
    assert not told["valid"]
    assert (told["problems"][0]["line"], told["problems"][0]["code"]) == (4, "bad_condition")
    assert cli("guardrails", "check", "nowhere.yaml", code=13).out == ""
    fine = cli("guardrails", "check", "budget.yaml")
    assert "3 policies for the installation" in fine.err
    assert fine.out == ""


def test_a_budget_pauses_and_goes_on_once_it_is_raised(cli: Cli, loop: str) -> None:
    paused = cli("run", loop, "--policies", "budget.yaml", "--quiet", code=12)
    first, why, go_on = paused.err.splitlines()
    assert first.startswith("PAUSED")
    assert why.strip() == "policy run/token-budget: sum(tokens_used) is 16, over 10, with what `write` did"
    assert "--raise token-budget=32" in go_on
    lifetime = cli("lifetimes", "list", "--json").json[0]["lifetime_id"]
    for limit, told in (
        ("token-budget=9", "raise it above that"),
        ("token-budget=12", "raise it further"),
        ("token-bugdet=90", "did you mean `token-budget`"),
        ("token-budget", "POLICY=NUMBER"),
        ("token-budget=many", "is no number"),
    ):
        assert told in cli("lifetimes", "resume", lifetime, "--raise", limit, code=2).err
    shown = cli("lifetimes", "show", lifetime).out
    assert f"lifetimes resume {lifetime} --raise token-budget=32" in shown
    log = cli("lifetimes", "log", lifetime).out
    assert "run/chatty → warn: count() would be 2, over 1" in log
    assert "run/unseen → abort_lifetime (shadow)" in log
    assert "run/token-budget → pause_lifetime: sum(tokens_used) is 16, over 10" in log
    done = cli("lifetimes", "resume", lifetime, "--raise", "token-budget=20 000", "--by", "ada", "--quiet")
    assert json.loads(done.out) == {"n": 3}
    assert "by ada, run/token-budget raised to 20,000" in cli("lifetimes", "log", lifetime).out
    ended = cli("lifetimes", "resume", lifetime, "--raise", "token-budget=30000", code=1)
    assert "has ended COMPLETED" in ended.err


def test_the_outcome_names_the_policy(cli: Cli, tmp_path: Path, loop: str) -> None:
    told = cli("run", loop, "--policies", "budget.yaml", "--json", code=12).json
    assert told["policy"] == "run/token-budget"
    assert told["verdict"]["values"] == {"sum(tokens_used)": "16"}
    assert told["raise"] == ["token-budget=32"]
    (tmp_path / "abort.yaml").write_text("version: 1\npolicies:\n  - sum(tokens_used) > 1 0 -> abort_lifetime\n")
    assert cli("run", loop, "--policies", "abort.yaml", code=4).out == "", "1 0 is no number"
    (tmp_path / "abort.yaml").write_text("version: 1\npolicies:\n  - sum(tokens_used) > 10 -> abort_lifetime\n")
    ran = cli("run", loop, "--policies", "abort.yaml", "--json", code=11)
    assert (ran.json["status"], ran.json["policy"], ran.json["raise"]) == ("ABORTED", "run/sum-tokens-used", [])
    assert "change the policy run/sum-tokens-used and start anew" in ran.err
    free = cli("run", loop, "--json").json
    assert "policy" not in free


def test_policies_of_one_run_belong_to_no_tenant(cli: Cli, loop: str) -> None:
    refused = cli("run", loop, "--policies", "tenant.yaml", code=2)
    assert "tickwork guardrails apply tenant.yaml" in refused.err
    assert "2 problems" in cli("run", loop, "--policies", "wrong.yaml", code=4).err
    assert cli("lifetimes", "list", "--json").json == []


def test_apply_list_show_remove(cli: Cli, loop: str, home: Path) -> None:
    assert cli("guardrails", "list", "--json").json == []
    assert not home.exists(), "looking makes no home"
    assert "2 problems" in cli("guardrails", "apply", "tenant.yaml", "wrong.yaml", code=4).err
    assert not home.exists(), "all files are checked first"
    cli("guardrails", "apply", "tenant.yaml", "budget.yaml", "--by", "ada")
    found = cli("guardrails", "list", "--json").json
    assert [(one["layer"], one["tenant"], one["by"], one["source"]) for one in found] == [
        ("installation", None, "ada", "store"),
        ("tenant", "default", "ada", "store"),
    ]
    assert "token-budget, chatty" in cli("guardrails", "list").out
    shown = cli("guardrails", "show", "--json").json
    assert [(one["layer"], one["name"]) for one in shown["policies"]][-1] == ("tenant", "daily-spend")
    other = cli("guardrails", "show", "--tenant", "umbrella")
    assert "daily-spend" not in other.out
    assert "installation/token-budget" in other.out
    paused = cli("run", loop, "--quiet", code=12)
    assert "policy tenant/daily-spend: sum(cost_usd) would be 0.0002, over 0.00015" in paused.err or (
        "policy installation/token-budget: sum(tokens_used) is 16, over 10" in paused.err
    )
    cli("guardrails", "remove", "--tenant", "default", "--by", "bob")
    cli("guardrails", "remove")
    assert "guardrails list" in cli("guardrails", "remove", "--graph", "loop", code=13).err
    assert cli("guardrails", "list", "--json").json == []
    history = cli("guardrails", "list", "--history", "--json").json
    assert [(one["layer"], len(one["policies"]), one["by"]) for one in history][:3] == [
        ("tenant", 1, "ada"),
        ("installation", 3, "ada"),
        ("tenant", 0, "bob"),
    ]
    cli("run", loop, "--quiet")


def test_two_documents_of_one_layer_are_refused(cli: Cli, tmp_path: Path, loop: str, home: Path) -> None:
    (tmp_path / "again.yaml").write_text(BUDGET)
    assert "one file" in cli("guardrails", "apply", "budget.yaml", "again.yaml", code=2).err
    (home / "policies").mkdir(parents=True)
    (home / "policies" / "ours.yaml").write_text(BUDGET.replace("> 10", "> 11"))
    clash = cli("guardrails", "apply", "budget.yaml", code=1)
    assert "has a policy `token-budget` in force already" in clash.err
    (listed,) = cli("guardrails", "list", "--json").json
    assert listed["source"] == "files"
    assert "lie in a file" in cli("guardrails", "remove", code=13).err


def test_broken_policies_start_nothing_and_can_be_looked_at(cli: Cli, loop: str, home: Path) -> None:
    cli("run", loop, "--quiet")
    (home / "policies").mkdir()
    (home / "policies" / "wrong.yaml").write_text(WRONG)
    refused = cli("run", loop, "--json", code=4)
    assert refused.json["error"]["code"] == "policy_invalid"
    assert len(refused.json["error"]["problems"]) == 2
    assert "2 problems in the policies" in cli("lifetimes", "list", "--json").err
    cli("guardrails", "apply", "tenant.yaml")
    cli("guardrails", "remove", "--tenant", "default")


def test_the_process_that_holds_the_home_takes_them(cli: Cli, held: subprocess.Popen[str]) -> None:
    put = cli("guardrails", "apply", "tenant.yaml")
    assert f"process {held.pid} has taken it" in put.err
    assert cli("guardrails", "show", "--json").json["policies"][0]["name"] == "daily-spend"
    (budget,) = cli("usage", "--budgets", "--json").json["budgets"]
    assert (budget["policy"], budget["spent"], budget["limit"]) == ("tenant/daily-spend", "0.0001", "0.00015")
    (lifetime,) = [one["lifetime_id"] for one in cli("lifetimes", "list", "--json").json]
    # The next draft would cost as much again; it declares nothing, so it is the record that counts, and then no more.
    for _ in range(2):
        answered = cli("lifetimes", "answer", lifetime, '{"verdict": "reject"}', code=None)
        if answered.code:
            break
        for _ in range(50):
            one = cli("lifetimes", "show", lifetime, "--json").json
            if one["status"] in ("PAUSED", "WAITING"):
                break
        if one["status"] == "PAUSED":
            break
    assert one["status"] == "PAUSED"
    assert "tenant/daily-spend" in one["reason"]
    told = cli("lifetimes", "resume", lifetime, "--raise", "daily-spend=1", "--no-run", "--json").json
    assert told["status"] in ("RUNNING", "PAUSED", "WAITING")
    assert cli("usage", "--lifetime", lifetime, "--budgets", "--json").json["budgets"][0]["raised"] is True


def test_example_records_are_judged(cli: Cli, tmp_path: Path, loop: str) -> None:
    lifetime = cli("run", loop, "--json").json["lifetime_id"]
    lines = cli("lifetimes", "log", lifetime, "--jsonl").out
    (tmp_path / "records.jsonl").write_text(lines + '{"headers": {"exec_id": 3}}\nnothing\n')
    (tmp_path / "try.yaml").write_text(
        "version: 1\npolicies:\n"
        '  - {name: third, scope: execution, when: "result.n == 3", action: reject_execution, match: {kind: task}}\n'
        "  - {name: cap, when: iterations('write') > 1, action: abort_lifetime}\n"
        "  - {name: spend, scope: tenant, when: sum(cost_usd) > 1, action: warn}\n"
    )
    told = cli("guardrails", "check", "try.yaml", "--records", "records.jsonl", "--json", code=4).json
    assert told["valid"]
    records = told["records"]
    assert (records["executions"], records["lifetimes"]) == (6, 1)
    assert [(one["policy"], one["line"]) for one in records["verdicts"]] == [
        ("installation/cap", 4),
        ("installation/third", 6),
    ]
    assert records["verdicts"][0]["values"] == {"iterations('write')": "2"}
    assert [one["line"] for one in records["unreadable"]] == [9, 10]
    assert records["not_judged"] == ["installation/spend"]
    (tmp_path / "records.jsonl").write_text(lines)
    ran = cli("guardrails", "check", "try.yaml", "--records", "records.jsonl")
    assert "reject_execution" in ran.out
    assert "2 verdicts over 6 executions of 1 lifetime" in ran.err
    assert cli("guardrails", "check", "try.yaml", "--records", "nowhere", code=13).out == ""
