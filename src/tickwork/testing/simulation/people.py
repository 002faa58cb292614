"""The people around simulated lifetimes: they start, answer, signal, pause, resume, abort and reconcile.

They talk to any process that is up, over a line that may break: then they do not know what became of it and ask again,
as a client does. What was acknowledged to them is kept, and must never be lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.errors import AlreadyEnded, AnswerRefused, Conflict, NotFound, StorageError, UsageError
from tickwork.model.records import Event, Execution
from tickwork.testing.simulation.dice import Dice
from tickwork.testing.simulation.graphs import SIGNALS
from tickwork.testing.simulation.guarding import ILLEGAL, TEAMS, raise_of, run_policies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.testing.simulation.world import World

MOST_FORKS = 3
"""Forks that one person asks for."""

MOST_TRIES = 8
"""Times that somebody raises a limit before it is the policy that has to give way."""

PATIENCE = 20.0
"""Virtual seconds that a caller waits for an answer."""


_REFUSED = frozenset({f"resume {raised}" for raised in ILLEGAL})


class Ack(msgspec.Struct):
    """Something that was acknowledged to a person. `token` finds it in the log."""

    what: str
    tenant_id: str
    lifetime_id: str
    token: Any = None


class Person:
    """Looks after one lifetime: starts it, then meddles with it."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.dice = Dice(world.seed, "person", number)
        self.tenant = world.tenants[number % len(world.tenants)]
        self.graph = world.bounds[world.mains[number % len(world.mains)]].graph
        self.lifetime_id: str | None = None
        self.forks: list[str] = []
        """Forks of that lifetime, and of those."""
        self._signals = 0
        self._tries: Counter[str] = Counter()
        """How often each lifetime was helped on from a pause."""
        graphs = [bound.graph for bound in world.bounds]
        self.policies = run_policies(Dice(world.seed, "run", number), graphs) if world.options.guarded else None

    async def live(self) -> None:
        """From the start of the lifetime until the faults are over."""
        await asyncio.sleep(self.dice.uniform(0, 3))  # noqa: TID251 - virtual time
        while not await self.start():  # noqa: ASYNC110 - what it waits for is an answer, not an event
            await asyncio.sleep(self.dice.uniform(0.1, 5))  # noqa: TID251 - virtual time
        while self.world.faults.on:
            await asyncio.sleep(self.dice.expovariate(1 / self.world.options.actions))  # noqa: TID251 - virtual time
            if self.world.faults.on:
                await self.meddle()

    async def start(self) -> bool:
        """Starts the lifetime, under its own key: whether that is known to have worked."""
        key = f"key-{self.number}"
        labels = {"team": TEAMS[self.number % len(TEAMS)]} if self.world.options.guarded else {}
        made = await self._call(
            "start",
            lambda service: service.start(
                self.graph.digest, {"n": self.number}, tenant=self.tenant, idempotency_key=key, labels=labels,
                policies=self.policies,
            ),
        )  # fmt: skip
        if made is None:
            return False
        if self.lifetime_id is not None and made.lifetime_id != self.lifetime_id:
            self.world.violation("I1", f"key {key} started {self.lifetime_id} and then {made.lifetime_id}")
        self.lifetime_id = made.lifetime_id
        self._acked("start", made.lifetime_id, key)
        return True

    async def meddle(self) -> None:
        """One thing that a person may do."""
        lifetime_id = self.lifetime_id
        if lifetime_id is None:
            return
        lifetime_id = self.dice.choice([lifetime_id, lifetime_id, *self.forks])
        deed = self.dice.choice(
            ["answer"] * 6 + ["signal"] * 4 + ["pause"] * 2 + ["resume"] * 3 + ["reconcile"] * 2 + ["again"]
        )
        if len(self.forks) < MOST_FORKS and self.dice.chance(self.world.options.forking):
            deed = "fork"
        if self.dice.chance(0.02):
            deed = "abort"
        if deed == "answer":
            await self.answer(wrong=self.dice.chance(0.2), twice=self.dice.chance(0.2))
        elif deed == "signal":
            await self.signal(lifetime_id, self.dice.choice(SIGNALS))
        elif deed == "reconcile":
            await self.reconcile()
        elif deed == "again":
            await self.start()
        elif deed == "fork":
            await self.fork(lifetime_id)
        elif deed == "pause":
            await self._verb("pause", lifetime_id)
        elif deed == "resume":
            await self._resume(lifetime_id)
        else:
            await self._verb("abort", lifetime_id)

    async def answer(self, *, wrong: bool = False, twice: bool = False) -> None:
        """Answers one open question of the family."""
        question = await self._question("human")
        if question is None:
            return
        payload: Any = {"n": self.dice.randint(0, 9), "token": self.dice.getrandbits(40)}
        by = question.who[0] if question.who else "bob"
        if wrong:
            payload, by = ("nonsense", by) if question.answer_schema is not None else (payload, "mallory")
        if twice and not wrong:
            other = {**payload, "token": self.dice.getrandbits(40)}
            await asyncio.gather(self._answer(question, payload, by), self._answer(question, other, by))
        elif await self._answer(question, payload, by) and wrong and (question.answer_schema or question.who):
            self.world.violation("I1", f"a wrong answer to {question.exec_id} was taken")

    async def _answer(self, question: Question, payload: Any, by: str) -> bool:
        done = await self._call(
            f"answer {question.node}",
            lambda service: service.answer(
                question.lifetime_id, payload, tenant=self.tenant, exec_id=question.exec_id, by=by
            ),
        )
        if done is not None:
            self._acked("answer", question.lifetime_id, (question.exec_id, payload))
        return done is not None

    async def signal(self, lifetime_id: str, name: str) -> None:
        """Sends a signal with a payload of its own."""
        self._signals += 1
        payload = {"n": self._signals, "token": f"{self.number}.{self._signals}"}
        done = await self._call(
            f"signal {name}", lambda service: service.signal(lifetime_id, name, payload, tenant=self.tenant)
        )
        if done is not None:
            self._acked("signal", lifetime_id, payload)

    async def reconcile(self) -> None:
        """Says what became of a call that nobody knows of, or that a poisoned visit may run again."""
        question = await self._question("unknown") or await self._question("poison")
        if question is None:
            return
        calls = self.world.ledger.by_exec.get(question.exec_id, [])
        said: dict[str, Any] = {"retry": True}
        if question.on == "unknown" and calls:
            said = {"result": {"n": 1}} if calls[0].how == "returned" else {"failed": calls[0].how or "it died"}
        await self._call(
            f"reconcile {question.node} as {next(iter(said))}",
            lambda service: service.reconcile(
                question.lifetime_id, tenant=self.tenant, exec_id=question.exec_id, by="ada", **said
            ),
        )

    async def fork(self, lifetime_id: str) -> None:
        """Forks a lifetime at one of its executions, sometimes with another result."""
        log = await self.world.database.store.read_log(self.tenant, lifetime_id, 0, 1_000)
        done = [e.entry for e in log if isinstance(e.entry, Execution)]
        if not done:
            return
        at = self.dice.choice(done)
        result: Any = {"n": self.dice.randint(0, 9)} if at.kind == "task" else []
        other = {"result": result} if self.dice.chance(0.4) else {}
        made = await self._call(
            f"fork at {at.name} {at.exec_id}",
            lambda past: past.fork(lifetime_id, at.exec_id, tenant=self.tenant, by="eve", **other),
            of="past",
        )
        if made is not None:
            self._acked("fork", made.lifetime_id, lifetime_id)
            self.forks.append(made.lifetime_id)

    async def _mine(self) -> list[Lifetime]:
        """The open lifetimes of the family: its own, its forks, and the children of all of them."""
        found: list[Lifetime] = []
        for one in [self.lifetime_id, *self.forks]:
            found += await self.world.family(self.tenant, one)
        return found

    async def help(self) -> None:
        """In a world that is well: does whatever the family waits for."""
        known = [*([self.lifetime_id] if self.lifetime_id else []), *self.forks]
        for one in known:  # it grows: a fork that nobody was told of may have forks, too
            for fork in await self.world.forks(self.tenant, one) if self.world.options.forking else []:
                if fork not in known:
                    known.append(fork)
                    self.forks.append(fork)
        for lifetime in await self._mine():
            if lifetime.status == "PAUSED":
                await self._help_on(lifetime.lifetime_id)
            for question in await self.world.database.store.questions(self.tenant, lifetime.lifetime_id):
                if question.on == "signal":
                    await self.signal(lifetime.lifetime_id, question.signal)
        await self.answer()
        await self.reconcile()

    # -- limits

    async def _resume(self, lifetime_id: str) -> None:
        """Lets it go on as it is, or with a limit that is higher; or tries to give it one that cannot be."""
        if not self.world.options.guarded:
            await self._verb("resume", lifetime_id)
        elif self.dice.chance(0.1):
            raised = self.dice.choice(ILLEGAL)
            if await self._verb("resume", lifetime_id, raised=raised):
                self.world.violation("I8", f"{raised} was taken for limits of {lifetime_id}")
        else:
            label = await self._stopped_by(lifetime_id) if self.dice.chance(0.7) else ""
            raised = {label: str(self.dice.choice([1, 30, 200, 10**6, 10**17]))} if label else {}
            await self._verb("resume", lifetime_id, raised=raised)

    async def _help_on(self, lifetime_id: str) -> None:
        """In a world that is well: as high as it takes; then the policies have to go, or the lifetime."""
        label = await self._stopped_by(lifetime_id)
        self._tries[lifetime_id] += 1
        tries = self._tries[lifetime_id]
        if label and tries > MOST_TRIES and self.world.officer is not None:
            if tries % MOST_TRIES == 0 and label.startswith("run/"):
                await self._verb("abort", lifetime_id)
                return
            await self.world.officer.give_way()
        if not label or not await self._verb("resume", lifetime_id, raised={label: raise_of(tries)}):
            await self._verb("resume", lifetime_id)

    async def _stopped_by(self, lifetime_id: str) -> str:
        """The policy that the last pause of a lifetime is by, "" for a person's."""
        log = await self.world.database.store.read_log(self.tenant, lifetime_id, 0, 10_000)
        pauses = [e.entry for e in log if isinstance(e.entry, Event) and e.entry.type == "paused"]
        return pauses[-1].data.get("policy") or "" if pauses else ""

    # -- how they ask

    async def _verb(self, verb: str, lifetime_id: str, **options: Any) -> bool:
        told = f"{verb} {options['raised']}" if options.get("raised") else verb
        done = await self._call(
            told, lambda service: getattr(service, verb)(lifetime_id, tenant=self.tenant, **options)
        )
        if done is not None and verb != "resume":
            self._acked(verb, lifetime_id)
        if done is not None and options.get("raised"):
            self._acked("raise", lifetime_id, options["raised"])
        return done is not None

    async def _question(self, on: str) -> Question | None:
        found: list[Question] = []
        for lifetime in await self._mine():
            found += await self.world.database.store.questions(self.tenant, lifetime.lifetime_id, on=on)
        return self.dice.choice(found) if found else None

    def _acked(self, what: str, lifetime_id: str, token: Any = None) -> None:
        self.world.acks.append(Ack(what, self.tenant, lifetime_id, token))

    async def _call(self, what: str, ask: Callable[[Any], Awaitable[Lifetime]], of: str = "service") -> Lifetime | None:
        """Asks some process: what it says, or None when it refuses or does not answer."""
        process = self.world.some_process(self.dice)
        name = f"person{self.number}"
        if process is None:
            return None
        self.world.trace(name, f"asks {process.name}: {what}")
        try:
            made: Lifetime = await self.world.ask(process, ask, of)
        except (AlreadyEnded, AnswerRefused, Conflict, NotFound, UsageError, StorageError) as error:
            self.world.trace(name, f"{what}: {type(error).__name__}")
            if type(error) is UsageError and what in _REFUSED:
                self.world.noticed["an illegal raise refused"] += 1
            return None
        except Exception as error:  # noqa: BLE001 - nobody may ever see such an error, whatever it is
            self.world.violation("crash", f"{what} raised {type(error).__name__}: {error}")
            return None
        self.world.trace(name, f"{what}: done")
        return made
