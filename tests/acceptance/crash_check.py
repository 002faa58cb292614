"""What has to hold after every death and at the end, read from a copy of the tables, the blobs and the ledger.

It asks no store and no service: it opens the database file itself, on a copy, so that looking repairs nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.acceptance.crash_shapes import AT_MOST_ONCE, EXPECTED, FLAKY_FAILURES, Call, number
from tests.acceptance.crash_victim import Death
from tickwork.model.records import Entry, Event, Execution, Payload, decode_entry

PLANTED = "planted at"

EMPTY_AT_THE_END = ("timers", "questions", "dead_letters")
"""Tables that have no rows when all lifetimes have ended and every message could be read."""


class Visit(NamedTuple):
    """What has exactly one success, however many attempts it takes."""

    lifetime_id: str
    branch: str
    node: str
    iteration: int


class Row(msgspec.Struct):
    """A lifetime as the table has it."""

    lifetime_id: str
    graph: str
    status: str
    key: str | None
    log: list[Entry]


class Account:
    """One home through all its lives: what was seen at each death, and what was wrong."""

    def __init__(self, folder: Path, keys: int) -> None:
        self.folder, self.keys = folder, keys
        self.rows: dict[str, Row] = {}
        self.calls: list[Call] = []
        self.hits: Counter[Visit] = Counter()
        """How many deaths found a visit with its code called and its record not on disk."""
        self.deaths = 0
        self.stops = 0
        self.wrong: list[str] = []

    def look(self, death: Death) -> None:
        """Compares what a life left with what was there before."""
        died = death.code != 0
        self.deaths += died
        self.stops += death.stops
        before, self.rows = self.rows, self._read()
        for lifetime_id, row in before.items():
            now = self.rows.get(lifetime_id)
            if now is None or now.log[: len(row.log)] != row.log:
                self._say(f"{row.graph} {lifetime_id}: what was recorded before the last life has changed")
        new = self._new_calls()
        recorded = {e.exec_id for row in self.rows.values() for e in row.log if isinstance(e, Execution)}
        hit: Counter[Visit] = Counter()
        for call in new:
            unknown = [parent for parent in call.parents if parent not in recorded]
            if unknown:
                self._say(f"{call.node} was called before the record of the step before it was on disk: {unknown}")
            if call.exec_id not in recorded:
                hit[_visit(call)] += 1
        if hit and not died:
            self._say(f"called, and never recorded: {sorted(hit)}")
        for visit, times in hit.items():
            if times > 1:
                self._say(f"{visit} was called {times} times in one life, and no call was recorded")
            self.hits[visit] += 1
        self._acknowledged()

    def repeated(self) -> int:
        """Calls of user code beyond one for each visit and each failure that was recorded."""
        failures = self._failures()
        times = Counter(_visit(call) for call in self.calls)
        return sum(max(0, n - 1 - failures[visit]) for visit, n in times.items())

    def recovered(self, *, called: bool = False) -> dict[str, int]:
        """What the logs say of recovery: entries that only a death, a late result or a person in doubt makes.

        `called`: not of calls that were announced by an intent and never made. A worker that stood still between the
        two gives such a call back, for somebody may have let it be made again meanwhile.
        """
        kinds: Counter[str] = Counter()
        made = {call.exec_id for call in self.calls}
        for row in self.rows.values():
            for e in row.log:
                if isinstance(e, Event):
                    if called and e.type in ("unknown", "reconciled") and e.data["exec_id"] not in made:
                        continue
                    kinds[e.type] += e.type in ("unknown", "reconciled", "superseded")
                elif e.error is not None and e.error.type == "LeaseExpired":
                    kinds["LeaseExpired"] += 1
        return {kind: n for kind, n in kinds.items() if n}

    def finish(self) -> None:
        """What has to hold once all lifetimes have ended."""
        tops = [row for row in self.rows.values() if row.key is not None]
        if len(tops) != self.keys:
            self._say(f"{len(tops)} lifetimes for {self.keys} idempotency keys")
        for row in self.rows.values():
            self._check_row(row)
        self._check_calls()
        self._check_blobs()
        for table in EMPTY_AT_THE_END:
            if left := self.left[table]:
                self._say(f"{left} rows are left in the table {table}")

    # -- what is read

    def _read(self) -> dict[str, Row]:
        database = self.folder / "home" / "tickwork.db"
        self.left = dict.fromkeys(EMPTY_AT_THE_END, 0)
        if not database.exists():
            return {}
        copy = self.folder / "copy"
        copy.mkdir(exist_ok=True)
        for name in ("tickwork.db", "tickwork.db-wal"):
            (copy / name).unlink(missing_ok=True)
            if (database.parent / name).exists():
                shutil.copyfile(database.parent / name, copy / name)
        connection = sqlite3.connect(copy / "tickwork.db")
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letters'").fetchall():
                return {}  # killed before there was a schema
            rows: dict[int, Row] = {}
            for lid, *told in connection.execute(
                "SELECT lid, lifetime_id, graph_name, status, idempotency_key FROM lifetimes"
            ):
                rows[lid] = Row(*told, log=[])
            for lid, seq, entry_id, body in connection.execute(
                "SELECT lid, seq, entry_id, body FROM log ORDER BY lid, seq"
            ):
                entry = decode_entry(body)
                if lid not in rows:
                    self._say(f"the lifetime that entry {entry_id} belongs to is lost")
                    continue
                log = rows[lid].log
                log.append(entry)
                if seq != len(log) or entry.entry_id != entry_id:
                    self._say(f"{rows[lid].graph}: entry {seq} stands where {len(log)} is due")
            for table in self.left:
                self.left[table] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        finally:
            connection.close()
        return {row.lifetime_id: row for row in rows.values()}

    def _new_calls(self) -> list[Call]:
        file = self.folder / "ledger"
        lines = file.read_bytes().splitlines() if file.exists() else []
        new = [msgspec.json.decode(line, type=Call) for line in lines[len(self.calls) :]]
        self.calls += new
        return new

    def _acknowledged(self) -> None:
        file = self.folder / "acks"
        signals: Counter[str] = Counter()
        for line in file.read_bytes().splitlines() if file.exists() else []:
            kind, *told = msgspec.json.decode(line, type=list[str])
            if kind == "start":
                row = self.rows.get(told[1])
                if row is None or row.key != told[0]:
                    self._say(f"the acknowledged start {told} is lost")
            elif kind == "answer":
                row = self.rows.get(told[0])
                if row is None or not any(isinstance(e, Execution) and e.exec_id == told[1] for e in row.log):
                    self._say(f"the acknowledged answer {told} is lost")
            elif kind == "signal":
                signals[told[0]] += 1
        for lifetime_id, sent in signals.items():
            log = self.rows[lifetime_id].log if lifetime_id in self.rows else []
            if sum(isinstance(e, Event) and e.type == "signalled" for e in log) < sent:
                self._say(f"an acknowledged signal to {lifetime_id} is lost")

    # -- what is checked

    def _check_row(self, row: Row) -> None:
        expected = EXPECTED[row.graph]
        where = f"{row.graph} {row.lifetime_id}"
        if row.status == "FAILED" and self._failed_once(row):
            return  # its author did not say that it may be called again, so it was not
        if row.status != "COMPLETED":
            self._say(f"{where} stands at {row.status}")
            return
        ends = [e for e in row.log if isinstance(e, Event) and e.type in ("completed", "failed", "aborted")]
        if len(ends) != 1:
            self._say(f"{where} has {len(ends)} ends")
            return
        done = [e for e in row.log if isinstance(e, Execution)]
        if len({e.entry_id for e in row.log}) != len(row.log):
            self._say(f"{where} has an entry twice")
        visits: dict[str, Counter[Visit]] = {"SUCCEEDED": Counter(), "CANCELLED": Counter()}
        for e in done:
            if e.status in visits:
                visits[e.status][Visit(row.lifetime_id, e.branch, e.name, e.iteration)] += 1
        for visit, times in visits["SUCCEEDED"].items():
            if times > 1:
                self._say(f"{where}: {visit} succeeded {times} times")
        for status, wanted in (("SUCCEEDED", expected.visits), ("CANCELLED", expected.cancelled)):
            found = Counter(visit.node for visit in visits[status])
            if found != Counter(wanted):
                self._say(f"{where}: visits that {status}: {dict(found)}, not {dict(wanted)}")
        self._check_order(row, where)
        result = self._result(row, ends[0])
        if result != expected.result and (not isinstance(result, dict) or number(result) != expected.result):
            self._say(f"{where}: its result is {result!r:.80}, not {expected.result!r}")

    def _check_order(self, row: Row, where: str) -> None:
        """Each parent is recorded before its child; failures are those that were to be."""
        seen: set[str] = set()
        failures: Counter[Visit] = Counter()
        for e in row.log:
            if not isinstance(e, Execution):
                continue
            if missing := [parent for parent in e.parents if parent not in seen]:
                self._say(f"{where}: {e.name} has parents that are not recorded before it: {missing}")
            seen.add(e.exec_id)
            planted = e.error is not None and PLANTED in e.error.message
            if e.status == "FAILED" and not planted:
                failures[Visit(row.lifetime_id, e.branch, e.name, e.iteration)] += 1
            if e.status == "TIMED_OUT" and (e.error is None or e.error.type != "LeaseExpired" or not self.deaths):
                self._say(f"{where}: {e.name} TIMED_OUT ({e.error and e.error.type}) though no worker died")
        for visit, times in failures.items():
            if visit.node not in EXPECTED[row.graph].flaky or times > FLAKY_FAILURES:
                self._say(f"{where}: {visit.node} failed {times} times by itself")

    def _check_calls(self) -> None:
        failures = self._failures()
        times = Counter(_visit(call) for call in self.calls)
        once = {_visit(call) for call in self.calls if call.effect == AT_MOST_ONCE}
        for visit, n in times.items():
            allowed = 1 if visit in once else 1 + failures[visit] + self.hits[visit]
            if n > allowed:
                self._say(f"{visit} was called {n} times, {allowed} at most; deaths hit it {self.hits[visit]} times")
        for row in self.rows.values():
            for e in row.log:
                if isinstance(e, Execution) and e.status == "SUCCEEDED" and "/" in e.executor:
                    visit = Visit(row.lifetime_id, e.branch, e.name, e.iteration)
                    if not times[visit]:
                        self._say(f"{visit} succeeded, and was never called")

    def _failed_once(self, row: Row) -> bool:
        """Whether the exception that was planted hit the code of a Task that may be called once only."""
        once = {_visit(call) for call in self.calls if call.effect == AT_MOST_ONCE}
        return any(
            isinstance(e, Execution)
            and e.status == "FAILED"
            and Visit(row.lifetime_id, e.branch, e.name, e.iteration) in once
            and e.error is not None
            and PLANTED in e.error.message
            for e in row.log
        )

    def _failures(self) -> Counter[Visit]:
        """Attempts that ended FAILED: each of them lets code be called once more."""
        return Counter(
            Visit(row.lifetime_id, e.branch, e.name, e.iteration)
            for row in self.rows.values()
            for e in row.log
            if isinstance(e, Execution) and e.status == "FAILED"
        )

    def _check_blobs(self) -> None:
        for row in self.rows.values():
            for payload in _payloads(row.log):
                if payload.uri is not None and self._blob(payload) is None:
                    self._say(f"{row.graph} {row.lifetime_id}: the blob {payload.uri} is missing or another one")

    def _blob(self, payload: Payload) -> bytes | None:
        _, _, tenant, digest = (payload.uri or "").split("/")
        file = self.folder / "home" / "blobs" / tenant / digest[:2] / digest
        data = file.read_bytes() if file.exists() else b""
        return data if hashlib.sha256(data).hexdigest() == digest == payload.sha256 else None

    def _result(self, row: Row, end: Event) -> Any:
        """The lifetime's result, from where its end says that it stands."""
        seqs, pick, joined = end.data["source"]
        values = []
        for seq in seqs:
            entry = row.log[seq - 1]
            payload = entry.result if isinstance(entry, Execution) else None
            if isinstance(entry, Execution) and pick >= 0 and entry.next is not None:
                payload = entry.next[pick].input
            data = payload.inline if payload is not None and payload.uri is None else payload and self._blob(payload)
            values.append(msgspec.json.decode(data) if data else None)
        return values if joined else values[0]

    def _say(self, what: str) -> None:
        if what not in self.wrong:
            self.wrong.append(what)


def _visit(call: Call) -> Visit:
    return Visit(call.lifetime_id, call.branch, call.node, call.iteration)


def _payloads(log: list[Entry]) -> Iterator[Payload]:
    for entry in log:
        if isinstance(entry, Execution):
            if entry.result is not None:
                yield entry.result
            for choice in entry.next or ():
                if choice.input is not None:
                    yield choice.input
