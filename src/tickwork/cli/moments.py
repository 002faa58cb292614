"""Times as people type them: so long ago, a day, a time of day."""

from __future__ import annotations

import re

from tickwork.cli.failure import Refusal

_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def now() -> int:
    """Wall time in microseconds."""
    from tickwork.clock import SystemClock

    return SystemClock().now()


def moment(text: str, option: str, at: int) -> int:
    """Microseconds of `30d` (so long before `at`), of a day or of a time (UTC unless it says). Raises Refusal."""
    from datetime import UTC, datetime

    if span := _SPAN.fullmatch(text):
        return max(0, at - int(span[1]) * _UNITS[span[2]] * 1_000_000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{option} {text}: that is no time.", "Write 30d, 12h, 2026-11-01 or 2026-11-01T14:00.") from None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return max(0, int(found.timestamp() * 1_000_000))
