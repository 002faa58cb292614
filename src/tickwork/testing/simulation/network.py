"""The event bus of a simulation: the real MemoryBus behind a network that loses, doubles, delays and reorders.

The order of a key is kept on a delivery stream: what is published after a message that is held back waits behind it.
A message that comes twice may do so at any time later. A member that is silent for longer than its session (frozen or
dead) is thrown out, and what it had goes to others; when it wakes it joins again, as the clients of brokers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.bus.memory import MemoryBus
from tickwork.errors import StorageError
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.adapters.bus.memory import MemorySubscription
    from tickwork.ports import Delivery
    from tickwork.testing.simulation.faults import Faults
    from tickwork.testing.simulation.process import SimulatedProcess
    from tickwork.testing.simulation.scheduler import SimulatedLoop
    from tickwork.testing.simulation.witnesses import Customs

LATEST = 3600.0
"""Seconds that a message may be late."""


class Network:
    """The broker and the lines to it, shared by all processes."""

    def __init__(self, loop: SimulatedLoop, faults: Faults) -> None:
        self.bus = MemoryBus()
        self.place = loop.place("bus")
        self.faults = faults
        self.on_ack: list[Callable[[str, Sequence[Delivery]], None]] = []
        """Called with the group and what one of its members acknowledges."""
        self.customs: Customs | None = None
        """Who watches what is published, received and acknowledged."""
        self._loop = loop
        self._held: dict[tuple[str, str], list[BusMessage]] = {}

    def accept(self, place: str, topic: str, messages: Sequence[BusMessage]) -> list[BusMessage]:
        """Takes messages in; returns those that are to be delivered at once, in order."""
        if self.customs is not None:
            self.customs.published(topic, messages)
        if not self.faults.on:
            return list(messages)
        prompt: list[BusMessage] = []
        strikes, dice = self.faults.strikes, self.faults.dice
        for message in messages:
            key = (topic, message.key)
            where = f"{topic} {message.key[-6:]}"
            if strikes("bus.drop", place, where):
                continue
            if strikes("bus.garble", place, where):
                message = BusMessage(message.key, b"\xc1" + message.value[:9], message.headers)  # noqa: PLW2901 - no more what it was
            if strikes("bus.double", place, where):
                later = 0.0 if dice.chance(0.3) else dice.spread(0.001, LATEST)
                self._loop.call_later(later, self._deliver, topic, [message], context=self.place.context)
            if key in self._held:
                self._held[key].append(message)
            elif strikes("bus.delay", place, where):
                self._held[key] = [message]
                self._loop.call_later(dice.spread(0.001, LATEST), self._let_go, key, context=self.place.context)
            else:
                prompt.append(message)
        return prompt

    def let_all_go(self) -> None:
        """The network is well again: what was held back is delivered."""
        for key in list(self._held):
            self._let_go(key)

    def _let_go(self, key: tuple[str, str]) -> None:
        held = self._held.pop(key, None)
        if held:
            self._deliver(key[0], held)

    def _deliver(self, topic: str, messages: list[BusMessage]) -> None:
        self._loop.spawn(self.place, self.bus.publish(topic, messages))


class SimulatedBus:
    """The EventBus port of one process."""

    def __init__(self, network: Network, process: SimulatedProcess) -> None:
        self._network, self._process = network, process
        self.subscriptions: list[SimulatedSubscription] = []

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """The broker goes on without this process."""

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """As the bus, or StorageError before or after it has accepted some."""
        process, network = self._process, self._network
        await process.travel()
        faults = network.faults
        if faults.strikes("bus.refuse", process.name, topic):
            raise StorageError(f"the broker refused {len(messages)} messages for {topic}")
        cut = faults.strikes("bus.lost_answer", process.name, topic)
        if cut:
            messages = messages[: faults.dice.randint(1, len(messages))] if messages else messages
        prompt = network.accept(process.name, topic, messages)
        if prompt:
            await network.bus.publish(topic, prompt)
        if cut:
            raise StorageError(f"the broker did not answer; some messages for {topic} may have been accepted")

    async def subscribe(
        self, topics: Sequence[str], group: str, *, from_beginning: bool = False
    ) -> SimulatedSubscription:
        """Joins a group. As on the bus in memory, what was published before there was one is gone."""
        await self._process.travel()
        inner = await self._network.bus.subscribe(topics, group)
        made = SimulatedSubscription(self._network, self._process, tuple(topics), group, inner)
        self.subscriptions.append(made)
        return made

    def depth(self, topic: str, group: str) -> int:
        """As the bus."""
        return self._network.bus.depth(topic, group)

    async def drop_out(self) -> None:
        """The broker gives this process up: its members leave their groups."""
        for subscription in self.subscriptions:
            await subscription.throw_out()


class SimulatedSubscription:
    """A member that can be thrown out, and then joins again by itself when it next receives."""

    def __init__(
        self,
        network: Network,
        process: SimulatedProcess,
        topics: tuple[str, ...],
        group: str,
        inner: MemorySubscription,
    ) -> None:
        self._network, self._process = network, process
        self._topics, self._group = topics, group
        self._inner = inner
        self._out = self._closed = False

    async def receive(self, max_messages: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        """As the bus; a member that was thrown out is a new one."""
        while True:
            self._process.check()
            if self._out and not self._closed:
                self._inner = await self._network.bus.subscribe(self._topics, self._group)
                self._out = False
            inner = self._inner
            deliveries = await inner.receive(max_messages, admit)
            if self._network.customs is not None:
                self._network.customs.received(self._group, inner, deliveries)
            if deliveries or self._closed:
                return deliveries

    def look_again(self) -> None:
        """As the bus."""
        self._inner.look_again()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """As the bus; of a member that was thrown out it changes nothing."""
        self._process.check()
        if not self._out:
            for listener in self._network.on_ack:
                listener(self._group, deliveries)
            if self._network.customs is not None:
                self._network.customs.acknowledged(self._group, self._inner, deliveries)
            await self._inner.ack(deliveries)

    def owns(self, topic: str, key: str) -> bool:
        """As the bus; a member that was thrown out does not know it, and goes on believing what it knew."""
        return self._out or self._inner.owns(topic, key)

    def share(self, topic: str) -> float:
        """As the bus."""
        return self._inner.share(topic)

    async def close(self) -> None:
        """Leaves the group, unless the process is dead and the broker has not noticed."""
        if not self._process.cut:
            self._closed = True
            await self._leave()

    async def throw_out(self) -> None:
        """The broker does not believe in this member any more."""
        if not self._out and not self._closed:
            self._out = True
            await self._leave()

    async def _leave(self) -> None:
        if self._network.customs is not None:
            self._network.customs.left(self._inner)
        await self._inner.close()
