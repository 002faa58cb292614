"""What befalls whole processes, the key-value store and the clocks, at random times of the bad phase."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwork.testing.simulation.faults import LONGEST_OUTAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.testing.simulation.process import SimulatedProcess
    from tickwork.testing.simulation.world import World


class Chaos:
    """The one who does it."""

    def __init__(self, world: World) -> None:
        self.world, self.dice = world, world.faults.dice

    def start(self) -> list[asyncio.Task[None]]:
        """One task for each such fault that the seed drew."""
        deeds: dict[str, Callable[[], str | None]] = {
            "process.kill": self._kill,
            "process.stop": self._stop,
            "process.freeze": self._freeze,
            "bus.rebalance": self._rebalance,
            "kv.flush": self._flush,
            "clock.step": self._step,
            "kv.outage": self._kv_outage,
            "blob.outage": self._blob_outage,
        }
        if "clock.skew" in self.world.options.rates:
            self.world.faults.struck("clock.skew", "world")
        drawn = [(name, deed) for name, deed in deeds.items() if name in self.world.options.rates]
        return [self.world.loop.spawn(self.world.loop.outside, self._strike(name, deed)) for name, deed in drawn]

    async def _strike(self, name: str, deed: Callable[[], str | None]) -> None:
        while (pause := self.world.faults.pause_before(name)) is not None:
            await asyncio.sleep(pause)  # noqa: TID251 - virtual time
            if not self.world.faults.on:
                return
            place = deed()
            if place is not None:
                self.world.faults.struck(name, place)

    def _victim(self) -> SimulatedProcess | None:
        able = [process for process in self.world.processes if process.up and not process.frozen]
        return self.dice.choice(able) if able else None

    def _kill(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        self.world.kill(self.world.processes.index(victim))
        return victim.name

    def _stop(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        victim.stop(self.dice.choice([None, 0.0, 1.0, 30.0]))
        return victim.name

    def _freeze(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        victim.freeze()
        self.world.faults.stood_still.add(victim.name)
        loop = self.world.loop
        loop.call_later(self.dice.spread(0.1, 200), victim.thaw, context=loop.outside.context)
        return victim.name

    def _rebalance(self) -> str | None:
        victim = self._victim()
        if victim is None:
            return None
        self.world.after(0, victim.bus.drop_out)
        return victim.name

    def _flush(self) -> str:
        self.world.after(0, self.world.kv.stop)
        return "kv"

    def _kv_outage(self) -> str:
        return self._outage(self.dice.choice(["kv", "kv writes"]))

    def _blob_outage(self) -> str:
        return self._outage("blob")

    def _outage(self, what: str) -> str:
        until = self.world.loop.time() + self.dice.spread(1, LONGEST_OUTAGE)
        self.world.faults.outages[what] = max(until, self.world.faults.outages.get(what, 0.0))
        return what

    def _step(self) -> str:
        clock = self.dice.choice(self.world.clocks)
        clock.step(self.dice.choice([-1, 1]) * self.dice.spread(0.01, 600))
        return "clock"
