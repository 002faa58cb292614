"""`tickwork doctor` finds what is wrong and says what to do."""

from __future__ import annotations

from pathlib import Path

from tests.cli.process import Cli


def test_a_sound_machine_is_said_to_be_so(cli: Cli) -> None:
    ran = cli("doctor", "--json")
    assert ran.json["healthy"] is True
    checks = {row["check"]: row for row in ran.json["checks"]}
    for name in ("python", "tickwork", "conditions", "sqlite", "home", "space", "fsync", "holder", "store"):
        assert checks[name]["state"] == "ok", checks[name]
    assert "All is well" in cli("doctor").err


def test_a_home_that_is_a_file_is_found(cli: Cli, home: Path) -> None:
    home.write_text("not a folder")
    ran = cli("doctor", "--json", code=4)
    (bad,) = [row for row in ran.json["checks"] if row["state"] == "bad"]
    assert bad["check"] == "home"
    assert "--home" in bad["todo"]


def test_a_database_that_is_none_is_found(cli: Cli, home: Path) -> None:
    home.mkdir()
    (home / "tickwork.db").write_bytes(b"this is no database, whatever its name says" * 100)
    ran = cli("doctor", code=4)
    assert "store" in ran.out
    assert "1 check found something wrong" in ran.err
