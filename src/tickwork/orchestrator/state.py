"""What the Control Plane knows of a lifetime: a fold of its log, and of nothing else.

The state is owned by whoever folds and is advanced in place; it holds no payloads, only where they stand in the log,
so it stays small however long the lifetime runs. It can be dropped at any time and rebuilt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from tickwork.model.graph import Edge
    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import Entry, Error, Execution, Payload
    from tickwork.orchestrator.guardrails.counters import Spent
    from tickwork.orchestrator.guardrails.judging import Guard
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.topology import Topology

MAX_BUFFERED_SIGNALS = 1000
"""Signals of one name that are kept until somebody waits for them; later ones are recorded, but not kept."""

MAX_LOSSES = 8
"""Attempts of one visit that may be lost with their workers before it is taken for what kills them."""

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
    reserved: bool = False
    """What it may use is reserved against the lifetime's budgets."""


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


class Held(msgspec.Struct):
    """An execution that a policy paused the lifetime over: it is routed when somebody resumes it."""

    visit: Visit
    done: Execution
    seq: int


def no_rules(digest: str) -> Rules:
    """For logs without policies."""
    raise LookupError(f"the log names the policy set {digest}, and it was not given")


class LifetimeState:
    """The folded state of one lifetime."""

    __slots__ = (
        "at",
        "branches",
        "cause",
        "cost_nano_usd",
        "doomed",
        "ending",
        "exceeded",
        "executions",
        "groups",
        "guard",
        "held",
        "labels",
        "lifetime_id",
        "lifetime_input",
        "lineage",
        "open",
        "parent",
        "pause_reason",
        "paused",
        "pending",
        "policies_seq",
        "raised",
        "resumes",
        "rules_of",
        "seq",
        "signals",
        "spent",
        "started_at",
        "status",
        "tenant_id",
        "timers",
        "tokens_used",
        "topology",
        "unpriced",
    )

    def __init__(
        self,
        tenant_id: str,
        lifetime_id: str,
        topology: Topology,
        rules_of: Callable[[str], Rules] = no_rules,
        *,
        counting: bool = True,
    ) -> None:
        """`rules_of` gives the policies of a digest that the log names. `counting`: keep what was spent, which the
        log of a lifetime without policies has no use for."""
        self.tenant_id = tenant_id
        self.lifetime_id = lifetime_id
        self.topology = topology
        self.lineage = lifetime_id
        """The lifetime that exec ids derive from: in the history that a fork shares, the one that made it."""
        self.seq = 0
        """The last entry folded."""
        self.at = 0
        """When that entry was recorded (us)."""
        self.cause = 0
        """The entry whose consequences are being worked out: the last one, or one that was held until now."""
        self.started_at = 0
        """When (us) the first entry was recorded."""
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
        self.rules_of = rules_of
        self.guard: Guard | None = None
        """The policies in force, and how far the lifetime is from each."""
        self.policies_seq = 0
        """The entry that put them in force."""
        self.spent: dict[tuple[str, str], Spent] | None = {} if counting else None
        """What was used, by node and model."""
        self.raised: dict[str, Decimal] = {}
        """Limits that somebody raised for this lifetime, by policy."""
        self.resumes = 0
        self.held: list[Held] = []
        self.doomed: tuple[str, str] | None = None
        """A policy that aborts it (label, reason); it ends with the entry that made it so."""
        self.executions = 0
        self.tokens_used = 0
        self.cost_nano_usd = 0
        self.unpriced = False
        """Part of what it used has no known price."""

    def reads_result(self, node: str) -> bool:
        """Whether a condition of the graph or of a policy looks at what this node returns."""
        return node in self.topology.reads_result or (self.guard is not None and self.guard.reads_result(node))

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
