"""What the fold does about policies: puts a set in force, counts, and acts on verdicts (spec section 6). Pure.

A record is counted first and judged then, so whatever it used counts whatever becomes of it. Dispatches are judged in
`visits.send`; a tenant's totals are judged outside, and what came of it stands in the log as a `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.records import Event, Execution, payload_value
from tickwork.model.spending import ran
from tickwork.orchestrator import router, visits
from tickwork.orchestrator.guardrails.counters import Spent, measures_of, use_of
from tickwork.orchestrator.guardrails.judging import Guard, strictest

if TYPE_CHECKING:
    from tickwork.orchestrator.guardrails.counters import Use
    from tickwork.orchestrator.guardrails.judging import Verdict
    from tickwork.orchestrator.guardrails.rules import Rules
    from tickwork.orchestrator.state import Command, LifetimeState

POLICY_TIMER = "policy:"
"""How the ids of timers begin at which rules about elapsed time are judged."""


LATEST = 2**62
"""Latest time (us) for which a timer is set."""


class Uncounted(LookupError):
    """A set comes into force in a state that has not counted from the first record: fold the log from its start."""


def install(state: LifetimeState, digest: str, out: list[Command]) -> None:
    """Puts a set in force ("": none). What was spent and what is in flight counts from the first record on."""
    state.policies_seq = state.seq
    for visit in state.open.values():
        visit.reserved = False
    before, state.guard = state.guard, None
    if not digest:
        state.raised = {}
        return
    if state.spent is None and state.seq > 1:
        raise Uncounted(f"lifetime {state.lifetime_id}: policies come into force at entry {state.seq}")
    graph, rules = state.topology.graph, state.rules_of(digest)
    state.raised = _still_raised(state.raised, before.rules if before is not None else None, rules)
    state.guard = Guard(rules, graph.name, state.labels, graph.node, state.spent or {}, state.started_at, state.raised)
    for visit in state.open.values():
        if visit.begun:
            visit.reserved = True
            state.guard.reserve(visit.node)
    _set_deadlines(state, out)


def _still_raised(raised: dict[str, Decimal], before: Rules | None, now: Rules) -> dict[str, Decimal]:
    """What was raised holds for the limit that it was raised from: who changes a policy, sets a new one."""
    if not raised or before is None:
        return {}
    limits = {rule.label: rule.limit for rule in before.all}
    same = {rule.label for rule in now.all if rule.limit is not None and rule.limit == limits.get(rule.label)}
    return {label: number for label, number in raised.items() if label in same}


def _set_deadlines(state: LifetimeState, out: list[Command]) -> None:
    """Rules about elapsed time are judged when it has passed, even though nothing is recorded then."""
    if state.guard is None or state.ending is not None:
        return  # nothing is recorded after the end
    entries = deadlines(state.guard.deadlines(), state.at, state.policies_seq, state.resumes)
    for event in entries:
        state.timers[event.data["timer_id"]] = ""
    if entries:
        visits.record(state, entries, out)


def deadlines(dues: Iterable[tuple[str, int]], at: int, since: int = 1, resumes: int = 0) -> tuple[Event, ...]:
    """The entries that set timers for the rules with these labels, due then (us); `at`: the time of what asks for them,
    `since`: the entry that put the rules in force. Whoever begins a lifetime sets those of its first entry with it."""
    entries: list[Event] = []
    for label, due in dues:
        if due > LATEST:
            continue  # no clock gets there
        timer_id = f"{POLICY_TIMER}{label}:{since}:{resumes}"
        data = {"timer_id": timer_id, "due": max(due, at), "purpose": "policy", "exec_id": ""}
        entries.append(Event(f"{timer_id}:set", "timer_set", data))
    return tuple(entries)


def count(state: LifetimeState, done: Execution, *, late: bool = False) -> Use | None:
    """Counts what a record used; None when no rule has to judge it. `late`: it was superseded, and is no attempt."""
    guard, spent = state.guard, state.spent
    if guard is None and spent is None:
        return None
    made = not late and ran(done)
    use: Use | None = None
    if spent is not None:
        use = use_of(done, measures_of(done), ran=made)
        if made or done.telemetry is not None:
            key = (done.name, (done.telemetry.model if done.telemetry is not None else None) or "")
            kept = spent.get(key)
            if kept is None:
                kept = spent[key] = Spent()
            kept.add(use, done.iteration)
    return guard.count(done, state.at, ran=made, use=use) if guard is not None else None


def count_superseded(state: LifetimeState, event: Event) -> None:
    """A result that came too late is applied to nothing, but what it used was used."""
    if state.spent is not None or state.guard is not None:
        count(state, msgspec.convert(event.data["execution"], Execution), late=True)


def judge(
    state: LifetimeState, done: Execution, use: Use, out: list[Command], *, again: bool = False
) -> Verdict | None:
    """Has the verdicts over a record recorded; the one that is acted on, or None when it passes.

    `again`: not when it is counted, but later.
    """
    guard = state.guard
    if guard is None or state.ending is not None or state.doomed is not None:
        return None
    found = guard.recorded(done, use, state.at, lambda: _Seen(state, done), again=again)
    if not found:
        return None
    visits.tell(state, found, out)
    return strictest(found)


class _Seen(Mapping[str, Any]):
    """What conditions see of a record, as `router.condition_values` has it. Most look at its result alone."""

    def __init__(self, state: LifetimeState, done: Execution) -> None:
        self._state, self._done = state, done
        result = done.result
        self._result = payload_value(result) if result is None or result.inline is not None else None

    @cached_property
    def _all(self) -> dict[str, Any]:
        return router.condition_values(self._state, self._done)

    def __getitem__(self, name: str) -> Any:
        return self._result if name == "result" else self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def overdue(state: LifetimeState, out: list[Command]) -> None:
    """The time has come at which a rule about elapsed time is to be judged."""
    guard = state.guard
    if guard is None or state.ending is not None or state.doomed is not None:
        return
    found = guard.overdue(state.at)
    visits.tell(state, found, out, state.seq)  # it is about no execution: the entry that it comes from keeps it apart
    breach = strictest(found)
    if breach is None:
        return
    if breach.action == "pause_lifetime":
        visits.pause(state, breach.rule.label, str(state.seq), breach.sentence, out)
    elif breach.action == "abort_lifetime":
        state.doomed = (breach.rule.label, breach.sentence)


def refused(state: LifetimeState, event: Event, out: list[Command]) -> None:
    """A dispatch was refused by a tenant's policy: the visit was not sent, and what the policy wants is done."""
    data = event.data
    visit = state.open.get(data["exec_id"])
    if data["scope"] != "tenant" or data["at"] != "dispatch" or data["shadow"] or data["action"] == "warn":
        return
    # ready: rechecked during a pause
    if visit is None or not visit.begun or visit.phase not in ("sent", "ready") or state.ending is not None:
        return
    if visit.exec_id in state.pending:
        return
    visit.phase, visit.begun = "ready", False
    if visit.reserved:
        visits.release(state, visit)
    why = f"policy {data['policy']}: {data['reason']}"
    visits.refuse(state, visit, data["action"], data["policy"], why, out)


def resumed(state: LifetimeState, raised: Mapping[str, str], out: list[Command]) -> None:
    """Somebody lets the lifetime go on, perhaps with limits that are higher from here on."""
    state.resumes += 1
    higher = {label: Decimal(number) for label, number in raised.items()}
    state.raised.update(higher)
    if state.guard is not None:
        state.guard.settle_anew(higher)
        if higher:
            _set_deadlines(state, out)
