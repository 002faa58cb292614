"""Bugs that are planted into the real code, so that the simulation proves that it would find them.

Each is a mistake that somebody could make, as a context manager around a run: production code knows nothing of it.
`python -m tests.simulation.planted` tells after how many seeds each is found, and by which invariant.
"""

from __future__ import annotations

from tests.simulation.planted import deciding, ending, guarding, keeping, sending, waiting, working
from tests.simulation.planted.bug import PLANTED, Bug

__all__ = ["PLANTED", "Bug", "deciding", "ending", "guarding", "keeping", "sending", "waiting", "working"]
