"""What a tenant has used and reserved, kept up from its records alone, in the order in which they were recorded. Pure.

It is what the ledger knows at each dispatch, for a past that is judged again: the same sums, windows and reservations.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from tickwork.model.expressions.aggregates import scale_of
from tickwork.model.records import Execution
from tickwork.model.spending import CUSTOM, EXECUTIONS
from tickwork.model.tallies import COLUMN_OF, Place, Reservation, Tally, Uses
from tickwork.model.windows import MINUTE, first_minute
from tickwork.orchestrator.guardrails.judging import judged, tenant_amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from decimal import Decimal
    from typing import Any

    from tickwork.model.records import Entry
    from tickwork.model.spending import Quantity
    from tickwork.orchestrator.guardrails.judging import Verdict
    from tickwork.orchestrator.guardrails.rules import Rule


class _Asked:
    """A rule that has a say in the dispatches of a desk."""

    __slots__ = ("ceiling", "counts", "declared", "rule", "tallies")

    def __init__(self, rule: Rule, tallies: tuple[Tally, ...], declared: tuple[int, ...]) -> None:
        self.rule, self.tallies, self.declared = rule, tallies, declared
        self.counts = False
        self.ceiling: int | None = None
        """Of a rule that is nothing but an upper limit: the greatest amount, in kept units, that is still within it.
        Most rules are, and mostly they are kept; so that is found without asking the condition."""
        limit = rule.limit
        if limit is not None and rule.expression.single and limit.aggregate.name in ("sum", "count"):
            number = limit.number * scale_of(limit.aggregate)
            self.ceiling = floor(number) if limit.comparison == ">" else ceil(number) - 1
            self.counts = limit.aggregate.name == "count"

    def kept(self, raised: Mapping[str, Decimal]) -> bool:
        """Whether it is surely kept by one more dispatch; False: its condition has to be asked."""
        if self.ceiling is None or self.rule.label in raised:
            return False
        tally = self.tallies[0]
        if self.counts:
            return tally.executions + tally.held < self.ceiling
        return tally.amount + tally.held_amount + self.declared[0] <= self.ceiling


class Desk:
    """Where the dispatches of one node are asked for: which rules have a say, and what each reserves."""

    __slots__ = ("asked", "holds", "node")

    def __init__(self, node: str, asked: tuple[_Asked, ...], holds: tuple[tuple[Tally, int], ...]) -> None:
        self.node, self.asked, self.holds = node, asked, holds


class Books:
    """The sums of one tenant. `rules`: all that will ever be asked for. Times never go back."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._known: list[Tally] = []
        for rule in rules:
            for quantity in rule.quantities:
                self._tally(quantity)
        self._windowed = [tally for tally in self._known if tally.quantity.window is not None]
        self._at = -1
        self._routes: dict[tuple[Place, str, str, str], tuple[Tally, ...]] = {}
        self._held: dict[str, tuple[str, Desk]] = {}
        self._of_lifetime: dict[str, set[str]] = {}

    def _tally(self, quantity: Quantity) -> Tally:
        found = next((tally for tally in self._known if tally.quantity == quantity), None)
        if found is None:
            found = Tally(quantity, first_minute(quantity.window, 0))
            self._known.append(found)
        return found

    def desk(self, dispatch: Reservation, rules: Sequence[Rule]) -> Desk:
        """For dispatches like this one, in which these rules have a say."""
        asked = []
        for rule in rules:
            tallies = tuple([self._tally(quantity) for quantity in rule.quantities])
            declared = [dispatch.amount(aggregate.of or EXECUTIONS) for aggregate in rule.expression.aggregates]
            asked.append(_Asked(rule, tallies, tuple(declared)))
        takers = [tally for tally in self._known if rules and tally.may_take(dispatch)]
        holds = [(tally, dispatch.amount(tally.quantity.measure)) for tally in takers]
        return Desk(dispatch.node, tuple(asked), tuple(holds))

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def record(self, place: Place, at: int, entry: Entry) -> None:
        """Counts an entry, recorded at `at` (us)."""
        self._move(at)
        uses = Uses()
        uses.add(place, at // MINUTE, entry)
        for (_, minute, kind, node, model), row in uses.rows.items():
            for tally in self._route(place, kind, node, model):
                column = COLUMN_OF.get(tally.quantity.measure)
                tally.add(minute, row[0], 0 if column is None else row[column])
        for (_, minute, kind, node, model, name), amount in uses.custom.items():
            for tally in self._route(place, kind, node, model):
                if tally.quantity.measure == CUSTOM + name:
                    tally.add(minute, 0, amount)

    def _route(self, place: Place, kind: str, node: str, model: str) -> tuple[Tally, ...]:
        key = (place, kind, node, model)
        found = self._routes.get(key)
        if found is None:
            account = (place[1], kind, node, model, place[2])
            found = self._routes[key] = tuple([tally for tally in self._known if tally.takes(account)])
        return found

    def _move(self, at: int) -> None:
        """Lets the windows go on to `at`."""
        if at == self._at:
            return
        self._at = at
        for tally in self._windowed:
            first = first_minute(tally.quantity.window, at)
            if first != tally.first and not tally.move(first):
                tally.executions = tally.amount = 0  # a new period begins, and nothing of it was recorded before
                tally.first = first

    # -- what is about to be sent out ---------------------------------------------------------------------------------

    def judge(
        self, desk: Desk, exec_id: str, at: int, raised: Mapping[str, Decimal], facts: Callable[[], Mapping[str, Any]]
    ) -> list[Verdict]:
        """What the rules say to a dispatch, as if all that is in flight, and it too, were recorded with the most it
        may use."""
        self._move(at)
        found = []
        for asked in desk.asked:
            if asked.kept(raised):
                continue
            rule = asked.rule
            amounts = [
                tenant_amount(aggregate.name, tally.total(), declared)
                for aggregate, tally, declared in zip(
                    rule.expression.aggregates, asked.tallies, asked.declared, strict=True
                )
            ]
            verdict = judged(rule, amounts, facts, raised.get(rule.label), "dispatch", exec_id, desk.node)
            if verdict is not None:
                found.append(verdict)
        return found

    def reserve(self, desk: Desk, lifetime_id: str, exec_id: str) -> None:
        """Holds what a dispatch may use until it is released."""
        for tally, amount in desk.holds:
            tally.held += 1
            tally.held_amount += amount
        self._held[exec_id] = (lifetime_id, desk)
        self._of_lifetime.setdefault(lifetime_id, set()).add(exec_id)

    def settle(self, lifetime_id: str, entry: Entry) -> None:
        """Lets go of what this entry shows to be over."""
        if isinstance(entry, Execution):
            self._release(entry.exec_id)
        elif entry.type == "reconciled" and entry.data.get("action") == "retry":
            self._release(str(entry.data.get("exec_id")))
        elif entry.type in ("completed", "failed", "aborted"):
            self.release_all(lifetime_id)

    def release_all(self, lifetime_id: str) -> None:
        """Lets go of all that a lifetime has reserved."""
        for exec_id in list(self._of_lifetime.get(lifetime_id, ())):
            self._release(exec_id)

    def _release(self, exec_id: str) -> None:
        found = self._held.pop(exec_id, None)
        if found is None:
            return
        lifetime_id, desk = found
        for tally, amount in desk.holds:
            tally.held -= 1
            tally.held_amount -= amount
        left = self._of_lifetime[lifetime_id]
        left.discard(exec_id)
        if not left:
            del self._of_lifetime[lifetime_id]
