"""The shapes under policies: every action at its places, and what becomes of a lifetime that was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.histories.shapes import ABOVE, BELOW, TWICE, Story, graph, task
from tests.histories.stage import Does, Stage
from tickwork import Next
from tickwork.formats.policies import read_policies
from tickwork.model.graph import AgentGraph, Human, Maximum, RetryPolicy
from tickwork.model.policy import PolicyDocument

GUARDED: dict[str, Story] = {}


def laws(*lines: str) -> PolicyDocument:
    """A document of policies."""
    return read_policies("version: 1\npolicies:\n" + "".join(f"  - {line}\n" for line in lines))


def runs(name: str, template: AgentGraph, does: Does, *lines: str) -> None:
    """A shape that only has to be started, with policies of its own."""

    async def tell(stage: Stage) -> None:
        await stage.run(template, does, policies=laws(*lines))

    GUARDED[name] = Story(tell, (template,))


def story(*graphs: AgentGraph) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """A shape in which somebody acts; its name is the function's."""

    def keep(tell: Callable[[Stage], Awaitable[None]]) -> None:
        GUARDED[tell.__name__] = Story(tell, graphs)

    return keep


# -- every action at a record and at a dispatch ------------------------------------------------------------------------


def turning(name: str, **settings: Any) -> AgentGraph:
    return graph(
        name, "start -> plan_again", "plan_again -> work", "work -> plan_again", "plan_again -> end",
        work=task("work", **{"maximum": Maximum(tokens=100), **settings}),
    )  # fmt: skip


def spends(ctx: Any) -> Any:
    ctx.telemetry.record(tokens_used=100, cost_usd="0.01", model="m-1", pages=2)
    return {"turn": ctx.iteration, "attempt": ctx.attempt}


TURNS = turning("turns")
SPENDS: Does = {"work": spends, "plan_again": lambda ctx: "work" if ctx.iteration < 4 else "end"}
ODD = "name: odd, scope: execution, match: {name: work}, when: result.turn == 1"
CAP = "name: cap, match: {name: work}, when: count() > 2"
BUDGET = "name: budget, match: {name: work}, when: sum(tokens_used) > 250"

for word, action in (
    ("warns", "warn"),
    ("rejects", "reject_execution"),
    ("pauses", "pause_lifetime"),
    ("aborts", "abort_lifetime"),
):
    runs(f"policy_{word}_at_a_record", TURNS, SPENDS, f"{{{ODD}, action: {action}}}")
    runs(f"policy_{word}_at_a_dispatch", TURNS, SPENDS, f"{{{CAP}, action: {action}}}")

runs("policy_in_shadow", TURNS, SPENDS, f"{{{ODD}, action: abort_lifetime, shadow: true}}")
runs(
    "policy_of_everything",
    TURNS,
    SPENDS,
    "{name: a, when: avg(cost_usd) > 0.009, action: warn}",
    "{name: b, when: max(custom.pages) >= 2 && min(tokens_used) < 200, action: warn}",
    "{name: c, when: iterations('work') > 3, action: warn, match: {kind: task, model: [m-*]}}",
    "{name: d, when: \"lifetime.executions > 3 && telemetry.model == 'm-1'\", action: warn, match: {name: work}}",
)
runs(
    "policy_that_cannot_be_evaluated",
    TURNS,
    SPENDS,
    "{name: odd, scope: execution, match: {name: work}, when: result.nothing == 1, action: warn}",
)
runs(
    "policies_of_which_the_strictest_is_done",
    TURNS,
    SPENDS,
    f"{{{BUDGET}, action: warn}}",
    "{name: stop, match: {name: work}, when: sum(tokens_used) > 260, action: abort_lifetime}",
    "{name: wait, match: {name: work}, when: sum(tokens_used) > 270, action: pause_lifetime}",
)
runs(
    "policy_rejects_and_it_is_tried_again",
    turning("tried-again", retry=TWICE),
    SPENDS,
    "{name: first, scope: execution, match: {name: work}, when: result.attempt == 1, action: reject_execution}",
)
runs(
    "budget_that_only_a_record_uses_up",
    turning("undeclared", maximum=Maximum()),
    SPENDS,
    f"{{{BUDGET}, action: pause_lifetime}}",
)


def fan(mode: str, size: int, **settings: Any) -> tuple[AgentGraph, Does]:
    made = graph(
        f"fan-{size}", "start -> plan_split", "plan_split => work", f"work >> plan_end | {mode}", "plan_end -> close",
        "close -> end", work=task("work", **{"maximum": Maximum(tokens=100), **settings}),
    )  # fmt: skip
    choices = [Next("work", input=number) for number in range(size)]
    return made, {"plan_split": choices, "plan_end": "close", "work": spends, "close": 1}


MANY, MANY_DO = fan("all", 5)
FREE, FREE_DO = fan("settled", 4, maximum=Maximum())
FEW, FEW_DO = fan("any", 3)


async def slowly(ctx: Any) -> Any:
    await asyncio.sleep(60 * (1 + int(ctx.branch.rpartition(".")[2])))
    return spends(ctx)


runs(
    "policy_aborts_with_work_in_flight",
    FREE,
    {**FREE_DO, "work": slowly},
    "{name: stop, when: sum(tokens_used) > 150, action: abort_lifetime}",
)
runs(
    "policy_aborts_in_the_middle_of_a_fan_out",
    MANY,
    MANY_DO,
    "{name: stop, when: count() > 3, action: abort_lifetime}",
)

# -- what goes on ------------------------------------------------------------------------------------------------------


@story(TURNS)
async def held_record_and_its_resume(stage: Stage) -> None:
    one = await stage.run(TURNS, SPENDS, policies=laws(f"{{{ODD}, action: pause_lifetime}}"))
    await stage.sleep(9)
    await stage.service.resume(one, by="ann")
    await stage.end(one)


@story(TURNS)
async def limit_raised_several_times(stage: Stage) -> None:
    one = await stage.run(TURNS, SPENDS, policies=laws(f"{{{BUDGET}, action: pause_lifetime}}"))
    await stage.service.resume(one)
    await stage.settle(one)
    for number in ("300", "1 000"):
        await stage.service.resume(one, by="ann", raised={"budget": number})
        await stage.settle(one)


@story(MANY)
async def branches_share_a_budget(stage: Stage) -> None:
    one = await stage.run(MANY, MANY_DO, policies=laws(f"{{{BUDGET}, action: pause_lifetime}}"))
    await stage.service.resume(one, raised={"budget": "400"})
    await stage.settle(one)
    await stage.service.resume(one, raised={"budget": "900"})
    await stage.end(one)


@story(FEW)
async def branches_are_held_and_one_is_enough(stage: Stage) -> None:
    law = laws("{name: look, scope: execution, match: {name: work}, when: header.attempt > 0, action: pause_lifetime}")
    one = await stage.run(FEW, FEW_DO, policies=law)
    await stage.service.resume(one)
    await stage.end(one)


@story(TURNS)
async def aborted_while_a_record_is_held(stage: Stage) -> None:
    one = await stage.run(TURNS, SPENDS, policies=laws(f"{{{ODD}, action: pause_lifetime}}"))
    await stage.service.abort(one, reason="enough", by="ann")
    await stage.end(one)


ASKS = graph(
    "asks", "start -> ask", "ask -> plan", "plan -> use", "use -> end", ask=task("ask", human=Human(prompt="Well?"))
)


@story(ASKS)
async def time_is_up(stage: Stage) -> None:
    law = laws("{name: late, when: elapsed() > 3600, action: pause_lifetime}")
    one = await stage.run(ASKS, {"plan": "use"}, policies=law)
    await stage.sleep(4_000)
    await stage.service.resume(one, raised={"late": "7200"})
    await stage.sleep(4_000)
    await stage.service.resume(one, raised={"late": "100000"})
    await stage.service.answer(one, "yes")
    await stage.end(one)


LATE = graph("late", "start -> a", "a -> plan", "plan -> b", "b -> end")


@story(LATE)
async def superseded_result_that_counts(stage: Stage) -> None:
    async def first(ctx: Any) -> Any:
        if ctx.attempt == 1:
            await stage.held()
        return spends(ctx)

    async def second(ctx: Any) -> Any:
        await stage.held()
        await asyncio.sleep(9)
        return spends(ctx)

    law = laws("{name: budget, when: sum(tokens_used) > 250, action: pause_lifetime}")
    one = await stage.start(LATE, {"a": first, "plan": "b", "b": second}, policies=law)
    await stage.lose(one, "a", 1)
    await stage.sleep(1)
    stage.gate.set()
    await stage.settle(one)


# -- sets that come and go ---------------------------------------------------------------------------------------------


@story(TURNS)
async def policies_loaded_in_mid_life(stage: Stage) -> None:
    async def work(ctx: Any) -> Any:
        if ctx.iteration == 1:
            await stage.held()
        return spends(ctx)

    one = await stage.start(TURNS, {**SPENDS, "work": work})
    await stage.sleep(1)
    await stage.load(laws(f"{{{BUDGET}, action: pause_lifetime}}"))
    stage.gate.set()
    await stage.settle(one)


@story(TURNS)
async def policies_changed_and_removed_while_paused(stage: Stage) -> None:
    first = laws(f"{{{BUDGET}, action: pause_lifetime}}")
    await stage.load(first)
    one = await stage.run(TURNS, SPENDS)
    other = laws("{name: budget, match: {name: work}, when: sum(tokens_used) > 350, action: pause_lifetime}")
    for law in (other, first, PolicyDocument(policies=())):
        await stage.load(law)
        await stage.service.resume(one)
        await stage.settle(one)


# -- tenants, children, forks ------------------------------------------------------------------------------------------

DAILY = "name: daily, scope: tenant, window: 24h, match: {name: work}, when: sum(tokens_used) > 250"

for word, action in (("pauses", "pause_lifetime"), ("rejects", "reject_execution"), ("aborts", "abort_lifetime")):

    async def refused(stage: Stage, action: str = action) -> None:
        wary = "{name: wary, scope: tenant, match: {name: work}, when: count() > 1, action: warn}"
        await stage.load(laws(f"{{{DAILY}, action: {action}}}", wary))
        one = await stage.run(TURNS, SPENDS)
        if action == "pause_lifetime":
            await stage.service.resume(one, raised={"daily": "9000"})
            await stage.end(one)

    GUARDED[f"tenant_policy_{word}"] = Story(refused, (TURNS,))


@story(ABOVE, BELOW)
async def child_under_its_parents_policies(stage: Stage) -> None:
    await stage.bind(BELOW, {"work": spends})
    law = laws("{name: budget, when: sum(tokens_used) > 50, action: pause_lifetime}")
    one = await stage.run(ABOVE, {"plan": "a"}, policies=law)
    for lifetime, _, _ in await stage.recorded():
        if lifetime.status == "PAUSED":
            await stage.service.resume(lifetime.lifetime_id, raised={"budget": "5000"})
    await stage.settle(one)


@story(TURNS)
async def fork_of_a_lifetime_that_a_policy_paused(stage: Stage) -> None:
    one = await stage.run(TURNS, SPENDS, policies=laws(f"{{{ODD}, action: pause_lifetime}}"))
    fork = await stage.history.fork(one, await stage.executed(one, "work", 1))
    await stage.settle(fork.lifetime_id)
    await stage.service.resume(fork.lifetime_id)
    await stage.end(fork.lifetime_id)


QUICK = graph(
    "quick", "start -> a", "a -> end", a=task("a", retry=RetryPolicy(max_attempts=3, initial_interval=0))
)  # fmt: skip


@story(QUICK)
async def fork_of_a_lifetime_whose_budget_is_used_up(stage: Stage) -> None:
    law = laws("{name: cap, when: count() > 2, action: pause_lifetime}")
    fails: Does = {"a": ValueError("no")}
    one = await stage.run(QUICK, fails, policies=law)
    await stage.service.resume(one, raised={"cap": "9"})
    await stage.end(one)
    fork = await stage.history.fork(one, await stage.executed(one, "a", 1))
    await stage.settle(fork.lifetime_id)
