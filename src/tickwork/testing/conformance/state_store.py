"""What every StateStore has to do: the log's half stands in `state_log`, here are lifetimes and the read model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tickwork.errors import GraphConflict
from tickwork.model.records import Event
from tickwork.ports import LifetimeQuery
from tickwork.testing.conformance.checks import equal, expect, refused
from tickwork.testing.conformance.specimens import (
    BEGAN,
    append,
    execution,
    graph,
    lifetime,
    question,
    started,
    timer,
)
from tickwork.testing.conformance.state_log import LogConformance

if TYPE_CHECKING:
    from tickwork.model.lifetime import TimerRow
    from tickwork.ports import StateStore


class StateStoreConformance(LogConformance):
    """Subclass it, and implement `open` and `reopen`."""

    async def test_creating_is_idempotent(self) -> None:
        """By id and by idempotency key, in sequence and at the same time: the first one wins, nothing changes."""
        async with self.opened() as store:
            first = lifetime(1, idempotency_key="order-7", labels={"team": "blue"})
            found, created = await store.create_lifetime(first, started(first))
            equal((found.lifetime_id, created), (first.lifetime_id, True), "the first one is created")
            equal((found.status, found.last_seq, found.labels), ("RUNNING", 1, {"team": "blue"}), "as it was asked for")
            equal(
                await store.create_lifetime(first, started(first)), (found, False), "the same id is the same lifetime"
            )
            plain = lifetime(4, status="RUNNING", labels={"team": "red"})
            self.clock.advance(1)
            told, _ = await store.create_lifetime(plain, append(plain, execution(plain, 1), execution(plain, 2)))
            equal(await store.get_lifetime("acme", plain.lifetime_id), [told], "what is told is what is kept")
            equal((told.last_seq, told.updated_at), (2, self.clock.now()), "with the first entries")
            second = lifetime(2, idempotency_key="order-7")
            equal(await store.create_lifetime(second, started(second)), (found, False), "so is the same key")
            equal(await store.get_lifetime("acme", second.lifetime_id), [], "the second one does not exist")
            other = lifetime(3, "umbrella", idempotency_key="order-7")
            expect((await store.create_lifetime(other, started(other)))[1], "another tenant's key is another key")
            racers = [lifetime(n, idempotency_key="race") for n in range(10, 40)]
            raced = await asyncio.gather(*(store.create_lifetime(r, started(r)) for r in racers))
            equal(sum(created for _, created in raced), 1, "of many at the same time one is created")
            equal(len({found.lifetime_id for found, _ in raced}), 1, "and all are answered with it")
            equal(len(await self.whole_log(store, raced[0][0])), 1, "its first entry is recorded once")

    async def test_a_taken_id_does_not_show_another_tenants_lifetime(self) -> None:
        """An id that another tenant has is refused without a word about whose it is."""
        async with self.opened() as store:
            await self.made(store, 1, "acme")
            thief = lifetime(1, "umbrella")
            try:
                found, created = await store.create_lifetime(thief, started(thief))
            except Exception as error:  # noqa: BLE001 - which error it is depends on the store; what it says matters
                expect("acme" not in str(error), "the error does not name the other tenant")
            else:
                equal((found.tenant_id, created), ("umbrella", True), "or the two tenants' ids are apart")
            equal(
                (await store.get_lifetime("acme", thief.lifetime_id))[0].tenant_id, "acme", "the first one is unharmed"
            )

    async def test_status_moves_on_and_never_back(self) -> None:
        """A projection counts when its state is not older than the stored one's."""
        async with self.opened() as store:
            life = await self.made(store, 1)

            async def after(*entries: Event, **projection: Any) -> tuple[str, str | None]:
                self.clock.advance(1)
                answer = (await store.append([append(life, *entries, **projection)]))[0]
                equal(answer.error, None, "an Append with a projection is taken")
                now = (await store.get_lifetime("acme", life.lifetime_id))[0]
                return now.status, now.reason

            pause = Event("p", "paused", {})
            equal(
                await after(pause, status="PAUSED", reason="lunch"), ("PAUSED", "lunch"), "the last seq of the append"
            )
            equal(await after(status="RUNNING", as_of=1), ("PAUSED", "lunch"), "an older state does not count")
            equal(await after(status="RUNNING", as_of=2), ("RUNNING", None), "one as old does")
            equal(
                await after(pause, status="WAITING", reason="ann"), ("WAITING", "ann"), "duplicates' projection counts"
            )
            equal(await after(status="RUNNING"), ("RUNNING", None), "so does a projection without entries")
            equal(await after(Event("n", "resumed", {})), ("RUNNING", None), "no projection changes nothing")
            now = (await store.get_lifetime("acme", life.lifetime_id))[0]
            equal((now.last_seq, now.updated_at), (3, self.clock.now()), "last_seq and updated_at follow the log")
            equal(now.finished_at, None, "it has not ended")

    async def test_an_ended_lifetime_stays_as_it_ended(self) -> None:
        """It waits for nothing any more, takes nothing but what was superseded, and keeps its status."""
        async with self.opened() as store:
            life, other = await self.made(store, 1), await self.made(store, 2)
            rows: dict[str, Any] = {
                "timers_set": (timer(life, "t1", BEGAN),),
                "questions_opened": (question(life, "q1"),),
            }
            await store.append([append(life, **rows)])
            kept = append(other, timers_set=(timer(other, "t1", BEGAN),), questions_opened=(question(other, "q1"),))
            await store.append([kept])
            self.clock.advance(5)
            end = (await store.append([append(life, execution(life, 1), status="COMPLETED")]))[0]
            self.clock.advance(5)
            late = append(life, execution(life, 2), status="FAILED", reason="late", **rows)
            answer = (await store.append([late]))[0]
            equal((answer.seqs, answer.stale), ((None,), True), "late entries are not recorded")
            again = (await store.append([append(life, execution(life, 1), status="RUNNING")]))[0]
            equal((again.seqs, again.stale, again.differs), ((None,), False, ()), "a duplicate is one, also then")
            third = await self.made(store, 3)
            ending, result = append(third, execution(third, 7), status="FAILED"), execution(third, 7)
            result.executor = "another worker"
            answers = await store.append([ending, append(third, result), append(third, execution(third, 8))])
            told = [(x.seqs, x.differs, x.stale) for x in answers]
            wanted: list[Any] = [((2,), (), False), ((None,), (0,), False), ((None,), (), True)]
            equal(told, wanted, "also in the batch that has the end")
            superseded = Event("superseded:x", "superseded", {})
            equal((await store.append([append(life, superseded)]))[0].seqs, (3,), "what is superseded is kept")
            now = (await store.get_lifetime("acme", life.lifetime_id))[0]
            equal((now.status, now.reason, now.finished_at), ("COMPLETED", None, end.at), "the end stands")
            timers, _ = await self.due(store, BEGAN + 1)
            equal([t.lifetime_id for t in timers], [other.lifetime_id], "its timers are gone, another's are not")
            open_questions = await store.questions("acme")
            equal([q.lifetime_id for q in open_questions], [other.lifetime_id], "so are its questions")
            equal([x.lifetime_id for x in await store.open_lifetimes()], [other.lifetime_id], "it is not open")

    async def due(self, store: StateStore, at: int, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        """The timers due at `at` (us), and when the next one after them is."""
        timers, wait = await store.due_timers(at - self.clock.now(), limit)
        return timers, None if wait is None else self.clock.now() + wait

    async def test_timers_come_by_their_time(self) -> None:
        """Earliest first, of all tenants; setting one again moves it; the next one's time is told."""
        async with self.opened() as store:
            one, two = await self.made(store, 1), await self.made(store, 2, "umbrella")
            equal(await self.due(store, BEGAN), ([], None), "no timers, none to come")
            await store.append(
                [
                    append(one, timers_set=(timer(one, "a", BEGAN + 30), timer(one, "b", BEGAN + 10))),
                    append(two, timers_set=(timer(two, "c", BEGAN + 20), timer(two, "d", BEGAN + 90))),
                ]
            )
            due, following = await self.due(store, BEGAN + 30)
            equal(
                due, [timer(one, "b", BEGAN + 10), timer(two, "c", BEGAN + 20), timer(one, "a", BEGAN + 30)], "by time"
            )
            equal(following, BEGAN + 90, "the next one's time is told")
            equal(await self.due(store, BEGAN + 5), ([], BEGAN + 10), "also when none is due")
            due, following = await self.due(store, BEGAN + 30, limit=1)
            equal(
                ([t.timer_id for t in due], following), (["b"], BEGAN + 20), "a limit leaves the rest for the next time"
            )
            await store.append([append(one, timers_set=(timer(one, "a", BEGAN + 5),), timers_cleared=("b", "unknown"))])
            due, following = await self.due(store, BEGAN + 25)
            equal([t.timer_id for t in due], ["a", "c"], "a timer set again moves, a cleared one is gone")
            await store.append([append(one, timers_cleared=("c",))])
            equal(len((await self.due(store, BEGAN + 25))[0]), 2, "another lifetime's timer cannot be cleared")

    async def test_questions_are_kept_until_closed(self) -> None:
        """Oldest first, for the tenant or one lifetime; opening again replaces."""
        async with self.opened() as store:
            one, two = await self.made(store, 1), await self.made(store, 2)
            foreign = await self.made(store, 3, "umbrella")
            await store.append(
                [
                    append(one, questions_opened=(question(one, "q2", BEGAN + 2), question(one, "q1", BEGAN + 1))),
                    append(two, questions_opened=(question(two, "q3", BEGAN + 3),)),
                    append(foreign, questions_opened=(question(foreign, "q4", BEGAN),)),
                ]
            )
            mine = await store.questions("acme")
            equal(mine[0], question(one, "q1", BEGAN + 1), "a question comes back as it was")
            equal([q.exec_id for q in mine], ["q1", "q2", "q3"], "oldest first, of this tenant only")
            equal([q.exec_id for q in await store.questions("acme", limit=2)], ["q1", "q2"], "no more than asked")
            equal([q.exec_id for q in await store.questions("acme", two.lifetime_id)], ["q3"], "of one lifetime")
            equal(await store.questions("acme", foreign.lifetime_id), [], "not of another tenant's")
            done = execution(two, 5)
            await store.append([append(two, done)])
            await store.append([append(two, questions_opened=(question(two, done.exec_id, BEGAN),))])
            equal(
                [q.exec_id for q in await store.questions("acme", two.lifetime_id)], ["q3"], "what is done asks nothing"
            )
            again = question(one, "q1", BEGAN + 9, "Really?")
            await store.append([append(one, questions_opened=(again,), questions_closed=("q2", "unknown"))])
            equal(await store.questions("acme", one.lifetime_id), [again], "replaced and closed")

    async def test_questions_are_told_apart_by_what_they_wait_for(self) -> None:
        """People, signals, calls whose outcome nobody knows, executions that are too dangerous to repeat."""
        async with self.opened() as store:
            one = await self.made(store, 1)
            kinds: list[Any] = ["human", "signal", "unknown", "poison"]
            asked = [question(one, f"q{n}", BEGAN + n, on=kind) for n, kind in enumerate(kinds * 2)]
            await store.append([append(one, questions_opened=tuple(asked))])
            for kind in kinds:
                wanted = [q for q in asked if q.on == kind]
                equal(await store.questions("acme", on=kind), wanted, f"those on={kind}")
                equal(await store.questions("acme", one.lifetime_id, 1, on=kind), wanted[:1], "no more than asked")
            equal(await store.questions("acme"), asked, "or all of them")

    async def test_a_prefix_finds_and_says_when_it_is_ambiguous(self) -> None:
        """One, several (at most five), none; and never a pattern."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(8)]
            await self.made(store, 100, "umbrella")
            whole = await store.get_lifetime("acme", lives[3].lifetime_id)
            equal([x.lifetime_id for x in whole], [lives[3].lifetime_id], "a whole id finds its lifetime")
            shared = lives[0].lifetime_id[:8]
            equal(len(await store.get_lifetime("acme", shared)), 5, "an ambiguous prefix finds five")
            equal(len(await store.get_lifetime("umbrella", shared)), 1, "of this tenant only")
            equal(
                len(await store.get_lifetime("acme", lives[3].lifetime_id[:-1])), 1, "all but the last digit is enough"
            )
            for nothing in (lives[3].lifetime_id + "0", "zzz", "%", "_" * 36, "0' OR 1=1 --"):
                equal(await store.get_lifetime("acme", nothing), [], f"{nothing!r} finds nothing")

    async def test_lists_filter_and_go_on(self) -> None:
        """Newest first; status, graph, label, and pages that neither repeat nor skip."""
        async with self.opened() as store:
            for n in range(12):
                new = lifetime(
                    n,
                    graph_name="hello" if n % 2 else "bye",
                    graph_version=f"{n % 3}.0.0",
                    labels={"team": "blue" if n < 6 else "red", 'odd "$.key': "1"},
                )
                await store.create_lifetime(new, started(new))
                if n % 4 == 0:
                    await store.append([append(new, Event("end", "completed", {}), status="COMPLETED")])
            await self.made(store, 50, "umbrella")

            async def listed(**query: Any) -> list[int]:
                found = await store.list_lifetimes("acme", LifetimeQuery(**query))
                return [x.created_at - BEGAN for x in found]

            equal(await listed(), list(range(11, -1, -1)), "all of the tenant, newest first")
            equal(await listed(statuses=("COMPLETED",)), [8, 4, 0], "one status")
            equal(await listed(statuses=("COMPLETED", "RUNNING")), list(range(11, -1, -1)), "several")
            equal(await listed(statuses=()), [], "none")
            equal(await listed(graph="hello"), [11, 9, 7, 5, 3, 1], "one graph")
            equal(await listed(graph="hello@1.0.0"), [7, 1], "one version of it")
            equal(await listed(label=("team", "red"), graph="bye"), [10, 8, 6], "label and graph")
            equal(len(await listed(label=('odd "$.key', "1"))), 12, "a label's name is no path")
            equal(await listed(label=("team", "%")), [], "a label's value is no pattern")
            pages: list[int] = []
            before = None
            while page := await store.list_lifetimes("acme", LifetimeQuery(before=before, limit=5)):
                pages += [x.created_at - BEGAN for x in page]
                before = page[-1].lifetime_id
            equal(pages, list(range(11, -1, -1)), "pages neither repeat nor skip")

    async def test_open_lifetimes_are_walked_by_id(self) -> None:
        """All tenants, in pages."""
        async with self.opened() as store:
            lives = [await self.made(store, n, ("acme", "umbrella")[n % 2]) for n in range(7)]
            await store.append([append(lives[2], Event("end", "failed", {}), status="FAILED")])
            walked: list[str] = []
            while page := await store.open_lifetimes(walked[-1] if walked else "", limit=2):
                walked += [x.lifetime_id for x in page]
            equal(walked, [x.lifetime_id for x in lives if x is not lives[2]], "every open one once, by id")

    async def test_open_lifetimes_can_be_narrowed(self) -> None:
        """To a status, and to those that nothing has moved since a time: neither an entry nor a new status."""
        async with self.opened() as store:
            lives = [await self.made(store, n, ("acme", "umbrella")[n % 2]) for n in range(6)]
            begun = self.clock.now()

            async def found(**narrow: Any) -> list[int]:
                return [x.created_at - BEGAN for x in await store.open_lifetimes(**narrow)]

            equal(await found(untouched_since=begun - 1), [], "all of them are newer")
            equal(await found(untouched_since=begun), [0, 1, 2, 3, 4, 5], "as they were at that very time")
            self.clock.advance(10)
            await store.append(
                [
                    append(lives[0], execution(lives[0], 1)),
                    append(lives[1], status="PAUSED"),
                    append(lives[2], Event("end", "failed", {}), status="FAILED"),
                    append(lives[3]),
                ]
            )
            equal(await found(untouched_since=begun), [3, 4, 5], "an entry or a status moved the others")
            equal(await found(status="RUNNING"), [0, 3, 4, 5], "one status")
            equal(await found(status="FAILED"), [], "one that has ended is not open")
            equal(await found(status="PAUSED", untouched_since=self.clock.now()), [1], "both together")
            after = lives[3].lifetime_id
            equal(await found(status="RUNNING", after=after, limit=1), [4], "in pages as well")

    async def test_no_read_shows_another_tenants_rows(self) -> None:
        """Each read that takes a tenant."""
        async with self.opened() as store:
            life = await self.made(store, 1, "acme")
            await store.append([append(life, questions_opened=(question(life, "q"),))])
            await store.put_graph(graph("hello"))
            other = "umbrella"
            equal(await store.read_log(other, life.lifetime_id), [], "read_log")
            with refused(Exception, "read_entries"):
                await store.read_entries(other, life.lifetime_id, [1])
            equal(await store.get_lifetime(other, life.lifetime_id), [], "get_lifetime")
            equal(await store.get_lifetime(other, ""), [], "get_lifetime with an empty prefix")
            equal(await store.list_lifetimes(other, LifetimeQuery()), [], "list_lifetimes")
            mine = LifetimeQuery(before=life.lifetime_id)
            equal(await store.list_lifetimes(other, mine), [], "list_lifetimes after a foreign id")
            equal(await store.questions(other), [], "questions")
            equal(await store.questions(other, life.lifetime_id), [], "questions of a lifetime")
            equal(await store.graphs(other), [], "graphs")

    async def test_a_graph_version_never_changes(self) -> None:
        """The same digest again moves the source; another one is a conflict; newest first."""
        async with self.opened() as store:
            for version in ("1.0.0", "1.10.0", "1.9.0"):
                await store.put_graph(graph("hello", version))
            await store.put_graph(graph("bye"))
            await store.put_graph(graph("hello", tenant="umbrella", digest="other"))
            await store.put_graph(graph("hello", source="moved.yaml"))
            with refused(GraphConflict, "another digest for the same version is a conflict"):
                await store.put_graph(graph("hello", digest="changed"))
            found = await store.graphs("acme", name="hello")
            equal([g.version for g in found], ["1.9.0", "1.10.0", "1.0.0"], "newest registration first")
            equal(found[2], graph("hello", source="moved.yaml"), "only the source moved")
            equal(await store.graphs("acme", name="hello", version="1.9.0"), [found[0]], "by version")
            equal(await store.graphs("acme", digest="bye-1.0.0"), [graph("bye")], "by digest")
            equal(await store.graphs("acme", name="hello", digest="bye-1.0.0"), [], "all that is given has to match")

    async def test_ping_answers(self) -> None:
        """With facts for people."""
        async with self.opened() as store:
            facts = await store.ping()
            expect(bool(facts.get("technology")), "ping names the technology")
