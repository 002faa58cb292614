"""What an adapter counts of its own work, for whoever tells it to Prometheus: tries, times, sizes, connections.

An adapter has one `Meters` for its life and adds to it on its event loop; whoever looks reads. Names and labels are
fixed when it is made, so that nothing grows with what passes through.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds for times: from what a local disk takes to what nobody waits for."""

SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Bounds for how much is done at a time."""

OTHER = "other"


class Histogram:
    """How often an amount fell between two bounds; the last count is of those above all bounds."""

    __slots__ = ("about", "bounds", "counts", "name", "sum")

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self.name, self.about, self.bounds = name, about, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        """Counts one amount."""
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.sum += amount


class Gauge(NamedTuple):
    """A size that is read when somebody asks: its values by those of its labels."""

    name: str
    about: str
    labels: tuple[str, ...]
    read: Callable[[], dict[tuple[str, ...], float]]


class Meters:
    """All that one adapter counts. `reasons`: why it tries something again; what has another reason is `other`."""

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        self.retries = dict.fromkeys((*reasons, OTHER), 0)
        """How often something was tried again, by reason; from the beginning, so that a rate sees the first one."""
        self.histograms: list[Histogram] = []
        self.gauges: list[Gauge] = []

    def retried(self, reason: str) -> None:
        """Something is about to be tried again."""
        self.retries[reason if reason in self.retries else OTHER] += 1

    def histogram(self, name: str, about: str, bounds: Sequence[float]) -> Histogram:
        """A new histogram; its name is told with the adapter's server before it."""
        made = Histogram(name, about, bounds)
        self.histograms.append(made)
        return made

    def gauge(
        self, name: str, about: str, labels: tuple[str, ...], read: Callable[[], dict[tuple[str, ...], float]]
    ) -> None:
        """A size that `read` tells whenever somebody asks."""
        self.gauges.append(Gauge(name, about, labels, read))
