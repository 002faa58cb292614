"""What has to hold when all is healed: read from the tables, the blobs, the ledger and the client's acknowledgements.

The tables are read as they are, by a connection of its own past the proxy, and the objects by a client of their own.
What the rows and calls have to look like is what the crash sweep asks of them (tests/acceptance/crash_check.py); here
the log comes from Postgres, the objects from S3, and a fault may hit many processes at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import msgspec

from tests.acceptance.crash_check import EMPTY_AT_THE_END, Account, Row, Visit, _payloads, _visit
from tests.acceptance.crash_shapes import AT_MOST_ONCE
from tests.acceptance.crash_victim import Death
from tickwork.clock import SystemClock
from tickwork.errors import TickworkError
from tickwork.model.records import Entry, Event, Execution, Payload, decode_entry
from tickwork.profiles import SHIPPED

UNSETTLED = "SELECT count(*) FROM tickwork.heads WHERE finished_at IS NULL"
STANDING = """
    SELECT l.lifetime_id, l.graph_name, h.status, h.seq, h.updated_at,
           (SELECT string_agg(q.waits_for, ',') FROM tickwork.questions q WHERE q.lifetime_id = l.lifetime_id) AS asked,
           (SELECT count(*) FROM tickwork.timers t WHERE t.lifetime_id = l.lifetime_id) AS timers
    FROM tickwork.heads h JOIN tickwork.lifetimes l USING (tenant_id, lifetime_id)
    WHERE h.finished_at IS NULL ORDER BY h.updated_at
"""
KINDS = {
    "lost": ("is lost", "is missing", "is due", "never called", "before it was on disk", "idempotency keys"),
    "doubled": ("twice", "succeeded ", "times, ", "has 2 ends"),
    "stranded": ("stands at", "are left in the table"),
}
"""By which words a finding is counted in the table; all others are `other`."""

CLOCK_WRONG = 10.0
"""Seconds between the end of a call, by its worker, and its record, by the database, that only a wrong clock makes."""

RECOVERING = ("unknown", "reconciled", "superseded")


class Logged(msgspec.Struct):
    """A lifetime's log, with the times."""

    row: Row
    at: list[int]


class CloudAccount(Account):
    """One world when all is over. `faults`: how many may have had a call made again, each any visit once."""

    def __init__(self, folder: Path, keys: int, faults: int, blob_faults: bool) -> None:
        super().__init__(folder, keys)
        self.deaths = 1  # leases may have run out: something was done to the processes or to what is between them
        self._faults, self._blob_faults = faults, blob_faults
        self.logs: list[Logged] = []
        self._read_rows: dict[str, Row] = {}
        self._objects: dict[str, bytes] = {}
        self.left: dict[str, int] = {}

    async def read(self, url: str, blobs: str) -> None:
        """Reads tables and objects."""
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await self._read_tables(connection)
        finally:
            await connection.close()
        store = SHIPPED["blob"]["s3"](blobs, SystemClock())
        await store.start()
        try:
            for row in self._read_rows.values():
                for payload in _payloads(row.log):
                    if payload.uri is not None and payload.uri not in self._objects:
                        try:
                            self._objects[payload.uri] = await store.get("default", payload.uri)
                        except TickworkError as error:
                            self._say(f"the blob {payload.uri} is missing: {error}")
        finally:
            await store.stop()

    async def _read_tables(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        times: dict[str, list[int]] = {}
        for found in await connection.fetch(
            "SELECT l.lifetime_id, l.graph_name, h.status, l.idempotency_key FROM tickwork.lifetimes l "
            "LEFT JOIN tickwork.heads h USING (tenant_id, lifetime_id)"
        ):
            row = Row(*found, log=[])
            self._read_rows[row.lifetime_id] = row
            times[row.lifetime_id] = []
        for lifetime_id, seq, at, entry_id, body in await connection.fetch(
            "SELECT lifetime_id, seq, at, entry_id, body FROM tickwork.log ORDER BY lifetime_id, seq"
        ):
            entry, known = decode_entry(body), self._read_rows.get(lifetime_id)
            if known is None:
                self._say(f"the lifetime that entry {entry_id} belongs to is lost")
                continue
            known.log.append(entry)
            times[lifetime_id].append(at)
            if seq != len(known.log) or entry.entry_id != entry_id:
                self._say(f"{known.graph} {lifetime_id}: entry {seq} stands where {len(known.log)} is due")
        for table in EMPTY_AT_THE_END:
            self.left[table] = await connection.fetchval(f"SELECT count(*) FROM tickwork.{table}")
        self.logs = [Logged(row, times[row.lifetime_id]) for row in self._read_rows.values()]

    def judge(self) -> None:
        """Says what is wrong with what was read."""
        self.look(Death(-9))
        self.finish()

    def findings(self) -> dict[str, list[str]]:
        """What is wrong, by kind."""
        found: dict[str, list[str]] = {"lost": [], "doubled": [], "stranded": [], "other": []}
        for wrong in self.wrong:
            kind = next((k for k, words in KINDS.items() if any(word in wrong for word in words)), "other")
            found[kind].append(wrong)
        return found

    def longest_step(self, since: int) -> float:
        """How long (s) after `since` (us) the last of the steps that were due then was done by a worker.

        A step is due when what it follows from is recorded: its parents, or the failure that is to be tried again.
        """
        longest = 0.0
        for logged in self.logs:
            recorded: dict[str, int] = {}
            failed: dict[Visit, int] = {}
            for entry, at in zip(logged.row.log, logged.at, strict=True):
                if not isinstance(entry, Execution):
                    continue
                visit = Visit(logged.row.lifetime_id, entry.branch, entry.name, entry.iteration)
                due = failed.get(visit) or max((recorded.get(p, 0) for p in entry.parents), default=0) or logged.at[0]
                recorded[entry.exec_id] = at
                if entry.status not in ("SUCCEEDED", "FAILED") or "/" not in entry.executor:
                    continue
                if entry.status == "FAILED":
                    failed[visit] = at
                if due <= since < at:
                    longest = max(longest, (at - since) / 1e6)
        return longest

    def clock_differences(self) -> set[int]:
        """Whether (1) a worker's clock was ahead of the database's by more than any call takes, and (-1) behind it."""
        return {
            1 if e.finished_at > at else -1
            for logged in self.logs
            for e, at in zip(logged.row.log, logged.at, strict=True)
            if isinstance(e, Execution) and "/" in e.executor and abs(e.finished_at - at) > CLOCK_WRONG * 1e6
        }

    def first_after(self, since: int) -> float | None:
        """How long (s) after `since` (us) a worker's execution was recorded again."""
        found = [
            at
            for logged in self.logs
            for entry, at in zip(logged.row.log, logged.at, strict=True)
            if at >= since and isinstance(entry, Execution) and "/" in entry.executor
        ]
        return (min(found) - since) / 1e6 if found else None

    # -- what the crash sweep does otherwise

    def _read(self) -> dict[str, Row]:
        return self._read_rows

    def _blob(self, payload: Payload) -> bytes | None:
        data = self._objects.get(payload.uri or "", b"")
        return data if hashlib.sha256(data).hexdigest() == payload.sha256 else None

    def _check_order(self, row: Row, where: str) -> None:
        if self._blob_faults:
            # A result that could not be stored has failed, as the guarantees say, and is attempted again.
            row = msgspec.structs.replace(row, log=[entry for entry in row.log if not _not_stored(entry)])
        super()._check_order(row, where)

    def _check_calls(self) -> None:
        times = Counter(_visit(call) for call in self.calls)
        for visit in {_visit(call) for call in self.calls if call.effect == AT_MOST_ONCE}:
            if times[visit] > 1:
                self._say(f"{visit} was called {times[visit]} times, 1 at most")
        allowed = 1 + self._faults
        for (exec_id, node), n in Counter((call.exec_id, call.node) for call in self.calls).items():
            if n > allowed:
                self._say(f"the attempt {exec_id} of {node} was called {n} times, {allowed} at most")
        for row in self.rows.values():
            for e in row.log:
                if isinstance(e, Execution) and e.status == "SUCCEEDED" and "/" in e.executor:
                    visit = Visit(row.lifetime_id, e.branch, e.name, e.iteration)
                    if not times[visit]:
                        self._say(f"{visit} succeeded, and was never called")


def recovery_entries(rows: Iterable[Row]) -> Counter[str]:
    """What the logs say of recovery."""
    kinds: Counter[str] = Counter()
    for row in rows:
        for e in row.log:
            if isinstance(e, Event) and e.type in RECOVERING:
                kinds[e.type] += 1
            elif isinstance(e, Execution) and e.error is not None and e.error.type == "LeaseExpired":
                kinds["LeaseExpired"] += 1
    return kinds


def _not_stored(entry: Entry) -> bool:
    return isinstance(entry, Execution) and entry.error is not None and entry.error.type == "StorageError"
