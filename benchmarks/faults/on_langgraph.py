"""The workload on LangGraph with its asynchronous SQLite saver. The name of a run is its thread id.

As its documentation says: a StateGraph compiled with a checkpointer, `Command(goto=...)` for what is next, `Send` for
branches; after a failure the graph is invoked with None on the same thread. Nothing goes on before somebody does that.
"""

from __future__ import annotations

import asyncio
import operator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from benchmarks.faults import shapes

POLL = 0.1
"""Seconds between two looks at the state of a thread that nobody runs here."""


class State(TypedDict, total=False):
    """What the line, the loop and the fan carry."""

    run: str
    i: int
    sum: int
    branch: int
    parts: Annotated[list[dict[str, Any]], operator.add]


async def _line_plan(state: State, k: int) -> Command[Any]:
    await shapes.line_plan(k, dict(state))
    return Command(goto=f"step{k + 1}")


async def _line_task(state: State, k: int) -> dict[str, Any]:
    return await shapes.line_task(k, dict(state))


async def _decide(state: State) -> Command[Any]:
    return Command(goto="work" if await shapes.loop_plan(dict(state)) else END)


async def _work(state: State) -> dict[str, Any]:
    return await shapes.loop_task(dict(state))


async def _spread(state: State) -> Command[Any]:
    return Command(goto=[Send("part", each) for each in await shapes.fan_plan(dict(state))])


async def _part(state: State) -> dict[str, Any]:
    return {"parts": [await shapes.fan_branch(dict(state))]}


async def _gather(state: State) -> dict[str, Any]:
    return await shapes.fan_join(state["parts"])


async def _total(state: State) -> dict[str, Any]:
    done = await shapes.fan_end({"run": state["run"], "i": state["i"], "sum": state["sum"]})
    return {"i": done["i"], "sum": done["sum"]}


def line() -> Any:
    """Tasks in a row, Plans between them."""
    graph: Any = StateGraph(State)
    for k in range(shapes.TASKS):
        graph.add_node(f"step{k}", partial(_line_task, k=k))
        if k + 1 < shapes.TASKS:
            graph.add_node(f"then{k}", partial(_line_plan, k=k), destinations=(f"step{k + 1}",))
            graph.add_edge(f"step{k}", f"then{k}")
    graph.add_edge(START, "step0")
    graph.add_edge(f"step{shapes.TASKS - 1}", END)
    return graph


def loop() -> Any:
    """A Plan and a Task in turns."""
    graph: Any = StateGraph(State)
    graph.add_node("decide", _decide, destinations=("work", END))
    graph.add_node("work", _work)
    graph.add_edge(START, "decide")
    graph.add_edge("work", "decide")
    return graph


def fan() -> Any:
    """A fan-out, joined."""
    graph: Any = StateGraph(State)
    graph.add_node("spread", _spread, destinations=("part",))
    graph.add_node("part", _part)
    graph.add_node("gather", _gather)
    graph.add_node("total", _total)
    graph.add_edge(START, "spread")
    graph.add_edge("part", "gather")
    graph.add_edge("gather", "total")
    graph.add_edge("total", END)
    return graph


class OnLangGraph:
    """A new process opens the saver and compiles its graphs; what was cut short waits for an invocation.

    Whether a thread has work left is asked of `tasks` in its state. `next` is empty as well when a kill came between
    the writes of a step and the checkpoint after it, although the thread is not done: to trust it would strand it.
    """

    def __init__(self, home: Path, durability: Literal["sync"] | None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._file = home / "checkpoints.sqlite"
        self._options: dict[str, Any] = {} if durability is None else {"durability": durability}
        self._stack = AsyncExitStack()
        self._graphs: dict[str, Any] = {}
        self._going: dict[str, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> Self:
        saver = await self._stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(self._file)))
        self._graphs = {
            name: make().compile(checkpointer=saver) for name, make in (("line", line), ("loop", loop), ("fan", fan))
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def begin(self, run: str) -> bool:
        """An invocation promises nothing before it returns: the first call of user code shows that the run began."""
        if await self.known(run):
            await self.resume(run)
        else:
            self._go(run, shapes.given(run))
        return False

    async def known(self, run: str) -> bool:
        """Whether the thread has a checkpoint."""
        return (await self._state(run)).created_at is not None

    async def resume(self, run: str) -> None:
        """Invokes the thread with None, unless it has nothing left to do."""
        if (await self._state(run)).tasks:
            self._go(run, None)

    async def result(self, run: str) -> dict[str, Any]:
        """What the invocation returned; where nobody invoked, the values of a thread that has nothing left to do."""
        if run in self._going:
            return _plain(await self._going[run])
        while True:
            state = await self._state(run)
            if state.created_at is not None and not state.tasks:
                return _plain(state.values)
            await asyncio.sleep(POLL)

    def _go(self, run: str, given: Any) -> None:
        graph = self._graphs[shapes.shape_of(run)]
        self._going[run] = asyncio.create_task(graph.ainvoke(given, self._config(run), **self._options))

    async def _state(self, run: str) -> Any:
        return await self._graphs[shapes.shape_of(run)].aget_state(self._config(run))

    @staticmethod
    def _config(run: str) -> dict[str, Any]:
        return {"configurable": {"thread_id": run}, "recursion_limit": 100}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("run", "i", "sum")}
