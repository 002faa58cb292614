"""The workloads on LangGraph: a StateGraph on its asynchronous SQLite saver, `durability="sync"`.

What is next is a `Command(goto=...)`, a branch is a `Send`; after a kill the graph is invoked with None on its thread.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result

LINES = itertools.count(1)


class State(TypedDict, total=False):
    """What a loop carries."""

    i: int
    n: int
    seconds: float
    out: dict[str, Any]


class FanState(TypedDict, total=False):
    """What a fan carries."""

    round: int
    rounds: int
    width: int
    k: int
    outs: Annotated[list[dict[str, Any]], operator.add]


async def decide(state: State) -> Command[Any]:
    return Command(goto="work" if state["i"] < state["n"] else END)


async def work(state: State) -> dict[str, Any]:
    if state["seconds"]:
        await asyncio.sleep(state["seconds"])
    METER.tick()
    LEDGER.call(state["i"])
    return {"i": state["i"] + 1, "out": result(state["i"] + 1, state["n"])}


async def spread(state: FanState) -> Command[Any]:
    if state["round"] == state["rounds"]:
        return Command(goto=END)
    return Command(goto=[Send("part", {"k": k}) for k in range(state["width"])])


async def part(state: FanState) -> dict[str, Any]:
    METER.tick()
    return {"outs": [result(state["k"], 0)]}


async def join(state: FanState) -> dict[str, Any]:
    return {"round": state["round"] + 1}


def loop_graph() -> Any:
    """A Plan and a Task in turns."""
    graph: Any = StateGraph(State)
    graph.add_node("decide", decide, destinations=("work", END))
    graph.add_node("work", work)
    graph.add_edge(START, "decide")
    graph.add_edge("work", "decide")
    return graph


def fan_graph() -> Any:
    """A fan-out, joined, again and again."""
    graph: Any = StateGraph(FanState)
    graph.add_node("spread", spread, destinations=("part", END))
    graph.add_node("part", part)
    graph.add_node("join", join)
    graph.add_edge(START, "spread")
    graph.add_edge("part", "join")
    graph.add_edge("join", "spread")
    return graph


class OnLangGraph:
    """The workloads on LangGraph."""

    def __init__(self, home: Path) -> None:
        self._file = home / "checkpoints.sqlite"
        self._stack = AsyncExitStack()
        self._loop: Any = None
        self._fan: Any = None

    async def __aenter__(self) -> Self:
        saver = await self._stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(self._file)))
        self._loop, self._fan = loop_graph().compile(checkpointer=saver), fan_graph().compile(checkpointer=saver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def line(self, cycles: int) -> None:
        """One thread of `cycles` cycles."""
        await self._run(f"line-{next(LINES)}", cycles, 0.0)

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many threads at the same time; each task takes `seconds`."""
        await asyncio.gather(*[self._run(f"run-{k}", cycles, seconds) for k in range(runs)])

    async def fan(self, width: int, rounds: int) -> None:
        """One thread that opens `width` branches and joins them, `rounds` times."""
        given = {"round": 0, "rounds": rounds, "width": width, "outs": []}
        await self._fan.ainvoke(given, _config("fan", 3 * rounds), durability="sync")

    async def go_on(self) -> None:
        """Takes up the thread that a dead process left."""
        await self._loop.ainvoke(None, _config("line-1", 100_000), durability="sync")

    async def _run(self, thread: str, cycles: int, seconds: float) -> None:
        given = {"i": 0, "n": cycles, "seconds": seconds, "out": {}}
        await self._loop.ainvoke(given, _config(thread, 2 * cycles), durability="sync")


def _config(thread: str, steps: int) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, "recursion_limit": steps + 10}
