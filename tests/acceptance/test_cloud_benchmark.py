"""The benchmark of the cloud profile runs in small, and what it counts adds up. How fast things are is not asserted."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cloud import capacity, processes, segments
from benchmarks.cloud.capacity import Point
from benchmarks.cloud.graphs import LINE
from benchmarks.cloud.latency import Samples, latencies
from benchmarks.cloud.parts import slope
from benchmarks.cloud.schedule import Schedule, Stage
from benchmarks.cloud.segments import Traffic
from benchmarks.cloud.window import Window

ROOT = Path(__file__).resolve().parents[2]


# -- the schedule


def dues(schedule: Schedule) -> list[float]:
    return sorted(due for life in range(schedule.lives) for due in schedule.dues(life))


def test_each_stage_has_its_rate_from_its_first_second_on() -> None:
    schedule = Schedule(100.0, 1_000, (Stage(50, 20), Stage(200, 20), Stage(100, 20)))
    found = dues(schedule)
    for stage, begins, ends in schedule.windows():
        for part in (begins, (begins + ends) / 2):
            due = sum(part <= each < part + 10 for each in found)
            assert due == pytest.approx(10 * stage.rate, rel=0.15), stage
    assert found[0] >= 100.0
    assert found[-1] < 160.0


def test_a_lifetime_thinks_half_to_one_and_a_half_turns() -> None:
    schedule = Schedule(0.0, 10, (Stage(1, 1_000),))
    for life in range(10):
        moments = list(schedule.dues(life))
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        assert all(5 <= gap <= 15 for gap in gaps)
        assert moments == list(schedule.dues(life)), "any process that asks is told the same"


# -- latencies


def write(folder: Path, *calls: tuple[int, int, float, float, float]) -> Samples:
    (folder / "samples-1").write_bytes(b"".join(LINE.pack(*call) for call in calls))
    samples = Samples(folder)
    samples.read()
    return samples


def test_a_loop_that_never_came_counts(tmp_path: Path) -> None:
    schedule = Schedule(0.0, 1, (Stage(1, 100),))
    first, second = list(schedule.dues(0))[:2]
    samples = write(tmp_path, (0, 1, first, first, first + 0.01))
    found = latencies(samples, [(schedule, [0])], [(0.0, second + 0.001)], now=second + 5)
    assert (found.count, found.late) == (2, 1)
    assert found.longest == pytest.approx(5_000)


def test_being_late_counts_from_the_schedule(tmp_path: Path) -> None:
    schedule = Schedule(0.0, 1, (Stage(1, 100),))
    due = next(schedule.dues(0))
    samples = write(tmp_path, (0, 1, due, due + 0.4, due + 0.5), (0, 1, due, due + 0.4, due + 0.9))
    found = latencies(samples, [(schedule, [0])], [(0.0, due + 0.001)], now=due + 1)
    assert found.p99 == pytest.approx(500)
    assert found.p99_from_return == pytest.approx(100)
    assert samples.again == 1, "the same call came twice; the first one counts"


def test_nothing_is_due_in_a_stage_without_a_rate_and_spans_are_measured_together(tmp_path: Path) -> None:
    schedule = Schedule(0.0, 4, (Stage(0, 10), Stage(2, 10), Stage(0, 10), Stage(2, 10)))
    due = [(life, loop, at) for life in range(4) for loop, at in enumerate(schedule.dues(life), 1)]
    assert {int(at // 10) for _, _, at in due} == {1, 3}
    samples = write(tmp_path, *[(life, loop, at, at, at + at / 1_000) for life, loop, at in due])
    found = latencies(samples, [(schedule, range(4))], [(10.0, 20.0), (30.0, 40.0)], now=50)
    assert found.count == len(due)
    assert found.rate == len(due) / 20
    assert found.longest == pytest.approx(max(at for _, _, at in due))
    first = latencies(samples, [(schedule, range(4))], [(10.0, 20.0)], now=50)
    assert 0 < first.count < found.count
    assert first.longest < 20


def test_half_a_line_is_read_when_the_rest_is_there(tmp_path: Path) -> None:
    line = LINE.pack(1, 0, 0.0, 0.0, 5.0)
    file = tmp_path / "samples-9"
    file.write_bytes(line[:10])
    samples = Samples(tmp_path)
    samples.read()
    assert samples.opened([1]) == 0
    file.write_bytes(line)
    samples.read()
    assert samples.opened([1]) == 1


# -- what is counted


def test_cpu_of_a_process_counts_its_children(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    parent = (
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {spin!r}])\nprint(1, flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        cpu = processes.cpu_seconds({"it": [child.pid]})
        held = processes.resident_bytes({"it": [child.pid]})
        child.communicate(b"\n")
    assert cpu["it"] >= 0.3
    assert 1e6 < held["it"] < 1e9
    assert processes.cpu_seconds({"it": [child.pid]}) == {"it": 0.0}, "it has ended"


def test_batches_are_counted_by_topic(tmp_path: Path) -> None:
    head = struct.Struct(">qiibIhiqqqhii")

    def batch(messages: int, size: int) -> bytes:
        length = size - 12
        return head.pack(0, length, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, messages) + b"x" * (size - head.size)

    for topic, content in {
        "mine.data-plane.a-0": batch(3, 300) + batch(1, 100),
        "mine.data-plane.b-1": batch(2, 200) + bytes(500),
        "mine.task-inputs.a-0": batch(1, 90)[:80],
        "other.data-plane.a-0": batch(9, 900),
    }.items():
        (tmp_path / topic).mkdir()
        (tmp_path / topic / "00000000000000000000.log").write_bytes(content)
    found = segments.traffic(tmp_path, "mine")
    assert found["data-plane"] == Traffic(messages=6, batches=3, bytes=600)
    assert segments.less(found, {"data-plane": Traffic(4, 1, 100)})["data-plane"] == Traffic(2, 2, 500)


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([5.0, 7.0, 9.0]) == pytest.approx(2.0)


# -- the model


def window(steps: int) -> Window:
    traffic = {"data-plane": Traffic(messages=steps, batches=steps, bytes=500 * steps)}
    return Window(10.0, steps, {}, steps, steps // 10, 1_000 * steps, 700 * steps, traffic)


def point(steps: float, **cores: float) -> Point:
    return Point(10_000, steps, cores)


COSTS = capacity.fitted(
    {"kafka": 0.05, "executor": 0.01},
    {"kafka": 0.15, "executor": 0.11},
    point(200, kafka=0.25, executor=0.21, client=9.0),
    point(800, kafka=0.35, executor=0.51),
    window(8_000),
    2_000.0,
)


def test_the_model_goes_through_the_runs_that_it_was_made_from() -> None:
    for steps, kafka, executor in ((200, 0.25, 0.21), (800, 0.35, 0.51)):
        said = capacity.predicted(COSTS, 10_000, steps)
        assert said["kafka"] == pytest.approx(kafka)
        assert said["executor"] == pytest.approx(executor)
    assert COSTS.thinking["kafka"] == pytest.approx((0.15 - 0.05) / 10_000)
    assert COSTS.power["kafka"] == pytest.approx(0.5), "four times the rate costs twice as much"
    assert COSTS.power["executor"] == pytest.approx(1.0)
    ((_, said, measured, in_all),) = capacity.compared(COSTS, [point(450, kafka=0.30, executor=0.30)])
    assert said["kafka"] == pytest.approx(0.15 + 0.1 * (450 / 200) ** 0.5)
    assert measured == pytest.approx(0.60)
    assert in_all == pytest.approx(sum(said.values()))


def test_above_what_was_measured_a_step_gets_no_cheaper() -> None:
    some, more = (capacity.predicted(COSTS, 0, steps)["kafka"] - COSTS.idle["kafka"] for steps in (8_000, 16_000))
    assert some == pytest.approx(8_000 * 0.2 / 800)
    assert more == pytest.approx(2 * some)


def test_ten_times_the_lifetimes_need_about_ten_times_as_much() -> None:
    some, more = capacity.needs(COSTS, 100_000, 60), capacity.needs(COSTS, 1_000_000, 60)
    assert more.loops == pytest.approx(10 * some.loops)
    assert more.database_gb == pytest.approx(10 * some.database_gb)
    assert more.processes["executor"] == pytest.approx(10 * some.processes["executor"], rel=0.1)
    assert more.partitions >= max(more.processes.values()), "a process without a partition has nothing to do"
    assert more.database_shards > some.database_shards
    # 1,667 loops are 3,333 steps a second on the average, 5,000 at the peak: 1 kB of log each, a tenth of a commit.
    assert some.bus_mb == pytest.approx(5_000 * 500 * 3 / 1e6)
    assert some.database_iops == pytest.approx(5_000 * 0.1 + 5_000 * 1_000 / 8192 * 3)


# -- the whole, on real servers


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_runs_in_small(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "cloud", "--smoke", "--json", str(file), "w2", "loops", "model"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=590)
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    figures = written["figures"]
    runs = figures["W2, one process for each role"]
    assert [run["used"]["steps"] for run in runs] == [20 * 7]
    assert 0 < runs[0]["seconds"] < time.monotonic() - began
    for role in ("data-plane", "control-plane", "executor", "kafka", "postgres", "client"):
        assert runs[0]["used"]["cpu"][role] > 0, role
    assert runs[0]["used"]["traffic"]["task-inputs"]["messages"] == 20 * 3, "each Task has one input"
    for stage in figures["loops"]:
        timed = stage["latency"]
        assert 0 < timed["p50"] <= timed["p90"] <= timed["p99"] <= timed["longest"]
        assert timed["count"] > 0
    assert figures["hops"]["loops"] > 0
    assert "1,000,000 lifetimes that think 60 s" in done.stdout or "nothing to make it from" in done.stdout
    assert [name for name, *_ in written["targets"]][:2] == [
        "W2, one process for each role",
        "W2, all roles in one process",
    ]


def test_a_part_that_there_is_not_is_told() -> None:
    command = [sys.executable, "-m", "benchmarks", "cloud", "w9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no w9; there are w2, loops" in done.stderr
