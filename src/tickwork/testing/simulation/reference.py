"""A second opinion: what a log has to contain, worked out from the graph and the results alone.

Written from the specification of edges, fan-outs, joins, retries and ends, and sharing nothing with the router: a
mistake there would be in the replay, too, and both would agree. It walks through the log once, keeps which visits are
open and which branches of which fan-out have ended, and says where the log leaves what the rules demand:

I5 joins · I6 visits, branches and iterations · I7 the end · I10 causes · I14 retries and their delays · I15 what may go
out · I8 what policies say about it, by a second opinion of its own (`warden`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from tickwork.model.graph import END, START, Edge
from tickwork.model.records import Error, Event, Execution, payload_value
from tickwork.model.spending import LEASE_EXPIRED
from tickwork.orchestrator.state import MAX_LOSSES
from tickwork.orchestrator.topology import Topology
from tickwork.testing.simulation.warden import Warden, strictest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.graph import AgentGraph, Join
    from tickwork.model.records import LogEntry
    from tickwork.testing.simulation.laws import Law

SLACK = 2
"""Microseconds by which a delay may be rounded."""

CONDITION = "result.n % 2 == 0"
"""The one condition of simulated graphs; its meaning is written down here once more."""

OURS = "tickwork"
"""Who records what no executor ran."""

ENDS = {"completed": "COMPLETED", "failed": "FAILED", "aborted": "ABORTED"}


def exec_id(lineage: str, branch: str, node: str, iteration: int, attempt: int) -> str:
    """The id that this attempt has to have (docs: ids come from causality)."""
    text = "\x1f".join(["exec", lineage, branch, node, str(iteration), str(attempt)])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def no_laws(digest: str) -> list[Law]:
    """For logs without policies."""
    raise LookupError(f"the policy set {digest} is not known")


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
    phase: Literal["ready", "sent", "backoff", "waits", "refused"] = "ready"
    """What is asked of people, signals and timers only waits."""
    begun: bool = False
    """It was sent out, and nobody refused it since."""
    reserved: bool = False
    """What it may use counts against the budgets."""

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

    def __init__(
        self,
        graph: AgentGraph,
        lifetime_id: str,
        wrong: Callable[[str, str], None],
        laws_of: Callable[[str], list[Law]] = no_laws,
    ) -> None:
        self.graph, self.lineage, self.wrong = graph, lifetime_id, wrong
        self.warden = Warden(graph, laws_of, wrong)
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
        self.paused = self.doomed = False
        self.held: list[tuple[Place, Execution]] = []
        """Records over which a policy has paused the lifetime, until it is resumed."""
        self.let_out: set[str] = set()
        """Attempts that were sent out at some time."""
        self.refused: set[str] = set()
        """Those of them that a tenant's policy took back."""
        self.kept_in: list[tuple[str, str]] = []
        """Attempts that have a worker's record although they were never let out, and the invariant that this breaks."""

    def walk(self, log: Sequence[LogEntry]) -> None:
        """All of it."""
        for logged in log:
            self.seq, self.at = logged.seq, logged.at
            entry = logged.entry
            if isinstance(entry, Execution):
                self._execution(entry)
            else:
                self._event(entry)
            if (self.exceeded or self.doomed) and not self.ending:
                self._finish("ABORTED" if self.doomed else "FAILED")
        self.warden.over()

    # -- entries

    def _event(self, event: Event) -> None:
        data = event.data
        if event.type == "started":
            self.lineage = data.get("lifetime_id") or self.lineage
            self.warden.labels, self.warden.started_at = data.get("labels") or {}, self.at
            if data.get("policies"):
                self._install(data["policies"])
            self._enter()
        elif event.type == "forked":
            self._forked(data["into"], data.get("labels") or {})
        elif event.type in ("paused", "resumed", "policies", "verdict", "superseded"):
            self._policed(event)
        elif event.type == "abort_requested":
            if not self.ending:
                self._finish("ABORTED")
        elif event.type in ENDS:
            self._over(event)
        elif event.type == "timer_set" and data["purpose"] == "retry":
            self._retry_set(data["exec_id"], data["due"])
        elif event.type == "timer_fired":
            self._fired(data["timer_id"])
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
            place.unknown, place.phase = True, "waits"
        elif event.data["action"] == "ask":
            place.asked = place.unknown
        elif name in self.parked:
            self.parked.discard(name)
            place.losses, place.phase = 0, "ready"
            self._send(name, place)
        elif place.unknown:
            del self.open[name]
            self.late.add(name)
            self._again(place, place.losses if place.asked else place.losses + 1)

    def _execution(self, done: Execution) -> None:
        name = done.exec_id
        place = self.open.pop(name, None)
        made = done.status != "CANCELLED" and (done.executor != OURS or _is_lost(done))
        self.warden.count(done, ran=made, admitted=place is not None and place.reserved)
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
        if place.phase in ("ready", "refused") and done.executor != OURS:
            self.kept_in.append((name, "I15" if self.paused else "I8"))
        if not self.ending:
            self._judge(place, done)

    def _judge(self, place: Place, done: Execution) -> None:
        """What the policies let a record lead to."""
        found = self.warden.recorded(done, self.at) if not self.doomed else []
        self.warden.expect(found, done.exec_id)
        breach = strictest(found)
        if breach is None:
            self._goes_on(place, done)
        elif breach.action == "abort_lifetime":
            self.doomed = True
        elif breach.action == "reject_execution":
            # Its effect was made, and must not be made again.
            once = self.graph.node[place.node].effect == "at_most_once"
            error = Error("Rejected", "", retryable=not once) if done.status == "SUCCEEDED" else done.error
            self._failed(place, done, error)
        elif breach.failed or not breach.law.early:
            self._pause(breach.law.label, done.exec_id)
            self.held.append((place, done))
        else:
            paused, self.paused = self.paused, True
            self._goes_on(place, done)
            self.paused = paused
            if not self.ending:
                self._pause(breach.law.label, done.exec_id)

    def _goes_on(self, place: Place, done: Execution) -> None:
        if done.status == "SUCCEEDED":
            self._route(place, done)
        elif _is_lost(done):
            self._again(place, place.losses + 1)
        elif done.status == "CANCELLED":
            self._branch_over(place.branch, Ended("failed", done.exec_id, self.facts.nearest_join[place.node]))
        else:
            self._failed(place, done, done.error)

    # -- policies

    def _policed(self, event: Event) -> None:
        data = event.data
        if event.type == "superseded":
            self.warden.count(msgspec.convert(data["execution"], Execution), ran=False, admitted=False)
        elif event.type == "policies":
            self._install(data["digest"])
        elif event.type == "paused":
            if data.get("policy"):
                self.warden.said(event)  # it holds since it was decided
            else:
                self.paused = True
        elif event.type == "resumed":
            self._resumed(data.get("raised") or {})
        elif data["scope"] != "tenant" or data["at"] == "record":
            self.warden.said(event)
        else:
            self._taken_back(event)

    def _install(self, digest: str) -> None:
        for place in self.open.values():
            place.reserved = bool(digest) and place.begun
        self.warden.install(digest, self.open.values())

    def _resumed(self, raised: dict[str, str]) -> None:
        self.warden.resume(raised)
        self.paused = False
        held, self.held = self.held, []
        for place, done in held:
            if self._leads_on(place):
                self._goes_on(place, done)
        self._send_all()

    def _leads_on(self, place: Place) -> bool:
        """Whether a record that was held still leads anywhere: its fan-out may be over by now, or all may be."""
        return not self.ending and (not place.branch or place.branch.rpartition(".")[0] in self.fans)

    def _send_all(self) -> None:
        for name, place in list(self.open.items()):
            self._send(name, place)

    def _send(self, name: str, place: Place) -> None:
        """Lets a visit out, unless something holds it back."""
        if self.ending or self.doomed or self.paused or place.phase != "ready":
            return
        if self.warden.digest and not place.reserved:
            found = self.warden.dispatched(place, place.iteration, self.open.values(), self.at)
            self.warden.expect(found, name)
            breach = strictest(found)
            if breach is not None:
                self._hold_back(name, place, breach.action, breach.law.label)
                return
            place.reserved = True
            self.warden.let_out(place.node)
        place.phase, place.begun = "sent", True
        self.let_out.add(name)

    def _hold_back(self, name: str, place: Place, action: str, label: str) -> None:
        if action == "pause_lifetime":
            self._pause(label, name)
        elif action == "abort_lifetime":
            self.doomed = True
        else:
            place.phase = "refused"

    def _pause(self, label: str, name: str) -> None:
        if not self.paused:
            self.paused = True
            self.warden.expect_pause(label, name)

    def _taken_back(self, event: Event) -> None:
        """A tenant's policy did not let it out, which the log learns afterwards."""
        data, name = event.data, event.data["exec_id"]
        place = self.open.get(name)
        if data["shadow"] or data["action"] == "warn" or place is None or place.phase != "sent" or self.ending:
            return
        place.phase, place.begun, place.reserved = "ready", False, False
        self.refused.add(name)
        self._hold_back(name, place, data["action"], data["policy"])

    def _fired(self, timer_id: str) -> None:
        purpose, _, name = timer_id.partition(":")
        self.unfired.discard(name)
        place = self.open.get(name)
        if purpose == "policy":
            if not self.ending and not self.doomed:
                found = self.warden.overdue(self.at)
                self.warden.expect(found, "", self.seq)
                breach = strictest(found)
                if breach is not None and breach.action == "pause_lifetime":
                    self._pause(breach.law.label, str(self.seq))
                self.doomed = breach is not None and breach.action == "abort_lifetime"
        elif place is not None and place.phase == "backoff" and not self.ending:
            place.phase = self._first_phase(place.node)
            self._send(name, place)

    # -- retries

    def _failed(self, place: Place, done: Execution, error: Error | None) -> None:
        if not self._retry(place, error):
            self._branch_over(place.branch, Ended("failed", done.exec_id, self.facts.nearest_join[place.node]))

    def _retry(self, place: Place, error: Error | None) -> bool:
        policy = self.graph.node[place.node].retry
        made = place.attempt - place.losses
        if made >= policy.max_attempts or (error and (not error.retryable or error.type in policy.non_retryable)):
            return False
        wait = min(policy.initial_interval * policy.backoff ** (made - 1), policy.max_interval)
        asked = (error.details or {}).get("retry_after", 0) if error and isinstance(error.details, dict) else 0
        low, high = max(wait * (1 - policy.jitter), asked), max(wait * (1 + policy.jitter), asked)
        name = self._again(place, place.losses, later=high > 0)
        if high > 0:
            self.retries[name] = (self.at + round(low * 1e6) - SLACK, self.at + round(high * 1e6) + SLACK)
            self.unfired.add(name)
        return True

    def _again(self, place: Place, losses: int, *, later: bool = False) -> str:
        again = Place(
            place.branch, place.node, place.iteration, place.attempt + 1, place.parents, place.edge, losses,
            phase="backoff" if later else self._first_phase(place.node),
        )  # fmt: skip
        name = self._name(again)
        self.open[name] = again
        if losses >= MAX_LOSSES and losses > place.losses:
            self.parked.add(name)
            again.phase = "waits"
        self._send(name, again)
        return name

    def _first_phase(self, node: str) -> Literal["ready", "waits"]:
        return "ready" if self.graph.node[node].runs_code or self.graph.node[node].child is not None else "waits"

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
        place = Place(
            branch, node, iteration, 1, parents, f"{edge.source}->{edge.target}", phase=self._first_phase(node)
        )
        name = self._name(place)
        self.open[name] = place
        self._send(name, place)

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
        self.held.clear()

    def _over(self, event: Event) -> None:
        if self.over:
            return  # that it is the second one is seen elsewhere
        self.over = True
        if self.ending != ENDS[event.type]:
            self.wrong("I7", f"the lifetime is {event.type}, and had to be {self.ending or 'going on'}")
        for place in self.owed.values():
            self.wrong("I7", f"{place.said()} was given up, and the end came without a record of it")

    def _forked(self, into: str, labels: dict[str, str]) -> None:
        self.lineage = into
        self.parked = {self._name(self.open[name]) for name in self.parked if name in self.open}
        for visits in (self.open, self.owed):
            renamed = {self._name(place): place for place in visits.values()}
            visits.clear()
            visits.update(renamed)
        for place in self.open.values():
            place.asked, place.reserved = place.unknown, False  # a hook knows nothing of the new id
            if place.phase == "sent":
                place.phase, place.begun = "ready", False
        self.forked = True
        self.retries.clear()
        self.unfired.clear()
        self.paused = False
        self.warden.fork(labels, self.seq, self.at)
        if self.warden.digest:
            self._install(self.warden.digest)
        held, self.held = self.held, []
        for place, done in held:  # judged as if they had just come
            if self._leads_on(place):
                self._judge(place, done)
        self._send_all()


def _is_lost(done: Execution) -> bool:
    return done.status == "TIMED_OUT" and done.error is not None and done.error.type == LEASE_EXPIRED
