"""Wrong words: exit code 2, one message on stderr, never a traceback; the same as a document with --json."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.process import Cli


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], 'Did you mean "run"'),
        (["lifetimes", "lsit"], 'Did you mean "list"'),
        (["run", "graph.yaml", "--inptu", "1"], "Did you mean --input?"),
        (["run"], "GRAPH requires an argument"),
        (["graph", "convert", "g.yaml", "--to", "yml"], 'Did you mean "yaml"'),
        (["run", "g.yaml", "--tenant", "a/b"], "cannot be a tenant's name"),
        (["run", "g.yaml", "--label", "nope"], "key=value"),
        (["run", "g.yaml", "--profile", "nowhere"], "local"),
        (["run", "g.yaml", "--input", "{"], "--input:1:2: this is not JSON"),
        (["run", "g.yaml", "--input", "hello"], """quote it twice: --input '"hello"'"""),
        (["run", "g.yaml", "--input", "NaN"], "JSON has no NaN"),
        (["run", "g.yaml", "--input", "@missing.json"], "missing.json cannot be read"),
        (["run", "g.yaml", "--answers", "missing.yaml"], "missing.yaml cannot be read"),
        (["lifetimes", "list", "--profile", "test"], "there is nothing from before to look at"),
        (["lifetimes", "list", "--status", "RUNING"], 'Did you mean "RUNNING"'),
        (["schema", "recrds"], "Did you mean `records`?"),
        (["new", "9lives"], "cannot be a graph's name"),
    ],
)
def test_wrong_usage_says_what_was_meant(cli: Cli, arguments: list[str], says: str) -> None:
    ran = cli(*arguments, code=2)
    assert says in ran.err
    assert ran.out == ""


def test_input_from_stdin_that_is_no_json_says_where(cli: Cli) -> None:
    ran = cli("run", "g.yaml", "--input", "-", stdin='{\n "a": 1,\n}', code=2)
    assert "stdin:3:1: this is not JSON" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["rnu", "--json"], 2, "invalid_argument"),
        (["schema", "recrds", "--json"], 2, "invalid_argument"),
        (["graph", "show", "missing.yaml", "--json"], 13, "not_found"),
    ],
)
def test_json_says_errors_as_a_document(cli: Cli, arguments: list[str], code: int, word: str) -> None:
    ran = cli(*arguments, code=code)
    error = ran.json["error"]
    assert error["code"] == word
    assert set(error) == {"code", "message", "hint"}
    assert error["message"] in " ".join(ran.err.split())


def test_a_fault_of_ours_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tickwork.cli import main, schema

    def broken() -> dict[str, object]:
        raise RuntimeError("a planted fault")

    monkeypatch.setenv("TICKWORK_HOME", str(tmp_path))
    monkeypatch.setitem(schema.SCHEMAS, "graph", ("planted", broken))
    assert main.call(["schema", "graph"]) == 1
    said = capsys.readouterr().err
    assert "RuntimeError: a planted fault" in said
    assert "Traceback" not in said
    (kept,) = tmp_path.glob("crash-*.txt")
    assert str(kept) in said
    assert "Traceback" in kept.read_text()

    monkeypatch.setenv("TICKWORK_DEBUG", "1")
    main.call(["schema", "graph"])
    assert "Traceback" in capsys.readouterr().err


def test_a_crash_file_lies_in_the_home_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tickwork.cli import doctor, main

    def broken(_: object) -> object:
        raise RuntimeError("a planted fault")

    monkeypatch.setattr(doctor, "examine", broken)
    for words in (["--home", str(tmp_path)], [f"--home={tmp_path}"]):
        assert main.call(["doctor", *words]) == 1
        (kept,) = tmp_path.glob("crash-*.txt")
        assert str(kept) in capsys.readouterr().err
        kept.unlink()


def test_a_home_where_nothing_ran(cli: Cli, home: Path) -> None:
    listed = cli("lifetimes", "list", "--json")
    assert (listed.json, cli("inbox", "--json").json) == ([], [])
    assert "No lifetimes in" in cli("lifetimes", "list").err
    assert "There is no Tickwork home" in cli("lifetimes", "show", "abc", code=13).err
    assert not home.exists()


def test_a_home_that_is_a_file(cli: Cli, home: Path) -> None:
    home.write_text("")
    (home.parent / "g.py").write_text(GRAPH)
    for words in (["lifetimes", "list"], ["inbox"], ["lifetimes", "pause", "x"], ["run", "g.py"]):
        assert "is a file, not a folder" in cli(*words, code=2).err
    assert "is a file, not a folder" in cli("doctor", code=4).out


def test_an_empty_home_is_the_default(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text(GRAPH)
    cli("run", "g.py", "--quiet", TICKWORK_HOME="")
    assert (tmp_path / ".tickwork" / "tickwork.db").exists()
    assert not (tmp_path / "tickwork.db").exists()


GRAPH = """
from tickwork import Graph, plan, task

@task
def one(value):
    return 1

@plan
def check(plan_input):
    return "end"

graph = Graph("g", "1.0.0").start(one).then(one, check).then(check, one).final(check)
"""


def test_hints_name_the_command_as_it_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tickwork.cli import output

    said = "Look: tickwork lifetimes show x, and .tickwork run"
    for path, called, name in (("", ".venv/bin/tickwork", ".venv/bin/tickwork"), ("", "x/pytest", "tickwork")):
        monkeypatch.setenv("PATH", path)
        monkeypatch.setattr("sys.argv", [called])
        output.program.cache_clear()
        assert output.as_called(said) == f"Look: {name} lifetimes show x, and .tickwork run"
    output.program.cache_clear()


def test_new_and_convert_as_documents(cli: Cli, tmp_path: Path) -> None:
    made = cli("new", "hello", "--json").json
    assert made["name"] == "hello"
    assert all((tmp_path / file).is_file() for file in made["files"])
    converted = cli("graph", "convert", "hello/graph.yaml", "--to", "dot", "--json").json
    assert (converted["format"], converted["text"].split()[0]) == ("dot", "digraph")
    (tmp_path / "hello/graph.yaml").write_text("tickwork: 1\n")
    wrong = cli("graph", "convert", "hello/graph.yaml", "--to", "dot", "--json", code=4)
    assert wrong.json["error"]["problems"]


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    import subprocess

    from tests.cli.process import COMMAND, environment

    writing = subprocess.Popen(
        [*COMMAND, "schema", "records"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path),
    )
    assert writing.stdout is not None
    assert writing.stderr is not None
    writing.stdout.close()
    with writing.stderr:
        assert writing.stderr.read() == b""
    assert writing.wait(30) == 0
