"""`tickwork lifetimes replay` and `fork`, as a person types them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import COMMAND, Cli, environment
from tickwork.model.records import Execution, decode_entry, encode_entry


@pytest.fixture
def waits(cli: Cli, approval: str) -> str:
    """A lifetime that waits for an answer to `approve`, left behind by its process."""
    return str(cli("run", approval, "--input", '"tea"', "--json", code=12).json["lifetime_id"])


@pytest.fixture
def ended(cli: Cli, waits: str) -> str:
    """The same, answered: rejected once, then accepted."""
    cli("lifetimes", "answer", waits, '{"verdict": "reject"}', code=12)
    cli("lifetimes", "answer", waits, '{"verdict": "accept"}')
    return waits


def records(cli: Cli, lifetime: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("lifetimes", "log", lifetime, "--json").json
    return found


def exec_id(cli: Cli, lifetime: str, node: str, iteration: int = 0) -> str:
    headers = [r["headers"] for r in records(cli, lifetime) if "headers" in r]
    return next(str(h["exec_id"]) for h in headers if (h["name"], h["iteration"]) == (node, iteration))


def change(home: Path, lifetime: str, seq: int, **fields: Any) -> None:
    """Writes another execution into the log, as nobody should."""
    with sqlite3.connect(home / "tickwork.db") as database:
        where = "seq = ? AND lid = (SELECT lid FROM lifetimes WHERE lifetime_id = ?)"
        ((body,),) = database.execute(f"SELECT body FROM log WHERE {where}", (seq, lifetime))
        entry = decode_entry(body)
        assert isinstance(entry, Execution)
        for name, value in fields.items():
            setattr(entry, name, value)
        database.execute(f"UPDATE log SET body = ? WHERE {where}", (encode_entry(entry), seq, lifetime))


def test_replay_of_an_untouched_log_is_identical(cli: Cli, ended: str) -> None:
    count = len(records(cli, ended))
    assert cli("lifetimes", "replay", ended[:23]).out.startswith(f"identical: {count} entries, ")
    told = cli("lifetimes", "replay", ended, "--json").json
    assert told["identical"]
    assert (told["entries"], told["divergence"], told["edges"]) == (count, None, 8)
    assert cli("lifetimes", "replay", "ffff", "--json", code=13).json["error"]["code"] == "not_found"


def test_replay_shows_both_sides_of_the_first_divergence(cli: Cli, ended: str, home: Path) -> None:
    seqs = [r["seq"] for r in records(cli, ended) if r.get("headers", {}).get("name") == "decide"]
    change(home, ended, seqs[0], edge_taken="draft->decide", iteration=4)
    change(home, ended, seqs[1], iteration=4)
    shown = cli("lifetimes", "replay", ended, code=4).out
    assert f"diverges at entry {seqs[0]}, after {seqs[0] - 1} entries" in shown
    marked = [line.split() for line in shown.splitlines() if line.startswith("≠")]
    assert marked == [["≠", "iteration", "4", "0"], ["≠", "edge_taken", "draft->decide", "approve->decide"]]
    found = cli("lifetimes", "replay", ended, "--json", code=4).json["divergence"]
    assert (found["seq"], found["node"], found["edge"]) == (seqs[0], "decide", "draft->decide")
    assert (found["recorded"]["iteration"], found["decided"]["iteration"]) == (4, 0)


def test_a_fork_runs_to_its_end_and_the_old_one_is_untouched(cli: Cli, ended: str) -> None:
    before = records(cli, ended)
    at = exec_id(cli, ended, "approve")
    forked = cli("lifetimes", "fork", ended, "--at", at, "--result", '{"verdict": "accept", "note": "now"}', "--json")
    assert (forked.json["status"], forked.json["result"]) == ("COMPLETED", {"verdict": "accept", "note": "now"})
    one = forked.json["lifetime_id"]
    assert f"forked as {one}" in forked.err
    assert records(cli, ended) == before
    mine = records(cli, one)
    place = next(r["seq"] for r in before if r.get("headers", {}).get("exec_id") == at)
    assert [r.get("type") for r in mine[:place]][-1] == "forked"
    same = [(a.get("headers", {}).get("exec_id"), a["recorded_at"]) for a in before[: place - 1]]
    assert [(a.get("headers", {}).get("exec_id"), a["recorded_at"]) for a in mine[: place - 1]] == same
    (row,) = cli("lifetimes", "list", "--label", f"tickwork.fork_of={ended}", "--json").json
    assert row["lifetime_id"] == one
    assert cli("lifetimes", "replay", one, "--json").json["identical"]


def test_a_fork_waits_for_what_its_parent_had_asked(cli: Cli, waits: str) -> None:
    forked = cli("lifetimes", "fork", waits, "--at", "ask", "--label", "try=2", "--json", code=12).json
    assert (forked["status"], forked["reason"]) == ("WAITING", "waits for an answer to `approve`")
    questions = cli("inbox", "--json").json
    assert {q["lifetime_id"] for q in questions} == {waits, forked["lifetime_id"]}
    assert len({q["exec_id"] for q in questions}) == 2
    done = cli("lifetimes", "answer", forked["lifetime_id"], '{"verdict": "accept"}', "--json")
    assert done.json["status"] == "COMPLETED"
    assert cli("lifetimes", "show", waits, "--json").json["status"] == "WAITING"
    assert len(cli("lifetimes", "list", "--label", "try=2", "--json").json) == 1


def test_a_plan_may_have_chosen_otherwise(cli: Cli, ended: str) -> None:
    at = exec_id(cli, ended, "decide", 1)
    forked = cli("lifetimes", "fork", ended, "--at", at, "--result", '"draft"', "--json", code=12)
    assert forked.json["status"] == "WAITING"
    wrong = cli("lifetimes", "fork", ended, "--at", at, "--result", '["approve"]', "--json", code=2)
    assert "it may choose: draft, end" in wrong.json["error"]["message"]


def test_what_cannot_be_forked_is_refused_and_nothing_starts(cli: Cli, ended: str, approval: str) -> None:
    several = cli("lifetimes", "fork", ended, "--at", "draft", code=2).err
    assert "fits 2 executions" in several
    assert exec_id(cli, ended, "draft", 1) in several
    assert cli("lifetimes", "fork", ended, "--at", "nope", "--json", code=13).json["error"]["code"] == "not_found"
    cli("lifetimes", "fork", "ffff", "--at", "ask", code=13)
    at = exec_id(cli, ended, "approve")
    assert "this is not JSON" in cli("lifetimes", "fork", ended, "--at", at, "--result", "{no", code=2).err
    refused = cli("lifetimes", "fork", ended, "--at", at, "--result", '{"verdict": "maybe"}', "--json", code=2)
    assert refused.json["error"]["code"] == "answer_refused"
    path = Path(approval)
    path.write_text(path.read_text().replace("tickwork: 1", "tickwork: 1\ndescription: changed"))
    path.write_text(path.read_text().replace("- ask -> approve", "- {from: ask, to: approve, label: go}"))
    assert "digest" in cli("lifetimes", "fork", ended, "--at", at, code=1).err
    assert [row["lifetime_id"] for row in cli("lifetimes", "list", "--json").json] == [ended]
    left = cli("lifetimes", "fork", ended, "--at", at, "--no-run", "--json").json
    assert left["status"] == "RUNNING"


def test_a_log_that_does_not_replay_is_not_forked(cli: Cli, ended: str, home: Path) -> None:
    at = exec_id(cli, ended, "decide", 1)
    change(home, ended, 3, iteration=4)
    told = cli("lifetimes", "fork", ended, "--at", at, "--json", code=1).json["error"]
    assert told["code"] == "conflict"
    assert "does not replay: at entry 3" in told["message"]


@pytest.fixture
def held(tmp_path: Path, home: Path, approval: str) -> Iterator[subprocess.Popen[str]]:
    """`tickwork run --wait` that has just asked its question."""
    running = subprocess.Popen(
        [*COMMAND, "run", approval, "--wait", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(home),
    )  # fmt: skip
    assert running.stderr is not None
    with running:
        for line in running.stderr:
            if "event waiting" in line:
                break
        yield running
        running.kill()


def test_beside_the_process_that_runs_it(cli: Cli, held: subprocess.Popen[str]) -> None:
    (row,) = cli("lifetimes", "list", "--json").json
    one = row["lifetime_id"]
    assert cli("lifetimes", "replay", one).out.startswith("identical: ")
    forked = cli("lifetimes", "fork", one, "--at", "ask", "--json", code=12)
    assert forked.json["status"] == "WAITING"
    assert f"in process {held.pid}" in forked.err
    other = forked.json["lifetime_id"]
    cli("lifetimes", "answer", other, '{"verdict": "accept"}')
    assert json.loads(cli("lifetimes", "watch", other, "--json").out)["status"] == "COMPLETED"
    assert cli("lifetimes", "show", one, "--json").json["status"] == "WAITING"
    assert cli("lifetimes", "replay", other, "--json").json["identical"]
    assert cli("lifetimes", "fork", other, "--at", "nope", code=13).err
