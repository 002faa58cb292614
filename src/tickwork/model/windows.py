"""Where a window begins, in whole minutes since 1970-01-01 UTC: the finest grain in which usage is kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from tickwork.errors import UsageError

if TYPE_CHECKING:
    from tickwork.model.policy import Calendar, Window

MINUTE = 60_000_000
"""Microseconds."""

EVER = -(2**40)
"""A minute before all others."""


def first_minute(window: Window | None, now: int) -> int:
    """The first minute of a window at `now` (us). UsageError when its time zone is not known on this machine."""
    if window is None:
        return EVER
    if window.calendar is None:
        return (now - window.seconds * 1_000_000) // MINUTE
    return _period(window.calendar, window.time_zone, now // MINUTE)


@lru_cache(1_024)
def _period(calendar: Calendar, time_zone: str, minute: int) -> int:
    """When the period that a minute lies in began.

    An hour or a midnight that a clock change skips begins with the change; a midnight that comes twice is the first.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (OSError, ValueError, LookupError):
        raise UsageError(
            f"There is no time zone `{time_zone}` on this machine. Name one as in `Europe/Berlin`, or install the "
            "time zones (the package tzdata)."
        ) from None
    local = datetime.fromtimestamp(minute * 60, zone)
    start = local.replace(minute=0)
    if calendar != "hour":
        start = start.replace(hour=0, fold=0)
        if calendar == "week":
            start -= timedelta(days=start.weekday())
        elif calendar == "month":
            start = start.replace(day=1)
    return min(int(start.timestamp()) // 60, minute)
