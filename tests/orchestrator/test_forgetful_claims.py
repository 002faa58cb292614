"""A store of claims that forgets or is away says nothing about workers: the living go on, the dead are found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.orchestrator.site import IllKV, Site, play
from tickwork import Graph, task
from tickwork.executor import claims as claiming
from tickwork.model import messages
from tickwork.model.claims import KEPT, LEASE, claim_key, claim_value
from tickwork.model.records import Event, Execution
from tickwork.orchestrator.leases import UNHEARD, Leases
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.virtual import VirtualClock

calls: list[str] = []


@pytest.fixture(autouse=True)
def nobody_called() -> None:
    calls.clear()


@task(effect="at_most_once")
async def pay() -> str:
    calls.append("pay")
    await asyncio.sleep(900)
    return "paid"


@task
async def work() -> str:
    """Hangs when it is called first."""
    calls.append("work")
    await asyncio.sleep(100_000 if len(calls) == 1 else 1)
    return "done"


def graph(node: Any) -> BoundGraph:
    return Graph("one").start(node).final(node).bind()


async def flushed(at: Site) -> None:
    at.tasks.append(asyncio.create_task(at.kv.flush_every(1)))


async def flushed_now_and_then(at: Site) -> None:
    at.tasks.append(asyncio.create_task(at.kv.flush_every(47)))


async def away(at: Site) -> None:
    at.kv.away = True


async def away_for_a_while(at: Site) -> None:
    async def by_turns() -> None:
        while True:
            at.kv.away = not at.kv.away
            await at.clock.sleep(3 * LEASE)

    at.tasks.append(asyncio.create_task(by_turns()))


async def full_for_a_while(at: Site) -> None:
    async def by_turns() -> None:
        while True:
            at.kv.refuses_writes = not at.kv.refuses_writes
            await at.clock.sleep(2 * LEASE)

    at.tasks.append(asyncio.create_task(by_turns()))


ILLS = [flushed, flushed_now_and_then, away, away_for_a_while, full_for_a_while]


@pytest.mark.parametrize("befall", ILLS)
def test_a_call_that_must_not_be_made_twice_is_not_given_up_while_it_runs(befall: Callable[..., object]) -> None:
    async def scene(at: Site) -> None:
        await at.worker()
        await at.worker()
        lifetime = await at.service.start("one")
        await at.clock.sleep(1)
        await befall(at)  # type: ignore[misc]  # each is a coroutine function
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "paid"
        assert calls == ["pay"]
        kinds = [e.type for e in await at.entries(lifetime.lifetime_id) if isinstance(e, Event)]
        assert kinds == ["started", "intent", "completed"]
        assert at.clock.monotonic() < 1000

    play(graph(pay), scene)


@pytest.mark.parametrize("befall", [flushed, away])
def test_work_of_a_dead_worker_is_taken_up_although_no_claim_can_be_seen(befall: Callable[..., object]) -> None:
    async def scene(at: Site) -> None:
        _, first = await at.worker()
        lifetime = await at.service.start("one")
        await at.clock.sleep(1)
        first.cancel()
        await at.worker()  # is given the input at once, and leaves it to the claim that the dead one has
        await at.clock.sleep(5)
        assert calls == ["work"]
        await befall(at)  # type: ignore[misc]  # each is a coroutine function
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "done"
        assert calls == ["work", "work"]
        assert at.clock.monotonic() < (UNHEARD + 2) * LEASE

    play(graph(work), scene)


def test_work_that_takes_long_is_called_a_few_times_at_most_while_the_store_is_away() -> None:
    @task
    async def long() -> str:
        calls.append("long")
        await asyncio.sleep(3600)
        return "done"

    async def scene(at: Site) -> None:
        await at.worker()
        lifetime = await at.service.start("one")
        await at.clock.sleep(1)
        await away(at)
        for _ in range(3):
            await at.worker()
        await at.service.wait(lifetime.lifetime_id)
        assert len(calls) <= 4
        assert at.clock.monotonic() < 3610

    play(graph(long), scene)


@pytest.mark.parametrize("befall", [flushed, away, full_for_a_while])
def test_a_call_that_a_dead_worker_may_have_made_is_found_once_the_store_is_well(befall: Callable[..., object]) -> None:
    async def scene(at: Site) -> None:
        frozen, _ = await at.worker()
        lifetime = await at.service.start("one")
        await at.clock.sleep(1)
        frozen.alive.clear()
        others = len(at.tasks)
        await befall(at)  # type: ignore[misc]  # each is a coroutine function
        await at.clock.sleep(20 * LEASE)
        if befall is not full_for_a_while:
            assert (await at.service.get(lifetime.lifetime_id)).status == "RUNNING", "nothing says that it is over"
        for task_ in at.tasks[others:]:
            task_.cancel()
        at.kv.away = at.kv.refuses_writes = False
        began = at.clock.monotonic()
        while not await at.service.questions(on=("unknown",)):
            await at.clock.sleep(1)
        assert at.clock.monotonic() - began < (KEPT + 1) * LEASE

    @task(effect="at_most_once")
    async def hang() -> str:
        calls.append("hang")
        await asyncio.sleep(100_000)
        return "never"

    play(graph(hang), scene)


def test_a_call_whose_claim_nobody_ever_saw_is_found() -> None:
    async def scene(at: Site) -> None:
        _, worker = await at.worker()
        lifetime = await at.service.start("one")
        await at.clock.sleep(1)
        worker.cancel()
        await at.kv.stop()
        await at.worker()  # gets the input, and is refused the intent
        while not await at.service.questions(on=("unknown",)):
            await at.clock.sleep(1)
        assert at.clock.monotonic() < (KEPT + 1) * LEASE
        assert (await at.service.get(lifetime.lifetime_id)).status == "WAITING"

    play(graph(pay), scene)


def test_an_input_that_comes_again_after_its_record_is_forgotten_does_not_repeat_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claiming, "RECORDS", 0)

    @task(effect="at_most_once")
    async def once() -> str:
        calls.append("once")
        return "done"

    async def scene(at: Site) -> None:
        await at.worker()
        copies = await at.bus.subscribe(["task-inputs.*"], "copies")
        lifetime = await at.service.start("one")
        await at.service.wait(lifetime.lifetime_id)
        (delivery,) = await copies.receive(10)
        await at.bus.publish(delivery.topic, [delivery.message])
        await at.clock.sleep(LEASE)
        assert messages.decode_input(delivery.message.value).node == "once"
        assert calls == ["once"]
        done = [e for e in await at.entries(lifetime.lifetime_id) if isinstance(e, Execution)]
        assert [e.status for e in done] == ["SUCCEEDED"]

    play(graph(once), scene)


class Hand(VirtualClock):
    """A clock that a test sets."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> int:
        return round(self.time * 1_000_000)


async def test_only_what_was_seen_of_a_store_that_keeps_counts() -> None:
    clock = Hand(asyncio.get_running_loop())
    kv = IllKV(VirtualClock(asyncio.get_running_loop()))
    leases = Leases(kv, clock, 30)

    async def look_until(time: float, *, called: bool = True) -> set[str]:
        found: set[str] = set()
        while clock.time < time:
            clock.time += 5
            found |= set((await leases.looks({"x": called})).values())
        return found

    await kv.put(claim_key("x"), claim_value("worker", 1))
    assert await look_until(25) <= {"unclear", "alive"}
    kv.away = True
    assert await look_until(100) == {"unclear"}, "and three leases are over"
    kv.away = False
    assert await look_until(125) == {"alive"}, "who could not be heard has a whole lease again"
    assert await look_until(140) == {"alive", "lost"}
    await kv.stop()
    assert await look_until(250) == {"unclear"}, "it forgot: what may have been called waits longer"
    assert await look_until(280) == {"unclear", "lost"}
    for _ in range(50):
        await kv.stop()
        assert await look_until(clock.time + 5) == {"unclear"}
    assert "absent" in await look_until(clock.time + 20, called=False)


async def test_two_watchers_agree_on_the_epoch_and_both_see_that_the_store_forgot() -> None:
    clock = Hand(asyncio.get_running_loop())
    kv = IllKV(VirtualClock(asyncio.get_running_loop()))
    one, other = Leases(kv, clock, 30), Leases(kv, clock, 30)

    async def both(time: float) -> list[str]:
        found: list[str] = []
        while clock.time < time:
            clock.time += 5
            found[:] = [await watcher.look("x", called=True) for watcher in (one, other)]
        return found

    assert await both(115) == ["unclear"] * 2
    await kv.stop()
    assert await both(230) == ["unclear"] * 2
    assert await both(245) == ["lost"] * 2
