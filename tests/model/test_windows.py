"""Where windows begin, against the calendar as it is read by walking back minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwork.errors import UsageError
from tickwork.model.policy import Calendar, Window
from tickwork.model.windows import EVER, MINUTE, first_minute

ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut"]


def us(text: str) -> int:
    """A time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def begun(calendar: Calendar, zone: str, now: str) -> str:
    first = first_minute(Window(calendar=calendar, time_zone=zone), us(now))
    return datetime.fromtimestamp(first * 60, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    ("calendar", "zone", "now", "wanted"),
    [
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00"),
        ("day", "Europe/Berlin", "2026-10-25T22:59", "2026-10-24T22:00"),
        ("day", "Europe/Berlin", "2026-10-25T23:00", "2026-10-25T23:00"),
        ("week", "Europe/Berlin", "2026-10-25T23:00", "2026-10-25T23:00"),
        ("week", "Europe/Berlin", "2026-10-25T22:59", "2026-10-18T22:00"),
        ("month", "Europe/Berlin", "2026-10-31T22:59", "2026-09-30T22:00"),
        ("month", "Europe/Berlin", "2026-10-31T23:00", "2026-10-31T23:00"),
        # 2:00 to 3:00 comes twice: these are two hours.
        ("hour", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T00:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30", "2026-10-25T01:00"),
        # In Havana clocks go from 1:00 back to 0:00: the day begins with the first midnight, once.
        ("day", "America/Havana", "2026-11-01T05:30", "2026-11-01T04:00"),
        ("day", "America/Havana", "2026-11-01T12:00", "2026-11-01T04:00"),
        # In March they go from 0:00 to 1:00: there is no midnight, and the day begins with the change.
        ("day", "America/Havana", "2026-03-08T12:00", "2026-03-08T05:00"),
        ("hour", "Asia/Kathmandu", "2026-03-08T12:14", "2026-03-08T11:15"),
    ],
)
def test_periods_begin_where_the_time_zone_says(calendar: Calendar, zone: str, now: str, wanted: str) -> None:
    assert begun(calendar, zone, now) == wanted


@given(
    calendar=st.sampled_from(["hour", "day", "week", "month"]),
    zone=st.sampled_from(ZONES),
    minute=st.integers(29_000_000, 30_500_000),
)
def test_a_period_has_one_beginning(calendar: Calendar, zone: str, minute: int) -> None:
    """It lies before now, is its own beginning, and the minute before it belongs to another period."""
    window = Window(calendar=calendar, time_zone=zone)
    first = first_minute(window, minute * MINUTE + 59_999_999)
    assert first <= minute
    assert first_minute(window, first * MINUTE) == first
    assert first_minute(window, first * MINUTE - 1) < first
    local = datetime.fromtimestamp(minute * 60, ZoneInfo(zone))
    begin = datetime.fromtimestamp(first * 60, ZoneInfo(zone))
    same = {
        "hour": (begin.date(), begin.hour) == (local.date(), local.hour),
        "day": begin.date() == local.date(),
        "week": begin.isocalendar()[:2] == local.isocalendar()[:2],
        "month": (begin.year, begin.month) == (local.year, local.month),
    }
    assert same[calendar]


def test_a_sliding_window_is_never_shorter_than_it_says() -> None:
    now = us("2026-03-29T12:00") + 1
    for seconds in (60, 61, 90, 3_600, 86_400):
        first = first_minute(Window(seconds=seconds), now)
        assert timedelta(seconds=0) <= timedelta(microseconds=now - first * MINUTE - seconds * 1_000_000)
        assert now - first * MINUTE < (seconds + 60) * 1_000_000
    assert first_minute(None, now) == EVER < 0


def test_a_time_zone_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="`Mars/Olympus`"):
        first_minute(Window(calendar="day", time_zone="Mars/Olympus"), 0)
