"""Bugs of workers, claims and leases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.simulation.planted.bug import plant, swapped
from tickwork.executor.attempt import Attempt
from tickwork.executor.claims import Claims, Published
from tickwork.executor.lanes import Lanes
from tickwork.executor.payloads import LargePayloads
from tickwork.executor.worker import Executor
from tickwork.model.claims import claim_key, claim_value
from tickwork.orchestrator.leases import Leases, Verdict
from tickwork.sdk.context import Context
from tickwork.testing.simulation.scheduler import OWNER

BUSY: dict[str, Any] = {"slow": 0.5, "lifetimes": 4}
LONG: dict[str, Any] = {"slow": 1.0, "lifetimes": 4, "phase": 300.0}


@plant("a worker takes what another one has claimed", "I3", "bus.double", "bus.rebalance", processes=3, **BUSY)
def claim_not_checked() -> Iterator[None]:
    real = Claims.take

    async def take(self: Any, work_id: str) -> bool:
        await real(self, work_id)
        return True

    with swapped(Claims, "take", take):
        yield


@plant("an `at_most_once` Task is called before its intent is recorded", "I3", "bus.double", "process.kill")
def called_without_intent() -> Iterator[None]:
    real = Attempt.__init__

    def init(self: Any, *args: Any) -> None:
        real(self, *args)
        self.permitted = True

    with swapped(Attempt, "__init__", init):
        yield


@plant(
    "a claim says when it was renewed, and other machines judge that by their own clocks", "I12", "clock.skew", **LONG
)
def lease_by_wall_clock() -> Iterator[None]:
    real_take, real_beat, real_look = Claims.take, Claims.beat, Leases.look

    def here() -> int:
        """What the wall clock of this machine says, in us."""
        return int(OWNER.get().host.clock.now())

    async def take(self: Any, work_id: str) -> bool:
        self._value = claim_value(self._worker, here())
        return await real_take(self, work_id)

    async def beat(self: Any, *rest: Any) -> Sequence[str]:
        self._beat = here()
        return await real_beat(self, *rest)

    async def look(self: Any, exec_id: str, *, called: bool = False, glance: bool = False) -> Verdict:
        value = await self._kv.get(claim_key(exec_id))
        if value is None:
            return await real_look(self, exec_id, called=called, glance=glance)
        return "lost" if here() - int(value.rpartition(b":")[2]) >= self.lease * 1e6 else "alive"

    async def given_up(_self: Any, lost: Iterable[str]) -> set[str]:
        return set(lost)

    with (
        swapped(Claims, "take", take), swapped(Claims, "beat", beat),
        swapped(Leases, "look", look), swapped(Leases, "given_up", given_up),
    ):  # fmt: skip
        yield


@plant("a worker is given up after a quarter of its lease", "I12", calm=True, **LONG)
def living_worker_given_up() -> Iterator[None]:
    real = Leases.look

    async def look(self: Any, exec_id: str, *, called: bool = False, glance: bool = False) -> Verdict:
        lease, self.lease = self.lease, self.lease / 4
        verdict = await real(self, exec_id, called=called, glance=glance)
        self.lease = lease
        return verdict

    with swapped(Leases, "look", look):
        yield


@plant(
    "a sweeper that was frozen takes what it saw before for the present", "I12", "process.freeze",
    rates={"process.freeze": 4.0}, processes=1, executors=0, **LONG,
)  # fmt: skip
def frozen_sweeper_judges() -> Iterator[None]:
    real = Leases._survey

    async def survey(self: Any, now: float) -> None:
        asleep = now - self._answered
        if asleep > self.lease / 2:
            self._well, self._answered = self._well + asleep, now  # it thinks that it has looked all the time
        await real(self, now)

    with swapped(Leases, "begin", lambda _self: None), swapped(Leases, "_survey", survey):
        yield


@plant("a worker does not renew its claims", "I12", calm=True, **LONG)
def claims_not_renewed() -> Iterator[None]:
    async def beat(_self: Any, *_: Any) -> Sequence[str]:
        return ()

    with swapped(Claims, "beat", beat):
        yield


@plant("a worker gives up its claims as soon as it has them", "I3", "bus.double", "bus.rebalance", processes=3, **BUSY)
def claims_let_go() -> Iterator[None]:
    real = Claims.take

    async def take(self: Any, work_id: str) -> bool:
        taken = await real(self, work_id)
        await self._kv.delete(claim_key(work_id))
        return taken

    with swapped(Claims, "take", take):
        yield


@plant("the idempotency key changes with the attempt", "I3", calm=True, failing=0.4)
def key_of_the_attempt() -> Iterator[None]:
    with swapped(Context, "idempotency_key", property(lambda self: self.exec_id)):
        yield


@plant("a worker answers with the record of other work", "I9", "bus.double", lifetimes=4)
def record_of_other_work() -> Iterator[None]:
    def get(self: Any, _work_id: str) -> bytes | None:
        return next(iter(self._records.values()), None)

    with swapped(Published, "get", get):
        yield


@plant("an attempt that is told to stop is not", "I7", calm=True, actions=0.5, slow=0.5)
def told_to_stop_and_goes_on() -> Iterator[None]:
    with swapped(Lanes, "stop", lambda *_: None):
        yield


@plant(
    "a worker acknowledges its input and forgets the result when the bus refuses it",
    "I12",
    "bus.refuse",
    phase=300.0,
    lifetimes=4,
)
def record_lost_on_the_way() -> Iterator[None]:
    from tickwork.errors import StorageError

    async def publish_surely(self: Any, topic: str, batch: Any) -> None:
        try:
            await self._bus.publish(topic, batch)
        except StorageError:
            return

    with swapped(Executor, "_publish_surely", publish_surely):
        yield


@plant(
    "an attempt of an `at_most_once` Task is given up, and its intent is left to whoever takes it", "I3",
    "process.freeze", "bus.delay", rates={"process.freeze": 4.0, "bus.delay": 0.1}, phase=300.0, executors=2,
    lifetimes=4, slow=0.5,
)  # fmt: skip
def intent_not_revoked() -> Iterator[None]:
    from tickwork.orchestrator import visits

    # Workers that notice that they were silent make good what it breaks.
    with swapped(visits, "revoked", lambda *_: ()), swapped(Executor, "_silent", lambda *_: False):
        yield


@plant(
    "a call that nobody claims is taken for lost, although the store of claims may have forgotten it", "I12",
    "kv.flush", rates={"kv.flush": 60.0}, **LONG,
)  # fmt: skip
def forgotten_taken_for_lost() -> Iterator[None]:
    real = Leases.look

    async def look(self: Any, exec_id: str, *, called: bool = False, glance: bool = False) -> Verdict:
        verdict = await real(self, exec_id, called=called, glance=glance)
        seen = self._seen[exec_id]
        if called and seen.absent is not None and self._well_at(seen.looked) - seen.absent >= self.lease / 2:
            return "lost"
        return verdict

    with swapped(Leases, "look", look):
        yield


@plant(
    "claims that could not be renewed while the store was away are taken for those of dead workers", "I12",
    "kv.outage", rates={"kv.outage": 2.0}, **LONG,
)  # fmt: skip
def outage_taken_for_silence() -> Iterator[None]:
    async def survey(self: Any, now: float) -> None:
        self._well, self._answered, self._ill = now, now, False

    with swapped(Leases, "_survey", survey):
        yield


@plant("a blob store that is away fails the attempts that need it", "I14", "blob.outage", large=0.5, lifetimes=4)
def blob_outage_fails_attempts() -> Iterator[None]:
    async def surely(_self: Any, _message: Any, _patience: float, work: Any) -> None:
        await work()

    with swapped(LargePayloads, "_surely", surely):
        yield
