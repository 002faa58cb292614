"""The bounded part of the chaos suite: one fault of each kind. The whole: `python -m tests.chaos --all`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos import rig as rigs
from tests.chaos.rig import rig, table
from tests.chaos.scenarios import ALL

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SOME = (
    "kill at random", "freeze executor", "broker restart", "topics lost", "database restart", "bad ways",
    "clocks wrong",
)  # fmt: skip
SECONDS = 8.0

# On two cores that others use as well everything takes longer; what has to hold is the same.
SETTLED = 180.0
LONGEST = 60.0


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_doubled_or_stranded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rigs, "SETTLED", SETTLED)

    async def run() -> None:
        async with rig(tmp_path, SECONDS) as made:
            reports = [await made.run(ALL[name]) for name in SOME]
        print(table(reports))
        wrong = [
            (report.name, kind, told)
            for report in reports
            for kind, told in report.wrong.items()
            if told and kind != "late"  # how long it takes depends on who else is at work here
        ]
        assert not wrong
        for report in reports:
            assert report.faults, report.name
            assert report.lifetimes > 10, report.name
            assert report.longest < LONGEST, report.name

    asyncio.run(run())
