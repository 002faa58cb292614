"""What every StateStore has to do with the log: gapless, once, all or none, durable."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from tickwork.errors import StorageError, StoreCorrupt
from tickwork.model.records import Event, encode_entry
from tickwork.testing.conformance.checks import SettableClock, equal, expect, refused, turn
from tickwork.testing.conformance.specimens import append, execution, lifetime, question, started, timer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import Entry, LogEntry
    from tickwork.ports import StateStore


class LogConformance:
    """The log's half of the suite."""

    def setup_method(self) -> None:
        """Gives each test a clock of its own."""
        self.clock = SettableClock()

    async def open(self) -> StateStore:
        """An empty store, not started, that runs by `self.clock`."""
        raise NotImplementedError

    async def reopen(self, store: StateStore) -> StateStore:
        """Stops `store` and returns another one, started, on what it keeps.

        A store that keeps nothing by design (the test profile) is returned as it is.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StateStore]:
        """A started store, stopped afterwards."""
        store = await self.open()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def made(self, store: StateStore, number: int, tenant: str = "acme") -> Lifetime:
        """A lifetime with its first entry recorded."""
        new = lifetime(number, tenant)
        found, created = await store.create_lifetime(new, started(new))
        expect(created, "a new lifetime is created")
        return found

    async def whole_log(self, store: StateStore, of: Lifetime) -> list[LogEntry]:
        """The log of a lifetime, read in pages, with its seqs checked."""
        log: list[LogEntry] = []
        while page := await store.read_log(of.tenant_id, of.lifetime_id, len(log), 700):
            log += page
        equal([entry.seq for entry in log], list(range(1, len(log) + 1)), "seqs count from 1 without gaps")
        expect(all(a.at <= b.at for a, b in pairwise(log)), "`at` never decreases in a lifetime")
        return log

    async def test_entries_come_back_as_they_were(self) -> None:
        """Byte for byte, a newer contract's extra fields included."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            entries: list[Entry] = [
                execution(life, 1, extra={"from_the_future": [1, {"a": None}], "größe": 2.5}),
                Event("e1", "signalled", {"name": "paid", "payload": b"\x00\xff", "deep": [[1], {"k": "v"}]}),
            ]
            answer = (await store.append([append(life, *entries)]))[0]
            equal((answer.seqs, answer.error), ((2, 3), None), "entries get the next seqs")
            log = await self.whole_log(store, life)
            equal(
                [encode_entry(e.entry) for e in log[1:]], [encode_entry(e) for e in entries], "entries are kept as is"
            )
            equal({e.at for e in log[1:]}, {answer.at}, "`at` of the answer is what was recorded")
            equal(answer.at, self.clock.now(), "`at` is the time of the injected clock")
            some = await store.read_entries(life.tenant_id, life.lifetime_id, [3, 1])
            equal([e.seq for e in some], [3, 1], "read_entries answers in the order asked")
            with refused(StoreCorrupt, "an entry that is not there is StoreCorrupt"):
                await store.read_entries(life.tenant_id, life.lifetime_id, [1, 99])
            equal(await store.read_log("acme", life.lifetime_id, 3), [], "after the end there is nothing")
            equal(await store.read_log("acme", lifetime(99).lifetime_id), [], "an unknown lifetime has no log")

    async def test_a_duplicate_takes_no_seq(self) -> None:
        """In one Append, in one batch, in a later one: dropped, and the others still count."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            a, b, c, d = (execution(life, n) for n in range(4))
            first = await store.append([append(life, a, b, a), append(life, b, c)])
            equal([x.seqs for x in first], [(2, 3, None), (None, 4)], "a duplicate has no seq, the next one no gap")
            again = await store.append([append(life, a, b, c, d), append(life)])
            equal([x.seqs for x in again], [(None, None, None, 5), ()], "known entries are dropped, new ones count")
            equal(len(await self.whole_log(store, life)), 5, "every entry is there once")

    async def test_a_duplicate_with_other_bytes_is_told(self) -> None:
        """The first entry stands; whoever offered another one under its id learns which of his it was."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        a, b, c = (execution(life, n) for n in range(3))
        other_a, other_c = execution(life, 0, text="another"), execution(life, 2, text="another")
        answers = await store.append(
            [append(life, a, b), append(life, b, other_a, c), append(life, a, b), append(life, other_c, other_c)]
        )
        equal([x.differs for x in answers], [(), (1,), (), (0, 1)], "differing duplicates, by their index")
        equal([x.seqs for x in answers[1:]], [(None, None, 4), (None, None), (None, None)], "they are duplicates still")
        store = await self.reopen(store)
        try:
            (again,) = await store.append([append(life, other_a, b, c)])
            equal(again.differs, (0,), "also after a restart")
            recorded = [encode_entry(e.entry) for e in await self.whole_log(store, life)]
            equal(recorded[1:], [encode_entry(e) for e in (a, b, c)], "what was recorded first stands")
        finally:
            await store.stop()

    async def test_the_last_seq_is_told(self) -> None:
        """By every answer about a lifetime that there is, whatever became of the Append."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            bad = Event("bad", "signalled", {"cannot be encoded": object()})
            answers = await store.append(
                [
                    append(life, execution(life, 1), execution(life, 2)),
                    append(life, execution(life, 1)),
                    append(life),
                    append(life, bad),
                    append(life, execution(life, 3), expect=1),
                    append(lifetime(77), execution(life, 1)),
                    append(lifetime(1, "umbrella"), execution(life, 1)),
                ]
            )
            equal([x.last_seq for x in answers], [3, 3, 3, 3, 3, 0, 0], "0 is said of an unknown lifetime alone")

    async def test_an_expectation_holds_or_nothing_is_done(self) -> None:
        """Compare-and-set on the last seq: no entry and no projection of a stale Append, and all of its neighbours'."""
        async with self.opened() as store:
            life, other = await self.made(store, 1), await self.made(store, 2)
            rows: dict[str, Any] = {"questions_opened": (question(life, "q"),), "timers_set": (timer(life, "t", 1),)}
            answers = await store.append(
                [
                    append(life, execution(life, 1), expect=0, status="PAUSED", **rows),
                    append(other, execution(other, 1), expect=1),
                    append(life, expect=7, status="PAUSED", **rows),
                    append(life, execution(life, 2), expect=1),
                ]
            )
            equal([x.stale for x in answers], [True, False, True, False], "those that expected another seq are stale")
            equal([x.error for x in answers], [None] * 4, "to be stale is no error")
            equal([x.seqs for x in answers], [(None,), (2,), (), (2,)], "what is stale has no seqs, and left no gap")
            equal(
                [e.entry.entry_id for e in await self.whole_log(store, life)][1:], [execution(life, 2).exec_id], "log"
            )
            equal((await store.get_lifetime("acme", life.lifetime_id))[0].status, "RUNNING", "no status was set")
            equal((await store.questions("acme"), await store.due_timers(9)), ([], ([], None)), "no row was added")
            known = append(life, execution(life, 2), execution(life, 3), expect=2, status="PAUSED")
            (answer,) = await store.append([known])
            equal(
                (answer.stale, answer.seqs), (False, (None, 3)), "a duplicate is dropped under an expectation as well"
            )
            equal((await store.append([known]))[0].stale, True, "sent again, it is stale: it was done")

    async def test_of_two_who_expect_the_same_one_wins(self) -> None:
        """In one batch, also beside duplicates; and of many at the same time."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(4)]
            for beside in ((), (append(lives[0], execution(lives[0], 0)),)):  # the second time it is a duplicate
                for life in lives:
                    (now,) = await store.append([append(life)])
                    rivals = [
                        append(life, execution(life, 100 * now.last_seq + n), expect=now.last_seq) for n in range(3)
                    ]
                    answers = (await store.append([*beside, *rivals]))[len(beside) :]
                    equal([x.stale for x in answers], [False, True, True], "the first of a batch wins")
                    equal({x.last_seq for x in answers}, {now.last_seq + 1}, "and the others learn how far it went")
                await store.append([append(lives[0], execution(lives[0], 0))])
            life, won = lives[1], set()

            async def attempt(n: int) -> None:
                for iteration in range(10_000 + 10 * n, 10_010 + 10 * n):
                    (now,) = await store.append([append(life)])
                    mine = execution(life, iteration)
                    if not (await store.append([append(life, mine, expect=now.last_seq)]))[0].stale:
                        won.add(mine.exec_id)

            before = len(await self.whole_log(store, life))
            await asyncio.gather(*(attempt(n) for n in range(20)))
            recorded = [e.entry.entry_id for e in (await self.whole_log(store, life))[before:]]
            expect(len(recorded) > 0, "somebody wins")
            equal(set(recorded), won, "each winner recorded his entry, and no loser any")

    async def test_the_same_id_in_two_lifetimes_is_no_duplicate(self) -> None:
        """Entry ids are unique in their lifetime only."""
        async with self.opened() as store:
            one, two = await self.made(store, 1), await self.made(store, 2)
            event = Event("same", "paused", {})
            answers = await store.append([append(one, event), append(two, event)])
            equal([x.seqs for x in answers], [(2,), (2,)], "each lifetime has its own ids and its own seqs")

    async def test_concurrent_appends_leave_no_gap(self) -> None:
        """Many submitters, many lifetimes, each entry sent twice."""
        async with self.opened() as store:
            lives = [await self.made(store, n) for n in range(8)]

            async def send(life: Lifetime, first: int) -> None:
                for n in range(first, first + 10):
                    await store.append([append(life, execution(life, n)), append(lives[0], execution(life, 1000 + n))])

            await asyncio.gather(*(send(life, first) for life in lives for first in (0, 10, 5, 0)))
            for life in lives[1:]:
                equal(len(await self.whole_log(store, life)), 21, "each entry is recorded once")
            equal(len(await self.whole_log(store, lives[0])), 1 + 20 + 8 * 20, "also where all write to one log")

    async def test_an_append_is_all_or_nothing_and_fails_no_neighbour(self) -> None:
        """An unknown lifetime, or an entry that cannot be kept, refuses its own Append only."""
        async with self.opened() as store:
            good, other = await self.made(store, 1), await self.made(store, 2)
            unknown = lifetime(77)
            bad = Event("bad", "signalled", {"cannot be encoded": object()})
            unreadable = Event("\ud800", "paused", {})
            answers = await store.append(
                [
                    append(good, execution(good, 1)),
                    append(unknown, execution(unknown, 1)),
                    append(other, execution(other, 1), bad),
                    append(other, execution(other, 2), unreadable, status="PAUSED"),
                    append(good, execution(good, 2)),
                ]
            )
            equal(
                [a.error is None for a in answers], [True, False, False, False, True], "only the bad ones are refused"
            )
            expect(unknown.lifetime_id in (answers[1].error or ""), "the error names the lifetime")
            equal(answers[2].seqs, (None, None), "a refused Append has no seq")
            equal(len(await self.whole_log(store, good)), 3, "the neighbours are recorded")
            equal(len(await self.whole_log(store, other)), 1, "nothing of a refused Append is")
            equal((await store.get_lifetime("acme", other.lifetime_id))[0].status, "RUNNING", "nor its projection")
            after = await store.append([append(other, execution(other, 1))])
            equal(after[0].seqs, (2,), "and it left no gap")

    async def test_an_append_for_another_tenants_lifetime_is_refused(self) -> None:
        """As if it were unknown."""
        async with self.opened() as store:
            mine = await self.made(store, 1, "acme")
            forged = append(lifetime(1, "umbrella"), execution(mine, 1), status="ABORTED")
            answer = (await store.append([forged]))[0]
            expect(answer.error is not None, "a lifetime takes entries of its tenant only")
            equal(len(await self.whole_log(store, mine)), 1, "nothing was recorded")
            equal((await store.get_lifetime("acme", mine.lifetime_id))[0].status, "RUNNING", "nothing was changed")

    async def test_at_never_decreases(self) -> None:
        """Also when the wall clock steps back, and after a restart."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        self.clock.advance(10)
        high = (await store.append([append(life, execution(life, 1))]))[0].at
        self.clock.advance(-3600)
        equal((await store.append([append(life, execution(life, 2))]))[0].at, high, "a step back is not recorded")
        store = await self.reopen(store)
        try:
            equal((await store.append([append(life, execution(life, 3))]))[0].at, high, "nor after a restart")
            await self.whole_log(store, life)
        finally:
            await store.stop()

    async def test_history_keeps_its_times(self) -> None:
        """A lifetime that begins with history has it recorded at the times given; what comes later is never before."""
        store = await self.open()
        await store.start()
        now = self.clock.now()
        times = (now - 90, now - 90, now - 20, now + 50)
        life = lifetime(1)
        for ahead in (0, 50):  # history that ends in the past; and by a clock that was ahead of this one
            life = lifetime(ahead)
            entries: list[Entry] = [
                Event("started", "started", {}),
                *(execution(life, n) for n in range(3 if ahead else 2)),
            ]
            history = replace(append(life, *entries, status="RUNNING"), ats=times[: len(entries)])
            found, created = await store.create_lifetime(life, history)
            equal(
                (created, found.status, found.last_seq), (True, "RUNNING", len(entries)), "it is created with all of it"
            )
            expect(found.updated_at >= now, "making it is what happened to it last")
            answer = (await store.append([replace(append(life, execution(life, 9)), ats=(now - 80,))]))[0]
            equal(
                answer.at, now + ahead, "only what begins a lifetime brings its times, and no entry is before another"
            )
            log = await self.whole_log(store, life)
            equal([e.at for e in log], [*times[: len(entries)], now + ahead], "each entry is recorded at its time")
        store = await self.reopen(store)
        try:
            equal((await store.append([append(life, execution(life, 10))]))[0].at, now + 50, "nor after a restart")
        finally:
            await store.stop()

    async def test_history_may_have_its_end(self) -> None:
        """A lifetime that is over may be brought from elsewhere: all of it is there, and it ended when it ended."""
        async with self.opened() as store:
            now = self.clock.now()
            times = (now - 90, now - 50, now - 20)
            for number, row in enumerate(
                (lifetime(1), replace(lifetime(2), status="COMPLETED", finished_at=times[-1]))
            ):
                entries = (Event("started", "started", {}), execution(row, 1), Event("end", "completed", {}))
                history = replace(append(row, *entries, status="COMPLETED"), ats=times)
                found, created = await store.create_lifetime(row, history)
                equal((created, found.status, found.last_seq), (True, "COMPLETED", 3), f"{number}: it is over")
                equal(found.finished_at, times[-1], f"{number}: since it ended, not since it was brought")
                equal([e.at for e in await self.whole_log(store, row)], list(times), f"{number}: its log is there")
                answer = (await store.append([append(row, execution(row, 9))]))[0]
                expect(answer.stale, f"{number}: nothing is recorded after the end")

    async def test_history_that_does_not_fit_is_refused(self) -> None:
        """A time for each entry, none before the one before it; and an empty log to begin with."""
        async with self.opened() as store:
            life = lifetime(1)
            two = append(life, Event("started", "started", {}), execution(life, 1))
            for wrong in (replace(two, ats=(1,)), replace(two, ats=(2, 1)), replace(two, expect=3)):
                with refused(ValueError, "history that contradicts itself"):
                    await store.create_lifetime(life, wrong)
            equal(await store.get_lifetime("acme", life.lifetime_id), [], "nothing was made")

    async def test_what_was_acknowledged_is_there_after_a_restart(self) -> None:
        """The log, the read model, graphs, timers; and seqs go on where they were."""
        store = await self.open()
        await store.start()
        lives = [await self.made(store, n) for n in range(5)]
        for n in range(20):
            await store.append([append(life, execution(life, n)) for life in lives])
        before = [await self.whole_log(store, life) for life in lives]
        listed = await store.open_lifetimes()
        store = await self.reopen(store)
        try:
            equal([await self.whole_log(store, life) for life in lives], before, "every log is as it was")
            equal(await store.open_lifetimes(), listed, "so is the read model")
            answer = await store.append([append(lives[0], execution(lives[0], 3), execution(lives[0], 99))])
            equal(answer[0].seqs, (None, 22), "seqs go on, and duplicates are known")
        finally:
            await store.stop()

    async def test_ten_thousand_entries_in_one_append(self) -> None:
        """A fan-out's worth, and once more as duplicates."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            big = append(life, *(execution(life, n) for n in range(10_000)))
            answer = (await store.append([big]))[0]
            equal(answer.seqs, tuple(range(2, 10_002)), "all of them get their seqs, in order")
            answer = (await store.append([big]))[0]
            equal(set(answer.seqs), {None}, "the second time all are duplicates")
            equal(len(await self.whole_log(store, life)), 10_001, "every entry is there once")

    async def test_a_cancelled_submitter_leaves_a_whole_append(self) -> None:
        """Whoever gives up waiting does not know; the log has all of it or nothing."""
        async with self.opened() as store:
            life = await self.made(store, 1)
            sending = asyncio.ensure_future(store.append([append(life, *(execution(life, n) for n in range(50)))]))
            await turn()
            sending.cancel()
            await asyncio.wait([sending])
            await store.append([append(life, Event("after", "paused", {}))])
            expect(len(await self.whole_log(store, life)) in (2, 52), "all of the Append or nothing of it")

    async def test_stop_finishes_what_was_submitted(self) -> None:
        """Then nothing more is taken; stopping twice is fine."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        sent = []
        for wave in (0, 10, 20):  # some are under way when the next ones come, and some have not begun at the stop
            batches = [[append(life, execution(life, n))] for n in range(wave, wave + 10)]
            sent += [asyncio.ensure_future(store.append(batch)) for batch in batches]
            await turn()
        await store.stop()
        answers = await asyncio.gather(*sent)
        equal(sorted(a[0].seqs[0] or 0 for a in answers), list(range(2, 32)), "everything submitted was answered")
        await store.stop()
        with refused(StorageError, "a stopped store takes nothing"):
            await store.append([append(life, execution(life, 99))])
