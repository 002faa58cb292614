"""The bus on Kafka when members come, go, die or are slow, when brokers restart, and when names or messages are odd."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.adapters import servers
from tests.adapters.test_kafka_bus import kafka_url
from tickwork.adapters.bus.kafka import KafkaBus, inbox, member, names, progress, turns
from tickwork.clock import SystemClock
from tickwork.errors import StorageError, UsageError
from tickwork.ports import BusMessage, Delivery, Subscription

pytestmark = [pytest.mark.servers, pytest.mark.slow]

TOPIC = "data-plane.acme"
CHILD = Path(__file__).with_name("kafka_child.py")
PATIENCE = 25


@asynccontextmanager
async def running(url: str) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(url, SystemClock())
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


class Hand(SystemClock):
    """A clock that is set by hand."""

    time = 100.0

    def monotonic(self) -> float:
        return self.time


def said(key: str, *numbers: int) -> list[BusMessage]:
    return [BusMessage(key, b"%d" % n) for n in numbers]


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(d.message.value) for d in deliveries]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for happens at a broker, or in a thread
        await asyncio.sleep(0.01)


async def take(subscription: Subscription, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            got += await subscription.receive(count - len(got))
    return got


async def heard(subscription: Subscription, count: int) -> list[Delivery]:
    """What comes; [] also when the subscription was closed while its receiver worked."""
    try:
        return await subscription.receive(count)
    except StorageError as error:
        if "closed" not in str(error):
            raise
        return []


async def until_committed(url: str, partition: int, offset: int) -> str:
    """Waits until the group stands there: the note beside it."""
    bus = KafkaBus(url, SystemClock())
    address = bus._address
    reader = Consumer(address.consumer(f"{address.prefix}g"))
    where = TopicPartition(address.prefix + TOPIC, partition)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                place = (await asyncio.to_thread(reader.committed, [where], 5))[0]
                if place.offset == offset:
                    return place.metadata or ""
                await asyncio.sleep(0.02)
    finally:
        reader.close()


async def test_acknowledging_out_of_order_commits_the_low_watermark() -> None:
    url = kafka_url(partitions=1)
    async with running(url) as bus:
        one = await bus.subscribe([TOPIC], "g")
        await bus.publish(TOPIC, said("k", *range(10)))
        got = await take(one, 10)
        await one.ack([got[0], got[1], got[3], got[4], got[7]])
        assert await until_committed(url, 0, 2) == "tw1 10 3+2 7+1"
        await one.ack([got[2]])
        assert await until_committed(url, 0, 5) == "tw1 10 7+1"
        await one.close()
        two = await bus.subscribe([TOPIC], "g")
        await bus.publish(TOPIC, said("k", 10))
        again = await take(two, 5)
        assert numbers(again) == [5, 6, 8, 9, 10]
        assert [d.redelivered for d in again] == [True] * 4 + [False]
        await one.ack(got)
        assert bus.depth(TOPIC, "g") == 5
        await two.ack(again)
        assert bus.depth(TOPIC, "g") == 0
        await until_committed(url, 0, 11)


async def test_a_new_group_begins_with_its_first_subscription() -> None:
    async with running(kafka_url()) as bus:
        await bus.publish(TOPIC, [BusMessage(f"k{n}", b"1") for n in range(20)])
        founders = await asyncio.gather(*(bus.subscribe(["data-plane.*"], "g") for _ in range(2)))
        began = time.monotonic()
        await asyncio.gather(*(founder.close() for founder in founders))
        assert time.monotonic() - began < 4, "a member without a share leaves at once, too"
        await bus.publish(TOPIC, [BusMessage(f"k{n}", b"2") for n in range(20)])
        await bus.publish("data-plane.later", said("k", 2))
        heir = await bus.subscribe(["data-plane.*"], "g")
        await bus.publish(TOPIC, [BusMessage(f"k{n}", b"3") for n in range(20)])
        got = await take(heir, 41)
        assert sorted(numbers(got)) == [2] * 21 + [3] * 20


async def test_a_new_group_that_wants_what_was_before_gets_it_once() -> None:
    async with running(kafka_url()) as bus:
        await bus.publish(TOPIC, [BusMessage(f"k{n}", b"1") for n in range(20)])
        founders = await asyncio.gather(*(bus.subscribe(["data-plane.*"], "g", from_beginning=True) for _ in range(2)))
        await asyncio.gather(*(founder.close() for founder in founders))
        await bus.publish(TOPIC, [BusMessage(f"k{n}", b"2") for n in range(20)])
        heir = await bus.subscribe(["data-plane.*"], "g", from_beginning=True)
        got = await take(heir, 40)
        assert sorted(numbers(got)) == [1] * 20 + [2] * 20
        await heir.ack(got)
        await heir.close()
        last = await bus.subscribe(["data-plane.*"], "g", from_beginning=True)
        await bus.publish(TOPIC, said("k", 3))
        assert numbers(await take(last, 1)) == [3], "a group that has been there stands where it stood"


async def test_members_come_and_go_without_a_gap_or_a_double() -> None:
    keys, each = [f"k{i}" for i in range(24)], 40
    seen: dict[str, list[int]] = {key: [] for key in keys}
    done = asyncio.Event()

    async def work(subscription: Subscription) -> None:
        while batch := await heard(subscription, 20):
            for d in batch:
                seen[d.message.key].append(int(d.message.value))
            await asyncio.sleep(0.001)
            await subscription.ack(batch)
            if sum(map(len, seen.values())) >= len(keys) * each:
                done.set()

    async with running(kafka_url(partitions=6)) as bus, asyncio.TaskGroup() as group:

        async def one_more() -> tuple[Subscription, asyncio.Task[None]]:
            subscription = await bus.subscribe(["data-plane.*"], "g")
            return subscription, group.create_task(work(subscription))

        members = [await one_more()]
        for n in range(each):
            await bus.publish(TOPIC, [BusMessage(key, b"%d" % n) for key in keys])
            if n in (5, 10):
                members.append(await one_more())
            if n == 20:
                leaving, task = members.pop(0)
                # What it has in hand it finishes first: then nothing may come twice.
                leaving._inbox.give_up(list(leaving._inbox.parts), 0)
                await asyncio.sleep(0.05)
                await leaving.close()
                await task
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        for subscription, _ in members:
            await subscription.close()
    assert seen == {key: list(range(each)) for key in keys}


@pytest.mark.slow
async def test_a_killed_consumer_loses_nothing() -> None:
    url = kafka_url(partitions=1)
    async with running(url) as bus:
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), url, TOPIC, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await child.stdout.readline() == b"here\n"
            await bus.publish(TOPIC, said("k", *range(20)))
            assert [int(await child.stdout.readline()) for _ in range(20)] == list(range(20))
            assert await until_committed(url, 0, 1)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        heir = await bus.subscribe([TOPIC], "g")
        await bus.publish(TOPIC, said("k", 20))
        got: list[int] = []
        while not got or got[-1] != 20:
            got += numbers(await take(heir, 1))
        assert got == sorted(set(got))
        assert set(range(1, 21, 2)) <= set(got), "what was not acknowledged comes again"
        assert 0 not in got, "what was committed does not"


@pytest.mark.slow
async def test_a_frozen_consumer_takes_nothing_up_that_went_to_others() -> None:
    url = kafka_url(partitions=1)
    async with running(url) as bus:
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), url, TOPIC, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                assert await child.stdout.readline() == b"here\n"
                await bus.publish(TOPIC, said("k", 0, 2, 4))
                assert [int(await child.stdout.readline()) for _ in range(3)] == [0, 2, 4]
                await until_committed(url, 0, 3)
            child.send_signal(signal.SIGSTOP)
            await bus.publish(TOPIC, said("k", *range(6, 46, 2)))
            heir = await bus.subscribe([TOPIC], "g")
            got = await take(heir, 20)
            await heir.ack(got)
            assert numbers(got) == list(range(6, 46, 2))
            await until_committed(url, 0, 23)
            child.send_signal(signal.SIGCONT)
            await asyncio.sleep(1)
            await heir.close()
            await bus.publish(TOPIC, said("k", 46))
            async with asyncio.timeout(PATIENCE):
                assert int(await child.stdout.readline()) == 46, "what others have done is not handed out"
        finally:
            child.kill()
            await child.wait()


class Refusing:
    """A client whose commits the brokers refuse, or take (None)."""

    def __init__(self, code: int | None) -> None:
        self._code = code

    def memberid(self) -> str:
        return "one"

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        if self._code is not None:
            raise KafkaException(KafkaError(self._code))
        return offsets


@pytest.mark.parametrize(
    ("code", "left"), [(None, 1), (KafkaError.UNKNOWN_MEMBER_ID, 0), (KafkaError.REQUEST_TIMED_OUT, 1)]
)
async def test_who_stood_still_asks_the_brokers_whether_it_is_a_member(code: int | None, left: int) -> None:
    async with running(kafka_url(partitions=1)) as bus:
        subscription = await bus.subscribe([TOPIC], "g")
        await subscription.close()  # its thread has ended: what it does is done here
        one = subscription._member
        one._consumer = Refusing(code)  # type: ignore[assignment]  # all that is asked of a client here
        clock = Hand()
        box = one._inbox = inbox.Inbox(bus._address.prefix, lambda: None, clock, 4.5)
        box.adopt([progress.Progress(TOPIC, 0, 7)])
        box.put([Message(topic=bus._address.prefix + TOPIC, partition=0, offset=7, key=b"k", value=b"1")])
        clock.time += 5
        assert box.come_by()
        one._prove()
        assert len(box.parts) == left
        handed_out = box.take(10)
        assert len(handed_out) == (1 if code is None else 0), "in doubt, or dropped: not handed out"


def test_what_waits_is_not_handed_out_after_a_long_pause() -> None:
    clock = Hand()
    woken: list[None] = []
    box = inbox.Inbox("", lambda: woken.append(None), clock, patience=4.0)
    box.adopt([progress.Progress(TOPIC, 0, 0)])
    message = Message(topic=TOPIC, partition=0, offset=0, key=b"k", value=b"1")
    box.put([message])
    clock.time += 3.9
    assert len(box.take(1)) == 1, "a moment is nothing"
    assert not box.come_by()
    box.put([Message(topic=TOPIC, partition=0, offset=1, key=b"k", value=b"2")])
    clock.time += 4.1
    assert box.take(1) == [], "the receiver may wake before the thread does"
    assert box.come_by(), "the thread hears of it"
    clock.time += 1.0
    assert box.come_by(), "and goes on hearing of it"
    assert not woken
    box.trust()
    assert len(woken) == 1
    assert [d.message.value for d in box.take(1)] == [b"2"], "it was ours still"


@pytest.mark.slow
async def test_a_member_that_brokers_take_for_a_stranger_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tickwork.adapters.bus.kafka")
    url = kafka_url(partitions=1)
    async with running(url) as bus:
        subscription = await bus.subscribe([TOPIC], "g")
        await bus.publish(TOPIC, said("k", 1))
        await subscription.ack(await take(subscription, 1))
        await until_committed(url, 0, 1)
        address = bus._address
        # What a member's own late words do to it when it has joined again: two clients with one name.
        other = Consumer(address.consumer(f"{address.prefix}g", subscription._member._place))
        other.subscribe([address.prefix + TOPIC])
        async with asyncio.timeout(PATIENCE):
            while not other.assignment():
                await asyncio.to_thread(other.poll, 0.1)
            await until(lambda: "begins anew" in caplog.text)
            await bus.publish(TOPIC, said("k", 2))
            assert numbers(await take(subscription, 1)) == [2]
        with suppress(KafkaException):
            other.close()


@pytest.mark.slow
async def test_a_consumer_slower_than_the_poll_interval_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MESSAGES", 20)
    monkeypatch.setattr(member, "FETCH", 10)
    async with running(kafka_url(partitions=2, max_poll_interval=6)) as bus:
        slow = await bus.subscribe([TOPIC], "g")
        for n in range(60):
            await bus.publish(TOPIC, [BusMessage(f"k{i}", b"%d" % n) for i in range(4)])
        got = await take(slow, 1)
        await asyncio.sleep(8)
        assert slow._member._kept_back == {TOPIC}
        assert len(slow._inbox._waiting) < 60, "no more is fetched than the inbox takes"
        await slow.ack(got)
        got += await take(slow, 239)
        assert not any(d.redelivered for d in got)
        for key in {d.message.key for d in got}:
            assert numbers([d for d in got if d.message.key == key]) == list(range(60))
        await slow.ack(got)
        assert bus.depth(TOPIC, "g") == 0


async def test_a_late_acknowledgement_of_a_lost_partition_is_ignored() -> None:
    async with running(kafka_url(partitions=4, handover=0.2)) as bus:
        old = await bus.subscribe([TOPIC], "g")
        await bus.publish(TOPIC, [BusMessage(f"k{i}", b"%d" % i) for i in range(40)])
        held = await take(old, 40)
        new = await bus.subscribe([TOPIC], "g")
        again = await take(new, 1)  # the handover is over: it does not wait for ever
        moved = {number for _, number in new._inbox.parts}
        lost = {d.message.key for d in held if d.offset % inbox.PARTITIONS in moved}
        again += await take(new, len(lost) - 1)
        assert {d.message.key for d in again} == lost
        assert all(d.redelivered for d in again)
        await old.ack(held)
        await new.close()
        await bus.publish(TOPIC, [BusMessage(d.message.key, b"99") for d in held])
        got = await take(old, 40 + len(lost))
        assert sorted(numbers(got)) == sorted([99] * 40 + [int(d.message.value) for d in again])


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_broker_that_restarts_loses_nothing_acknowledged(tmp_path: Path) -> None:
    url = servers.start("kafka", tmp_path)["TICKWORK_KAFKA_URL"]
    sent: list[int] = []
    got: list[int] = []
    stop = asyncio.Event()
    try:
        async with running(f"{url}/r?partitions=1&delivery_timeout=60") as bus:
            subscription = await bus.subscribe([TOPIC], "g")

            async def publish() -> None:
                while not stop.is_set():
                    await bus.publish(TOPIC, said("k", len(sent)))
                    sent.append(len(sent))
                    await asyncio.sleep(0.002)

            async def consume() -> None:
                while batch := await heard(subscription, 50):
                    got.extend(numbers(batch))
                    await subscription.ack(batch)

            tasks = [asyncio.ensure_future(publish()), asyncio.ensure_future(consume())]
            await asyncio.sleep(1)
            async with running(f"{url}/r?delivery_timeout=1") as hasty:
                await hasty.subscribe([TOPIC], "other")
                await hasty.subscribe(["data-plane.*"], "")
                await asyncio.to_thread(servers.end, "kafka", tmp_path)
                with pytest.raises(StorageError, match="no broker took the message in time"):
                    await hasty.publish(TOPIC, [BusMessage("other", b"-1")])
                began = time.monotonic()
            assert time.monotonic() - began < 20, "stopping without a broker ends"
            before = len(sent)
            again = await asyncio.to_thread(servers.start, "kafka", tmp_path)
            assert again["TICKWORK_KAFKA_URL"] == url
            back = time.monotonic()
            async with asyncio.timeout(PATIENCE):
                await until(lambda: len(sent) >= before + 50)
                published = time.monotonic() - back
                stop.set()
                await tasks[0]
                await until(lambda: got[-1:] == sent[-1:])
            delivered = time.monotonic() - back
            await subscription.close()
            await tasks[1]
        print(f"published {published:.2f} s, delivered {delivered:.2f} s after the broker was back")
        first = list(dict.fromkeys(got))
        assert first == sent, "all of it, in order"
        assert published < 5
        assert delivered < 5, "a group that was cut off for longer than its session takes its places at once"
    finally:
        servers.end("kafka", tmp_path)


async def test_a_message_of_a_mebibyte_and_one_that_is_too_large() -> None:
    async with running(kafka_url()) as bus:
        subscription = await bus.subscribe([TOPIC], "g")
        large = bytes(range(256)) * 4096
        await bus.publish(TOPIC, [BusMessage("k", large + large[:70_000], {"traceparent": "00-ab-cd-01"})] * 20)
        got = await take(subscription, 20)
        assert {d.message.value for d in got} == {large + large[:70_000]}
        assert got[0].message.headers == {"traceparent": "00-ab-cd-01"}
        with pytest.raises(StorageError, match="max_message_bytes"):
            await bus.publish(TOPIC, [BusMessage("k", large * 5)])
        await bus.publish(TOPIC, said("k", 1))
        assert numbers(await take(subscription, 1)) == [1]


async def test_more_than_the_queue_holds_waits_its_turn() -> None:
    async with running(kafka_url(partitions=1)) as bus:
        subscription = await bus.subscribe([TOPIC], "g")
        pad = b"." * 4000
        many = [BusMessage("k", b"%06d" % n + pad) for n in range(40_000)]
        await asyncio.gather(bus.publish(TOPIC, many[:20_000]), bus.publish(TOPIC, many[20_000:]))
        got = 0
        while got < len(many):
            for d in await take(subscription, 1000):
                assert int(d.message.value[:6]) == got
                got += 1


async def test_hostile_names_never_reach_a_broker() -> None:
    async with running(kafka_url()) as bus:
        for name in ("", ".", "..", "a b", "x/../y", "data-plane.a.b", "é.x", "a_b.c", "a\n", "t" * 300, names.NEWS):
            with pytest.raises(UsageError, match="cannot be a topic"):
                await bus.publish(name, said("k", 1))
            with pytest.raises(UsageError, match="cannot be a topic"):
                await bus.subscribe([name], "g")
        with pytest.raises(UsageError, match="cannot be a group"):
            await bus.subscribe([TOPIC], "a b")


async def test_tenants_that_differ_in_one_sign_have_their_own_topics() -> None:
    tenants = ["a-b", "a_b", "A_b", "a__b"]
    async with running(kafka_url(partitions=1)) as bus:
        subscription = await bus.subscribe(["data-plane.*"], "g")
        for n, tenant in enumerate(tenants):
            await bus.publish(f"data-plane.{tenant}", said("k", n))
        got = await take(subscription, len(tenants))
        assert {d.topic: int(d.message.value) for d in got} == {f"data-plane.{t}": n for n, t in enumerate(tenants)}


async def test_a_topic_that_another_process_makes_is_found_at_once() -> None:
    url = kafka_url()
    async with running(url) as one, running(url) as two:
        worker, watcher = await one.subscribe(["data-plane.*"], "g"), await one.subscribe(["data-plane.*"], "")
        began = time.monotonic()
        await two.publish("data-plane.umbrella", said("k", 1))
        assert numbers(await take(watcher, 1)) == [1]
        assert numbers(await take(worker, 1)) == [1]
        assert time.monotonic() - began < 5


async def test_losing_every_topic_costs_time_only() -> None:
    async with running(kafka_url(partitions=2)) as bus:
        subscription = await bus.subscribe(["data-plane.*"], "g")
        await bus.publish(TOPIC, said("k", *range(30)))
        await subscription.ack(await take(subscription, 30))
        directory = bus._directory
        assert directory is not None
        for future in directory._admin.delete_topics([bus._address.prefix + t for t in directory.topics]).values():
            await asyncio.wrap_future(future)
        got: list[int] = []
        n = 100

        async def hear() -> None:
            while True:
                got.extend(numbers(await subscription.receive(100)))

        hearing = asyncio.ensure_future(hear())
        async with asyncio.timeout(PATIENCE):
            while not got:
                n += 1
                with suppress(StorageError):
                    await bus.publish(TOPIC, said("k", n))
                await asyncio.sleep(0.1)
        hearing.cancel()


async def test_no_broker_is_an_error_that_says_where_and_what_to_do() -> None:
    bus = KafkaBus("kafka://127.0.0.1:9?connect_timeout=1&username=u&password=hunter2", SystemClock())
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.*Check the host") as raised:
        await bus.start()
    assert "hunter2" not in str(raised.value)
    await bus.stop()
    with pytest.raises(StorageError, match="not running"):
        await bus.publish(TOPIC, said("k", 1))
