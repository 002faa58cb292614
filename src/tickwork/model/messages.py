"""What travels on the bus. The lifetime id is the key of every message, so a lifetime has one order everywhere.

data-plane.<tenant>       Append      executor, control plane, service -> data plane
control-plane.<tenant>    Committed   data plane -> control plane: the reference
task-inputs.<tenant>      NodeInput   control plane -> executors
plan-inputs.<tenant>      NodeInput   control plane -> executors
cancellations.<tenant>    Cancel      control plane -> every executor
dead-letters.<tenant>     what cannot be decoded, as it came, with the reason in a header
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tickwork.model.lifetime import Projection
from tickwork.model.records import Entry, Error, Payload, Status

DATA_PLANE = "data-plane"
CONTROL_PLANE = "control-plane"
TASK_INPUTS = "task-inputs"
PLAN_INPUTS = "plan-inputs"
CANCELLATIONS = "cancellations"
DEAD_LETTERS = "dead-letters"

REFERENCE_INLINE_LIMIT = 16 * 1024
"""Bytes of payload that a reference carries along; more is read back from the store by the one who needs it."""


def topic(name: str, tenant_id: str) -> str:
    """The topic of a tenant: tenants never share one."""
    return f"{name}.{tenant_id}"


class Append(msgspec.Struct, array_like=True, gc=False):
    """Entries to add to one lifetime's log, all or none of them, and the read model's changes that go with them.

    An entry whose id is in the log already is a duplicate and is dropped; the others still count.
    """

    tenant_id: str
    lifetime_id: str
    entries: tuple[Entry, ...]
    projection: Projection | None = None


class Committed(msgspec.Struct, array_like=True, gc=False):
    """The reference: entries that are now in the log, in order from `first_seq`, recorded at `at` (us).

    Payloads above REFERENCE_INLINE_LIMIT are left out (`inline` and `uri` both None, `size` kept).
    """

    tenant_id: str
    lifetime_id: str
    first_seq: int
    at: int
    entries: tuple[Entry, ...]


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


class Cancel(msgspec.Struct, array_like=True, gc=False):
    """Stop these executions of a lifetime (`exec_ids`; None: all of them)."""

    tenant_id: str
    lifetime_id: str
    exec_ids: tuple[str, ...] | None
    reason: str


encode = msgspec.msgpack.Encoder().encode
"""The bytes of any message here."""
decode_append = msgspec.msgpack.Decoder(Append).decode
decode_committed = msgspec.msgpack.Decoder(Committed).decode
decode_input = msgspec.msgpack.Decoder(NodeInput).decode
decode_cancel = msgspec.msgpack.Decoder(Cancel).decode
