"""A call that may be made once only, and whose process goes while it is made: nobody makes it again unasked.

Processes that are killed while they make such calls are in test_at_most_once.py, with a home, and in test_fleet.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.acceptance.world import Gate, World, everywhere
from tickwork import Graph, RetryableError, task
from tickwork.model.lifetime import Lifetime


class Shop:
    """A graph that pays; `hook` finds out what became of a payment."""

    def __init__(self, hook: Callable[[], Any] | None = None) -> None:
        self.gate, self.hook = Gate(), hook
        self.calls: list[tuple[str, int, str]] = []
        """Of user code: what, in which attempt, under which idempotency key."""

    def graph(self) -> Graph:
        @task(effect="at_most_once")
        async def pay(order: int, ctx: Any) -> dict[str, int]:
            self.calls.append(("pay", ctx.attempt, ctx.idempotency_key))
            await self.gate.wait()
            return {"paid": order}

        hook = self.hook
        if hook is not None:

            @pay.reconcile
            async def look(order: int, ctx: Any) -> Any:
                self.calls.append(("look", ctx.attempt, ctx.idempotency_key))
                return hook()

        return Graph("paying", "1.0.0").start(pay).final(pay)

    @property
    def called(self) -> list[str]:
        return [what for what, *_ in self.calls]

    async def lose(self, world: World) -> Lifetime:
        """Starts a lifetime; all processes go while it pays, and those that come have the graph, too."""
        lifetime = await world.start(self.graph(), 7)
        await self.gate.entered.wait()
        await world.restart()
        self.gate.open.set()
        await world.bind(self.graph())
        return lifetime


async def unknown(world: World, lifetime: Lifetime) -> str:
    """The execution that somebody has to say something about."""
    settled = await world.settle(lifetime)
    assert settled.status == "WAITING"
    (question,) = await world.service.questions(on=("unknown",))
    assert (question.node, question.lifetime_id) == ("pay", lifetime.lifetime_id)
    return question.exec_id


@everywhere
async def test_it_waits_for_a_person_who_knows_the_result(world: World) -> None:
    shop = Shop()
    lifetime = await shop.lose(world)
    exec_id = await unknown(world, lifetime)
    await world.service.resume(lifetime.lifetime_id)
    assert await unknown(world, lifetime) == exec_id
    await world.service.reconcile(lifetime.lifetime_id, result={"paid": 7}, by="ada")
    assert await world.result(lifetime) == {"paid": 7}
    assert shop.called == ["pay"]
    assert await world.events(lifetime) == ["started", "intent", "unknown", "reconciled", "waiting", "completed"]


@everywhere
async def test_a_person_says_that_it_is_to_be_run_again(world: World) -> None:
    shop = Shop()
    lifetime = await shop.lose(world)
    await unknown(world, lifetime)
    await world.service.reconcile(lifetime.lifetime_id, retry=True)
    assert await world.result(lifetime) == {"paid": 7}
    assert [call[:2] for call in shop.calls] == [("pay", 1), ("pay", 2)]


@everywhere
async def test_a_hook_that_knows_the_result_completes_it(world: World) -> None:
    shop = Shop(lambda: {"paid": "by the hook"})
    lifetime = await shop.lose(world)
    assert await world.result(lifetime) == {"paid": "by the hook"}
    assert shop.called == ["pay", "look"]
    assert len({key for *_, key in shop.calls}) == 1


@everywhere
async def test_a_hook_that_says_it_did_not_happen_has_it_run_again(world: World) -> None:
    def nothing() -> None:
        raise RetryableError("the bank knows nothing of it")

    shop = Shop(nothing)
    lifetime = await shop.lose(world)
    assert await world.result(lifetime) == {"paid": 7}
    assert [call[:2] for call in shop.calls] == [("pay", 1), ("look", 1), ("pay", 2)]
    assert len({key for *_, key in shop.calls}) == 1


@everywhere
async def test_a_hook_that_breaks_leaves_it_to_a_person(world: World) -> None:
    def two() -> None:
        raise LookupError("two transfers")

    shop = Shop(two)
    lifetime = await shop.lose(world)
    await unknown(world, lifetime)
    await world.service.reconcile(lifetime.lifetime_id, failed="the bank refused", by="ada")
    ended = await world.end(lifetime)
    assert ended.status == "FAILED"
    assert ended.reason is not None
    assert "the bank refused" in ended.reason
    assert shop.called == ["pay", "look"]
