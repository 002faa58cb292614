"""What the Control Plane knows of a lifetime: a fold of its log, and of nothing else.

The state is owned by whoever folds and is advanced in place; it holds no payloads, only where they stand in the log,
so it stays small however long the lifetime runs. It can be dropped at any time and rebuilt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from tickwork.model.graph import Edge
    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import Entry, Error, Payload
    from tickwork.orchestrator.topology import Topology

MAX_BUFFERED_SIGNALS = 1000
"""Signals of one name that are kept until somebody waits for them; later ones are recorded, but not kept."""

MAX_LOSSES = 8
"""Attempts of one visit that may be lost with their workers before it is taken for what kills them."""

LEASE_EXPIRED = "LeaseExpired"
"""The error type of an attempt whose worker is gone."""

Phase = Literal["ready", "sent", "waiting", "backoff", "timer", "reconciling"]
"""ready: to be dispatched; sent: at an executor (or a child lifetime); waiting: for a human or a signal; backoff: for
the timer of its next attempt; timer: a timer Task; reconciling: UNKNOWN, and its hook is asked."""

Trouble = Literal["", "unknown", "poison"]
"""Why a visit that runs code waits for a person: nobody knows whether it ran, or its workers die of it."""


class Source(msgspec.Struct, gc=False, array_like=True):
    """Where a node's input stands in the log.

    One seq: that entry's payload, or with `pick` >= 0 the input that a Plan gave to its choice number `pick`. Several
    (`joined`): the list of those executions' results, in branch order.
    """

    seqs: tuple[int, ...]
    pick: int = -1
    joined: bool = False


class Visit(msgspec.Struct):
    """One attempt at a node that the log demands and has no record of yet."""

    exec_id: str
    node: str
    branch: str
    iteration: int
    attempt: int
    parents: tuple[str, ...]
    edge_taken: str
    created_at: int
    input: Source
    before: tuple[int, ...]
    """Seqs of the executions that led here."""
    phase: Phase = "ready"
    asked: bool = False
    """For a wait: the log has its `waiting` or `timer_set` event."""
    timer_id: str | None = None
    due: int | None = None
    losses: int = 0
    """Attempts before this one that were lost with their workers; they do not count against `max_attempts`."""
    intent: bool = False
    """Of an `at_most_once` Task: user code may have been called."""
    trouble: Trouble = ""
    begun: bool = False
    """It was sent once: an executor or a child lifetime may be at it, whatever its phase is now."""


class Outcome(msgspec.Struct):
    """How one branch of a fan-out group ended. `edge`: the JOIN it arrived at or, failed, counts at."""

    how: Literal["arrived", "failed", "ended"]
    seq: int
    exec_id: str
    edge: Edge | None = None
    error: Error | None = None
    node: str = ""
    """Where a failure began, however many groups it passed through since."""


class Group(msgspec.Struct):
    """A fan-out group whose branches have not all ended."""

    path: str
    opener: str
    branch: str
    size: int
    open: int
    outcomes: dict[int, Outcome]
    arrivals: dict[str, int]
    """Arrivals by JOIN target, for `any` and `quorum`."""


class Ending(msgspec.Struct):
    """The end that was decided; its entries may not be in the log yet."""

    status: LifetimeStatus
    reason: str | None


class LifetimeState:
    """The folded state of one lifetime."""

    __slots__ = (
        "at",
        "branches",
        "cost_nano_usd",
        "ending",
        "exceeded",
        "executions",
        "groups",
        "labels",
        "lifetime_id",
        "lifetime_input",
        "lineage",
        "open",
        "parent",
        "pause_reason",
        "paused",
        "pending",
        "seq",
        "signals",
        "status",
        "tenant_id",
        "timers",
        "tokens_used",
        "topology",
    )

    def __init__(self, tenant_id: str, lifetime_id: str, topology: Topology) -> None:
        self.tenant_id = tenant_id
        self.lifetime_id = lifetime_id
        self.topology = topology
        self.lineage = lifetime_id
        """The lifetime that exec ids derive from: in the history that a fork shares, the one that made it."""
        self.seq = 0
        """The last entry folded."""
        self.at = 0
        """When that entry was recorded (us)."""
        self.status: LifetimeStatus = "PENDING"
        self.paused = False
        self.pause_reason: str | None = None
        self.ending: Ending | None = None
        self.exceeded: str | None = None
        """The limit that this lifetime met; it ends with the entry that met it."""
        self.labels: dict[str, str] = {}
        self.lifetime_input: Payload | None = None
        """The lifetime's input, if it is small."""
        self.parent: tuple[str, Visit] | None = None
        """For a child: the parent's lifetime id and the visit there that waits for it."""
        self.open: dict[str, Visit] = {}
        self.branches: dict[str, dict[str, int]] = {}
        """Visits so far, by branch and node."""
        self.groups: dict[str, Group] = {}
        self.timers: dict[str, str] = {}
        """Exec id by timer id."""
        self.signals: dict[str, list[Payload]] = {}
        self.pending: dict[str, Entry] = {}
        """Entries that were decided here and are not in the log yet, by entry id."""
        self.executions = 0
        self.tokens_used = 0
        self.cost_nano_usd = 0

    def facts(self) -> dict[str, Any]:
        """What a condition sees as `lifetime`."""
        return {
            "id": self.lineage,
            "tenant": self.tenant_id,
            "graph": self.topology.graph.name,
            "version": self.topology.graph.version,
            "labels": self.labels,
            "executions": self.executions,
            "tokens_used": self.tokens_used,
            "cost_usd": self.cost_nano_usd / 1e9,
        }


# -- what a decision asks for -----------------------------------------------------------------------------------------


class Dispatch(msgspec.Struct, gc=False):
    """Hand this visit to whoever does it: an executor, a person's inbox, a child lifetime."""

    visit: Visit


class Record(msgspec.Struct, gc=False):
    """Have the Data Plane add these entries to this lifetime's log, all or none."""

    entries: tuple[Entry, ...]


class CancelRunning(msgspec.Struct, gc=False):
    """Tell executors (and children) to stop these visits; `visits` were taken out of the state."""

    visits: tuple[Visit, ...]
    reason: str


class TellParent(msgspec.Struct, gc=False):
    """This child lifetime has ended: have its execution recorded in the parent's log."""

    parent: tuple[str, Visit]
    status: LifetimeStatus
    reason: str | None
    source: Source | None
    """Where the child's result stands in its log."""


Command = Dispatch | Record | CancelRunning | TellParent
