"""Recorded executions, judged under policies that are only being written: `tickwork guardrails check --records`.

The records are lines as `tickwork lifetimes log --jsonl` prints them, of one lifetime or of many, in their order. Each
execution is counted and judged as its record would be; nothing is dispatched, so what is judged before a dispatch is
judged here with the record. Policies of a tenant need the totals of all its lifetimes, and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.cli import output
from tickwork.errors import NotFound, StorageError, UsageError
from tickwork.model.contract import entry_from_json
from tickwork.model.graph import AgentGraph, Node
from tickwork.model.policy import effective
from tickwork.model.records import Event, Execution
from tickwork.model.spending import ran
from tickwork.orchestrator.guardrails.judging import Guard, Verdict
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.router import condition_values
from tickwork.orchestrator.state import LifetimeState
from tickwork.orchestrator.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tickwork.model.policy import PolicyDocument
    from tickwork.model.records import LogEntry

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one record."""

SHOWN = 200
"""Verdicts that people are shown; --json has them all."""


@dataclass
class Said:
    """A verdict over the record on a line."""

    line: int
    lifetime_id: str
    verdict: Verdict


@dataclass
class Examples:
    """What came of all records."""

    file: str
    executions: int = 0
    lifetimes: int = 0
    said: list[Said] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Policies of a tenant."""

    def json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "executions": self.executions,
            "lifetimes": self.lifetimes,
            "verdicts": [
                {
                    "line": one.line,
                    "lifetime_id": one.lifetime_id,
                    "exec_id": one.verdict.exec_id,
                    "node": one.verdict.node,
                    "policy": one.verdict.rule.label,
                    "action": one.verdict.action,
                    "shadow": one.verdict.rule.policy.shadow,
                    "values": one.verdict.values,
                    "reason": one.verdict.reason,
                }
                for one in self.said
            ],
            "not_judged": self.left_out,
            "unreadable": [{"line": line, "message": why} for line, why in self.unreadable],
        }

    def print(self) -> None:
        """For people."""
        for line, why in self.unreadable:
            output.emit_text(f"{self.file}:{line}: this record cannot be read: {why}")
        lines: list[output.Line] = [
            {
                "line": str(one.line),
                "node": one.verdict.node,
                "policy": one.verdict.rule.label,
                "would": one.verdict.action + (" (shadow)" if one.verdict.rule.policy.shadow else ""),
                "because": output.cell(one.verdict.reason, "dim"),
            }
            for one in self.said[:SHOWN]
        ]
        if lines:
            columns = ("line", "node", "policy", "would", "because")
            output.show(output.listing(columns, lines, right=("line",), shrink="because"))
        if len(self.said) > SHOWN:
            output.say(f"and {len(self.said) - SHOWN:,} more; --json has them all", "dim")
        for label in self.left_out:
            output.say(f"{label} is not judged here: it needs the totals of all lifetimes of a tenant.", "dim")
        found = output.count(len(self.said), "verdict")
        output.say(
            f"{found} over {output.count(self.executions, 'execution')} of {output.count(self.lifetimes, 'lifetime')}"
        )


def judge_records(documents: Sequence[PolicyDocument], path: Path) -> Examples:
    """Judges the records of a file under these documents. Raises NotFound, StorageError when it cannot be read."""
    examples = Examples(str(path))
    courts: dict[str, _Court] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT), b""), 1):
                if not line.strip():
                    continue
                try:
                    record = msgspec.json.decode(line)
                    entry = entry_from_json(record)
                except (UsageError, msgspec.DecodeError) as error:
                    examples.unreadable.append((number, str(error)))
                else:
                    _judge(entry, record, documents, courts, examples, number)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
    return examples


class _Court:
    """The rules as they are for one lifetime, with what it has used so far."""

    def __init__(self, documents: Sequence[PolicyDocument], record: dict[str, Any], entry: LogEntry) -> None:
        facts = record.get("headers", record)
        graph = AgentGraph(name=facts["graph"]["name"], version=facts["graph"]["version"], nodes=(), edges=())
        self.rules = Rules(effective(tuple(documents), facts["tenant_id"], graph.name))
        self.state = state = LifetimeState(facts["tenant_id"], facts["lifetime_id"], Topology(graph))
        if isinstance(entry.entry, Event) and entry.entry.type == "started":
            state.labels = entry.entry.data.get("labels") or {}
        self.said: set[str] = set()
        self._nodes: dict[str, Node] = {}
        self._guard = Guard(self.rules, graph.name, state.labels, self._nodes, {}, _at(entry), {})

    def judge(self, done: Execution, at: int) -> list[Verdict]:
        """Counts a record, and judges it."""
        self._nodes.setdefault(done.name, Node(name=done.name, kind=done.kind))
        state = self.state
        state.executions += 1
        if done.telemetry is not None:
            state.tokens_used += done.telemetry.tokens_used
            state.cost_nano_usd += done.telemetry.cost_nano_usd
        use = self._guard.count(done, at, ran=ran(done))
        return self._guard.recorded(done, use, at, lambda: self._facts(done)) if use is not None else []

    def _facts(self, done: Execution) -> dict[str, Any]:
        try:
            return condition_values(self.state, done)
        except ValueError as error:  # what is missing here was there when it was recorded
            raise UsageError(f"{error}; write the result in line to judge it") from None


def _judge(
    entry: LogEntry,
    record: dict[str, Any],
    documents: Sequence[PolicyDocument],
    courts: dict[str, _Court],
    examples: Examples,
    line: int,
) -> None:
    lifetime_id = record.get("headers", record)["lifetime_id"]
    court = courts.get(lifetime_id)
    if court is None:
        court = courts[lifetime_id] = _Court(documents, record, entry)
        examples.lifetimes += 1
        for rule in court.rules.tenants:
            if rule.label not in examples.left_out:
                examples.left_out.append(rule.label)
    if isinstance(entry.entry, Execution):
        examples.executions += 1
        for verdict in court.judge(entry.entry, _at(entry)):
            rule = verdict.rule
            if rule.policy.scope == "execution" or rule.label not in court.said:
                examples.said.append(Said(line, lifetime_id, verdict))
                court.said.add(rule.label)  # what holds once for a lifetime goes on to hold


def _at(entry: LogEntry) -> int:
    """When it was recorded (us), or made, when it was not."""
    return entry.at or (entry.entry.finished_at if isinstance(entry.entry, Execution) else 0)
