"""What tenants used in all: the store's totals against sums over the logs, and what it told whoever was judging.

I8: at the end totals and usage are what the logs add up to, each execution once, and nothing is reserved any more. And
whenever the store handed out totals, they were what was recorded by then, with what had been admitted and not settled;
so every dispatch was admitted by numbers that were true.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from tickwork.model.policy import Match, Window
from tickwork.model.records import Event, Execution
from tickwork.model.spending import Quantity, UsageQuery, UsageRow
from tickwork.testing.simulation import laws
from tickwork.testing.simulation.laws import Law, Used

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.messages import Append
    from tickwork.model.spending import Total
    from tickwork.ports import Appended, Demand
    from tickwork.testing.simulation.history import History
    from tickwork.testing.simulation.world import World

MINUTE = 60_000_000
HIGHEST = 2**63 - 1
"""Where sums end."""

CHILDS = "child:"
"""How the executor of an execution begins that is a child lifetime."""

MEASURES = ("tokens_in", "tokens_out", "tokens_used", "cost_usd", "latency_ms", "queue_ms", "custom.pages")


class Asked(NamedTuple):
    """A demand that was judged."""

    number: int
    """How much had been acknowledged to anybody by then, in executions."""
    now: int
    """By the store's clock, in us."""
    high: int
    """The latest time that it had ever shown, or that a lifetime had begun at."""
    demand: Demand
    totals: tuple[Total, ...]
    open: frozenset[str]
    """What had been admitted and was not known to be settled."""
    verdict: str
    """The policy for which it was refused, "" when it was admitted."""


class Spending(NamedTuple):
    """An execution as it counts for its tenant."""

    tenant: str
    graph: AgentGraph
    labels: dict[str, str]
    at: int
    used: Used
    key: tuple[str, str]
    """Lifetime and entry id."""


class Journal:
    """Watches what the store is asked to admit, and what it acknowledges."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[Asked] = []
        self.admitted: dict[str, Demand] = {}
        self.first_asked: dict[str, float] = {}
        """When (virtual seconds) each attempt was asked about first."""
        self._open: dict[str, str] = {}
        """The lifetime of each attempt that was admitted and is not known to be settled."""
        self.acknowledged: list[tuple[str, str]] = []
        self._high = 0
        self.tracked: dict[str, int] = {}
        """Until when (us) usage was perhaps not kept apart by a label; 0: it was from the first record on."""
        world.database.on_create.append(self.created)
        world.database.on_append.append(self.appended)
        world.database.on_judged.append(self.judged)
        world.database.on_track.append(self.track)

    def track(self, labels: Iterable[str]) -> None:
        """From now on usage is kept apart by these labels."""
        for label in labels:
            self._high = max(self._high, self.world.store_clock.now())
            self.tracked.setdefault(label, self._high if self.acknowledged else 0)

    def judged(self, demand: Demand, totals: Sequence[Total], verdict: Any) -> None:
        """The store has asked what is to be said to a demand."""
        label = verdict.rule.label if verdict is not None else ""
        told = tuple([msgspec.structs.replace(total) for total in totals])
        self.first_asked.setdefault(demand.exec_id, self.world.loop.time())
        now = self.world.store_clock.now()
        self._high = max(self._high, now)
        self.track({label for quantity in demand.quantities for label in quantity.match.labels})
        self.asked.append(Asked(len(self.acknowledged), now, self._high, demand, told, frozenset(self._open), label))
        if verdict is None:
            self.admitted[demand.exec_id] = demand
            self._open[demand.exec_id] = demand.lifetime_id

    def created(self, lifetime: Lifetime) -> None:
        """A lifetime begins at a time that its process has read off its own clock."""
        self._high = max(self._high, lifetime.created_at)

    def appended(self, _process: str, append: Append, appended: Appended) -> None:
        """The store has answered for an append."""
        self._high = max(self._high, appended.at)
        for seq, entry in zip(appended.seqs, append.entries, strict=True):
            if seq is None:
                continue
            self.acknowledged.append((append.lifetime_id, entry.entry_id))
            if isinstance(entry, Execution):
                self._open.pop(entry.exec_id, None)
            elif entry.type == "reconciled" and entry.data["action"] == "retry":
                self._open.pop(entry.data["exec_id"], None)
            elif entry.type in ("completed", "failed", "aborted"):
                self._open = {k: of for k, of in self._open.items() if of != append.lifetime_id}


def spendings(histories: dict[str, History]) -> list[Spending]:
    """All that counts, in no order. What a fork shares with its parent counts once, for the parent."""
    found: list[Spending] = []
    for history in histories.values():
        forks = history.forks()
        own = max([seq for seq, _ in forks], default=0)
        # What a fork replaced stands after `forked` in the entries that it begins with; it used nothing, and ran.
        lifetime = history.lifetime
        for logged in history.log:
            entry = logged.entry
            if logged.seq <= own:
                continue
            late = isinstance(entry, Event) and entry.type == "superseded"
            done = msgspec.convert(entry.data["execution"], Execution) if isinstance(entry, Event) and late else entry
            if not isinstance(done, Execution) or done.executor.startswith(CHILDS) or done.executor.startswith("fork"):
                continue
            lost = done.status == "TIMED_OUT" and done.error is not None and done.error.type == "LeaseExpired"
            ran = not late and done.status != "CANCELLED" and (done.executor != "tickwork" or lost)
            # What did not run used nothing, whatever it says.
            if not ran and not late:
                continue
            key = (lifetime.lifetime_id, entry.entry_id)
            found.append(Spending(lifetime.tenant_id, history.graph, lifetime.labels, logged.at, Used(done, ran), key))
    return found


def begin_of(window: Window | None, now: int) -> int:
    """When (us) a window begins that ends at `now`."""
    if window is None:
        return 0
    if window.calendar is None:
        return (now - window.seconds * 1_000_000) // MINUTE * MINUTE
    zone = ZoneInfo(window.time_zone)
    local = datetime.fromtimestamp(now / 1e6, UTC).astimezone(zone).replace(minute=0, second=0, microsecond=0)
    if window.calendar != "hour":
        local = local.replace(hour=0)
    if window.calendar == "week":
        local -= timedelta(days=local.weekday())
    elif window.calendar == "month":
        local = local.replace(day=1)
    return int(local.timestamp()) * 1_000_000


def taken(quantity: Quantity, spent: Spending) -> bool:
    """Whether a quantity is about this spending."""
    match, done = quantity.match, spent.used.done
    return (
        laws.takes_lifetime(match, spent.graph.name, spent.labels)
        and laws.takes_node(match, spent.graph, done.name)
        and laws.takes(match.model, laws.model_of(done))
    )


def added_up(quantity: Quantity, found: Sequence[Spending]) -> tuple[int, int]:
    """Executions and the amount, in kept units."""
    mine = [spent for spent in found if taken(quantity, spent)]
    ran = sum(spent.used.ran for spent in mine)
    if quantity.measure == "executions":
        return ran, ran
    return ran, min(sum(_counted(spent, quantity.measure) for spent in mine), HIGHEST)


def _counted(spent: Spending, measure: str) -> int:
    done = spent.used.done
    if measure in ("latency_ms", "queue_ms"):
        return laws.use(done, measure) if spent.used.ran else 0
    if measure == "cost_usd" and done.telemetry is not None:
        return max(0, done.telemetry.cost_nano_usd)  # what is known of it
    return laws.use_or_nothing(done, measure)


async def check(world: World, histories: dict[str, History]) -> None:
    """All of it, once everything is over."""
    found = spendings(histories)
    await _totals(world, found)
    _told(world, histories, found)
    _let_out(world, histories)


async def _totals(world: World, found: list[Spending]) -> None:
    """I8: at the end the totals are what the logs add up to, and nothing is reserved."""
    store, now = world.database.store, world.store_clock.now()
    asked = {quantity for each in world.journal.asked for quantity in map(_frozen, each.demand.quantities)}
    known = [msgspec.json.decode(text, type=Quantity) for text in sorted(asked)]
    known += [Quantity(measure) for measure in ("executions", *MEASURES)]
    known += [Quantity("tokens_used", Match(kind="task", model=("m-1",)), Window(seconds=3600))]
    for tenant in world.tenants:
        mine = [spent for spent in found if spent.tenant == tenant]
        for quantity, total in zip(known, await store.totals(tenant, known), strict=True):
            since = begin_of(quantity.window, now)
            inside = [spent for spent in mine if spent.at // MINUTE * MINUTE >= since]
            least, most = added_up(quantity, _kept_apart(world, quantity, inside)), added_up(quantity, inside)
            if not _between(total, least, most):
                world.violation("I8", f"{tenant} used {least} to {most} of {quantity}, and the store says {total}")
            if total.reserved or total.reserved_executions:
                world.violation("I8", f"all has ended, and of {quantity} of {tenant} {total} are reserved")
        rows = await store.usage(UsageQuery(tenant_id=tenant))
        row = rows[0] if rows else UsageRow(key=())
        reported: tuple[int, ...] = (row.executions, row.tokens_in, row.tokens_out, row.tokens_used, row.cost_nano_usd)
        summed = [added_up(Quantity(name), mine) for name in ("executions", *MEASURES[:4])]
        if reported != (summed[0][0], *[amount for _, amount in summed[1:]]):
            world.violation("I8", f"the usage of {tenant} is reported as {row}, and the logs say {summed}")


def _kept_apart(world: World, quantity: Quantity, found: list[Spending]) -> list[Spending]:
    """Of the spendings those that are surely kept apart by the labels of a quantity: from its first mention on."""
    if not quantity.match.labels:
        return found
    since = max(world.journal.tracked.get(label, 1 << 60) for label in quantity.match.labels)
    if not since:
        return found
    return [spent for spent in found if spent.at > since]


def _between(total: Total, least: tuple[int, int], most: tuple[int, int]) -> bool:
    return least[0] <= total.executions <= most[0] and least[1] <= total.amount <= most[1]


def _frozen(quantity: Quantity) -> str:
    return msgspec.json.encode(quantity, order="deterministic").decode()


def _told(world: World, histories: dict[str, History], found: list[Spending]) -> None:
    """I8: what the store told a judge was recorded by then, and nothing that was acknowledged was missing."""
    order = {key: number for number, key in enumerate(world.journal.acknowledged)}
    for asked in world.journal.asked:
        demand = asked.demand
        mine = [spent for spent in found if spent.tenant == demand.tenant_id]
        for quantity, total in zip(demand.quantities, asked.totals, strict=True):
            since = begin_of(quantity.window, asked.now)
            inside = [spent for spent in mine if spent.at // MINUTE * MINUTE >= since]
            known = _kept_apart(world, quantity, inside)
            surely = added_up(quantity, [s for s in known if order.get(s.key, 1 << 60) < asked.number])
            perhaps = added_up(quantity, [s for s in inside if s.at <= asked.high])
            if not _between(total, surely, perhaps):
                world.violation(
                    "I8",
                    f"for {demand.exec_id} {quantity} was told as {total}, with {surely} to {perhaps} recorded",
                )
            held = [world.journal.admitted[exec_id] for exec_id in asked.open]
            held = [other for other in held if other.tenant_id == demand.tenant_id]
            held = [other for other in held if _reserves(quantity, other, histories)]
            if total.reserved_executions > len(held):
                world.violation(
                    "I8", f"for {demand.exec_id} {total} of {quantity} are reserved, by {len(held)} attempts"
                )
            sure = [other for other in held if _unsettled(histories, other, asked.high)]
            if total.reserved_executions < len(sure):
                world.violation("I8", f"for {demand.exec_id} {total} of {quantity} are reserved, not by {len(sure)}")


def _reserves(quantity: Quantity, other: Demand, histories: dict[str, History]) -> bool:
    history = histories.get(other.lifetime_id)
    return (
        history is not None
        and laws.takes_lifetime(quantity.match, other.graph, other.labels)
        and laws.takes_node(quantity.match, history.graph, other.node)
    )


def _unsettled(histories: dict[str, History], demand: Demand, now: int) -> bool:
    """Whether an attempt that was admitted had neither a record at `now`, nor did its lifetime have an end."""
    for logged in histories[demand.lifetime_id].log:
        if logged.at > now:
            return True
        entry = logged.entry
        if entry.entry_id == demand.exec_id:
            return False
        if isinstance(entry, Event):
            if entry.type in ("completed", "failed", "aborted"):
                return False
            if entry.type == "reconciled" and entry.data == {
                **entry.data,
                "exec_id": demand.exec_id,
                "action": "retry",
            }:
                return False
    return True


def _let_out(world: World, histories: dict[str, History]) -> None:
    """I8: where the policies never change, nothing goes out that a tenant's policy has a say in and was not asked."""
    if world.officer is None or world.officer.changed:
        return
    by_exec = {call.exec_id: call for call in world.ledger.calls}
    for exec_id, call in by_exec.items():
        history = histories.get(call.lifetime_id)
        if history is None or exec_id in world.journal.admitted:
            continue
        for law in laws_in_force(world, history):
            if law.policy.scope == "tenant" and law.about(history.graph, history.labels_at(exec_id), call.node, None):
                world.violation("I8", f"{call.node} {exec_id} was called, and {law.label} was not asked")


def laws_in_force(world: World, history: History) -> list[Law]:
    """The policies that a lifetime began with."""
    first = history.log[0].entry if history.log else None
    digest = first.data.get("policies") if isinstance(first, Event) else ""
    return world.laws_of(digest) if digest else []


def reachable(world: World, history: History) -> None:
    """I8: what a tenant's policy says that it saw is over its limit, as it was or as somebody raised it."""
    raised: dict[str, list[Decimal]] = {}
    for event in history.events("resumed"):
        for label, number in (event.data.get("raised") or {}).items():
            raised.setdefault(label, []).append(Decimal(number))
    for event in history.events("verdict"):
        data = event.data
        if data["scope"] != "tenant" or data.get("error"):
            continue
        law = next((law for law in world.laws_of(data["digest"]) if law.label == data["policy"]), None)
        if law is None:
            world.violation("I8", f"{event.id} is by a policy that {data['digest']} does not have")
            continue
        clause = law.clauses[0]
        seen = Decimal(data["values"][clause.name])
        if not any(clause.met(seen, number) for number in (None, *raised.get(law.label, []))):
            world.violation("I8", f"{event.id} saw {clause.name} at {seen}, which is not over {law.policy.when}")
        action = data["action"]
        if action != law.policy.action or data["shadow"] != law.policy.shadow or data["at"] != "dispatch":
            world.violation("I8", f"{event.id} says {data}, and {law.label} is {law.policy}")
