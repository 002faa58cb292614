"""What travels on the bus. The lifetime id is the key of every message, so a lifetime has one order everywhere.

data-plane.<tenant>       Append      executor, control plane, service -> data plane
control-plane.<tenant>    Committed   data plane -> control plane: the reference
task-inputs.<tenant>      NodeInput   control plane -> executors
plan-inputs.<tenant>      NodeInput   control plane -> executors
cancellations.<tenant>    Cancel      control plane -> every executor
receipts.<tenant>         Receipt     data plane -> every executor: an intent is on disk
dead-letters.<tenant>     what cannot be decoded, as it came, with its topic and the reason in headers -> data plane
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from tickwork.model.claims import reconcile_work
from tickwork.model.graph import Effect
from tickwork.model.lifetime import Projection
from tickwork.model.records import Entry, Error, Payload, Status

DATA_PLANE = "data-plane"
CONTROL_PLANE = "control-plane"
TASK_INPUTS = "task-inputs"
PLAN_INPUTS = "plan-inputs"
CANCELLATIONS = "cancellations"
RECEIPTS = "receipts"
DEAD_LETTERS = "dead-letters"

INPUTS = (TASK_INPUTS, PLAN_INPUTS)
"""The topics that executors work on."""

REFERENCE_INLINE_LIMIT = 16 * 1024
"""Bytes of payload that a reference carries along; more is read back from the store by the one who needs it."""


def topic(name: str, tenant_id: str) -> str:
    """The topic of a tenant: tenants never share one."""
    return f"{name}.{tenant_id}"


def tenant_of(topic_name: str) -> str:
    """Whose topic that is."""
    return topic_name.partition(".")[2]


class Append(msgspec.Struct, array_like=True, gc=False):
    """Entries to add to one lifetime's log, all or none of them, and the read model's changes that go with them.

    An entry whose id is in the log already is a duplicate and is dropped; the others still count.
    """

    tenant_id: str
    lifetime_id: str
    entries: tuple[Entry, ...]
    projection: Projection | None = None
    expect: int | None = None
    """Compare-and-set: nothing of this is done unless the lifetime's last seq is this one."""
    receipt: str = ""
    """The worker that wants to hear whether the first entry is in the log."""
    ats: tuple[int, ...] | None = None
    """When (us) each entry was recorded first, for history that begins a lifetime (a fork); else it is now."""


class Committed(msgspec.Struct, array_like=True, gc=False):
    """The reference: entries that are now in the log, in order from `first_seq`, recorded at `at` (us).

    Without entries it says that the log reaches `first_seq - 1`: whoever knows less has to read it. Payloads above
    REFERENCE_INLINE_LIMIT are left out (`inline` and `uri` both None, `size` kept).
    """

    tenant_id: str
    lifetime_id: str
    first_seq: int
    at: int
    entries: tuple[Entry, ...]


def nudge(tenant_id: str, lifetime_id: str, last_seq: int, at: int) -> Committed:
    """A reference without entries: whoever gets it and does not hold the lifetime takes it up from its log."""
    return Committed(tenant_id, lifetime_id, last_seq + 1, at, ())


class Predecessor(msgspec.Struct, array_like=True, gc=False):
    """An execution before a node, as the node sees it."""

    exec_id: str
    name: str
    kind: Literal["task", "plan"]
    branch: str
    iteration: int
    status: Status
    result: Payload | None = None
    error: Error | None = None
    reason: str | None = None


class NodeInput(msgspec.Struct, array_like=True, gc=False):
    """TaskInput and PlanInput: everything an executor needs to make one attempt at a node."""

    tenant_id: str
    lifetime_id: str
    graph_digest: str
    kind: Literal["task", "plan"]
    node: str
    exec_id: str
    branch: str
    iteration: int
    attempt: int
    parents: tuple[str, ...]
    edge_taken: str
    created_at: int
    """When (us) the entry that caused this input was recorded."""
    input: Payload | None
    executions: tuple[Predecessor, ...]
    """The executions before this one: one, or every branch's at a JOIN, in branch order."""
    joined: bool = False
    """Whether a JOIN of a fan-out group fired this input; `input` is then the list of the branches' results."""
    lifetime_input: Payload | None = None
    labels: dict[str, str] | None = None
    effect: Effect = "idempotent"
    reconcile: bool = False
    """Whether the implementation's reconcile hook is to be asked what became of this execution."""

    @property
    def work_id(self) -> str:
        """What a worker claims: the execution, or asking about it."""
        return reconcile_work(self.exec_id) if self.reconcile else self.exec_id


class Cancel(msgspec.Struct, array_like=True, gc=False):
    """Stop these executions of a lifetime (`exec_ids`; None: all of them)."""

    tenant_id: str
    lifetime_id: str
    exec_ids: tuple[str, ...] | None
    reason: str


class Receipt(msgspec.Struct, array_like=True, gc=False):
    """Whether the entry that `worker` asked to have recorded is in the log as that worker wrote it."""

    tenant_id: str
    lifetime_id: str
    worker: str
    entry_id: str
    accepted: bool


class DeadLetter(msgspec.Struct, array_like=True, gc=False):
    """A message that could not be handled, as it came, and why. `at` in us; `letter_id` comes from what it is."""

    letter_id: str
    tenant_id: str
    topic: str
    key: str
    value: bytes
    reason: str
    at: int
    headers: dict[str, str] | None = None


def dead_letter(
    topic_name: str, key: str, value: bytes, reason: str, at: int, headers: dict[str, str] | None = None
) -> DeadLetter:
    """The dead letter of a message that came on a topic of a tenant; the same message again is the same letter."""
    named = hashlib.blake2b(digest_size=8)
    for part in (topic_name.encode(), key.encode(), value):
        named.update(b"%d:" % len(part) + part)
    return DeadLetter(named.hexdigest(), tenant_of(topic_name), topic_name, key, value, reason, at, headers)


encode = msgspec.msgpack.Encoder().encode
"""The bytes of any message here."""
decode_append = msgspec.msgpack.Decoder(Append).decode
decode_committed = msgspec.msgpack.Decoder(Committed).decode
decode_input = msgspec.msgpack.Decoder(NodeInput).decode
decode_cancel = msgspec.msgpack.Decoder(Cancel).decode
decode_receipt = msgspec.msgpack.Decoder(Receipt).decode
