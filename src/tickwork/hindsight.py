"""The use case that judges the past: which recorded lifetimes other policies would have stopped, and what that saves.

Nothing is run and nothing is changed. Logs are read page by page. Without policies of a tenant the lifetimes are
judged one after the other; with them all lifetimes of the tenant side by side, in the order in which they were
recorded, for their sums are one. A lifetime that would have been stopped spends nothing more; for the rest each
lifetime is taken as it was, whatever became of the others.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec

from tickwork.errors import NotFound, StoreCorrupt, TickworkError
from tickwork.model.policy import Layered, PolicyDocument, PolicySet, effective
from tickwork.model.records import Execution, LogEntry
from tickwork.model.spending import UsageQuery
from tickwork.model.tallies import Reservation
from tickwork.model.windows import MINUTE, first_minute
from tickwork.orchestrator.findings import Findings, Gathered, Judged
from tickwork.orchestrator.fold import SequenceGap
from tickwork.orchestrator.graphs import GraphIndex
from tickwork.orchestrator.guardrails.books import Books
from tickwork.orchestrator.guardrails.past import Past
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.guardrails.whatif import Rejudged, Rejudging
from tickwork.orchestrator.policies import NO_RULES
from tickwork.ports import LifetimeQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwork.model.lifetime import Lifetime
    from tickwork.model.tallies import Place
    from tickwork.orchestrator.guardrails.books import Desk
    from tickwork.orchestrator.state import Visit
    from tickwork.ports import BlobStore, Clock, StateAdapter, StateStore

PAGE = 2_000
"""Log entries read at once."""

LISTED = 1_000
"""Lifetimes read at once."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be judged, and by which policies."""

    documents: tuple[PolicyDocument, ...]
    tenants: tuple[str, ...]
    since: int = 0
    """Only lifetimes that were started from then on (us); what a window reaches back to is counted all the same."""
    until: int | None = None
    """Only lifetimes that were started before that (us)."""
    graph: str | None = None
    """Only lifetimes of this graph; a tenant's sums are those of all graphs."""


def beside(current: Iterable[PolicyDocument], given: Sequence[PolicyDocument]) -> tuple[PolicyDocument, ...]:
    """The documents in force with others beside them; of one layer and name the given policy takes the place."""
    taken = {(document.tenant, document.graph, policy.name) for document in given for policy in document.policies}
    kept = [
        msgspec.structs.replace(
            document,
            policies=tuple([p for p in document.policies if (document.tenant, document.graph, p.name) not in taken]),
        )
        for document in current
    ]
    return (*[document for document in kept if document.policies], *given)


class Hindsight:
    """Judges the past. Reads through the ports alone, so it works beside the process that writes."""

    def __init__(self, store: StateAdapter, blobs: BlobStore, clock: Clock) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock
        self._graphs = GraphIndex(store)

    async def tenants(self) -> tuple[str, ...]:
        """All tenants that have used anything, or have a lifetime that has not ended."""
        rows = await self._store.usage(UsageQuery(tenant_id=None, by=("tenant",)))
        found = {row.key[0] for row in rows}
        after = ""
        while page := await self._store.open_lifetimes(after, LISTED):
            found |= {lifetime.tenant_id for lifetime in page}
            after = page[-1].lifetime_id
        return tuple(sorted(found))

    async def judge(self, trial: Trial) -> Findings:
        """Judges all that the trial names. Raises ConditionError, MissingExtra for a policy that does not compile."""
        gathered = Gathered()
        for tenant in trial.tenants:
            await _Court(self._store, self._blobs, self._graphs, self._clock.now(), trial, tenant, gathered).hold()
        labels = dict.fromkeys(
            Layered(layer=document.layer, policy=policy).label
            for document in trial.documents
            for policy in document.policies
        )
        return gathered.findings(labels)


class _Course:
    """One lifetime on its way through its log."""

    def __init__(
        self, lifetime: Lifetime, rejudging: Rejudging, page: list[LogEntry], place: Place, judged: bool
    ) -> None:
        self.lifetime, self.rejudging = lifetime, rejudging
        self.page, self.index = page, 0
        self.place = place
        """What its use is booked on."""
        self.judged = judged
        """Else it only counts for the tenant's sums."""

    def at(self) -> int:
        """When the next entry was recorded; what a fork shares with another lifetime counts as its beginning."""
        return max(self.page[self.index].at, self.lifetime.created_at)


class _Court:
    """All lifetimes of one tenant."""

    def __init__(
        self,
        store: StateStore,
        blobs: BlobStore,
        graphs: GraphIndex,
        now: int,
        trial: Trial,
        tenant: str,
        gathered: Gathered,
    ) -> None:
        self._store, self._blobs, self._graphs = store, blobs, graphs
        self._now, self._trial, self._tenant, self._gathered = now, trial, tenant, gathered
        self._rules: dict[str, Rules] = {}
        mine = [d for d in trial.documents if d.tenant in ("", tenant)]
        layered = [Layered(layer=d.layer, policy=p) for d in mine for p in d.policies if p.scope == "tenant"]
        rules = Rules(PolicySet(policies=tuple(layered))).tenants
        self._books = Books(rules) if rules else None
        self._tracked = frozenset(label for rule in rules for label in rule.match.labels)
        self._from = trial.since
        """Since when what was recorded counts."""
        if rules and trial.since:
            self._from = min(first_minute(rule.policy.window, trial.since) * MINUTE for rule in rules)
        self._desks: dict[tuple[Place, str, str], Desk] = {}

    async def hold(self) -> None:
        """Judges them."""
        lifetimes = await self._lifetimes()
        if self._books is None:
            for lifetime in lifetimes:
                course = await self._begin(lifetime)
                if course is not None:
                    await self._go(course, None)
            return
        await self._side_by_side(lifetimes, self._books)

    # -- which lifetimes ----------------------------------------------------------------------------------------------

    async def _lifetimes(self) -> list[Lifetime]:
        """Those that matter, the oldest first."""
        trial = self._trial
        found: list[Lifetime] = []
        # What other graphs spend counts where a tenant's sums are judged.
        graph = trial.graph if self._books is None else None
        before: str | None = None
        while True:
            query = LifetimeQuery(graph=graph, before=before, limit=LISTED)
            page = await self._store.list_lifetimes(self._tenant, query)
            kept = [one for one in page if self._judges(one) or self._counts(one)]
            found += kept
            if len(page) < LISTED or not any(one.updated_at >= self._from for one in page):
                break
            before = page[-1].lifetime_id
        return sorted(found, key=lambda one: (one.created_at, one.lifetime_id))

    def _judges(self, one: Lifetime) -> bool:
        """Whether it is judged."""
        trial = self._trial
        if trial.graph is not None:
            name, _, version = trial.graph.partition("@")
            if one.graph_name != name or (version and one.graph_version != version):
                return False
        return one.created_at >= trial.since and (trial.until is None or one.created_at < trial.until)

    def _counts(self, one: Lifetime) -> bool:
        """Whether what it used is needed for the tenant's sums."""
        if self._books is None or (self._trial.until is not None and one.created_at >= self._trial.until):
            return False
        return one.updated_at >= self._from

    # -- one after the other, or side by side -------------------------------------------------------------------------

    async def _side_by_side(self, lifetimes: Sequence[Lifetime], books: Books) -> None:
        """The entry that was recorded first is next, whichever lifetime it belongs to."""
        heap: list[tuple[int, str, _Course]] = []
        for lifetime in lifetimes:
            await self._until(heap, lifetime.created_at, books)
            course = await self._begin(lifetime)
            if course is not None:
                heappush(heap, (course.at(), lifetime.lifetime_id, course))
        await self._until(heap, None, books)

    async def _until(self, heap: list[tuple[int, str, _Course]], end: int | None, books: Books) -> None:
        while heap and (end is None or heap[0][0] < end):
            _, lifetime_id, course = heappop(heap)
            limit = min(filter(None, (end, heap[0][0] if heap else None)), default=None)
            if await self._go(course, limit):
                heappush(heap, (course.at(), lifetime_id, course))

    async def _begin(self, lifetime: Lifetime) -> _Course | None:
        """Reads the first page, and all pages once for what policies really did; None when it cannot be judged."""
        try:
            topology = await self._graphs.topology(lifetime.tenant_id, lifetime.graph_digest)
            past = Past()
            page = first = await self._store.read_log(self._tenant, lifetime.lifetime_id, 0, PAGE)
            while page:
                for logged in page:
                    past.look(logged)
                page = await self._more(lifetime, page)
        except (NotFound, StoreCorrupt) as error:
            self._trouble(lifetime, error)
            return None
        if not first:
            return None
        judged = self._judges(lifetime)
        rules = self._rules_of(lifetime.graph_name) if judged else NO_RULES
        rejudging = Rejudging(topology, rules, past, lifetime.lifetime_id, lifetime.tenant_id)
        labels = {label: value for label, value in lifetime.labels.items() if label in self._tracked}
        place = (self._tenant, lifetime.graph_name, msgspec.json.encode(labels, order="deterministic").decode())
        return _Course(lifetime, rejudging, first, place, judged)

    async def _more(self, lifetime: Lifetime, page: list[LogEntry]) -> list[LogEntry]:
        if len(page) < PAGE:
            return []
        return await self._store.read_log(self._tenant, lifetime.lifetime_id, page[-1].seq, PAGE)

    def _rules_of(self, graph: str) -> Rules:
        found = self._rules.get(graph)
        if found is None:
            found = self._rules[graph] = Rules(effective(self._trial.documents, self._tenant, graph))
        return found

    async def _go(self, course: _Course, limit: int | None) -> bool:
        """Judges its next entry, and those after it that were recorded until `limit`; False: that was its end."""
        lifetime, rejudging = course.lifetime, course.rejudging
        try:
            while True:
                page = course.page
                while course.index < len(page):
                    logged = page[course.index]
                    course.index += 1
                    if self._books is None:
                        await self._feed(course, logged)
                    else:
                        await self._judge(course, logged, self._books)
                    if limit is not None and course.index < len(page) and course.at() > limit:
                        return True
                course.page, course.index = await self._more(lifetime, page), 0
                if not course.page:
                    break
                if limit is not None and course.at() > limit:
                    return True
        except (NotFound, StoreCorrupt, SequenceGap, LookupError) as error:
            self._trouble(lifetime, error)
            return False
        found = rejudging.finish(self._now)
        if course.judged:
            self._gathered.add(Judged(lifetime, found))
        return False

    def _trouble(self, lifetime: Lifetime, error: Exception) -> None:
        why = str(error) if isinstance(error, TickworkError) else f"its log does not fold: {error!r}"
        if self._judges(lifetime):
            self._gathered.add(Judged(lifetime, Rejudged(), why))

    async def _feed(self, course: _Course, logged: LogEntry) -> Sequence[Visit]:
        entry = logged.entry
        if isinstance(entry, Execution) and entry.result is not None and course.rejudging.needs(entry):
            data = await self._blobs.get(self._tenant, entry.result.uri or "", entry.result.sha256)
            whole = msgspec.structs.replace(entry.result, inline=data)
            logged = LogEntry(logged.seq, logged.at, msgspec.structs.replace(entry, result=whole))
        return course.rejudging.feed(logged)

    # -- the policies of the tenant -----------------------------------------------------------------------------------

    async def _judge(self, course: _Course, logged: LogEntry, books: Books) -> None:
        lifetime, rejudging, entry = course.lifetime, course.rejudging, logged.entry
        if rejudging.spends(entry):
            books.record(course.place, logged.at, entry)
        books.settle(lifetime.lifetime_id, entry)
        for visit in await self._feed(course, logged):
            desk = self._desk(course, visit, books)
            if not desk.asked:
                continue
            if course.judged:
                raised = rejudging.state.raised
                verdicts = books.judge(desk, visit.exec_id, logged.at, raised, rejudging.facts)
                if verdicts and not rejudging.answer(visit, verdicts):
                    continue
            books.reserve(desk, lifetime.lifetime_id, visit.exec_id)
        stop = rejudging.found.stop
        if stop is not None and stop.action == "abort_lifetime":
            books.release_all(lifetime.lifetime_id)

    def _desk(self, course: _Course, visit: Visit, books: Books) -> Desk:
        """The rules that have a say in this dispatch, and what it reserves."""
        lifetime = course.lifetime
        key = (course.place, lifetime.graph_digest, visit.node)
        found = self._desks.get(key)
        if found is None:
            node = course.rejudging.state.topology.nodes[visit.node]
            dispatch = Reservation(
                self._tenant, lifetime.lifetime_id, visit.exec_id, lifetime.graph_name, node.kind, node.name,
                lifetime.labels, node.maximum.tokens or 0, node.maximum.cost_nano_usd,
            )  # fmt: skip
            rules = [
                rule
                for rule in self._rules_of(lifetime.graph_name).tenants
                if rule.concerns(lifetime.graph_name, lifetime.labels) and rule.match.node(node.kind, node.name)
            ]
            found = self._desks[key] = books.desk(dispatch, rules)
        return found
