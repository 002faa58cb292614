"""The event bus inside one process: every hop of every step passes here, so a message costs a few dict operations.

A message is wrapped once in a `Delivery` and put into the *lane* (one topic, one group) of each group that wants the
topic. The lane hands it to the member that owns its key: with one member there is nothing to decide; with several,
the key's hash picks the owner, who keeps the key until all its messages are acknowledged. No task, no future per
message: a subscription that waits has one future, which is resolved once.

What a member leaves behind when it closes (received and not acknowledged, or never received) goes to the others, in
the order in which it was published. A group without members keeps up to `PARKED_LIMIT` messages a lane for the
next member and then drops the oldest: the bus is a hint, and the sweeper finds what it forgot.

A subscription with the empty group is a group of its own that ends with it: for watchers, and for what every
process has to hear.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING
from zlib import crc32

from tickwork.errors import StorageError, UsageError
from tickwork.ports import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tickwork.ports import BusMessage

PARKED_LIMIT = 100_000
"""Messages that a lane without members keeps; the oldest are dropped beyond it."""


def _matches(pattern: str, topic: str) -> bool:
    return topic.startswith(pattern[:-1]) if pattern.endswith(".*") else topic == pattern


class _Owner:
    """Which member has a key, and how many of its messages are not acknowledged yet."""

    __slots__ = ("member", "open")

    def __init__(self, member: MemorySubscription) -> None:
        self.member = member
        self.open = 0


class _Lane:
    """One topic as one group sees it. `open` counts what is not acknowledged."""

    __slots__ = ("members", "open", "owners", "parked", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.members: list[MemorySubscription] = []
        self.owners: dict[str, _Owner] = {}  # only kept while there are several members
        self.parked: deque[Delivery] = deque()  # only while there is none
        self.open = 0

    def push(self, delivery: Delivery) -> None:
        members = self.members
        if len(members) == 1:
            members[0].take(delivery)
        elif members:
            self._owned(delivery.message.key, 1).take(delivery)
        else:
            self.parked.append(delivery)
            if len(self.parked) > PARKED_LIMIT:
                self.parked.popleft()
                self.open -= 1

    def acknowledged(self, delivery: Delivery) -> None:
        self.open -= 1
        if self.owners:
            owner = self.owners[delivery.message.key]
            owner.open -= 1
            if not owner.open:
                del self.owners[delivery.message.key]

    def owner(self, key: str) -> MemorySubscription | None:
        """Which member gets what comes under this key; None when there is none."""
        if len(self.members) < 2:
            return self.members[0] if self.members else None
        owned = self.owners.get(key)
        return owned.member if owned is not None else self._pick(key)

    def join(self, member: MemorySubscription) -> None:
        """Takes a member in. It gets its share of the keys of which nothing is being worked on."""
        before = list(self.members)
        self.members.append(member)
        member.lanes[self.topic] = self
        waiting: list[Delivery] = list(self.parked)
        self.parked.clear()
        if before:
            self.owners.clear()
            for other in before:
                for delivery in other.unacked.values():
                    if delivery.topic == self.topic:
                        self._owned(delivery.message.key, 1, by=other)
            for other in before:
                waiting += other.give_back(self.topic)
            waiting.sort(key=_offset)
        for delivery in waiting:
            self.push(delivery)

    def leave(self, member: MemorySubscription, left: Iterable[Delivery]) -> None:
        """Lets a member go; `left` is what it did not finish on this topic, in order."""
        self.members.remove(member)
        gone = [key for key, owner in self.owners.items() if owner.member is member]
        for key in gone:
            del self.owners[key]
        if len(self.members) < 2:
            self.owners.clear()
        for delivery in left:
            self.push(delivery)

    def _owned(self, key: str, count: int, by: MemorySubscription | None = None) -> MemorySubscription:
        owner = self.owners.get(key)
        if owner is None:
            owner = self.owners[key] = _Owner(by or self._pick(key))
        owner.open += count
        return owner.member

    def _pick(self, key: str) -> MemorySubscription:
        # Not hash(): it differs from process to process, and a simulation has to repeat.
        return self.members[crc32(key.encode()) % len(self.members)]


def _offset(delivery: Delivery) -> int:
    return delivery.offset


class _Group:
    """A name that members share, the patterns it ever asked for, and its lanes."""

    __slots__ = ("lanes", "name", "patterns")

    def __init__(self, name: str) -> None:
        self.name = name
        self.patterns: dict[str, None] = {}
        self.lanes: dict[str, _Lane] = {}

    def wants(self, topic: str) -> bool:
        return any(_matches(pattern, topic) for pattern in self.patterns)


class MemorySubscription:
    """One member of a group. One coroutine at a time may wait in `receive`."""

    __slots__ = ("_bus", "_closed", "_group", "_kept", "_queue", "_waiter", "lanes", "patterns", "unacked")

    def __init__(self, bus: MemoryBus, group: _Group, patterns: Sequence[str]) -> None:
        self._bus = bus
        self._group = group
        self._queue: deque[Delivery] = deque()
        self._kept: dict[str, deque[Delivery]] = {}  # by topic: what was not admitted, and what came after it
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.patterns = tuple(patterns)
        self.lanes: dict[str, _Lane] = {}
        self.unacked: dict[int, Delivery] = {}

    def take(self, delivery: Delivery) -> None:
        """Queues a message for `receive` (the lane calls this)."""
        self._queue.append(delivery)
        if self._waiter is not None:
            self.look_again()

    def look_again(self) -> None:
        """Wakes the one who receives."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def give_back(self, topic: str) -> list[Delivery]:
        """Takes what was not received yet of `topic` out of the queue (the lane calls this)."""
        back = [delivery for delivery in self._queue if delivery.topic == topic]
        if back:
            self._queue = deque(delivery for delivery in self._queue if delivery.topic != topic)
        return [*self._kept.pop(topic, ()), *back]

    def wants(self, topic: str) -> bool:
        """Whether this member asked for `topic`."""
        return any(_matches(pattern, topic) for pattern in self.patterns)

    async def receive(self, max_messages: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        """Waits for a message; [] when the subscription is closed meanwhile, StorageError when it was before."""
        if self._waiter is not None:
            raise UsageError(f"two coroutines receive from one subscription of {self._group.name!r}; subscribe twice")
        while not (batch := self._batch(max_messages, admit)):
            if self._closed:
                raise StorageError(f"this subscription of group {self._group.name!r} is closed; subscribe again")
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
            if self._closed:
                return []
        unacked = self.unacked
        for delivery in batch:
            unacked[delivery.offset] = delivery
        return batch

    def _batch(self, most: int, admit: Callable[[str], bool] | None) -> list[Delivery]:
        queue = self._queue
        if admit is not None or self._kept:
            return self._admitted(most, admit or (lambda _: True))
        if len(queue) <= most:
            batch = list(queue)
            queue.clear()
            return batch
        return [queue.popleft() for _ in range(most)]

    def _admitted(self, most: int, admit: Callable[[str], bool]) -> list[Delivery]:
        """What waits on each topic, up to the first message that is not admitted."""
        batch: list[Delivery] = []
        for topic, line in list(self._kept.items()):
            while line and len(batch) < most and admit(topic):
                batch.append(line.popleft())
            if not line:
                del self._kept[topic]
        while self._queue and len(batch) < most:
            delivery = self._queue.popleft()
            topic = delivery.topic
            if topic in self._kept:
                self._kept[topic].append(delivery)
            elif admit(topic):
                batch.append(delivery)
            else:
                self._kept[topic] = deque([delivery])
        return batch

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks messages as done, in any order. What is not open here (acknowledged before) is ignored."""
        unacked, lanes = self.unacked, self.lanes
        for delivery in deliveries:
            if unacked.pop(delivery.offset, None) is not None:
                lanes[delivery.topic].acknowledged(delivery)

    def owns(self, topic: str, key: str) -> bool:
        """Whether messages of this key come to this member."""
        lane = self.lanes.get(topic)
        return not self._closed and (lane is None or lane.owner(key) is self)

    def share(self, topic: str) -> float:
        """The part of the keys that comes to this member."""
        if self._closed:
            return 0.0
        lane = self.lanes.get(topic)
        return 1 / len(lane.members) if lane is not None else 1.0

    async def close(self) -> None:
        """Leaves the group; what is open goes to its other members, in order."""
        if self._closed:
            return
        self._closed = True
        left = [Delivery(d.topic, d.message, d.offset, redelivered=True) for d in self.unacked.values()]
        left += self._queue
        for line in self._kept.values():
            left += line
        left.sort(key=_offset)
        self.unacked.clear()
        self._queue.clear()
        self._kept.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None
        self._bus.forget(self, self._group)
        by_topic: dict[str, list[Delivery]] = {}
        for delivery in left:
            by_topic.setdefault(delivery.topic, []).append(delivery)
        for topic, lane in self.lanes.items():
            lane.leave(self, by_topic.get(topic, ()))


class MemoryBus:
    """The EventBus port on asyncio, for one process and one event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._routes: dict[str, list[_Lane]] = {}  # topic -> the lanes it goes to; thrown away on each subscribe
        self._members: dict[MemorySubscription, _Group] = {}
        self._offset = 0
        self._single = 0  # how many groups of their own were made

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Closes every subscription; whoever waits in one gets []."""
        for subscription in list(self._members):
            await subscription.close()

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """Hands the messages over; whoever waits for them runs when the caller next gives way."""
        lanes = self._routes.get(topic)
        if lanes is None:
            lanes = self._route(topic)
        if not lanes:
            return
        offset = self._offset
        for message in messages:
            offset += 1
            delivery = Delivery(topic, message, offset)
            for lane in lanes:
                lane.open += 1
                lane.push(delivery)
        self._offset = offset

    async def subscribe(self, topics: Sequence[str], group: str, *, from_beginning: bool = False) -> MemorySubscription:
        """Joins `group`; the empty group is one of its own that ends when the subscription closes.

        What was published when there was no such group is gone, `from_beginning` or not.
        """
        if not group:
            self._single += 1
            group = f"\0{self._single}"
        shared = self._groups.setdefault(group, _Group(group))
        shared.patterns.update(dict.fromkeys(topics))
        member = MemorySubscription(self, shared, topics)
        self._members[member] = shared
        self._routes.clear()
        for topic, lane in shared.lanes.items():
            if member.wants(topic):
                lane.join(member)
        return member

    def depth(self, topic: str, group: str) -> int:
        """Messages that `group` has not acknowledged, of a topic or of a prefix that ends in `.*`."""
        found = self._groups.get(group)
        lanes = found.lanes.values() if found is not None else ()
        return sum(lane.open for lane in lanes if _matches(topic, lane.topic))

    def forget(self, member: MemorySubscription, group: _Group) -> None:
        """Takes a closing member off the books, with its group when that was its own."""
        del self._members[member]
        if group.name.startswith("\0"):
            del self._groups[group.name]
            self._routes.clear()

    def _route(self, topic: str) -> list[_Lane]:
        """The lanes of a topic, one for each group that wants it; made when the topic is first published to."""
        lanes = []
        for group in self._groups.values():
            if not group.wants(topic):
                continue
            lane = group.lanes.get(topic)
            if lane is None:
                lane = group.lanes[topic] = _Lane(topic)
                for member, of_group in self._members.items():
                    if of_group is group and member.wants(topic):
                        lane.join(member)
            lanes.append(lane)
        self._routes[topic] = lanes
        return lanes
