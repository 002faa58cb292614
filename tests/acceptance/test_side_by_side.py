"""The side-by-side run of the benchmarks: what is here is measured, what is not is named with the way to get it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measure import Sizes
from benchmarks.peers import PEERS, POSTGRES_URL, Peer
from benchmarks.side_by_side import side_by_side

ROOT = Path(__file__).resolve().parents[2]


def test_tickwork_and_the_floor_stand_in_one_table(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks", "peers", "--only", "tickwork,floor,W4,W5"]
    command += ["--scale", "0.02", "--reps", "1", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["workload"], row["engine"]) for row in rows] == [
        ("W4", "tickwork"),
        ("W4", "floor"),
        ("W5", "tickwork"),
        ("W5", "floor"),
    ]
    assert all(row["failed"] is None for row in rows), rows
    assert [row["values"]["calls repeated"] for row in rows[2:]] == [1, 1]


def test_a_package_that_is_missing_is_named() -> None:
    absent = Peer(name="moon", packages=("no-such-engine-on-earth",), storage="").absent()
    assert absent is not None
    assert "no-such-engine-on-earth" in absent
    assert "pip install '.[bench]'" in absent


def test_a_server_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POSTGRES_URL, raising=False)
    absent = Peer(name="moon", packages=("msgspec",), storage="", postgres=True).absent()
    assert absent is not None
    assert POSTGRES_URL in absent
    assert Peer(name="moon", packages=("msgspec",), storage="").absent() is None


def test_an_engine_that_fails_is_reported_and_the_others_go_on() -> None:
    missing = [name for name, peer in PEERS.items() if "is not installed" in (peer.absent() or "")]
    if not missing:
        pytest.skip("every peer is installed here")
    failed, floor = side_by_side(["W4"], [missing[0], "floor"], 1, Sizes(scale=0.02))
    assert failed.failed is not None
    assert not failed.values
    assert floor.values["tasks/s"] > 0
