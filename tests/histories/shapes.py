"""The shapes that are recorded: every edge, every join, every wait, every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.histories.stage import Does, Stage
from tests.orchestrator.driver import graph as drawn
from tickwork import END, Next, PlanResult, RetryableError, TerminalError
from tickwork.model.graph import (
    AgentGraph,
    Child,
    Edge,
    Human,
    Limits,
    Node,
    RetryPolicy,
    Signal,
    TimeLimits,
    Timer,
)
from tickwork.model.records import Event
from tickwork.orchestrator.state import MAX_LOSSES

ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_interval=5, backoff=2, jitter=0.1)


class Story(msgspec.Struct):
    """How the lifetimes of a shape come about, and the graphs that they run."""

    tell: Callable[[Stage], Awaitable[None]]
    graphs: tuple[AgentGraph, ...]


SHAPES: dict[str, Story] = {}


def graph(name: str, *edges: str | Edge, limits: Limits | None = None, **nodes: Node) -> AgentGraph:
    """A graph in the short notation of the core's tests; a Plan that could only end may choose `rest`, too."""
    made = msgspec.structs.replace(drawn(*edges, **nodes), name=name)
    choosing = {edge.source for edge in made.edges if edge.target != END}
    idle = [f"{node.name} -> rest" for node in made.nodes if node.kind == "plan" and node.name not in choosing]
    if idle:
        made = msgspec.structs.replace(drawn(*edges, *idle, "rest -> end", **nodes), name=name)
    return made if limits is None else msgspec.structs.replace(made, limits=limits)


def task(name: str, **settings: Any) -> Node:
    return Node(name=name, kind="task", **{"retry": ONCE, **settings})


def runs(name: str, template: AgentGraph, does: Does | None = None, value: Any = 1, **options: Any) -> None:
    """A shape that only has to be started."""

    async def tell(stage: Stage) -> None:
        await stage.run(template, does, value, **options)

    SHAPES[name] = Story(tell, (template,))


def story(*graphs: AgentGraph) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """A shape in which somebody acts; its name is the function's."""

    def keep(tell: Callable[[Stage], Awaitable[None]]) -> None:
        SHAPES[tell.__name__] = Story(tell, graphs)

    return keep


# -- edges and ends ---------------------------------------------------------------------------------------------------

runs("one_task", graph("one", "start -> a", "a -> end"))
runs(
    "loop",
    graph("loop", "start -> work", "work -> plan_look", "plan_look -> work", "plan_look -> end"),
    {"work": lambda ctx: {"n": ctx.iteration}, "plan_look": lambda ctx: "work" if ctx.iteration < 3 else END},
)
runs(
    "plan_first_with_output_and_reason",
    graph("plan-first", "start -> plan_pick", "plan_pick -> left", "plan_pick -> right", "left -> end", "right -> end"),
    {"plan_pick": PlanResult(Next("right", input={"n": 7}), output="seven", reason="it is odd")},
)
CONDITIONS = graph(
    "conditions", "start -> a", "a -> plan_big | result.n > 10", "a -> plan_odd | result.n % 2 == 1", "a -> plan_rest",
    "plan_big -> end", "plan_odd -> end", "plan_rest -> b", "b -> end",
)  # fmt: skip
for label, number in (("first", 11), ("second", 3), ("default", 4)):
    runs(f"condition_{label}", CONDITIONS, {"a": {"n": number}, "plan_big": END, "plan_odd": END, "plan_rest": "b"})
runs("condition_error", CONDITIONS, {"a": {"m": 1}})
runs(
    "condition_on_everything",
    graph(
        "facts",
        "start -> a",
        "a -> end | telemetry.tokens_used == 12 && telemetry.cost_usd > 0.4 && header.attempt == 1 "
        "&& lifetime.labels.team == 'red' && lifetime.executions == 1",
    ),
    {"a": lambda ctx: ctx.telemetry.record(tokens_used=12, cost_usd="0.5", model="m-1", custom={"depth": 3})},
    labels={"team": "red"},
)
runs(
    "no_condition_holds",
    graph("no-edge", "start -> a", "a -> end | result == 2"),
    {"a": 1},
)
runs("no_final_edge", graph("quiet", "start -> plan", "plan -> a", "a -> end"), {"plan": []})
runs(
    "final_with_open_branches",
    graph("inside", "start -> plan_split", "plan_split => work", "plan_split => slow", "work -> end", "slow -> end"),
    {"plan_split": ["slow", "work", "slow"], "slow": lambda ctx: asyncio.sleep(60)},
)
runs(
    "task_fails",
    graph("fails", "start -> a", "a -> plan", "plan -> a", "plan -> end"),
    {"a": TerminalError("there is nothing to do")},
)
runs(
    "limit_of_visits",
    graph("endless", "start -> a", "a -> plan", "plan -> a", "plan -> end", limits=Limits(visits=3)),
    {"plan": "a"},
)
runs(
    "limit_of_depth",
    graph("deep", "start -> plan", "plan => a", "a -> plan", "plan -> end", limits=Limits(depth=3)),
    {"plan": ["a"]},
)

# -- fan-out and joins ------------------------------------------------------------------------------------------------


def fan(name: str, mode: str) -> AgentGraph:
    return graph(
        name, "start -> plan_split", "plan_split => work", "plan_split => other", f"work >> plan_end | {mode}",
        f"other >> plan_end | {mode}", "plan_end -> close", "close -> end",
    )  # fmt: skip


SPLIT: Does = {"plan_split": ["work", "other", "work"], "plan_end": "close"}
FAILS = TerminalError("no")


def second_fails(ctx: Any) -> Any:
    return FAILS if ctx.branch.endswith(".1") else ctx.branch


runs("join_all", fan("all", "all"), SPLIT)
runs("join_all_with_a_failure", fan("all", "all"), {**SPLIT, "other": second_fails})
runs("join_settled", fan("settled", "settled"), {**SPLIT, "other": second_fails})
runs("join_any", fan("any", "any"), {**SPLIT, "work": lambda ctx: asyncio.sleep(9), "other": "first"})
runs("join_quorum", fan("quorum", "quorum 2"), {**SPLIT, "other": second_fails})
runs("quorum_not_met", fan("quorum", "quorum 2"), {**SPLIT, "work": FAILS})
MIXED = graph(
    "mixed", "start -> plan_split", "plan_split => work", "plan_split => other", "work >> plan_a", "other >> plan_b",
    "plan_a -> end", "plan_b -> end",
)  # fmt: skip
runs("mixed_joins", MIXED, {"plan_split": ["work", "other"]})
runs(
    "fan_out_with_inputs",
    graph("inputs", "start -> plan_split", "plan_split => work", "work >> plan_sum", "plan_sum -> sum", "sum -> end"),
    {"plan_split": [Next("work", input=n) for n in range(12)], "plan_sum": "sum"},
)
ENDERS = graph(
    "enders", "start -> plan_split", "plan_split => work",
    Edge(source="work", target="plan_end", kind="JOIN", condition="result > 1"), "plan_end -> end",
)  # fmt: skip
runs(
    "branches_that_just_end",
    ENDERS,
    {"plan_split": [Next("work", input=n) for n in range(4)], "plan_end": END},
)
runs(
    "all_branches_just_end",
    ENDERS,
    {"plan_split": ["work", "work"], "work": 0},
)
NESTED = graph(
    "nested", "start -> plan_out", "plan_out => open", "open -> plan_in", "plan_in => work", "work >> plan_mid",
    "plan_mid -> shut", "shut >> plan_end", "plan_end -> end",
)  # fmt: skip
NEST: Does = {
    "plan_out": ["open", "open"],
    "plan_in": ["work", "work"],
    "work": lambda ctx: ctx.branch,
    "plan_mid": "shut",
    "plan_end": END,
}
runs("nested_groups", NESTED, NEST)
runs(
    "nested_failure_goes_outwards",
    NESTED,
    {**NEST, "work": lambda ctx: FAILS if ctx.branch.startswith("plan_out:0.1") else 1},
)
REFINE = graph(
    "refine", "start -> plan_split", "plan_split => write", "write -> plan_look", "plan_look -> write",
    "plan_look -> done", "done >> plan_end", "plan_end -> end",
)  # fmt: skip
REFINING: Does = {
    "plan_split": ["write", "write"],
    "write": lambda ctx: f"draft {ctx.iteration} in {ctx.branch}",
    "plan_look": lambda ctx: "done" if ctx.iteration >= int(ctx.branch[-1]) + 1 else "write",
    "plan_end": END,
}
runs("loops_inside_branches", REFINE, REFINING)
runs(
    "several_entries",
    graph("entries", "start -> a", "start -> b", "a >> plan", "b >> plan", "plan -> end"),
    {"plan": END},
)
runs(
    "join_outside_of_any_group",
    graph("lonely-join", "start -> a", "a >> plan", "plan => a", "plan -> b", "b -> end"),
    {"plan": "b"},
)

# -- attempts ---------------------------------------------------------------------------------------------------------

RETRIES = graph("retries", "start -> a", "a -> end", a=task("a", retry=TWICE))
runs("retry_after_a_backoff", RETRIES, {"a": lambda ctx: RetryableError("busy") if ctx.attempt == 1 else 7})
runs("retries_exhausted", RETRIES, {"a": RetryableError("busy", retry_after=9)})
runs(
    "not_retryable_by_policy",
    graph(
        "policy",
        "start -> a",
        "a -> end",
        a=task("a", retry=RetryPolicy(max_attempts=5, non_retryable=("ValueError",))),
    ),
    {"a": ValueError("no")},
)
CHOICE = graph(
    "choice", "start -> plan", "plan -> a", "plan -> b", "a -> end", "b -> end",
    plan=Node(name="plan", kind="plan", retry=RetryPolicy(max_attempts=2, initial_interval=0)),
)  # fmt: skip
runs("illegal_choice_and_a_better_one", CHOICE, {"plan": lambda ctx: ["a", "b"] if ctx.attempt == 1 else "b"})
runs(
    "start_to_close",
    graph("slow", "start -> a", "a -> end", a=task("a", limits=TimeLimits(start_to_close=3))),
    {"a": lambda ctx: asyncio.sleep(60)},
)
runs("at_most_once", graph("pay", "start -> a", "a -> end", a=task("a", effect="at_most_once")))

# -- time and people --------------------------------------------------------------------------------------------------

ASK = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def asking(name: str, **settings: Any) -> AgentGraph:
    return graph(
        name, "start -> ask", "ask -> plan", "plan -> use", "use -> end",
        ask=task("ask", human=Human(prompt="May {input} pass?", **settings)),
    )  # fmt: skip


def listening(name: str, **settings: Any) -> AgentGraph:
    return graph(
        name, "start -> a", "a -> plan", "plan -> wait", "wait -> end",
        wait=task("wait", signal=Signal(name="go", **settings)),
    )  # fmt: skip


USE: Does = {"plan": "use"}
WAIT: Does = {"plan": "wait"}
DEFAULT = asking("default", deadline=60.0, default={"ok": False})
TIMED_OUT = asking("timed-out", deadline=60.0)
ANSWERED = asking("answered", answer_schema=ASK, who=("ann",), deadline=60.0)
SIGNAL, SIGNAL_DEFAULT = listening("signal"), listening("signal-default", deadline=9.0, default="gone")

runs(
    "timer",
    graph("nap", "start -> nap", "nap -> plan", "plan -> a", "a -> end", nap=task("nap", timer=Timer(seconds=90))),
    {"plan": "a"},
    "kept through the night",
)


@story(DEFAULT)
async def human_default(stage: Stage) -> None:
    await stage.end(await stage.start(DEFAULT, USE))


@story(TIMED_OUT)
async def human_timed_out(stage: Stage) -> None:
    await stage.end(await stage.start(TIMED_OUT, USE))


@story(ANSWERED)
async def human_answered(stage: Stage) -> None:
    one = await stage.run(ANSWERED, USE)
    await stage.sleep(9)
    await stage.service.answer(one, {"ok": True}, by="ann")
    await stage.end(one)


@story(ANSWERED)
async def human_still_waits(stage: Stage) -> None:
    await stage.run(ANSWERED, USE)


@story(SIGNAL)
async def signal_buffered(stage: Stage) -> None:
    one = await stage.start(SIGNAL, {**WAIT, "a": lambda ctx: stage.held()})
    await stage.sleep(1)
    await stage.service.signal(one, "go", {"n": 1}, by="ann")
    await stage.service.signal(one, "go", {"n": 2})
    stage.gate.set()
    await stage.end(one)


@story(SIGNAL)
async def signal_waited_for(stage: Stage) -> None:
    one = await stage.run(SIGNAL, WAIT)
    await stage.service.signal(one, "go", {"n": 1}, by="ann")
    await stage.end(one)


@story(SIGNAL_DEFAULT)
async def signal_default(stage: Stage) -> None:
    await stage.end(await stage.start(SIGNAL_DEFAULT, WAIT))


# -- children ---------------------------------------------------------------------------------------------------------

BELOW = graph("below", "start -> work", "work -> end")
ABOVE = graph(
    "above", "start -> run", "run -> plan", "plan -> a", "a -> end", run=task("run", child=Child(name="below"))
)


@story(ABOVE, BELOW)
async def child(stage: Stage) -> None:
    await stage.bind(BELOW, {"work": "from below"})
    await stage.end(await stage.start(ABOVE, {"plan": "a"}))


@story(ABOVE, BELOW)
async def child_fails(stage: Stage) -> None:
    await stage.bind(BELOW, {"work": FAILS})
    await stage.end(await stage.start(ABOVE))


@story(ABOVE)
async def child_unknown(stage: Stage) -> None:
    await stage.end(await stage.start(ABOVE))


@story(ABOVE, BELOW)
async def child_aborted_with_its_parent(stage: Stage) -> None:
    await stage.bind(BELOW, {"work": lambda ctx: stage.held()})
    one = await stage.start(ABOVE)
    await stage.sleep(1)
    await stage.service.abort(one, reason="too dear", by="ann")
    await stage.end(one)
    await stage.sleep(1)


# -- steering ---------------------------------------------------------------------------------------------------------

LINE = graph("line", "start -> a", "a -> plan", "plan -> b", "b -> end")


@story(LINE)
async def paused_and_resumed(stage: Stage) -> None:
    one = await stage.start(LINE, {"plan": "b", "a": lambda ctx: stage.held()})
    await stage.sleep(1)
    await stage.service.pause(one, reason="lunch", by="ann")
    stage.gate.set()
    await stage.settle(one)
    await stage.sleep(3600)
    await stage.service.resume(one, by="bob")
    await stage.end(one)


@story(LINE)
async def aborted_with_work_in_flight(stage: Stage) -> None:
    one = await stage.start(LINE, {"a": lambda ctx: stage.held()})
    await stage.sleep(1)
    await stage.service.abort(one, reason="enough")
    await stage.end(one)


@story(ANSWERED)
async def aborted_while_it_waits(stage: Stage) -> None:
    one = await stage.run(ANSWERED, USE)
    await stage.service.abort(one, by="ann")
    await stage.end(one)


# -- workers that are lost --------------------------------------------------------------------------------------------

FRAIL = graph("frail", "start -> a", "a -> end")
PAY = graph("pay", "start -> a", "a -> end", a=task("a", effect="at_most_once"))


@story(FRAIL)
async def worker_lost_and_its_late_result(stage: Stage) -> None:
    one = await stage.start(FRAIL, {"a": lambda ctx: stage.held() if ctx.attempt == 1 else "second"})
    await stage.lose(one, "a", 1)
    stage.gate.set()
    await stage.end(one)
    await stage.sleep(1)


@story(FRAIL)
async def poison(stage: Stage) -> None:
    one = await stage.start(FRAIL, {"a": lambda ctx: stage.held() if ctx.attempt <= MAX_LOSSES else "mended"})
    for attempt in range(1, MAX_LOSSES + 1):
        await stage.lose(one, "a", attempt)
    await stage.settle(one)
    await stage.service.reconcile(one, retry=True, by="ann")
    await stage.end(one)


async def unknown(stage: Stage, does: Does) -> str:
    one = await stage.start(PAY, {"a": lambda ctx: stage.held() if ctx.attempt == 1 else "second", **does})
    await stage.sleep(1)
    exec_id = (await stage.log(one))[1].entry.entry_id.removeprefix("intent:")
    data = {"exec_id": exec_id, "reason": "its worker was not heard of for 30 s"}
    await stage.record(one, Event(f"unknown:{exec_id}", "unknown", data))
    await stage.sleep(1)
    return one


@story(PAY)
async def unknown_and_its_hook_knows(stage: Stage) -> None:
    await stage.end(await unknown(stage, {"reconcile a": lambda ctx: "it was paid"}))


@story(PAY)
async def unknown_and_a_person_knows(stage: Stage) -> None:
    one = await unknown(stage, {})
    await stage.settle(one)
    await stage.service.reconcile(one, result="it was paid", by="ann")
    await stage.end(one)


@story(PAY)
async def unknown_and_done_again(stage: Stage) -> None:
    one = await unknown(stage, {})
    await stage.service.reconcile(one, retry=True, by="ann")
    await stage.end(one)
    stage.gate.set()
    await stage.sleep(1)


# -- forks ------------------------------------------------------------------------------------------------------------


@story(NESTED)
async def fork_inside_a_group(stage: Stage) -> None:
    one = await stage.run(NESTED, NEST)
    await stage.sleep(60)
    await stage.end((await stage.history.fork(one, await stage.executed(one, "work", 1), by="ann")).lifetime_id)


@story(REFINE)
async def fork_inside_a_loop_with_another_result(stage: Stage) -> None:
    one = await stage.run(REFINE, REFINING)
    at = await stage.executed(one, "plan_look", 1)
    fork = await stage.history.fork(one, at, result={"next": "done", "reason": "good enough"})
    await stage.end(fork.lifetime_id)


@story(ANSWERED)
async def fork_of_a_fork_that_waits(stage: Stage) -> None:
    template = ANSWERED
    one = await stage.run(template, USE)
    await stage.service.answer(one, {"ok": True}, by="ann")
    await stage.end(one)
    await stage.sleep(5)
    fork = await stage.history.fork(one, "ask", result={"ok": False}, labels={"try": "2"})
    await stage.end(fork.lifetime_id)
    second = await stage.history.fork(fork.lifetime_id, "plan")
    await stage.end(second.lifetime_id)


@story(RETRIES)
async def fork_while_a_retry_waits(stage: Stage) -> None:
    one = await stage.start(RETRIES, {"a": lambda ctx: RetryableError("busy") if ctx.attempt == 1 else 7})
    await stage.sleep(2)
    await stage.service.pause(one, reason="wait")
    fork = await stage.history.fork(one, "a")
    await stage.end(fork.lifetime_id)
