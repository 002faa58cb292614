"""When each Task of each lifetime is to return: drawn before the run, whatever the engine makes of it.

Time is counted twice. In *turns*, a lifetime thinks for one turn on the average (evenly, half to one and a half), and
that never changes. How long a turn is in seconds, the stages say: at 300 planner loops a second, 10,000 lifetimes take
33 s for a turn. So one run has several rates, each of them even from its first second on, and any process that knows
the stages knows when a Task is due, without asking another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

_MASK = (1 << 64) - 1


class Stage(msgspec.Struct, frozen=True):
    """So many planner loops a second (of all lifetimes of a group together), for so many seconds."""

    rate: float
    seconds: float


class Schedule(msgspec.Struct, frozen=True):
    """Of one group of `lives` lifetimes. `origin`: when the first stage begins, on this machine's monotonic clock."""

    origin: float
    lives: int
    stages: tuple[Stage, ...]

    def seconds(self, turns: float) -> float | None:
        """The moment at which so many turns are over; None when that is after the last stage."""
        at = self.origin
        for stage in self.stages:
            length = stage.rate * stage.seconds / self.lives
            if turns < length:
                return at + turns * self.lives / stage.rate
            turns -= length
            at += stage.seconds
        return None

    def dues(self, life: int) -> Iterator[float]:
        """The moments at which the Tasks of a lifetime are to return, the first one first."""
        number, turns = 0, first_turn(life)
        while (due := self.seconds(turns)) is not None:
            yield due
            number += 1
            turns += next_turn(life, number)

    def windows(self) -> Iterator[tuple[Stage, float, float]]:
        """Each stage, from when to when it lasts."""
        at = self.origin
        for stage in self.stages:
            yield stage, at, at + stage.seconds
            at += stage.seconds


def first_turn(life: int) -> float:
    """As far off as that of a thinker whom one meets in the middle: long thinkers are met more often."""
    return math.sqrt(0.25 + 2 * _draw(life, -1)) * _draw(life, 0)


def next_turn(life: int, number: int) -> float:
    """How long Task `number` of a lifetime thinks."""
    return 0.5 + _draw(life, number)


def _draw(life: int, number: int) -> float:
    """From 0 to 1, the same in every process: SplitMix64 of both numbers."""
    mixed = (life * 0x9E3779B97F4A7C15 + (number + 2) * 0xD1B54A32D192ED03) & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) / 2**64
