"""The eight shapes of lifetimes that are hit, and the ledger that their code writes.

Every call of user code is one line of the ledger, synced before anything else happens: an account of what was done
that owes nothing to the engine. What a shape has to look like in the end stands beside it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.acceptance.crash_points import BLOB_LIMIT, points
from tickwork import (
    END,
    Graph,
    Next,
    PlanInput,
    PlanResult,
    RetryableError,
    RetryPolicy,
    Task,
    TaskInput,
    child,
    human,
    plan,
    sleep,
    task,
    wait_for_signal,
)
from tickwork.sdk import nodes

AT_MOST_ONCE: Literal["at_most_once"] = "at_most_once"

PAUSE = 0.004
"""Seconds that user code takes, more or less, when its life is not to be stopped."""

LOOPS, BRANCHES, OUTER, INNER, SEARCHES = 4, 4, 2, 2, 3
FLAKY_FAILURES = 2

ANSWER, SIGNAL = "yes", "go"
"""What the person answers and the signal's payload."""


class Call(msgspec.Struct, array_like=True):
    """One line of the ledger."""

    exec_id: str
    lifetime_id: str
    node: str
    branch: str
    iteration: int
    attempt: int
    parents: list[str]
    effect: str


class Ledger:
    """Where this process writes its calls."""

    def __init__(self) -> None:
        self._path, self._file = Path(), -1

    def open(self, path: Path) -> None:
        """Opens it in this process."""
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def happened(self, exec_id: str) -> bool:
        """Whether this call was made, in whichever life: how a hook or a person finds out."""
        calls = (msgspec.json.decode(line, type=Call) for line in self._path.read_bytes().splitlines())
        return any(call.exec_id == exec_id for call in calls)

    def called(self, given: TaskInput, effect: str) -> None:
        """Writes the call down; when this returns, it is on disk. Then user code has really begun."""
        message = given._message
        parents = [each.exec_id for each in given.executions]
        call = Call(
            message.exec_id, message.lifetime_id, message.node, message.branch, message.iteration, message.attempt,
            parents, effect,
        )  # fmt: skip
        os.write(self._file, msgspec.json.encode(call) + b"\n")
        os.fsync(self._file)
        points.reach("E4")


class Pace:
    """How long user code takes: each call another while, so that lifetimes do not go in step."""

    def __init__(self) -> None:
        self.seconds = PAUSE

    def of(self, given: TaskInput) -> float:
        """Seconds of this call, from 0.5 to 1.5 times the pace."""
        return self.seconds * (0.5 + int(given._message.exec_id[:4], 16) / 0x10000)


ledger = Ledger()
pace = Pace()
QUICK = RetryPolicy(max_attempts=5, initial_interval=0.01, backoff=1.0)


def number(value: Any) -> int:
    """The number that is passed on, alone or with its ballast."""
    return int(value["n"] if isinstance(value, dict) else value)


def ballast(given: TaskInput, n: int) -> dict[str, Any]:
    """A result that is large enough for the blob store, another one for each execution."""
    return {"n": n, "ballast": given._message.exec_id * (BLOB_LIMIT // 20)}


def adding(name: str, *, large: bool = False) -> Task:
    """A Task that adds one."""

    async def add(task_input: TaskInput) -> Any:
        ledger.called(task_input, "idempotent")
        await asyncio.sleep(pace.of(task_input))
        n = number(task_input.value) + 1
        return ballast(task_input, n) if large else n

    return task(name=name, retry=QUICK)(add)


def adding_once(name: str, *, hook: bool) -> Task:
    """A Task that adds one and may do so only once. Its hook, or a person, finds in the ledger whether it did."""

    async def add(task_input: TaskInput) -> int:
        ledger.called(task_input, AT_MOST_ONCE)
        await asyncio.sleep(pace.of(task_input))
        return number(task_input.value) + 1

    async def look(task_input: TaskInput) -> int:
        if not ledger.happened(task_input._message.exec_id):
            raise RetryableError("it was not called")
        return number(task_input.value) + 1

    return task(name=name, retry=QUICK, effect=AT_MOST_ONCE, reconcile=look if hook else None)(add)


def adding_in_a_thread(name: str) -> Task:
    """The same as sync code."""

    def add(task_input: TaskInput) -> int:
        ledger.called(task_input, "idempotent")
        time.sleep(pace.of(task_input))
        return number(task_input.value) + 1

    return task(name=name, retry=QUICK)(add)


def choosing(name: str, choose: Callable[[Any], Any]) -> nodes.Plan:
    """A Plan that chooses by its input."""

    async def chosen(plan_input: PlanInput) -> Any:
        ledger.called(plan_input, "idempotent")
        return choose(plan_input.value)

    return plan(name=name, retry=QUICK)(chosen)


def to(target: str) -> nodes.Plan:
    """A Plan that has one way."""
    return choosing(f"to_{target}", lambda _: target)


def chain(graph: Graph, *tasks: Task) -> Graph:
    """Tasks one after the other, a Plan between each two; the last one ends the lifetime."""
    graph.start(tasks[0])
    for before, after in itertools.pairwise(tasks):
        between = to(after.name)
        graph.edge(before, between).edge(between, after)
    return graph.final(tasks[-1])


def line() -> Graph:
    """A large result, a thread, an effect that may happen once."""
    once = adding_once("once", hook=False)
    return chain(Graph("line", "1.0.0"), adding("large", large=True), adding_in_a_thread("thread"), once)


def loop() -> Graph:
    """A Plan and a Task in turns."""
    work = adding("work", large=True)
    decide = choosing("decide", lambda v: "work" if number(v) < LOOPS else PlanResult(END, output=number(v)))
    return Graph("loop", "1.0.0").start(decide).edge(decide, work).edge(work, decide).final(decide)


def parallel() -> Graph:
    """A fan-out and its join."""
    work, total = adding("work", large=True), adding_once("total", hook=True)
    spread = choosing("spread", lambda _: [Next("work", k) for k in range(BRANCHES)])
    gather = choosing("gather", lambda values: PlanResult("total", output=sum(map(number, values))))
    graph = Graph("parallel", "1.0.0").start(spread).parallel(spread, work).join(work, gather)
    return graph.edge(gather, total).final(total)


def nested() -> Graph:
    """A fan-out inside each branch of a fan-out."""
    split, leaf, part, total = adding("split"), adding("leaf", large=True), adding("part"), adding("total")
    outer = choosing("outer", lambda _: [Next("split", k) for k in range(OUTER)])
    inner = choosing("inner", lambda v: [Next("leaf", number(v) + k) for k in range(INNER)])
    gather_inner = choosing("gather_inner", lambda values: PlanResult("part", output=sum(map(number, values))))
    gather_outer = choosing("gather_outer", lambda values: PlanResult("total", output=sum(map(number, values))))
    graph = Graph("nested", "1.0.0").start(outer).parallel(outer, split).edge(split, inner).parallel(inner, leaf)
    graph.join(leaf, gather_inner).edge(gather_inner, part).join(part, gather_outer)
    return graph.edge(gather_outer, total).final(total)


def wait() -> Graph:
    """A person, a signal, a durable timer."""
    ask, go, nap = human("ask", prompt="?"), wait_for_signal(SIGNAL), sleep("nap", seconds=0.02)
    last = task(name="last", retry=QUICK)(_last)
    return chain(Graph("wait", "1.0.0"), adding("large", large=True), ask, go, nap, last)


async def _last(task_input: TaskInput) -> Any:
    ledger.called(task_input, "idempotent")
    return [task_input.value]


def retry() -> Graph:
    """Two Tasks that fail before they succeed."""

    async def fail_first(task_input: TaskInput) -> Any:
        ledger.called(task_input, "idempotent")
        await asyncio.sleep(pace.of(task_input))
        if task_input.attempt <= FLAKY_FAILURES:
            raise RetryableError(f"attempt {task_input.attempt} is to fail")
        return ballast(task_input, number(task_input.value) + 1)

    policy = RetryPolicy(max_attempts=6, initial_interval=0.01, backoff=1.0)
    one, two = (task(name=name, retry=policy)(fail_first) for name in ("one", "two"))
    return chain(Graph("retry", "1.0.0"), one, two, adding("last"))


def small() -> Graph:
    """What the parent has its child do."""
    return chain(Graph("small", "1.0.0"), adding("large", large=True), adding_once("once", hook=True))


def parent() -> Graph:
    """A child lifetime between two Tasks."""
    return chain(Graph("child", "1.0.0"), adding("before"), child("sub", graph="small"), adding("after"))


def final() -> Graph:
    """One of the branches ends the lifetime while the others are still at it."""

    async def search(task_input: TaskInput) -> Any:
        ledger.called(task_input, "idempotent")
        k = number(task_input.value)
        await asyncio.sleep(2 * pace.of(task_input) if k == 1 else 60)
        return ballast(task_input, k)

    spread = choosing("spread", lambda _: [Next("search", k) for k in range(SEARCHES)])
    searching = task(name="search", retry=QUICK)(search)
    return Graph("final", "1.0.0").start(spread).parallel(spread, searching).final(searching)


KNOWN = {"line": 3, "parallel": 11, "small": 3}
"""By graph: what the person knows that a call which may be made once makes of its input."""


class Shape(msgspec.Struct, frozen=True):
    """Graphs (the last one is started), and what has to come of them: visits that succeed, by node."""

    graphs: tuple[Callable[[], Graph], ...]
    result: Any
    visits: Mapping[str, int]
    flaky: frozenset[str] = frozenset()
    """Nodes whose first attempts fail by themselves."""
    cancelled: Mapping[str, int] = {}
    """Visits that end cancelled."""


SMALL = {"large": 1, "to_once": 1, "once": 1}
SHAPES: dict[str, Shape] = {
    "line": Shape((line,), 3, {"large": 1, "to_thread": 1, "thread": 1, "to_once": 1, "once": 1}),
    "loop": Shape((loop,), LOOPS, {"decide": LOOPS + 1, "work": LOOPS}),
    "parallel": Shape((parallel,), 11, {"spread": 1, "work": BRANCHES, "gather": 1, "total": 1}),
    "nested": Shape(
        (nested,),
        15,
        {
            "outer": 1, "split": OUTER, "inner": OUTER, "leaf": OUTER * INNER, "gather_inner": OUTER, "part": OUTER,
            "gather_outer": 1, "total": 1,
        },
    ),
    "wait": Shape(
        (wait,),
        [SIGNAL],
        {
            "large": 1, "to_ask": 1, "ask": 1, "to_go": 1, "go": 1, "to_nap": 1, "nap": 1, "to_last": 1, "last": 1,
        },
    ),
    "retry": Shape(
        (retry,), 3, {"one": 1, "to_two": 1, "two": 1, "to_last": 1, "last": 1}, frozenset({"one", "two"})
    ),
    "child": Shape((small, parent), 4, {"before": 1, "to_sub": 1, "sub": 1, "to_after": 1, "after": 1}),
    "final": Shape((final,), 1, {"spread": 1, "search": 1}, cancelled={"search": SEARCHES - 1}),
}  # fmt: skip
EXPECTED: dict[str, Shape] = {**SHAPES, "small": Shape((small,), 3, SMALL)}
"""By graph: also those that are only ever started as a child."""
