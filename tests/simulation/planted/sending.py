"""Bugs of the planes on their way from one entry to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.simulation.planted.bug import plant, swapped
from tickwork.orchestrator import inputs, performing
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.sweeper import Sweeper


@plant("nobody takes up what a dead process left", "I9", "process.kill")
def nothing_taken_up() -> Iterator[None]:
    async def take_up_left(_self: Any) -> None:
        """Nothing."""

    async def recover(_self: Any, _tenant: str, _digest: str) -> int:
        return 0

    with swapped(Sweeper, "_take_up_left", take_up_left), swapped(Sweeper, "recover", recover):
        yield


@plant("what stands still is never looked at again", "I9", "bus.drop", processes=1, executors=0)
def nothing_rechecked() -> Iterator[None]:
    async def recheck(_self: Any, _lifetime: str, _leases: Any) -> None:
        """Nothing."""

    with swapped(ControlPlane, "recheck", recheck):
        yield


@plant("a status is told by whoever folds, and never again", "I9", "bus.drop", "bus.garble", "process.kill")
def status_told_once() -> Iterator[None]:
    with swapped(performing, "project", lambda *_: None):
        yield


@plant("a join hands on the results in the order of the log", "I5", calm=True, slow=0.5, lifetimes=3)
def joined_by_seq() -> Iterator[None]:
    real = inputs.EntryCache.entries

    async def entries(self: Any, state: Any, seqs: tuple[int, ...]) -> Any:
        return await real(self, state, tuple(sorted(seqs)))

    with swapped(inputs.EntryCache, "entries", entries):
        yield
