"""The use cases around policies and money: documents put in force, what was used, how far each budget is used up.

Documents go into the store, layer by layer; every process that runs lifetimes looks there once a second. What was used
is read from the ledger, or for one lifetime from its log, so it is live. What is reserved beside it is known to the
process that runs the lifetimes alone: others ask that one for its budgets.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from tickwork.edge import check_words, legal_tenant, one_lifetime
from tickwork.errors import Conflict, NotFound
from tickwork.formats.policies import read_policies, write_policies
from tickwork.model.expressions.aggregates import scale_of
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.policy import Action, Layered, PolicyDocument, Scope, Window
from tickwork.model.records import Execution
from tickwork.model.spending import EXECUTIONS, Quantity, UsageRow, scale
from tickwork.model.tallies import COLUMNS, Uses, superseded
from tickwork.model.windows import MINUTE, first_minute
from tickwork.orchestrator.policies import NO_POLICIES, decode_document
from tickwork.ports import StoredPolicies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.expressions import Amount, Limit
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import LogEntry
    from tickwork.model.spending import UsageQuery
    from tickwork.orchestrator.guardrails.counters import Counter
    from tickwork.orchestrator.guardrails.rules import Rule
    from tickwork.orchestrator.policies import PolicyIndex
    from tickwork.orchestrator.rebuilding import Rebuilder
    from tickwork.orchestrator.state import LifetimeState
    from tickwork.ports import Clock, StateAdapter

PAGE = 5_000
"""Log entries read at once."""

LifetimeKey: TypeAlias = Literal["kind", "node", "model", "edge", "hour", "day"]
Raw: TypeAlias = "dict[str, object]"


class Document(msgspec.Struct, kw_only=True):
    """A policy document that is in force, or was; without policies: what was in force for its layer was removed."""

    document: PolicyDocument
    digest: str
    source: Literal["store", "files"] = "store"
    at: int = 0
    """When it was put into the store (us); 0 for one that lies in a file."""
    by: str = ""


class InForce(msgspec.Struct, kw_only=True):
    """The set that is in force for a graph of a tenant."""

    tenant: str
    graph: str
    digest: str
    policies: tuple[Layered, ...]


class Budget(msgspec.Struct, kw_only=True):
    """How far the one limit of a policy is used up. Amounts are exact, in the unit that people write it in."""

    policy: str
    """Its label: `tenant/daily-spend`."""
    graph: str = ""
    """The graph that it was written for, when its document is one of a graph."""
    scope: Scope
    action: Action
    shadow: bool
    condition: str
    aggregate: str
    """What is added up: `sum(cost_usd)`."""
    limit: Decimal
    """As it holds now: the raised one, where somebody raised it."""
    raised: bool = False
    spent: Decimal | None
    """None: nothing is recorded that could be added up."""
    reserved: Decimal = Decimal(0)
    quantity: Quantity | None = None
    """Of a tenant's policy: what is added up, exactly."""
    window: str = ""
    since: int | None = None
    """When the window begins (us); None: it has none."""
    until: int | None = None
    """When a calendar window ends (us), and everything falls out."""
    falls_out: Decimal | None = None
    """Of a sliding window: how much falls out until `falls_out_until` (us)."""
    falls_out_until: int | None = None

    @property
    def percent(self) -> Decimal | None:
        """How much of the limit is spent or reserved, in hundredths; None when there is nothing to compare."""
        if self.spent is None or not self.limit:
            return None
        return ((self.spent + self.reserved) * 100 / self.limit).quantize(Decimal("0.1"))


class Accounts:
    """Policies put in force, usage, budgets. Raises the errors of `tickwork.errors`."""

    def __init__(self, store: StateAdapter, policies: PolicyIndex, rebuilder: Rebuilder, clock: Clock) -> None:
        self._store, self._policies, self._rebuilder, self._clock = store, policies, rebuilder, clock

    # -- documents ----------------------------------------------------------------------------------------------------

    async def apply_policies(self, document: PolicyDocument | Raw, *, by: str = "") -> Document:
        """Puts a document in force for its layer, in place of the one before. Raises PolicyInvalid, Conflict."""
        check_words(by)
        given = msgspec.convert(document, PolicyDocument) if isinstance(document, dict) else document
        checked = read_policies(write_policies(given), "the document")
        await self._policies.refresh()
        await self._check_names(checked)
        return await self._put(checked, by)

    async def remove_policies(self, *, tenant: str = "", graph: str = "", by: str = "") -> Document:
        """Takes a layer's document out of force; the history keeps it. Raises NotFound when the store has none."""
        check_words(by)
        current = await self._stored(tenant, graph)
        if current is None:
            filed = any((one.tenant, one.graph) == (tenant, graph) for one in self._policies.documents)
            hint = "they lie in a file; remove it there" if filed else "`tickwork guardrails list` shows what is"
            raise NotFound(f"no policies of {layer_text(tenant, graph)} are in the store: {hint}")
        return await self._put(PolicyDocument(policies=(), tenant=tenant, graph=graph), by)

    async def documents(self, *, history: bool = False) -> list[Document]:
        """What is in force, of files first; with `history` all that ever was in the store, the oldest first."""
        stored = [_of_store(one) for one in await self._store.policies(history=history)]
        if history:
            return stored
        stored = [one for one in stored if one.document.policies]
        known = {one.digest for one in stored}
        files = [one for one in self._policies.documents if one.digest not in known]
        return [Document(document=one, digest=one.digest, source="files") for one in files] + stored

    async def in_force(self, *, tenant: str = DEFAULT_TENANT, graph: str = "") -> InForce:
        """The set for the lifetimes of a graph; without one what holds for every graph of the tenant."""
        rules = self._policies.current(legal_tenant(tenant), graph)
        return InForce(tenant=tenant, graph=graph, digest=rules.digest, policies=rules.policies.policies)

    async def _put(self, document: PolicyDocument, by: str) -> Document:
        body = msgspec.json.encode(document, order="deterministic") if document.policies else b""
        digest = document.digest if body else ""
        stored = StoredPolicies(document.tenant, document.graph, digest, body, self._clock.now(), by)
        await self._store.put_policies(stored)
        await self._policies.refresh()
        return _of_store(stored)

    async def _stored(self, tenant: str, graph: str) -> StoredPolicies | None:
        found = [one for one in await self._store.policies() if (one.tenant_id, one.graph) == (tenant, graph)]
        return found[0] if found and found[0].body else None

    async def _check_names(self, new: PolicyDocument) -> None:
        """Two policies of one layer and one name could not be told apart in verdicts. Raises Conflict."""
        stored = await self._stored(new.tenant, new.graph)
        replaced = "" if stored is None else stored.digest
        for other in self._policies.documents:
            if other.layer != new.layer or other.graph != new.graph or other.digest in (replaced, new.digest):
                continue
            if other.tenant != new.tenant and other.tenant and new.tenant:
                continue
            for policy in new.policies:
                if any(policy.name == one.name for one in other.policies):
                    raise Conflict(
                        f"{layer_text(other.tenant, other.graph)} has a policy `{policy.name}` in force already, from "
                        "another document of the same layer: rename one of them; nothing was changed"
                    )

    # -- usage --------------------------------------------------------------------------------------------------------

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """What was used, added up as asked, with what was recorded a moment ago."""
        if query.tenant_id is not None:
            legal_tenant(query.tenant_id)
        return await self._store.usage(query)

    def tracked_labels(self) -> frozenset[str]:
        """The labels that usage is kept apart by: those that a tenant's policy in force matches."""
        found: set[str] = set()
        for document in self._policies.documents:
            for policy in document.policies:
                if policy.scope == "tenant":
                    found |= policy.match.labels.keys()
        return frozenset(found)

    async def usage_of(
        self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT, by: Sequence[LifetimeKey] = ("node",)
    ) -> tuple[Lifetime, list[UsageRow]]:
        """What one lifetime used, from its log; its child lifetimes count for themselves. NotFound, UsageError."""
        lifetime = await one_lifetime(self._store, tenant, lifetime_id)
        uses = Uses()
        after = 0
        while page := await self._store.read_log(tenant, lifetime.lifetime_id, after, PAGE):
            for logged in page:
                # An edge instead of labels: nothing else is different from place to place inside one lifetime.
                uses.add((tenant, lifetime.graph_name, _edge(logged)), logged.at // MINUTE, logged.entry)
            after = page[-1].seq
        return lifetime, _rows(uses, by)

    # -- budgets ------------------------------------------------------------------------------------------------------

    async def budgets(self, *, tenant: str = DEFAULT_TENANT) -> list[Budget]:
        """Every budget of the tenant that is in force; those that no process could spend now have nothing reserved."""
        tenant = legal_tenant(tenant)
        documents = [one for one in self._policies.documents if one.tenant in ("", tenant)]
        found: list[Budget] = []
        for graph in sorted({"", *(one.graph for one in documents)}):
            layers = ("graph",) if graph else ("installation", "tenant")
            rules = [rule for rule in self._policies.current(tenant, graph).tenants if rule.layer in layers]
            found += await self._of_tenant(tenant, graph, rules, {})
        return found

    async def budgets_of(self, lifetime_id: str, *, tenant: str = DEFAULT_TENANT) -> list[Budget]:
        """Every budget that one lifetime is under: its own, from its log, and those of its tenant that concern it."""
        lifetime = await one_lifetime(self._store, tenant, lifetime_id)
        state, _ = await self._rebuilder.folded(tenant, lifetime.lifetime_id)
        if state is None:
            raise NotFound(f"lifetime {lifetime.lifetime_id} has no log")
        run = state.guard.rules.run if state.guard is not None else NO_POLICIES
        tenants = self._policies.current(tenant, lifetime.graph_name, run).tenants
        concerned = [rule for rule in tenants if rule.concerns(lifetime.graph_name, state.labels)]
        until = lifetime.finished_at if lifetime.finished_at is not None else self._clock.now()
        return _of_lifetime(state, until) + await self._of_tenant(tenant, "", concerned, state.raised)

    async def falling(self, budgets: Sequence[Budget], *, tenant: str = DEFAULT_TENANT) -> None:
        """Fills in how much falls out of the sliding windows in the next 24th of each."""
        now = self._clock.now()
        for budget in budgets:
            quantity = budget.quantity
            window = quantity.window if quantity is not None else None
            if quantity is None or window is None or window.calendar is not None or budget.spent is None:
                continue
            step = max(60, window.seconds // 24 // 60 * 60)
            if budget.aggregate.startswith("avg") or step >= window.seconds:
                continue
            rest = Quantity(quantity.measure, quantity.match, Window(seconds=window.seconds - step))
            whole, left = await self._store.totals(tenant, (quantity, rest))
            count = budget.aggregate.startswith("count")
            gone = whole.executions - left.executions if count else whole.amount - left.amount
            budget.falls_out = Decimal(gone) / (1 if quantity.measure == EXECUTIONS else scale(quantity.measure))
            budget.falls_out_until = now + step * 1_000_000

    async def _of_tenant(
        self, tenant: str, graph: str, rules: Sequence[Rule], raised: dict[str, Decimal]
    ) -> list[Budget]:
        limited = [(rule, rule.limit, _quantity(rule, rule.limit)) for rule in rules if rule.limit is not None]
        totals = await self._store.totals(tenant, [quantity for _, _, quantity in limited])
        now = self._clock.now()
        found: list[Budget] = []
        for (rule, limit, quantity), total in zip(limited, totals, strict=True):
            spent: Amount = total.amount
            held = total.reserved
            if limit.aggregate.name == "count":
                spent, held = total.executions, total.reserved_executions
            elif limit.aggregate.name == "avg":
                spent, held = (total.amount, total.executions), 0
            made = _budget(rule, limit, spent, held, raised)
            made.graph, made.quantity = graph, quantity
            if quantity.window is not None:
                made.window = str(quantity.window)
                made.since = first_minute(quantity.window, now) * MINUTE
                made.until = period_end(quantity.window, made.since)
            found.append(made)
        return found


def layer_text(tenant: str, graph: str) -> str:
    """Whose policies these are, in words."""
    if graph:
        return f"graph `{graph}`" + (f" of tenant `{tenant}`" if tenant else "")
    return f"tenant `{tenant}`" if tenant else "the installation"


def period_end(window: Window, since: int) -> int | None:
    """When the calendar period that began at `since` (us) ends; None for a sliding window."""
    if window.calendar is None:
        return None
    if window.calendar == "hour":
        return since + 3_600_000_000
    begun = datetime.fromtimestamp(since // 1_000_000, ZoneInfo(window.time_zone))
    days = {"day": 1, "week": 7, "month": 32}[window.calendar]
    end = begun.replace(hour=0, minute=0, fold=0) + timedelta(days=days)
    if window.calendar == "month":
        end = end.replace(day=1)
    return int(end.timestamp()) * 1_000_000


def _of_store(stored: StoredPolicies) -> Document:
    empty = PolicyDocument(policies=(), tenant=stored.tenant_id, graph=stored.graph)
    document = decode_document(stored.body) if stored.body else empty
    return Document(document=document, digest=stored.digest, at=stored.at, by=stored.by)


def _edge(logged: LogEntry) -> str:
    entry = logged.entry
    done = entry if isinstance(entry, Execution) else superseded(entry)
    return "" if done is None else done.edge_taken


def _rows(uses: Uses, by: Sequence[LifetimeKey]) -> list[UsageRow]:
    """What was gathered, added up by the keys that are asked for."""
    found: dict[tuple[str, ...], UsageRow] = {} if by else {(): UsageRow(key=())}
    for ((_, _, edge), minute, kind, node, model), amounts in uses.rows.items():
        row = found.setdefault(key := _key(by, edge, minute, kind, node, model), UsageRow(key=key, custom={}))
        for column, amount in zip(COLUMNS, amounts, strict=True):
            setattr(row, column, getattr(row, column) + amount)
    for ((_, _, edge), minute, kind, node, model, name), amount in uses.custom.items():
        row = found[_key(by, edge, minute, kind, node, model)]
        row.custom[name] = row.custom.get(name, 0) + amount
    return [found[key] for key in sorted(found)]


def _key(by: Sequence[LifetimeKey], edge: str, minute: int, kind: str, node: str, model: str) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(minute * 60, UTC)
    texts: dict[LifetimeKey, str] = {
        "kind": kind,
        "node": node,
        "model": model,
        "edge": edge,
        "hour": moment.strftime("%Y-%m-%dT%H"),
        "day": moment.strftime("%Y-%m-%d"),
    }
    return tuple([texts[key] for key in by])


def _of_lifetime(state: LifetimeState, now: int) -> list[Budget]:
    """The limits of the policies that the lifetime is pinned to, as its log has them."""
    guard = state.guard
    if guard is None:
        return []
    found: list[Budget] = []
    for watch in guard.watches:
        limit = watch.rule.limit
        if limit is None or watch.rule.policy.scope != "lifetime":
            continue
        counter = watch.counters[watch.rule.expression.aggregates.index(limit.aggregate)]
        spent = counter.amount(now - guard.started_at)
        found.append(_budget(watch.rule, limit, spent, _held(limit, counter), guard.raised))
    return found


def _held(limit: Limit, counter: Counter) -> int:
    return counter.reserved if limit.aggregate.name in ("sum", "count") else 0


def _budget(rule: Rule, limit: Limit, spent: Amount, held: int, raised: dict[str, Decimal]) -> Budget:
    units = scale_of(limit.aggregate)
    exact: Decimal | None
    if isinstance(spent, tuple):
        exact = (Decimal(spent[0]) / spent[1] / units).quantize(Decimal(1).scaleb(-9)) if spent[1] else None
    else:
        exact = None if spent is None else Decimal(spent) / units
    return Budget(
        policy=rule.label,
        scope=rule.policy.scope,
        action=rule.policy.action,
        shadow=rule.policy.shadow,
        condition=rule.policy.when,
        aggregate=str(limit.aggregate),
        limit=raised.get(rule.label, limit.number),
        raised=rule.label in raised,
        spent=exact,
        reserved=Decimal(held) / units,
    )


def _quantity(rule: Rule, limit: Limit) -> Quantity:
    return rule.quantities[rule.expression.aggregates.index(limit.aggregate)]
