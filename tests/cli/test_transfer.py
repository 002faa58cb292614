"""`tickwork lifetimes export` and `import`: from one home into another, as a person types them."""

from __future__ import annotations

import gzip
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment


@pytest.fixture
def waits(cli: Cli, approval: str) -> str:
    """A lifetime that waits for an answer to `approve`."""
    return str(cli("run", approval, "--input", '"tea"', "--json", code=12).json["lifetime_id"])


@pytest.fixture
def ended(cli: Cli, waits: str) -> str:
    """The same, answered: rejected once, then accepted."""
    cli("lifetimes", "answer", waits, '{"verdict": "reject"}', code=12)
    cli("lifetimes", "answer", waits, '{"verdict": "accept"}')
    return waits


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Another home."""
    return str(tmp_path / "other")


def test_a_lifetime_goes_to_another_home_replays_and_forks_there(
    cli: Cli, ended: str, other: str, approval: str, tmp_path: Path
) -> None:
    told = cli("lifetimes", "export", ended[:23], "--to", "tea.jsonl.gz", "--json").json
    log = cli("lifetimes", "log", ended, "--json").out
    assert (told["lifetime_id"], told["lifetimes"], told["records"]) == (ended, 1, log.count('"seq"'))
    first = (tmp_path / "tea.jsonl.gz").read_bytes()
    cli("lifetimes", "export", ended, "--to", "tea.jsonl.gz")
    assert first == (tmp_path / "tea.jsonl.gz").read_bytes()
    assert len(gzip.decompress(first)) == told["size"]

    done = cli("lifetimes", "import", "tea.jsonl.gz", "--home", other, "--json").json
    assert (done["created"], done["registered"], done["status"]) == ([ended], ["approval@1.0.0"], "COMPLETED")
    assert cli("lifetimes", "log", ended, "--home", other, "--json").out == log
    assert cli("lifetimes", "replay", ended, "--home", other).out.startswith("identical: ")
    assert cli("usage", "--home", other, "--json").json["rows"] == [], "it was counted where it ran"
    assert "already there" in cli("lifetimes", "import", "tea.jsonl.gz", "--home", other).err

    exec_id = next(
        r["headers"]["exec_id"]
        for r in cli("lifetimes", "log", ended, "--home", other, "--json").json
        if r.get("headers", {}).get("name") == "ask"
    )
    fork = ("lifetimes", "fork", ended, "--at", exec_id, "--home", other, "--json")
    assert "registered without the place of its code" in cli(*fork, code=1).err
    cli("graph", "register", approval, "--home", other)
    forked = cli(*fork, code=12).json
    assert forked["status"] == "WAITING"
    cli("lifetimes", "answer", forked["lifetime_id"], '{"verdict": "accept"}', "--home", other)
    assert cli("lifetimes", "log", ended, "--home", other, "--json").out == log


def test_one_that_had_not_ended_waits_for_somebody_to_resume_it(
    cli: Cli, waits: str, other: str, approval: str
) -> None:
    cli("lifetimes", "export", waits, "--to", "tea.jsonl")
    told = cli("lifetimes", "import", "tea.jsonl", "--home", other, "--by", "ann")
    assert "PAUSED" in told.err
    assert "until you resume it" in told.err
    cli("graph", "register", approval, "--home", other)
    # Another run on that home moves nothing of it, and an answer is recorded and leads nowhere.
    cli("run", approval, "--input", '"cake"', "--home", other, code=12)
    cli("lifetimes", "answer", waits, '{"verdict": "accept"}', "--home", other, code=12)
    shown = cli("lifetimes", "show", waits, "--home", other, "--json").json
    assert shown["status"] == "PAUSED"
    assert shown["reason"].startswith("imported from a file")
    assert cli("lifetimes", "resume", waits, "--home", other, "--json").json["status"] == "COMPLETED"
    assert cli("lifetimes", "replay", waits, "--home", other).out.startswith("identical: ")
    # It has gone on here, and where it came from it has not.
    assert cli("lifetimes", "import", "tea.jsonl", "--home", other, "--json").json["created"] == []
    cli("lifetimes", "export", waits, "--to", "on.jsonl", "--home", other)
    assert "is not there yet" in cli("lifetimes", "import", "on.jsonl", code=1).err
    assert cli("lifetimes", "show", waits, "--json").json["status"] == "WAITING"


def test_through_a_pipe(waits: str, other: str, home: Path, tmp_path: Path) -> None:
    tickwork = shlex.join(COMMAND)
    script = f"{tickwork} lifetimes export {waits} | {tickwork} lifetimes import - --home {shlex.quote(other)}"
    done = subprocess.run(
        ["sh", "-c", script], check=False, capture_output=True, text=True, env=environment(home), timeout=50,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"imported {waits}" in done.stderr
    assert done.stdout == ""


def test_what_is_wrong_is_said(cli: Cli, waits: str, other: str, tmp_path: Path) -> None:
    cli("lifetimes", "export", waits, "--to", "tea.jsonl")
    content = (tmp_path / "tea.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(content[:-200])
    damaged = cli("lifetimes", "import", "cut.jsonl", "--home", other, "--json", code=4)
    assert damaged.json["error"]["code"] == "export_invalid"
    assert "line " in damaged.err
    assert not Path(other).exists(), "a file that cannot be taken makes no home"
    assert "more than 100 bytes" in cli("lifetimes", "import", "tea.jsonl", "--max-bytes", "100", code=4).err
    assert (
        "--tenant default" in cli("lifetimes", "import", "tea.jsonl", "--tenant", "acme", "--home", other, code=2).err
    )
    assert "no file" in cli("lifetimes", "import", "nowhere.jsonl", code=13).err
    assert "no lifetime" in cli("lifetimes", "export", "ffff", "--to", "x.jsonl", code=13).err
    assert not list(tmp_path.glob("*x.jsonl*")), "nothing is left of a file that was not written"
    assert "without --to" in cli("lifetimes", "export", waits, "--json", code=2).err
    assert "cannot be written" in cli("lifetimes", "export", waits, "--to", "no/folder.jsonl", code=1).err
    assert "in memory" in cli("lifetimes", "import", "tea.jsonl", "--profile", "test", code=2).err
    assert cli("lifetimes", "import", str(tmp_path), code=2).err.startswith(f"{tmp_path} cannot be read")
