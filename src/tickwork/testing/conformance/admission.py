"""What every adapter of the Ledger port has to do with what is reserved: judge in order, hold, and let go in time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from tickwork.model.policy import Match, Window
from tickwork.model.records import Event
from tickwork.model.spending import Quantity, Total
from tickwork.ports import OVER, Demand
from tickwork.testing.conformance.checks import SettableClock, equal, expect, refused
from tickwork.testing.conformance.specimens import append, lifetime, started
from tickwork.testing.conformance.spent import spent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tickwork.model.lifetime import Lifetime
    from tickwork.ports import StateAdapter

TOKENS = Quantity("tokens_used")
COST = Quantity("cost_usd")
RUNS = Quantity("executions")


def demand(of: Lifetime, number: int, *quantities: Quantity, tokens: int = 100, **changes: Any) -> Demand:
    """A demand for the execution of this number, which is `spent`'s of the same number."""
    done = spent(of, number, **{key: changes[key] for key in ("name", "kind") if key in changes})
    facts: dict[str, Any] = {
        "tenant_id": of.tenant_id,
        "lifetime_id": of.lifetime_id,
        "exec_id": done.exec_id,
        "kind": done.kind,
        "node": done.name,
        "graph": of.graph_name,
        "labels": of.labels,
        "tokens": tokens,
        "cost_nano_usd": 5,
        "quantities": quantities or (TOKENS,),
    }
    changes.pop("name", None)
    return Demand(**(facts | changes))


def up_to(most: int) -> Any:
    """A judge that refuses what would take any of the quantities, reserved amounts included, above `most`."""

    def judge(asked: Demand, totals: Sequence[Total]) -> str | None:
        for total in totals:
            if total.amount + total.reserved + asked.tokens > most:
                return f"{total.amount} and {total.reserved} reserved"
        return None

    return judge


def always(_demand: Demand, _totals: Sequence[Total]) -> str | None:
    """A judge that admits everything."""
    return None


class AdmissionConformance:
    """The reservations' half of the suite."""

    def setup_method(self) -> None:
        """Gives each test a clock of its own."""
        self.clock = SettableClock()

    async def open(self) -> StateAdapter:
        """An empty store, not started, that runs by `self.clock`."""
        raise NotImplementedError

    async def reopen(self, store: StateAdapter) -> StateAdapter:
        """Stops `store` and returns another one, started, on what it keeps; or it as it is, when it keeps nothing."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StateAdapter]:
        """A started store, stopped afterwards."""
        store = await self.open()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def made(self, store: StateAdapter, number: int, tenant: str = "acme", **changes: Any) -> Lifetime:
        """A lifetime with its first entry recorded."""
        new = lifetime(number, tenant, **changes)
        return (await store.create_lifetime(new, started(new)))[0]

    async def held(self, store: StateAdapter, quantity: Quantity = TOKENS, tenant: str = "acme") -> tuple[int, int]:
        """Executions and amount that are reserved."""
        total = (await store.totals(tenant, [quantity]))[0]
        return total.reserved_executions, total.reserved

    async def test_demands_are_judged_in_order(self) -> None:
        """Each with what those before it reserved; a refused one reserves nothing; the judge gets what was asked."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            await store.append([append(life, spent(life, 90, tokens=40))])
            seen: list[tuple[str, list[Total]]] = []

            def judge(asked: Demand, totals: Sequence[Total]) -> str | None:
                seen.append((asked.exec_id, list(totals)))
                return "no" if asked.tokens == 13 else None

            batch = [
                demand(life, 1, TOKENS, RUNS),
                demand(life, 2, tokens=13),
                demand(life, 3, RUNS, COST, TOKENS, tokens=7),
            ]
            equal(await store.admit(batch, judge), [None, "no", None], "one answer a demand, in order")
            equal([name for name, _ in seen], [one.exec_id for one in batch], "each was judged once, in order")
            equal(seen[0][1], [Total(1, 40, 0, 0), Total(1, 1, 0, 0)], "the first sees what is recorded")
            equal(seen[1][1], [Total(1, 40, 1, 100)], "the next one what the first reserved")
            wanted = [Total(1, 1, 1, 1), Total(1, 0, 1, 5), Total(1, 40, 1, 100)]
            equal(seen[2][1], wanted, "and the last nothing of the refused one; in the order that it asked for")
            equal(await self.held(store), (2, 107), "what was admitted is reserved")
            equal(await store.admit([], judge), [], "no demands, no answers")

    async def test_what_is_reserved_is_admitted_again(self) -> None:
        """Without being judged, and it is reserved once; a refused one is judged again."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            first = demand(life, 1)
            equal(await store.admit([first, first], up_to(100)), [None, None], "the second is the first")
            equal(await store.admit([replace(first, tokens=999)], up_to(0)), [None], "it is not judged again")
            equal(await self.held(store), (1, 100), "and holds what it held")
            expect((await store.admit([demand(life, 2)], up_to(100)))[0] is not None, "there is no room for another")
            equal(await store.admit([demand(life, 2)], up_to(200)), [None], "a refused one may come again")

    async def test_many_that_ask_at_once_do_not_exceed_a_limit(self) -> None:
        """Across lifetimes, while records come in, with sums that nobody asked for before."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(20)]
            judge, most = up_to(2_000), 0

            async def live(life: Lifetime) -> int:
                nonlocal most
                made = 0
                for number in range(10):
                    window = Quantity("tokens_used", window=Window(seconds=60 * (number + 1)))
                    if (await store.admit([demand(life, number, TOKENS, window)], judge))[0] is None:
                        made += 1
                        await store.append([append(life, spent(life, number, tokens=90))])
                    total = (await store.totals("acme", [TOKENS]))[0]
                    most = max(most, total.amount + total.reserved)
                return made

            made = sum(await asyncio.gather(*(live(life) for life in lives)))
            expect(most <= 2_000, f"at no time were more than 2,000 used and reserved: {most}")
            equal(made, 22, "but as many as there is room for: 21 * 90 + 100 <= 2,000")
            equal(await self.held(store), (0, 0), "and nothing is reserved any more")

    async def test_a_record_ends_its_reservation(self) -> None:
        """Whatever became of it; no other record does, and no duplicate."""
        async with self.opened() as store:
            life, other = await self.made(store, 1), await self.made(store, 2, "umbrella")
            await store.append([append(life, spent(life, 50))])
            batch = [demand(life, n) for n in range(4)]
            await store.admit(batch, always)
            await store.admit([replace(demand(other, 0), exec_id=batch[0].exec_id)], always)
            equal(await self.held(store), (4, 400), "four of one tenant")
            await store.append([append(life, spent(life, 50)), append(life, spent(life, 51))])
            equal(await self.held(store), (4, 400), "other executions end none")
            endings: list[dict[str, Any]] = [
                {},
                {"status": "FAILED"},
                {"status": "CANCELLED", "executor": "tickwork"},
                {"status": "FAILED", "executor": "tickwork"},
            ]
            for number, ending in enumerate(endings):
                await store.append([append(life, spent(life, number, **ending))])
                equal(await self.held(store), (3 - number, 300 - 100 * number), f"ended by {ending}")
            equal(await self.held(store, tenant="umbrella"), (1, 100), "another tenant's of the same id stands")
            stale = append(other, replace(spent(other, 0), exec_id=batch[0].exec_id), expect=77)
            await store.append([stale])
            equal(await self.held(store, tenant="umbrella"), (1, 100), "what was not recorded ends nothing")

    async def test_running_it_again_ends_a_reservation(self) -> None:
        """A `reconciled` event of this kind does, for it will be asked for again; one that asks a person does not."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            asked = demand(life, 1)
            await store.admit([asked], always)
            ask = Event("r1", "reconciled", {"exec_id": asked.exec_id, "action": "ask"})
            unknown = Event("u1", "unknown", {"exec_id": asked.exec_id})
            await store.append([append(life, unknown, ask)])
            equal(await self.held(store), (1, 100), "nobody knows yet")
            await store.append([append(life, Event("r2", "reconciled", {"exec_id": asked.exec_id, "action": "retry"}))])
            equal(await self.held(store), (0, 0), "it did not happen")
            equal(await store.admit([asked], up_to(0)), ["0 and 0 reserved"], "and is judged again")

    async def test_the_end_of_a_lifetime_ends_its_reservations(self) -> None:
        """All of them, whichever way it ends; other lifetimes' stand."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(4)]
            await store.admit([demand(life, n) for life in lives for n in range(3)], always)
            await store.append([append(lives[0], Event("p", "paused"), status="PAUSED")])
            equal(await self.held(store), (12, 1_200), "a pause ends none")
            for left, (life, status) in enumerate(zip(lives, ("COMPLETED", "FAILED", "ABORTED"), strict=False)):
                await store.append([append(life, Event("end", "completed"), expect=99, status=status)])
                equal(await self.held(store), (12 - 3 * left, 1_200 - 300 * left), "a stale end is none")
                await store.append([append(life, Event("end", "completed"), status=status)])
                equal(await self.held(store), (9 - 3 * left, 900 - 300 * left), f"ended by {status}")

    async def test_what_is_settled_is_not_reserved(self) -> None:
        """An execution that is recorded when it is asked for, or whose lifetime has ended, would never let go."""
        async with self.opened() as store:
            life, ended = await self.made(store, 1), await self.made(store, 2)
            await store.append([append(life, spent(life, 1))])
            await store.append([append(ended, Event("end", "completed"), status="COMPLETED")])
            asked = [demand(life, 1), demand(ended, 1), demand(life, 2)]
            equal(await store.admit(asked, up_to(10)), [OVER, OVER, "10 and 0 reserved"], "there is nothing to judge")
            equal(await self.held(store), (0, 0), "nor to hold")
            many = [append(life, spent(life, n)) for n in range(3, 30)]
            await asyncio.gather(store.append(many), store.admit([demand(life, n) for n in range(3, 30)], always))
            equal(await self.held(store), (0, 0), "also when both come at once")

    async def test_what_is_reserved_of_which_measure(self) -> None:
        """Tokens of any direction, money, one execution; of what nobody declares, nothing. Broken amounts are none."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            measures = {"tokens_in": 100, "tokens_out": 100, "tokens_used": 100, "cost_usd": 5, "executions": 1}
            measures |= {"latency_ms": 0, "queue_ms": 0, "custom.pages": 0}
            await store.admit([demand(life, 1)], always)
            for measure, amount in measures.items():
                equal(await self.held(store, Quantity(measure)), (1, amount), measure)
            await store.admit([demand(life, 2, tokens=-1), demand(life, 3, tokens=2**70)], always)
            equal(await self.held(store), (3, 2**63 - 1), "sums end, and nobody reserves less than nothing")

    async def test_a_reservation_counts_where_its_record_may(self) -> None:
        """By kind, node, graph and labels; in every window; and for every model, for nobody knows it yet."""
        async with self.opened() as store:
            life = await self.made(store, 1, labels={"team": "red"})
            for asked_before in (True, False):
                cases = [
                    (Match(), 2),
                    (Match(kind="plan"), 1),
                    (Match(name=("fe*",)), 1),
                    (Match(graph=("hello",)), 2),
                    (Match(graph=("other",)), 0),
                    (Match(labels={"team": "r?d"}), 2),
                    (Match(labels={"team": "blue"}), 0),
                    (Match(labels={"town": "*"}), 0),
                    (Match(model=("anything",)), 2),
                    (Match(model=("anything",), name=("decide",)), 1),
                ]
                window = Window(seconds=3_600) if asked_before else Window(calendar="day")
                asked = [Quantity("tokens_used", match, window) for match, _ in cases]
                if asked_before:
                    await store.totals("acme", asked)
                await store.admit([demand(life, 1), demand(life, 2, kind="plan", name="decide")], always)
                self.clock.advance(86_400 * 3)
                for quantity, (match, wanted) in zip(asked, cases, strict=True):
                    equal(await self.held(store, quantity), (wanted, wanted * 100), f"{match}, {asked_before}")

    async def test_a_judge_that_fails_reserves_nothing(self) -> None:
        """Neither for the demand that it failed at, nor for those before; what stood before stands."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            await store.admit([demand(life, 1)], always)

            def judge(asked: Demand, _totals: Sequence[Total]) -> str | None:
                if asked.tokens == 13:
                    raise ZeroDivisionError
                return None

            with refused(ZeroDivisionError, "the caller has to hear of it"):
                await store.admit([demand(life, 1), demand(life, 2), demand(life, 3, tokens=13)], judge)
            equal(await self.held(store), (1, 100), "as it was")

    async def test_a_restart_forgets_reservations(self) -> None:
        """Whoever was admitted asks again, and holds the same again; a store that was not closed may remember."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        await store.admit([demand(life, 1), demand(life, 2)], always)
        again = await self.reopen(store)
        try:
            if again is not store:
                equal(await self.held(again), (0, 0), "no process is left that could spend them")
            await again.admit([demand(life, 1), demand(life, 2)], always)
            equal(await self.held(again), (2, 200), "each once")
        finally:
            await again.stop()
