"""Policies: what a lifetime may spend and do, written by whoever answers for it, not by the author of its graph.

A document holds the policies of one layer: the installation, a tenant, or a graph. All layers that cover a lifetime
are in force together, so the stricter one wins and none can loosen another. What is in force at one time is a
PolicySet; its digest names it in every verdict. Documents are read by `tickwork.formats.policies`, conditions are
compiled by `tickwork.model.expressions`, verdicts are made by `tickwork.orchestrator.guardrails`.
"""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

import msgspec

from tickwork.model.graph import NodeKind, Part, without_defaults

Scope = Literal["execution", "lifetime", "tenant"]
Action = Literal["warn", "reject_execution", "pause_lifetime", "abort_lifetime"]
Engine = Literal["cel", "rego"]
Layer = Literal["installation", "tenant", "graph", "run"]
Calendar = Literal["hour", "day", "week", "month"]

STRICTNESS: dict[Action, int] = {"warn": 0, "reject_execution": 1, "pause_lifetime": 2, "abort_lifetime": 3}
"""Of several policies that are breached at one place, the strictest action is taken."""

MAX_POLICIES = 200
"""Policies of one document."""


class Window(Part, frozen=True):
    """The time that a tenant's policy adds up: the last `seconds`, or since the start of a calendar period."""

    seconds: int = 0
    """Sliding: it reaches back to the start of the minute that lies so long ago. At least 60."""
    calendar: Calendar | None = None
    """From the start of the hour, the day, the week (Monday) or the month, in `time_zone`."""
    time_zone: str = "UTC"
    """An IANA name, e.g. `Europe/Berlin`."""

    def __str__(self) -> str:
        if self.calendar is not None:
            return f"this {self.calendar} ({self.time_zone})"
        for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
            if self.seconds % size == 0:
                return f"{self.seconds // size}{unit}"
        return f"{self.seconds}s"


class Match(Part, frozen=True):
    """What a policy is about; what is left out matches everything. Names are patterns with `*`, `?`, `[..]`."""

    kind: NodeKind | None = None
    name: tuple[str, ...] = ()
    """Names of nodes."""
    graph: tuple[str, ...] = ()
    """Names of graphs."""
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies the default
    """Labels that the lifetime has; the values are patterns."""
    model: tuple[str, ...] = ()
    """Models, as the execution's telemetry names them."""

    def node(self, kind: str, name: str) -> bool:
        """Whether it is about this node."""
        return (self.kind is None or self.kind == kind) and fits(name, self.name)

    def lifetime(self, graph: str, labels: dict[str, str]) -> bool:
        """Whether it is about lifetimes of this graph with these labels."""
        if not fits(graph, self.graph):
            return False
        return all(key in labels and fnmatchcase(labels[key], value) for key, value in self.labels.items())

    def of_model(self, model: str) -> bool:
        """Whether it is about this model ("": none was named, which only an open match takes)."""
        return fits(model, self.model)


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name meets one of the patterns, case and all; no patterns: every name does."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


class Policy(Part, frozen=True):
    """One rule: when its condition holds, its action is taken."""

    name: str
    when: str
    action: Action
    scope: Scope = "lifetime"
    match: Match = Match()
    window: Window | None = None
    """Only for the scope `tenant`; None: everything since the first record."""
    shadow: bool = False
    """Recorded, not enforced."""
    engine: Engine = "cel"
    description: str = ""


class PolicyDocument(Part, frozen=True, dict=True):
    """The policies of one layer: `tenant` and `graph` both empty for the installation; `graph` is a graph's name."""

    policies: tuple[Policy, ...]
    version: int = 1
    tenant: str = ""
    graph: str = ""

    @property
    def layer(self) -> Layer:
        """Whose policies these are."""
        return "graph" if self.graph else "tenant" if self.tenant else "installation"

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits over the canonical JSON."""
        return digest_of(self)


class Layered(Part, frozen=True):
    """A policy and the layer that it comes from."""

    layer: Layer
    policy: Policy

    @property
    def label(self) -> str:
        """The name that is unique in its set: `tenant/daily-spend`."""
        return f"{self.layer}/{self.policy.name}"


class PolicySet(Part, frozen=True, dict=True):
    """All policies that are in force for the lifetimes of a graph of a tenant, in the order of their layers."""

    policies: tuple[Layered, ...] = ()

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hexadecimal digits over the canonical JSON; the empty string for the empty set."""
        return digest_of(self) if self.policies else ""


def effective(
    documents: tuple[PolicyDocument, ...], tenant: str, graph: str, run: PolicyDocument | None = None
) -> PolicySet:
    """The set that is in force for a graph of a tenant. `run`: policies that were given to one lifetime alone.

    A document of a graph without a tenant is in force for that graph of every tenant.
    """
    found: list[Layered] = []
    for layer in ("installation", "tenant", "graph"):
        for document in documents:
            if document.layer == layer and document.tenant in ("", tenant) and document.graph in ("", graph):
                found += [Layered(layer=document.layer, policy=policy) for policy in document.policies]
    if run is not None:
        found += [Layered(layer="run", policy=policy) for policy in run.policies]
    return PolicySet(policies=tuple(found))


def digest_of(part: Part) -> str:
    """The digest of a document or a set."""
    return "sha256:" + hashlib.sha256(msgspec.json.encode(without_defaults(part), order="deterministic")).hexdigest()


def encode_set(policies: PolicySet) -> bytes:
    """The bytes that are stored under its digest."""
    return msgspec.json.encode(policies, order="deterministic")


def decode_set(body: bytes) -> PolicySet:
    """The inverse of `encode_set`; raises msgspec.ValidationError."""
    return msgspec.json.decode(body, type=PolicySet)
