"""Policies in the core, entry by entry: the state is a fold of the log, and a log that was changed does not replay."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.orchestrator.driver import ONCE, Run, graph
from tests.orchestrator.guarded import GuardedRun, check, policies, shown
from tests.simulation.test_core import behaviour, random_graph
from tickwork import Graph, Next, plan, task
from tickwork.formats.policies import read_policies
from tickwork.model.graph import Child, Human, Limits, Maximum, Node, RetryPolicy
from tickwork.model.policy import PolicySet
from tickwork.model.records import Error, Event, Execution, LogEntry, Telemetry, decode_entry, encode_entry
from tickwork.orchestrator import enforcing
from tickwork.orchestrator.fold import fold
from tickwork.orchestrator.guardrails.judging import Guard
from tickwork.orchestrator.replay import ENDS, replay
from tickwork.orchestrator.state import CancelRunning, LifetimeState, Visit
from tickwork.testing.harness import run_graph

OFF = PolicySet()


def fan(mode: str, **nodes: Node) -> Any:
    return graph(
        "start -> plan_split", "plan_split => work", f"work >> plan_end | {mode}", "plan_end -> close", "close -> end",
        **nodes,
    )  # fmt: skip


def three(visit: Visit, run: Run) -> Any:
    return {"plan_split": ["work"] * 3, "plan_end": ["close"]}.get(visit.node, {"n": visit.branch[-1:]})


LOOK = policies("{name: look, scope: execution, match: {name: work}, when: result.n != 'x', action: pause_lifetime}")


# -- held records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["any", "quorum 2", "settled", "all"])
def test_held_branches_of_a_group_go_on_as_if_they_came_one_after_the_other(mode: str) -> None:
    run = GuardedRun(fan(mode), three, (LOOK,)).start()
    run.complete(run.next_visit())
    for _ in range(3):
        run.complete(run.next_visit("work"))
    assert run.status == "PAUSED"
    assert len(run.state.held) == 3
    run.say("resumed")
    run.finish()
    assert run.status == "COMPLETED"
    assert len(run.executions("plan_end")) == 1


def test_a_join_that_fires_while_a_branch_is_held_forgets_it() -> None:
    only = policies(
        "{name: look, scope: execution, match: {name: work}, when: result.n == '0', action: pause_lifetime}"
    )
    run = GuardedRun(fan("any"), three, (only,)).start()
    run.complete(run.next_visit())
    first, second, third = run.in_flight
    run.in_flight.clear()
    run.complete(first)
    run.complete(second)  # fires
    assert run.state.held == []
    assert third.exec_id in run.cancelled
    run.say("resumed")
    run.finish()
    assert run.status == "COMPLETED"


def test_the_end_of_one_held_record_ends_what_the_others_wait_for() -> None:
    template = graph(
        "start -> plan_split", "plan_split => work", "work -> end",
        work=Node(name="work", kind="task", retry=RetryPolicy(max_attempts=3, initial_interval=9)),
    )  # fmt: skip
    look = policies(
        "{name: look, scope: execution, match: {name: work}, when: header.attempt > 0, action: pause_lifetime}"
    )
    made = {"plan_split": ["work", "work"]}
    run = GuardedRun(template, lambda visit, run: made.get(visit.node, 1), (look,)).start()
    run.complete(run.next_visit())
    run.complete(run.next_visit())
    failing = run.next_visit()
    run.append(run.execution(failing, Error("Busy", "")))
    assert len(run.state.held) == 2
    run.say("resumed")
    run.finish()
    assert run.status == "COMPLETED"
    assert not run.state.pending


def test_a_record_in_flight_that_breaches_while_another_is_held_is_held_too() -> None:
    look = policies("{name: look, match: {name: work}, when: result.n != 'x', action: pause_lifetime}")  # of a lifetime
    run = GuardedRun(fan("all"), three, (look,)).start()
    run.complete(run.next_visit())
    for number in range(1, 4):
        run.complete(run.next_visit("work"))
        assert len(run.state.held) == number
    assert [v.data["exec_id"] for v in run.events("verdict")] == [held.done.exec_id for held in run.state.held]


def test_what_cannot_be_evaluated_stops_it_also_when_the_policy_warned_before() -> None:
    wary = policies("{name: wary, when: sum(tokens_used) > 50, action: warn}")
    used = iter([100, 100, -7])
    run = GuardedRun(
        fan("all"), three, (wary,), used=lambda visit: Telemetry(tokens_used=next(used, 1))
    ).start()  # fmt: skip
    for _ in range(3):
        run.complete(run.next_visit())
    assert run.status == "PAUSED"
    assert [("error" in v.data, v.data["action"]) for v in run.events("verdict")] == [
        (False, "warn"),
        (True, "pause_lifetime"),
    ]


# -- pauses that meet a person's word ---------------------------------------------------------------------------------


def test_a_resume_that_overtakes_the_entry_of_the_pause_resumes() -> None:
    run = GuardedRun(fan("all"), three, (LOOK,), slow=True).start()
    run.complete(run.next_visit())
    run.complete(run.next_visit("work"))
    assert run.status == "PAUSED"
    run.say("resumed")
    run.land_all()  # the verdict, and the pause that somebody has ended already
    assert run.status == "RUNNING"
    assert run.state.held == []
    assert not run.state.pending
    run.replayed()


def test_a_pause_of_somebody_and_one_of_a_policy_are_one_pause() -> None:
    run = GuardedRun(fan("all"), three, (LOOK,)).start()
    run.complete(run.next_visit())
    run.say("paused", reason="lunch")
    run.complete(run.next_visit("work"))
    assert len(run.events("paused")) == 1
    assert len(run.state.held) == 1
    run.say("resumed")
    assert run.state.held == []


def test_an_abort_while_records_are_held_ends_it() -> None:
    run = GuardedRun(fan("all"), three, (LOOK,)).start()
    run.complete(run.next_visit())
    run.complete(run.next_visit("work"))
    run.say("abort_requested", reason="enough", by="ann")
    assert run.status == "ABORTED"
    assert run.state.held == []
    assert [e.status for e in run.executions("work")] == ["SUCCEEDED", "CANCELLED", "CANCELLED"]
    run.replayed()


def test_a_resume_lets_a_retry_wait_out_its_time() -> None:
    retry = RetryPolicy(max_attempts=2, initial_interval=60, jitter=0)
    template = graph("start -> work", "work -> end", work=Node(name="work", kind="task", retry=retry))
    budget = policies("{name: budget, when: sum(tokens_used) > 50, action: pause_lifetime}")
    run = GuardedRun(template, lambda visit, run: Error("Busy", "") if visit.attempt == 1 else 1, (budget,)).start()
    run.complete(run.next_visit())
    assert run.status == "PAUSED"
    (timer,) = run.events("timer_set")
    run.append(Event(f"{timer.data['timer_id']}:fired", "timer_fired", {"timer_id": timer.data["timer_id"]}))
    assert not run.in_flight
    run.say("resumed", raised={"run/budget": "1000"})
    run.finish()
    assert run.status == "COMPLETED"


def test_a_pause_that_comes_with_other_entries_is_shown_at_once() -> None:
    @plan
    def split(job: Any, ctx: Any) -> Any:
        return [Next("work", input=n) for n in range(3)] if ctx.iteration == 0 else "end"

    @task
    async def work(number: int, ctx: Any) -> int:
        await asyncio.sleep(number * 100)
        ctx.telemetry.record(tokens_used=100)
        return number

    made = Graph("first", "1.0.0")
    made.start(split)
    made.parallel(split, work)
    made.join(work, split, mode="any")
    made.final(split)
    law = read_policies("version: 1\npolicies:\n  - {name: cap, when: sum(tokens_used) > 50, action: pause_lifetime}\n")
    outcome = run_graph(made.bind(), policies=law)
    assert [e.status for e in outcome.records("work")] == ["SUCCEEDED", "CANCELLED", "CANCELLED"]
    assert outcome.status == "PAUSED"
    assert outcome.duration_ms < 5_000, "whoever waits for it need not wait for the sweeper"


# -- ends -------------------------------------------------------------------------------------------------------------


def test_an_abort_in_the_middle_of_a_fan_out_sends_nothing_and_stops_nothing_that_was_not_sent() -> None:
    cap = policies("{name: cap, when: count() > 60, action: abort_lifetime}")
    work = Node(name="work", kind="task", retry=ONCE, child=Child(name="below"))
    made = {"plan_split": ["work"] * 100}
    run = GuardedRun(fan("all", work=work), lambda visit, run: made.get(visit.node, 1), (cap,)).start()
    told: list[Visit] = []
    perform = run.perform

    def watch(commands: list[Any]) -> None:
        told.extend(v for c in commands if isinstance(c, CancelRunning) for v in c.visits)
        perform(commands)

    run.perform = watch  # type: ignore[method-assign]  # to see what is told to executors and children
    run.complete(run.next_visit())
    assert run.status == "ABORTED"
    assert not run.in_flight
    assert len(run.executions("work")) == 100
    assert {e.status for e in run.executions("work")} == {"CANCELLED"}
    assert len(told) == 100
    assert not any(visit.begun for visit in told), "a child that was never started cannot be aborted"
    run.replayed()


def test_a_limit_and_a_policy_at_the_same_place_end_it_once() -> None:
    cap = policies("{name: cap, when: count() > 3, action: abort_lifetime}")
    template = msgspec.structs.replace(fan("all"), limits=Limits(open_visits=4))
    made = {"plan_split": ["work"] * 9}
    run = GuardedRun(template, lambda visit, run: made.get(visit.node, 1), (cap,)).start()
    run.complete(run.next_visit())
    assert run.status == "ABORTED"
    assert len([e for e in run.log if isinstance(e.entry, Event) and e.entry.type in ENDS]) == 1
    run.replayed()


# -- elapsed time -----------------------------------------------------------------------------------------------------

LATE = policies("{name: late, when: elapsed() > 60, action: abort_lifetime}")
SHY = policies("{name: shy, when: elapsed() > 2, action: warn}")
ASK = graph("start -> ask", "ask -> end", ask=Node(name="ask", kind="task", retry=ONCE, human=Human(prompt="?")))


def fire_all(run: GuardedRun) -> None:
    for event in run.events("timer_set"):
        timer_id = event.data["timer_id"]
        run.append(Event(f"{timer_id}:fired", "timer_fired", {"timer_id": timer_id}))


def test_a_limit_of_time_that_comes_into_force_late_is_judged_at_once() -> None:
    run = GuardedRun(ASK, three, (OFF, LATE)).start()
    run.log[0] = LogEntry(1, run.log[0].at, run.log[0].entry)
    for number in range(90):
        run.append(Event(f"signalled:{number}", "signalled", {"name": "x", "payload": None}))
    run.install(LATE.digest)
    fire_all(run)
    assert run.status == "ABORTED"


def test_the_same_warning_about_time_under_another_set_is_another_entry() -> None:
    both = policies("{name: shy, when: elapsed() > 2, action: warn}", "{name: cap, when: count() > 99, action: warn}")
    run = GuardedRun(ASK, three, (SHY, both)).start()
    for number in range(3):
        run.append(Event(f"signalled:{number}", "signalled", {"name": "x", "payload": None}))
    fire_all(run)
    run.install(both.digest)
    fire_all(run)
    assert len(run.events("verdict")) == 2
    assert not run.state.pending, "what is decided comes into the log"


# -- sets that change -------------------------------------------------------------------------------------------------


def test_a_raise_holds_for_the_limit_that_it_was_given_for() -> None:
    tokens = policies("{name: budget, when: sum(tokens_used) > 150, action: pause_lifetime}")
    other = policies(
        "{name: budget, when: sum(tokens_used) > 150, action: pause_lifetime}",
        "{name: cap, when: count() > 99, action: warn}",
    )
    wider = policies("{name: budget, when: sum(tokens_used) > 5000, action: pause_lifetime}")
    money = policies("{name: budget, when: sum(cost_usd) > 0.01, action: pause_lifetime}")
    run = GuardedRun(fan("all"), three, (tokens, other, wider, money)).start()
    run.complete(run.next_visit())
    run.complete(run.next_visit("work"))
    run.say("resumed", raised={"run/budget": "1000"})
    for digest, raised in ((other.digest, {"run/budget": 1000}), (wider.digest, {}), (tokens.digest, {})):
        run.install(digest)
        assert run.state.raised == raised
    run.install(money.digest)
    assert run.state.raised == {}
    assert shown(run.rebuilt()) == shown(run.state)


# -- the state is a fold of the log -----------------------------------------------------------------------------------

RULES = (
    "{name: budget, when: sum(tokens_used) > %d, action: pause_lifetime}",
    "{name: cap, when: count() > %d, action: reject_execution, match: {name: task0}}",
    "{name: wary, when: sum(cost_usd) > 0.0%d, action: warn}",
    "{name: shy, when: sum(tokens_used) > %d, action: abort_lifetime, shadow: true}",
    "{name: odd, scope: execution, match: {kind: task}, when: result.n == %d, action: pause_lifetime}",
    "{name: bad, scope: execution, match: {kind: task}, when: result.n == %d, action: reject_execution}",
    "{name: most, when: max(tokens_used) > %d, action: pause_lifetime}",
    "{name: ever, when: iterations('task1') > %d, action: pause_lifetime}",
    "{name: late, when: elapsed() > %d, action: pause_lifetime}",
    "{name: mean, when: avg(custom.pages) > %d, action: warn}",
    "{name: last, when: sum(tokens_used) > 90%d, action: abort_lifetime}",
    "{name: both, when: sum(tokens_used) > %d && count() > 3, action: pause_lifetime}",
    "{name: either, when: sum(cost_usd) > 0.0%d || max(latency_ms) >= 5000, action: warn}",
    "{name: named, when: avg(tokens_used) > %d, action: warn, match: {model: [m-1]}}",
    "{name: large, scope: execution, when: sum(tokens_used) >= %d, action: warn}",
    "{name: little, when: min(tokens_used) < %d, action: warn, shadow: true}",
)


def random_sets(rng: random.Random) -> tuple[PolicySet, ...]:
    made = []
    for _ in range(3):
        chosen = rng.sample(RULES, rng.randint(1, 5))
        large = [("tokens" in line or "elapsed" in line) and "result" not in line for line in chosen]
        pairs = zip(chosen, large, strict=True)
        made.append(policies(*[line % (rng.randint(100, 900) if many else rng.randint(1, 9)) for line, many in pairs]))
    return (*made, OFF)


def random_use(visit: Visit) -> Telemetry | None:
    rng = random.Random(visit.exec_id)
    if rng.random() < 0.1:
        return None
    used = Telemetry(tokens_used=rng.choice([0, 10, 60, -1]), cost_nano_usd=rng.randint(0, 10_000_000))
    used.custom = {"pages": rng.choice([1, 2.5, "many"])} if rng.random() < 0.5 else None
    used.model = rng.choice([None, "m-1", "m-2"])
    return used


def amounts(state: LifetimeState) -> list[Any]:
    """How every counter stands, and what is reserved."""
    watches = state.guard.watches if state.guard is not None else []
    return [(w.rule.label, [(c.amount(7), c.reserved) for c in w.counters]) for w in watches]


def guarded_play(seed: int) -> GuardedRun:
    """A random lifetime under random policies: what is decided lands late, people act, workers and processes die."""
    rng = random.Random(f"guarded/{seed}")
    template = random_graph(random.Random(seed))
    retry = RetryPolicy(max_attempts=2, initial_interval=rng.choice([0, 5]), jitter=0)
    nodes = tuple([msgspec.structs.replace(n, maximum=Maximum(tokens=50), retry=retry) for n in template.nodes])
    template = msgspec.structs.replace(template, nodes=nodes)
    sets = random_sets(rng)
    run = GuardedRun(template, behaviour(seed), sets, seed, slow=True, used=random_use).start({"seed": seed})
    raised = 100
    for _ in range(400):
        if run.state.ending is not None and not run.to_land:
            break
        dice = rng.random()
        if dice < 0.45 and run.in_flight:
            visit = run.in_flight.pop(rng.randrange(len(run.in_flight)))
            if rng.random() < 0.06:
                run.lose(visit)
                late = msgspec.to_builtins(run.execution(visit, run.behave(visit, run)), builtin_types=(bytes,))
                run.append(
                    Event(f"superseded:{visit.exec_id}", "superseded", {"exec_id": visit.exec_id, "execution": late})
                )
            else:
                run.complete(visit)
        elif dice < 0.8 and run.to_land:
            run.land(rng.randrange(len(run.to_land)))
        elif dice < 0.83:
            run.install(rng.choice(sets).digest)
        elif dice < 0.85:
            run.say("paused", reason="somebody")
        elif dice < 0.93 and run.state.paused:
            raised += 400
            limited = [r.label for r in run.state.guard.rules.all if r.limit is not None] if run.state.guard else []
            run.say("resumed", raised={label: str(raised) for label in limited if rng.random() < 0.7})
        elif dice < 0.96:
            fire_all(run)
        elif dice < 0.98:
            run.crash()
        elif dice < 0.9805:
            run.say("abort_requested", reason="enough")
        check(run.state)
        if rng.random() < 0.7:
            continue
        assert shown(run.rebuilt()) == shown(run.state)
        if run.state.ending is None and run.state.guard is not None:
            anew = run.rebuilt()
            again = Event("policies:again", "policies", {"digest": run.state.guard.digest})
            fold(anew, LogEntry(len(run.log) + 1, run.log[-1].at, again))
            assert amounts(anew) == amounts(run.state), "a set that comes into force late counts from the first record"
    run.land_all()
    return run


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_whatever_happens_the_state_is_a_fold_of_the_log(seed: int) -> None:
    run = guarded_play(seed)
    run.replayed()
    if run.state.ending is not None:
        assert run.status == run.state.ending.status
        assert not run.state.pending


# -- logs that were changed -------------------------------------------------------------------------------------------


def found(run: GuardedRun, log: list[LogEntry]) -> tuple[int, str]:
    """Where a replay of a log parts from what is decided."""
    divergence = replay(run.topology, log, rules_of=run.rules.__getitem__).divergence
    assert divergence is not None
    return divergence.seq, divergence.what


def changed(log: list[LogEntry], seq: int, **data: Any) -> list[LogEntry]:
    """The log with other data in the event at `seq`."""
    event = log[seq - 1].entry
    assert isinstance(event, Event)
    other = Event(event.id, event.type, {**event.data, **data})
    return [LogEntry(e.seq, e.at, other if e.seq == seq else e.entry) for e in log]


def without(log: list[LogEntry], *seqs: int) -> list[LogEntry]:
    return [LogEntry(n, e.at, e.entry) for n, e in enumerate([e for e in log if e.seq not in seqs], 1)]


def with_entry(log: list[LogEntry], seq: int, entry: Execution | Event) -> list[LogEntry]:
    """The log with one more entry, at `seq`."""
    entries = [(e.at, e.entry) for e in log]
    entries.insert(seq - 1, (log[seq - 2].at, entry))
    return [LogEntry(n, at, entry) for n, (at, entry) in enumerate(entries, 1)]


def place(run: GuardedRun, kind: str, nth: int = 0) -> int:
    return [e.seq for e in run.log if isinstance(e.entry, Event) and e.entry.type == kind][nth]


def paused_twice() -> GuardedRun:
    """A budget of 150 tokens, raised to 350, raised to 1,000, in a loop of Tasks that declare and use 100 each."""
    template = graph(
        "start -> plan_again", "plan_again -> work", "work -> plan_again", "plan_again -> end",
        work=Node(name="work", kind="task", retry=ONCE, maximum=Maximum(tokens=100)),
    )  # fmt: skip
    budget = policies("{name: budget, match: {name: work}, when: sum(tokens_used) > 150, action: pause_lifetime}")

    def behave(visit: Visit, run: Run) -> Any:
        return visit.iteration if visit.node == "work" else ["work" if visit.iteration < 5 else "end"]

    run = GuardedRun(template, behave, (budget, OFF)).start()
    for raised in ("350", "1000"):
        while run.in_flight:
            run.complete(run.next_visit())
        assert run.status == "PAUSED"
        run.say("resumed", by="ann", raised={"run/budget": raised})
    run.finish()
    assert run.status == "COMPLETED"
    return run


def test_a_log_with_raised_limits_replays_as_it_was_stored() -> None:
    run = paused_twice()
    stored = [LogEntry(e.seq, e.at, decode_entry(encode_entry(e.entry))) for e in run.log]
    assert replay(run.topology, stored, rules_of=run.rules.__getitem__).divergence is None
    assert [len(run.events(kind)) for kind in ("verdict", "paused", "resumed")] == [2, 2, 2]


def test_a_log_that_names_policies_cannot_be_replayed_without_them() -> None:
    run = paused_twice()
    with pytest.raises(LookupError, match="names the policy set"):
        replay(run.topology, run.log)


def test_a_verdict_that_was_removed_is_missed() -> None:
    run = paused_twice()
    # Nothing says when a decision comes into the log, so it is missed at the end.
    other = Event("signalled:x", "signalled", {"name": "x", "payload": None})
    for kind in ("verdict", "paused"):
        for nth in (0, 1):
            seq = place(run, kind, nth)
            log = [LogEntry(e.seq, e.at, other if e.seq == seq else e.entry) for e in run.log]
            missed = (len(run.log) + 1, "the lifetime has ended, and its log misses an entry that was decided")
            assert found(run, log) == missed


@pytest.mark.parametrize(
    "data",
    [
        {"values": {"sum(tokens_used)": "151"}},
        {"action": "warn"},
        {"shadow": True},
        {"policy": "run/another"},
        {"reason": "it felt like it"},
        {"digest": "sha256:" + "0" * 64},
        {"at": "record"},
        {"node": "plan_again"},
        {"error": "x"},
    ],
    ids=lambda data: next(iter(data)),
)
def test_a_verdict_that_says_something_else_diverges_there(data: dict[str, Any]) -> None:
    run = paused_twice()
    seq = place(run, "verdict")
    assert found(run, changed(run.log, seq, **data)) == (seq, "this `verdict` is not the one that was decided")


def test_a_pause_of_a_policy_that_nobody_decided_diverges_there() -> None:
    run = paused_twice()
    forged = Event("paused:run/budget:x:0", "paused", {"reason": "policy run/budget: because", "policy": "run/budget"})
    assert found(run, with_entry(run.log, 3, forged)) == (3, "nobody had decided this `paused`")
    verdict = run.log[place(run, "verdict") - 1].entry
    assert isinstance(verdict, Event)
    forged = Event("verdict:x", "verdict", verdict.data)
    assert found(run, with_entry(run.log, 3, forged)) == (3, "nobody had decided this `verdict`")
    seq = place(run, "paused")
    assert found(run, changed(run.log, seq, reason="lunch")) == (seq, "this `paused` is not the one that was decided")


def test_a_dispatch_after_a_pause_diverges_there() -> None:
    run = paused_twice()
    resumed = place(run, "resumed")
    held = next(e for e in run.log[resumed:] if isinstance(e.entry, Execution) and e.entry.name == "work")
    # The visit that was refused is open, and its place is right; what ran in it had not been let out.
    assert found(run, without(run.log, resumed))[0] == held.seq - 1


@pytest.mark.parametrize("raised", [{"run/budget": "151"}, {}, {"run/other": "350"}])
def test_another_raise_diverges_at_the_first_entry_that_it_led_to(raised: dict[str, str]) -> None:
    run = paused_twice()
    log = changed(run.log, place(run, "resumed"), raised=raised)
    seq, _ = found(run, log)
    resumed = place(run, "resumed")
    held = next(e for e in run.log[resumed:] if isinstance(e.entry, Execution) and e.entry.name == "work")
    assert seq == held.seq


def test_a_set_that_was_taken_out_or_put_in_diverges() -> None:
    run = paused_twice()
    off = Event("policies:1", "policies", {"digest": ""})
    seq = place(run, "verdict")
    assert found(run, with_entry(run.log, seq - 1, off))[0] == seq + 1
    first = changed(run.log, 1, policies="")
    assert found(run, first) == (seq, "nobody had decided this `verdict`")


class Wary(Guard):
    """Asks every rule each time, however far it is from its limit."""

    _tense = property(lambda _self: True, lambda _self, _value: None)  # type: ignore[assignment]  # for a slot


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_who_asks_every_rule_each_time_finds_nothing_more(seed: int) -> None:
    run = guarded_play(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enforcing, "Guard", Wary)
        run.replayed()
        assert shown(run.rebuilt()) == shown(run.state)
