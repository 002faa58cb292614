"""Several processes on one bus, one store and one key-value store: who has what, and what a frozen worker can do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.orchestrator.site import Site, play
from tickwork import END, Graph, PlanInput, RetryPolicy, human, plan, task
from tickwork.adapters.kv.memory import MemoryKV
from tickwork.executor.claims import Claims
from tickwork.model.claims import LEASE, claim_key, claim_value
from tickwork.model.lifetime import Projection
from tickwork.model.messages import Append, nudge
from tickwork.model.records import Event, Execution
from tickwork.orchestrator.leases import Leases
from tickwork.ports import BusMessage
from tickwork.testing.virtual import VirtualClock


def test_a_frozen_workers_late_result_is_kept_and_changes_nothing() -> None:
    calls: list[int] = []

    @task
    async def slow() -> int:
        calls.append(len(calls))
        mine = len(calls)
        await asyncio.sleep(500 if mine == 1 else 1)
        return mine

    async def scene(at: Site) -> None:
        frozen, _ = await at.worker()
        lifetime = await at.service.start("slow")
        await at.clock.sleep(1)
        frozen.alive.clear()
        await at.worker()
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == 2
        assert LEASE <= at.clock.monotonic() < 3 * LEASE
        frozen.alive.set()
        await at.clock.sleep(1000)
        entries = await at.entries(lifetime.lifetime_id)
        first, second = [e for e in entries if isinstance(e, Execution)]
        assert (first.status, first.attempt, first.error and first.error.type) == ("TIMED_OUT", 1, "LeaseExpired")
        assert (second.status, second.attempt) == ("SUCCEEDED", 2)
        (late,) = [e for e in entries if isinstance(e, Event) and e.type == "superseded"]
        assert late.data["exec_id"] == first.exec_id
        assert entries[-1] is late
        assert (await at.service.result(lifetime.lifetime_id)).result == 2
        assert at.planes.counts["superseded"] == 1
        assert calls == [0, 1]

    play(Graph("slow").start(slow).final(slow).bind(), scene)


@pytest.mark.parametrize("died_after", [0.5, 3.0, 9.9, 10.1, 29.0, 100.0])
@pytest.mark.parametrize("beside", [False, True])
def test_what_a_dead_worker_had_is_begun_again_within_a_lease_and_five_seconds(died_after: float, beside: bool) -> None:
    begun: list[float] = []

    @task
    async def slow() -> str:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 1:
            await asyncio.Event().wait()
        return "done"

    @task
    async def step() -> None:
        await asyncio.sleep(1)

    @plan
    def split() -> list[str]:
        return ["slow", "step"] if beside else ["slow"]

    @plan
    def again(plan_input: PlanInput) -> str:
        return "step" if plan_input.iteration < 200 and len(begun) < 2 else END

    async def scene(at: Site) -> None:
        lifetime = await at.service.start("two", None)
        clock, _ = await at.worker()
        while not begun:
            await at.clock.sleep(0.1)
        await at.clock.sleep(died_after)
        clock.alive.clear()
        died = at.clock.monotonic()
        await at.worker()
        while len(begun) < 2:
            await at.clock.sleep(0.1)
        assert begun[1] - died <= LEASE + 5
        await at.service.wait(lifetime.lifetime_id)

    graph = Graph("two").start(split).parallel(split, slow, step)
    graph.edge(step, again).edge(again, step).final(slow, again)
    play(graph.bind(), scene)


def test_a_permit_that_comes_when_the_worker_was_given_up_is_not_used() -> None:
    calls: list[str] = []
    held: list[tuple[str, Sequence[BusMessage]]] = []

    @task(effect="at_most_once")
    async def pay() -> str:
        calls.append("paid")
        return "paid"

    async def scene(at: Site) -> None:
        publish = at.bus.publish

        async def hold_receipts(topic: str, batch: Sequence[BusMessage]) -> None:
            if topic.startswith("receipts"):
                held.append((topic, batch))
            else:
                await publish(topic, batch)

        frozen, _ = await at.worker()
        at.bus.publish = hold_receipts  # type: ignore[method-assign]  # a receipt that is long on its way
        lifetime = await at.service.start("pay")
        await at.clock.sleep(1)
        frozen.alive.clear()
        while (await at.service.get(lifetime.lifetime_id)).status != "WAITING":
            await at.clock.sleep(1)
        frozen.alive.set()
        at.bus.publish = publish  # type: ignore[method-assign]  # it arrives
        for topic, batch in held:
            await publish(topic, batch)
        await at.clock.sleep(LEASE)
        assert held
        assert not calls
        await at.service.reconcile(lifetime.lifetime_id, retry=True)
        await at.service.wait(lifetime.lifetime_id)
        assert calls == ["paid"]

    play(Graph("pay").start(pay).final(pay).bind(), scene)


def test_a_status_that_got_lost_is_said_again_to_who_finds_the_lifetime_running() -> None:
    ask = human("ask", prompt="Go on?")

    async def scene(at: Site) -> None:
        lifetime = await at.service.start("asking")
        await at.clock.sleep(1)
        await at.service.pause(lifetime.lifetime_id)
        await at.clock.sleep(1)
        paused = await at.service.get(lifetime.lifetime_id)
        assert paused.status == "PAUSED"
        lost = Append(lifetime.tenant_id, lifetime.lifetime_id, (), Projection("RUNNING"))
        await at.store.append([lost])
        assert (await at.service.get(lifetime.lifetime_id)).status == "RUNNING"
        await at.planes.publish([nudge(lifetime.tenant_id, lifetime.lifetime_id, paused.last_seq, at.clock.now())])
        await at.clock.sleep(1)
        assert (await at.service.get(lifetime.lifetime_id)).status == "PAUSED"

    play(Graph("asking").start(ask).final(ask).bind(), scene)


def test_long_work_of_a_living_worker_is_left_alone_also_when_the_store_of_claims_forgets() -> None:
    calls: list[int] = []

    @task(retry=RetryPolicy(max_attempts=1))
    async def long() -> str:
        calls.append(1)
        await asyncio.sleep(900)
        return "done"

    async def scene(at: Site) -> None:
        await at.worker()
        await at.worker()
        lifetime = await at.service.start("long")

        async def forget() -> None:
            while True:
                await at.clock.sleep(47)
                await at.kv.stop()

        at.tasks.append(asyncio.create_task(forget()))
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "done"
        assert calls == [1]
        assert len([e for e in await at.entries(lifetime.lifetime_id) if isinstance(e, Execution)]) == 1

    play(Graph("long").start(long).final(long).bind(), scene)


def test_an_input_that_got_lost_is_sent_again_under_the_same_id() -> None:
    @task
    async def work() -> str:
        return "done"

    async def scene(at: Site) -> None:
        lifetime = await at.service.start("work")  # no worker is there, and no group yet: the bus drops it
        await at.clock.sleep(1)
        await at.worker()
        await at.service.wait(lifetime.lifetime_id)
        (done,) = [e for e in await at.entries(lifetime.lifetime_id) if isinstance(e, Execution)]
        assert (done.status, done.attempt) == ("SUCCEEDED", 1)
        assert at.clock.monotonic() < 2 * LEASE

    play(Graph("work").start(work).final(work).bind(), scene)


async def test_work_is_done_by_one_worker_and_once() -> None:
    clock = VirtualClock(asyncio.get_running_loop())
    kv = MemoryKV(clock)
    one, other = Claims(kv, clock, "one", LEASE), Claims(kv, clock, "other", LEASE)
    assert [await one.take("x"), await one.take("x"), await other.take("x")] == [True, True, False]
    await one.release(["x"])
    assert [await other.take("x"), await one.take("x")] == [True, False]


def test_a_record_that_got_lost_is_published_again_and_user_code_is_not_called_again() -> None:
    calls: list[int] = []

    @task
    async def work() -> str:
        calls.append(1)
        return "done"

    async def scene(at: Site) -> None:
        await at.clock.sleep(1)
        at.tasks.pop(0).cancel()  # no Data Plane takes what the worker publishes; its group forgets it
        await at.worker()
        lifetime = await at.service.start("work")
        await at.clock.sleep(1)
        lost = await at.bus.subscribe(["data-plane.*"], "data-plane")
        await lost.ack(await lost.receive(10))
        await lost.close()
        await at.planes.start()
        at.tasks.append(asyncio.create_task(at.planes.run()))
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "done"
        assert calls == [1]

    play(Graph("work").start(work).final(work).bind(), scene)


def test_a_call_that_may_have_happened_is_unknown_until_somebody_says() -> None:
    calls: list[int] = []

    @task(effect="at_most_once")
    async def pay() -> str:
        calls.append(1)
        await asyncio.sleep(10_000)
        return "late"

    async def scene(at: Site) -> None:
        frozen, _ = await at.worker()
        lifetime = await at.service.start("pay")
        await at.clock.sleep(1)
        frozen.alive.clear()
        await at.worker()
        while not (questions := await at.service.questions(on=("unknown",))):
            await at.clock.sleep(1)
        assert (await at.service.get(lifetime.lifetime_id)).status == "WAITING"
        assert "may have run and nobody knows" in questions[0].prompt
        await at.service.reconcile(lifetime.lifetime_id, result="paid", by="ann")
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "paid"
        assert calls == [1]
        frozen.alive.set()
        await at.clock.sleep(20_000)
        entries = await at.entries(lifetime.lifetime_id)
        assert [e.executor for e in entries if isinstance(e, Execution)] == ["reconcile:ann"]
        assert [e.type for e in entries if isinstance(e, Event)][-1] == "superseded"
        assert calls == [1]

    play(Graph("pay").start(pay).final(pay).bind(), scene)


def test_a_hook_settles_it_without_anybody() -> None:
    said = iter(["did not happen", "paid"])
    calls: list[str] = []

    async def look() -> str:
        answer = next(said)
        if answer != "paid":
            from tickwork import RetryableError

            raise RetryableError(answer)
        return answer

    @task(effect="at_most_once", reconcile=look)
    async def pay(ctx: Any) -> str:
        calls.append(ctx.idempotency_key)
        await asyncio.sleep(10_000)
        return "late"

    async def scene(at: Site) -> None:
        first, _ = await at.worker()
        lifetime = await at.service.start("pay")
        await at.clock.sleep(1)
        first.alive.clear()
        second, _ = await at.worker()
        while len(calls) < 2:
            await at.clock.sleep(1)
        second.alive.clear()
        await at.worker()
        await at.service.wait(lifetime.lifetime_id)
        assert (await at.service.result(lifetime.lifetime_id)).result == "paid"
        assert len(calls) == 2
        assert calls[0] == calls[1]
        kinds = [e.type if isinstance(e, Event) else e.status for e in await at.entries(lifetime.lifetime_id)]
        assert kinds[1:] == ["intent", "unknown", "reconciled", "intent", "unknown", "SUCCEEDED", "completed"]

    play(Graph("pay").start(pay).final(pay).bind(), scene)


async def test_a_claim_is_judged_by_whether_it_changes() -> None:
    class Hand(VirtualClock):
        time = 0.0

        def monotonic(self) -> float:
            return self.time

    clock = Hand(asyncio.get_running_loop())
    kv = MemoryKV(VirtualClock(asyncio.get_running_loop()))
    leases = Leases(kv, clock, 30)

    async def look_at(time: float) -> str:
        clock.time = time
        leases.begin()
        return await leases.look("x")

    assert await look_at(0) == "unclear"
    assert await look_at(10) == "unclear"
    assert await look_at(15) == "absent"
    await kv.put(claim_key("x"), claim_value("worker", 1))
    assert [await look_at(t) for t in (16, 26, 36, 45.9)] == ["unclear", "alive", "alive", "alive"]
    assert await look_at(48) == "lost"
    await kv.put(claim_key("x"), claim_value("worker", 2))
    assert await look_at(56) == "alive"
    assert await look_at(200) == "unclear", "who was away for long begins anew: perhaps everybody was"
    assert [await look_at(t) for t in (210, 220, 230)] == ["alive", "alive", "lost"]
