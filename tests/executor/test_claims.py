"""Claims: taken, renewed and given up together, also through a store that takes its time or refuses now and then."""

from __future__ import annotations

import asyncio

from tests.executor.rig import rig
from tickwork.adapters.kv.memory import MemoryKV
from tickwork.errors import StorageError
from tickwork.executor.claims import Claims
from tickwork.model.claims import AT_ONCE, LEASE, claim_key, claim_value, for_each
from tickwork.sdk.nodes import task
from tickwork.testing.virtual import VirtualClock, run_virtual


class FarKV(MemoryKV):
    """A store behind a network: each call takes a while, and some are refused."""

    distance = 0.01
    refuses = 0
    asked = most = 0

    async def _way(self) -> None:
        self.asked += 1
        self.most = max(self.most, self.asked)
        await self._clock.sleep(self.distance)
        self.asked -= 1

    async def get(self, key: str) -> bytes | None:
        await self._way()
        return await super().get(key)

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        await self._way()
        if self.refuses:
            self.refuses -= 1
            raise StorageError("not now")
        if if_absent and await MemoryKV.get(self, key) is not None:
            return False
        return await super().put(key, value, ttl)

    async def delete(self, key: str) -> None:
        await self._way()
        await super().delete(key)


@task
async def echo(value: int) -> int:
    return value


def test_a_batch_is_claimed_and_released_in_the_time_of_a_few_round_trips() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        kv = FarKV(clock)
        async with rig(echo, clock=clock, kv=kv) as r:
            await r.send(*[r.message("echo", i, iteration=i) for i in range(640)])
            records = await r.receive(640)
            assert {record.status for record in records} == {"SUCCEEDED"}
            while r.unacknowledged():
                await clock.sleep(0.01)
            assert clock.monotonic() < 640 / AT_ONCE * kv.distance * 4, "one after the other would take 640 of them"
            assert 1 < kv.most <= 2 * AT_ONCE

    run_virtual(main())


def test_an_input_that_comes_twice_in_one_batch_is_one_attempt() -> None:
    calls: list[int] = []

    @task
    async def count(value: int) -> int:
        calls.append(value)
        return value

    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        async with rig(count, clock=clock, kv=FarKV(clock)) as r:
            inputs = [r.message("count", i, iteration=i) for i in range(5)]
            await r.send(*inputs, *inputs, *inputs)
            await r.receive(5)
            while r.unacknowledged():
                await clock.sleep(0.01)
            assert sorted(calls) == list(range(5))
            assert r.executor.counts["taken"] == 5

    run_virtual(main())


def test_all_deliveries_of_work_that_another_worker_has_are_done() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        kv = FarKV(clock)
        async with rig(echo, clock=clock, kv=kv) as r:
            message = r.message("echo", 1)
            await kv.put(claim_key(message.exec_id), claim_value("another", 3))
            await r.send(message, message)
            await clock.sleep(1)
            assert r.unacknowledged() == 0
            metrics = r.executor.metrics()
            assert (metrics["taken"], metrics["refused"], metrics["held"]) == (0, 1, 0)

    run_virtual(main())


def test_a_lifetime_that_is_cancelled_while_its_input_is_claimed_is_not_called() -> None:
    calls: list[int] = []

    @task
    async def count(value: int) -> int:
        calls.append(value)
        return value

    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        kv = FarKV(clock)
        kv.distance = 5.0
        async with rig(count, clock=clock, kv=kv) as r:
            await r.send(r.message("count", 1))
            await clock.sleep(1)
            await r.cancel()
            (record,) = await r.receive()
            assert record.status == "CANCELLED"
            assert calls == []

    run_virtual(main())


def test_one_refused_answer_costs_no_claim_its_beat() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        kv = FarKV(clock)
        claims = Claims(kv, clock, "worker", LEASE)
        ids = [str(number) for number in range(100)]
        for work_id in ids:
            assert await claims.take(work_id)
        kv.refuses = 30
        began = clock.monotonic()
        await claims.beat(frozenset(ids), ids)
        assert [await MemoryKV.get(kv, claim_key(work_id)) for work_id in ids] == [claim_value("worker", 1)] * 100
        assert clock.monotonic() - began < LEASE / 10

    run_virtual(main())


async def test_no_more_than_some_are_under_way_at_once_and_all_come_to_their_turn() -> None:
    busy: set[int] = set()
    most, done = 0, []

    async def do(number: int) -> None:
        nonlocal most
        busy.add(number)
        most = max(most, len(busy))
        await asyncio.sleep(0)
        busy.discard(number)
        done.append(number)

    for count in (0, 1, 2, 1000):
        done.clear()
        await for_each(range(count), do)
        assert sorted(done) == list(range(count))
    assert most == AT_ONCE
