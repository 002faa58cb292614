"""Where an execution leads: edges, fan-out groups, joins, ends (spec section 2). Pure; called by `fold` only.

A branch carries one activity at a time: a visit of a node, or a fan-out group that it opened. So a lifetime is a tree
of branches, and everything that happens to one ends in `settle`: the branch fails, or just ends, and its group counts
it; when the group can be decided its JOIN fires, or the branch that opened it settles in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model import ids
from tickwork.model.choices import choice_problem
from tickwork.model.condition import ConditionError
from tickwork.model.graph import END, START
from tickwork.model.records import Error, Event, Execution, payload_value
from tickwork.orchestrator import visits
from tickwork.orchestrator.state import (
    CancelRunning,
    Command,
    Ending,
    Group,
    LifetimeState,
    Outcome,
    Source,
    Visit,
)

if TYPE_CHECKING:
    from tickwork.model.graph import Edge
    from tickwork.model.lifetime import LifetimeStatus
    from tickwork.model.records import EventType


# -- where an execution leads -----------------------------------------------------------------------------------------


def enter(state: LifetimeState, out: list[Command]) -> None:
    """Starts the lifetime at its entries; several of them form a fan-out group opened by `start`."""
    entries = state.topology.entries
    source = Source((state.cause,))
    if len(entries) == 1:
        visits.open_visit(state, ids.ROOT_BRANCH, entries[0], source, (), (), out)
    else:
        choices = [(edge, source) for edge in entries]
        _open_group(state, ids.ROOT_BRANCH, START, 0, choices, (), (), out)


def route(state: LifetimeState, done_visit: Visit, done: Execution, out: list[Command]) -> None:
    """Follows the edge that this successful execution takes."""
    if state.ending is not None:
        return
    # A node without a result of its own hands its input on.
    source = Source((state.cause,)) if done.result is not None else done_visit.input
    if done.kind == "plan":
        _route_plan(state, done_visit, done, source, out)
        return
    try:
        edge = _task_edge(state, done)
    except (ConditionError, msgspec.MsgspecError, RecursionError) as error:  # also of a result that is no JSON
        settle(state, done_visit, done, Error("condition_error", str(error), retryable=False), out)
        return
    if edge is None:
        _branch_over(state, done_visit.branch, _ended(state, done), out)
    else:
        _follow(state, done_visit, done, edge, source, out)


def _route_plan(state: LifetimeState, done_visit: Visit, done: Execution, source: Source, out: list[Command]) -> None:
    chosen = done.next or ()
    names = tuple([choice.task for choice in chosen])
    edges = state.topology.targets[done.name]
    problem = choice_problem(state.topology.graph, done.name, names)
    if problem is not None:
        settle(state, done_visit, done, Error("invalid_choice", problem, retryable=False), out)
        return
    if not names:
        _branch_over(state, done_visit.branch, _ended(state, done), out)
        return
    first = edges[names[0]]
    if first.kind != "PARALLEL":
        picked = Source((state.cause,), 0) if chosen[0].input is not None else source
        _follow(state, done_visit, done, first, picked, out)
        return
    depth = state.topology.limits.depth
    if done_visit.branch and done_visit.branch.count("/") + 1 >= depth:
        problem = f"plan `{done.name}` would nest more than {depth} fan-out groups (limits.depth)"
        settle(state, done_visit, done, Error("too_deep", problem, retryable=False), out)
        return
    branches = [
        (edges[choice.task], Source((state.cause,), index) if choice.input is not None else source)
        for index, choice in enumerate(chosen)
    ]
    _open_group(
        state, done_visit.branch, done.name, done_visit.iteration, branches, (done.exec_id,), (state.cause,), out
    )


def _task_edge(state: LifetimeState, done: Execution) -> Edge | None:
    """The first edge whose condition holds, in declared order, else the one without a condition."""
    default: Edge | None = None
    values: dict[str, Any] | None = None
    for edge in state.topology.outgoing[done.name]:
        if not edge.condition:
            default = default or edge
            continue
        if values is None:
            values = condition_values(state, done)
        if state.topology.conditions[edge.condition].holds(values):
            return edge
    return default


def condition_values(state: LifetimeState, done: Execution) -> dict[str, Any]:
    """What a condition sees of an execution."""
    used, result = done.telemetry, done.result
    return {
        # What lies in a blob and no condition reads is not fetched.
        "result": payload_value(result) if result is None or result.inline is not None else None,
        "telemetry": {
            "tokens_in": used.tokens_in if used else 0,
            "tokens_out": used.tokens_out if used else 0,
            "tokens_used": used.tokens_used if used else 0,
            "cost_usd": used.cost_nano_usd / 1e9 if used else 0.0,
            "latency_ms": (done.finished_at - done.started_at) / 1000,
            "queue_ms": (done.started_at - done.created_at) / 1000,
            "model": (used.model if used else None) or "",
            "custom": (used.custom if used else None) or {},
        },
        "header": {
            "exec_id": done.exec_id,
            "kind": done.kind,
            "name": done.name,
            "branch": done.branch,
            "iteration": done.iteration,
            "attempt": done.attempt,
            "status": done.status,
        },
        "lifetime": state.facts(),
    }


def _follow(
    state: LifetimeState, done_visit: Visit, done: Execution, edge: Edge, source: Source, out: list[Command]
) -> None:
    """Takes one edge that opens no group."""
    if edge.kind == "FINAL" or edge.target == END:
        finish(state, "COMPLETED", None, out, done=done, source=source)
    elif edge.kind == "JOIN" and done_visit.branch != ids.ROOT_BRANCH:
        _branch_over(state, done_visit.branch, Outcome("arrived", state.cause, done.exec_id, edge), out)
    else:
        visits.open_visit(state, done_visit.branch, edge, source, (done.exec_id,), (state.cause,), out)


def _open_group(
    state: LifetimeState,
    branch: str,
    opener: str,
    iteration: int,
    choices: list[tuple[Edge, Source]],
    parents: tuple[str, ...],
    before: tuple[int, ...],
    out: list[Command],
) -> None:
    path = ids.group_path(branch, opener, iteration)
    state.groups[path] = Group(path, opener, branch, len(choices), len(choices), {}, {})
    for index, (edge, source) in enumerate(choices):
        visits.open_visit(state, ids.branch_path(path, index), edge, source, parents, before, out)


# -- how branches and groups end --------------------------------------------------------------------------------------


def settle(state: LifetimeState, failed: Visit, done: Execution, error: Error, out: list[Command]) -> None:
    """The branch of this visit has failed for good."""
    if state.ending is None:
        edge = state.topology.nearest_join[failed.node]
        _branch_over(state, failed.branch, Outcome("failed", state.cause, done.exec_id, edge, error, failed.node), out)


def _ended(state: LifetimeState, done: Execution) -> Outcome:
    """A branch that goes no further, with the reason in case it was the last one."""
    why = "it chose nothing" if done.kind == "plan" else "none of its conditions held, or it has no edge to follow"
    told = Error("no_final_edge", f"the last branch ended at `{done.name}`: {why}", retryable=False)
    return Outcome("ended", state.cause, done.exec_id, None, told, done.name)


def _branch_over(state: LifetimeState, branch: str, outcome: Outcome, out: list[Command]) -> None:
    """Counts the end of a branch, outwards through all groups that are decided by it."""
    while branch != ids.ROOT_BRANCH:
        path, index = ids.parent_group(branch)
        group = state.groups[path]
        group.outcomes[index] = outcome
        group.open -= 1
        state.branches.pop(branch, None)
        fired, failure = _decide_group(state, group, outcome)
        if fired is not None:
            _fire(state, group, *fired, out)
            return
        if group.open > 0:
            return
        del state.groups[path]
        branch = group.branch
        if failure is None:
            outcome = Outcome("ended", outcome.seq, outcome.exec_id, None, outcome.error, outcome.node)
        else:
            # The failure keeps the name of the node where it began; it counts at a JOIN its opener could reach.
            edge = state.topology.nearest_join.get(group.opener)
            outcome = Outcome("failed", failure.seq, failure.exec_id, edge, failure.error, failure.node)
    told: dict[str, Any] = {"exec_id": outcome.exec_id}
    if outcome.error is not None:
        told["error"] = [outcome.error.type, outcome.error.message]
    failed = outcome.how == "failed" and outcome.error is not None
    reason = _reason(outcome.node, outcome.error) if failed and outcome.error is not None else "no_final_edge"
    finish(state, "FAILED", reason, out, told=told)


def _reason(node: str, error: Error) -> str:
    return f"{node}: {error.type}: {error.message}" if error.message else f"{node}: {error.type}"


def _decide_group(
    state: LifetimeState, group: Group, latest: Outcome
) -> tuple[tuple[Edge, list[Outcome]] | None, Outcome | None]:
    """(the JOIN edge and the branches it takes, if it fires now), (why the group failed, once all branches ended)."""
    if latest.how == "arrived" and latest.edge is not None:
        target = latest.edge.target
        group.arrivals[target] = group.arrivals.get(target, 0) + 1
        join = state.topology.joins[target]
        if join.mode in ("any", "quorum") and group.arrivals[target] >= (join.count if join.mode == "quorum" else 1):
            return (latest.edge, _in_order(group, target, {"arrived"})), None
    if group.open > 0:
        return None, None
    ordered = [group.outcomes[i] for i in range(group.size)]
    failed = next((o for o in ordered if o.how == "failed"), None)
    edge = next((o.edge for o in ordered if o.how == "arrived"), failed.edge if failed is not None else None)
    if edge is None:
        return None, failed
    if len(group.arrivals) > 1:
        names = ", ".join(sorted(group.arrivals))
        return None, _group_failure(
            latest, edge, "mixed_joins", f"branches of one fan-out group reached different joins: {names}"
        )
    join = state.topology.joins[edge.target]
    if join.mode == "settled":
        return (edge, _in_order(group, edge.target, {"arrived", "failed"})), None
    if join.mode == "all":
        return (None, failed) if failed is not None else ((edge, _in_order(group, edge.target, {"arrived"})), None)
    needed = join.count if join.mode == "quorum" else 1
    text = f"{group.arrivals.get(edge.target, 0)} of {group.size} branches arrived, {needed} are needed"
    if failed is not None and failed.error is not None:
        text += f"; the first failure was {failed.error.type}: {failed.error.message}"
    return None, _group_failure(latest, edge, "quorum_not_met", text)


def _group_failure(latest: Outcome, edge: Edge, kind: str, text: str) -> Outcome:
    return Outcome("failed", latest.seq, latest.exec_id, None, Error(kind, text, retryable=False), edge.target)


def _in_order(group: Group, target: str, kinds: set[str]) -> list[Outcome]:
    """The branches that count at this join, in branch order."""
    return [
        o
        for i in range(group.size)
        if (o := group.outcomes.get(i)) is not None and o.how in kinds and (o.how == "failed" or _at(o, target))
    ]


def _at(outcome: Outcome, target: str) -> bool:
    return outcome.edge is not None and outcome.edge.target == target


def _fire(state: LifetimeState, group: Group, edge: Edge, taken: list[Outcome], out: list[Command]) -> None:
    """The JOIN fires: what is left of the group is cancelled, its target runs in the branch that opened the group."""
    del state.groups[group.path]
    if group.open > 0:
        _cancel_inside(state, group.path, f"join at {edge.target} fired", out)
    seqs = tuple([o.seq for o in taken])
    visits.open_visit(
        state, group.branch, edge, Source(seqs, joined=True), tuple([o.exec_id for o in taken]), seqs, out
    )


def _cancel_inside(state: LifetimeState, group: str, reason: str, out: list[Command]) -> None:
    """Cancels every open visit in the branches of a group, and forgets the groups and branches below it."""
    doomed = tuple([v for v in state.open.values() if ids.in_group(v.branch, group)])
    _cancel(state, doomed, reason, out)
    state.held = [held for held in state.held if not ids.in_group(held.visit.branch, group)]
    for path in [p for p in state.groups if ids.in_group(p, group)]:
        del state.groups[path]
    for path in [p for p in state.branches if ids.in_group(p, group)]:
        del state.branches[path]


def _cancel(state: LifetimeState, doomed: tuple[Visit, ...], reason: str, out: list[Command]) -> None:
    entries = _cancelled(state, doomed, reason)
    if entries:
        visits.record(state, entries, out)
        out.append(CancelRunning(doomed, reason))


def _cancelled(state: LifetimeState, doomed: tuple[Visit, ...], reason: str) -> tuple[Execution | Event, ...]:
    """The records of visits that are given up; they leave the state."""
    entries: list[Execution | Event] = []
    for opened in doomed:
        visits.close_visit(state, opened.exec_id)
        if opened.timer_id is not None:
            state.timers.pop(opened.timer_id, None)
        if opened.exec_id not in state.pending:
            error = Error("Cancelled", reason, retryable=False)
            entries += visits.revoked(state, opened)
            entries.append(visits.own_execution(state, opened, "CANCELLED", None, error))
    return tuple(entries)


def finish(
    state: LifetimeState,
    status: LifetimeStatus,
    reason: str | None,
    out: list[Command],
    *,
    done: Execution | None = None,
    source: Source | None = None,
    told: dict[str, Any] | None = None,
) -> None:
    """Ends the lifetime: what is in flight is recorded as cancelled, and the end after it, in one append.

    Whatever is decided and not in the log yet goes along, for nothing is recorded after the end.

    `reason` is the one line that lists show; `told` is what the end's own entry says beside it.
    """
    doomed = tuple(state.open.values())
    because = f"{done.name} took the FINAL edge" if done is not None else reason or "the lifetime ended"
    cancelled = (*state.pending.values(), *_cancelled(state, doomed, because))
    state.ending = Ending(status, reason)
    state.groups.clear()
    state.branches.clear()
    state.timers.clear()
    state.held.clear()
    data: dict[str, Any] = {
        "executions": state.executions + sum(isinstance(entry, Execution) for entry in cancelled),
        "tokens_used": state.tokens_used,
        "cost_nano_usd": state.cost_nano_usd,
    }
    if done is not None:
        data["exec_id"] = done.exec_id
    if source is not None:
        data["source"] = [list(source.seqs), source.pick, source.joined]
    if reason is not None:
        data["reason"] = reason
    data |= {name: value for name, value in (told or {}).items() if value}
    kinds: dict[str, EventType] = {"COMPLETED": "completed", "FAILED": "failed", "ABORTED": "aborted"}
    visits.record(state, (*cancelled, Event("end", kinds[status], data)), out)
    if doomed:
        out.append(CancelRunning(doomed, because))
