"""What other policies would have said to a lifetime that is recorded: its log, judged again. Pure.

The log is folded by the same core that ran it, with the other rules in force from its first entry on. Until one of
them stops something it did not stop then, the core decides what it decided then, so every dispatch and every
reservation is where it was; from there on the log tells of a lifetime that would not have been. What the policies then
in force did is taken out: a pause that would not be now never happened, and a stop that would be now as it was then
changes nothing.

    past = Past(); [past.look(logged) for logged in log]
    rejudging = Rejudging(topology, rules, past, lifetime_id, tenant_id)
    [rejudging.feed(logged) for logged in log]
    rejudging.finish(now).stop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from tickwork.model.policy import STRICTNESS, Action
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.model.spending import CHILD, ran
from tickwork.model.tallies import clipped, superseded
from tickwork.orchestrator import enforcing
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.guardrails.judging import strictest
from tickwork.orchestrator.guardrails.past import Past, Stop, failure, recorded
from tickwork.orchestrator.state import Dispatch, LifetimeState, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwork.model.records import Telemetry
    from tickwork.orchestrator.guardrails.judging import Verdict
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.state import Command, Visit
    from tickwork.orchestrator.topology import Topology

ENDS = ("completed", "failed", "aborted")


class Used(msgspec.Struct):
    """What some of a lifetime's records used. Money in billionths of a US dollar."""

    executions: int = 0
    tokens_used: int = 0
    cost_nano_usd: int = 0
    unpriced: int = 0
    """Executions whose cost is not wholly known."""

    def add(self, used: Telemetry | None, *, attempt: bool) -> None:
        """Counts one more record."""
        self.executions += attempt
        if used is not None:
            self.tokens_used += clipped(used.tokens_used)
            self.cost_nano_usd += clipped(used.cost_nano_usd)
            self.unpriced += used.unpriced

    def plus(self, other: Used) -> None:
        """Counts all of the other one."""
        self.executions += other.executions
        self.tokens_used += other.tokens_used
        self.cost_nano_usd += other.cost_nano_usd
        self.unpriced += other.unpriced


class Rejudged(msgspec.Struct, kw_only=True):
    """What is found about one lifetime."""

    stop: Stop | None = None
    """The first thing that would have been stopped and was not."""
    spared: list[Stop] = []
    """What was really stopped and would not be, as far as the log goes on from what would have been."""
    unchanged: int = 0
    """Stops that were, and would be again."""
    verdicts: dict[str, dict[str, int]] = {}
    """By policy: how many verdicts of each kind (`warn`, `shadow`, an action, `unevaluable`), until the first stop."""
    unknown_from: int | None = None
    """From this entry on nothing is known, for what came then follows from a rejection that is or was."""
    records: int = 0
    """Executions of its own log."""
    used: Used = msgspec.field(default_factory=Used)
    """What all of them used."""
    saved: Used = msgspec.field(default_factory=Used)
    """What was recorded after the stop and would not have been begun."""
    in_flight: Used = msgspec.field(default_factory=Used)
    """What was recorded after the stop and was under way there: it may have been spent all the same."""
    children: list[str] = []
    """Child lifetimes whose whole use is among what is saved."""


class Rejudging:
    """A log judged again, entry by entry.

    Dispatches that `feed` returns are the business of a tenant's policies, whose sums are over many lifetimes:
    whoever has them tells by `answer` what they say. A dispatch nobody answers for was let pass.
    """

    def __init__(self, topology: Topology, rules: Rules, past: Past, lifetime_id: str, tenant_id: str) -> None:
        self.state = LifetimeState(tenant_id, lifetime_id, topology, lambda _: rules)
        self.found = Rejudged()
        self.over = False
        """Nothing more is judged: it is stopped, it ended, or nothing is known any more."""
        self.ended = False
        self._rules, self._past = rules, past
        self._own = not past.forked
        self._unpaused = False
        self._flying: set[str] = set()
        self._due: int | None = None

    # -- the log ------------------------------------------------------------------------------------------------------

    def feed(self, logged: LogEntry) -> Sequence[Visit]:
        """Judges the next entry and what it leads to. The dispatches are those that would have been sent, in order."""
        entry = logged.entry
        if isinstance(entry, Execution):
            if self._own:
                self._count(entry)
        elif entry.type in ENDS:
            self.ended = True
        if self._due is not None and logged.at >= self._due and not self.over:
            self._overdue(logged.at)
        if self.over:
            self._after(entry)
            return ()
        if isinstance(entry, Event):
            meant = self._as_if(logged.seq, entry)
            if meant is None:
                self._pass_over(logged)
                return ()
            if meant is not entry:
                logged = LogEntry(logged.seq, logged.at, meant)
        commands = fold(self.state, logged)
        asked = self._take(commands, logged.at, entry) if commands else ()
        if isinstance(entry, Execution):
            self._flying.discard(entry.exec_id)
        elif not self.over:
            if entry.type in ("started", "resumed", "forked"):
                self._set_due()
            self.over = self.ended
        return asked

    def answer(self, visit: Visit, verdicts: Sequence[Verdict]) -> bool:
        """What a tenant's policies say to a dispatch that `feed` returned: whether it is sent."""
        if not verdicts:
            return True
        for verdict in verdicts:
            self._note(verdict.rule.label, verdict.rule.policy.shadow, verdict.action, failed=verdict.failed)
        breach = strictest(verdicts)
        if breach is None:
            return True
        self._flying.discard(visit.exec_id)
        state = self.state
        self._stopped(
            Stop(
                policy=breach.rule.label, scope="tenant", action=breach.action, failed=breach.failed, seq=state.seq,
                at=state.at, place="dispatch", exec_id=visit.exec_id, node=visit.node, reason=breach.reason,
                values=breach.values,
            )
        )  # fmt: skip
        return False

    def finish(self, now: int) -> Rejudged:
        """What was found, once the last entry was fed. `now` (us): until when nothing more came."""
        if not self.ended and not self.over and self._due is not None and now >= self._due:
            self._overdue(now)
        return self.found

    # -- what the log says, as if the other policies had been in force ------------------------------------------------

    def _as_if(self, seq: int, event: Event) -> Event | None:
        """The event as it would have been; None: it would not have been."""
        kind, data = event.type, event.data
        if kind == "started":
            return Event(event.id, kind, {**data, "policies": self._rules.digest if self._own else ""})
        if kind == "forked" and seq == self._past.forked:
            self._own = True
            enforcing.install(self.state, self._rules.digest, [])
        elif kind == "policies":
            return None
        elif not self._own:
            return event  # the history that a fork shares is as it is
        elif kind == "verdict":
            return self._as_judged(seq, event)
        elif kind == "paused":
            self._unpaused = bool(data.get("policy")) and self._spare(seq)
            return None if self._unpaused else event
        elif kind == "resumed" and self._unpaused:
            self._unpaused = False
            return None
        elif kind in ("timer_set", "timer_fired") and str(data.get("timer_id")).startswith(enforcing.POLICY_TIMER):
            return None
        elif kind == "aborted" and data.get("policy") and self._spare(seq):
            self.over = True
            self.found.unknown_from = seq
            return None
        return event

    def _as_judged(self, seq: int, event: Event) -> Event | None:
        """A verdict of then: it is followed when it would be given now, too."""
        if self._spare(seq):
            self.over = True  # what was recorded next follows from that rejection
            self.found.unknown_from = seq
            return None
        return event if event.data["scope"] == "tenant" and self._past.repeated(seq) else None

    def _spare(self, seq: int) -> bool:
        """Notes what was stopped then and would not be now; False: nothing of the kind stands here."""
        if (spared := self._past.spared(seq)) is None:
            return False
        self.found.spared.append(spared)
        return True

    def _pass_over(self, logged: LogEntry) -> None:
        state = self.state
        state.seq = state.cause = logged.seq
        state.at = logged.at
        state.pending.pop(logged.entry.entry_id, None)

    # -- what the fold decides ----------------------------------------------------------------------------------------

    def _take(self, commands: Iterable[Command], at: int, entry: Execution | Event | None) -> list[Visit]:
        """Goes through what the core wants to be done: dispatches, verdicts and what follows from them."""
        sent: list[Visit] = []
        verdicts: list[dict[str, Any]] = []
        paused = ""
        nodes = self.state.topology.nodes
        for command in commands:
            if type(command) is Dispatch:
                visit = command.visit
                node = nodes[visit.node]
                if visit.phase == "sent" and not visit.trouble and (node.runs_code or node.child is not None):
                    sent.append(visit)
                    self._flying.add(visit.exec_id)
            elif type(command) is Record:
                for decided in command.entries:
                    if type(decided) is not Event or decided.type not in ("verdict", "paused", "timer_set"):
                        continue
                    if decided.type == "verdict":
                        verdicts.append(decided.data)
                    elif decided.type == "paused":
                        paused = decided.data["policy"]
                    elif decided.data["purpose"] != "policy":
                        continue
                    self.state.pending.pop(decided.id, None)  # the log does not show it, or under another name
        if verdicts:
            self._act(verdicts, paused, at, entry)
        return sent

    def _act(self, verdicts: list[dict[str, Any]], paused: str, at: int, entry: Execution | Event | None) -> None:
        for said in verdicts:
            self._note(said["policy"], said["shadow"], said["action"], failed="error" in said)
        doomed = self.state.doomed
        if doomed is not None:
            self._stopped(self._stop(_named(verdicts, doomed[0]), "abort_lifetime", at))
        elif paused:
            self._stopped(self._stop(_named(verdicts, paused), "pause_lifetime", at))
        places: dict[tuple[str, str], dict[str, Any]] = {}
        for said in verdicts:
            key = (said["exec_id"], said["at"])
            if not said["shadow"] and _strict(said) > (_strict(places[key]) if key in places else 0):
                places[key] = said
        for said in places.values():
            if said["action"] != "reject_execution" or not said["exec_id"]:
                continue
            if said["at"] == "record" and type(entry) is Execution and failure(entry):
                continue  # it had failed anyhow: the next attempt comes as it came
            self._stopped(self._stop(said, "reject_execution", at))

    def _stop(self, said: dict[str, Any], action: Action, at: int) -> Stop:
        return recorded(self.state.seq, at, said, action)

    def _stopped(self, stop: Stop) -> None:
        """Something is stopped: as it was then, or here the two part."""
        if self.over:
            return
        found = self.found
        if self._past.match(stop):
            found.unchanged += 1
            self.over = stop.action == "abort_lifetime"
            return
        found.stop = stop
        self.over = True
        if stop.action == "reject_execution":
            found.unknown_from = stop.seq + 1

    def _note(self, policy: str, shadow: bool, action: str, *, failed: bool) -> None:
        kind = "shadow" if shadow else "warn" if action == "warn" else action
        kinds = self.found.verdicts.setdefault(policy, {})
        kinds[kind] = kinds.get(kind, 0) + 1
        if failed:
            kinds["unevaluable"] = kinds.get("unevaluable", 0) + 1

    # -- rules about elapsed time -------------------------------------------------------------------------------------

    def _set_due(self) -> None:
        """When the next of them is to be judged though nothing is recorded."""
        guard = self.state.guard
        dues = [due for _, due in guard.deadlines() if due > self.state.at] if guard is not None else []
        self._due = min(dues, default=None)

    def _overdue(self, until: int) -> None:
        state = self.state
        while self._due is not None and until >= self._due and not self.over:
            before, state.at = state.at, self._due
            commands: list[Command] = []
            enforcing.overdue(state, commands)
            if state.doomed is not None or commands:
                self._take(commands, state.at, None)
            self._set_due()
            state.at = before

    # -- what it used -------------------------------------------------------------------------------------------------

    def _count(self, done: Execution) -> None:
        self.found.records += 1
        if not done.executor.startswith(CHILD):
            self.found.used.add(done.telemetry, attempt=ran(done))

    def _after(self, entry: Execution | Event) -> None:
        """Counts what was recorded after the stop."""
        stop = self.found.stop
        if stop is None or stop.action == "reject_execution":
            return
        late = superseded(entry)
        done = entry if type(entry) is Execution else late
        if done is None:
            return
        under_way = late.created_at <= stop.at if late is not None else done.exec_id in self._flying
        where = self.found.in_flight if under_way else self.found.saved
        where.add(done.telemetry, attempt=late is None and ran(done))
        if not under_way and done.executor.startswith(CHILD):
            self.found.children.append(done.executor.removeprefix(CHILD))

    def facts(self) -> dict[str, Any]:
        """What a tenant's condition reads of it."""
        return {"lifetime": self.state.facts()}

    def needs(self, done: Execution) -> bool:
        """Whether the next entry is to come with its result in line, which lies in a blob."""
        lies = done.result is not None and done.result.uri is not None and done.result.inline is None
        return lies and not self.over and self.state.reads_result(done.name)

    def spends(self, entry: Execution | Event) -> bool:
        """Whether what the next entry used would have been used, and is the lifetime's own: for the tenant's sums."""
        stop = self.found.stop
        if stop is None or stop.action == "reject_execution":
            return self._own
        if type(entry) is Execution:
            return entry.exec_id in self._flying
        late = superseded(entry)
        return late is not None and late.created_at <= stop.at


def _strict(said: dict[str, Any]) -> int:
    return STRICTNESS[cast("Action", said["action"])]


def _named(verdicts: list[dict[str, Any]], label: str) -> dict[str, Any]:
    return next(said for said in verdicts if said["policy"] == label)
