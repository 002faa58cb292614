"""The workloads on Apache Burr: actions with conditional transitions, saved by its asynchronous SQLite persister.

After a kill the application is built again with `initialize_from` and run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from burr.core import ApplicationBuilder, action, default, when
from burr.core.action import create_action
from burr.core.parallelism import MapStates
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister

from benchmarks.ledger import LEDGER
from benchmarks.meter import METER, result

Builder: Any = ApplicationBuilder
Branches: Any = MapStates
Condition: Any = when
LINES = itertools.count(1)
ENTRY = {"i": 0, "n": 0, "seconds": 0.0, "width": 0, "go": True, "out": {}}


async def _decide(state: Any) -> Any:
    return state.update(go=state["i"] < state["n"])


async def _work(state: Any) -> Any:
    if state["seconds"]:
        await asyncio.sleep(state["seconds"])
    METER.tick()
    LEDGER.call(state["i"])
    return state.update(i=state["i"] + 1, out=result(state["i"] + 1, state["n"]))


async def _part(state: Any) -> Any:
    METER.tick()
    return state.update(out=result(state["k"], 0))


async def _end(state: Any) -> Any:
    return state


decide: Any = action(reads=["i", "n"], writes=["go"])(_decide)
work: Any = action(reads=["i", "n", "seconds"], writes=["i", "out"])(_work)
part: Any = action(reads=["k"], writes=["out"])(_part)
end: Any = action(reads=[], writes=[])(_end)


class Spread(Branches):  # type: ignore[misc]  # Any, so that this reads alike with and without Burr installed
    """The branches of one round, and their join."""

    def is_async(self) -> bool:
        return True

    def action(self, state: Any, inputs: dict[str, Any]) -> Any:
        return create_action(part, "part")

    async def states(self, state: Any, context: Any, inputs: dict[str, Any]) -> AsyncGenerator[Any, None]:
        for k in range(state["width"]):
            yield state.update(k=k)

    async def reduce(self, state: Any, states: AsyncIterable[Any]) -> Any:
        async for each in states:
            if not each["out"]["ok"]:
                raise RuntimeError("a branch has no result")
        return state.update(i=state["i"] + 1)

    @property
    def reads(self) -> list[str]:
        return ["width", "i"]

    @property
    def writes(self) -> list[str]:
        return ["i"]


class OnBurr:
    """The workloads on Burr."""

    def __init__(self, home: Path) -> None:
        self._file = home / "burr.sqlite"
        self._stack = AsyncExitStack()
        self._persister: Any = None

    async def __aenter__(self) -> Self:
        opening = AsyncSQLitePersister.from_values(str(self._file))
        self._persister = await self._stack.enter_async_context(opening)
        await self._persister.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def line(self, cycles: int) -> None:
        """One application of `cycles` cycles."""
        await self._loop(f"line-{next(LINES)}", cycles, 0.0)

    async def many(self, runs: int, cycles: int, seconds: float) -> None:
        """Many applications at the same time; each task takes `seconds`."""
        await asyncio.gather(*[self._loop(f"run-{k}", cycles, seconds) for k in range(runs)])

    async def fan(self, width: int, rounds: int) -> None:
        """An application for each round: a second pass through the same branches would meet the first one's keys."""
        for number in range(rounds):
            started = self._builder(f"fan-{number}", Spread()).with_state(**ENTRY | {"n": 1, "width": width})
            await self._to_the_end(started.with_entrypoint("decide"))

    async def go_on(self) -> None:
        """Takes up the application that a dead process left."""
        found = self._builder("line-1", work).initialize_from(
            self._persister, resume_at_next_action=True, default_state=ENTRY, default_entrypoint="decide"
        )
        await self._to_the_end(found)

    async def _loop(self, name: str, cycles: int, seconds: float) -> None:
        started = self._builder(name, work).with_state(**ENTRY | {"n": cycles, "seconds": seconds})
        await self._to_the_end(started.with_entrypoint("decide"))

    def _builder(self, name: str, body: Any) -> Any:
        actions = Builder().with_identifiers(app_id=name).with_actions(decide=decide, body=body, end=end)
        ways = (("decide", "body", Condition(go=True)), ("decide", "end", default), ("body", "decide"))
        return actions.with_transitions(*ways).with_state_persister(self._persister)

    @staticmethod
    async def _to_the_end(builder: Any) -> None:
        application = await builder.abuild()
        await application.arun(halt_after=["end"])
