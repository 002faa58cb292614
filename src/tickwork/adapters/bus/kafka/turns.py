"""What waits to be received, topic by topic: topics take turns, and one that holds too much is told apart.

Each tenant has topics of its own, so turns between topics are turns between tenants. What waits on one does not stand
behind all that waits on another, and whoever floods the system fills his own share of the room and no more: that topic
is *crowded* then, and no more is fetched of it until half of its share is gone.

A topic's share is half of the room that the others leave: 16,384 messages for one alone, 10,922 for each of two that
want all they can get. So there is always room for one that comes anew.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat, takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tickwork.adapters.bus.kafka.progress import Progress
    from tickwork.ports import Delivery

    Waiting = tuple[Progress, int, Delivery]
    """Its partition, its offset there, and what the receiver is given."""

MESSAGES: Final = 32_768
"""Messages that there is room for. It takes a third of a second until what was kept back comes again, for a client asks
a broker for one thing at a time: a quarter of these has to last so long (`python -m benchmarks.kafka` has a receiver
that is slower than what comes).
"""
BYTES: Final = 64 * 1024 * 1024
"""Their bytes, at most."""
SHORT: Final = 128
"""Messages of a topic in one take, while another has fewer than that: who has few does not wait until many are handled
with them."""
HARD: Final = 2
"""Times that room in all, after which nothing is fetched of any topic: many that came anew have each brought more."""


class Line:
    """What waits on one topic, in order."""

    __slots__ = ("crowded", "items", "size")

    def __init__(self) -> None:
        self.items: deque[Waiting] = deque()
        self.size = 0
        self.crowded = False


class Turns:
    """All that waits in one subscription. It knows no lock: whoever has it has one."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        """The topic whose turn is next comes first; none is empty."""
        self.messages = self.size = 0
        self.full = False
        """Whether there is too much of everything."""
        self.crowded: frozenset[str] = frozenset()
        """Topics of which no more is to be fetched; each of them has something that waits."""

    def put(self, topic: str, item: Waiting, size: int) -> None:
        """The last on its topic. `settle` after the last one."""
        line = self._lines.get(topic)
        if line is None:
            line = self._lines[topic] = Line()
        line.items.append(item)
        line.size += size
        self.messages += 1
        self.size += size

    def take(self, most: int, admit: Callable[[str], bool] | None = None) -> list[Waiting]:
        """At most so many, an equal share of each topic, of each in order; what one does not need the others have,
        unless there is one with so few that the take is to be short. `admit` may hold a topic back (see Subscription).
        """
        taken: list[Waiting] = []
        held_back: dict[str, Line] = {}
        short = len(self._lines) > 1 and min(len(line.items) for line in self._lines.values()) < SHORT
        while self._lines and (left := most - len(taken)) > 0 and not (taken and short):
            share = max(1, left // len(self._lines))
            share = min(share, SHORT) if short else share
            for topic in list(self._lines)[:left]:
                line = self._lines.pop(topic)
                wanted = min(share, len(line.items))
                may = wanted if admit is None else sum(1 for _ in takewhile(admit, repeat(topic, wanted)))
                if may == len(line.items):
                    taken += line.items
                    self.size -= line.size
                    continue
                popped = [line.items.popleft() for _ in range(may)]
                size = sum(len(item[2].message.value) for item in popped)
                taken += popped
                line.size -= size
                self.size -= size
                (self._lines if may == wanted else held_back)[topic] = line  # its next turn comes after the others'
        self._lines |= held_back
        self.messages -= len(taken)
        if self.crowded or self.full:
            self.settle(())
        return taken

    def drop(self, gone: Callable[[Progress], bool]) -> None:
        """Throws away what came from these partitions."""
        lines, self._lines = self._lines, {}
        self.messages = self.size = 0
        for topic, line in lines.items():
            for item in line.items:
                if not gone(item[0]):
                    self.put(topic, item, len(item[2].message.value))
            if topic in self._lines:
                self._lines[topic].crowded = line.crowded
        self.settle(())

    def settle(self, grown: Iterable[str]) -> None:
        """Finds out which topics are crowded, now that these have grown and others may have shrunk."""
        if self.full:
            self.full = self.messages >= MESSAGES or self.size >= BYTES
        else:
            self.full = self.messages >= HARD * MESSAGES or self.size >= HARD * BYTES
        changed = False
        for topic in (*grown, *self.crowded):
            line = self._lines.get(topic)
            if line is None:
                changed = True
            elif line.crowded != (crowded := self._above(line, 0.5 if line.crowded else 1.0)):
                line.crowded = crowded
                changed = True
        if changed:
            self.crowded = frozenset(topic for topic in (*grown, *self.crowded) if self._holds_too_much(topic))

    def _holds_too_much(self, topic: str) -> bool:
        line = self._lines.get(topic)
        return line is not None and line.crowded

    def _above(self, line: Line, part: float) -> bool:
        """Whether it has more than this part of its share."""
        room, space = MESSAGES - self.messages + len(line.items), BYTES - self.size + line.size
        return len(line.items) > part * room / 2 or line.size > part * space / 2

    def __len__(self) -> int:
        return self.messages
