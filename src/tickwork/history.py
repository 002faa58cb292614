"""The use cases over what is recorded: replay a lifetime, fork a new one from it.

Neither runs any code of a graph to look at the past, and neither changes the lifetime that it looks at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.edge import check_answer, check_labels, check_pressure, one_lifetime
from tickwork.errors import Conflict, NotFound, UsageError
from tickwork.model.choices import choice_problem
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.lifetime import Question
from tickwork.model.messages import Append, Committed
from tickwork.model.records import Event, Execution, LogEntry
from tickwork.orchestrator.forking import Replacement, forked_log
from tickwork.orchestrator.rebuilding import PAGE
from tickwork.orchestrator.replay import ENDS, Replayed, Replaying
from tickwork.orchestrator.starting import new_lifetime
from tickwork.payloads import spilled
from tickwork.sdk.encoding import EncodingError, PlanResultInvalid, encode_plan, encode_value
from tickwork.sdk.values import Next, PlanResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tickwork.model.graph import Node
    from tickwork.model.lifetime import Lifetime
    from tickwork.orchestrator.data_plane import DataPlane
    from tickwork.orchestrator.graphs import GraphIndex
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.ports import BlobStore, Clock, Ids, StateStore

FORK_LABEL = "tickwork.fork_of"
"""The label of a fork that names the lifetime whose history it shares."""

CANDIDATES = 20
"""How many executions are listed when a prefix fits several."""


class History:
    """Looks at recorded lifetimes. Raises the errors of `tickwork.errors`."""

    def __init__(
        self,
        store: StateStore,
        blobs: BlobStore,
        graphs: GraphIndex,
        policies: PolicyIndex,
        rebuilder: Rebuilder,
        data_plane: DataPlane,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store, self._blobs, self._data_plane = store, blobs, data_plane
        self._clock, self._ids = clock, ids
        self._graphs, self._policies, self._rebuilder = graphs, policies, rebuilder
        self.pressure: Callable[[], float] | None = None
        """As `Service.pressure`: from 1 on, no fork is started."""

    async def replay(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT) -> Replayed:
        """Folds the lifetime's log again and compares it with what was recorded, entry by entry.

        Works while the lifetime runs: what is decided and not recorded yet is missed only after its end. Raises
        NotFound, also when a blob is gone that a condition reads.
        """
        lifetime = await one_lifetime(self._store, tenant, lifetime_id)
        replaying = await self._replaying(lifetime)
        async for logged in self._log(lifetime):
            if replaying.feed(await self._rebuilder.complete(replaying.state, logged)) is not None:
                break
        return replaying.replayed()

    async def fork(
        self,
        lifetime_id: str,
        at: str,
        *,
        result: Any = msgspec.UNSET,
        tenant: str = DEFAULT_TENANT,
        labels: dict[str, str] | None = None,
        by: str = "",
    ) -> Lifetime:
        """Starts a lifetime that shares the history of another one up to the execution `at`, and goes on from there.

        `at`: an exec id, or a prefix of it or the name of a node that fits one execution alone. `result`: what that
        execution has to have come to; of a Plan what it chooses. When this returns, the fork is on disk and will run.
        Raises NotFound; UsageError (`at` fits several, the result is no JSON or no legal choice); AnswerRefused;
        Conflict when the history before does not replay; Overloaded.
        """
        check_labels(labels or {})
        check_pressure(self.pressure)
        parent = await one_lifetime(self._store, tenant, lifetime_id)
        log = [logged async for logged in self._log(parent)]
        place = _place(parent, log, at)
        log = log[: place.seq]
        replaying = await self._replaying(parent)
        replacement = None
        if result is not msgspec.UNSET:
            replacement = await self._replacement(replaying, place, result, tenant)
        now = self._clock.now()
        kept = {name: value for name, value in parent.labels.items() if not name.startswith("tickwork.")}
        stored = await self._store.graphs(parent.tenant_id, digest=parent.graph_digest)
        marks = {**kept, **(labels or {}), FORK_LABEL: parent.lifetime_id}
        fork = new_lifetime(self._ids.lifetime_id(now), stored[0], now, marks, None)
        entries = forked_log(
            log, place.seq, parent_id=parent.lifetime_id, fork_id=fork.lifetime_id, now=now, by=by, labels=marks,
            replacement=replacement,
        )  # fmt: skip
        await self._check(replaying, parent, entries)
        return await self._begin(fork, entries)

    # -- replay -------------------------------------------------------------------------------------------------------

    async def _replaying(self, lifetime: Lifetime) -> Replaying:
        topology = await self._graphs.topology(lifetime.tenant_id, lifetime.graph_digest)
        return Replaying(
            topology,
            lifetime_id=lifetime.lifetime_id,
            tenant_id=lifetime.tenant_id,
            rules_of=self._policies.rules,
        )

    async def _log(self, lifetime: Lifetime) -> AsyncIterator[LogEntry]:
        after = 0
        while page := await self._store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, PAGE):
            for logged in page:
                yield logged
            after = page[-1].seq

    # -- fork ---------------------------------------------------------------------------------------------------------

    async def _check(self, replaying: Replaying, parent: Lifetime, entries: list[LogEntry]) -> None:
        """The fork's own beginning has to replay: a history that does not would go on from a state that never was."""
        replaced = entries[-1].entry.entry_id
        for logged in entries:
            state, entry = replaying.state, logged.entry
            if isinstance(entry, Execution) and entry.entry_id == replaced and replaced not in state.open:
                raise UsageError(
                    f"`{entry.name}` was given up before its record came, so another result would lead nowhere; fork "
                    "at an execution before it"
                )
            divergence = replaying.feed(await self._rebuilder.complete(state, logged))
            if divergence is None:
                continue
            raise Conflict(
                f"lifetime {parent.lifetime_id} cannot be forked there, for its log does not replay: at entry "
                f"{divergence.seq} {divergence.what}; see `tickwork lifetimes replay {parent.lifetime_id}`"
            )

    async def _begin(self, fork: Lifetime, entries: list[LogEntry]) -> Lifetime:
        """Creates it durably and tells the Control Plane, which reads the log: nothing in it is to be done again."""
        ats = tuple([logged.at for logged in entries])
        append = Append(fork.tenant_id, fork.lifetime_id, tuple([logged.entry for logged in entries]), ats=ats)
        made, _ = await self._store.create_lifetime(fork, append)
        await self._data_plane.publish([Committed(made.tenant_id, made.lifetime_id, len(entries) + 1, ats[-1], ())])
        return made

    async def _replacement(self, replaying: Replaying, place: LogEntry, result: Any, tenant: str) -> Replacement:
        done = place.entry
        topology = replaying.state.topology
        if not isinstance(done, Execution) or done.name not in topology.nodes:
            raise Conflict(f"entry {place.seq} names a node that the graph does not have")
        try:
            if done.kind == "plan":
                chosen, output, reason = encode_plan(_choices(result))
                problem = choice_problem(topology.graph, done.name, tuple([choice.task for choice in chosen]))
                if problem is not None:
                    raise UsageError(problem)
                stored = [
                    msgspec.structs.replace(c, input=await spilled(self._blobs, tenant, c.input) if c.input else None)
                    for c in chosen
                ]
                return Replacement(
                    await spilled(self._blobs, tenant, output) if output else None, tuple(stored), reason
                )
            payload = encode_value(result)
        except (EncodingError, PlanResultInvalid) as error:
            raise UsageError(str(error)) from None
        _check_asked(topology.nodes[done.name], done, result)
        return Replacement(await spilled(self._blobs, tenant, payload))


def _place(parent: Lifetime, log: list[LogEntry], at: str) -> LogEntry:
    """The execution that `at` names. Raises NotFound; UsageError with the candidates when it fits several."""
    done = [(e, e.entry) for e in log if isinstance(e.entry, Execution)]
    found = [(e, x) for e, x in done if at and (x.exec_id.startswith(at) or x.name == at)]
    if not found:
        raise NotFound(
            f"lifetime {parent.lifetime_id} has no execution `{at}`; `tickwork lifetimes log {parent.lifetime_id} "
            "--jsonl` has their exec ids"
        )
    if len(found) > 1:
        listed = "\n".join(
            f"    {x.exec_id}  entry {e.seq}: {x.name}{f' in {x.branch}' if x.branch else ''}, "
            f"iteration {x.iteration}, attempt {x.attempt}, {x.status}"
            for e, x in found[:CANDIDATES]
        )
        more = f"\n    and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
        raise UsageError(f"`{at}` fits {len(found)} executions; say which:\n{listed}{more}")
    place, late = found[0]
    if any(isinstance(e.entry, Event) and e.entry.type in ENDS for e in log[: place.seq]):
        raise UsageError(
            f"the record of `{late.name}` came after the lifetime had ended, so nothing follows from it; fork at an "
            "execution before the end"
        )
    if not _says_whose(log[0]):
        raise Conflict(
            f"lifetime {parent.lifetime_id} was started by an older Tickwork, whose logs do not say whose ids they "
            "hold: it can be replayed, not forked"
        )
    return place


def _says_whose(first: LogEntry) -> bool:
    return isinstance(first.entry, Event) and bool(first.entry.data.get("lifetime_id"))


def _choices(result: Any) -> Any:
    """What a Plan returns, said in JSON: a name, {task, input}, a list of these, or {next, output, reason}."""
    if isinstance(result, dict) and "next" in result:
        unknown = sorted(set(result) - {"next", "output", "reason"})
        if unknown:
            raise UsageError(f"a Plan's result has `next`, `output` and `reason`, not `{unknown[0]}`")
        output = result.get("output", msgspec.UNSET)
        return PlanResult(_choices(result["next"]), output=output, reason=str(result.get("reason") or ""))
    if isinstance(result, list):
        return [_choice(item) for item in result]
    return _choice(result)


def _choice(item: Any) -> Any:
    if isinstance(item, dict) and isinstance(item.get("task"), str) and set(item) <= {"task", "input"}:
        return Next(item["task"], input=item["input"]) if "input" in item else Next(item["task"])
    if item is None or isinstance(item, str):
        return item
    raise UsageError(
        'a Plan\'s result is the name of its choice, {"task": name, "input": value}, a list of these, or {"next": '
        f"...}}; this is {msgspec.json.encode(item).decode()[:80]}"
    )


def _check_asked(node: Node, done: Execution, result: Any) -> None:
    """Another answer of a person has to fit the question, too. Raises AnswerRefused."""
    if node.human is None or node.human.answer_schema is None:
        return
    question = Question(
        tenant_id="", lifetime_id="", exec_id=done.exec_id, node=done.name, branch=done.branch, on="human",
        since=done.created_at, answer_schema=node.human.answer_schema,
    )  # fmt: skip
    check_answer(question, result)
