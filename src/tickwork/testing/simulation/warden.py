"""A second opinion on the policies of one lifetime: what each says to every record and every dispatch of a log.

Slow and simple: at each place all that was recorded before it is added up anew. `Reference` walks through the log and
asks; what it is told must be what the log says. I8: verdicts, pauses, and that no budget is passed by more than what
was in flight used beyond its declaration.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tickwork.testing.simulation import laws
from tickwork.testing.simulation.laws import ACTION_ORDER, Law, Unclear, Used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tickwork.model.graph import AgentGraph
    from tickwork.model.records import Event, Execution


ENDLESS = Decimal(10) ** 30


class Found(NamedTuple):
    """A verdict that there has to be."""

    law: Law
    at: str
    node: str
    failed: bool
    values: dict[str, Decimal]

    @property
    def action(self) -> str:
        """What is done."""
        return "pause_lifetime" if self.failed else self.law.policy.action

    @property
    def enforced(self) -> bool:
        """Whether anything is done."""
        return not self.law.policy.shadow and self.action != "warn"


class Held(Protocol):
    """A visit that is open."""

    node: str
    reserved: bool


def strictest(found: Iterable[Found]) -> Found | None:
    """The first of those with the strictest action that is done."""
    enforced = [each for each in found if each.enforced]
    return max(enforced, key=lambda each: ACTION_ORDER.index(each.action), default=None)


class Warden:
    """Watches over one log."""

    def __init__(
        self, graph: AgentGraph, laws_of: Callable[[str], list[Law]], wrong: Callable[[str, str], None]
    ) -> None:
        self.graph, self.laws_of, self.wrong = graph, laws_of, wrong
        self.labels: dict[str, str] = {}
        self.digest = ""
        self.laws: list[Law] = []
        self.tenants: list[Law] = []
        self._all: list[Law] = []
        """Those of the whole set."""
        self.used: list[Used] = []
        self.raised: dict[str, Decimal] = {}
        self.resumes = self.started_at = 0
        self.standing: set[str] = set()
        self.expected: dict[str, Found | None] = {}
        """Entries that have to be in the log by id; None: of a pause there is no more to say."""
        self._slack: dict[str, Decimal] = {}
        """By how much each budget may be passed now, for what was in flight when something was last let out."""

    # -- what is in force

    def install(self, digest: str, open_now: Iterable[Held]) -> None:
        """Another set comes into force, with what is in flight in its budgets."""
        self.digest = digest
        self.standing.clear()
        self._slack.clear()
        found = self.laws_of(digest) if digest else []
        # What was raised holds for the limit that it was raised from.
        limits = {law.label: law.limit for law in self._all}
        self.raised = {
            label: number
            for label, number in self.raised.items()
            for law in found
            if law.label == label and law.limit is not None and law.limit == limits.get(label)
        }
        self._all = found
        mine = [law for law in found if law.concerns(self.graph.name, self.labels)]
        self.laws = [law for law in mine if law.policy.scope != "tenant"]
        self.tenants = [law for law in mine if law.policy.scope == "tenant"]
        # Nobody asked this set about what was let out before it.
        visits = list(open_now)
        for law in self.laws:
            spent = laws.amount_of(law.clauses[0], self._matched(law), 0) if law.early else None
            over = (spent or Decimal(0)) - self.raised.get(law.label, law.clauses[0].number)
            self._slack[law.label] = ENDLESS if any(visit.reserved for visit in visits) else max(Decimal(0), over)

    def resume(self, raised: Mapping[str, str]) -> None:
        """Somebody lets it go on."""
        self.resumes += 1
        self.raised |= {label: Decimal(number) for label, number in raised.items()}
        self.standing.clear()

    def fork(self, labels: dict[str, str], seq: int, at: int) -> None:
        """Another life begins: what was raised for the first one is not raised for it."""
        self.labels, self.raised, self.resumes, self.started_at = labels, {}, seq, at
        self.expected.clear()

    # -- what is recorded

    def count(self, done: Execution, *, ran: bool, admitted: bool) -> None:
        """One more record; `admitted`: its dispatch was."""
        self.used.append(Used(done, ran))
        for law in self.laws:
            if law.early and law.about(self.graph, self.labels, done.name, laws.model_of(done)):
                self._bounded(law, done, ran=ran, admitted=admitted)

    def _bounded(self, law: Law, done: Execution, *, ran: bool, admitted: bool) -> None:
        """A budget is not passed by more than what was in flight used beyond its word."""
        clause = law.clauses[0]
        if (
            law.policy.scope != "lifetime"
            or len(law.clauses) > 1
            or clause.what not in ("sum", "count")
            or not law.enforced
        ):
            return
        used = Decimal(int(ran))
        word = Decimal(1)
        if clause.what == "sum":
            used = Decimal(laws.use_or_nothing(done, clause.of)) / laws.units(clause.of)
            word = Decimal(laws.declared(self.graph.node[done.name].maximum, clause.of)) / laws.units(clause.of)
        self._slack[law.label] += max(Decimal(0), used - (word if admitted else 0))
        limit = self.raised.get(law.label, clause.number) if law.limit is not None else clause.number
        spent = laws.amount_of(clause, self._matched(law), 0) or Decimal(0)
        if spent > limit + self._slack[law.label]:
            self.wrong(
                "I8", f"{law.label}: {clause.name} is {spent}, over {limit} and {self._slack[law.label]} in flight"
            )

    def _matched(self, law: Law) -> list[Used]:
        return [u for u in self.used if law.about(self.graph, self.labels, u.done.name, laws.model_of(u.done))]

    def recorded(self, done: Execution, at: int) -> list[Found]:
        """What has to be said about a record that was counted."""
        found: list[Found] = []
        for law in sorted(self.laws, key=lambda law: law.turn):
            if not law.about(self.graph, self.labels, done.name, laws.model_of(done)):
                continue
            if any(clause.what == "result" for clause in law.clauses) and done.status != "SUCCEEDED":
                continue
            alone = law.policy.scope == "execution"
            used = [Used(done, True)] if alone else self._matched(law)
            verdict = self._judged(law, "record", done.name, used, at, done)
            if verdict is not None and (alone or self._news(law, verdict)):
                found.append(verdict)
        return found + self._cannot_be_added_up(done)

    def _cannot_be_added_up(self, done: Execution) -> list[Found]:
        """What no total of the tenant can show, so that it has to be seen here."""
        found: list[Found] = []
        for law in self.tenants:
            if not law.about(self.graph, self.labels, done.name, laws.model_of(done)):
                continue
            try:
                for clause in law.clauses:
                    if clause.what in ("sum", "avg"):
                        laws.use(done, clause.of)
            except Unclear:
                found.append(Found(law, "record", done.name, True, {}))
        return found

    def _judged(self, law: Law, where: str, node: str, used: list[Used], at: int, done: Execution) -> Found | None:
        values: dict[str, Decimal] = {}
        try:
            for clause in law.clauses:
                if clause.what in ("sum", "max", "avg"):
                    laws.use(done, clause.of)  # what cannot be measured cannot be judged
            holds = True
            for clause in law.clauses:
                if not clause.aggregate:
                    holds = holds and clause.met(laws.field_of(clause, done))
                    continue
                amount = laws.amount_of(clause, used, at - self.started_at)
                raised = self.raised.get(law.label) if law.limit is not None else None
                holds = holds and amount is not None and clause.met(amount, raised)
                if amount is not None:
                    values[clause.name] = amount
        except Unclear:
            return Found(law, where, node, True, {})
        if not holds:
            self.standing.discard(law.label)
            return None
        return Found(law, where, node, False, values)

    def _news(self, law: Law, verdict: Found) -> bool:
        """Whether it has to be recorded: what stands is told once, what is done about a record is done again."""
        before = law.label in self.standing
        self.standing.add(law.label)
        if not before or not verdict.enforced:
            return not before
        return verdict.failed or verdict.action != "pause_lifetime" or not law.early

    def overdue(self, at: int) -> list[Found]:
        """What has to be said when time has passed and nothing is recorded."""
        return [
            found
            for law in self.laws
            if law.early and any(clause.what == "elapsed" for clause in law.clauses)
            for found in [self._over(law, "record", "", {}, at)]
            if found is not None
        ]

    # -- what is about to be let out

    def dispatched(self, visit: Held, iteration: int, open_now: Iterable[Held], at: int) -> list[Found]:
        """What has to be said before this visit is sent out."""
        found: list[Found] = []
        visits = list(open_now)
        for law in self.laws:
            if (
                not law.early
                or law.policy.scope != "lifetime"
                or not law.about(self.graph, self.labels, visit.node, None)
            ):
                continue
            ahead: dict[str, Decimal] = {}
            for clause in law.clauses:
                others = [v for v in visits if v.reserved and law.about(self.graph, self.labels, v.node, None)]
                amount = laws.amount_of(clause, self._matched(law), 0) or Decimal(0)
                if clause.what == "sum":
                    words = [laws.declared(self.graph.node[v.node].maximum, clause.of) for v in [*others, visit]]
                    ahead[clause.name] = amount + Decimal(sum(words)) / laws.units(clause.of)
                elif clause.what == "count":
                    ahead[clause.name] = amount + len(others) + 1
                elif clause.what == "iterations":
                    ahead[clause.name] = max(amount, Decimal(iteration + 1)) if visit.node == clause.of else amount
            verdict = self._over(law, "dispatch", visit.node, ahead, at)
            if verdict is not None:
                found.append(verdict)
        return found

    def _over(self, law: Law, where: str, node: str, ahead: dict[str, Decimal], at: int) -> Found | None:
        values: dict[str, Decimal] = {}
        for clause in law.clauses:
            values[clause.name] = ahead.get(clause.name, Decimal(0))
            if clause.what == "elapsed":
                values[clause.name] = Decimal(at - self.started_at) / 1_000_000
        raised = self.raised.get(law.label) if law.limit is not None else None
        if not all(clause.met(values[clause.name], raised) for clause in law.clauses):
            self.standing.discard(law.label)
            return None
        verdict = Found(law, where, node, False, values)
        return verdict if self._news(law, verdict) else None

    def let_out(self, node: str) -> None:
        """This node's visit was admitted: so its budgets hold, with all that is in flight."""
        for law in self.laws:
            if law.early and law.about(self.graph, self.labels, node, None):
                self._slack[law.label] = Decimal(0)

    # -- what the log says

    def expect(self, found: list[Found], exec_id: str, number: int | None = None) -> None:
        """These verdicts have to be recorded, numbered by the resumes so far or otherwise."""
        for each in found:
            apart = self.resumes if number is None else number
            self.expected[f"verdict:{each.law.label}:{exec_id}:{each.at}:{apart}"] = each

    def expect_pause(self, label: str, exec_id: str) -> None:
        """This pause has to be recorded."""
        self.expected[f"paused:{label}:{exec_id}:{self.resumes}"] = None

    def said(self, event: Event) -> None:
        """A verdict or a pause of a policy stands in the log."""
        if event.id not in self.expected:
            self.wrong("I8", f"nothing led to {event.id}: {event.data.get('reason')}")
            return
        found = self.expected.pop(event.id)
        if found is None:
            return
        data = event.data
        said = (data["action"], data["shadow"], data["at"], data["node"], bool(data.get("error")))
        if said != (found.action, found.law.policy.shadow, found.at, found.node, found.failed):
            self.wrong("I8", f"{event.id} says {said}, and had to say {found}")
        for name, value in found.values.items():
            if not name.startswith("avg") and Decimal(data["values"].get(name, "-1")) != value:
                self.wrong("I8", f"{event.id} saw {name} at {data['values'].get(name)}, and it was {value}")

    def over(self) -> None:
        """The log is at its end."""
        for entry_id, found in self.expected.items():
            self.wrong("I8", f"{entry_id} is missing in the log: {found}")
