"""All chance of a simulation: every stream of random numbers has a name and comes from the seed.

Streams are apart, so that a fault that is drawn once more does not change the graph, and so that a seed means the same
in every process, whatever its hash seed.
"""

from __future__ import annotations

import math
import random  # noqa: TID251 - seeded streams are what a simulation is made of


class Dice(random.Random):
    """A stream of random numbers with a name."""

    def __init__(self, *name: object) -> None:
        super().__init__("/".join([str(part) for part in name]))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return probability > 0 and self.random() < probability

    def spread(self, low: float, high: float) -> float:
        """A number between two positive bounds, every order of magnitude as likely as any other."""
        return low * math.exp(self.random() * math.log(high / low))
