"""What every adapter of the Ledger port has to do with what is recorded: count it once, for its tenant alone."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from tickwork.model.policy import Match, Window
from tickwork.model.records import Error, Event
from tickwork.model.spending import Quantity, Total, UsageQuery, UsageRow
from tickwork.testing.conformance.admission import RUNS, TOKENS, AdmissionConformance
from tickwork.testing.conformance.checks import equal, expect
from tickwork.testing.conformance.specimens import append, lifetime
from tickwork.testing.conformance.spent import spent, superseded

if TYPE_CHECKING:
    from tickwork.model.policy import Calendar
    from tickwork.ports import StateAdapter

MOST = 2**63 - 1
NOON = 1_774_699_200_000_000
"""Saturday, 2026-03-28 12:00 UTC; the next night clocks in Berlin go from 2:00 to 3:00."""

CALENDARS: tuple[Calendar, ...] = ("hour", "day", "week", "month")
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu")
BEGUN: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    50: ((3, 3, 2), (3, 7, 26), (51, 51, 51), (51, 51, 51)),  # 1:30 in Berlin
    51: ((4, 4, 3), (4, 8, 27), (52, 52, 52), (52, 52, 52)),
    55: ((4, 4, 3), (8, 12, 31), (56, 56, 56), (56, 56, 56)),  # 3:45 in Berlin, two hours and a quarter later by clocks
    56: ((1, 1, 4), (9, 13, 32), (57, 57, 57), (57, 57, 57)),
    140: ((1, 1, 4), (93, 5, 20), (141, 5, 20), (141, 141, 141)),  # Monday there, and Sunday still in UTC
    150: ((3, 3, 2), (7, 15, 30), (7, 15, 30), (151, 151, 151)),
    385: ((2, 2, 1), (50, 58, 73), (242, 250, 265), (50, 58, 73)),  # in April
    863: ((4, 4, 3), (48, 56, 71), (48, 56, 71), (528, 536, 551)),
}
"""Executions since each calendar period began in each zone, by the number of quarters of an hour since NOON."""


class LedgerConformance(AdmissionConformance):
    """Subclass it, and implement `open` and `reopen` as for the StateStore."""

    async def sums(self, store: StateAdapter, *quantities: Quantity, tenant: str = "acme") -> list[tuple[int, int]]:
        """Executions and amount of each."""
        return [(total.executions, total.amount) for total in await store.totals(tenant, quantities)]

    async def whole(self, store: StateAdapter, tenant: str | None = "acme") -> UsageRow:
        """All that a tenant used, in one row."""
        rows = await store.usage(UsageQuery(tenant_id=tenant))
        equal(len(rows), 1, "without keys it is one row, also when nothing was used")
        return rows[0]

    async def both(self, store: StateAdapter, executions: int, tokens: int, promise: str) -> None:
        """The report and the totals (kept up since they were asked for first, and summed up) say the same."""
        row = await self.whole(store)
        equal((row.executions, row.tokens_used), (executions, tokens), promise)
        equal(await self.sums(store, TOKENS, RUNS), [(executions, tokens), (executions, executions)], promise)

    async def test_an_execution_counts_once(self) -> None:
        """However often it comes: alone, twice in a batch, twice in an Append, beside new ones, with other bytes."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            await self.both(store, 0, 0, "nothing was used yet")
            one, two, three = (spent(life, n, tokens=10**n) for n in (1, 2, 3))
            for _ in range(3):
                await store.append([append(life, one)])
            await self.both(store, 1, 10, "a duplicate counts once")
            await store.append([append(life, one), append(life, two), append(life, two), append(life, one)])
            await self.both(store, 2, 110, "in one batch too")
            await store.append([append(life, three, three), append(life, spent(life, 3, tokens=7))])
            await self.both(store, 3, 1_110, "in one Append too, and what has other bytes is no other execution")
            await asyncio.gather(*(store.append([append(life, spent(life, n, tokens=1))]) for n in (5, 4, 5, 4, 6)))
            await self.both(store, 6, 1_113, "and at the same time")
            life = await self.made(store, 2, "umbrella")
            await store.append([append(life, spent(life, 1)) for _ in range(5)])
            equal(await self.sums(store, TOKENS, tenant="umbrella"), [(1, 10)], "also when nobody asked before")

    async def test_what_is_not_recorded_counts_nothing(self) -> None:
        """Neither of a refused Append, nor of one whose `expect` fails, nor what comes after the end."""
        async with self.opened() as store:
            life, other = await self.made(store, 1), await self.made(store, 2)
            await self.both(store, 0, 0, "nothing was used yet")
            answers = await store.append(
                [
                    append(life, spent(life, 1)),
                    append(lifetime(9), spent(lifetime(9), 1)),
                    append(life, spent(life, 2), expect=1),
                    append(other, spent(other, 1), expect=1),
                ]
            )
            equal([(a.error is not None, a.stale) for a in answers][1:3], [(True, False), (False, True)], "two fail")
            await self.both(store, 2, 20, "what was refused counts nothing, and its neighbours count")
            await store.append([append(life, spent(life, 3), status="COMPLETED")])
            await store.append([append(life, spent(life, 4)), append(life, spent(life, 3))])
            await self.both(store, 3, 30, "nothing counts after the end but its duplicates, which count once")
            await store.append([append(other, status="PAUSED"), append(other, Event("e", "paused"))])
            await self.both(store, 3, 30, "projections and events use nothing")

    async def test_what_never_ran_counts_nothing(self) -> None:
        """Cancelled, answered or refused by Tickwork, or a child lifetime, whose own records count."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            await self.both(store, 0, 0, "nothing was used yet")
            lost = Error("LeaseExpired", "the worker is gone")
            await store.append(
                [
                    append(life, spent(life, 1, status="CANCELLED")),
                    append(life, spent(life, 2, executor="tickwork")),
                    append(life, spent(life, 3, executor="tickwork", status="FAILED", error=Error("Rejected", "no"))),
                    append(life, spent(life, 4, executor="child:0192")),
                ]
            )
            await self.both(store, 0, 0, "none of these ran here")
            await store.append(
                [
                    append(life, spent(life, 5, executor="tickwork", status="TIMED_OUT", error=lost, tokens=0)),
                    append(life, spent(life, 6, status="FAILED", error=Error("ValueError", "no"))),
                    append(life, spent(life, 7, status="TIMED_OUT")),
                ]
            )
            await self.both(store, 3, 20, "attempts that failed were made, and so were those whose worker is gone")

    async def test_what_was_superseded_used_something(self) -> None:
        """Its tokens and its cost count, and no execution; each late result once; a child's end not at all."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            await store.append([append(life, spent(life, 1, cost=5), status="COMPLETED")])
            await self.both(store, 1, 10, "the one that was first")
            late = append(life, superseded(spent(life, 1, tokens=400, cost=70, custom={"pages": 2}), "a"))
            await store.append([late, late])
            await store.append([late])
            await store.append([append(life, superseded(spent(life, 1, tokens=4_000), "b"))])
            child = spent(life, 1, executor="child:0192", tokens=7)
            broken = Event("superseded:c", "superseded", {"exec_id": "c", "execution": ["x", 1]})
            empty = Event("superseded:d", "superseded", {})
            await store.append([append(life, superseded(child, "e"), broken, empty)])
            await self.both(store, 1, 4_410, "late results add what they used")
            row = await self.whole(store)
            equal((row.cost_nano_usd, row.custom, row.latency_us), (75, {"pages": 2_000_000}, 5), "money too, no time")

    async def test_what_is_no_amount_counts_zero(self) -> None:
        """Negative ones, texts, NaN: they add nothing, and take nothing away; the execution counts."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            custom = {
                "neg": -1,
                "nan": math.nan,
                "inf": math.inf,
                "text": "7",
                "flag": True,
                "huge": 10**13,
                "no": None,
                "half": 0.5,
                "nothing": 0,
                "ten": 10,
            }
            quantities = [Quantity(f"custom.{name}") for name in custom]
            await self.sums(store, *quantities)
            bad = spent(life, 1, tokens=-5, cost=-7, custom=custom)
            await store.append([append(life, bad), append(life, spent(life, 2, cost=3, unpriced=True))])
            row = await self.whole(store)
            equal((row.executions, row.tokens_used, row.cost_nano_usd, row.unpriced), (2, 10, 3, 1), "amounts")
            equal(row.custom, {"half": 500_000, "ten": 10_000_000}, "counters in millionths, those that are numbers")
            wanted = [(2, row.custom.get(name, 0)) for name in custom]
            equal(await self.sums(store, *quantities), wanted, "the totals say the same")

    async def test_sums_end_and_never_wrap(self) -> None:
        """At the greatest integer of 64 bits: in a commit, in a minute, over minutes, over nodes."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            huge = Quantity("tokens_used", window=Window(seconds=3_600))
            await self.sums(store, TOKENS, huge)
            await store.append([append(life, spent(life, n, tokens=MOST - 3)) for n in range(3)])
            await store.append([append(life, spent(life, 3, tokens=MOST, name="other"))])
            self.clock.advance(60)
            await store.append([append(life, spent(life, 4, tokens=MOST))])
            counter = {"c": 10**12}
            await store.append([append(life, *(spent(life, n, tokens=1, custom=counter) for n in range(5, 20)))])
            row = await self.whole(store)
            equal((row.executions, row.tokens_used), (20, MOST), "the report")
            equal(row.custom["c"], MOST, "counters end there too")
            wanted = [(20, MOST), (20, MOST), (20, MOST)]
            equal(await self.sums(store, TOKENS, huge, Quantity("tokens_used", Match(kind="task"))), wanted, "totals")
            afresh = Quantity("tokens_used", Match(kind="task"), Window(seconds=7_200))
            equal(await self.sums(store, afresh), [(20, MOST)], "totals by minutes")
            self.clock.advance(3_600)
            equal(await self.sums(store, huge), [(16, MOST)], "what leaves the window leaves the rest as it is")
            self.clock.advance(60)
            equal(await self.sums(store, huge), [(0, 0)], "until there is nothing left")

    async def test_the_history_that_a_fork_shares_is_not_used_again(self) -> None:
        """The lifetime that it happened in has counted it; what the fork does itself counts."""
        async with self.opened() as store:
            fork = lifetime(2)
            entries = (Event("started", "started"), spent(fork, 1), spent(fork, 2))
            first = append(fork, *entries)
            first.ats = (1, 2, 3)
            await self.both(store, 0, 0, "nothing was used yet")
            await store.create_lifetime(fork, first)
            await store.append([append(fork, spent(fork, 2)), append(fork, spent(fork, 3, tokens=5))])
            await self.both(store, 1, 5, "what is shared counts nothing")

    async def test_no_tenant_sees_another_ones(self) -> None:
        """Neither in totals nor in reports, also where all else is the same; whoever runs it sees all."""
        async with self.opened() as store:
            mine, theirs = await self.made(store, 1), await self.made(store, 2, "umbrella")
            equal(await self.sums(store, TOKENS, tenant="umbrella"), [(0, 0)], "nothing was used yet")
            await store.append([append(mine, spent(mine, 1)), append(theirs, spent(theirs, 1, tokens=77))])
            await self.both(store, 1, 10, "one's")
            equal(await self.sums(store, TOKENS, tenant="umbrella"), [(1, 77)], "the other's")
            equal(await self.sums(store, TOKENS, tenant="nobody"), [(0, 0)], "nobody's")
            equal((await self.whole(store, None)).tokens_used, 87, "and all")
            rows = await store.usage(UsageQuery(tenant_id=None, by=("tenant",)))
            equal([(row.key, row.tokens_used) for row in rows], [(("acme",), 10), (("umbrella",), 77)], "by tenant")

    async def test_a_match_takes_what_it_names(self) -> None:
        """By kind, node, graph, model and labels, patterns included; whether asked for before or after."""
        async with self.opened() as store:
            store.track(frozenset({"team", "größe"}))
            life = await self.made(store, 1, labels={"team": "red", "größe": "ü", "free": "yes"})
            blue = await self.made(store, 2, labels={"team": "blue"}, graph_name="other")
            cases = [
                (Match(), 11_111),
                (Match(kind="plan"), 10),
                (Match(name=("fetch",)), 1_101),
                (Match(name=("f?tch", "dec*")), 1_111),
                (Match(graph=("other",)), 11_000),
                (Match(model=("small",)), 1_001),
                (Match(model=("*",)), 11_111),
                (Match(model=("sm*", "b[i]g")), 1_101),
                (Match(graph=("hell*",), kind="task", model=("big",)), 100),
                (Match(name=("FETCH",)), 0),
                (Match(labels={"team": "red"}), 111),
                (Match(labels={"team": "*"}), 11_111),
                (Match(labels={"team": "r*", "größe": "ü"}), 111),
                (Match(labels={"team": "green"}), 0),
                (Match(labels={"free": "yes"}), 0),
            ]
            asked = [(Quantity("tokens_used", match), wanted) for match, wanted in cases]
            await self.sums(store, *(quantity for quantity, _ in asked))
            await store.append([append(life, spent(life, 1, tokens=1), spent(life, 2, tokens=100, model="big"))])
            await store.append([append(life, spent(life, 3, tokens=10, kind="plan", name="decide", model=None))])
            await store.append([append(blue, spent(blue, 1, tokens=1_000))])
            await store.append([append(blue, spent(blue, 2, tokens=10_000, name="put", model=None))])
            found = [total.amount for total in await store.totals("acme", [quantity for quantity, _ in asked])]
            for (quantity, wanted), amount in zip(asked, found, strict=True):
                equal(amount, wanted, f"kept up: {quantity.match}")
            for quantity, wanted in asked:
                again = Quantity("tokens_used", quantity.match, Window(seconds=86_400))
                equal((await store.totals("acme", [again]))[0].amount, wanted, f"summed up: {quantity.match}")

    async def test_labels_count_from_when_they_are_tracked(self) -> None:
        """Usage of before is not attributed to any; what was tracked once stays so."""
        async with self.opened() as store:
            life = await self.made(store, 1, labels={"team": "red", "stage": "test"})
            red = Quantity("tokens_used", Match(labels={"team": "red"}))
            await store.append([append(life, spent(life, 1))])
            store.track(frozenset({"team"}))
            store.track(frozenset({"stage"}))
            await store.append([append(life, spent(life, 2, tokens=5))])
            equal(await self.sums(store, red), [(1, 5)], "from then on")
            report = UsageQuery(tenant_id="acme", labels={"team": "red", "stage": "test"})
            equal((await store.usage(report))[0].tokens_used, 5, "the report too")
            equal((await store.usage(UsageQuery(tenant_id="acme", labels={"team": "r*"})))[0].tokens_used, 0, "exactly")
            await self.both(store, 2, 15, "and all of it counts without labels")

    async def test_a_sliding_window_forgets_by_minutes(self) -> None:
        """It reaches back to the start of the minute that lies so long ago: never less than it says."""
        async with self.opened() as store:
            self.clock.microseconds = NOON
            life = await self.made(store, 1)
            hour = Quantity("tokens_used", window=Window(seconds=3_600))
            odd = Quantity("tokens_used", window=Window(seconds=90))
            await self.sums(store, hour, odd)
            await store.append([append(life, spent(life, 1, tokens=1))])
            self.clock.advance(59)
            await store.append([append(life, spent(life, 2, tokens=10))])
            self.clock.advance(31)
            equal(await self.sums(store, hour, odd), [(2, 11), (2, 11)], "at 12:01:30")
            self.clock.advance(60)
            equal(await self.sums(store, hour, odd), [(2, 11), (0, 0)], "at 12:02:30")
            await store.append([append(life, spent(life, 3, tokens=100))])
            self.clock.microseconds = NOON + 3_659_999_999
            equal(await self.sums(store, hour, odd), [(3, 111), (0, 0)], "at 13:00:59.999999")
            self.clock.microseconds += 1
            equal(await self.sums(store, hour, odd), [(1, 100), (0, 0)], "at 13:01")
            self.clock.microseconds = NOON + 60_000_000
            equal(await self.sums(store, hour, odd), [(3, 111), (3, 111)], "a clock that is set back sees it again")
            self.clock.microseconds = NOON + 86_400_000_000
            equal(await self.sums(store, hour, odd), [(0, 0), (0, 0)], "a day later there is nothing")
            await store.append([append(life, spent(life, 4, tokens=7))])
            equal(await self.sums(store, hour, odd), [(1, 7), (1, 7)], "but what is new")
            await self.both(store, 4, 118, "and without a window all counts")

    async def test_calendar_windows_begin_where_the_time_zone_says(self) -> None:
        """Hours, days, weeks from Monday and months; also on the night on which clocks change."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            windows = [Window(calendar=calendar, time_zone=zone) for calendar in CALENDARS for zone in ZONES]
            asked = [Quantity("executions", window=window) for window in windows]
            await self.sums(store, *asked)
            for number in range(24 * 9 * 4):  # every quarter of an hour, from noon on
                self.clock.microseconds = NOON + number * 900_000_000
                await store.append([append(life, spent(life, number))])
                if number in BEGUN:
                    found = [total.executions for total in await store.totals("acme", asked)]
                    wanted = [count for counts in BEGUN[number] for count in counts]
                    equal(found, wanted, f"hour, day, week and month in {ZONES}, {number} quarters after noon")

    async def test_totals_are_exact_while_others_write(self) -> None:
        """A Quantity that is asked for the first time in the middle of commits misses none and takes none twice."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(4)]
            number = 0

            async def write(of: int) -> None:
                nonlocal number
                for _ in range(12):
                    number += 1
                    many = [append(lives[of], spent(lives[of], number * 100 + n, tokens=1)) for n in range(10)]
                    await store.append(many)

            async def ask(first: int) -> list[Quantity]:
                made = []
                for n in range(12):
                    made.append(Quantity("tokens_used", window=Window(seconds=60 * (first * 100 + n + 1))))
                    total = (await store.totals("acme", made[-1:]))[0]
                    equal(total.executions, total.amount, "both sums are of the same moment")
                return made

            writing = asyncio.gather(*(write(n) for n in range(4)))
            asked = [quantity for made in await asyncio.gather(*(ask(n) for n in range(4))) for quantity in made]
            await writing
            equal(await self.sums(store, *asked), [(480, 480)] * 48, "all of it, once")
            await self.both(store, 480, 480, "as the report says")

    async def test_totals_survive_a_restart(self) -> None:
        """What was counted is counted, and what was recorded is known to be."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        await store.append([append(life, spent(life, n)) for n in range(5)])
        await self.both(store, 5, 50, "before")
        store = await self.reopen(store)
        try:
            await self.both(store, 5, 50, "after")
            await store.append([append(life, spent(life, 4)), append(life, spent(life, 5))])
            await self.both(store, 6, 60, "and it goes on")
        finally:
            await store.stop()

    async def test_usage_is_reported_by_what_is_asked_for(self) -> None:
        """In the order of the keys; times are in UTC, and cut to minutes."""
        async with self.opened() as store:
            self.clock.microseconds = NOON + 30_000_000
            one = await self.made(store, 1)
            other = await self.made(store, 2, graph_name="other")
            await store.append([append(one, spent(one, 1, tokens=1, cost=2_000, custom={"pages": 1.5}))])
            await store.append([append(other, spent(other, 1, tokens=10, model=None, kind="plan", name="decide"))])
            self.clock.advance(86_400 + 3_600)
            await store.append([append(one, spent(one, 2, tokens=100, custom={"pages": 2, "calls": 1}))])

            async def tokens(**asked: Any) -> dict[tuple[str, ...], int]:
                rows = await store.usage(UsageQuery(tenant_id="acme", **asked))
                equal([row.key for row in rows], sorted(row.key for row in rows), "in order")
                return {row.key: row.tokens_used for row in rows}

            equal(await tokens(by=("day",)), {("2026-03-28",): 11, ("2026-03-29",): 100}, "by day")
            equal(await tokens(by=("hour",)), {("2026-03-28T12",): 11, ("2026-03-29T13",): 100}, "by hour")
            equal(await tokens(by=("model", "graph")), {("", "other"): 10, ("small", "hello"): 101}, "by two")
            wanted = {("fetch", "task", "acme"): 101, ("decide", "plan", "acme"): 10}
            equal(await tokens(by=("node", "kind", "tenant")), wanted, "by three")
            equal(await tokens(graph="hello"), {(): 101}, "of one graph")
            equal(await tokens(graph="none"), {(): 0}, "of none")
            equal(await tokens(graph="none", by=("graph",)), {}, "no rows where nothing was used")
            equal(await tokens(since=NOON + 59_000_000), {(): 111}, "the whole minute counts")
            equal(await tokens(since=NOON + 60_000_000), {(): 100}, "since")
            equal(await tokens(until=NOON), {(): 0}, "until is not included")
            equal(await tokens(until=NOON + 1), {(): 11}, "the whole minute counts")
            hostile = "x' OR '1'='1"
            equal(await tokens(graph=hostile, labels={hostile: hostile}), {(): 0}, "names are no statements")
            row = (await store.usage(UsageQuery(tenant_id="acme", graph="hello")))[0]
            wanted_row = UsageRow(
                key=(),
                executions=2,
                tokens_in=2,
                tokens_out=4,
                tokens_used=101,
                cost_nano_usd=2_000,
                latency_us=10,
                queue_us=6,
                custom={"pages": 3_500_000, "calls": 1_000_000},
            )
            equal(row, wanted_row, "every sum")
            measures = ("tokens_in", "tokens_out", "cost_usd", "latency_ms", "queue_ms", "custom.pages")
            found = await self.sums(store, *(Quantity(measure, Match(graph=("hello",))) for measure in measures))
            equal(found, [(2, 2), (2, 4), (2, 2_000), (2, 10), (2, 6), (2, 3_500_000)], "as the totals have them")

    async def test_a_total_of_many_quantities(self) -> None:
        """More than anybody has, some of them twice."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            many = [Quantity("tokens_used", Match(name=(f"n{n}", "fetch"))) for n in range(2_500)]
            await store.append([append(life, spent(life, 1))])
            equal(await store.totals("acme", many + many[:3]), [Total(1, 10)] * 2_503, "each of them")
            await store.append([append(life, spent(life, 2))])
            equal(await store.totals("acme", [TOKENS, *many[:3], TOKENS]), [Total(2, 20)] * 5, "and again")
            expect((await store.totals("acme", [])) == [], "none")
