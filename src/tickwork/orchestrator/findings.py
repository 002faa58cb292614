"""What a trial of policies on the past found: lifetime by lifetime, policy by policy, and over all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwork.model.lifetime import Lifetime
from tickwork.orchestrator.guardrails.whatif import Rejudged, Used
from tickwork.orchestrator.starting import PARENT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable


class Judged(msgspec.Struct):
    """One lifetime, and what is found about it."""

    lifetime: Lifetime
    found: Rejudged
    trouble: str = ""
    """Why it could not be judged."""
    saved: Used = msgspec.field(default_factory=Used)
    """What is saved by it alone: nothing for a child of one whose stop saves the child, too."""

    @property
    def killed(self) -> str:
        """`aborted` or `paused` when it ended well and would have been stopped; else empty."""
        stop = self.found.stop
        if stop is None or self.lifetime.status != "COMPLETED":
            return ""
        return {"abort_lifetime": "aborted", "pause_lifetime": "paused"}.get(stop.action, "")


class Counts(msgspec.Struct):
    """How many lifetimes there are of each kind. The first stop counts; warnings and shadows until then."""

    warned: int = 0
    shadow: int = 0
    rejected: int = 0
    paused: int = 0
    """With those that are paused because a policy cannot be evaluated."""
    aborted: int = 0
    unevaluable: int = 0
    """Of those that are paused: because the policy cannot be evaluated."""
    killed_paused: int = 0
    """Of those that completed."""
    killed_aborted: int = 0
    spared: int = 0
    """It was really stopped, and would not be."""
    saved: Used = msgspec.field(default_factory=Used)

    def add(self, judged: Judged) -> None:
        """Counts a lifetime that this policy would have stopped."""
        stop = judged.found.stop
        if stop is None:
            return
        self.rejected += stop.action == "reject_execution"
        self.paused += stop.action == "pause_lifetime"
        self.aborted += stop.action == "abort_lifetime"
        self.unevaluable += stop.failed
        self.killed_paused += judged.killed == "paused"
        self.killed_aborted += judged.killed == "aborted"
        self.saved.plus(judged.saved)

    @property
    def killed(self) -> int:
        """Lifetimes that completed and would have been stopped."""
        return self.killed_paused + self.killed_aborted


class Findings(msgspec.Struct):
    """What a trial found."""

    lifetimes: int = 0
    """That were judged."""
    records: int = 0
    """Executions of these."""
    changed: list[Judged] = []
    """Lifetimes about which there is anything to say, those that save most first."""
    policies: dict[str, Counts] = {}
    """By label: those of the trial first, then those that stopped something then."""
    total: Counts = msgspec.field(default_factory=Counts)
    unchanged: int = 0
    """Lifetimes in which something was stopped, and would be again."""


class Gathered:
    """What was found so far, over all tenants."""

    def __init__(self) -> None:
        self.lifetimes = self.records = self.unchanged = 0
        self.changed: list[Judged] = []
        self._parents: dict[str, str] = {}
        self._covered: set[str] = set()

    def add(self, judged: Judged) -> None:
        lifetime, found = judged.lifetime, judged.found
        self.lifetimes += 1
        self.records += found.records
        self.unchanged += found.unchanged > 0
        self._covered.update(found.children)
        if (parent := lifetime.labels.get(PARENT_LABEL)) is not None:
            self._parents[lifetime.lifetime_id] = parent
        if found.stop is not None or found.spared or found.verdicts or judged.trouble:
            self.changed.append(judged)

    def findings(self, labels: Iterable[str]) -> Findings:
        total = Counts()
        policies = {label: Counts() for label in labels}
        for judged in self.changed:
            found = judged.found
            if not self._is_covered(judged.lifetime.lifetime_id):
                judged.saved = found.saved
            if found.stop is not None:
                policies.setdefault(found.stop.policy, Counts()).add(judged)
                total.add(judged)
            for label, kinds in found.verdicts.items():
                policies.setdefault(label, Counts()).warned += "warn" in kinds
                policies[label].shadow += "shadow" in kinds
            total.warned += any("warn" in kinds for kinds in found.verdicts.values())
            total.shadow += any("shadow" in kinds for kinds in found.verdicts.values())
            for label in {spared.policy for spared in found.spared}:
                policies.setdefault(label, Counts()).spared += 1
            total.spared += bool(found.spared)
        self.changed.sort(key=lambda j: (-j.saved.cost_nano_usd, -j.saved.tokens_used, j.lifetime.created_at))
        return Findings(self.lifetimes, self.records, self.changed, policies, total, self.unchanged)

    def _is_covered(self, lifetime_id: str) -> bool:
        """Whether it, or whoever started it, is a child that would not have been started."""
        seen: str | None = lifetime_id
        while seen is not None and seen not in self._covered:
            seen = self._parents.get(seen)
        return seen is not None
