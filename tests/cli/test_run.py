"""`tickwork run` as a script sees it: the document, the exit code, what goes where."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.cli.process import Cli
from tickwork.cli.schema import SCHEMAS

KEYS = ["lifetime_id", "status", "reason", "result", "executions", "tokens_used", "cost_usd", "duration_ms"]


def answers(tmp_path: Path, text: str) -> str:
    (tmp_path / "answers.yaml").write_text(text)
    return "answers.yaml"


def test_the_document_of_a_completed_run(cli: Cli, approval: str, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve:\n  - {verdict: reject}\n  - {verdict: accept}\n")
    ran = cli("run", approval, "--input", '"tea"', "--answers", given, "--json")
    assert list(ran.json) == KEYS
    jsonschema.validate(ran.json, SCHEMAS["outcome"][1]())
    assert (ran.json["status"], ran.json["reason"], ran.json["executions"]) == ("COMPLETED", None, 8)
    assert (ran.json["tokens_used"], ran.json["cost_usd"]) == (20, "0.0002")
    assert "event completed" in ran.err

    log = cli("lifetimes", "log", ran.json["lifetime_id"], "--json").json
    assert [record["seq"] for record in log] == list(range(1, len(log) + 1))
    validator = jsonschema.Draft202012Validator(SCHEMAS["records"][1]())
    for record in log:
        validator.validate(record)
    names = [record["headers"]["name"] for record in log if "headers" in record]
    assert names == ["draft", "ask", "approve", "decide"] * 2


def test_a_result_for_people_is_plain(cli: Cli, tmp_path: Path) -> None:
    cli("new", "hello")
    ran = cli("run", "hello/graph.yaml", "--input", '{"topic": "tea"}', "--quiet", "--profile", "test")
    assert ran.out == "All that matters about tea, explained\n" or ran.out.endswith("explained\n")
    assert ran.err == ""


def test_a_failure_is_exit_10_with_its_reason(cli: Cli, approval: str) -> None:
    ran = cli("run", approval, "--input", '"fail"', "--json", code=10)
    assert ran.json["status"] == "FAILED"
    assert "nothing to write about" in ran.json["reason"] + ran.err
    assert f"tickwork lifetimes log {ran.json['lifetime_id']}" in ran.err


def test_nobody_to_answer_is_exit_12_and_says_how(cli: Cli, approval: str) -> None:
    ran = cli("run", approval, "--input", '"tea"', "--json", code=12)
    assert ran.json["status"] == "WAITING"
    assert ran.json["reason"] == "waits for an answer to `approve`"
    assert "approve asks: May `draft 1 about tea` be published?" in ran.err
    assert f"tickwork lifetimes answer {ran.json['lifetime_id']} ANSWER --node approve" in ran.err


def test_answers_that_run_out_name_the_node(cli: Cli, approval: str, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve: [{verdict: reject}]\n")
    ran = cli("run", approval, "--answers", given, "--json", code=12)
    assert "answers.yaml has 1 answer for `approve`, and it asks for the 2. time" in ran.err
    assert "tickwork lifetimes answer" in ran.err


def test_an_answer_in_the_file_that_breaks_the_schema_is_refused(cli: Cli, approval: str, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve: {verdict: perhaps}\n")
    ran = cli("run", approval, "--answers", given, "--json", code=2)
    assert ran.json["error"]["code"] == "answer_refused"
    assert "'perhaps' is not one of ['accept', 'reject']" in ran.err
    (one,) = cli("lifetimes", "list", "--json").json
    assert one["status"] == "WAITING"
    answers(tmp_path, "approve: {verdict: accept}\n")
    assert cli("lifetimes", "resume", one["lifetime_id"], "--answers", given, "--json").json["status"] == "COMPLETED"


def test_the_same_key_starts_one_lifetime(cli: Cli, approval: str, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve: {verdict: accept}\n")
    first = cli("run", approval, "--idempotency-key", "k1", "--json", code=12).json
    again = cli("run", approval, "--idempotency-key", "k1", "--answers", given, "--json").json
    after = cli("run", approval, "--idempotency-key", "k1", "--json").json
    assert first["lifetime_id"] == again["lifetime_id"] == after["lifetime_id"]
    assert after["status"] == "COMPLETED"


def test_labels_and_tenants_are_kept_apart(cli: Cli, approval: str) -> None:
    cli("run", approval, "--label", "team=red", "--label", "n=1", code=12)
    cli("run", approval, "--label", "team=blue", code=12)
    cli("run", approval, "--tenant", "acme", code=12)
    assert [one["labels"] for one in cli("lifetimes", "list", "--label", "team=red", "--json").json] == [
        {"team": "red", "n": "1"}
    ]
    both = ("--label", "team=red", "--label", "n=1")
    assert len(cli("lifetimes", "list", *both, "--limit", "1", "--json").json) == 1
    assert cli("lifetimes", "list", *both[:3], "n=2", "--json").json == []
    assert len(cli("lifetimes", "list", "--json").json) == 2
    (other,) = cli("lifetimes", "list", "--tenant", "acme", "--json").json
    cli("lifetimes", "show", other["lifetime_id"], code=13)


def test_input_comes_from_a_file_or_from_stdin(cli: Cli, approval: str, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve: {verdict: accept}\n")
    (tmp_path / "input.json").write_text('"files"')
    for text, stdin in (("@input.json", ""), ("-", '"files"')):
        ran = cli("run", approval, "--input", text, "--answers", given, "--json", stdin=stdin)
        log = cli("lifetimes", "log", ran.json["lifetime_id"], "--json").json
        drafted = next(record for record in log if record.get("headers", {}).get("name") == "draft")
        assert drafted["result"]["inline"] == {"text": "draft 1 about files"}


def test_the_test_profile_leaves_nothing_behind(cli: Cli, approval: str, home: Path, tmp_path: Path) -> None:
    given = answers(tmp_path, "approve: {verdict: accept}\n")
    assert cli("run", approval, "--profile", "test", "--answers", given, "--json").json["status"] == "COMPLETED"
    assert not home.exists()


@pytest.mark.parametrize("spec", ["missing.yaml", "missing/", "missing.py:graph"])
def test_a_graph_that_is_not_there(cli: Cli, spec: str) -> None:
    assert "missing" in cli("run", spec, code=13).err


def test_a_changed_graph_under_the_same_version_is_refused(cli: Cli, approval: str) -> None:
    cli("run", approval, code=12)
    path = Path(approval)
    path.write_text(path.read_text().replace("May `", "Shall `"))
    refused = cli("run", approval, "--json", code=1)
    assert refused.json["error"]["code"] == "graph_conflict"
