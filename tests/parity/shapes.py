"""What is run on every profile: the recorded shapes that need no time, and shapes with short waits and large payloads.

Each comes to the same end whatever the messages' order: what races there is nothing to compare.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.histories.guarded_shapes import GUARDED
from tests.histories.shapes import ASK, SHAPES, USE, Story, asking, graph, listening, task
from tests.histories.stage import Does, Stage
from tickwork import END, Next, RetryableError, TerminalError
from tickwork.model.graph import RetryPolicy, Timer

RECORDED = (
    # before a story registers the graph that is unknown here
    "child_unknown",
    # cycles and choices
    "one_task", "loop", "plan_first_with_output_and_reason", "condition_first", "condition_second",
    "condition_default", "condition_error", "condition_on_everything", "no_condition_holds", "no_final_edge",
    "task_fails", "limit_of_visits", "limit_of_depth", "several_entries", "join_outside_of_any_group",
    # fan-out, every join, groups inside groups, FINAL with open branches
    "join_any", "join_settled", "final_with_open_branches", "mixed_joins", "fan_out_with_inputs",
    "branches_that_just_end", "all_branches_just_end", "nested_groups", "loops_inside_branches",
    # attempts, people, signals, children, an end from outside
    "not_retryable_by_policy", "illegal_choice_and_a_better_one", "at_most_once", "human_still_waits",
    "signal_waited_for", "child", "child_fails", "aborted_while_it_waits",
)  # fmt: skip
"""The recorded shapes (tests/histories) that are told here, too."""

GUARDS = (
    "policy_warns_at_a_record", "policy_rejects_at_a_record", "policy_pauses_at_a_record",
    "policy_aborts_at_a_record", "policy_warns_at_a_dispatch", "policy_rejects_at_a_dispatch",
    "policy_pauses_at_a_dispatch", "policy_aborts_at_a_dispatch", "policy_in_shadow",
    "policy_that_cannot_be_evaluated",
)  # fmt: skip

STORIES: dict[str, Story] = {name: SHAPES[name] for name in RECORDED} | {name: GUARDED[name] for name in GUARDS}

LARGE = "x" * 1_500_000
"""Over 1 MiB as JSON: it goes to the blob store."""


def runs(name: str, *edges: str, does: Does, value: Any = 1, **nodes: Any) -> None:
    """A shape that only has to be started."""
    template = graph(f"parity-{name.replace('_', '-')}", *edges, **nodes)

    async def tell(stage: Stage) -> None:
        await stage.run(template, does, value)

    STORIES[name] = Story(tell, (template,))


async def late(ctx: Any) -> Any:
    """The other branches are through by then: an end that does not depend on who is quicker."""
    await asyncio.sleep(0.2)
    return TerminalError("no") if ctx.branch.endswith(".1") else ctx.branch


def split(mode: str) -> tuple[str, ...]:
    return (
        "start -> plan_split", "plan_split => work", "plan_split => other", f"work >> plan_end | {mode}",
        f"other >> plan_end | {mode}", "plan_end -> close", "close -> end",
    )  # fmt: skip


SPLIT: Does = {"plan_split": ["work", "other", "work"], "plan_end": "close", "work": lambda ctx: ctx.branch}
runs("all_arrive", *split("all"), does={**SPLIT, "other": late, "work": 7})
runs("one_fails_and_all_were_wanted", *split("all"), does={**SPLIT, "other": late})
runs("a_quorum_without_the_last", *split("quorum 2"), does={**SPLIT, "other": lambda ctx: asyncio.sleep(60)})
runs("a_failure_is_handed_over", *split("settled"), does={**SPLIT, "other": late})
runs(
    "fifty_branches",
    "start -> plan_split", "plan_split => work", "work >> plan_sum", "plan_sum -> sum", "sum -> end",
    does={"plan_split": [Next("work", input=n) for n in range(50)], "plan_sum": "sum"},
)  # fmt: skip
QUICK = RetryPolicy(max_attempts=3, initial_interval=0.05, backoff=2)
runs(
    "retries", "start -> a", "a -> end", does={"a": lambda ctx: RetryableError("busy") if ctx.attempt < 3 else 7},
    a=task("a", retry=QUICK),
)  # fmt: skip
runs("retries_exhausted", "start -> a", "a -> end", does={"a": RetryableError("busy")}, a=task("a", retry=QUICK))
runs("timer", "start -> nap", "nap -> plan", "plan -> a", "a -> end", does={"plan": "a"}, value="kept",
     nap=task("nap", timer=Timer(seconds=0.2)))  # fmt: skip
runs(
    "large_payloads",
    "start -> make", "make -> plan_big | size(result.text) > 1000", "make -> plan_small", "plan_big => use",
    "plan_small -> use", "use >> plan_end", "plan_end -> end",
    does={
        "make": {"text": LARGE},
        "plan_big": [Next("use", input={"text": LARGE, "part": n}) for n in range(2)],
        "use": lambda ctx: {"text": LARGE, "in": ctx.branch},
        "plan_end": END,
    },
    value={"given": LARGE},
)  # fmt: skip

DEFAULT = asking("parity-default", deadline=0.3, default={"ok": False})
LATE = asking("parity-late", deadline=0.3)
ANSWERED = asking("parity-answered", answer_schema=ASK, who=("ann",), deadline=600.0)
SIGNAL = listening("parity-signal", deadline=0.3, default="gone")


def waits(name: str, template: Any, does: Does) -> None:
    """A shape that ends by its deadline."""

    async def tell(stage: Stage) -> None:
        await stage.end(await stage.start(template, does))

    STORIES[name] = Story(tell, (template,))


waits("default_answer", DEFAULT, USE)
waits("nobody_answers", LATE, USE)
waits("no_signal_comes", SIGNAL, {"plan": "use", "a": 1})


async def answered(stage: Stage) -> None:
    one = await stage.run(ANSWERED, USE)
    await stage.service.answer(one, {"ok": True}, by="ann")
    await stage.end(one)


async def paused(stage: Stage) -> None:
    one = await stage.run(ANSWERED, USE)
    await stage.service.pause(one, reason="lunch", by="ann")
    await stage.settle(one)


STORIES["answered"] = Story(answered, (ANSWERED,))
STORIES["paused"] = Story(paused, (ANSWERED,))
