"""The use cases: everything that the command line, the HTTP and the gRPC interface can ask for, in one place.

Each verb validates at the edge, writes one entry through the Data Plane, and returns once that entry is durable.
Nothing here decides what a lifetime does next; that is the fold's, when it reads the entry.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from tickwork.breach import Breach, breach_of
from tickwork.edge import (
    check_answer,
    check_idempotency_key,
    check_labels,
    check_pressure,
    check_words,
    legal_tenant,
    one_lifetime,
)
from tickwork.errors import AlreadyEnded, AnswerRefused, Conflict, GraphInvalid, NotFound, UsageError
from tickwork.model.graph import MAX_BRANCHES, AgentGraph, graph_from_json
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.messages import Append
from tickwork.model.policy import PolicyDocument, effective
from tickwork.model.records import Error, Event, Execution, Payload, payload_value
from tickwork.model.validation import validate
from tickwork.orchestrator.control_plane import activity_of
from tickwork.orchestrator.performing import policies_event
from tickwork.orchestrator.policies import NO_POLICIES
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.starting import PARENT_LABEL, begin, new_lifetime
from tickwork.payloads import spilled
from tickwork.ports import LifetimeQuery, StoredGraph
from tickwork.raising import raised_limits
from tickwork.sdk.encoding import EncodingError, encode_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tickwork.model.lifetime import Lifetime, LifetimeStatus, Question
    from tickwork.model.records import LogEntry
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.orchestrator.watchers import Watchers
    from tickwork.ports import BlobStore, Clock, Ids, StateStore

    # Inside the class `list` is the use case of that name.
    Entries: TypeAlias = list[LogEntry]
    Questions: TypeAlias = list[Question]

REMEMBERED = 1_000
"""Lifetimes of which it is remembered what was going on in them."""

POLL = 0.2
"""Seconds between two looks at the log of a lifetime that another process moves: without planes there is no news."""

OPEN = ("PENDING", "RUNNING", "WAITING", "PAUSED")

TROUBLE = ("unknown", "poison")
"""Questions about executions that only a person can settle."""


class Outcome(msgspec.Struct, kw_only=True):
    """How a lifetime stands: the document that `tickwork run --json` prints."""

    lifetime_id: str
    status: LifetimeStatus
    reason: str | None
    result: Any
    executions: int
    tokens_used: int
    cost_usd: Decimal
    duration_ms: float
    breach: Breach | None = None
    """What a policy stopped it over, when one did."""


class Service:
    """The use cases over one set of adapters. Raises the errors of `tickwork.errors`."""

    def __init__(
        self,
        store: StateStore,
        blobs: BlobStore,
        policies: PolicyIndex,
        rebuilder: Rebuilder,
        data_plane: DataPlane,
        watchers: Watchers,
        clock: Clock,
        ids: Ids,
        *,
        live: bool = True,
    ) -> None:
        self._store, self._blobs, self._data_plane = store, blobs, data_plane
        self._policies, self._rebuilder = policies, rebuilder
        self._watchers, self._clock, self._ids = watchers, clock, ids
        self._live = live
        self._elsewhere: dict[str, tuple[int, tuple[int, tuple[str, ...]]]] = {}
        """What was going on in lifetimes that other processes move, at which entry."""
        self.carry_on: Callable[[str, str], Awaitable[LifetimeStatus | None]] | None = None
        """Takes up a lifetime in this process (tenant, lifetime id); set by the runtime that has a Control Plane."""
        self.pressure: Callable[[], float] | None = None
        """How much of what this process can move it moves now; from 1 on, new lifetimes are refused."""
        self.measure: Callable[[], dict[str, float]] | None = None
        """Counters, sizes and bounds of this process's queues; set by the runtime that has them."""
        self.activity: Callable[[str], tuple[int, tuple[str, ...]]] | None = None
        """How much of a lifetime is in flight in this process, and the children that it waits for; set likewise."""

    # -- graphs -------------------------------------------------------------------------------------------------------

    async def register(self, graph: AgentGraph, *, tenant: str = DEFAULT_TENANT, source: str = "") -> StoredGraph:
        """Registers a graph for a tenant. Raises GraphInvalid; GraphConflict when name@version has another digest."""
        problems = validate(graph)
        if problems:
            raise GraphInvalid(problems)
        # As it was written, not the canonical form: a form shows a schema's fields in their author's order.
        body = msgspec.json.encode(graph)
        now = self._clock.now()
        stored = StoredGraph(legal_tenant(tenant), graph.name, graph.version, graph.digest, body, source, now)
        await self._store.put_graph(stored)
        return stored

    async def graph(self, spec: str, *, tenant: str = DEFAULT_TENANT) -> StoredGraph:
        """The registered graph that `name`, `name@version` or a digest names; the newest version for a bare name."""
        if spec.startswith("sha256:"):
            found = await self._store.graphs(legal_tenant(tenant), digest=spec)
        else:
            name, _, version = spec.partition("@")
            found = await self._store.graphs(legal_tenant(tenant), name=name, version=version or None)
        if not found:
            raise NotFound(f"no graph `{spec}` is registered for tenant `{tenant}`; `tickwork graph register` adds one")
        return found[0]

    # -- lifetimes ----------------------------------------------------------------------------------------------------

    async def start(
        self,
        graph: str,
        input: Any = None,
        *,
        tenant: str = DEFAULT_TENANT,
        labels: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        policies: PolicyDocument | None = None,
    ) -> Lifetime:
        """Starts a lifetime; when this returns, it is on disk and will run.

        The same idempotency key again returns the first lifetime and starts nothing. `policies`: for this lifetime
        and its children alone, beside those of the layers. Raises NotFound, UsageError; Conflict when the key belongs
        to a lifetime of another graph; Overloaded.
        """
        check_idempotency_key(idempotency_key)
        check_labels(labels or {})
        check_pressure(self.pressure)
        stored = await self.graph(graph, tenant=tenant)
        payload = await self._payload(tenant, input, "the input")
        now = self._clock.now()
        lifetime = new_lifetime(self._ids.lifetime_id(now), stored, now, labels or {}, idempotency_key)
        run = effective((), stored.tenant_id, stored.name, policies)
        rules = self._policies.current(stored.tenant_id, stored.name, run)
        await self._policies.pin(rules)
        made, created = await begin(self._store, self._data_plane, lifetime, payload, rules=rules)
        if not created and made.graph_name != stored.name:
            raise Conflict(
                f"the idempotency key `{idempotency_key}` belongs to lifetime {made.lifetime_id} of graph "
                f"{made.graph_name}; a key starts one lifetime of one graph"
            )
        return made

    async def get(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT) -> Lifetime:
        """The lifetime with this id or unique id prefix. Raises NotFound; UsageError when the prefix fits several."""
        return await one_lifetime(self._store, tenant, lifetime_id)

    async def list(self, query: LifetimeQuery | None = None, *, tenant: str = DEFAULT_TENANT) -> list[Lifetime]:
        """Lifetimes that match, newest first."""
        return await self._store.list_lifetimes(legal_tenant(tenant), query or LifetimeQuery())

    async def log(
        self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, after: int = 0, limit: int = 1000
    ) -> Entries:
        """Entries of the lifetime's log with seq > `after`, in order."""
        return await self._store.read_log(legal_tenant(tenant), lifetime_id, after, limit)

    async def pause(
        self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, reason: str = "", by: str = ""
    ) -> Lifetime:
        """Nothing new is dispatched from now on; what is in flight is recorded. Pausing twice is fine."""
        lifetime = await self._open(lifetime_id, tenant)
        if lifetime.status != "PAUSED":
            event = self._event("paused", {"reason": reason, "by": by})
            await self._tell(lifetime, event, status="PAUSED", reason=reason or None)
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    async def resume(
        self,
        lifetime_id: str,
        *,
        tenant: str = DEFAULT_TENANT,
        by: str = "",
        raised: Mapping[str, str] | None = None,
    ) -> Lifetime:
        """A paused lifetime goes on; one that a dead process left running is taken up by this one.

        One that runs here already is left alone. `raised`: limits that are higher for this lifetime from now on, by
        policy (`token-budget`, or `tenant/token-budget`). It goes on exactly where it was stopped, under the policies
        that are loaded now. Raises UsageError for a limit that cannot be raised so.
        """
        lifetime = await self._open(lifetime_id, tenant)
        paused = lifetime.status == "PAUSED"
        if not paused and self.carry_on is not None:
            # Something was recorded during the pause, and whoever should have folded it died: the row is behind.
            paused = await self.carry_on(lifetime.tenant_id, lifetime.lifetime_id) == "PAUSED"
        if paused or raised:
            entries = await self._resumed(lifetime, by, raised or {})
            await self._tell(lifetime, *entries)
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    async def _resumed(self, lifetime: Lifetime, by: str, raised: Mapping[str, str]) -> tuple[Event, ...]:
        """What is recorded when a lifetime goes on: the policies of now, if they are others, and the limits raised."""
        await self._policies.refresh()
        state, _ = await self._rebuilder.folded(lifetime.tenant_id, lifetime.lifetime_id)
        if state is None:
            raise NotFound(f"lifetime {lifetime.lifetime_id} has no log")
        run = state.guard.rules.run if state.guard is not None else NO_POLICIES
        current = self._policies.current(lifetime.tenant_id, lifetime.graph_name, run)
        entries: list[Event] = []
        if current.digest != (state.guard.digest if state.guard is not None else ""):
            entries.append(policies_event(state.policies_seq, await self._policies.pin(current)))
        data: dict[str, Any] = {"by": by}
        if raised:
            data["raised"] = raised_limits(state, current, raised)
        return (*entries, self._event("resumed", data))

    async def abort(
        self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, reason: str = "", by: str = ""
    ) -> Lifetime:
        """Ends the lifetime: what is in flight is cancelled. Returns once the request is durable."""
        lifetime = await self._open(lifetime_id, tenant)
        data = {"reason": reason, "by": by}
        await self._tell(lifetime, Event("abort", "abort_requested", data))
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    async def signal(
        self, lifetime_id: str, name: str, payload: Any = None, *, tenant: str = DEFAULT_TENANT, by: str = ""
    ) -> Lifetime:
        """Sends a signal: to the Task that waits for it, or kept until one does."""
        lifetime = await self._open(lifetime_id, tenant)
        known = await self._signals(lifetime)
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"graph `{lifetime.graph_name}` waits for no signal `{name}`; its signals: {listed}")
        stored = await self._payload(tenant, payload, "the signal's payload")
        data = {"name": name, "payload": msgspec.to_builtins(stored, builtin_types=(bytes,)), "by": by}
        await self._tell(lifetime, self._event("signalled", data))
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    # -- people -------------------------------------------------------------------------------------------------------

    async def questions(
        self, *, tenant: str = DEFAULT_TENANT, lifetime_id: str | None = None, on: tuple[str, ...] = ("human",)
    ) -> Questions:
        """Open questions to people, oldest first; of one lifetime: its own and those of its open children.

        `on`: also (or only) those about executions in trouble, `unknown` and `poison`.
        """
        limit = 1_000 if lifetime_id is None else MAX_BRANCHES
        found: Questions = []
        for kind in on:
            found += await self._store.questions(legal_tenant(tenant), lifetime_id, limit, on=kind)
        if lifetime_id is not None:
            family = LifetimeQuery(statuses=OPEN, label=(PARENT_LABEL, lifetime_id), limit=1000)
            for child in await self._store.list_lifetimes(tenant, family):
                found += await self.questions(tenant=tenant, lifetime_id=child.lifetime_id, on=on)
        return sorted(found, key=lambda question: question.since) if len(on) > 1 else found

    async def answer(
        self,
        lifetime_id: str,
        payload: Any,
        *,
        tenant: str = DEFAULT_TENANT,
        exec_id: str | None = None,
        by: str = "",
    ) -> Lifetime:
        """Answers an open question (`exec_id`: its execution or its node; may be left out when there is only one).

        Raises AnswerRefused (schema, wrong person; nothing changes), AlreadyEnded, NotFound, UsageError.
        """
        lifetime = await self._open(lifetime_id, tenant)
        question = await self._question(lifetime, exec_id)
        if question.lifetime_id != lifetime.lifetime_id:
            lifetime = await self._open(question.lifetime_id, tenant)
        if question.who and by not in question.who:
            raise AnswerRefused(
                f"`{question.node}` may be answered by {', '.join(question.who)}; this is from `{by or 'nobody'}`"
            )
        if question.answer_schema is not None:
            check_answer(question, payload)
        stored = await self._payload(tenant, payload, "the answer")
        done = await self._answered(lifetime, question, stored, by)
        appended = await self._tell(lifetime, done)
        if appended is None:
            raise AlreadyEnded(f"`{question.node}` was answered a moment ago; the first answer counts")
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    async def reconcile(
        self,
        lifetime_id: str,
        *,
        tenant: str = DEFAULT_TENANT,
        exec_id: str | None = None,
        result: Any = msgspec.UNSET,
        failed: str | None = None,
        retry: bool = False,
        by: str = "",
    ) -> Lifetime:
        """Says what became of an execution in trouble (UNKNOWN or poison): exactly one of result, failed, retry.

        `result`: it happened, and this came out; `failed`: it failed for good, and why; `retry`: it did not happen
        (or the cause is mended), run it again. `exec_id`: the execution or its node; may be left out when there is
        only one. Raises UsageError, NotFound, AlreadyEnded.
        """
        if (result is not msgspec.UNSET) + (failed is not None) + retry != 1:
            raise UsageError("say one thing: the result that it had, why it failed, or that it is to be run again")
        lifetime = await self._open(lifetime_id, tenant)
        question = await self._question(lifetime, exec_id, TROUBLE)
        if question.lifetime_id != lifetime.lifetime_id:
            lifetime = await self._open(question.lifetime_id, tenant)
        if retry:
            data = {"exec_id": question.exec_id, "action": "retry", "by": by}
            event = self._event("reconciled", data)
            await self._tell(lifetime, event)
        else:
            payload = None if failed is not None else await self._payload(tenant, result, "the result")
            done = await self._answered(lifetime, question, payload, by)
            done.executor = f"reconcile:{by}" if by else "reconcile"
            if failed is not None:
                done.status, done.error = "FAILED", Error("Reconciled", failed, retryable=False)
            if await self._tell(lifetime, done) is None:
                raise AlreadyEnded(f"`{question.node}` was resolved a moment ago; that counts")
        return await self.get(lifetime.lifetime_id, tenant=tenant)

    # -- results ------------------------------------------------------------------------------------------------------

    async def result(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT) -> Outcome:
        """How the lifetime stands now; `result` once it is COMPLETED."""
        lifetime = await self.get(lifetime_id, tenant=tenant)
        until = lifetime.finished_at if lifetime.finished_at is not None else self._clock.now()
        outcome = Outcome(
            lifetime_id=lifetime.lifetime_id,
            status=lifetime.status,
            reason=lifetime.reason,
            result=None,
            executions=0,
            tokens_used=0,
            cost_usd=Decimal(0),
            duration_ms=max(0, until - lifetime.created_at) / 1000,
        )
        end = await self._end(lifetime)
        if end is not None:
            outcome.executions = end.data["executions"]
            outcome.tokens_used = end.data["tokens_used"]
            outcome.cost_usd = Decimal(end.data["cost_nano_usd"]).scaleb(-9).normalize()
            if end.type == "completed":
                outcome.result = await self._result(lifetime, end)
        else:
            await self._count(lifetime, outcome)
        outcome.breach = await breach_of(self._store, self._policies, lifetime)
        return outcome

    async def metrics(self) -> dict[str, float]:
        """What this process counts, and its queues with their bounds (`..._limit`); {} when it runs nothing."""
        return {} if self.measure is None else self.measure()

    async def wait(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, until: str = "ended") -> Lifetime:
        """Waits until the lifetime has `ended`, or `settled`: ended, PAUSED, or waiting for a person or a signal."""
        lifetime_id = (await self.get(lifetime_id, tenant=tenant)).lifetime_id
        with self._watchers.watching(lifetime_id, turns=True) as news:
            while True:
                news.clear()
                lifetime = await self.get(lifetime_id, tenant=tenant)
                if lifetime.ended or (until == "settled" and await self._settled(lifetime)):
                    return lifetime
                del lifetime  # thousands may wait here for long
                self._watchers.check(lifetime_id)
                await (news.wait() if self._live else self._clock.sleep(POLL))

    async def watch(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, after: int = 0) -> AsyncIterator[LogEntry]:
        """Yields the log's entries as they come, until the lifetime has ended."""
        lifetime = await self.get(lifetime_id, tenant=tenant)
        with self._watchers.watching(lifetime.lifetime_id) as news:
            while True:
                news.clear()
                page = await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 1000)
                for logged in page:
                    after = logged.seq
                    yield logged
                    if _ends(logged):
                        return
                if not page:
                    self._watchers.check(lifetime.lifetime_id)
                    await (news.wait() if self._live else self._clock.sleep(POLL))

    async def value(self, payload: Payload | None, *, tenant: str = DEFAULT_TENANT) -> Any:
        """The value of a payload, fetched from the blob store when it lies there."""
        if payload is not None and payload.uri is not None:
            data = await self._blobs.get(legal_tenant(tenant), payload.uri, payload.sha256)
            payload = msgspec.structs.replace(payload, inline=data, uri=None)
        return payload_value(payload)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _open(self, lifetime_id: str, tenant: str) -> Lifetime:
        lifetime = await self.get(lifetime_id, tenant=tenant)
        if lifetime.ended:
            why = f": {lifetime.reason}" if lifetime.reason else ""
            raise AlreadyEnded(f"lifetime {lifetime.lifetime_id} has ended {lifetime.status}{why}")
        return lifetime

    def _event(self, kind: Any, data: dict[str, Any]) -> Event:
        return Event(f"{kind}:{self._ids.token()}", kind, {k: v for k, v in data.items() if v != ""})

    async def _tell(
        self,
        lifetime: Lifetime,
        *entries: Event | Execution,
        status: LifetimeStatus | None = None,
        reason: str | None = None,
    ) -> int | None:
        """Has entries recorded: the seq of the last one, or None when it was there before. Raises AlreadyEnded."""
        for entry in entries:
            if isinstance(entry, Event):
                check_words(entry.data.get("reason") or "", entry.data.get("by") or "")
            else:
                check_words(entry.executor, entry.error.message if entry.error is not None else "")
        projection = project(lifetime.tenant_id, lifetime.lifetime_id, entries, status, None, reason)
        append = Append(lifetime.tenant_id, lifetime.lifetime_id, entries, projection)
        (appended,) = await self._data_plane.record([append])
        if appended.error is not None:
            raise Conflict(f"lifetime {lifetime.lifetime_id}: {appended.error}")
        if appended.stale:
            await self._open(lifetime.lifetime_id, lifetime.tenant_id)  # it has ended meanwhile, and this says how
        return appended.seqs[-1]

    async def _payload(self, tenant: str, value: Any, what: str) -> Payload:
        """The value as a payload, in the blob store when it is large."""
        try:
            payload = encode_value(value, what)
        except EncodingError as error:
            raise UsageError(str(error)) from None
        return await spilled(self._blobs, legal_tenant(tenant), payload)

    async def _signals(self, lifetime: Lifetime) -> set[str]:
        found = await self._store.graphs(lifetime.tenant_id, digest=lifetime.graph_digest)
        nodes = graph_from_json(found[0].body).nodes if found else ()
        return {node.signal.name for node in nodes if node.signal is not None}

    async def _question(self, lifetime: Lifetime, exec_id: str | None, on: tuple[str, ...] = ("human",)) -> Question:
        found = await self.questions(tenant=lifetime.tenant_id, lifetime_id=lifetime.lifetime_id, on=on)
        if exec_id is not None:
            matching = [q for q in found if exec_id == q.node or q.exec_id.startswith(exec_id)]
            if not matching and await self._recorded(lifetime, exec_id):
                raise AlreadyEnded(f"`{exec_id}` of lifetime {lifetime.lifetime_id} was answered already")
            found = matching
        if not found:
            what = f"no open question `{exec_id}`" if exec_id else "no open question"
            raise NotFound(
                f"lifetime {lifetime.lifetime_id} ({lifetime.status}) has {what}; `tickwork inbox` lists them"
            )
        if len(found) > 1:
            listed = "; ".join(f"{q.exec_id} ({q.node}{' in ' + q.branch if q.branch else ''})" for q in found)
            raise UsageError(f"lifetime {lifetime.lifetime_id} has {len(found)} open questions: {listed}; say which")
        return found[0]

    async def _recorded(self, lifetime: Lifetime, exec_id: str) -> bool:
        """Whether this execution is in the log."""
        after = 0
        while page := await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
            if any(isinstance(e.entry, Execution) and e.entry.exec_id == exec_id for e in page):
                return True
            after = page[-1].seq
        return False

    async def _answered(self, lifetime: Lifetime, question: Question, payload: Payload | None, by: str) -> Execution:
        """The execution that an answer is: its headers stand in the `waiting` entry's visit, told by the log."""
        waiting = await self._waiting_entry(lifetime, question.exec_id)
        data = waiting.data
        return Execution(
            question.exec_id,
            data["kind"],
            question.node,
            question.branch,
            data["iteration"],
            data["attempt"],
            tuple(data["parents"]),
            data["edge_taken"],
            data["since"],
            data["since"],
            self._clock.now(),
            "SUCCEEDED",
            f"human:{by}" if by else "human",
            payload,
        )

    async def _waiting_entry(self, lifetime: Lifetime, exec_id: str) -> Event:
        after = 0
        while page := await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
            for logged in page:
                if isinstance(logged.entry, Event) and logged.entry.id == f"waiting:{exec_id}":
                    return logged.entry
            after = page[-1].seq
        raise NotFound(f"lifetime {lifetime.lifetime_id} has no question {exec_id}")

    async def _settled(self, lifetime: Lifetime) -> bool:
        """Whether nothing will happen unless somebody outside acts: also not in the children that it waits for."""
        if self.activity is not None:
            moving, children = self.activity(lifetime.lifetime_id)
        elif self._live:
            moving, children = 0, ()
        else:
            moving, children = await self._activity_elsewhere(lifetime)
        if moving:
            return False
        if lifetime.status == "PAUSED":
            return True
        if lifetime.status == "WAITING" and await self._store.questions(lifetime.tenant_id, lifetime.lifetime_id, 1):
            return True
        for child_id in children:
            found = await self._store.get_lifetime(lifetime.tenant_id, child_id)
            if not found or found[0].ended or not await self._settled(found[0]):
                return False
        return bool(children)

    async def _activity_elsewhere(self, lifetime: Lifetime) -> tuple[int, tuple[str, ...]]:
        """How many visits other processes are at, and which children it waits for: only its log knows."""
        seq, found = self._elsewhere.get(lifetime.lifetime_id, (0, (1, ())))
        if seq == lifetime.last_seq:
            return found
        state, _ = await self._rebuilder.folded(lifetime.tenant_id, lifetime.lifetime_id)
        if state is None:
            return 1, ()
        if len(self._elsewhere) >= REMEMBERED:
            self._elsewhere.clear()
        found = activity_of(state)
        self._elsewhere[lifetime.lifetime_id] = (state.seq, found)
        return found

    async def _end(self, lifetime: Lifetime) -> Event | None:
        """The entry that ended the lifetime: near the end of its log."""
        if not lifetime.ended:
            return None
        page = await self._store.read_log(
            lifetime.tenant_id, lifetime.lifetime_id, max(0, lifetime.last_seq - 50), 1000
        )
        for logged in page:
            if isinstance(logged.entry, Event) and _ends(logged):
                return logged.entry
        return None

    async def _result(self, lifetime: Lifetime, end: Event) -> Any:
        seqs, pick, joined = end.data["source"]
        values = []
        for logged in await self._store.read_entries(lifetime.tenant_id, lifetime.lifetime_id, seqs):
            entry = logged.entry
            if isinstance(entry, Event):
                payload = msgspec.convert(entry.data["input"], Payload | None)
            elif pick >= 0 and entry.next is not None:
                payload = entry.next[pick].input
            else:
                payload = entry.result
            values.append(await self.value(payload, tenant=lifetime.tenant_id))
        return values if joined else values[0]

    async def _count(self, lifetime: Lifetime, outcome: Outcome) -> None:
        """Counts what a lifetime that has not ended has used so far."""
        after, nano = 0, 0
        while page := await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
            for logged in page:
                if isinstance(logged.entry, Execution):
                    outcome.executions += 1
                    if logged.entry.telemetry is not None:
                        outcome.tokens_used += logged.entry.telemetry.tokens_used
                        nano += logged.entry.telemetry.cost_nano_usd
            after = page[-1].seq
        outcome.cost_usd = Decimal(nano).scaleb(-9).normalize()


def _ends(logged: LogEntry) -> bool:
    return isinstance(logged.entry, Event) and logged.entry.type in ("completed", "failed", "aborted")
