"""One lifetime as the store has it, indexed for whoever checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.ids import group_path, parent_group
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.testing.simulation.reference import exec_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime


RARE = frozenset(
    {"LeaseExpired", "StartToClose", "ScheduleToStart", "HeartbeatTimeout", "InvalidChoice", "ChildFailed", "Rejected"}
)
"""Errors that are counted by name."""


class History:
    """A lifetime's row and its log."""

    def __init__(self, lifetime: Lifetime, graph: AgentGraph, log: list[LogEntry]) -> None:
        self.lifetime, self.graph, self.log = lifetime, graph, log
        self.executions: dict[str, Execution] = {}
        """By exec id."""
        self.group_sizes: dict[str, int] = {}
        """Branches of each fan-out group that a Plan opened, by the group's path."""
        self.superseded: set[tuple[Any, ...]] = set()
        """Marks of results that came late and were kept."""
        self._events: dict[str, list[Event]] = {}
        for logged in log:
            entry = logged.entry
            if isinstance(entry, Event):
                self._events.setdefault(entry.type, []).append(entry)
                if entry.type == "superseded":
                    late = msgspec.convert(entry.data["execution"], Execution)
                    self.superseded.add((late.exec_id, late.status, late.started_at, late.finished_at, late.executor))
            else:
                self.executions[entry.exec_id] = entry
                if entry.next:
                    self.group_sizes[group_path(entry.branch, entry.name, entry.iteration)] = len(entry.next)

    def events(self, kind: str) -> list[Event]:
        """Events of one type, in order."""
        return self._events.get(kind, [])

    def at(self, branch: str, name: str, iteration: int, attempt: int) -> list[str]:
        """The exec ids that this attempt may have, recorded or not: those of the lifetimes it was forked from, too."""
        first = self.log[0].entry if self.log else None
        began = first.data.get("lifetime_id") if isinstance(first, Event) else None
        lineages = dict.fromkeys([began or self.lifetime.lifetime_id, *[e.data["into"] for e in self.events("forked")]])
        return [exec_id(of, branch, name, iteration, attempt) for of in lineages] if attempt > 0 else []

    def labels_at(self, name: str) -> dict[str, str]:
        """The labels of the lifetime, as they were for this attempt: a fork has others than its parent."""
        return self.lifetime.labels

    def forks(self) -> list[tuple[int, Event]]:
        """Where in the log it was forked."""
        return [(e.seq, e.entry) for e in self.log if isinstance(e.entry, Event) and e.entry.type == "forked"]

    def in_order(self) -> list[Execution]:
        """Executions in the order of the log."""
        return list(self.executions.values())

    def directly_in(self, group: str) -> list[Execution]:
        """Executions in the branches of a group, not in those of groups inside it."""
        return [e for e in self.executions.values() if e.branch and parent_group(e.branch)[0] == group]

    def seen(self) -> Iterator[str]:
        """What the log shows to have happened, in words that are counted: event types, statuses, rarer things."""
        for logged in self.log:
            entry = logged.entry
            if isinstance(entry, Execution):
                yield entry.status
                if entry.error is not None and entry.error.type in RARE:
                    yield entry.error.type
            else:
                yield entry.type
                yield from _policed(entry)
                if entry.type == "waiting":
                    yield f"waiting on {entry.data['on']}"

    def pauses(self) -> list[tuple[int, int]]:
        """From where to where in the log it was paused."""
        found: list[tuple[int, int]] = []
        begin: int | None = None
        resumes = 0
        for logged in self.log:
            entry = logged.entry
            if isinstance(entry, Event) and entry.type in ("resumed", "forked"):
                resumes = resumes + 1 if entry.type == "resumed" else logged.seq
            if isinstance(entry, Event) and entry.type == "paused" and begin is None:
                # That of a policy holds since it was decided; somebody may have ended it before it was recorded.
                overtaken = entry.data.get("policy") and int(entry.id.rpartition(":")[2]) < resumes
                begin = None if overtaken else logged.seq
            elif isinstance(entry, Event) and entry.type in ("resumed", "forked") and begin is not None:
                found.append((begin, logged.seq))
                begin = None
        return found if begin is None else [*found, (begin, len(self.log) + 1)]


def _policed(event: Event) -> Iterator[str]:
    """What policies had to do with it, in words."""
    data = event.data
    if event.type == "verdict":
        yield f"verdict {data['action']}"
        yield f"verdict at {data['at']}"
        if data["scope"] == "tenant" and data["at"] == "dispatch":
            yield "verdict tenant" if data["shadow"] or data["action"] == "warn" else "refused for the tenant"
        if data["shadow"]:
            yield "verdict shadow"
        if data.get("error"):
            yield "verdict failed closed"
    elif event.type == "paused" and data.get("policy"):
        yield "paused by a policy"
    elif event.type == "aborted" and data.get("policy"):
        yield "aborted by a policy"
    elif event.type == "resumed" and data.get("raised"):
        yield "raised"
    elif event.type == "policies":
        yield "policies removed" if not data["digest"] else "policies loaded"


def fetched(log: list[LogEntry], blobs: Mapping[str, bytes]) -> list[LogEntry]:
    """The log with the content of blobs in line, as a condition reads it."""
    found: list[LogEntry] = []
    for logged in log:
        entry = logged.entry
        if isinstance(entry, Execution) and entry.result is not None and entry.result.uri is not None:
            result = msgspec.structs.replace(entry.result, inline=blobs.get(entry.result.uri))
            logged = LogEntry(logged.seq, logged.at, msgspec.structs.replace(entry, result=result))  # noqa: PLW2901 - with its content
        found.append(logged)
    return found
