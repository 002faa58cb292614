"""Bugs of guardrails: policies, counters, reservations, verdicts, pauses and the totals of tenants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from tests.simulation.planted.bug import plant, swapped
from tickwork import service
from tickwork.adapters.state.sqlite.ledger import SqliteLedger
from tickwork.adapters.state.sqlite.store import SqliteStore
from tickwork.adapters.state.sqlite.transaction import AppendUnit, Transaction
from tickwork.model import tallies
from tickwork.model.tallies import Balances
from tickwork.model.windows import EVER
from tickwork.orchestrator import enforcing, fold, performing, router, visits
from tickwork.orchestrator.admission import Admission
from tickwork.orchestrator.guardrails import judging
from tickwork.orchestrator.guardrails.judging import Guard, Verdict
from tickwork.orchestrator.guardrails.rules import Rules
from tickwork.orchestrator.policies import PolicyIndex
from tickwork.orchestrator.state import LifetimeState, Visit

BUSY: dict[str, Any] = {"guarded": True, "reloading": False, "lifetimes": 4, "calls": 40}
SLOW: dict[str, Any] = {**BUSY, "slow": 0.5}
CHANGING: dict[str, Any] = {**BUSY, "reloading": True, "slow": 0.5, "actions": 1.0}
MEDDLED: dict[str, Any] = {**BUSY, "actions": 1.0, "slow": 0.5}


@plant("what a lifetime's attempt has reserved is not given back when it is recorded", "I8", calm=True, **BUSY)
def reservation_never_released() -> Iterator[None]:
    def release(_state: LifetimeState, opened: Visit) -> None:
        opened.reserved = False

    with swapped(visits, "release", release):
        yield


@plant("what a lifetime's attempt has reserved is given back twice", "I8", calm=True, **BUSY)
def reservation_released_twice() -> Iterator[None]:
    real = visits.release

    def release(state: LifetimeState, opened: Visit) -> None:
        real(state, opened)
        real(state, opened)

    with swapped(visits, "release", release):
        yield


@plant("the reservations of a join's losers are kept", "I8", calm=True, **SLOW)
def cancelled_reservation_kept() -> Iterator[None]:
    real = visits.close_visit

    def cancel_inside(state: LifetimeState, *rest: Any) -> None:
        def close_visit(state: LifetimeState, exec_id: str) -> Visit | None:
            if exec_id in state.open:
                state.open[exec_id].reserved = False
            return real(state, exec_id)

        with swapped(visits, "close_visit", close_visit):
            real_cancel(state, *rest)

    real_cancel = router._cancel_inside
    with swapped(router, "_cancel_inside", cancel_inside):
        yield


@plant("a tenant's reservations outlive their executions", "I8", calm=True, **BUSY)
def tenant_reservation_kept() -> Iterator[None]:
    with swapped(Balances, "release", lambda *_: None):
        yield


@plant("nothing is reserved for what a tenant's policies admit", "I8", calm=True, **SLOW)
def tenant_reservation_missing() -> Iterator[None]:
    with swapped(Balances, "reserve", lambda *_: None):
        yield


@plant("a record that comes again is counted for its tenant again", "I8", "bus.double", "store.lost_answer", **BUSY)
def duplicate_counted_twice() -> Iterator[None]:
    real = Transaction._count

    def count(self: Any, units: Sequence[Any]) -> None:
        kept = [(unit, unit.seqs) for unit in units if type(unit) is AppendUnit]
        for unit, seqs in kept:
            unit.seqs = [seq if seq is not None else 1 for seq in seqs]
        real(self, units)
        for unit, seqs in kept:
            unit.seqs = seqs

    with swapped(Transaction, "_count", count):
        yield


@plant("a tenant's totals are counted before it is known what is recorded", "I8", "bus.double", "kv.miss", **BUSY)
def tenant_total_counted_early() -> Iterator[None]:
    real = SqliteStore.append

    async def append(self: Any, batch: Sequence[Any]) -> Any:
        uses = tallies.Uses()
        for each in batch:
            for entry in each.entries:
                found = await self.get_lifetime(each.tenant_id, each.lifetime_id)
                place = (each.tenant_id, found[0].graph_name if found else "", "{}")
                uses.add(place, self._clock.now() // 60_000_000, entry)
        self._ledger._balances.count(uses)
        return await real(self, batch)

    def committed(self: Any, units: Sequence[Any]) -> None:
        self._transaction.uses = tallies.Uses()
        real_committed(self, units)

    real_committed = SqliteLedger.committed
    with swapped(SqliteStore, "append", append), swapped(SqliteLedger, "committed", committed):
        yield


@plant("what a result that came too late has used is not counted for the tenant", "I8", "kv.flush", "kv.miss", **BUSY)
def superseded_not_counted() -> Iterator[None]:
    with swapped(tallies, "superseded", lambda _entry: None):
        yield


@plant(
    "what a result that came too late has used is not counted for the lifetime", "I8",
    "bus.double", "bus.rebalance", "kv.flush", "kv.miss",
    rates={"bus.double": 0.3, "bus.rebalance": 6.0, "kv.flush": 10.0, "kv.miss": 0.3}, processes=3, **SLOW,
)  # fmt: skip
def superseded_not_in_the_budget() -> Iterator[None]:
    with swapped(enforcing, "count_superseded", lambda *_: None):
        yield


@plant("the end of a child is counted for the tenant beside the child's own records", "I8", calm=True, **BUSY)
def child_counted_twice() -> Iterator[None]:
    with swapped(tallies, "CHILD", "no such executor"):
        yield


@plant("the windows of a tenant's policies never move", "I8", calm=True, **BUSY)
def window_never_moves() -> Iterator[None]:
    with swapped(tallies, "first_minute", lambda _window, _now: EVER):
        yield


@plant("a tenant's policies are not asked", "I8", calm=True, **BUSY)
def tenant_not_asked() -> Iterator[None]:
    with swapped(Admission, "question", lambda *_: None):
        yield


@plant("a tenant's policies are asked about a dispatch, and it is sent whatever they say", "I8", calm=True, **BUSY)
def refusal_sent_all_the_same() -> Iterator[None]:
    real = Admission.ask

    async def ask(self: Any, questions: Any) -> Any:
        answers = await real(self, questions)
        for answer in answers:
            answer.admitted = True
        return answers

    with swapped(Admission, "ask", ask):
        yield


@plant("what is sent out after a resume is not judged any more", "I8", calm=True, **MEDDLED)
def admission_skipped_on_resend() -> Iterator[None]:
    real = visits._admitted

    def admitted(state: LifetimeState, opened: Visit, out: list[Any]) -> bool:
        return state.resumes > 0 or real(state, opened, out)

    with swapped(visits, "_admitted", admitted):
        yield


@plant("a verdict is acted on and not recorded", "I8", calm=True, **BUSY)
def verdict_not_recorded() -> Iterator[None]:
    with swapped(visits, "tell", lambda *_: None):
        yield


@plant("a warning is recorded again and again", "I8", calm=True, **BUSY)
def warned_again_and_again() -> Iterator[None]:
    def news(self: Any, index: int, _verdict: Any) -> bool:
        self._standing[index] = True
        return True

    with swapped(Guard, "_news", news):
        yield


@plant("a policy in shadow is enforced", "I8", calm=True, **BUSY)
def shadow_enforced() -> Iterator[None]:
    with swapped(Verdict, "enforced", property(lambda self: self.action != "warn")):
        yield


@plant("of several policies the mildest is done", "I8", calm=True, **BUSY)
def mildest_is_done() -> Iterator[None]:
    def mildest(verdicts: Any) -> Verdict | None:
        enforced = [verdict for verdict in verdicts if verdict.enforced]
        return min(enforced, key=lambda verdict: judging.STRICTNESS[verdict.action], default=None)

    with swapped(visits, "strictest", mildest), swapped(enforcing, "strictest", mildest):
        yield


@plant("a policy that cannot be evaluated lets everything pass", "I8", calm=True, **BUSY)
def fails_open() -> Iterator[None]:
    real = Guard._judge

    def judge(self: Any, *args: Any) -> Verdict | None:
        found = real(self, *args)
        return None if found is not None and found.failed else found

    with swapped(Guard, "_judge", judge):
        yield


@plant("a policy that pauses lets out what the same entry leads to", "I15", calm=True, **SLOW)
def pause_lets_one_more_through() -> Iterator[None]:
    real = visits.pause

    def pause(state: LifetimeState, *rest: Any) -> None:
        before = state.paused
        real(state, *rest)
        state.paused = before  # it counts when the log shows it

    with swapped(visits, "pause", pause):
        yield


@plant("a limit that was raised is forgotten when other policies are loaded", "I8", calm=True,
       **{**CHANGING, "phase": 300.0})  # fmt: skip
def raised_limit_forgotten() -> Iterator[None]:
    real = enforcing.Guard

    def guard(*args: Any) -> Guard:
        return real(*args[:-1], {})

    with swapped(enforcing, "Guard", guard):
        yield


@plant("what a lifetime used before its policies came into force is not counted", "I8", calm=True, **CHANGING)
def counters_begin_anew() -> Iterator[None]:
    real = enforcing.Guard

    def guard(*args: Any) -> Guard:
        return real(*args[:4], {}, *args[5:])

    with swapped(enforcing, "Guard", guard):
        yield


@plant("what is in flight when policies come into force is not reserved", "I8", calm=True, **CHANGING)
def in_flight_not_reserved() -> Iterator[None]:
    real = enforcing.install

    def install(state: LifetimeState, digest: str, out: list[Any]) -> None:
        begun = {visit.exec_id: visit.begun for visit in state.open.values()}
        for visit in state.open.values():
            visit.begun = False
        real(state, digest, out)
        for visit in state.open.values():
            visit.begun = begun.get(visit.exec_id, visit.begun)

    with swapped(enforcing, "install", install):
        yield


@plant("a record that a policy held is routed again at the next resume", "I6", calm=True, **MEDDLED)
def held_record_routed_twice() -> Iterator[None]:
    real = fold._resume

    def resume(state: LifetimeState, out: list[Any]) -> None:
        held = list(state.held)
        real(state, out)
        state.held = held + state.held

    with swapped(fold, "_resume", resume):
        yield


@plant("a dispatch that was refused is not sent when the lifetime is resumed", "I9", calm=True, **BUSY)
def refused_dispatch_lost() -> Iterator[None]:
    real = fold._unsent

    def unsent(state: LifetimeState, visit: Visit) -> bool:
        return real(state, visit) and (visit.phase != "ready" or visit.begun)

    with swapped(fold, "_unsent", unsent):
        yield


@plant("a log names policies that nobody has kept", "I11", calm=True, **CHANGING)
def policies_not_kept() -> Iterator[None]:
    async def pin(self: Any, rules: Any) -> str:
        self._known[rules.digest] = rules
        return str(rules.digest)

    with swapped(PolicyIndex, "pin", pin):
        yield


@plant("a lifetime is judged by the newest policies, not by those that its log names", "I11", calm=True, **CHANGING)
def newest_policies_for_all() -> Iterator[None]:
    def rules(self: Any, _digest: str) -> Any:
        return list(self._known.values())[-1]

    with swapped(PolicyIndex, "rules", rules):
        yield


@plant("other policies are in force, and no log says so", "I11", calm=True, **CHANGING)
def policies_changed_silently() -> Iterator[None]:
    real = performing._outdated

    def outdated(state: LifetimeState, rules: Rules) -> bool:
        if real(state, rules):
            enforcing.install(state, rules.digest, [])
        return False

    with swapped(performing, "_outdated", outdated):
        yield


@plant("whatever somebody asks for is taken for a higher limit", "I8", calm=True, **MEDDLED)
def every_raise_taken() -> Iterator[None]:
    real = service.raised_limits

    def raised_limits(*args: Any) -> dict[str, str]:
        try:
            return real(*args)
        except service.UsageError:
            return {}

    with swapped(service, "raised_limits", raised_limits):
        yield


@plant("an attempt that was cancelled counts as one that was made", "I8", calm=True, **BUSY)
def cancelled_counted() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(swapped(enforcing, "ran", lambda done: done.executor != "nobody"))
        yield


@plant("what an attempt costs is rounded before it is added up", "I8", calm=True, **BUSY)
def money_rounded() -> Iterator[None]:
    real = Guard._add

    def _add(self: Any, moves: Any, use: Any, iteration: int) -> None:
        amounts = {name: value - value % 4_000 if name == "cost_usd" else value for name, value in use.amounts.items()}
        real(self, moves, msgspec.structs.replace(use, amounts=amounts), iteration)

    with swapped(Guard, "_add", _add):
        yield
