"""What the runbook tells somebody to type or to look at in the night is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.test_chart import metrics
from tickwork.cli.main import build_app

RUNBOOK = (Path(__file__).resolve().parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")


def test_its_commands_exist() -> None:
    app = build_app()
    found = {match[0] for match in re.finditer(r"(?:(?<=`)|(?<=^    )|(?<=\n   )) *tickwork( [a-z-]+)+", RUNBOOK)}
    assert len(found) > 8
    for line in found:
        words = [word for word in line.split()[1:] if not word.startswith("-")]
        path, _, unused = app.parse_commands(words)
        assert path, line
        assert not unused, f"{line}: `{' '.join(path)}` has no {unused[0]}"


async def test_its_metrics_are_told() -> None:
    told = await metrics()
    named = set(re.findall(r"`(tickwork_[a-z_]+)`", RUNBOOK)) | set(re.findall(r"\((tickwork_[a-z_]+)\[", RUNBOOK))
    assert len(named) > 8
    assert named <= told
