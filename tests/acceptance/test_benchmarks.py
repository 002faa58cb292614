"""The benchmarks run at a twentieth of their size and give their rows. How fast they are is not asserted here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import concurrent
from benchmarks.measure import METRICS

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_workload_gives_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    done = run("local", "--scale", 0.05, "--reps", 1, "--json", file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["workload"], row["metric"]) for row in rows] == [
        (workload, metric.name) for workload, metrics in METRICS.items() for metric in metrics
    ]
    for row in rows:
        assert row["value"] >= 0, row
        assert row["floor"] is None or row["floor"] >= 0, row
        assert f"{row['workload']:<6} {row['metric']}" in done.stdout
    repeated = next(row for row in rows if row["metric"] == "calls repeated")
    assert repeated["value"] == 1, "the kill hit one call, and that one is made again"


def test_some_workloads_can_be_chosen() -> None:
    done = run("local", "--only", "W1,W4", "--scale", 0.02, "--reps", 1)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["W1", "W1", "W1", "W4"]


def test_ten_thousand_lifetimes_in_small(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    done = run("local", "--only", "W7", "--scale", 0.02, "--reps", 1, "--json", file)
    assert done.returncode == 0, done.stderr
    rows = {row["metric"]: row for row in json.loads(file.read_text())["rows"]}
    ordered = [rows[name]["value"] for name in ("loop p50", "loop p99", "loop p999", "loop max")]
    assert ordered == sorted(ordered)
    assert ordered[0] > 0
    assert rows["loops/s"]["value"] > 0
    assert rows["loop p99"]["floor"] > 0
    assert rows["answer to end"]["value"] > 0
    assert rows["B/waiting"]["floor"] is None, "the floor has nothing that waits"


async def test_being_late_counts_from_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent, "SETTLE", -5.0)  # as after a stall of five seconds: every turn has passed already
    schedule = concurrent.Schedule()
    schedule.prepare(50, 1.0)
    first = [asyncio.create_task(schedule.think(life, 0)) for life in range(50)]
    await schedule.all_open.wait()
    begun = schedule.turn()
    assert schedule.behind(begun + 5) == 50
    await asyncio.gather(*first)
    await asyncio.gather(*[schedule.think(life, 1) for life in range(50)])
    for due, returned, then in schedule.calls():
        assert begun <= due <= begun + 1.5
        assert then - due > 3.5, "the stall counts for all who were due in it"
        assert then - returned < 3.5, "though their Tasks returned at once when it was over"
    assert schedule.behind(begun) == 0
    with pytest.raises(RuntimeError, match="loop 5, and 2 comes next"):
        await schedule.think(3, 5)


@pytest.mark.parametrize("wrong", [["local", "--only", "W9"], ["moon"]])
def test_a_wrong_word_is_named(wrong: list[str]) -> None:
    done = run(*wrong)
    assert done.returncode == 2
    assert wrong[-1] in done.stderr


def test_the_profile_of_a_step_names_its_costs() -> None:
    command = [sys.executable, "-m", "benchmarks.profile_step", "--runs", "10", "--lines", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "us a step" in done.stdout
    assert "control_plane" in done.stdout
