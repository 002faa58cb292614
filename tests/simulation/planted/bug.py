"""What a planted bug is: a context manager that makes real code wrong, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from tickwork.testing.simulation import Options, draw_options
from tickwork.testing.simulation.graphs import POOL


class Bug(msgspec.Struct, frozen=True):
    """A mistake that somebody could make. `faults` and `draws` make it likely to show."""

    name: str
    what: str
    """One sentence: what is wrong."""
    breaks: str
    """The invariant that it breaks; it may be found by another one as well."""
    patch: Callable[[], AbstractContextManager[None]]
    faults: tuple[str, ...] | None = None
    """The faults under which it shows; None: whatever the seed draws."""
    draws: dict[str, Any] = {}
    """Options that are not left to the seed."""

    def options(self, seed: int, *, hinted: bool = True) -> Options:
        """What a seed draws, as the hints have it."""
        if not hinted:
            return draw_options(seed, graphs=POOL)
        drawn = draw_options(seed, graphs=POOL, only=self.faults)
        # Policies change a world, so a bug that has nothing to do with them is looked for where there are none.
        return msgspec.structs.replace(drawn, **{"guarded": False, "roles": (), **self.draws})


PLANTED: dict[str, Bug] = {}
"""All of them, by name."""

Mistake = Callable[[], Iterator[None]]


def plant(what: str, breaks: str, *faults: str, calm: bool = False, **draws: Any) -> Callable[[Mistake], Mistake]:
    """Registers a bug. No `faults` and not `calm`: as the seed draws them."""

    def register(mistake: Mistake) -> Mistake:
        name = mistake.__name__
        under = faults if faults or calm else None
        PLANTED[name] = Bug(name, what, breaks, contextmanager(mistake), under, draws)
        return mistake

    return register


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """For a while `owner` has another thing of this name."""
    real = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)
