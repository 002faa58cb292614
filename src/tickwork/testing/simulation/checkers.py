"""The invariants, checked from what the store keeps and from the ledger of user code; not with the engine's own state.

I1 nothing acknowledged is lost · I2 one record for each execution · I3 effects: a call for each record, one idempotency
key for all attempts, `at_most_once` called once · I4 seqs without gaps · I5 a JOIN fires once, with what arrived ·
I6 branches are made once · I7 one end, nothing after it · I8 policies (in `warden` and `tenants`) · I9 liveness (in
`world`) · I10 causes come first · I11 a replay decides the same, and the read model says what the log says · I13 timers
never fire early, nor twice · I14 attempts within the policy · I15 nothing new runs during a pause · I16 blobs exist ·
I18 nothing vanishes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.ids import parent_group
from tickwork.model.records import Event, Execution, Payload, payload_value
from tickwork.orchestrator.replay import Replaying, replay
from tickwork.testing.simulation import tenants, witnesses
from tickwork.testing.simulation.history import History, fetched
from tickwork.testing.simulation.reference import Reference

if TYPE_CHECKING:
    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime
    from tickwork.testing.simulation.people import Ack
    from tickwork.testing.simulation.usercode import Call
    from tickwork.testing.simulation.world import World

LATE_TIMER = 60.0
"""Virtual seconds after its time within which a timer fires in a world that is well."""

AFTER_END = frozenset({"superseded"})
"""Events that may follow the end: kept, applied to nothing."""

OURS = "tickwork"


async def check_all(world: World) -> None:
    """Checks everything that was recorded, once the world is at its end."""
    histories: dict[str, History] = {}
    for lifetime in await world.lifetimes():
        log = await world.database.store.read_log(lifetime.tenant_id, lifetime.lifetime_id, 0, 1_000_000)
        histories[lifetime.lifetime_id] = History(lifetime, world.graph(lifetime.graph_digest), log)
    world.histories = histories
    for history in histories.values():
        await world.learn(history.log)
    for ack in world.acks:
        _acked(world, histories.get(ack.lifetime_id), ack)
    for history in histories.values():
        Checker(world, history).check()
    for call in world.ledger.calls:
        if call.lifetime_id not in histories:
            world.violation("I1", f"user code ran for lifetime {call.lifetime_id}, which does not exist")
    _nothing_vanished(world, histories)
    await witnesses.check(world, histories)
    await tenants.check(world, histories)


async def rows_that_lie(world: World) -> list[Lifetime]:
    """I11: in a world that is well, a row comes to the status of its log, folded from nothing; and so its questions."""
    found: list[Lifetime] = []
    for lifetime in await world.database.store.open_lifetimes(limit=100_000):
        log = await world.database.store.read_log(lifetime.tenant_id, lifetime.lifetime_id, 0, 1_000_000)
        await world.learn(log)
        replaying = Replaying(
            world.graph(lifetime.graph_digest),
            lifetime_id=lifetime.lifetime_id,
            tenant_id=lifetime.tenant_id,
            rules_of=world.rules_of,
        )
        for logged in fetched(log, world.blobs.kept):
            replaying.feed(logged)
        if replaying.divergence is None and replaying.state.status != lifetime.status:
            found.append(lifetime)
        recorded = {logged.entry.entry_id for logged in log}
        for question in await world.database.store.questions(lifetime.tenant_id, lifetime.lifetime_id):
            if question.exec_id in recorded and lifetime not in found:
                found.append(lifetime)
    return found


def _acked(world: World, history: History | None, ack: Ack) -> None:
    """I1: what a person was told is done stands in the log."""
    if history is None:
        world.violation("I1", f"{ack.what} of {ack.lifetime_id} was acknowledged, and there is no such lifetime")
        return
    found = True
    if ack.what == "start":
        found = history.lifetime.idempotency_key == ack.token and bool(history.log)
    elif ack.what == "fork":
        found = bool(history.forks())
    elif ack.what == "answer":
        done = history.executions.get(ack.token[0])
        found = done is not None and payload_value(done.result) == ack.token[1]
    elif ack.what == "signal":
        taken = [payload_value(msgspec.convert(e.data["payload"], Payload)) for e in history.events("signalled")]
        found = ack.token in taken
    elif ack.what == "abort":
        found = bool(history.events("abort_requested"))
    elif ack.what == "pause":
        found = bool(history.events("paused"))
    elif ack.what == "raise":
        raised = [event.data.get("raised") or {} for event in history.events("resumed")]
        found = any(set(ack.token.values()) <= set(each.values()) for each in raised)
    if not found:
        world.violation("I1", f"{ack.what} {ack.token} of {ack.lifetime_id} was acknowledged and is lost")


def _nothing_vanished(world: World, histories: dict[str, History]) -> None:
    """I18: whatever result the Data Plane acknowledged is recorded, or kept as superseded."""
    for lifetime_id, done in world.consumed:
        history = histories.get(lifetime_id)
        if history is None:
            continue
        recorded = history.executions.get(done.exec_id)
        if recorded is not None and _mark(recorded) == _mark(done):
            continue
        if _mark(done) not in history.superseded:
            world.violation(
                "I18", f"a result of {done.name} {done.exec_id} by {done.executor} was acknowledged and vanished"
            )


def _mark(done: Execution) -> tuple[Any, ...]:
    return (done.exec_id, done.status, done.started_at, done.finished_at, done.executor)


class Checker:
    """Checks one lifetime."""

    def __init__(self, world: World, history: History) -> None:
        self.world, self.history = world, history
        self.graph: AgentGraph = history.graph
        self.lifetime_id = history.lifetime.lifetime_id
        self.log = fetched(history.log, world.blobs.kept)
        self.whole = {e.entry.exec_id: e.entry for e in self.log if isinstance(e.entry, Execution)}
        """Executions with the content of their blobs."""
        self.seqs = {logged.entry.entry_id: logged.seq for logged in history.log}

    def check(self) -> None:
        """All of it."""
        self._order()
        self._end()
        self._causes()
        self._groups()
        self._effects()
        self._attempts()
        self._pauses()
        self._timers()
        self._blobs()
        self._signals()
        self._replay()

    def wrong(self, invariant: str, evidence: str) -> None:
        """Notes a violation, with the lifetime."""
        self.world.violation(invariant, f"lifetime {self.history.lifetime.lifetime_id}: {evidence}")

    def _order(self) -> None:
        log = self.history.log
        if [logged.seq for logged in log] != list(range(1, len(log) + 1)):
            self.wrong("I4", f"the seqs have a gap: {[logged.seq for logged in log]}")
        if any(later.at < earlier.at for earlier, later in itertools.pairwise(log)):
            self.wrong("I4", "the times of the log go back")
        for entry_id, count in Counter(logged.entry.entry_id for logged in log).items():
            if count > 1:
                self.wrong("I2", f"{entry_id} is recorded {count} times")
        if log and not (isinstance(log[0].entry, Event) and log[0].entry.type == "started"):
            self.wrong("I4", "the log does not begin with its start")

    def _end(self) -> None:
        lifetime, log = self.history.lifetime, self.history.log
        ends = [logged for logged in log if isinstance(logged.entry, Event) and logged.entry.type in ENDS]
        if len(ends) != int(lifetime.ended):
            self.wrong("I7", f"it is {lifetime.status} and has {len(ends)} ends")
        elif ends:
            if ENDS[ends[0].entry.type] != lifetime.status:  # type: ignore[union-attr]  # only events are among them
                self.wrong("I11", f"the row says {lifetime.status}, the log {ends[0].entry}")
            for logged in log[ends[0].seq :]:
                entry = logged.entry
                if not (isinstance(entry, Event) and entry.type in AFTER_END):
                    self.wrong("I7", f"{_said(entry)} is recorded after the end")

    def _causes(self) -> None:
        """I10: what led to an execution is recorded before it, and was a success unless the join takes failures."""
        seen: dict[str, Execution] = {}
        for entry in self.history.in_order():
            joined = self._join_mode(entry) if len(entry.parents) > 1 else ""
            for parent in entry.parents:
                if parent not in seen:
                    self.wrong("I10", f"{_said(entry)} is recorded before its cause {parent}")
                elif seen[parent].status != "SUCCEEDED" and joined != "settled" and not self._settled(entry):
                    self.wrong("I10", f"{_said(entry)} comes from {_said(seen[parent])}")
            seen[entry.exec_id] = entry

    def _settled(self, entry: Execution) -> bool:
        return self._join_mode(entry) == "settled"

    def _join_mode(self, entry: Execution) -> str:
        for edge in self.graph.edges:
            if edge.kind == "JOIN" and str(edge) == entry.edge_taken:
                return edge.join.mode
        return ""

    def _groups(self) -> None:
        """I5, I6: each branch begins once, and a join of a group fires once, with distinct branches."""
        begun: set[tuple[Any, ...]] = set()
        fired: dict[tuple[str, str], str] = {}
        executions = self.history.executions
        for entry in executions.values():
            place = (entry.branch, entry.name, entry.iteration, entry.attempt)
            if place in begun:
                self.wrong("I6", f"{_said(entry)} was made twice at {place}")
            begun.add(place)
            if entry.attempt > 1 or not entry.edge_taken or not self._join_mode(entry):
                continue
            branches = [executions[p].branch for p in entry.parents if p in executions]
            inner = [branch for branch in branches if branch != entry.branch]
            if not inner:
                continue  # a JOIN outside any group
            groups = {self._group_below(branch, entry.branch) for branch in inner}
            if len(groups) != 1 or len(set(branches)) != len(branches):
                self.wrong("I5", f"{_said(entry)} joins {branches}")
            key = (min(groups), entry.name)
            if key in fired:
                self.wrong("I5", f"the join at {entry.name} of group {key[0]} fired twice")
            fired[key] = entry.exec_id
            self._complete(entry, min(groups), len(branches))

    def _group_below(self, branch: str, outer: str) -> str:
        """The group that `branch` belongs to and that was opened in branch `outer`."""
        group = parent_group(branch)[0]
        while "/" in group and group.rpartition("/")[0] != outer:
            group = parent_group(group.rpartition("/")[0])[0]
        return group

    def _complete(self, entry: Execution, group: str, joined: int) -> None:
        """A join has no more parents than its group has branches; one that waits for all gives up none of them."""
        size = self.history.group_sizes.get(group)
        if size is not None and joined > size:
            self.wrong("I5", f"{_said(entry)} joins {joined} branches of a group of {size}")
        if self._join_mode(entry) in ("all", "settled"):
            given_up = [e for e in self.history.directly_in(group) if e.status == "CANCELLED"]
            if given_up:
                self.wrong("I5", f"{_said(entry)} fired and gave up {_said(given_up[0])}, which it has to wait for")

    def _effects(self) -> None:
        """I3: who ran what, and how often."""
        by_exec = self.world.ledger.by_exec
        keys: dict[tuple[str, str, str, int], str] = {}
        for entry in self.history.executions.values():
            node = self.graph.node[entry.name]
            calls = by_exec.get(entry.exec_id, [])
            for call in calls:
                self._given(entry, call)
            if calls and not node.runs_code:
                self.wrong("I3", f"{_said(entry)} runs no code and was called")
            ran = entry.executor.partition(" ")[0] not in (OURS, "human", "signal") and not entry.executor.startswith(
                ("human:", "signal:", "child:", "reconcile", "fork")
            )
            if node.runs_code and ran and entry.status == "SUCCEEDED" and not calls:
                self.wrong("I3", f"{_said(entry)} succeeded and was never called")
            for call in calls:
                visit = (call.lifetime_id, entry.branch, entry.name, entry.iteration)
                if keys.setdefault(visit, call.key) != call.key:
                    self.wrong("I3", f"{_said(entry)} was called under two idempotency keys")
            if node.effect == "at_most_once":
                self._called_once(entry, calls)

    def _given(self, entry: Execution, call: Call) -> None:
        """I5: what a join is given are the results of its branches, in their order."""
        parents = [self.whole.get(parent) for parent in entry.parents]
        if call.given is None or len(parents) < 2 or any(p is None or p.kind != "task" for p in parents):
            return
        results = [payload_value(parent.result) for parent in parents if parent is not None]
        if len(call.given) == len(results) and call.given != results:
            self.wrong("I5", f"{_said(entry)} was given the results of its branches in another order, or others")

    def _called_once(self, entry: Execution, calls: list[Call]) -> None:
        if len(calls) > 1:
            who = ", ".join(call.process for call in calls)
            self.wrong("I3", f"{_said(entry)} is at_most_once and was called {len(calls)} times, by {who}")
        retried = {event.data["exec_id"] for event in self.history.events("reconciled")}
        for before in self.history.at(entry.branch, entry.name, entry.iteration, entry.attempt - 1):
            earlier = [c for c in self.world.ledger.by_exec.get(before, []) if c.lifetime_id == self.lifetime_id]
            if not earlier or not calls:
                continue
            # Whoever said that it is to be made again knew of no call; so none may come after that.
            if earlier[0].began > calls[0].began:
                self.wrong("I3", f"{_said(entry)} was called, and the attempt before it was called after that")
            elif before not in retried and earlier[0].how != "RetryableError":
                self.wrong("I3", f"{_said(entry)} was called although the attempt before it may have had its effect")

    def _attempts(self) -> None:
        """I14: no more attempts than the policy allows; those that were lost or reconciled do not count, and a blob
        store that is away makes none fail."""
        retried = {e.data["exec_id"] for e in self.history.events("reconciled")}
        visits: dict[tuple[str, str, int], list[Execution]] = {}
        for entry in self.history.executions.values():
            visits.setdefault((entry.branch, entry.name, entry.iteration), []).append(entry)
        for attempts in visits.values():
            node = self.graph.node[attempts[0].name]
            counted = [e for e in attempts if e.status != "CANCELLED" and not _lost(e) and e.exec_id not in retried]
            if len(counted) > node.retry.max_attempts:
                self.wrong("I14", f"{attempts[0].name} has {len(counted)} attempts, {node.retry.max_attempts} allowed")
            for entry in attempts:
                if entry.error is not None and entry.error.type == "StorageError":
                    self.wrong("I14", f"{_said(entry)} failed, and it was the blob store that did")
            numbers = sorted(e.attempt for e in attempts)
            if len(set(numbers)) != len(numbers):
                self.wrong("I14", f"{attempts[0].name} has attempts {numbers}")

    def _pauses(self) -> None:
        """I15: what came of an entry recorded during a pause is not run before it is resumed."""
        seqs = {logged.entry.entry_id: logged.seq for logged in self.history.log}
        for begin, until in self.history.pauses():
            for entry in self.history.in_order():
                if not begin < seqs[entry.exec_id] < until or not self.graph.node[entry.name].runs_code:
                    continue
                causes = [seqs[p] for p in entry.parents if p in seqs]
                if entry.attempt == 1 and causes and max(causes) > begin and self._was_run(entry):
                    self.wrong("I15", f"{_said(entry)} ran during the pause from {begin} to {until}")

    def _was_run(self, entry: Execution) -> bool:
        return bool(self.world.ledger.by_exec.get(entry.exec_id)) and entry.executor.partition(" ")[0] != OURS

    def _timers(self) -> None:
        """I13: a timer fires once, and not before its time by the store's clock."""
        due = {e.data["timer_id"]: e.data["due"] for e in self.history.events("timer_set")}
        for event in self.history.events("waiting"):
            if event.data.get("deadline") is not None:
                due[f"deadline:{event.data['exec_id']}"] = event.data["deadline"]
        fired: set[str] = set()
        for logged in self.history.log:
            entry = logged.entry
            if isinstance(entry, Event) and entry.type == "timer_fired":
                timer_id = entry.data["timer_id"]
                if timer_id in fired:
                    self.wrong("I13", f"timer {timer_id} fired twice")
                fired.add(timer_id)
                if timer_id not in due:
                    self.wrong("I13", f"timer {timer_id} fired and was never set")
                elif logged.at < due[timer_id]:
                    early = (due[timer_id] - logged.at) / 1e6
                    self.wrong("I13", f"timer {timer_id} fired {early:g} s early by the store's clock")

    def _signals(self) -> None:
        """A signal is given to one wait, and a wait that ended without one had none that it could have had."""
        taken: dict[Any, str] = {}
        passed: list[tuple[Any, str]] = []
        kept: dict[str, list[tuple[int, Any]]] = {}
        paused = self.history.pauses()
        for logged in self.log:
            entry = logged.entry
            if isinstance(entry, Event):
                if entry.type == "signalled":
                    token = payload_value(msgspec.convert(entry.data["payload"], Payload))["token"]
                    kept.setdefault(entry.data["name"], []).append((logged.seq, token))
                elif entry.type == "waiting" and entry.data["on"] == "signal":
                    since = max([self.seqs.get(parent, 0) for parent in entry.data["parents"]], default=1)
                    early = [token for seq, token in kept.get(entry.data["name"], []) if seq < since]
                    passed += [(token, entry.data["node"]) for token in early]
                continue
            signal = self.graph.node[entry.name].signal
            value = payload_value(entry.result) if signal is not None and entry.result is not None else None
            if signal is None:
                continue
            if isinstance(value, dict) and "token" in value:
                token = value["token"]
                if token in taken and not self.history.events("forked"):
                    self.wrong("I1", f"the signal {token} was given to {taken[token]} and to {_said(entry)}")
                taken[token] = _said(entry)
                kept[signal.name] = [(seq, other) for seq, other in kept.get(signal.name, []) if other != token]
        for token, node in passed if not (paused or self.history.events("forked")) else []:
            if token not in taken:
                self.wrong("I1", f"{node} began to wait for a signal, and {token} had come before and was not taken")

    def _blobs(self) -> None:
        for entry in self.history.executions.values():
            payloads = [entry.result, *[choice.input for choice in entry.next or ()]]
            for payload in payloads:
                if payload is None or payload.uri is None:
                    continue
                kept = self.world.blobs.kept.get(payload.uri)
                if kept is None or len(kept) != payload.size or not payload.uri.endswith(payload.sha256 or "?"):
                    self.wrong("I16", f"{_said(entry)} points at {payload.uri}, which is not what was kept")

    def _replay(self) -> None:
        """I11: folded again from nothing, the log is what the core decides; and what a second opinion says it is."""
        lifetime = self.history.lifetime
        if lifetime.ended:
            reference = Reference(self.graph, lifetime.lifetime_id, self.wrong, self.world.laws_of)
            reference.walk(self.log)
            self._let_out(reference)
        tenants.reachable(self.world, self.history)
        try:
            found = replay(
                self.graph,
                self.log,
                lifetime_id=lifetime.lifetime_id,
                tenant_id=lifetime.tenant_id,
                rules_of=self.world.rules_of,
            ).divergence
        except Exception as error:  # noqa: BLE001 - a log that cannot be folded is a finding, whatever it raises
            self.wrong("I11", f"the log cannot be replayed: {type(error).__name__}: {error}")
            return
        if found is not None:
            self.wrong("I11", f"at {found.seq}, {found.what}; recorded {found.recorded}; decided {found.decided}")

    def _let_out(self, reference: Reference) -> None:
        """I8, I15: what ran had been let out: the policies had admitted it, and nothing was paused.

        What a tenant's policy took back may have gone out all the same: another process was told that it may, it was on
        its way before that policy was loaded, or after that was changed again while the refusal was on its way.
        """
        loads = self.world.officer.loads if self.world.officer is not None else []
        journal, customs = self.world.journal, self.world.network.customs
        for exec_id, invariant in reference.kept_in:
            if exec_id in reference.refused and customs is not None:
                asked, sent = journal.first_asked.get(exec_id, 0.0), customs.first_sent.get(exec_id, 1e9)
                changed = any(asked - SEEN_BY_ALL < load < sent for load in loads)
                if exec_id in journal.admitted or sent < asked or changed:
                    continue
            if self.world.ledger.by_exec.get(exec_id):
                self.wrong(invariant, f"{exec_id} ran while it was held back")
        for call in self.world.ledger.calls:
            if call.lifetime_id == self.lifetime_id and call.exec_id not in reference.let_out:
                self.wrong("I8", f"{call.node} {call.exec_id} was called, and nothing had let it out")


SEEN_BY_ALL = 5.0
"""Virtual seconds after which every process has the policies that were loaded."""

ENDS = {"completed": "COMPLETED", "failed": "FAILED", "aborted": "ABORTED"}


def _lost(entry: Execution) -> bool:
    return entry.status == "TIMED_OUT" and entry.error is not None and entry.error.type == "LeaseExpired"


def _said(entry: Execution | Event) -> str:
    if isinstance(entry, Event):
        return f"the event {entry.id}"
    return f"{entry.name} {entry.branch}#{entry.iteration}/{entry.attempt} ({entry.exec_id}, {entry.status})"


# -- standing: where a lifetime is, for the liveness phases ------------------------------------------------------------


async def waits_for_something_named(world: World, lifetime: Lifetime) -> bool:
    """Whether it waits for an open question, a timer that is not overdue, a person's resume, or a child that does."""
    store = world.database.store
    if lifetime.status == "PAUSED":
        return True
    tenant = lifetime.tenant_id
    if lifetime.status == "WAITING":
        late = world.store_clock.now() - int(LATE_TIMER * 1e6)
        if any(not q.deadline or q.deadline > late for q in await store.questions(tenant, lifetime.lifetime_id)):
            return True
        timers, _ = await store.due_timers(1 << 62, 100_000)
        due = [timer.due for timer in timers if timer.lifetime_id == lifetime.lifetime_id]
        return bool(due) and min(due) > late
    children = [one for one in await world.family(tenant, lifetime.lifetime_id) if one is not lifetime]
    for child in children:
        if child.lifetime_id != lifetime.lifetime_id and await waits_for_something_named(world, child):
            return True
    return False


async def standing(world: World, lifetime: Lifetime) -> str:
    """How a lifetime stands, in one line, for a report."""
    store = world.database.store
    log = await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, 0, 1_000_000)
    questions = await store.questions(lifetime.tenant_id, lifetime.lifetime_id)
    timers, _ = await store.due_timers(1 << 62, 100_000)
    mine = [timer.timer_id for timer in timers if timer.lifetime_id == lifetime.lifetime_id]
    last = ", ".join(_said(logged.entry) for logged in log[-2:])
    return (
        f"lifetime {lifetime.lifetime_id} ({lifetime.status}, {len(log)} entries, last: {last}; "
        f"questions {[(q.on, q.node) for q in questions]}, timers {mine})"
    )
