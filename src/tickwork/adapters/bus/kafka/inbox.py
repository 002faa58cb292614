"""Between a consumer's thread and the event loop: messages that wait to be received, and how far each partition is.

One lock, held for moments. The thread puts, takes partitions away and commits; the loop takes and acknowledges. What
waits is handed out in turns between topics, and each has a share of the room (see turns).

A process that stood still for long (it was stopped, its machine slept) wakes up with messages that others have been
given meanwhile, and does not know it. So nothing is handed out when the thread has not come by for `patience` seconds:
everything is in doubt until it has asked the brokers whether it is a member still.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from tickwork.adapters.bus.kafka.turns import Turns
from tickwork.ports import BusMessage, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from confluent_kafka import Message

    from tickwork.adapters.bus.kafka.progress import Progress
    from tickwork.ports import Clock

PARTITIONS: Final = 65536
"""A delivery's offset is the message's, times this, and the partition."""

PULSE: Final = 0.25
"""Seconds after which the thread, while it waits here, says that it has not stood still."""


class Inbox:
    """What one subscription holds. `wake` is called, from the thread, when a receiver waits and there is something.

    `patience`: seconds without a sign of the thread after which what is held is in doubt.
    """

    def __init__(self, prefix: str, wake: Callable[[], None], clock: Clock, patience: float) -> None:
        self._prefix, self._wake, self._clock, self._patience = len(prefix), wake, clock, patience
        self._came_by = clock.monotonic()
        self.doubted = False
        """Whether it has to be asked if the partitions are ours still; nothing is handed out before."""
        self._changed = threading.Condition()
        self._waiting = Turns()
        self._closing = False
        self.hungry = False
        """Whether a receiver waits; set by it, under no lock: a wake-up too many does no harm."""
        self.parts: dict[tuple[str, int], Progress] = {}

    # The thread's side

    def put(self, messages: Iterable[Message]) -> None:
        """Takes in what was fetched, unless its partition is not ours any more or it was acknowledged before."""
        with self._changed:
            grown = set()
            for message in messages:
                if self._closing:
                    continue
                topic = (message.topic() or "")[self._prefix :]
                number, offset = message.partition() or 0, message.offset() or 0
                progress = self.parts.get((topic, number))
                if progress is None or progress.leaving or not progress.came(offset):
                    continue
                value = message.value() or b""
                said = BusMessage((message.key() or b"").decode("utf-8", "replace"), value, _headers(message))
                delivery = Delivery(topic, said, offset * PARTITIONS + number, redelivered=offset < progress.handed)
                self._waiting.put(topic, (progress, offset, delivery), len(value))
                grown.add(topic)
            self._waiting.settle(grown)
            self._feed()

    def _feed(self) -> None:
        if self.hungry and self._waiting and not self.doubted:
            self.hungry = False
            self._wake()

    def come_by(self) -> bool:
        """The thread says that it goes on; called at least every `patience` seconds. Whether all is in doubt."""
        with self._changed:
            return self._pulse()

    def _pulse(self) -> bool:
        now = self._clock.monotonic()
        self.doubted = self.doubted or now - self._came_by > self._patience
        self._came_by = now
        return self.doubted

    def trust(self) -> None:
        """What is held is ours: it may be handed out again."""
        with self._changed:
            self.doubted = False
            self._came_by = self._clock.monotonic()
            self._feed()

    @property
    def crowded(self) -> frozenset[str]:
        """Topics of which enough wait to be received; all of them when there is too much in all."""
        waiting = self._waiting
        return waiting.crowded if not waiting.full else frozenset(topic for topic, _ in self.parts)

    def wait_for_room(self, seconds: float) -> None:
        """Blocks until there is room for every topic, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or not self.crowded, seconds)

    def wait_for_close(self, seconds: float) -> None:
        """Blocks so long, less when the subscription is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def adopt(self, parts: Iterable[Progress]) -> None:
        """These partitions are ours from now on."""
        with self._changed:
            for progress in parts:
                self.parts[progress.topic, progress.partition] = progress

    def give_up(self, keys: Iterable[tuple[str, int]], patience: float) -> list[Progress]:
        """Stops handing out from these partitions, and waits for what is in hand to be acknowledged."""
        with self._changed:
            going = [self.parts[key] for key in keys if key in self.parts]
            for progress in going:
                progress.leaving = True
            self._waiting.drop(lambda progress: progress.leaving)
            until = self._clock.monotonic() + patience
            while (left := until - self._clock.monotonic()) > 0 and any(p.in_hand for p in going) and not self._closing:
                self._changed.wait(min(left, PULSE))
                self._pulse()
            return going

    def drop(self, parts: Iterable[Progress]) -> None:
        """These are somebody else's now; what is acknowledged on them later is ignored."""
        with self._changed:
            for progress in parts:
                self.parts.pop((progress.topic, progress.partition), None)

    def moved(self) -> list[tuple[Progress, int, str]]:
        """Where the partitions stand on which something was acknowledged since this was asked last."""
        with self._changed:
            stirred = [progress for progress in self.parts.values() if progress.stirred]
        return self.standing(stirred)

    def standing(self, parts: Iterable[Progress]) -> list[tuple[Progress, int, str]]:
        """Where these stand: all before an offset is acknowledged, and what the next owner should know beside it."""
        found = []
        with self._changed:
            for progress in parts:
                progress.stirred = False
                if progress.low >= 0:
                    found.append((progress, progress.low, progress.note()))
        return found

    def not_committed(self, keys: Iterable[tuple[str, int]]) -> None:
        """A commit of these failed: once more."""
        with self._changed:
            for key in keys:
                progress = self.parts.get(key)
                if progress is not None:
                    progress.stirred = True

    # The loop's side

    def take(self, most: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        """What waits, at most so many, of each partition in order: it is in the receiver's hands then."""
        with self._changed:
            taken: list[Delivery] = []
            self.doubted = self.doubted or self._clock.monotonic() - self._came_by > self._patience
            crowded = self.crowded
            for progress, offset, delivery in self._waiting.take(most, admit) if not self.doubted else ():
                progress.hand_out(offset)
                taken.append(delivery)
            if crowded and not self.crowded:
                self._changed.notify_all()
            self.hungry = not taken
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks them as done, in any order. What is not in hand here is ignored."""
        with self._changed:
            leaving = False
            for delivery in deliveries:
                offset, number = divmod(delivery.offset, PARTITIONS)
                progress = self.parts.get((delivery.topic, number))
                if progress is not None and progress.ack(offset):
                    leaving = leaving or progress.leaving
            if leaving:
                self._changed.notify_all()

    def has(self, topic: str, number: int) -> bool:
        """Whether this partition is ours, and stays so as far as is known."""
        progress = self.parts.get((topic, number))
        return progress is not None and not progress.leaving

    def close(self) -> None:
        """Nothing more is handed out; whoever waits for room or for acknowledgements goes on."""
        with self._changed:
            self._closing = True
            self._waiting = Turns()
            self._changed.notify_all()

    def behind(self, wanted: Callable[[str], bool], ends: Callable[[str], dict[int, int]]) -> int:
        """Messages that are not acknowledged, on these topics' partitions that are ours."""
        with self._changed:
            return sum(
                progress.behind(ends(topic).get(number, 0))
                for (topic, number), progress in self.parts.items()
                if wanted(topic)
            )


def _headers(message: Message) -> dict[str, str] | None:
    pairs = message.headers()
    if not pairs:
        return None
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
        for name, value in (pairs.items() if isinstance(pairs, dict) else pairs)
    }
