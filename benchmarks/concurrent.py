"""W7: ten thousand lifetimes open in one process. How fast does each go on, and what does one cost that only waits?

Three processes measure it. In the first, each lifetime is an agent loop whose Task "thinks" for about twenty seconds.
When each Task is to return is drawn beforehand, from a seed, and does not depend on how fast the engine is: an open
loop of 500 returns a second. The time of a planner loop runs from the instant on that schedule to the first line of
the next Task, the Plan between them included. So a stall is counted for everybody who was due in it, and not only for
the one that it hit (what is called coordinated omission).

In the second, lifetimes are started that wait for a person, a signal or a timer, a third each; the third process is a
restart on what the second one left. Both read the resident memory that the kernel shows.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.floor import Floor, decide
from benchmarks.meter import quantile, resident_bytes, result
from tickwork import END, Graph, human, plan, sleep, task, wait_for_signal
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.repetition import Figures, Job

SEED = 7
SETTLE = 1.0
"""Seconds between the last start and the first return."""

WARM_UP = 0.1
"""Part of the window that the loops turn before it begins."""

DRAWS = 16
"""Numbers drawn beforehand for each lifetime; no run has as many loops."""

PATIENCE = 60.0
"""Seconds that those who were due in the window may be late."""

ASKED = 50
"""How often a list or an answer is timed."""


class Schedule:
    """When the Task of each lifetime is to return, and when the next one began. One for a process."""

    def __init__(self) -> None:
        self._mean = self._from = 0.0
        self._draws, self._due, self._returned = array("d"), array("d"), array("d")
        self._loops = array("q")
        self._to_open = 0
        self._turning = asyncio.Event()
        self.all_open = asyncio.Event()
        """Set when every lifetime is in its first Task."""
        self._calls = array("d")

    def prepare(self, lives: int, mean: float) -> None:
        """For `lives` lifetimes that think for `mean` seconds (evenly drawn from half to one and a half of that)."""
        dice = random.Random(SEED)
        self._mean, self._to_open = mean, lives
        self._draws = array("d", [dice.random() for _ in range(lives * DRAWS)])
        self._due, self._returned = array("d", [0.0] * lives), array("d", [0.0] * lives)
        self._loops = array("q", [0] * lives)

    def turn(self) -> float:
        """Lets the Tasks return, each in its turn, from the moment on that this returns."""
        self._from = time.perf_counter() + SETTLE
        self._turning.set()
        return self._from

    def calls(self) -> Iterator[tuple[float, float, float]]:
        """Of each planner loop: when its Task was to return, when it did, when the next Task began."""
        return zip(self._calls[0::3], self._calls[1::3], self._calls[2::3], strict=True)

    def behind(self, until: float) -> int:
        """Lifetimes whose next Task has not begun although the one before was to return before `until`."""
        return sum(due < until for due in self._due)

    async def think(self, life: int, loop: int) -> None:
        """The body of the Task: returns when it is this lifetime's turn."""
        began = time.perf_counter()
        if loop != self._loops[life]:
            raise RuntimeError(f"lifetime {life} is called for loop {loop}, and {self._loops[life]} comes next")
        self._loops[life] += 1
        if loop == 0:
            await self._first(life)
        else:
            self._calls.extend((self._due[life], self._returned[life], began))
            self._due[life] += self._mean * (0.5 + self._draw(life, loop))
        await asyncio.sleep(self._due[life] - time.perf_counter())
        self._returned[life] = time.perf_counter()

    async def _first(self, life: int) -> None:
        """The first turn: as far off as that of a thinker whom one meets in the middle, so the rate is even at once."""
        self._to_open -= 1
        if not self._to_open:
            self.all_open.set()
        await self._turning.wait()
        whole = self._mean * (0.25 + 2 * self._draw(life, -1)) ** 0.5  # long thinkers are met more often
        self._due[life] = self._from + whole * self._draw(life, 0)

    def _draw(self, life: int, number: int) -> float:
        return self._draws[life * DRAWS + number % DRAWS]


SCHEDULE = Schedule()


@plan
async def choose(value: dict[str, Any]) -> str:
    return "think" if value["i"] < value["n"] else END


@task
async def think(value: dict[str, Any]) -> dict[str, Any]:
    await SCHEDULE.think(value["life"], value["i"])
    return result(value["i"] + 1, value["n"]) | {"life": value["life"]}


LOOPS = Graph("bench_think", "1.0.0")
LOOPS.start(choose).edge(choose, think).edge(think, choose).final(choose)

KINDS = ("ask", "hear", "rest")


@plan
async def direct(value: dict[str, Any]) -> str:
    return KINDS[value["i"] % len(KINDS)] if "i" in value else END


ask = human("ask", prompt="May number {i} go on?", answer_schema={"type": "object", "required": ["ok"]})
hear = wait_for_signal("word", name="hear")
rest = sleep("rest", seconds=7 * 24 * 3600)
WAITS = Graph("bench_waits", "1.0.0")
WAITS.start(direct).then(direct, ask, hear, rest)
for node in (ask, hear, rest):
    WAITS.edge(node, direct)
WAITS.final(direct)


class ThinkingFloor(Floor):
    """The floor, with lifetimes that think."""

    async def think(self, life: int) -> None:
        """One run of loops without end."""
        loop = 0
        while await decide(loop, loop + 1):
            await self._record(f"run-{life}", 2 * loop, {"in": life, "out": True})
            await SCHEDULE.think(life, loop)
            await self._record(f"run-{life}", 2 * loop + 1, {"in": life, "out": result(loop, 0)})
            loop += 1


# -- lifetimes that move ----------------------------------------------------------------------------------------------


async def loops(job: Job) -> Figures:
    """The planner loops of `job.runs` lifetimes that think for `job.seconds` on the average."""
    SCHEDULE.prepare(job.runs, job.seconds)
    home = Path(job.home) / "loops"
    home.mkdir()
    if job.engine == "floor":
        async with ThinkingFloor(home) as floor:
            runs: list[asyncio.Task[None]] = []

            async def begin(life: int) -> None:
                runs.append(asyncio.create_task(floor.think(life)))

            figures = await _measured(job, begin)
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)
            return figures
    async with Runtime(Profile.local(home)) as runtime:
        await runtime.bind(LOOPS.bind())

        async def start(life: int) -> None:
            await runtime.service.start("bench_think", {"i": 0, "n": 1_000_000, "life": life})

        return await runtime.guard(_measured(job, start))


async def _measured(job: Job, start: Any) -> Figures:
    """Opens all lifetimes one after the other, lets them turn, and reads the window."""
    empty = _settled_memory()
    began = time.perf_counter()
    for life in range(job.runs):
        # Evenly over half the time that one loop takes: nothing of it is left when the window opens.
        await asyncio.sleep(began + 0.5 * job.seconds * life / job.runs - time.perf_counter())
        await start(life)
    await SCHEDULE.all_open.wait()
    opens = SCHEDULE.turn() + WARM_UP * job.seconds
    closes = opens + job.seconds
    await asyncio.sleep(closes - time.perf_counter())
    while late := SCHEDULE.behind(closes):
        if time.perf_counter() > closes + PATIENCE:
            raise RuntimeError(f"{late} planner loops are more than {PATIENCE:g} s late")
        await asyncio.sleep(0.01)
    full = resident_bytes()
    times = sorted(then - due for due, _, then in SCHEDULE.calls() if opens <= due < closes)
    from_return = sorted(then - back for due, back, then in SCHEDULE.calls() if opens <= due < closes)
    reached = sum(opens <= then < closes for _, _, then in SCHEDULE.calls()) / job.seconds
    return {
        "loops/s": reached,
        "loop p50": quantile(times, 0.5) * 1e3,
        "loop p99": quantile(times, 0.99) * 1e3,
        "loop p999": quantile(times, 0.999) * 1e3,
        "loop max": times[-1] * 1e3,
        "p99 from return": quantile(from_return, 0.99) * 1e3,
        "B/thinking": max(full - empty, 0) / job.runs,
    }


# -- lifetimes that wait ----------------------------------------------------------------------------------------------


async def waits(job: Job) -> Figures:
    """Resident bytes of each of `job.waiting` lifetimes that wait, and of one more when half of them wait already."""
    async with Runtime(Profile.local(Path(job.home) / "waits")) as runtime:
        await runtime.bind(WAITS.bind())
        await runtime.guard(_open(runtime, range(KINDS_EACH)))
        before = _settled_memory()
        half = job.waiting // 2
        await runtime.guard(_open(runtime, range(half)))
        middle = _settled_memory()
        await runtime.guard(_open(runtime, range(half, job.waiting)))
        after = _settled_memory()
    return {
        "B/waiting": max(after - before, 0) / job.waiting,
        "B/one more": max(after - middle, 0) / (job.waiting - half),
    }


KINDS_EACH = 20 * len(KINDS)
"""Lifetimes that wait before memory is read for the first time: what is loaded once is loaded by then."""


async def restart(job: Job) -> Figures:
    """The same in a process that finds them on disk; then lists them and answers some that are in no memory."""
    before = await _opened_empty(job)
    async with Runtime(Profile.local(Path(job.home) / "waits")) as runtime:
        await runtime.bind(WAITS.bind())
        after = _settled_memory()
        listing = [await _timed(runtime.service.list(LifetimeQuery(statuses=("WAITING",)))) for _ in range(ASKED)]
        inbox = [await _timed(runtime.service.questions()) for _ in range(ASKED // 5)]
        questions = await runtime.service.questions()
        answering = [
            await _timed(_answer(runtime, question.lifetime_id))
            for question in questions[:: max(len(questions) // ASKED, 1)]
        ]
    return {
        "B/after restart": max(after - before, 0) / job.waiting,
        "list 50": statistics.median(listing) * 1e3,
        "inbox": statistics.median(inbox) * 1e3,
        "answer to end": statistics.median(answering) * 1e3,
    }


async def _opened_empty(job: Job) -> int:
    """Resident bytes with a runtime on an empty home: what any restart takes."""
    async with Runtime(Profile.local(Path(job.home) / "empty")) as runtime:
        await runtime.bind(WAITS.bind())
        return _settled_memory()


MOVING = ("control_plane_moving", "control_plane_queued")


async def _open(runtime: Runtime, numbers: range) -> None:
    """Starts these lifetimes, few at a time, until they wait: what their starts need at once is not what they cost."""
    for first in range(numbers.start, numbers.stop, 100):
        several = numbers[first - numbers.start : first - numbers.start + 100]
        await asyncio.gather(*[runtime.service.start("bench_waits", {"i": i}) for i in several])
        while any(runtime.metrics()[name] for name in MOVING):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.001)


async def _answer(runtime: Runtime, lifetime_id: str) -> None:
    """Answers one lifetime, which is rebuilt from its log, and sees it end."""
    await runtime.service.answer(lifetime_id, {"ok": True}, by="ann")
    ended = await runtime.guard(runtime.service.wait(lifetime_id))
    if ended.status != "COMPLETED":
        raise RuntimeError(f"lifetime {lifetime_id} ended {ended.status}: {ended.reason}")


async def _timed(waiting: Any) -> float:
    began = time.perf_counter()
    await waiting
    return time.perf_counter() - began


def _settled_memory() -> int:
    gc.collect()
    return resident_bytes()


STAGES = {"W7-loops": loops, "W7-waits": waits, "W7-restart": restart}
