"""The verbs of a lifetime, people, signals and timers: in one process on virtual time, in eight on real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.acceptance.world import Gate, World, asking, everywhere, gated, seconds_between
from tickwork import (
    END,
    Graph,
    Next,
    PlanInput,
    PlanResult,
    RetryableError,
    RetryPolicy,
    TaskInput,
    human,
    plan,
    sleep,
    task,
    wait_for_signal,
)
from tickwork.errors import AlreadyEnded, AnswerRefused, NotFound, UsageError

# -- pause, resume, abort ---------------------------------------------------------------------------------------------


@everywhere
async def test_pause_holds_what_follows_and_records_what_is_in_flight(world: World) -> None:
    gate = Gate()
    lifetime = await world.start(gated(gate), 1)
    await gate.entered.wait()
    paused = await world.service.pause(lifetime.lifetime_id, reason="lunch", by="ann")
    assert (paused.status, paused.reason) == ("PAUSED", "lunch")
    gate.open.set()
    await world.rest()
    assert [e.name for e in await world.executions(lifetime)] == ["first"]
    assert (await world.service.get(lifetime.lifetime_id)).status == "PAUSED"
    again = await world.service.pause(lifetime.lifetime_id)
    assert again.status == "PAUSED"
    await world.service.resume(lifetime.lifetime_id, by="ann")
    assert await world.result(lifetime) == 3
    assert await world.events(lifetime) == ["started", "paused", "resumed", "completed"]


@everywhere
async def test_a_backoff_and_a_deadline_that_pass_during_a_pause_count_when_it_ends(world: World) -> None:
    @task(retry=RetryPolicy(max_attempts=2, initial_interval=world.hour, max_interval=world.hour, jitter=0))
    async def flaky(task_input: TaskInput) -> int:
        if task_input.attempt == 1:
            raise RetryableError("again")
        return 7

    lifetime = await world.start(Graph("flaky_graph", "1.0.0").start(flaky).final(flaky))
    await world.until_timer_set(lifetime)
    await world.service.pause(lifetime.lifetime_id)
    await world.rest(2)
    assert len(await world.executions(lifetime)) == 1
    await world.service.resume(lifetime.lifetime_id)
    assert await world.result(lifetime) == 7


@everywhere
async def test_resume_of_a_lifetime_that_runs_changes_nothing(world: World) -> None:
    gate = Gate()
    lifetime = await world.start(gated(gate), 1)
    await gate.entered.wait()
    await world.service.resume(lifetime.lifetime_id)
    gate.open.set()
    assert await world.result(lifetime) == 3
    assert [e.name for e in await world.executions(lifetime)] == ["first", "between", "second"]


@everywhere
async def test_abort_cancels_what_runs_and_nothing_can_follow(world: World) -> None:
    gate = Gate()
    lifetime = await world.start(gated(gate), 1)
    await gate.entered.wait()
    await world.service.abort(lifetime.lifetime_id, reason="enough", by="ann")
    ended = await world.end(lifetime)
    assert (ended.status, ended.reason) == ("ABORTED", "enough (by ann)")
    await world.until(lambda: gate.cancelled)
    assert gate.cancelled == [""]
    (done,) = await world.executions(lifetime)
    assert (done.name, done.status) == ("first", "CANCELLED")
    for verb in (world.service.pause, world.service.resume, world.service.abort):
        with pytest.raises(AlreadyEnded, match="ABORTED"):
            await verb(lifetime.lifetime_id)


@everywhere
async def test_a_paused_and_a_waiting_lifetime_can_be_aborted(world: World) -> None:
    paused = await world.start(gated(Gate()), 1)
    await world.service.pause(paused.lifetime_id)
    await world.service.abort(paused.lifetime_id, reason="no")
    assert (await world.end(paused)).status == "ABORTED"
    waiting = await world.start(asking())
    assert (await world.settle(waiting)).status == "WAITING"
    await world.service.abort(waiting.lifetime_id, reason="no")
    assert (await world.end(waiting)).status == "ABORTED"
    assert await world.service.questions() == []


@everywhere
async def test_an_answer_and_a_deadline_during_a_pause_are_recorded_and_wait(world: World) -> None:
    answered = await world.start(asking())
    expired = await world.start(asking("expiring", deadline=2 * world.hour, default="no"))
    for lifetime in (answered, expired):
        await world.settle(lifetime)
        await world.service.pause(lifetime.lifetime_id)
    await world.service.answer(answered.lifetime_id, "yes")
    await world.rest(3)
    for lifetime in (answered, expired):
        assert (await world.service.get(lifetime.lifetime_id)).status == "PAUSED"
    assert [e.name for e in await world.executions(answered)] == ["ask"]
    for lifetime, expected in ((answered, "yes"), (expired, "no")):
        await world.service.resume(lifetime.lifetime_id)
        assert await world.result(lifetime) == expected


@everywhere
async def test_an_abort_during_a_backoff_and_a_nap_leaves_no_timer_behind(world: World) -> None:
    @task(retry=RetryPolicy(initial_interval=world.hour, max_interval=world.hour))
    async def flaky() -> None:
        raise RetryableError("again")

    nap = sleep("nap", seconds=world.hour)
    for graph in (
        Graph("flaky_graph", "1.0.0").start(flaky).final(flaky),
        Graph("napping", "1.0.0").start(nap).final(nap),
    ):
        lifetime = await world.start(graph)
        await world.until_timer_set(lifetime)
        await world.service.abort(lifetime.lifetime_id, reason="no")
        assert (await world.end(lifetime)).status == "ABORTED"
        assert await world.timers() == []
        length = len(await world.log(lifetime))
        await world.rest(2)
        assert len(await world.log(lifetime)) == length


# -- idempotent start -------------------------------------------------------------------------------------------------


@everywhere
async def test_the_same_idempotency_key_starts_once(world: World) -> None:
    graph = gated(Gate())
    one = await world.start(graph, 1, idempotency_key="order-7")
    two = await world.service.start("gated", 2, idempotency_key="order-7")
    other = await world.service.start("gated", 1, idempotency_key="order-8")
    assert one.lifetime_id == two.lifetime_id != other.lifetime_id
    many = await asyncio.gather(*[world.service.start("gated", k, idempotency_key="order-9") for k in range(20)])
    assert len({each.lifetime_id for each in many}) == 1
    assert len(await world.service.list()) == 3


# -- people -----------------------------------------------------------------------------------------------------------


OK_SCHEMA = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}


@everywhere
async def test_a_person_answers_once_and_only_what_fits(world: World) -> None:
    lifetime = await world.start(asking(answer_schema=OK_SCHEMA, who=["ann"]), {"name": "bob"})
    assert (await world.settle(lifetime)).status == "WAITING"
    (question,) = await world.service.questions()
    assert (question.prompt, question.node, question.who) == ("May bob pass?", "ask", ("ann",))
    answer = world.service.answer
    with pytest.raises(AnswerRefused, match="ok"):
        await answer(lifetime.lifetime_id, {"ok": "perhaps"}, by="ann")
    with pytest.raises(AnswerRefused, match="ann"):
        await answer(lifetime.lifetime_id, {"ok": True}, by="eve")
    assert len(await world.service.questions()) == 1
    await answer(lifetime.lifetime_id, {"ok": True}, by="ann", exec_id="ask")
    with pytest.raises((AlreadyEnded, NotFound)):
        await answer(lifetime.lifetime_id, {"ok": False}, by="ann")
    assert await world.result(lifetime) == {"ok": True}
    (done,) = await world.executions(lifetime, "ask")
    assert done.executor == "human:ann"


@everywhere
async def test_of_many_answers_at_once_the_first_counts(world: World) -> None:
    lifetime = await world.start(asking())
    await world.settle(lifetime)
    tried = await asyncio.gather(
        *[world.service.answer(lifetime.lifetime_id, k) for k in range(20)], return_exceptions=True
    )
    accepted = [k for k, each in enumerate(tried) if not isinstance(each, BaseException)]
    assert len(accepted) == 1
    assert all(isinstance(each, AlreadyEnded | NotFound) for k, each in enumerate(tried) if k not in accepted)
    assert await world.result(lifetime) == accepted[0]


@everywhere
async def test_a_deadline_takes_the_default(world: World) -> None:
    lifetime = await world.start(asking(deadline=world.hour, default="no"))
    assert await world.result(lifetime) == "no"
    (done,) = await world.executions(lifetime, "ask")
    assert done.finished_at - done.created_at >= world.hour * 1e6
    assert done.finished_at - done.created_at < (world.hour + world.slack) * 1e6


@everywhere
async def test_a_deadline_without_a_default_fails(world: World) -> None:
    lifetime = await world.start(asking(deadline=world.hour))
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    assert ended.reason == f"ask: DeadlineExceeded: nobody answered within {world.hour:g} s"
    (done,) = await world.executions(lifetime, "ask")
    assert done.status == "TIMED_OUT"


@everywhere
async def test_an_answer_in_time_makes_the_deadline_void(world: World) -> None:
    lifetime = await world.start(asking(deadline=2 * world.hour, default="no"))
    await world.settle(lifetime)
    await world.service.answer(lifetime.lifetime_id, "yes")
    assert await world.result(lifetime) == "yes"
    await world.rest(3)
    assert (await world.events(lifetime))[-1] == "completed"
    assert await world.timers() == []


@everywhere
async def test_the_same_question_in_several_branches_needs_to_be_named(world: World) -> None:
    ask = human("ask", prompt="{input}?")

    @plan
    async def spread() -> list[Next]:
        return [Next("ask", k) for k in range(3)]

    @plan
    async def gathered(plan_input: PlanInput) -> PlanResult:
        return PlanResult("tell", output=plan_input.value)

    @task
    async def tell(value: list[int]) -> list[int]:
        return value

    graph = Graph("asks", "1.0.0").start(spread).parallel(spread, ask).join(ask, gathered)
    lifetime = await world.start(graph.edge(gathered, tell).final(tell))
    await world.asked(3)
    with pytest.raises(UsageError, match="3 open questions"):
        await world.service.answer(lifetime.lifetime_id, 1)
    for question in reversed(await world.service.questions()):
        await world.service.answer(lifetime.lifetime_id, int(question.prompt[:-1]) * 10, exec_id=question.exec_id)
    assert await world.result(lifetime) == [0, 10, 20]


# -- signals and timers -----------------------------------------------------------------------------------------------


def paying(**options: Any) -> Graph:
    """Waits for the signal `paid`."""
    wait = wait_for_signal("paid", name="payment", **options)
    return Graph("paying", "1.0.0").start(wait).final(wait)


@everywhere
async def test_a_signal_wakes_the_task_that_waits_for_it(world: World) -> None:
    lifetime = await world.start(paying())
    assert (await world.settle(lifetime)).status == "WAITING"
    with pytest.raises(UsageError, match="paid"):
        await world.service.signal(lifetime.lifetime_id, "payed", {})
    await world.service.signal(lifetime.lifetime_id, "paid", {"amount": 3}, by="bank")
    assert await world.result(lifetime) == {"amount": 3}


@everywhere
async def test_signals_that_come_early_are_kept_in_order(world: World) -> None:
    gate = Gate()

    @task
    async def prepare() -> None:
        await gate.wait()

    @plan
    async def next_one(plan_input: PlanInput) -> str:
        return "payment" if plan_input.iteration < 2 else END

    wait = wait_for_signal("paid", name="payment")
    graph = Graph("early", "1.0.0").start(prepare).edge(prepare, next_one).edge(next_one, wait)
    lifetime = await world.start(graph.edge(wait, next_one).final(next_one))
    await gate.entered.wait()
    await world.service.signal(lifetime.lifetime_id, "paid", 1)
    await world.service.signal(lifetime.lifetime_id, "paid", 2)
    gate.open.set()
    assert await world.result(lifetime) == 2


@everywhere
async def test_a_signal_that_does_not_come_in_time_fails_or_takes_the_default(world: World) -> None:
    ended = await world.end(await world.start(paying(deadline=world.hour)))
    assert ended.reason == f"payment: DeadlineExceeded: no signal `paid` came within {world.hour:g} s"
    other = Graph("paying", "1.0.1").start(wait := wait_for_signal("paid", deadline=world.hour, default=0)).final(wait)
    assert await world.result(await world.start(other)) == 0


@everywhere
async def test_a_timer_lets_time_pass_and_hands_its_input_on(world: World) -> None:
    nap = sleep("nap", seconds=world.hour)
    lifetime = await world.start(Graph("napping", "1.0.0").start(nap).final(nap), {"a": 1})
    assert await world.result(lifetime) == {"a": 1}
    log = await world.log(lifetime)
    assert world.hour <= seconds_between(log, 0, -1) < world.hour + world.slack
