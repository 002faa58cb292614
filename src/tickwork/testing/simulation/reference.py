"""A second opinion: what a log has to contain, worked out from the graph and the results alone.

Written from the specification of edges, fan-outs, joins, retries and ends, and sharing nothing with the router: a
mistake there would be in the replay, too, and both would agree. It walks through the log once, keeps which visits are
open and which branches of which fan-out have ended, and says where the log leaves what the rules demand:

I5 joins · I6 visits, branches and iterations · I7 the end · I10 causes · I14 retries and their delays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from tickwork.model.graph import END, START, Edge
from tickwork.model.records import Event, Execution, payload_value
from tickwork.orchestrator.state import LEASE_EXPIRED, MAX_LOSSES
from tickwork.orchestrator.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.graph import AgentGraph, Join
    from tickwork.model.records import LogEntry

SLACK = 2
"""Microseconds by which a delay may be rounded."""

CONDITION = "result.n % 2 == 0"
"""The one condition of simulated graphs; its meaning is written down here once more."""

ENDS = {"completed": "COMPLETED", "failed": "FAILED", "aborted": "ABORTED"}


def exec_id(lineage: str, branch: str, node: str, iteration: int, attempt: int) -> str:
    """The id that this attempt has to have (docs: ids come from causality)."""
    text = "\x1f".join(["exec", lineage, branch, node, str(iteration), str(attempt)])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Place(msgspec.Struct):
    """A visit that is open: the log has to have a record of it before it ends."""

    branch: str
    node: str
    iteration: int
    attempt: int
    parents: tuple[str, ...]
    edge: str
    losses: int = 0
    unknown: bool = False
    asked: bool = False

    def said(self) -> str:
        """In words."""
        return f"{self.node} {self.branch}#{self.iteration}/{self.attempt}"


class Ended(NamedTuple):
    """How a branch ended: it arrived at the join at `at`, it failed (and counts at `at`), or it just ended."""

    how: Literal["arrived", "failed", "ended"]
    exec_id: str
    edge: Edge | None


class Fan:
    """A fan-out: branches by index, and how each ended."""

    def __init__(self, path: str, outer: str, opener: str, size: int) -> None:
        self.path, self.outer, self.opener, self.size = path, outer, opener, size
        self.ended: dict[int, Ended] = {}

    def arrived(self, target: str) -> int:
        """Branches that arrived at this join."""
        return sum(e.how == "arrived" and e.edge is not None and e.edge.target == target for e in self.ended.values())


class Reference:
    """Walks through one log. `wrong(invariant, evidence)` is told what does not agree."""

    def __init__(self, graph: AgentGraph, lifetime_id: str, wrong: Callable[[str, str], None]) -> None:
        self.graph, self.lineage, self.wrong = graph, lifetime_id, wrong
        self.facts = Topology(graph)
        self.open: dict[str, Place] = {}
        self.owed: dict[str, Place] = {}
        """Visits that were given up: something is recorded of each before the end."""
        self.late: set[str] = set()
        """Attempts whose result may still come although others went on."""
        self.fans: dict[str, Fan] = {}
        self.visits: Counter[tuple[str, str]] = Counter()
        self.ending = ""
        self.exceeded = False
        self.over = self.forked = False
        self.seq = self.at = 0
        self.retries: dict[str, tuple[int, int]] = {}
        """Retry timers that have to be set, with the bounds of their due times."""
        self.unfired: set[str] = set()
        self.parked: set[str] = set()
        """Attempts that may not run before somebody has looked."""

    def walk(self, log: Sequence[LogEntry]) -> None:
        """All of it."""
        for logged in log:
            self.seq, self.at = logged.seq, logged.at
            entry = logged.entry
            if isinstance(entry, Execution):
                self._execution(entry)
            else:
                self._event(entry)
            if self.exceeded and not self.ending:
                self._finish("FAILED")

    # -- entries

    def _event(self, event: Event) -> None:
        data = event.data
        if event.type == "started":
            self.lineage = data.get("lifetime_id") or self.lineage
            self._enter()
        elif event.type == "forked":
            self._forked(data["into"])
        elif event.type == "abort_requested":
            if not self.ending:
                self._finish("ABORTED")
        elif event.type in ENDS:
            self._over(event)
        elif event.type == "timer_set" and data["purpose"] == "retry":
            self._retry_set(data["exec_id"], data["due"])
        elif event.type == "timer_fired":
            self.unfired.discard(data["timer_id"].partition(":")[2])
        elif event.type in ("unknown", "reconciled"):
            self._trouble(event)

    def _retry_set(self, name: str, due: int) -> None:
        bounds = self.retries.pop(name, None)
        if bounds is None:
            if name in self.open and not self.forked:
                self.wrong("I14", f"{self.open[name].said()} is to be tried at once and got a timer")
        elif not bounds[0] <= due <= bounds[1]:
            self.wrong("I14", f"the retry {name} is due at {due}, which is not in {bounds[0]}..{bounds[1]}")

    def _trouble(self, event: Event) -> None:
        name = event.data["exec_id"]
        place = self.open.get(name)
        if place is None:
            return
        if event.type == "unknown":
            place.unknown = True
        elif event.data["action"] == "ask":
            place.asked = place.unknown
        elif name in self.parked:
            self.parked.discard(name)
            place.losses = 0
        elif place.unknown:
            del self.open[name]
            self.late.add(name)
            self._again(place, place.losses if place.asked else place.losses + 1)

    def _execution(self, done: Execution) -> None:
        name = done.exec_id
        place = self.open.pop(name, None)
        if place is None:
            if name not in self.late and self.owed.pop(name, None) is None:
                self.wrong("I6", f"nothing led to {done.name} {done.branch}#{done.iteration}/{done.attempt} ({name})")
            self.retries.pop(name, None)
            return
        recorded = (done.branch, done.name, done.iteration, done.attempt)
        if recorded != (place.branch, place.node, place.iteration, place.attempt):
            self.wrong("I6", f"{recorded} is recorded where {place.said()} was due")
        if (done.parents, done.edge_taken) != (place.parents, place.edge):
            joined = len(place.parents) > 1 or len(done.parents) > 1
            self.wrong(
                "I5" if joined else "I10",
                f"{place.said()} has to come from {place.parents} by {place.edge}, and came from {done.parents} by "
                f"{done.edge_taken}",
            )
        if name in self.unfired and done.started_at and done.status != "CANCELLED":
            self.wrong("I14", f"{place.said()} ran before its retry was due")
        if name in self.parked and not done.executor.startswith("reconcile"):
            self.wrong("I14", f"{place.said()} ran although {place.losses} of its workers had died")
        if self.ending:
            return
        if done.status == "SUCCEEDED":
            self._route(place, done)
        elif done.error is not None and done.error.type == LEASE_EXPIRED:
            self._again(place, place.losses + 1)
        elif done.status == "CANCELLED" or not self._retry(place, done):
            self._branch_over(place.branch, Ended("failed", name, self.facts.nearest_join[place.node]))

    # -- retries

    def _retry(self, place: Place, done: Execution) -> bool:
        policy, error = self.graph.node[place.node].retry, done.error
        made = place.attempt - place.losses
        if made >= policy.max_attempts or (error and (not error.retryable or error.type in policy.non_retryable)):
            return False
        wait = min(policy.initial_interval * policy.backoff ** (made - 1), policy.max_interval)
        asked = (error.details or {}).get("retry_after", 0) if error and isinstance(error.details, dict) else 0
        low, high = max(wait * (1 - policy.jitter), asked), max(wait * (1 + policy.jitter), asked)
        name = self._again(place, place.losses)
        if high > 0:
            self.retries[name] = (self.at + round(low * 1e6) - SLACK, self.at + round(high * 1e6) + SLACK)
            self.unfired.add(name)
        return True

    def _again(self, place: Place, losses: int) -> str:
        again = msgspec.structs.replace(place, attempt=place.attempt + 1, losses=losses, unknown=False, asked=False)
        name = self._name(again)
        self.open[name] = again
        if losses >= MAX_LOSSES and losses > place.losses:
            self.parked.add(name)
        return name

    # -- edges

    def _name(self, place: Place) -> str:
        return exec_id(self.lineage, place.branch, place.node, place.iteration, place.attempt)

    def _enter(self) -> None:
        entries = self.graph.entries
        if len(entries) == 1:
            self._visit("", entries[0], ())
        else:
            self._fan_out("", START, 0, list(entries), ())

    def _visit(self, branch: str, edge: Edge, parents: tuple[str, ...]) -> None:
        limits, node = self.graph.limits, edge.target
        iteration = self.visits[branch, node]
        if iteration >= limits.visits or len(self.open) >= limits.open_visits or self.seq >= limits.records:
            self.exceeded = True
            return
        self.visits[branch, node] += 1
        place = Place(branch, node, iteration, 1, parents, f"{edge.source}->{edge.target}")
        self.open[self._name(place)] = place

    def _fan_out(self, branch: str, opener: str, iteration: int, edges: list[Edge], parents: tuple[str, ...]) -> None:
        path = f"{branch}/{opener}:{iteration}" if branch else f"{opener}:{iteration}"
        self.fans[path] = Fan(path, branch, opener, len(edges))
        for index, edge in enumerate(edges):
            self._visit(f"{path}.{index}", edge, parents)

    def _route(self, place: Place, done: Execution) -> None:
        if done.kind == "plan":
            self._route_plan(place, done)
            return
        chosen: Edge | None = None
        for edge in self.graph.outgoing[done.name]:
            if not edge.condition:
                chosen = chosen or edge
            elif edge.condition == CONDITION:
                value = payload_value(done.result)
                if not isinstance(value, dict) or "n" not in value:
                    self._branch_over(place.branch, Ended("failed", done.exec_id, self.facts.nearest_join[place.node]))
                    return
                if value["n"] % 2 == 0:
                    chosen = edge
                    break
        if chosen is None:
            self._branch_over(place.branch, Ended("ended", done.exec_id, None))
        else:
            self._follow(place, done, chosen)

    def _route_plan(self, place: Place, done: Execution) -> None:
        edges = {edge.target: edge for edge in self.graph.outgoing[done.name]}
        chosen = [edges[choice.task] for choice in done.next or ()]
        if not chosen:
            self._branch_over(place.branch, Ended("ended", done.exec_id, None))
        elif chosen[0].kind != "PARALLEL":
            self._follow(place, done, chosen[0])
        elif place.branch and place.branch.count("/") + 1 >= self.graph.limits.depth:
            self._branch_over(place.branch, Ended("failed", done.exec_id, self.facts.nearest_join[place.node]))
        else:
            self._fan_out(place.branch, done.name, done.iteration, chosen, (done.exec_id,))

    def _follow(self, place: Place, done: Execution, edge: Edge) -> None:
        if edge.kind == "FINAL" or edge.target == END:
            self._finish("COMPLETED")
        elif edge.kind == "JOIN" and place.branch:
            self._branch_over(place.branch, Ended("arrived", done.exec_id, edge))
        else:
            self._visit(place.branch, edge, (done.exec_id,))

    # -- ends of branches and fan-outs

    def _branch_over(self, branch: str, ended: Ended) -> None:
        if not branch:
            self._finish("FAILED")
            return
        path, _, index = branch.rpartition(".")
        fan = self.fans.get(path)
        if fan is None:
            self.wrong("I5", f"branch {branch} goes on after its fan-out was over")
            return
        fan.ended[int(index)] = ended
        if ended.how == "arrived" and ended.edge is not None:
            join = self._join(ended.edge.target)
            enough = {"any": 1, "quorum": join.count}.get(join.mode)
            if enough is not None and fan.arrived(ended.edge.target) >= enough:
                self._fire(fan, ended.edge, ("arrived",))
                return
        if len(fan.ended) == fan.size:
            self._fan_over(fan, ended)

    def _fan_over(self, fan: Fan, last: Ended) -> None:
        """All branches have ended, `last` was the last one, and no `any` or `quorum` was met."""
        ordered = [fan.ended[i] for i in range(fan.size)]
        targets = {e.edge.target for e in ordered if e.how == "arrived" and e.edge is not None}
        failed = next((e for e in ordered if e.how == "failed"), None)
        reached = [e.edge for e in ordered if e.how == "arrived"] or ([failed.edge] if failed else [])
        edge = reached[0] if reached else None
        culprit = failed if failed is not None else last
        if edge is not None and len(targets) < 2:
            mode = self._join(edge.target).mode
            if mode == "settled":
                self._fire(fan, edge, ("arrived", "failed"))
                return
            if mode == "all" and failed is None:
                self._fire(fan, edge, ("arrived",))
                return
            if mode != "all":
                culprit = last
        if len(targets) > 1:
            culprit = last
        del self.fans[fan.path]
        if edge is None and failed is None:
            self._branch_over(fan.outer, Ended("ended", last.exec_id, None))
        else:
            self._branch_over(fan.outer, Ended("failed", culprit.exec_id, self.facts.nearest_join.get(fan.opener)))

    def _join(self, target: str) -> Join:
        return self.facts.joins[target]

    def _fire(self, fan: Fan, edge: Edge, taken: tuple[str, ...]) -> None:
        del self.fans[fan.path]
        inside = f"{fan.path}."
        for name, place in list(self.open.items()):
            if place.branch.startswith(inside):
                self.owed[name] = self.open.pop(name)
                self.retries.pop(name, None)
        for path in [path for path in self.fans if path.startswith(inside)]:
            del self.fans[path]
        counted = [fan.ended[i] for i in range(fan.size) if i in fan.ended and fan.ended[i].how in taken]
        here = [e for e in counted if e.how == "failed" or (e.edge is not None and e.edge.target == edge.target)]
        self._visit(fan.outer, edge, tuple([e.exec_id for e in here]))

    # -- the end of it all

    def _finish(self, status: str) -> None:
        self.ending = status
        self.owed.update(self.open)
        self.open.clear()
        self.fans.clear()
        self.retries.clear()

    def _over(self, event: Event) -> None:
        if self.over:
            return  # that it is the second one is seen elsewhere
        self.over = True
        if self.ending != ENDS[event.type]:
            self.wrong("I7", f"the lifetime is {event.type}, and had to be {self.ending or 'going on'}")
        for place in self.owed.values():
            self.wrong("I7", f"{place.said()} was given up, and the end came without a record of it")

    def _forked(self, into: str) -> None:
        self.lineage = into
        for visits in (self.open, self.owed):
            renamed = {self._name(place): place for place in visits.values()}
            visits.clear()
            visits.update(renamed)
        for place in self.open.values():
            place.asked = place.unknown  # a hook knows nothing of the new id
        self.forked = True
        self.retries.clear()
        self.unfired.clear()
