"""Where the time of a planner loop goes, read from the log: every entry says when its work began and ended, and when
the Data Plane recorded it. All of it is the wall clock of this one machine.
"""

from __future__ import annotations

import statistics

import asyncpg
import msgspec

from tickwork.model.records import Execution, decode_entry

_ROWS = "SELECT lifetime_id, at, body FROM log WHERE at >= $1 ORDER BY lifetime_id, seq LIMIT $2"
SAMPLE = 20_000
"""Entries that are read at most."""


class Hops(msgspec.Struct, frozen=True):
    """Medians in milliseconds. The five are one planner loop, one after the other."""

    task_to_log: float
    """From the end of the Task's code until the transaction that records it: published, waited for its turn."""
    log_to_plan: float
    """From there to the Plan's first line: commit, reference, fold, input, claim."""
    plan: float
    plan_to_log: float
    log_to_task: float
    loops: int


async def hops(database: asyncpg.Connection[asyncpg.Record], begin: float, end: float) -> Hops | None:
    """Of the loops whose Task was recorded between two moments (seconds since the epoch); None when there are none.

    When the next Task began is known once it has ended, so it has to be asked about long enough afterwards.
    """
    first, last = round(begin * 1e6), round(end * 1e6)
    rows = await database.fetch(_ROWS, first, SAMPLE)
    parts: list[tuple[int, int, int, int, int]] = []
    before: list[tuple[str, int, Execution]] = []
    for lifetime_id, at, body in rows:
        entry = decode_entry(body)
        if not isinstance(entry, Execution) or (before and before[-1][0] != lifetime_id):
            before.clear()
        if not isinstance(entry, Execution):
            continue
        before = [*before[-2:], (lifetime_id, at, entry)]
        if len(before) == 3 and entry.kind == "task":
            (_, done, task), (_, chosen, plan), _ = before
            if not first <= done <= last:
                continue
            parts.append((
                done - task.finished_at, plan.started_at - done, plan.finished_at - plan.started_at,
                chosen - plan.finished_at, entry.started_at - chosen,
            ))  # fmt: skip
    if not parts:
        return None
    a, b, c, d, e = (statistics.median(column) / 1e3 for column in zip(*parts, strict=True))
    return Hops(a, b, c, d, e, len(parts))
