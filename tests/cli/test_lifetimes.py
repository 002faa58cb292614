"""`tickwork lifetimes` and `tickwork inbox` over one home, from process to process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cli.process import Cli


def waiting(cli: Cli, approval: str, text: str = '"tea"') -> str:
    """A lifetime that waits for an answer, left behind by its process."""
    return str(cli("run", approval, "--input", text, "--json", code=12).json["lifetime_id"])


def test_inbox_shows_who_is_asked_what(cli: Cli, approval: str) -> None:
    cli("run", approval, "--profile", "test", code=12)
    one = waiting(cli, approval)
    (question,) = cli("inbox", "--json").json
    assert question["lifetime_id"] == one
    assert (question["node"], question["graph"]) == ("approve", "approval")
    assert question["prompt"] == "May `draft 1 about tea` be published?"
    assert question["answer_schema"]["required"] == ["verdict"]
    assert set(question) >= {"exec_id", "since", "deadline", "who"}
    assert cli("inbox", "--jsonl").lines == [question]
    assert "May `draft 1 about tea` be published?" in cli("inbox").out


def test_an_answer_carries_the_lifetime_on(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    refused = cli("lifetimes", "answer", one, '{"verdict": "maybe"}', "--json", code=2)
    assert refused.json["error"]["code"] == "answer_refused"
    again = cli("lifetimes", "answer", one[:23], '{"verdict": "reject"}', "--json", code=12)
    assert again.json["status"] == "WAITING"
    done = cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--by", "ada", "--json")
    assert done.json["status"] == "COMPLETED"
    assert cli("inbox", "--json").json == []
    log = cli("lifetimes", "log", one, "--json").json
    assert [r["headers"]["executor"]["worker_id"] for r in log if r.get("headers", {}).get("name") == "approve"][
        1
    ] == "human:ada"
    late = cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--json", code=1)
    assert late.json["error"]["code"] == "already_ended"


def test_an_answer_can_only_be_recorded(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    recorded = cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--no-run", "--json")
    assert recorded.err == ""
    assert recorded.json["status"] != "COMPLETED"
    assert cli("lifetimes", "resume", one, "--json").json["status"] == "COMPLETED"


def test_pause_resume_abort(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    assert cli("lifetimes", "pause", one, "--reason", "lunch", "--json").json["status"] == "PAUSED"
    shown = cli("lifetimes", "show", one, "--json").json
    assert (shown["status"], shown["reason"]) == ("PAUSED", "lunch")
    assert cli("lifetimes", "resume", one, "--json", code=12).json["status"] == "WAITING"
    assert cli("lifetimes", "abort", one, "--reason", "no need", "--json").json["status"] == "ABORTED"
    assert cli("lifetimes", "resume", one, "--json", code=11).json["reason"].startswith("no need")
    assert cli("lifetimes", "abort", one, "--json", code=1).json["error"]["code"] == "already_ended"
    assert cli("lifetimes", "watch", one, code=11).err.count("aborted") == 1


def test_the_reason_of_a_pause_ends_with_it(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    cli("lifetimes", "pause", one, "--reason", "lunch")
    assert cli("lifetimes", "resume", one, "--json", code=12).json["reason"] == "waits for an answer to `approve`"
    assert "reason" not in cli("lifetimes", "show", one).out
    done = cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--json")
    assert (done.json["status"], done.json["reason"]) == ("COMPLETED", None)
    assert "lunch" not in cli("lifetimes", "watch", one).err.splitlines()[-1]
    assert [row["reason"] for row in cli("lifetimes", "list", "--json").json] == [None]


def test_answers_are_given_by_somebody(cli: Cli, approval: str, tmp_path: Path) -> None:
    path = Path(approval)
    path.write_text(path.read_text().replace("    human:\n", "    human:\n      who: [ann]\n"))
    (tmp_path / "a.yaml").write_text("approve: {verdict: accept}\n")
    refused = cli("run", approval, "--answers", "a.yaml", "--by", "bob", code=2)
    assert "--answers a.yaml --by ann" in refused.err
    (one,) = [row["lifetime_id"] for row in cli("lifetimes", "list", "--json").json]
    shown = cli("lifetimes", "show", one).out
    assert "may be answered by: ann" in shown
    assert f"tickwork lifetimes answer {one} ANSWER --node approve --by ann" in shown
    assert '"enum":["accept","reject"]' in shown
    assert "--by ann" in cli("lifetimes", "answer", one, '{"verdict": "accept"}', "--by", "bob", code=2).err
    done = cli("lifetimes", "resume", one, "--answers", "a.yaml", "--by", "ann", "--json")
    assert done.json["status"] == "COMPLETED"
    log = cli("lifetimes", "log", one, "--json").json
    by = [r["headers"]["executor"]["worker_id"] for r in log if r.get("headers", {}).get("name") == "approve"]
    assert by == ["human:ann"]
    assert cli("run", approval, "--answers", "a.yaml", "--by", "ann", "--json").json["status"] == "COMPLETED"


def test_a_registered_graph_runs_by_its_name(cli: Cli, approval: str, tmp_path: Path) -> None:
    assert "approval" in cli("run", "approval-2", code=13).err
    Path(approval).parent.rename(tmp_path / "approval.d")  # else `approval` is the folder of that name
    cli("graph", "register", "approval.d/graph.yaml", "--home", "other")
    for name in ("approval", "approval@1.0.0"):
        assert cli("run", name, "--home", "other", "--json", code=12).json["status"] == "WAITING"
    assert "approval@2.0.0" in cli("run", "approval@2.0.0", "--home", "other", code=13).err
    changed = tmp_path / "approval.d" / "graph.yaml"
    changed.write_text(changed.read_text().replace("May `", "Shall `"))
    refused = cli("run", "approval", "--home", "other", "--json", code=1)
    assert refused.json["error"]["code"] == "graph_unavailable"


def test_show_says_what_each_node_used(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    document = cli("lifetimes", "show", one, "--json").json
    assert document["nodes"]["draft"]["succeeded"] == 1
    assert document["nodes"]["draft"]["cost_usd"] == "0.0001"
    assert document["questions"][0]["node"] == "approve"
    text = cli("lifetimes", "show", one).out
    for words in (one, "WAITING", "draft", "$0.0001", "May `draft 1 about tea` be published?"):
        assert words in text


def test_log_in_every_form(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    whole = cli("lifetimes", "log", one, "--json").json
    assert cli("lifetimes", "log", one, "--jsonl").lines == whole
    assert cli("lifetimes", "log", one, "--json", "--after", "1", "--limit", "2").json == whole[1:3]
    table = cli("lifetimes", "log", one)
    assert len(table.out.splitlines()) == len(whole) + 1
    assert "draft" in table.out
    assert one in table.err


def test_list_filters_and_pages(cli: Cli, approval: str) -> None:
    ids = [waiting(cli, approval) for _ in range(3)]
    cli("lifetimes", "abort", ids[0])
    listed = [one["lifetime_id"] for one in cli("lifetimes", "list", "--json").json]
    assert listed == ids[::-1]
    assert [one["lifetime_id"] for one in cli("lifetimes", "list", "--status", "ABORTED", "--jsonl").lines] == ids[:1]
    assert cli("lifetimes", "list", "--graph", "other", "--json").json == []
    assert "None matches" in cli("lifetimes", "list", "--graph", "other").err
    first = cli("lifetimes", "list", "--limit", "2")
    assert f"--before {ids[1]}" in first.err
    rest = cli("lifetimes", "list", "--limit", "2", "--before", ids[1], "--json").json
    assert [one["lifetime_id"] for one in rest] == ids[:1]


def test_prefixes_are_enough_when_they_are_unique(cli: Cli, approval: str) -> None:
    ids = [waiting(cli, approval) for _ in range(2)]
    several = cli("lifetimes", "show", ids[0][:2], code=2)
    assert all(one in several.err for one in ids)
    assert cli("lifetimes", "show", "ffff", "--json", code=13).json["error"]["code"] == "not_found"


def test_a_graph_that_changed_is_not_run(cli: Cli, approval: str) -> None:
    one = waiting(cli, approval)
    path = Path(approval)
    before = path.read_text()
    path.write_text(before.replace("May `", "Shall `"))
    refused = cli("lifetimes", "resume", one, "--json", code=1)
    assert refused.json["error"]["code"] == "graph_unavailable"
    assert "Bring that version of the file back" in refused.err
    path.unlink()
    gone = cli("lifetimes", "answer", one, '{"verdict": "accept"}')
    assert "cannot go on here" in gone.err
    assert "has not loaded" not in gone.err
    path.write_text(before)
    assert cli("lifetimes", "resume", one, "--json").json["status"] == "COMPLETED"


def test_show_says_what_else_is_waited_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("def note(value): ...\ndef check(plan_input): return 'end'\n")
    child = SIGNAL.replace("payment", "family").replace("{signal: {name: paid}}", "{child: {name: payment}}")
    (tmp_path / "family.yaml").write_text(child)
    (tmp_path / "payment.yaml").write_text(SIGNAL)
    cli("graph", "register", "payment.yaml")
    ran = cli("run", "family.yaml", "--json", code=12).json
    inner = next(row for row in cli("lifetimes", "list", "--json").json if row["graph"]["name"] == "payment")
    assert ran["reason"] == f"waits for lifetime {inner['lifetime_id']} (WAITING)"
    shown = cli("lifetimes", "show", ran["lifetime_id"]).out
    assert f"waits for lifetime {inner['lifetime_id']} of payment, which is WAITING" in shown
    assert "left behind" not in shown


SIGNAL = """
tickwork: 1
name: payment
version: 1.0.0
tasks:
  paid: {signal: {name: paid}}
  note: steps.py:note
plans:
  check: steps.py:check
edges:
  - start -> paid
  - paid -> check
  - check -> note
  - note -> check
  - {from: check, to: end}
"""


def test_a_signal_moves_a_lifetime(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(SIGNAL)
    (tmp_path / "steps.py").write_text("def note(value): ...\ndef check(plan_input): return 'end'\n")
    ran = cli("run", "graph.yaml", "--json", code=12)
    one: str = ran.json["lifetime_id"]
    assert ran.json["reason"] == "waits for signal `paid`"
    assert f"tickwork lifetimes signal {one} paid --payload JSON" in ran.err
    shown = cli("lifetimes", "show", one).out
    assert "paid waits for signal `paid`" in shown
    assert f"tickwork lifetimes signal {one} paid --payload JSON" in shown
    unknown = cli("lifetimes", "signal", one, "piad", code=2)
    assert "paid" in unknown.err
    done: Any = cli("lifetimes", "signal", one, "paid", "--payload", '{"amount": 7}', "--json").json
    assert done["status"] == "COMPLETED"
    assert done["result"] == {"amount": 7}
