"""The rig: one scenario after the other, each in a world of its own (database, prefixes, processes), on one set of
servers and through one proxy.

A scenario is calm, then faulty, then healed. What is measured: the first record of a worker after the fault is over,
and the longest that a step which was due then took. What is checked: see `check`.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec

from tests.acceptance import crash_shapes
from tests.chaos import check, graphs
from tests.chaos.client import Client
from tests.chaos.clocks import Clocks
from tests.chaos.disk import SmallDisk
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy
from tests.chaos.services import Services, through, upstreams
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

LEASE = 3.0
PACE = 0.15
RATE = 3.0
"""Lifetimes started a second: two cores carry all servers and processes."""

CALM = 2.0
"""Seconds before the first fault."""

SETTLED = 60.0
"""Seconds after healing by which every lifetime has to have ended."""


KINDS = ("lost", "doubled", "stranded", "other", "late")
"""Of what may be wrong. `late`: it came to a good end, but not in the time that is promised on a machine at rest."""


class Scenario(msgspec.Struct, frozen=True):
    """A fault, and what has to hold of it."""

    name: str
    what: str
    strike: Callable[[World], Awaitable[None]]
    """Does it, for some seconds; what it did is told to the world. Healing comes after it."""
    within: float | None = None
    """Seconds after each mark (see World) in which every step has to be done that was due then."""
    first_within: float | None = None
    """Likewise, until a worker's first record."""
    blob_faults: bool = False
    exits: bool = False
    """Processes may end by themselves."""
    small_disk: bool = False
    """Its database lies on a disk that can be filled up."""
    clocks: bool = False
    """The clocks of its processes can be set."""


class Report(msgspec.Struct):
    """What came of a scenario."""

    name: str
    lifetimes: int = 0
    faults: int = 0
    calls: int = 0
    repeated: int = 0
    first: float | None = None
    longest: float = 0.0
    ended: float = 0.0
    """Seconds from the end of the fault to the end of the last lifetime."""
    recovered: dict[str, int] = {}
    wrong: dict[str, list[str]] = {}
    exits: list[str] = []
    seconds: float = 0.0
    folder: str = ""

    def count(self, kind: str) -> int:
        """Findings of a kind."""
        return len(self.wrong.get(kind, []))


class World:
    """What a scenario may break, and what it says of that."""

    def __init__(self, rig: Rig, fleet: Fleet, database: str, environment: dict[str, str]) -> None:
        self.services, self.proxy, self.seconds, self.rng = rig.services, rig.proxy, rig.seconds, rig.rng
        self.fleet, self.database, self.environment = fleet, database, environment
        self.disk: SmallDisk | None = None
        self.faults = 0
        self.marks: list[int] = []
        """Moments (us) from which recovery is counted: a process was killed, or a server came back."""

    def mark(self) -> None:
        """Recovery is counted from now."""
        self.marks.append(now())

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to this world's database, past the proxy, as who may do everything."""
        connection = await asyncpg.connect(self.services.admin(self.database))
        try:
            yield connection
        finally:
            await connection.close()


class Rig:
    """The servers and the proxy; `run` is one scenario."""

    def __init__(self, folder: Path, seconds: float, seed: int = 1) -> None:
        self._folder, self.seconds = folder, seconds
        self.services = Services(folder / "services")
        self._proxy: Proxy | None = None
        self.rng = random.Random(seed)
        self._number = 0

    async def start(self) -> None:
        """Starts the servers and the proxy."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await self.services.start()
        self._proxy = await Proxy.start(upstreams(self.services.urls))

    async def stop(self) -> None:
        """Ends them, and removes what the servers wrote."""
        if self._proxy is not None:
            await self._proxy.stop()
        await self.services.stop()

    @property
    def proxy(self) -> Proxy:
        """What stands before the servers."""
        assert self._proxy is not None
        return self._proxy

    async def run(self, scenario: Scenario) -> Report:
        """Runs one scenario; what is wrong stands in its report."""
        begun = time.monotonic()
        self._number += 1
        database = f"chaos_{os.getpid()}_{self._number}"
        folder = self._folder / database
        folder.mkdir(parents=True)
        report = Report(scenario.name, folder=str(folder))
        await self.services.restore()  # what an earlier scenario killed
        disk = SmallDisk(self.services.admin(), f"{database}_disk") if scenario.small_disk else None
        if disk is not None:
            await disk.make()
        await self.services.database(database, disk.name if disk is not None else "pg_default")
        environment = through(self.services.urls, self.proxy.ports, database)
        ledger = folder / "ledger"
        clocks = Clocks(folder) if scenario.clocks else None
        crash_shapes.ledger.open(ledger)
        fleet = Fleet({**environment, graphs.LEDGER: str(ledger), graphs.PACE: str(PACE)}, folder, LEASE, clocks)
        world = World(self, fleet, database, environment)
        world.disk = disk
        fired = await self.proxy.heal()
        try:
            async with Runtime(Profile.cloud(environment), roles=frozenset()) as runtime:
                client = Client(runtime, folder)
                await fleet.start()
                await self._course(scenario, world, client, runtime, report)
                fired = await self.proxy.heal() - fired
                await self._judge(scenario, world, client, runtime, report)
                report.faults += fired
                client.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other scenarios are run, and the report says it
            told = "".join(traceback.format_exception(error)[-3:])
            report.wrong.setdefault("other", []).append(f"the scenario broke: {told}")
        finally:
            await fleet.stop()
            await self.proxy.heal()
            if disk is not None:
                await disk.remove(database)
        report.exits = fleet.exits
        report.seconds = time.monotonic() - begun
        if not any(report.wrong.values()):
            shutil.rmtree(folder)
        return report

    async def _course(self, scenario: Scenario, world: World, client: Client, runtime: Runtime, report: Report) -> None:
        over = now()
        people = asyncio.create_task(client.answer_all())
        starting = asyncio.create_task(client.run(RATE))
        try:
            async with asyncio.timeout(SETTLED):
                await self._until_ended(world, 1)  # all is warm
            await asyncio.sleep(CALM)
            await scenario.strike(world)
            for name in self.proxy.ports:
                await self.proxy.order(name, "set")
                await self.proxy.order(name, "accept")
            await self.services.restore()
            over = now()
            world.marks = world.marks or [over]
            await asyncio.sleep(CALM)
            starting.cancel()
            async with asyncio.timeout(SETTLED):
                await client.settle()
                await self._until_ended(world, client.keys)
        except TimeoutError:
            report.wrong.setdefault("stranded", []).extend(await self._stranded(world))
        finally:
            starting.cancel()
            people.cancel()
            await asyncio.gather(starting, people, return_exceptions=True)
        report.ended = (now() - over) / 1e6

    async def _until_ended(self, world: World, tops: int) -> None:
        """Until so many lifetimes that were started here have ended; all of them, when it is all that were started."""
        async with world.admin() as connection:
            while True:
                done = await connection.fetchval(
                    "SELECT count(*) FROM tickwork.heads h JOIN tickwork.lifetimes l USING (tenant_id, lifetime_id) "
                    "WHERE h.finished_at IS NOT NULL AND l.idempotency_key IS NOT NULL"
                )
                if done >= tops:
                    return
                await asyncio.sleep(0.1)

    async def _stranded(self, world: World) -> list[str]:
        async with world.admin() as connection:
            return [
                f"{row['graph_name']} {row['lifetime_id']} stands at {row['status']}, seq {row['seq']}, for "
                f"{(now() - row['updated_at']) / 1e6:.0f} s; asked: {row['asked']}, timers: {row['timers']}"
                for row in await connection.fetch(check.STANDING)
            ]

    async def _judge(self, scenario: Scenario, world: World, client: Client, runtime: Runtime, report: Report) -> None:
        folder = Path(report.folder)
        account = check.CloudAccount(folder, client.keys, world.faults, scenario.blob_faults)
        blobs = world.environment["TICKWORK_BLOB_URL"]
        await account.read(self.services.admin(world.database), blobs)
        account.judge()
        for kind, wrong in account.findings().items():
            report.wrong.setdefault(kind, []).extend(wrong)
        other = report.wrong["other"]
        for lifetime_id in account.rows:
            replayed = await runtime.history.replay(lifetime_id)
            if replayed.divergence is not None:
                other.append(f"{lifetime_id} replays otherwise: {replayed.divergence}")
        other += client.surprises + world.fleet.tracebacks()
        if not scenario.exits:
            other += world.fleet.exits
        if scenario.clocks and account.clock_differences() != {-1, 1}:
            other.append("no worker's clock was seen ahead, or none behind")
        report.lifetimes, report.faults = len(account.rows), world.faults
        report.calls, report.repeated = len(account.calls), account.repeated()
        report.recovered = dict(check.recovery_entries(account.rows.values()))
        report.longest = max((account.longest_step(at) for at in world.marks), default=0.0)
        firsts = [account.first_after(at) for at in world.marks]
        report.first = max((first for first in firsts if first is not None), default=None)
        late = report.wrong["late"] = []
        if scenario.within is not None and report.longest > scenario.within:
            late.append(f"a step that was due took {report.longest:.1f} s, {scenario.within:g} s at most")
        if scenario.first_within is not None and (report.first is None or report.first > scenario.first_within):
            late.append(f"the first record came after {report.first} s, {scenario.first_within:g} s at most")


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def table(reports: list[Report]) -> str:
    """One line a scenario, as docs/chaos.md has them."""
    columns = (
        "lifetimes", "calls", "faults", *KINDS, "repeated calls", "first record s", "longest step s", "all ended s",
    )  # fmt: skip
    lines = ["| scenario | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for r in reports:
        first = "" if r.first is None else f"{r.first:.1f}"
        kinds = " | ".join(str(r.count(kind)) for kind in KINDS)
        lines.append(
            f"| {r.name} | {r.lifetimes} | {r.calls} | {r.faults} | {kinds} | {r.repeated} | {first} | "
            f"{r.longest:.1f} | {r.ended:.1f} |"
        )
    total = Counter[str]()
    for r in reports:
        total.update(r.recovered)
    lines.append("")
    lines.append("In the logs: " + ", ".join(f"{n} {kind}" for kind, n in sorted(total.items())))
    return "\n".join(lines)


@asynccontextmanager
async def rig(folder: Path, seconds: float, seed: int = 1) -> AsyncIterator[Rig]:
    """The servers and the proxy, as long as the block lasts."""
    made = Rig(folder, seconds, seed)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
