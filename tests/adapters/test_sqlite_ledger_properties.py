"""Whatever happens in whatever order, the ledger says what a naive count over a list of records says."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.model.policy import Calendar, Match, Window
from tickwork.model.records import Error, Event, Execution
from tickwork.model.spending import Quantity, Total, UsageQuery
from tickwork.ports import OVER, Demand
from tickwork.testing.conformance import SettableClock
from tickwork.testing.conformance.admission import demand
from tickwork.testing.conformance.specimens import append, lifetime, started
from tickwork.testing.conformance.spent import spent, superseded

MINUTE = 60_000_000
LIVES = [
    lifetime(1, labels={"team": "red"}),
    lifetime(2, labels={"team": "blue"}, graph_name="other"),
    lifetime(3, "umbrella", labels={"team": "red"}),
]
SLIDING = [60, 150, 7_200]
CALENDARS: list[Calendar] = ["hour", "day", "week", "month"]
WINDOWS = [None, *(Window(seconds=n) for n in SLIDING), *(Window(calendar=calendar) for calendar in CALENDARS)]
MATCHES = [
    Match(),
    Match(kind="plan"),
    Match(name=("f*",)),
    Match(graph=("other",)),
    Match(labels={"team": "r*"}),
    Match(model=("small", "")),
    Match(model=("big",), name=("fetch",)),
]
MEASURES = ["executions", "tokens_used", "cost_usd", "latency_ms", "custom.pages"]
EXECUTORS = ["a python/0.1.0", "a python/0.1.0", "a python/0.1.0", "tickwork", "child:1"]

quantities = st.builds(Quantity, st.sampled_from(MEASURES), st.sampled_from(MATCHES), st.sampled_from(WINDOWS))
amounts = st.one_of(st.integers(-2, 30), st.sampled_from([2**62, 2**63 - 1]))


@st.composite
def executions(draw: st.DrawFn) -> tuple[int, Execution]:
    of = draw(st.integers(0, 2))
    statuses = ["SUCCEEDED", "SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELLED"]
    changes: dict[str, Any] = {"status": draw(st.sampled_from(statuses))}
    changes["executor"] = draw(st.sampled_from(EXECUTORS))
    if changes["status"] in ("FAILED", "TIMED_OUT"):
        changes["error"] = Error(draw(st.sampled_from(["LeaseExpired", "ValueError"])), "no")
    if draw(st.booleans()):
        changes |= {"kind": "plan", "name": "decide"}
    model, tokens, cost = draw(st.sampled_from(["small", "big", None])), draw(amounts), draw(amounts)
    custom = draw(st.sampled_from([None, {"pages": 2}, {"pages": -1, "other": 1}]))
    number = draw(st.integers(0, 5))
    return of, spent(LIVES[of], number, tokens=tokens, cost=cost, model=model, custom=custom, **changes)


class Booked(NamedTuple):
    """One thing that was recorded, as the naive count keeps it."""

    of: int
    minute: int
    done: Execution
    counts: int


class Naive:
    """A list of what was recorded and a dict of what is reserved."""

    def __init__(self) -> None:
        self.booked: list[Booked] = []
        self.seen: set[tuple[int, str]] = set()
        self.ended: set[int] = set()
        self.held: dict[tuple[str, str], Demand] = {}

    def record(self, of: int, entries: tuple[Execution | Event, ...], ends: bool, at: int) -> None:
        late = of in self.ended
        for entry in entries:
            is_late_result = isinstance(entry, Event) and entry.type == "superseded"
            if (of, entry.entry_id) in self.seen or (late and not is_late_result):
                continue
            self.seen.add((of, entry.entry_id))
            if isinstance(entry, Execution):
                self.held.pop((LIVES[of].tenant_id, entry.exec_id), None)
                child = entry.executor.startswith("child:")
                lost = entry.status == "TIMED_OUT" and entry.error is not None and entry.error.type == "LeaseExpired"
                answered = entry.executor == "tickwork" and not lost
                if entry.status != "CANCELLED" and not child and not answered:
                    self.booked.append(Booked(of, at // MINUTE, entry, 1))
            elif is_late_result:
                listed = entry.data["execution"]
                for done in LATE:
                    if listed[1] == done.exec_id and not done.executor.startswith("child:"):
                        self.booked.append(Booked(of, at // MINUTE, done, 0))
            elif entry.type == "reconciled":
                self.held.pop((LIVES[of].tenant_id, entry.data["exec_id"]), None)
        if ends and not late:
            self.ended.add(of)
            gone = [key for key, one in self.held.items() if one.lifetime_id == LIVES[of].lifetime_id]
            for key in gone:
                del self.held[key]

    def total(self, tenant: str, quantity: Quantity, now: int) -> Total:
        first, total = begins(quantity.window, now), Total()
        for of, minute, done, counts in self.booked:
            life = LIVES[of]
            model = (done.telemetry.model if done.telemetry else None) or ""
            match = quantity.match
            fits = match.node(done.kind, done.name) and match.lifetime(life.graph_name, life.labels)
            if life.tenant_id == tenant and minute >= first and fits and match.of_model(model):
                total.executions += counts
                total.amount += amount_of(done, quantity.measure, counts)
        for (of_tenant, _), one in self.held.items():
            if of_tenant == tenant and match_of(quantity, one):
                total.reserved_executions += 1
                total.reserved += {"executions": 1, "tokens_used": one.tokens, "cost_usd": 5}.get(quantity.measure, 0)
        for field in ("executions", "amount", "reserved"):
            setattr(total, field, min(getattr(total, field), 2**63 - 1))
        return total


LATE = [spent(LIVES[0], 0, tokens=7, cost=3, custom={"pages": 1}), spent(LIVES[0], 1, executor="child:1", tokens=9)]


def match_of(quantity: Quantity, one: Demand) -> bool:
    return quantity.match.node(one.kind, one.node) and quantity.match.lifetime(one.graph, one.labels)


def amount_of(done: Execution, measure: str, counts: int) -> int:
    used = done.telemetry
    assert used is not None
    pages = (used.custom or {}).get("pages", 0)
    found = {
        "executions": counts,
        "tokens_used": used.tokens_used,
        "cost_usd": used.cost_nano_usd,
        "latency_ms": 5 * counts,
        "custom.pages": pages * 1_000_000,
    }[measure]
    return max(0, found)


def begins(window: Window | None, now: int) -> int:
    """The first minute, in UTC, found by walking back."""
    if window is None:
        return 0
    if window.calendar is None:
        return (now - window.seconds * 1_000_000) // MINUTE
    day = datetime.fromtimestamp(now // 1_000_000, UTC).replace(minute=0, second=0, microsecond=0)
    while not {
        "hour": True,
        "day": day.hour == 0,
        "week": day.hour == 0 and day.isoweekday() == 1,
        "month": day.hour == 0 and day.day == 1,
    }[window.calendar]:
        day -= timedelta(hours=1)
    return int(day.timestamp()) // 60


class LedgerMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="tickwork-ledger-")
        self.clock = SettableClock(1_774_699_200_000_000)
        self.naive = Naive()
        self.asked: list[Quantity] = [Quantity("tokens_used")]
        self.open()
        for life in LIVES:
            self.runner.run(self.store.create_lifetime(life, started(life)))

    def open(self) -> None:
        self.store = SqliteStore(Path(self.folder.name) / "t.db", self.clock)
        self.store.track(frozenset({"team"}))
        self.runner.run(self.store.start())

    @rule(batch=st.lists(st.tuples(executions(), st.integers(0, 15), st.booleans()), min_size=1, max_size=6))
    def record(self, batch: list[tuple[tuple[int, Execution], int, bool]]) -> None:
        """A batch with duplicates and doubles inside it; now and then one that ends its lifetime."""
        appends = []
        for (of, done), chance, double in batch:
            entries = (done, done) if double else (done,)
            ends = {"status": "COMPLETED"} if chance == 0 else {}
            appends.append((of, entries, bool(ends), append(LIVES[of], *entries, **ends)))
        self.send(appends)

    @rule(late=st.sampled_from(LATE), named=st.sampled_from("abc"), times=st.integers(1, 2))
    def supersede(self, late: Execution, named: str, times: int) -> None:
        event = superseded(late, named)
        self.send([(0, (event,), False, append(LIVES[0], event))] * times)

    @rule(
        of=st.integers(0, 2), number=st.integers(0, 5), action=st.sampled_from(["retry", "ask"]), n=st.integers(0, 99)
    )
    def reconcile(self, of: int, number: int, action: str, n: int) -> None:
        asked = demand(LIVES[of], number)
        event = Event(f"{action}:{n}", "reconciled" if action == "retry" else "unknown", {"exec_id": asked.exec_id})
        event.data["action"] = action
        self.send([(of, (event,), False, append(LIVES[of], event))])

    def send(self, appends: list[tuple[int, tuple[Any, ...], bool, Any]]) -> None:
        answers = self.runner.run(self.store.append([one[3] for one in appends]))
        for (of, entries, ends, _), answer in zip(appends, answers, strict=True):
            assert answer.error is None
            self.naive.record(of, entries, ends, answer.at)

    @rule(
        asked=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans(), st.integers(0, 50)), max_size=5),
        most=st.integers(0, 300),
        about=st.lists(quantities, min_size=1, max_size=3),
    )
    def admit(self, asked: list[tuple[int, int, bool, int]], most: int, about: list[Quantity]) -> None:
        demands = []
        for of, number, plan, tokens in asked:
            node = {"kind": "plan", "name": "decide"} if plan else {}
            demands.append(demand(LIVES[of], number, *about, tokens=tokens, **node))
        judged: list[tuple[str, list[Total]]] = []

        def judge(one: Demand, totals: Any) -> str | None:
            judged.append((one.exec_id, list(totals)))
            return "no" if any(t.amount + t.reserved + one.tokens > most for t in totals) else None

        answers = self.runner.run(self.store.admit(demands, judge))
        expected: list[tuple[str, list[Total]]] = []
        for one, answer in zip(demands, answers, strict=True):
            key = (one.tenant_id, one.exec_id)
            of = next(n for n, life in enumerate(LIVES) if life.lifetime_id == one.lifetime_id)
            if (of, one.exec_id) in self.naive.seen or of in self.naive.ended:
                assert answer is OVER
                continue
            if key in self.naive.held:
                assert answer is None
                continue
            totals = [self.naive.total(one.tenant_id, quantity, self.clock.now()) for quantity in about]
            expected.append((one.exec_id, totals))
            refuse = any(t.amount + t.reserved + one.tokens > most for t in totals)
            assert answer == ("no" if refuse else None)
            if not refuse:
                self.naive.held[key] = one
        assert judged == expected

    @rule(seconds=st.one_of(st.integers(-200, 4_000), st.sampled_from([-90_000, 86_400, 3 * 86_400, 40 * 86_400])))
    def move_clock(self, seconds: int) -> None:
        self.clock.microseconds += seconds * 1_000_000

    @rule(quantity=quantities)
    def ask(self, quantity: Quantity) -> None:
        self.asked.append(quantity)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.stop())
        self.naive.held.clear()
        self.open()

    @invariant()
    def totals_are_as_counted(self) -> None:
        for tenant in ("acme", "umbrella"):
            found = self.runner.run(self.store.totals(tenant, self.asked))
            for quantity, total in zip(self.asked, found, strict=True):
                assert total == self.naive.total(tenant, quantity, self.clock.now()), quantity
            row = self.runner.run(self.store.usage(UsageQuery(tenant_id=tenant)))[0]
            wanted = self.naive.total(tenant, Quantity("tokens_used"), self.clock.now())
            assert (row.executions, row.tokens_used) == (wanted.executions, wanted.amount)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.stop())
            self.runner.close()
            self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedgerMachine = LedgerMachine.TestCase
