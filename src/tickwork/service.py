"""The use cases: everything that the command line, the HTTP and the gRPC interface can ask for, in one place.

Each verb validates at the edge, writes one entry through the Data Plane, and returns once that entry is durable.
Nothing here decides what a lifetime does next; that is the fold's, when it reads the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

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
from tickwork.orchestrator.performing import policies_event
from tickwork.orchestrator.policies import NO_POLICIES
from tickwork.orchestrator.projection import project
from tickwork.orchestrator.starting import PARENT_LABEL, begin, new_lifetime
from tickwork.outcome import ends, outcome_of
from tickwork.payloads import spilled
from tickwork.ports import LifetimeQuery, StoredGraph
from tickwork.questions import answered, meant
from tickwork.raising import raised_limits
from tickwork.sdk.encoding import EncodingError, encode_value
from tickwork.settling import Settling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tickwork.model.lifetime import Lifetime, LifetimeStatus, Question
    from tickwork.model.records import LogEntry
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.orchestrator.watchers import Watchers
    from tickwork.outcome import Outcome
    from tickwork.ports import BlobStore, Clock, Ids, StateStore

    # Inside the class `list` is the use case of that name.
    Entries: TypeAlias = list[LogEntry]
    Questions: TypeAlias = list[Question]

POLL = 0.2
"""Seconds between two looks at the log of a lifetime that another process moves: without planes there is no news."""

OPEN = ("PENDING", "RUNNING", "WAITING", "PAUSED")

TROUBLE = ("unknown", "poison")
"""Questions about executions that only a person can settle."""


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
        self.settling = Settling(store, rebuilder, live=live)
        """What `wait` goes by when it is not the end that is waited for."""
        self.carry_on: Callable[[str, str], Awaitable[LifetimeStatus | None]] | None = None
        """Takes up a lifetime in this process (tenant, lifetime id); set by the runtime that has a Control Plane."""
        self.pressure: Callable[[], float] | None = None
        """How much of what this process can move it moves now; from 1 on, new lifetimes are refused."""
        self.measure: Callable[[], dict[str, float]] | None = None
        """Counters, sizes and bounds of this process's queues; set by the runtime that has them."""

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
        question = await self._question(lifetime, exec_id, ("human",))
        if question.lifetime_id != lifetime.lifetime_id:
            lifetime = await self._open(question.lifetime_id, tenant)
        if question.who and by not in question.who:
            raise AnswerRefused(
                f"`{question.node}` may be answered by {', '.join(question.who)}; this is from `{by or 'nobody'}`"
            )
        if question.answer_schema is not None:
            check_answer(question, payload)
        stored = await self._payload(tenant, payload, "the answer")
        done = await answered(question, lifetime, stored, by, self._clock.now(), self._store)
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
            done = await answered(question, lifetime, payload, by, self._clock.now(), self._store)
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
        now = self._clock.now()
        return await outcome_of(
            lifetime, self._store, self._policies, now, lambda payload: self.value(payload, tenant=tenant)
        )

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
                if lifetime.ended or (until == "settled" and await self.settling.settled(lifetime)):
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
                    if ends(logged):
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

    async def _question(self, lifetime: Lifetime, exec_id: str | None, on: tuple[str, ...]) -> Question:
        found = await self.questions(tenant=lifetime.tenant_id, lifetime_id=lifetime.lifetime_id, on=on)
        return await meant(found, exec_id, lifetime, self._store)

    async def _signals(self, lifetime: Lifetime) -> set[str]:
        found = await self._store.graphs(lifetime.tenant_id, digest=lifetime.graph_digest)
        nodes = graph_from_json(found[0].body).nodes if found else ()
        return {node.signal.name for node in nodes if node.signal is not None}
