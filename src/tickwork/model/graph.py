"""The AgentGraph: an immutable template of Tasks, Plans and the edges between them.

These are plain data and may describe a broken graph; `tickwork.model.validation` says what is wrong with one. The
digest names the content: canonical JSON with defaults left out, nodes sorted by name, and each source's edges in
declared order (that order decides which condition is asked first). So a new optional field changes no old digest.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from functools import cache, cached_property
from typing import Any, Literal

import msgspec

START = "start"
"""The pseudo-node that entry edges leave from."""

END = "end"
"""The pseudo-node that FINAL edges lead to; a Plan names it to take its FINAL edge."""

NodeKind = Literal["task", "plan"]
EdgeKind = Literal["NORMAL", "PARALLEL", "JOIN", "FINAL"]
JoinMode = Literal["all", "settled", "any", "quorum"]
Isolation = Literal["inline", "subprocess"]
Effect = Literal["pure", "idempotent", "at_most_once"]

MAX_BRANCHES = 10_000
"""How many branches one PlanExecution may open (spec section 2)."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What all parts of a graph have in common: immutable, defaults left out, unknown keys refused."""


class RetryPolicy(Part, frozen=True):
    """When a failed attempt is tried again. Intervals in seconds.

    The delay before attempt n+1 is `initial_interval * backoff ** (n - 1)`, at most `max_interval`, then spread by
    +-`jitter` (a fraction) that is seeded from the exec id, so that a replay waits exactly as long.
    """

    max_attempts: int = 3
    initial_interval: float = 1.0
    backoff: float = 2.0
    max_interval: float = 60.0
    jitter: float = 0.2
    non_retryable: tuple[str, ...] = ()
    """Names of error types that no attempt can mend, beside TerminalError."""


class TimeLimits(Part, frozen=True):
    """Bounds of one attempt, in seconds; None: unbounded."""

    start_to_close: float | None = None
    """From the call of user code to its end."""
    schedule_to_start: float | None = None
    """From the dispatch to the call of user code."""
    heartbeat: float | None = None
    """Longest silence between two heartbeats of a running attempt."""
    grace: float = 5.0
    """How long user code may take to stop once it is told to; then it is abandoned and that is recorded."""


class Limits(Part, frozen=True):
    """Bounds of one lifetime of this graph. They are part of the graph, so that a replay meets them at the same place.

    What exceeds one ends the lifetime FAILED (`limit_exceeded: ...`), whoever asked for it.
    """

    records: int = 200_000
    """Entries of the log."""
    visits: int = 50_000
    """Visits of one node in one branch, attempts not counted."""
    open_visits: int = 20_000
    """Visits that are open at the same time, over all branches."""
    depth: int = 100
    """Fan-out groups inside each other."""


class Maximum(Part, frozen=True):
    """The most that one attempt uses, as its author declares it. It is reserved against budgets when it is sent out."""

    tokens: int | None = None
    cost_usd: str = ""
    """US dollars as a decimal, at most nine digits after the point; empty: not declared."""

    @property
    def cost_nano_usd(self) -> int:
        """The same in billionths; 0 when it is not declared."""
        return int(Decimal(self.cost_usd).scaleb(9)) if self.cost_usd else 0


class Human(Part, frozen=True):
    """A Task that a person answers."""

    prompt: str
    """What is asked. `{name}` is replaced by that field of an input that is an object (by nothing where it has none),
    `{input}` by the whole input."""
    answer_schema: dict[str, Any] | None = None
    """JSON Schema (2020-12) that an answer must meet; None: any JSON."""
    deadline: float | None = None
    """Seconds until the default answer is taken, or the Task fails when there is none."""
    default: Any = msgspec.UNSET
    """The answer taken at the deadline."""
    who: tuple[str, ...] = ()
    """Who may answer; empty: anybody."""


class Signal(Part, frozen=True):
    """A Task that waits for a signal by name."""

    name: str
    deadline: float | None = None
    """Seconds until the Task fails (or takes `default`)."""
    default: Any = msgspec.UNSET


class Timer(Part, frozen=True):
    """A Task that lets time pass and hands its input on."""

    seconds: float


class Child(Part, frozen=True):
    """A Task that runs another graph to its end and returns that lifetime's result."""

    name: str
    version: str = ""
    """Empty: the newest registered version at the time of the start."""


class Node(Part, frozen=True):
    """A Task or a Plan. A Task does one of: run code (`run`), ask a human, wait for a signal or timer, run a child."""

    name: str
    kind: NodeKind
    title: str = ""
    description: str = ""
    run: str = ""
    """The implementation: `package.module:attribute`, or `path/to/file.py:attribute` relative to the graph file."""
    retry: RetryPolicy = RetryPolicy()
    limits: TimeLimits = TimeLimits()
    effect: Effect = "idempotent"
    """What running it twice would do. `pure` and `idempotent`: run again when an attempt was lost. `at_most_once`: its
    intent is recorded before user code starts, and a lost attempt is UNKNOWN until somebody says what happened."""
    maximum: Maximum = Maximum()
    isolation: Isolation = "inline"
    memory_mb: int | None = None
    """Address space limit of a subprocess, in MiB."""
    human: Human | None = None
    signal: Signal | None = None
    timer: Timer | None = None
    child: Child | None = None
    config: dict[str, Any] = {}
    """Free settings for the implementation (`ctx.config`)."""

    @property
    def runs_code(self) -> bool:
        """Whether an executor has to run user code for this node."""
        return self.human is None and self.signal is None and self.timer is None and self.child is None


class Join(Part, frozen=True):
    """When a JOIN fires; `count` only for quorum."""

    mode: JoinMode = "all"
    count: int = 0


class Edge(Part, frozen=True):
    """`source -> target`. `condition` is a CEL expression, only on edges out of a Task."""

    source: str
    target: str
    kind: EdgeKind = "NORMAL"
    label: str = ""
    condition: str = ""
    join: Join = Join()

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"


class AgentGraph(Part, frozen=True, dict=True):
    """An immutable graph template: `name` + semantic `version`, its nodes and edges (entry and FINAL edges too)."""

    name: str
    version: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    description: str = ""
    limits: Limits = Limits()

    @cached_property
    def node(self) -> dict[str, Node]:
        """Nodes by name."""
        return {n.name: n for n in self.nodes}

    @cached_property
    def outgoing(self) -> dict[str, tuple[Edge, ...]]:
        """Edges by source, in declared order; every node and `start` has an entry."""
        found: dict[str, list[Edge]] = {START: [], **{n.name: [] for n in self.nodes}}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        return {source: tuple(edges) for source, edges in found.items()}

    @cached_property
    def targets(self) -> dict[str, dict[str, Edge]]:
        """Edges by source and target; of several to one target (conditions), the last."""
        return {source: {edge.target: edge for edge in edges} for source, edges in self.outgoing.items()}

    @property
    def entries(self) -> tuple[Edge, ...]:
        """The edges out of `start`, in declared order."""
        return self.outgoing[START]

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits over the canonical form."""
        return "sha256:" + hashlib.sha256(canonical_json(self)).hexdigest()

    @property
    def label(self) -> str:
        """`name@version`, as people write it."""
        return f"{self.name}@{self.version}"


def canonical_json(graph: AgentGraph) -> bytes:
    """The bytes that the digest is taken over."""
    ordered = msgspec.structs.replace(
        graph,
        nodes=tuple(sorted(graph.nodes, key=lambda n: n.name)),
        edges=tuple(sorted(graph.edges, key=lambda e: e.source)),
    )
    # Read back once, so that numbers have their field's type: 30 and 30.0 are one graph.
    typed = msgspec.json.decode(msgspec.json.encode(ordered), type=AgentGraph)
    return msgspec.json.encode(without_defaults(typed), order="deterministic")


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a struct. Looked up once: msgspec resolves annotations at each call, for half a millisecond."""
    return msgspec.structs.fields(struct)


def without_defaults(value: Any) -> Any:
    """Parts as plain data, without the fields that say what the default says (`omit_defaults` goes by identity)."""
    if isinstance(value, tuple):
        return [without_defaults(item) for item in value]
    if not isinstance(value, Part):
        return value
    plain: dict[str, Any] = {}
    for field in fields_of(type(value)):
        given = getattr(value, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if given != default and given is not msgspec.UNSET:
            plain[field.name] = without_defaults(given)
    return plain


def graph_from_json(data: bytes) -> AgentGraph:
    """A graph from its JSON, canonical or not. Raises msgspec.ValidationError on anything else."""
    return msgspec.json.decode(data, type=AgentGraph)
