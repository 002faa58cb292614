"""The clocks of the chaos suite are wrong where they are said to be, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.clocks import REREAD, Clocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the library that sets them is made for Linux")

ASKED = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


def test_a_wall_clock_is_set_while_its_process_runs_and_the_monotonic_one_stays_right(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    clocks.set("sweeper 1", -30.0)
    with subprocess.Popen(
        [sys.executable, "-c", ASKED], env={**os.environ, **clocks.environment("sweeper 1")}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip

        def ahead() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            wall, monotonic = map(float, process.stdout.readline().split())
            return wall - time.time(), monotonic - time.monotonic()

        def until(expected: float) -> None:
            deadline = time.monotonic() + 10 * REREAD
            while abs(ahead()[0] - expected) > 1:
                assert time.monotonic() < deadline, ahead()
                time.sleep(0.05)
            assert abs(ahead()[1]) < 1

        until(-30.0)
        clocks.set("sweeper 1", 20.0)
        until(20.0)
        clocks.set("sweeper 2", 5.0)  # another one's
        clocks.set("sweeper 1", 0.0)
        until(0.0)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
