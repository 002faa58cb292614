"""Bugs of those who keep: the Data Plane, the store, dead letters, blobs, topics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from tests.simulation.planted.bug import plant, swapped
from tickwork import payloads, service
from tickwork.adapters.bus import memory
from tickwork.adapters.state.sqlite.transaction import AppendUnit, Head, Transaction
from tickwork.errors import StorageError
from tickwork.executor import payloads as executor_payloads
from tickwork.executor.worker import Executor
from tickwork.model import messages
from tickwork.model.messages import Append, Committed
from tickwork.model.records import Event, Payload, decode_entry
from tickwork.orchestrator import data_plane
from tickwork.orchestrator.data_plane import DataPlane
from tickwork.orchestrator.serving import BATCH, Serving
from tickwork.ports import Appended

BUSY: dict[str, Any] = {"slow": 0.5, "lifetimes": 4}
EAGER: dict[str, Any] = {"actions": 0.5, "lifetimes": 4}


@plant("a plane acknowledges its messages before it has handled them", "I18", "process.kill", "store.stall")
def acknowledged_before_commit() -> Iterator[None]:
    async def run(self: Any, handle: Any) -> None:
        subscription = self._subscription
        while deliveries := await subscription.receive(BATCH):
            await subscription.ack(deliveries)
            await self._surely(handle, deliveries)

    with swapped(Serving, "run", run):
        yield


@plant("the Data Plane sends references before the store has answered", "I11", "store.refuse", "store.lands_late")
def references_before_commit() -> Iterator[None]:
    real = DataPlane.record
    ends: dict[str, int] = {}

    async def record(self: Any, batch: Sequence[Append]) -> list[Appended]:
        for append in batch:
            if append.entries and append.lifetime_id in ends and append.expect is None:
                first = ends[append.lifetime_id] + 1
                await self.publish(
                    [Committed(append.tenant_id, append.lifetime_id, first, self._clock.now(), append.entries)]
                )
        results = await real(self, batch)
        for append, appended in zip(batch, results, strict=True):
            ends[append.lifetime_id] = appended.last_seq
        return results

    with swapped(DataPlane, "record", record):
        yield


@plant("a storage error is logged, and the messages are acknowledged all the same", "I18", "store.refuse")
def storage_error_swallowed() -> Iterator[None]:
    async def surely(self: Any, handle: Any, batch: Any) -> None:
        try:
            await handle(batch)
        except StorageError:
            self.retried += 1

    with swapped(Serving, "_surely", surely):
        yield


@plant("an append whose fate is unknown is made again under new ids", "I11", "store.lost_answer", "store.lands_late")
def unknown_commit_made_anew() -> Iterator[None]:
    real = DataPlane.record

    async def record(self: Any, batch: Sequence[Append]) -> list[Appended]:
        try:
            return await real(self, batch)
        except StorageError:
            return await real(self, [msgspec.structs.replace(a, entries=tuple(map(_anew, a.entries))) for a in batch])

    with swapped(DataPlane, "record", record):
        yield


def _anew(entry: Any) -> Any:
    if isinstance(entry, Event):
        return msgspec.structs.replace(entry, id=f"{entry.id}'")
    return msgspec.structs.replace(entry, exec_id=f"{entry.exec_id}'")


@plant("results that come too late are dropped instead of kept as superseded", "I18", "kv.flush", "kv.miss", slow=0.5)
def late_results_dropped() -> Iterator[None]:
    with swapped(data_plane, "_superseded", lambda _append, _appended: []):
        yield


@plant("the last record of an execution counts, not the first one", "I11", "bus.double", "kv.miss", slow=0.5)
def late_result_overwrites() -> Iterator[None]:
    real = Transaction._append_exact

    def append_exact(self: Any, unit: AppendUnit, now: int) -> None:
        real(self, unit, now)
        for index in unit.differs:
            entry_id, body = unit.rows[index]
            if not isinstance(decode_entry(body), Event):
                self._execute("UPDATE log SET body = ? WHERE lid = ? AND entry_id = ?", (body, unit.lid, entry_id))

    with swapped(Transaction, "_append_exact", append_exact):
        yield


@plant(
    "the store takes no notice of `expect`", "I3", "process.freeze", "bus.delay",
    rates={"process.freeze": 4.0, "bus.delay": 0.1}, phase=300.0, executors=2, lifetimes=4,
)  # fmt: skip
def compare_and_set_ignored() -> Iterator[None]:
    real = Transaction._place

    def place(self: Any, unit: AppendUnit, now: int) -> Head | None:
        unit.append.expect = None
        return real(self, unit, now)

    # Workers that notice that they were silent make good what it breaks.
    with swapped(Transaction, "_place", place), swapped(Executor, "_silent", lambda *_: False):
        yield


@plant(
    "a status computed from an old state overwrites a newer one", "I11", "bus.drop", "store.stall", "bus.delay", **EAGER
)
def status_without_as_of() -> Iterator[None]:
    real = Transaction._move

    def move(self: Any, unit: AppendUnit, projection: Any) -> None:
        self._execute("UPDATE lifetimes SET status_seq = 0 WHERE lid = ?", (unit.lid,))
        real(self, unit, projection)

    with swapped(Transaction, "_move", move):
        yield


@plant(
    "every intent is told to be accepted, whoever was first",
    "I3",
    "bus.double",
    "bus.rebalance",
    "kv.flush",
    "process.stop",
    **BUSY,
    processes=3,
)
def every_intent_accepted() -> Iterator[None]:
    real = DataPlane._give_receipt

    async def give_receipt(self: Any, append: Append, appended: Appended) -> None:
        await real(self, append, msgspec.structs.replace(appended, differs=(), stale=False))

    with swapped(DataPlane, "_give_receipt", give_receipt):
        yield


@plant("what cannot be read is dropped instead of kept as a dead letter", "I18", "bus.garble")
def dead_letters_dropped() -> Iterator[None]:
    async def bury(self: Any, dead: Sequence[Any]) -> None:
        self.counts["dead_letters"] += len(dead)

    with swapped(DataPlane, "_bury", bury):
        yield


@plant("a start forgets its idempotency key", "I1", "store.lost_answer")
def idempotency_key_ignored() -> Iterator[None]:
    real = service.new_lifetime

    def new_lifetime(*args: Any) -> Any:
        return real(*args[:-1], None)

    with swapped(service, "new_lifetime", new_lifetime):
        yield


@plant("a record that names a blob is published while the blob is not stored", "I16", calm=True, large=0.5)
def blob_after_record() -> Iterator[None]:
    async def spilled(_blobs: Any, tenant_id: str, payload: Payload) -> Payload:
        if payload.inline is None or payload.size <= payloads.INLINE_LIMIT:
            return payload
        sha256 = hashlib.sha256(payload.inline).hexdigest()
        return Payload(None, payload.content_type, f"blob://{tenant_id}/{sha256}", payload.size, sha256)

    with swapped(executor_payloads, "spilled", spilled):
        yield


@plant("all tenants share one topic", "I17", calm=True, tenants=2, lifetimes=4)
def tenants_share_a_topic() -> Iterator[None]:
    with swapped(messages, "topic", lambda name, _tenant: f"{name}.all"):
        yield


@plant("messages of one tenant are published on the topic of another", "I17", calm=True, tenants=2, lifetimes=4)
def first_tenants_topic_for_all() -> Iterator[None]:
    with swapped(messages, "topic", lambda name, _tenant: f"{name}.tenant0"):
        yield


@plant("the bus gives a key to a new member while the old one still works on it", "I4", "bus.rebalance", processes=3)
def key_handed_over_early() -> Iterator[None]:
    def owned(self: Any, key: str, count: int, by: Any = None) -> Any:
        owner = self.owners.setdefault(key, memory._Owner(by or self.members[0]))
        owner.open += count
        self.members.append(self.members.pop(0))
        owner.member = self.members[0]
        return owner.member

    with swapped(memory._Lane, "_owned", owned):
        yield


@plant("a wait that has its record stays in the inbox", "I11", calm=True)
def question_left_open() -> Iterator[None]:
    real = Transaction._project

    def project(self: Any, unit: AppendUnit, projection: Any) -> None:
        real(self, unit, msgspec.structs.replace(projection, questions_closed=()))

    with ExitStack() as stack:
        stack.enter_context(swapped(Transaction, "_project", project))
        yield


@plant("the references of one batch reach the Control Plane in any order, and what is missing is not read", "I9")
def gap_in_references_ignored() -> Iterator[None]:
    from tickwork.orchestrator.control_plane import ControlPlane

    real = ControlPlane._handle

    async def handle(self: Any, reference: Committed) -> None:
        state = self._held(reference.lifetime_id)
        if state is not None and reference.first_seq > state.seq + 1:
            state.seq = reference.first_seq - 1
        await real(self, reference)

    with swapped(ControlPlane, "_handle", handle):
        yield
