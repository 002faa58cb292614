"""How far a group has come on one partition, when messages are acknowledged in any order.

Only the offset before which all is acknowledged can be committed. What is acknowledged above it, and how far messages
were handed out, travel in the commit's note, so that the next owner of the partition neither repeats the first nor
takes the second for new. A note is a hint: without one, more comes twice.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

NOTE_LIMIT: Final = 3000
"""Characters of a note; brokers take 4096."""

_NOTE: Final = re.compile(r"tw1 (\d{1,18})((?: \d{1,18}\+\d{1,9})*)")


class Progress:
    """One partition in one consumer's hands. Offsets come in order; acknowledgements as they like."""

    __slots__ = (
        "_done",
        "_open",
        "_skip",
        "end",
        "handed",
        "in_hand",
        "leaving",
        "partition",
        "position",
        "stirred",
        "topic",
    )

    def __init__(self, topic: str, partition: int, start: int, note: str = "") -> None:
        self.topic, self.partition = topic, partition
        self.position = start
        """The next offset to come; negative until the first has come."""
        self.end = start
        """The offset after the partition's last message, as far as is known."""
        self.stirred = False
        """Whether anything was acknowledged since the last commit."""
        self.in_hand: set[int] = set()
        self.leaving = False
        """It goes to another member: nothing more is handed out."""
        self.handed, self._skip = _read(note)
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def came(self, offset: int) -> bool:
        """Takes note of the next message; False when it was acknowledged before and is not to be handed out."""
        self.position = offset + 1
        if self._skip:
            if any(first <= offset < end for first, end in self._skip):
                if self._open:
                    self._open.append(offset)
                    self._done.add(offset)
                return False
            self._skip = [(first, end) for first, end in self._skip if end > offset]
        self._open.append(offset)
        return True

    def hand_out(self, offset: int) -> None:
        """It is in the receiver's hands from now on."""
        self.in_hand.add(offset)
        if offset >= self.handed:
            self.handed = offset + 1

    def ack(self, offset: int) -> bool:
        """Marks it as done; False when it is not in anybody's hands here."""
        if offset not in self.in_hand:
            return False
        self.in_hand.discard(offset)
        self.stirred = True
        waiting, done = self._open, self._done
        done.add(offset)
        while waiting and waiting[0] in done:
            done.discard(waiting.popleft())
        return True

    @property
    def low(self) -> int:
        """The offset before which all is acknowledged."""
        return self._open[0] if self._open else self.position

    @property
    def open(self) -> int:
        """How many came and are not acknowledged."""
        return len(self._open) - len(self._done)

    def behind(self, end: int = 0) -> int:
        """How many are not acknowledged, with those that did not come yet; `end` may know more of those."""
        return self.open + max(0, max(self.end, end) - max(self.position, 0))

    def note(self) -> str:
        """What the next owner should know beside `low`."""
        said = f"tw1 {max(self.handed, 0)}"
        ranges: list[list[int]] = []
        old = [offset for first, end in self._skip for offset in (first, end) if end > self.position]
        for offset in sorted(self._done):
            if ranges and ranges[-1][1] == offset:
                ranges[-1][1] += 1
            else:
                ranges.append([offset, offset + 1])
        ranges += [[first, end] for first, end in zip(old[::2], old[1::2], strict=True)]
        for first, end in ranges:
            said += f" {first}+{end - first}"
            if len(said) > NOTE_LIMIT:
                return said.rpartition(" ")[0]
        return said


def _read(note: str) -> tuple[int, list[tuple[int, int]]]:
    """What a note says: handed out before which offset, and which ranges above the commit are acknowledged."""
    found = _NOTE.fullmatch(note or "")
    if found is None:
        return 0, []
    pairs = (item.partition("+") for item in found[2].split())
    return int(found[1]), [(int(first), int(first) + int(count)) for first, _, count in pairs]
