"""Bugs of the decision core: ids, edges, fan-outs, joins, retries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.simulation.planted.bug import plant, swapped
from tickwork.model import ids
from tickwork.model.ids import parent_group
from tickwork.orchestrator import fold, router, visits
from tickwork.orchestrator.state import Group, LifetimeState, Outcome

FEW: dict[str, Any] = {"lifetimes": 3, "failing": 0.15, "calls": 40}


@plant("an exec id is drawn at random", "I6", calm=True)
def random_exec_id() -> Iterator[None]:
    count = itertools.count()
    with swapped(ids, "exec_id", lambda *_: ids._digest("random", next(count))):
        yield


@plant("an exec id does not say which attempt it is", "I9", calm=True, failing=0.4)
def exec_id_without_attempt() -> Iterator[None]:
    real = ids.exec_id

    def exec_id(lifetime_id: str, branch: str, node: str, iteration: int, attempt: int) -> str:
        return real(lifetime_id, branch, node, iteration, min(attempt, 1))

    with swapped(ids, "exec_id", exec_id):
        yield


@plant("visits of a node are counted over all branches, not in each one", "I6", calm=True, calls=40)
def iterations_of_all_branches() -> Iterator[None]:
    real = visits.open_visit

    def open_visit(state: LifetimeState, branch: str, *rest: Any) -> None:
        counts = state.branches.setdefault(branch, state.branches.setdefault("", {}))
        state.branches[branch] = counts
        real(state, branch, *rest)

    with swapped(visits, "open_visit", open_visit):
        yield


@plant("an arrival at a join is counted twice", "I5", calm=True, **FEW)
def arrival_counted_twice() -> Iterator[None]:
    real = router._decide_group

    def decide(state: LifetimeState, group: Group, latest: Outcome) -> Any:
        if latest.how == "arrived" and latest.edge is not None:
            group.arrivals[latest.edge.target] = group.arrivals.get(latest.edge.target, 0) + 1
        return real(state, group, latest)

    with swapped(router, "_decide_group", decide):
        yield


@plant("a join that waits for all fires when the first one arrives", "I5", calm=True, **FEW)
def join_fires_early() -> Iterator[None]:
    real = router._decide_group

    def decide(state: LifetimeState, group: Group, latest: Outcome) -> Any:
        edge = latest.edge
        if latest.how == "arrived" and edge is not None and state.topology.joins[edge.target].mode == "all":
            return (edge, router._in_order(group, edge.target, {"arrived"})), None
        return real(state, group, latest)

    with swapped(router, "_decide_group", decide):
        yield


@plant("a join that takes any branch fires again when the next one arrives", "I5", calm=True, **FEW)
def any_join_fires_again() -> Iterator[None]:
    real = router._fire

    def fire(state: LifetimeState, group: Group, edge: Any, taken: Any, out: Any) -> None:
        kept, opened = dict(state.groups), group.open
        group.open = 0
        real(state, group, edge, taken, out)
        group.open = opened
        if opened and state.topology.joins[edge.target].mode == "any":
            state.groups = kept

    with swapped(router, "_fire", fire):
        yield


@plant("a quorum is met one arrival too early", "I5", calm=True, **FEW)
def quorum_off_by_one() -> Iterator[None]:
    real = router._decide_group

    def decide(state: LifetimeState, group: Group, latest: Outcome) -> Any:
        edge = latest.edge
        if latest.how == "arrived" and edge is not None:
            join = state.topology.joins[edge.target]
            if join.mode == "quorum" and group.arrivals.get(edge.target, 0) + 1 == max(join.count - 1, 1):
                return (edge, router._in_order(group, edge.target, {"arrived"})), None
        return real(state, group, latest)

    with swapped(router, "_decide_group", decide):
        yield


@plant("a settled join forgets the branches that failed", "I5", calm=True, lifetimes=3, failing=0.4)
def settled_join_without_failures() -> Iterator[None]:
    real = router._in_order

    def in_order(group: Group, target: str, kinds: set[str]) -> list[Outcome]:
        return real(group, target, {"arrived"})

    with swapped(router, "_in_order", in_order):
        yield


@plant("a join takes its branches in the order in which they arrived", "I5", calm=True, slow=0.5, lifetimes=3)
def branches_by_arrival() -> Iterator[None]:
    real = router._in_order

    def in_order(group: Group, target: str, kinds: set[str]) -> list[Outcome]:
        return sorted(real(group, target, kinds), key=lambda outcome: outcome.seq)

    with swapped(router, "_in_order", in_order):
        yield


@plant("a join takes its branches in the order of a set", "I5", calm=True, **FEW)
def branches_by_hash() -> Iterator[None]:
    real = router._in_order

    def in_order(group: Group, target: str, kinds: set[str]) -> list[Outcome]:
        found = {outcome.exec_id: outcome for outcome in real(group, target, kinds)}
        return [found[exec_id] for exec_id in set(found)]

    with swapped(router, "_in_order", in_order):
        yield


@plant("a group that is given up forgets the groups inside it", "crash", calm=True, slow=0.5, lifetimes=4, calls=40)
def nested_groups_forgotten() -> Iterator[None]:
    def inside(path: str, group: str) -> bool:
        return bool(path) and parent_group(path)[0] == group

    with swapped(ids, "in_group", inside):
        yield


@plant("the last branch of a fan-out is not opened", "I6", calm=True)
def branch_not_opened() -> Iterator[None]:
    real = router._open_group

    def open_group(
        state: LifetimeState, branch: str, opener: str, iteration: int, choices: list[Any], *rest: Any
    ) -> None:
        real(state, branch, opener, iteration, choices[: max(1, len(choices) - 1)], *rest)

    with swapped(router, "_open_group", open_group):
        yield


@plant("conditions are asked in the wrong order: the default edge wins", "I10", calm=True)
def default_edge_first() -> Iterator[None]:
    real = router._task_edge

    def task_edge(state: LifetimeState, done: Any) -> Any:
        plain = [edge for edge in state.topology.outgoing[done.name] if not edge.condition]
        return plain[0] if plain else real(state, done)

    with swapped(router, "_task_edge", task_edge):
        yield


@plant("the router looks at something outside of the log", "I11", calm=True)
def router_not_deterministic() -> Iterator[None]:
    real = router._task_edge
    count = itertools.count()

    def task_edge(state: LifetimeState, done: Any) -> Any:
        edges = state.topology.outgoing[done.name]
        return edges[next(count) % len(edges)] if len(edges) > 1 else real(state, done)

    with swapped(router, "_task_edge", task_edge):
        yield


@plant("an attempt more is made than the policy allows", "I14", calm=True, failing=0.4)
def one_attempt_too_many() -> Iterator[None]:
    real = fold.next_delay

    def next_delay(policy: Any, attempt: int, *rest: Any) -> float | None:
        return real(msgspec.structs.replace(policy, max_attempts=policy.max_attempts + 1), attempt, *rest)

    with swapped(fold, "next_delay", next_delay):
        yield


@plant("an error that no attempt can mend is tried again", "I6", calm=True, failing=0.4)
def terminal_error_retried() -> Iterator[None]:
    real = fold.next_delay

    def next_delay(policy: Any, attempt: int, error: Any, exec_id: str) -> float | None:
        return real(policy, attempt, msgspec.structs.replace(error, retryable=True) if error else None, exec_id)

    with swapped(fold, "next_delay", next_delay):
        yield


@plant("the backoff does not grow with the attempts", "I14", calm=True, failing=0.4)
def backoff_does_not_grow() -> Iterator[None]:
    real = fold.next_delay

    def next_delay(policy: Any, attempt: int, *rest: Any) -> float | None:
        return real(policy, attempt, *rest) and real(policy, 1, *rest)

    with swapped(fold, "next_delay", next_delay):
        yield


@plant("a failed attempt is made again at once", "I14", calm=True, failing=0.4)
def backoff_ignored() -> Iterator[None]:
    real = fold.next_delay

    def next_delay(*args: Any) -> float | None:
        return None if real(*args) is None else 0.0

    with swapped(fold, "next_delay", next_delay):
        yield


@plant("an attempt that was lost with its worker counts against max_attempts", "I14", "process.kill", "process.code")
def lost_attempt_counts() -> Iterator[None]:
    real = visits.next_attempt

    def next_attempt(state: LifetimeState, failed: Any, losses: int | None = None) -> Any:
        again = real(state, failed, losses)
        again.losses = 0
        return again

    with swapped(visits, "next_attempt", next_attempt):
        yield


@plant("a visit that ends every worker is tried for ever", "I14", "process.poison", phase=1500.0)
def poison_never_parked() -> Iterator[None]:
    with swapped(visits, "MAX_LOSSES", 1 << 30):
        yield


@plant("the limits of a graph are not looked at", "I7", calm=True, calls=40, lifetimes=4)
def limits_ignored() -> Iterator[None]:
    real = visits.open_visit

    def open_visit(state: LifetimeState, *rest: Any) -> None:
        real(state, *rest)
        if state.exceeded is not None:
            state.exceeded = None

    with swapped(visits, "open_visit", open_visit):
        yield


@plant("fan-outs may nest as deep as they like", "I6", calm=True, calls=40, lifetimes=4)
def depth_ignored() -> Iterator[None]:
    real = router._route_plan

    def route_plan(state: LifetimeState, done_visit: Any, *rest: Any) -> None:
        limits, topology = state.topology.limits, state.topology
        topology.limits = msgspec.structs.replace(limits, depth=100)
        try:
            real(state, done_visit, *rest)
        finally:
            topology.limits = limits

    with swapped(router, "_route_plan", route_plan):
        yield
