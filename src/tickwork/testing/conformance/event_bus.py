"""What every EventBus has to do: at least once, in order per key and group, one member a key at a time.

"Nothing more comes" is never shown by waiting: a last message of the same key is published and must be the next.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tickwork.clock import SystemClock
from tickwork.ports import BusMessage
from tickwork.testing.conformance.checks import equal, expect, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tickwork.ports import Delivery, EventBus, Subscription

TOPIC = "data-plane.acme"


def messages(key: str, *numbers: int) -> list[BusMessage]:
    """Messages of a key whose values are these numbers."""
    return [BusMessage(key, b"%d" % n) for n in numbers]


def numbers(deliveries: list[Delivery], key: str | None = None) -> list[int]:
    """The numbers that were delivered (of one key)."""
    return [int(d.message.value) for d in deliveries if key is None or d.message.key == key]


class EventBusConformance:
    """Subclass it, and implement `open`."""

    patience = 10.0
    """Seconds in which something that has to come comes."""

    async def open(self) -> EventBus:
        """An empty bus, not started."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[EventBus]:
        """A started bus, stopped afterwards."""
        bus = await self.open()
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()

    async def take(self, subscription: Subscription, count: int, *, ack: bool = False) -> list[Delivery]:
        """Receives exactly `count` messages."""
        got: list[Delivery] = []
        while len(got) < count:
            batch = await asyncio.wait_for(subscription.receive(count - len(got)), self.patience)
            expect(bool(batch), "receive returns at least one message while it is open")
            got += batch
            if ack:
                await subscription.ack(batch)
        return got

    async def test_one_member_gets_everything_in_order(self) -> None:
        """Values, keys and headers arrive as they were sent, in order per key."""
        async with self.opened() as bus:
            member = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", 1, 2) + messages("b", 1) + messages("a", 3))
            await bus.publish(TOPIC, [BusMessage("c", bytes(range(256)), {"attempt": "2"})])
            got = await self.take(member, 5, ack=True)
            equal(numbers([d for d in got if d.message.key == "a"]), [1, 2, 3], "a key keeps its order")
            last = next(d for d in got if d.message.key == "c")
            equal(last.message.value, bytes(range(256)), "the bytes arrive unchanged")
            equal(last.message.headers, {"attempt": "2"}, "the headers arrive unchanged")
            equal({d.topic for d in got}, {TOPIC}, "a delivery names its topic")
            expect(not any(d.redelivered for d in got), "a first delivery is no redelivery")

    async def test_receive_returns_no_more_than_asked(self) -> None:
        """`max_messages` is a limit, and the rest stays."""
        async with self.opened() as bus:
            member = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", *range(10)))
            first = await asyncio.wait_for(member.receive(3), self.patience)
            expect(1 <= len(first) <= 3, "receive returns at most max_messages")
            rest = await self.take(member, 10 - len(first))
            equal(numbers(first + rest), list(range(10)), "what was not received stays, in order")

    async def test_receive_waits_for_a_message(self) -> None:
        """A member that waits is woken; one that gives up loses nothing."""
        async with self.opened() as bus:
            member = await bus.subscribe([TOPIC], "g")
            waiting = asyncio.ensure_future(member.receive(10))
            await turn()
            waiting.cancel()
            await asyncio.wait([waiting])
            again = asyncio.ensure_future(self.take(member, 1))
            await turn()
            await bus.publish(TOPIC, messages("a", 7))
            equal(numbers(await again), [7], "a message published meanwhile reaches the one who waits")

    async def test_what_is_not_admitted_waits_and_others_go_on(self) -> None:
        """A topic is held back from the first message that is not admitted; nothing is lost, doubled or overtaken."""
        async with self.opened() as bus:
            member = await bus.subscribe(["data-plane.*"], "g")
            tokens = {"data-plane.acme": 2, "data-plane.other": 100}

            def admit(topic: str) -> bool:
                tokens[topic] -= 1
                return tokens[topic] >= 0

            await bus.publish(TOPIC, messages("a", *range(5)))
            await bus.publish("data-plane.other", messages("b", *range(5)))
            got: list[Delivery] = []
            while len(got) < 7:
                got += await asyncio.wait_for(member.receive(100, admit), self.patience)
            equal(numbers(got, "a"), [0, 1], "so many are handed out as are admitted")
            equal(numbers(got, "b"), list(range(5)), "what is held back does not hold up another topic")
            waiting = asyncio.ensure_future(member.receive(100, admit))
            await bus.publish("data-plane.other", messages("b", 5))
            got = await asyncio.wait_for(waiting, self.patience)
            equal(numbers(got), [5], "another topic's message comes while one is held back")
            waiting = asyncio.ensure_future(member.receive(100, admit))
            await turn()
            tokens[TOPIC] = 2
            member.look_again()
            equal(numbers(await asyncio.wait_for(waiting, self.patience)), [2, 3], "it goes on when it is looked again")
            await member.ack(got)
            await member.close()
            other = await bus.subscribe(["data-plane.*"], "g")
            left = await self.take(other, 10)
            equal(numbers(left, "a"), list(range(5)), "what was held back goes to who comes next, in order")

    async def test_members_have_a_share_of_each_topic(self) -> None:
        """The shares of all members of a group are the whole, and who has left has none."""
        async with self.opened() as bus:
            one = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", 1))
            equal(one.share(TOPIC), 1.0, "one alone has it all")
            two = await bus.subscribe([TOPIC], "g")
            receiving = [asyncio.ensure_future(self._drain(member)) for member in (one, two)]
            try:
                await self._until(lambda: one.share(TOPIC) > 0 and two.share(TOPIC) > 0)
                equal(one.share(TOPIC) + two.share(TOPIC), 1.0, "the shares add up")
                await two.close()
                equal(two.share(TOPIC), 0.0, "who has left has none")
                await self._until(lambda: one.share(TOPIC) == 1.0)
            finally:
                for task in receiving:
                    task.cancel()
                await asyncio.gather(*receiving, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(self.patience):
            while not condition():
                await SystemClock().sleep(0.01)

    async def _drain(self, member: Subscription) -> None:
        while batch := await member.receive(100):
            await member.ack(batch)

    async def test_members_share_and_a_key_has_one_owner(self) -> None:
        """Competing members: everything once, in order per key, a key never in two hands."""
        keys, each = [f"k{i}" for i in range(40)], 25
        async with self.opened() as bus:
            members = [await bus.subscribe([TOPIC], "g") for _ in range(3)]
            seen: dict[str, list[int]] = {key: [] for key in keys}
            held: dict[str, int] = {}
            left = len(keys) * each
            done = asyncio.Event()

            async def work(me: int, member: Subscription) -> None:
                nonlocal left
                while True:
                    batch = await member.receive(7)
                    for d in batch:
                        expect(held.setdefault(d.message.key, me) == me, "a key is with one member at a time")
                        seen[d.message.key].append(int(d.message.value))
                    await turn()
                    for d in batch:
                        held.pop(d.message.key, None)
                    await member.ack(batch)
                    left -= len(batch)
                    if left <= 0:
                        done.set()

            workers = [asyncio.ensure_future(work(i, member)) for i, member in enumerate(members)]
            for n in range(each):
                await bus.publish(TOPIC, [BusMessage(key, b"%d" % n) for key in keys])
                await turn()
            finished = asyncio.ensure_future(done.wait())
            await asyncio.wait([finished, *workers], timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
            for task in [*workers, finished]:
                task.cancel()
            for outcome in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(outcome, AssertionError):
                    raise outcome
            for key in keys:
                equal(seen[key], list(range(each)), "every key arrives once and in order")

    async def test_what_was_not_acknowledged_comes_again(self) -> None:
        """After close, in order, marked; what was acknowledged does not, in whatever order that was done."""
        async with self.opened() as bus:
            first = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", *range(6)))
            got = await self.take(first, 6)
            await first.ack([got[0], got[1]])
            await first.close()
            await first.close()
            second = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", 6))
            again = await self.take(second, 5)
            equal(numbers(again), [2, 3, 4, 5, 6], "what was not acknowledged comes again, in order, then what is new")
            equal([d.redelivered for d in again], [True] * 4 + [False], "a redelivery says so")

    async def test_nothing_acknowledged_comes_again(self) -> None:
        """The next member finds only what is new."""
        async with self.opened() as bus:
            first = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", 1, 2, 3))
            got = await self.take(first, 3)
            await first.ack([got[2], got[0]])
            await first.ack([got[1]])
            await first.ack(got)
            await first.close()
            second = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, messages("a", 9))
            equal(numbers(await self.take(second, 1)), [9], "what was acknowledged does not come again")

    async def test_a_member_that_leaves_hands_over(self) -> None:
        """Received and not received messages of one that closes go to the others, in order per key."""
        async with self.opened() as bus:
            one, two = await bus.subscribe([TOPIC], "g"), await bus.subscribe([TOPIC], "g")
            keys = [f"k{i}" for i in range(20)]
            for n in range(5):
                await bus.publish(TOPIC, [BusMessage(key, b"%d" % n) for key in keys])
            await asyncio.wait_for(one.receive(10), self.patience)
            await one.close()
            got = await self.take(two, 100, ack=True)
            for key in keys:
                equal(numbers(got, key), list(range(5)), "the one that stays gets everything, in order")

    async def test_a_member_that_joins_does_not_tear_a_key_apart(self) -> None:
        """What an old member has in its hands keeps its followers there until it is acknowledged."""
        async with self.opened() as bus:
            old = await bus.subscribe([TOPIC], "g")
            keys = [f"k{i}" for i in range(30)]
            await bus.publish(TOPIC, [BusMessage(key, b"0") for key in keys])
            in_hand = await self.take(old, 30)
            new = await bus.subscribe([TOPIC], "g")
            await bus.publish(TOPIC, [BusMessage(key, b"1") for key in keys])
            await bus.publish(TOPIC, [BusMessage(key, b"2") for key in keys])
            taken: list[Delivery] = []
            waiting = asyncio.ensure_future(new.receive(100))
            await turn()
            if waiting.done():
                taken = waiting.result()
            equal(numbers(taken), [], "a key in one member's hands is not given to another")
            await old.ack(in_hand)
            await old.close()
            got = taken + await asyncio.wait_for(waiting, self.patience)
            got += await self.take(new, 60 - len(got))
            for key in keys:
                equal(numbers(got, key), [1, 2], "afterwards the followers come in order")

    async def test_groups_are_independent(self) -> None:
        """Each group gets all that was published after it came, and acknowledges for itself."""
        async with self.opened() as bus:
            a = await bus.subscribe([TOPIC], "a")
            await bus.publish(TOPIC, messages("k", 1))
            b = await bus.subscribe([TOPIC], "b")
            await bus.publish(TOPIC, messages("k", 2))
            equal(numbers(await self.take(a, 2, ack=True)), [1, 2], "a group gets everything since it is there")
            got = await self.take(b, 1)
            await b.close()
            again = await bus.subscribe([TOPIC], "b")
            equal(numbers(await self.take(again, 1)), numbers(got), "another group's acknowledgement does not count")

    async def test_a_group_without_members_is_not_forgotten(self) -> None:
        """What is published while all members are away waits for the next."""
        async with self.opened() as bus:
            first = await bus.subscribe([TOPIC], "g")
            await first.close()
            await bus.publish(TOPIC, messages("k", 1, 2))
            second = await bus.subscribe([TOPIC], "g")
            equal(numbers(await self.take(second, 2)), [1, 2], "a group keeps its place while nobody is there")

    async def test_a_prefix_takes_in_topics_that_come_later(self) -> None:
        """`data-plane.*` is every tenant's topic, and no other."""
        async with self.opened() as bus:
            member = await bus.subscribe(["data-plane.*", "data-plane.acme", "cancellations.acme"], "g")
            await bus.publish("data-plane.acme", messages("k", 1))
            await bus.publish("data-planes.acme", messages("k", 2))
            await bus.publish("data-plane", messages("k", 3))
            await bus.publish("control-plane.acme", messages("k", 4))
            await bus.publish("data-plane.umbrella", messages("k", 5))
            await bus.publish("cancellations.acme", messages("k", 6))
            got = await self.take(member, 3, ack=True)
            equal(sorted(numbers(got)), [1, 5, 6], "what matches comes once, and nothing else")
            equal(
                {(d.topic, int(d.message.value)) for d in got},
                {("data-plane.acme", 1), ("data-plane.umbrella", 5), ("cancellations.acme", 6)},
                "a delivery names the topic, not the prefix",
            )

    async def test_the_empty_group_is_everybody(self) -> None:
        """Each subscription without a group hears all that is published while it is there."""
        async with self.opened() as bus:
            one, two = await bus.subscribe([TOPIC], ""), await bus.subscribe([TOPIC], "")
            await bus.publish(TOPIC, messages("k", 1))
            for member in (one, two):
                equal(numbers(await self.take(member, 1)), [1], "everybody hears it")
            await one.close()
            await bus.publish(TOPIC, messages("k", 2))
            equal(numbers(await self.take(two, 1)), [2], "and goes on when another has left")

    async def test_depth_counts_what_is_open(self) -> None:
        """Published, minus acknowledged; by topic and by prefix."""
        async with self.opened() as bus:
            member = await bus.subscribe(["data-plane.*"], "g")
            await bus.publish("data-plane.a", messages("k", 1, 2, 3))
            await bus.publish("data-plane.b", messages("k", 4))
            got = await self.take(member, 4)
            equal(bus.depth("data-plane.*", "g"), 4, "received is not acknowledged")
            await member.ack([d for d in got if d.topic == "data-plane.a"][:2])
            equal(bus.depth("data-plane.a", "g"), 1, "acknowledged is done")
            equal(bus.depth("data-plane.*", "g"), 2, "a prefix is the sum of its topics")
            equal(bus.depth("data-plane.*", "nobody"), 0, "an unknown group has nothing")

    async def test_stopping_twice_is_fine(self) -> None:
        """And publishing to nobody too."""
        async with self.opened() as bus:
            await bus.publish("nobody.listens", messages("k", 1))
            await bus.publish(TOPIC, [])
            await bus.subscribe([TOPIC], "g")
            await bus.stop()
