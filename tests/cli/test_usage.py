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
        (["run", "g.yaml", "--profile", "cloud"], "local"),
        (["run", "g.yaml", "--input", "{"], "--input:1:2: this is not JSON"),
        (["run", "g.yaml", "--input", "hello"], """quote it twice: --input '"hello"'"""),
        (["run", "g.yaml", "--input", "NaN"], "JSON has no NaN"),
        (["run", "g.yaml", "--input", "@missing.json"], "missing.json cannot be read"),
        (["run", "g.yaml", "--answers", "missing.yaml"], "missing.yaml cannot be read"),
        (["lifetimes", "list"], "There is no Tickwork home"),
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
