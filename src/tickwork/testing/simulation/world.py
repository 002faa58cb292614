"""One seed: a world of processes, people and faults; a bad time, then a world that is well, in which all must end.

`run_seed(seed)` is the whole of it. First the safety phase: faults strike, people meddle, and whatever is recorded has
to hold the invariants. Then everything is healed, and every lifetime has to end or to wait for something that has a
name: an open question, a timer, a person's pause. At last the people do all that is waited for, and every lifetime has
to end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.adapters.kv.memory import MemoryKV
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.errors import StorageError
from tickwork.history import FORK_LABEL
from tickwork.model import messages
from tickwork.model.lifetime import TERMINAL
from tickwork.model.policy import PolicySet, decode_set
from tickwork.model.records import Event, Execution
from tickwork.model.spending import LEASE_EXPIRED
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.starting import PARENT_LABEL
from tickwork.ports import LifetimeQuery
from tickwork.runtime import ROLES
from tickwork.testing.simulation import checkers
from tickwork.testing.simulation.chaos import Chaos
from tickwork.testing.simulation.clocks import SkewedClock
from tickwork.testing.simulation.dice import Dice
from tickwork.testing.simulation.faults import Faults, Options, draw_options
from tickwork.testing.simulation.graphs import POOL, children_of
from tickwork.testing.simulation.guarding import Officer
from tickwork.testing.simulation.laws import laws_of
from tickwork.testing.simulation.network import Network
from tickwork.testing.simulation.people import PATIENCE, Person
from tickwork.testing.simulation.process import SimulatedProcess, expected
from tickwork.testing.simulation.scheduler import SimulatedLoop, Stuck
from tickwork.testing.simulation.stores import LONGEST_STALL, Blobs, Database
from tickwork.testing.simulation.tenants import Journal
from tickwork.testing.simulation.trace import LogReader, Trace
from tickwork.testing.simulation.usercode import Ledger, bind_leaf, bind_pooled
from tickwork.testing.simulation.witnesses import GARBLED, Customs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.messages import Append
    from tickwork.model.records import LogEntry
    from tickwork.ports import Appended, Delivery
    from tickwork.runtime import Role
    from tickwork.sdk.loading import BoundGraph
    from tickwork.testing.simulation.history import History
    from tickwork.testing.simulation.laws import Law
    from tickwork.testing.simulation.people import Ack

REST = 1800.0
"""Virtual seconds after the healing within which every lifetime has ended or waits for something named."""

END = 7200.0
"""Virtual seconds after that within which every lifetime has ended, with people who do what is waited for."""

LOOK = 5.0
"""Virtual seconds between two looks at a world that is well."""

WORKER = " python/"
"""What stands in the `executor` of records that a worker made."""

ROUNDS = 10
"""How often what is pending at the end is told to stop."""

MOST_VIOLATIONS = 20
"""Violations of one seed that are told."""

CALLBACKS = 600_000
"""Callbacks after which a seed has lost its way."""

SMALL = {"INLINE_LIMIT": 4_000, "REFERENCE_INLINE_LIMIT": 1_000}
"""Bounds that are low in a simulation, so that what is large there costs no time."""


class Violation(msgspec.Struct):
    """An invariant that did not hold, and what shows it."""

    invariant: str
    evidence: str


class Report(msgspec.Struct, kw_only=True):
    """What became of one seed."""

    seed: int
    options: Options
    digest: str
    violations: list[Violation]
    fired: dict[str, int]
    """Faults that struck."""
    seen: dict[str, int]
    """What the logs show to have happened: see `EXPECTED`."""
    lifetimes: int
    entries: int
    calls: int
    callbacks: int
    virtual: float
    """Virtual seconds that it took."""
    ends: dict[str, int]
    """Lifetimes by their last status."""
    trace: list[str]
    """The last lines, or all that happened when that was asked for."""


class World:
    """Everything that one seed is made of."""

    def __init__(self, seed: int, options: Options, *, keep_all: bool = False) -> None:
        self.seed, self.options = seed, options
        self.dice = Dice(seed, "world")
        self.latencies = Dice(seed, "latency")
        self.loop = SimulatedLoop(Dice(seed, "schedule"), shuffled=options.shuffled, most_callbacks=CALLBACKS)
        self.loop.set_exception_handler(self._unhandled)
        self.trace = Trace(self.loop.time, keep_all=keep_all)
        self.faults = Faults(seed, options.rates, self.trace)
        self.closing = False
        self.violations: list[Violation] = []
        self.ledger = Ledger()
        self.acks: list[Ack] = []
        self.tenants = tuple([f"tenant{i}" for i in range(options.tenants)])
        self.bounds, self.mains = _bounds(options.graphs)
        self.network = Network(self.loop, self.faults)
        skew = options.skews[0]
        self.store_clock = SkewedClock(self.loop, *skew)
        machine = self.loop.place("store")
        self.database = Database(self.loop, SqliteStore(":memory:", self.store_clock), machine)
        self.kv = MemoryKV(self.store_clock)
        self.blobs = Blobs()
        self.processes: list[SimulatedProcess] = []
        self.people: list[Person] = []
        self.clocks = [SkewedClock(self.loop, *pair) for pair in options.skews[1:]]
        self._background: list[asyncio.Task[Any]] = []
        self._boots = 0
        self._settled: set[tuple[str, str]] = set()
        self.consumed: list[tuple[str, Execution]] = []
        """Results that the Data Plane has acknowledged."""
        self.histories: dict[str, History] = {}
        """What was recorded, once all is over."""
        self.dead_letters = 0
        self.troubled = False
        """Whether a process ever died, stopped or froze."""
        self.ended_at: dict[str, float] = {}
        """When the end of a lifetime was recorded."""
        self.lost_at: dict[str, float] = {}
        """When an execution was recorded as lost with its worker, or as unknown."""
        self.unreadable: list[tuple[str, bytes]] = []
        """What was acknowledged although nobody could read it, with its topic."""
        self.network.customs = Customs(self)
        self.officer = Officer(self) if options.guarded else None
        self.journal = Journal(self)
        self.noticed: Counter[str] = Counter()
        """What people saw happen that no log shows."""
        self._sets: dict[str, PolicySet] = {}
        self._rules: dict[str, Rules] = {}
        self._laws: dict[str, list[Law]] = {}

    # -- what its parts ask for

    def violation(self, invariant: str, evidence: str) -> None:
        """Notes that an invariant does not hold."""
        found = Violation(invariant, evidence)
        if found not in self.violations and len(self.violations) < MOST_VIOLATIONS:
            self.trace("world", f"VIOLATION {invariant}: {evidence}")
            self.violations.append(found)

    def after(self, seconds: float, deed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does something of the world's own after virtual seconds."""

        async def later() -> None:
            await asyncio.sleep(seconds)  # noqa: TID251 - virtual time
            await deed()

        self._background.append(self.loop.spawn(self.loop.outside, later()))

    def some_process(self, dice: Dice) -> SimulatedProcess | None:
        """A process that people can talk to; None when there is none."""
        able = [process for process in self.processes if process.service is not None]
        return dice.choice(able) if able else None

    async def ask(self, process: SimulatedProcess, what: Callable[[Any], Awaitable[Any]], of: str = "service") -> Any:
        """Has a process do something for a person. StorageError when it does not answer."""
        reply: asyncio.Future[Any] = self.loop.create_future()

        async def serve() -> None:
            try:
                if process.service is None:
                    raise StorageError("the process is stopping")
                value = await what(getattr(process, of))
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                if not reply.done():
                    reply.set_exception(error)
            else:
                if not reply.done():
                    reply.set_result(value)

        def no_answer() -> None:
            if not reply.done():
                reply.set_exception(StorageError("no answer came"))

        process.spawn(serve())
        timer = self.loop.call_later(PATIENCE, no_answer)
        try:
            return await reply
        finally:
            timer.cancel()

    def graph(self, digest: str) -> AgentGraph:
        """The graph of this world with this digest."""
        return next(bound.graph for bound in self.bounds if bound.graph.digest == digest)

    async def learn(self, log: Iterable[LogEntry]) -> None:
        """Reads the policies that a log names, for `rules_of` and `laws_of`."""
        for logged in log:
            entry = logged.entry
            if not isinstance(entry, Event) or entry.type not in ("started", "policies", "verdict"):
                continue
            digest = entry.data.get("policies" if entry.type == "started" else "digest") or ""
            if digest and digest not in self._sets:
                body = await self.database.store.policy_set(digest)
                if body is None:
                    self.violation("I8", f"{entry.id} names the policies {digest}, which nobody kept")
                else:
                    self._sets[digest] = decode_set(body)

    def rules_of(self, digest: str) -> Rules:
        """The policies of a digest, as the engine reads them. LookupError."""
        if digest not in self._rules:
            self._rules[digest] = Rules(self._sets[digest])
        return self._rules[digest]

    def laws_of(self, digest: str) -> list[Law]:
        """The policies of a digest, read a second time."""
        if digest not in self._laws:
            self._laws[digest] = laws_of(self._sets.get(digest, PolicySet()))
        return self._laws[digest]

    def _appended(self, process: str, append: Append, appended: Appended) -> None:
        """The store has answered: what was asked about these entries is settled."""
        ids = [entry.entry_id for entry in append.entries]
        self._settled.update((append.lifetime_id, entry_id) for entry_id in ids)
        new = [f"{seq}:{entry_id}" for seq, entry_id in zip(appended.seqs, ids, strict=True) if seq is not None]
        status = append.projection.status if append.projection is not None else None
        if new or appended.error or appended.stale:
            what = " ".join(new) or appended.error or "stale"
            self.trace(process, f"records {append.lifetime_id[-6:]} {what}{f' -> {status}' if status else ''}")
        elif status:
            self.trace(process, f"projects {append.lifetime_id[-6:]} -> {status}")
        for seq, entry in zip(appended.seqs, append.entries, strict=True):
            if seq is None:
                continue
            if isinstance(entry, Execution) and entry.error is not None and entry.error.type == LEASE_EXPIRED:
                self.lost_at[entry.exec_id] = self.loop.time()
            elif isinstance(entry, Event) and entry.type == "unknown":
                self.lost_at[entry.data["exec_id"]] = self.loop.time()
        if status in TERMINAL and new:
            self.ended_at.setdefault(append.lifetime_id, self.loop.time())

    def _acked(self, group: str, deliveries: Sequence[Delivery]) -> None:
        """I18: the Data Plane acknowledges nothing before the store has answered for it."""
        self.unreadable += [(d.topic, d.message.value) for d in deliveries if d.message.value.startswith(GARBLED)]
        if group != messages.DATA_PLANE:
            return
        for delivery in deliveries:
            try:
                append = messages.decode_append(delivery.message.value)
            except msgspec.MsgspecError:
                continue  # it was garbled
            for entry in append.entries:
                if (append.lifetime_id, entry.entry_id) not in self._settled:
                    self.violation("I18", f"{entry.entry_id} was acknowledged before it was recorded")
                if isinstance(entry, Execution) and WORKER in entry.executor and entry.status != "CANCELLED":
                    self.consumed.append((append.lifetime_id, entry))

    async def lifetimes(self) -> list[Lifetime]:
        """All of them, children too, oldest first."""
        found: list[Lifetime] = []
        for tenant in self.tenants:
            found += await self.database.store.list_lifetimes(tenant, LifetimeQuery(limit=10_000))
        return sorted(found, key=lambda lifetime: lifetime.lifetime_id)

    async def forks(self, tenant: str, lifetime_id: str) -> list[str]:
        """The forks of a lifetime, known or not to those who asked for them."""
        query = LifetimeQuery(label=(FORK_LABEL, lifetime_id), limit=1000)
        return sorted([one.lifetime_id for one in await self.database.store.list_lifetimes(tenant, query)])

    async def family(self, tenant: str, lifetime_id: str | None) -> list[Lifetime]:
        """The open ones among a lifetime and its children."""
        if lifetime_id is None:
            return []
        store = self.database.store
        found = await store.get_lifetime(tenant, lifetime_id)
        query = LifetimeQuery(label=(PARENT_LABEL, lifetime_id), limit=1000)
        found += await store.list_lifetimes(tenant, query)
        return sorted((one for one in found if not one.ended), key=lambda one: one.lifetime_id)

    # -- processes

    def boot(self, slot: int) -> None:
        """Starts the process of this slot anew."""
        self._boots += 1
        only_code = slot >= self.options.processes
        name = f"{'x' if only_code else 'p'}{slot}.{self._boots}"
        clock = self.clocks[slot % len(self.clocks)]
        shared = self.options.roles
        roles: frozenset[Role] = frozenset({"executor"}) if only_code else frozenset(shared[slot]) if shared else ROLES
        process = SimulatedProcess(self, name, clock, roles)
        if slot < len(self.processes):
            self.noticed.update(self.processes[slot].counted())
            self.processes[slot] = process
        else:
            self.processes.append(process)

    def fallen(self, process: SimulatedProcess, error: BaseException | None) -> None:
        """A process has ended by itself: it is started again. A bug is a violation."""
        self.troubled = True
        if not expected(error):
            self.violation("crash", f"{process.name} fell: {type(error).__name__}: {error}")
        self._restart_later(self.processes.index(process))

    def _restart_later(self, slot: int) -> None:
        delay = self.dice.spread(0.1, 60) if self.faults.on else 0.5
        process = self.processes[slot]

        def restart() -> None:
            if self.processes[slot] is process:
                self.boot(slot)

        self.loop.call_later(delay, restart, context=self.loop.outside.context)

    def kill(self, slot: int) -> None:
        """The process of this slot dies; it comes back after a while."""
        if not self.processes[slot].cut:
            self.processes[slot].kill()
            self._restart_later(slot)

    # -- its course

    async def live(self) -> None:
        """The whole of it."""
        await self.database.store.start()
        self.network.on_ack.append(self._acked)
        self.database.on_append.append(self._appended)
        if self.officer is not None:
            await self.officer.begin()
        # A deployment that ran before: who joins this group finds what was buried while none of its members was there.
        await (await self.network.bus.subscribe([f"{messages.DEAD_LETTERS}.*"], messages.DEAD_LETTERS)).close()
        for slot in range(self.options.processes + self.options.executors):
            self.boot(slot)
        self.people = [Person(self, number) for number in range(self.options.lifetimes)]
        lives = [self.loop.spawn(self.loop.place(f"person{p.number}"), p.live()) for p in self.people]
        if self.officer is not None and self.options.reloading:
            lives.append(self.loop.spawn(self.loop.place("officer"), self.officer.live()))
        strikes = Chaos(self).start()
        await self._bad_time()
        for task in strikes:
            if task.done():
                task.result()  # a fault that could not be made to strike is a fault of the simulation
            task.cancel()
        self._heal()
        await asyncio.gather(*lives)
        await self._until(REST, self._unrest, "is neither at its end nor waiting for anything named")
        await self._until(REST, lambda: checkers.rows_that_lie(self), "is not what its log says", invariant="I11")
        await self._until(END, self._open, "does not end although all it waits for is done", helping=True)
        if self.unreadable:
            await asyncio.sleep(LONGEST_STALL)  # noqa: TID251 - virtual time, for a letter whose store stalls
        for tenant in self.tenants:
            self.dead_letters += len(await self.database.store.dead_letters(tenant, 1000))
        await checkers.check_all(self)

    async def _bad_time(self) -> None:
        """Until the phase is over, or all has ended early."""
        until = self.loop.time() + self.options.phase
        while self.loop.time() < until:
            await asyncio.sleep(min(LOOK, self.options.phase))  # noqa: TID251 - virtual time
            if all(person.lifetime_id for person in self.people) and not await self._open():
                return

    def _heal(self) -> None:
        self.trace("world", "is well from here on")
        self.faults.on = False
        self.network.let_all_go()
        for slot, process in enumerate(self.processes):
            process.thaw()
            if not process.up:
                self._restart_later(slot)

    async def _until(
        self,
        bound: float,
        wrong: Callable[[], Awaitable[list[Lifetime]]],
        what: str,
        *,
        helping: bool = False,
        invariant: str = "I9",
    ) -> None:
        """Waits until nothing is wrong any more; a violation when that takes longer than `bound`."""
        until = self.loop.time() + bound
        while found := await wrong():
            if self.loop.time() >= until:
                for one in found:
                    how = await checkers.standing(self, one)
                    self.violation(invariant, f"after {bound:g} s, {how} {what}")
                return
            if len(self.violations) >= MOST_VIOLATIONS:
                return  # a process that falls at each start does so for ever
            if helping:
                for person in self.people:
                    await person.help()
            await asyncio.sleep(LOOK)  # noqa: TID251 - virtual time

    async def _open(self) -> list[Lifetime]:
        """Lifetimes that have not ended."""
        return await self.database.store.open_lifetimes(limit=100_000)

    async def _unrest(self) -> list[Lifetime]:
        """Lifetimes that have not ended and wait for nothing that has a name."""
        return [one for one in await self._open() if not await checkers.waits_for_something_named(self, one)]

    def counts(self) -> dict[str, Any]:
        """Lifetimes, entries of their logs, and how they ended."""
        ends: dict[str, int] = {}
        for history in self.histories.values():
            ends[history.lifetime.status] = ends.get(history.lifetime.status, 0) + 1
        entries = sum(len(history.log) for history in self.histories.values())
        seen = Counter(what for history in self.histories.values() for what in history.seen())
        seen["dead letter"] = self.dead_letters
        seen.update(self.noticed)
        for process in self.processes:
            seen.update(process.counted())
        return {
            "lifetimes": len(self.histories),
            "entries": entries,
            "ends": dict(sorted(ends.items())),
            "seen": {name: seen[name] for name in sorted(seen)},
        }

    def close(self) -> None:
        """Takes everything down in order: what is pending is cancelled, with all ports cut."""
        self.closing = True
        for process in self.processes:
            process.cut = True
        self.loop.release()
        for _ in range(ROUNDS):
            left = asyncio.all_tasks(self.loop)
            if not left:
                break
            for task in left:
                task.cancel()
            # What swallows its cancellation is told again.
            with suppress(Stuck):
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.closing and "never retrieved" not in context["message"]:
            self.violation("crash", f"{context['message']}: {context.get('exception')!r}")


def _bounds(numbers: tuple[int, ...]) -> tuple[list[BoundGraph], list[int]]:
    """The graphs of a world, children first, and which of them people start."""
    mains = [bind_pooled(number) for number in dict.fromkeys(numbers)]
    leaves = dict.fromkeys(number for main in mains for number in children_of(main.graph))
    bounds = [bind_leaf(number) for number in leaves]
    return [*bounds, *mains], [len(bounds) + i for i in range(len(mains))]


def run_seed(
    seed: int,
    *,
    options: Options | None = None,
    without: Iterable[str] = (),
    only: Iterable[str] | None = None,
    patches: Iterable[AbstractContextManager[Any]] = (),
    keep_all: bool = False,
) -> Report:
    """Runs one seed to its end and says what became of it.

    `options`: instead of what the seed draws. `without`, `only`: see `draw_options`. `patches`: context managers that
    are entered around the run, to plant a bug. `keep_all`: keep every line of the trace.
    """
    options = options or draw_options(seed, graphs=POOL, without=without, only=only)
    log = logging.getLogger("tickwork")
    world = World(seed, options, keep_all=keep_all)
    reader = LogReader(world.trace, lambda text: world.violation("crash", text), watched=keep_all)
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.callback(setattr, log, "propagate", log.propagate)
        stack.callback(log.setLevel, log.level)
        log.propagate = False
        log.setLevel(logging.WARNING if keep_all else logging.ERROR)
        log.addHandler(reader)
        stack.callback(log.removeHandler, reader)
        if gc.isenabled():
            stack.callback(gc.enable)
            gc.disable()
        stack.enter_context(_small_limits())
        return _play(world)


@contextmanager
def _small_limits() -> Iterator[None]:
    """Lowers the bounds in `SMALL` wherever a module has taken them from the one that defines them."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tickwork.")]
    real = [(vars(module), name, vars(module)[name]) for module in modules for name in SMALL if name in vars(module)]
    for names, name, _ in real:
        names[name] = SMALL[name]
    try:
        yield
    finally:
        for names, name, value in real:
            names[name] = value


def _play(world: World) -> Report:
    main = world.loop.spawn(world.loop.outside, world.live())
    try:
        world.loop.run_until_complete(main)
    except Stuck as stuck:
        world.violation("I9", str(stuck))
    except Exception as error:  # noqa: BLE001 - whatever it is, its seed and its trace have to be told
        world.violation("crash", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    counts = world.counts()
    world.trace("world", f"ends after {world.loop.steps} callbacks with {counts}")
    report = Report(
        seed=world.seed,
        options=world.options,
        digest=world.trace.digest,
        violations=list(world.violations),
        fired=dict(world.faults.fired),
        seen=counts["seen"],
        lifetimes=counts["lifetimes"],
        entries=counts["entries"],
        calls=len(world.ledger.calls),
        callbacks=world.loop.steps,
        virtual=world.loop.time(),
        ends=counts["ends"],
        trace=list(world.trace.lines),
    )
    world.close()
    return report
