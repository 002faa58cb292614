"""What policies really did to a recorded lifetime: where each of them stopped something. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.policy import Action
from tickwork.model.records import Event, Execution
from tickwork.model.spending import lost
from tickwork.orchestrator.guardrails.judging import Place

if TYPE_CHECKING:
    from tickwork.model.records import LogEntry


class Stop(msgspec.Struct, kw_only=True):
    """Where a policy stops something, and why."""

    policy: str
    scope: str
    action: Action
    """What is done: a policy that cannot be evaluated pauses, whatever its own action is."""
    failed: bool
    """It could not be evaluated."""
    seq: int
    """The last entry of the log before it: the record that is judged, or the one that leads to the dispatch."""
    at: int
    """When that was (us)."""
    place: Place
    exec_id: str
    node: str
    reason: str
    values: dict[str, str]


class Past:
    """What the policies then in force did to a lifetime: filled with its log first, for that says it late."""

    def __init__(self) -> None:
        self.forked = 0
        """The entry at which this lifetime's own history begins, when it is a fork; else 0."""
        self._effects: dict[int, Stop] = {}
        """By the entry that shows it."""
        self._shown: dict[tuple[Action, str, Place], list[int]] = {}
        """The entries that show what was done at a place."""
        self._verdicts: dict[str, tuple[int, dict[str, Any]]] = {}
        self._failures: set[str] = set()
        self._rejected: dict[tuple[str, str], int] = {}
        self._stricter: set[tuple[str, str, str]] = set()
        self._matched: set[int] = set()

    def look(self, logged: LogEntry) -> None:
        """Takes in the next entry."""
        entry = logged.entry
        if isinstance(entry, Execution):
            if entry.status != "SUCCEEDED" and failure(entry):
                self._failures.add(entry.exec_id)
            return
        kind, data = entry.type, entry.data
        if kind == "forked":
            self.forked = logged.seq
            self._effects.clear()
        elif kind == "verdict":
            self._verdicts[data["policy"]] = (logged.seq, data)
            if not data["shadow"] and data["action"] != "warn":
                self._enforced(logged, entry)
        elif kind in ("paused", "aborted") and data.get("policy") in self._verdicts:
            seq, said = self._verdicts[data["policy"]]
            action: Action = "pause_lifetime" if kind == "paused" else "abort_lifetime"
            self._add(logged.seq, recorded(seq, logged.at, said, action))

    def _enforced(self, logged: LogEntry, verdict: Event) -> None:
        """Notes what is rejected. Pauses and ends have entries of their own, but a rejection has its verdict alone."""
        data = verdict.data
        where = (data["exec_id"], data["at"])
        group = (*where, verdict.id.rpartition(":")[2])
        if data["action"] != "reject_execution":
            self._stricter.add(group)  # of several policies at one place the strictest one acts
            self._effects.pop(self._rejected.pop(where, 0), None)
            return
        failed = where[1] == "record" and where[0] in self._failures
        if where[0] and not failed and where not in self._rejected and group not in self._stricter:
            self._rejected[where] = logged.seq
            self._add(logged.seq, recorded(logged.seq, logged.at, data, "reject_execution"))

    def _add(self, shown: int, stop: Stop) -> None:
        self._effects[shown] = stop
        self._shown.setdefault((stop.action, stop.exec_id, stop.place), []).append(shown)

    def match(self, stop: Stop) -> bool:
        """Whether the same was done at the same place then; each of those is taken once."""
        for shown in self._shown.get((stop.action, stop.exec_id, stop.place), ()):
            if shown > stop.seq and shown in self._effects and shown not in self._matched:
                self._matched.add(shown)
                return True
        return False

    def spared(self, shown: int) -> Stop | None:
        """What this entry shows to have been stopped and nobody stops now; None: it shows no such thing."""
        return None if shown in self._matched else self._effects.get(shown)

    def repeated(self, verdict: int) -> bool:
        """Whether what this verdict led to is done again."""
        return any(self._effects[shown].seq == verdict for shown in self._matched)


def failure(done: Execution) -> bool:
    """Whether it had failed anyhow, so that its rejection changes nothing."""
    return done.status in ("FAILED", "TIMED_OUT") and not lost(done)


def recorded(seq: int, at: int, said: dict[str, Any], action: Action) -> Stop:
    """The stop that a verdict's entry tells of."""
    return Stop(
        policy=said["policy"], scope=said["scope"], action=action, failed="error" in said, seq=seq, at=at,
        place=said["at"], exec_id=said["exec_id"], node=said["node"], reason=said["reason"], values=said["values"],
    )  # fmt: skip
