"""Forks of lifetimes under policies: what is counted, what is judged anew, what is not taken over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.orchestrator.driver import ONCE, Run, graph
from tests.orchestrator.guarded import GuardedRun, check, policies, shown
from tickwork import Graph, plan, task
from tickwork.clock import RandomIds
from tickwork.formats.policies import read_policies
from tickwork.model.graph import Maximum, Node
from tickwork.model.policy import PolicySet
from tickwork.model.records import Event, Execution, LogEntry, json_payload
from tickwork.orchestrator.forking import Replacement
from tickwork.orchestrator.replay import ENDS
from tickwork.orchestrator.state import Visit
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import check_replay
from tickwork.testing.virtual import VirtualClock, run_virtual

FORK = "01990000-0000-7000-8000-00000000000f"
LOOK = policies("{name: look, scope: execution, match: {name: work}, when: result.n != 'x', action: pause_lifetime}")
BUDGET = policies("{name: budget, match: {name: work}, when: sum(tokens_used) > 250, action: pause_lifetime}")


def fan(run_set: PolicySet, mode: str = "all") -> GuardedRun:
    """Three branches, each of which declares and uses 100 tokens."""
    template = graph(
        "start -> plan_split", "plan_split => work", f"work >> plan_end | {mode}", "plan_end -> close", "close -> end",
        work=Node(name="work", kind="task", retry=ONCE, maximum=Maximum(tokens=100)),
    )  # fmt: skip

    def behave(visit: Visit, run: Run) -> Any:
        return {"plan_split": ["work"] * 3, "plan_end": ["close"]}.get(visit.node, {"n": visit.branch[-1:]})

    return GuardedRun(template, behave, (run_set,)).start()


def seqs(run: GuardedRun, node: str) -> list[int]:
    return [e.seq for e in run.log if isinstance(e.entry, Execution) and e.entry.name == node]


def ids(run: GuardedRun) -> list[str]:
    return [e.entry.entry_id for e in run.log]


def hold_three(mode: str = "all") -> GuardedRun:
    """All branches are held; the verdicts and the pause stand among their records."""
    run = fan(LOOK, mode)
    run.complete(run.next_visit())
    for _ in range(3):
        run.complete(run.next_visit("work"))
    assert len(run.state.held) == 3
    return run


@pytest.mark.parametrize("nth", range(3))
def test_what_is_held_at_the_fork_is_judged_in_it_as_if_it_had_just_come(nth: int) -> None:
    run = hold_three()
    fork = run.fork(seqs(run, "work")[nth], FORK)
    assert fork.status == "PAUSED"
    assert len(fork.state.held) == nth + 1
    assert not fork.state.pending, "the verdicts of the fork are entries of their own"
    assert len(set(ids(fork))) == len(fork.log)
    for _ in range(3):
        fork.say("resumed")
        while fork.in_flight:
            fork.complete(fork.next_visit())
    assert fork.status == "COMPLETED"
    assert len(fork.executions("plan_end")) == 1
    assert shown(fork.rebuilt()) == shown(fork.state)
    fork.replayed()


def test_limits_of_a_single_record_are_judged_again_too() -> None:
    both = policies(
        "{name: look, scope: execution, match: {name: work}, when: result.n != 'x', action: pause_lifetime}",
        "{name: much, scope: execution, match: {name: work}, when: sum(tokens_used) > 50, action: warn}",
    )
    run = fan(both)
    run.complete(run.next_visit())
    run.complete(run.next_visit("work"))
    fork = run.fork(seqs(run, "work")[0], FORK)
    for one in (run, fork):
        said = [e.data["policy"] for e in one.events("verdict")]
        assert sorted(said) == ["run/look", "run/much"]
    fork.replayed()


@pytest.mark.parametrize("mode", ["any", "quorum 2"])
def test_what_is_held_in_branches_that_a_join_ends_is_let_go_in_the_fork(mode: str) -> None:
    run = hold_three(mode)
    fork = run.fork(seqs(run, "work")[2], FORK)
    fork.say("resumed")
    fork.finish()
    assert fork.status == "COMPLETED"
    assert len(fork.executions("plan_end")) == 1


def test_a_fork_counts_what_was_spent_and_nothing_that_was_only_in_flight() -> None:
    run = fan(BUDGET)
    run.complete(run.next_visit())
    first, _ = run.in_flight
    assert run.state.guard is not None
    run.complete(run.next_visit())
    fork = run.fork(seqs(run, "work")[0], FORK)
    check(fork.state)
    assert fork.state.guard is not None
    (counter,) = fork.state.guard.watches[0].counters
    assert (counter.amount(0), counter.reserved) == (100, 100)
    assert fork.status == "PAUSED", "the third branch has no room here either"
    assert first.exec_id not in {visit.exec_id for visit in fork.in_flight}


def test_a_fork_does_not_have_what_was_raised_nor_the_time() -> None:
    late = policies(
        "{name: budget, match: {name: work}, when: sum(tokens_used) > 250, action: pause_lifetime}",
        "{name: late, when: elapsed() > 60, action: abort_lifetime}",
    )
    run = fan(late)
    run.complete(run.next_visit())
    run.say("resumed", raised={"run/budget": "9000"})
    for _ in range(3):
        run.complete(run.next_visit("work"))
    fork = run.fork(seqs(run, "work")[2], FORK)
    assert fork.state.raised == {}
    (begun,) = [e.at for e in fork.log if isinstance(e.entry, Event) and e.entry.type == "forked"]
    assert fork.state.started_at == begun
    assert fork.events("timer_set")[-1].data["due"] == begun + 60_000_001
    fork.finish()


def test_another_result_lets_a_held_record_pass() -> None:
    run = hold_three()
    fork = run.fork(seqs(run, "work")[0], FORK, Replacement(json_payload({"n": "x"})))
    while fork.in_flight:
        fork.complete(fork.next_visit())
    fork.say("resumed")
    fork.finish()
    assert fork.status == "COMPLETED"
    # Somebody wrote this result, and it used nothing.
    assert fork.executions("work")[0].executor == "fork"


def test_a_record_that_is_replaced_in_a_fork_that_is_paused_replays() -> None:
    run = fan(BUDGET)
    run.complete(run.next_visit())
    assert run.status == "PAUSED"
    for _ in range(2):
        run.complete(run.next_visit())
    fork = run.fork(seqs(run, "work")[1], FORK, Replacement(json_payload({"n": "x"})))
    fork.replayed()
    assert shown(fork.rebuilt()) == shown(fork.state)


def test_a_fork_of_a_fork_judges_again_under_ids_of_its_own() -> None:
    run = hold_three()
    fork = run.fork(seqs(run, "work")[2], FORK)
    fork.say("resumed")
    fork.complete(fork.next_visit())
    second = fork.fork(seqs(fork, "plan_end")[0], FORK[:-1] + "e")
    assert not second.state.pending
    second.finish()
    assert second.status == "COMPLETED"
    third = run.fork(seqs(run, "work")[2], FORK[:-1] + "d")
    assert third.status == "PAUSED"
    assert len([e for e in third.log if isinstance(e.entry, Event) and e.entry.type in ENDS]) == 0


def test_a_fork_of_a_lifetime_that_a_policy_aborted() -> None:
    stop = policies("{name: stop, when: sum(tokens_used) > 250, action: abort_lifetime, match: {name: work}}")
    run = fan(stop)
    run.complete(run.next_visit())
    assert run.status == "ABORTED"
    fork = run.fork(2, FORK)
    assert fork.status == "ABORTED", "at the record that it was aborted over, the same follows"
    fork.replayed()
    other = run.fork(2, FORK, Replacement(json_payload(None), ()))
    assert other.status == "FAILED", "with another choice nothing of that follows"
    other.replayed()


# -- through the planes -----------------------------------------------------------------------------------------------


def loop() -> BoundGraph:
    @plan
    def again(job: Any, ctx: Any) -> str:
        return "work" if ctx.iteration < 6 else "end"

    @task(maximum={"tokens": 100})
    def work(job: Any, ctx: Any) -> dict[str, int]:
        ctx.telemetry.record(tokens_used=100, cost_usd="0.01", model="m-1")
        return {"turn": ctx.iteration}

    made = Graph("loop", "1.0.0")
    made.start(again)
    made.then(again, work)
    made.edge(work, again)
    made.final(again)
    return made.bind()


def test_a_fork_of_a_paused_lifetime_has_the_limits_of_its_own_policies() -> None:
    line = "{name: budget, match: {name: work}, when: sum(tokens_used) > 250, action: pause_lifetime}"
    law = read_policies(f"version: 1\npolicies:\n  - {line}\n")

    async def go() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        async with Runtime(Profile.test(), ids=RandomIds(seed=3), threads=0, clock=clock) as runtime:
            service = runtime.service
            stored = await runtime.bind(loop())
            one = (await service.start(stored.digest, 1, policies=law)).lifetime_id
            paused = await runtime.guard(service.wait(one, until="settled"))
            assert paused.status == "PAUSED"
            await service.resume(one, raised={"budget": "100000"})
            assert (await runtime.guard(service.wait(one))).status == "COMPLETED"
            log: list[LogEntry] = await service.log(one, limit=1000)
            works = [e.entry for e in log if isinstance(e.entry, Execution) and e.entry.name == "work"]
            for at, status in ((works[0], "PAUSED"), (works[4], "PAUSED")):
                fork = await runtime.history.fork(one, at.exec_id)
                found = await runtime.guard(service.wait(fork.lifetime_id, until="settled"))
                assert found.status == status
                assert found.reason is not None
                assert "over 250" in found.reason
            await check_replay(runtime)

    run_virtual(go())
