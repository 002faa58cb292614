"""Where user code runs: as a coroutine of the loop, in a thread, or in a subprocess. Each is a lane with its credits.

An attempt that finds no credit waits in its lane. Limits become timers of the loop, and only for nodes that declare
them. An attempt that is told to stop has its grace; then it is abandoned: its record says so, its credit is free
again, and what it still returns is dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tickwork.executor.attempt import Attempt, HistoryReader, limit_error
from tickwork.executor.outcome import Outcome, bounded, failed, succeeded
from tickwork.executor.payloads import LargePayloads, Unreachable, has_large, lies_in_blobs
from tickwork.executor.threads import Job, Threads
from tickwork.model.choices import choice_problem
from tickwork.model.records import Error
from tickwork.model.spending import LEASE_EXPIRED
from tickwork.sdk.prices import Prices

if TYPE_CHECKING:
    from tickwork.ports import BlobStore, Clock

log = logging.getLogger(__name__)


class Lane:
    """Credits of one kind, and who waits for one."""

    __slots__ = ("begin", "free", "waiting")

    def __init__(self, credit: int, begin: Callable[[Attempt], None]) -> None:
        self.free = credit
        self.begin = begin
        self.waiting: deque[Attempt] = deque()


class Owner(Protocol):
    """Whom lanes report to: the executor."""

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt is over; said once."""
        ...

    def ask_permit(self, attempt: Attempt) -> None:
        """The attempt has a credit, and its intent has to be in the log before it begins."""
        ...

    def give_back(self, attempt: Attempt) -> None:
        """The attempt cannot begin here, and somebody shall have its input again."""
        ...

    async def publish_alone(self) -> None:
        """What has ended may be published now, if there is nothing to wait for."""
        ...


class Lanes:
    """Runs attempts and reports each end, once, to its owner. `threads=0` runs sync code on the loop itself."""

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        blobs: BlobStore,
        clock: Clock,
        history: HistoryReader,
        concurrency: int,
        threads: int,
        processes: int,
        owner: Owner,
        prices: Prices | None = None,
    ) -> None:
        self._owner = owner
        self.clock, self.history = clock, history
        self.prices = prices or Prices()
        self._payloads = LargePayloads(blobs, clock)
        self._coroutines = Lane(concurrency, self._begin_coroutine)
        self._threaded = Lane(threads or concurrency, self._begin_thread if threads else self._begin_here)
        self._processes = Lane(processes, self._begin_process)
        self._threads: Threads | None = None
        self._context = contextvars.Context()
        self._jobs: dict[Attempt, Job] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes it ready to run on `loop`."""
        self.loop = loop
        # Every call starts from the worker's own context variables: what one attempt sets, no other one sees.
        self._context = contextvars.copy_context()
        self._threads = Threads(loop)

    async def close(self, attempts: Iterable[Attempt]) -> None:
        """Stops what runs. Nothing is reported any more: unrecorded attempts are made again elsewhere."""
        self._closing = True
        tasks: list[asyncio.Task[None]] = list(self._background)
        for attempt in list(attempts):
            attempt.cancelled = True
            self._clear_timers(attempt)
            if attempt.task is not None:
                tasks.append(attempt.task)
            if attempt.process is not None:
                attempt.process.kill()
        for task in tasks:
            task.cancel()
        if tasks:
            # User code that swallows its cancellation is left behind; the loop that ends takes it along.
            await asyncio.wait(tasks, timeout=1.0)
        if self._threads is not None:
            self._threads.close()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something of the executor's own beside its loops."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- credits

    def submit(self, attempt: Attempt) -> None:
        """Runs the attempt when there is a credit, or lets it wait for one."""
        if attempt.bound.node.limits.schedule_to_start is not None and not self._in_time(attempt):
            return
        lane = self._lane(attempt)
        if lane.free > 0:
            lane.free -= 1
            self._begin(lane, attempt)
        else:
            lane.waiting.append(attempt)

    def _begin(self, lane: Lane, attempt: Attempt) -> None:
        """Begins an attempt that has a credit now: with its payloads here, and once it may."""
        attempt.has_credit = True
        if lies_in_blobs(attempt.message):
            attempt.task = self.loop.create_task(self._fetch_first(lane, attempt))
        else:
            self._ready(lane, attempt)

    def _ready(self, lane: Lane, attempt: Attempt) -> None:
        """Nothing is left but to call user code: now, or when it is sure that it may be called."""
        if attempt.permitted:
            self._call_in(lane, attempt)
        else:
            self._owner.ask_permit(attempt)

    def _call_in(self, lane: Lane, attempt: Attempt) -> None:
        """Has user code called, unless the list of prices is broken: nothing shall be spent that cannot be counted."""
        fault = self.prices.fault(self.clock.monotonic())
        if fault is None:
            lane.begin(attempt)
        else:
            # Later, so that a thousand waiting attempts do not end inside each other.
            self.loop.call_soon(self._finish, attempt, failed(fault))

    def permitted(self, attempt: Attempt) -> None:
        """The attempt may begin: its intent is in the log."""
        attempt.permitted = True
        if attempt.late is not None:
            self.stop(attempt, attempt.late)
        elif not attempt.done:
            self._call_in(self._lane(attempt), attempt)

    def drop(self, attempt: Attempt) -> None:
        """Lets an attempt go that may not begin: nothing is recorded of it here."""
        attempt.done = True
        self._clear_timers(attempt)
        if attempt.has_credit:
            self._free(attempt)

    def _lane(self, attempt: Attempt) -> Lane:
        bound = attempt.bound
        if bound.node.isolation == "subprocess":
            return self._processes
        return self._coroutines if bound.implementation.is_async else self._threaded

    def _in_time(self, attempt: Attempt) -> bool:
        """Whether it may still start; sets the timer that ends its waiting."""
        limit = attempt.bound.node.limits.schedule_to_start or 0.0
        left = limit - (self.clock.now() - attempt.message.created_at) / 1_000_000
        if left <= 0:
            self._too_late(attempt, limit)
            return False
        attempt.timers.append(self.loop.call_later(left, self._too_late, attempt, limit))
        return True

    def _too_late(self, attempt: Attempt, limit: float) -> None:
        if attempt.entered or attempt.done:
            return
        message = f"`{attempt.message.node}` was not started within {limit:g} s: the workers were busy"
        outcome = Outcome("TIMED_OUT", None, limit_error("ScheduleToStart", message))
        if attempt.permitted:
            self.stop(attempt, outcome)
        else:
            attempt.late = outcome  # its input may have come before, to a worker that did start it
            self._owner.ask_permit(attempt)

    def _free(self, attempt: Attempt) -> None:
        """Hands the credit of an attempt that has ended to the next one."""
        lane = self._lane(attempt)
        while lane.waiting:
            following = lane.waiting.popleft()
            if not following.done and following.late is None:
                self._begin(lane, following)
                return
        lane.free += 1

    # -- user code

    def _enter(self, attempt: Attempt) -> None:
        """User code is called now: the clocks of its limits start."""
        attempt.entered = True
        attempt.started_at = self.clock.now()
        limits = attempt.bound.node.limits
        if limits.schedule_to_start is not None:
            self._clear_timers(attempt)
        if limits.start_to_close is not None:
            attempt.timers.append(self.loop.call_later(limits.start_to_close, self._too_long, attempt))
        if limits.heartbeat is not None:
            attempt.last_beat = self.clock.monotonic()
            attempt.timers.append(self.loop.call_later(limits.heartbeat, self._listen, attempt, limits.heartbeat))

    def _begin_coroutine(self, attempt: Attempt) -> None:
        attempt.task = self.loop.create_task(self._drive(attempt), context=self._context.copy())

    async def _drive(self, attempt: Attempt) -> None:
        """Awaits user code and reports what came of it: the one task of an async call."""
        self._enter(attempt)
        implementation = attempt.bound.implementation
        message, ctx = attempt.message, attempt.ctx
        try:
            value = await implementation.call(implementation.input_for(message, ctx), ctx)
            ctx.returned(value)
            outcome = succeeded(implementation, value)
            if has_large(outcome):
                outcome = await self._stored(attempt, outcome)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and no worker dies of it
            outcome = failed(error)
        self._finish(attempt, outcome)
        if not self._closing:
            await self._owner.publish_alone()

    def _begin_here(self, attempt: Attempt) -> None:
        """Sync code without threads: it holds up the loop, which tests and simulations want."""
        self._enter(attempt)
        self._returned(attempt, self._context.copy().run(_call, attempt))

    def _begin_thread(self, attempt: Attempt) -> None:
        assert self._threads is not None  # noqa: S101 - opened before anything is submitted
        self._enter(attempt)
        self._jobs[attempt] = self._threads.run(
            self._context.copy(), lambda: _call(attempt), lambda outcome: self._returned(attempt, outcome)
        )

    def _begin_process(self, attempt: Attempt) -> None:
        from tickwork.executor.process import run_in_process

        async def drive() -> None:
            try:
                outcome = await run_in_process(attempt, lambda: self._enter(attempt))
                if has_large(outcome):
                    outcome = await self._stored(attempt, outcome)
            except asyncio.CancelledError as error:
                if self._closing:
                    raise
                outcome = failed(error)
            except Exception as error:  # noqa: BLE001 - a process that cannot be started fails its attempt, no more
                outcome = failed(error)
            self._finish(attempt, outcome)

        attempt.task = self.loop.create_task(drive())

    def _returned(self, attempt: Attempt, outcome: Outcome) -> None:
        """Sync code has returned."""
        if not attempt.done and has_large(outcome):
            attempt.task = self.loop.create_task(self._store_and_finish(attempt, outcome))
        else:
            self._finish(attempt, outcome)

    # -- the end of an attempt

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.done or self._closing:
            return
        self._report(attempt, attempt.stopping or _allowed(attempt, outcome))
        self._free(attempt)

    def _report(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.timers:
            self._clear_timers(attempt)
        self._jobs.pop(attempt, None)
        attempt.task = None
        self._owner.ended(attempt, outcome)

    def _clear_timers(self, attempt: Attempt) -> None:
        for timer in attempt.timers:
            timer.cancel()
        attempt.timers.clear()

    def stop(self, attempt: Attempt, outcome: Outcome) -> None:
        """Tells an attempt to stop; `outcome` is how it is recorded when it has, or when its grace is over."""
        if attempt.done or attempt.stopping is not None:
            return
        attempt.cancelled = True
        if not attempt.entered:
            # It waits for a credit, or its coroutine has not begun: nothing has to be told.
            if attempt.task is not None:
                attempt.task.cancel()
            self._report(attempt, outcome)
            if attempt.has_credit:
                self._free(attempt)
            return
        attempt.stopping = outcome
        if attempt.process is not None:
            attempt.process.stop(outcome.error.message if outcome.error else "")
        elif attempt.task is not None:
            attempt.task.cancel()
        attempt.timers.append(self.loop.call_later(attempt.bound.node.limits.grace, self._abandon, attempt))

    def _abandon(self, attempt: Attempt) -> None:
        """The grace is over. A subprocess is killed, which always works; anything else is left behind."""
        if attempt.done:
            return
        if attempt.process is not None:
            attempt.process.kill()
            return
        job = self._jobs.get(attempt)
        if job is not None and self._threads is not None:
            self._threads.give_up(job)
        if attempt.task is not None:
            self._background.add(attempt.task)
            attempt.task.add_done_callback(self._background.discard)
        outcome = attempt.stopping or failed(asyncio.CancelledError())
        error = outcome.error
        if error is not None:
            details = {**(error.details or {}), "abandoned": True}
            outcome = msgspec.structs.replace(outcome, error=msgspec.structs.replace(error, details=details))
        log.warning(
            "lifetime %s: `%s` did not stop within its grace of %g s and was abandoned",
            attempt.message.lifetime_id, attempt.message.node, attempt.bound.node.limits.grace,
        )  # fmt: skip
        self._report(attempt, outcome)
        self._free(attempt)

    def _too_long(self, attempt: Attempt) -> None:
        limit = attempt.bound.node.limits.start_to_close
        message = f"`{attempt.message.node}` did not end within {limit:g} s (limits.start_to_close)"
        error = limit_error("StartToClose", message, heartbeat=bounded(attempt.last_details()))
        self.stop(attempt, Outcome("TIMED_OUT", None, error))

    def _listen(self, attempt: Attempt, limit: float) -> None:
        """Looks whether the last heartbeat is recent enough, and when to look again."""
        left = limit - (self.clock.monotonic() - attempt.last_beat)
        if left > 1e-6:
            attempt.timers.append(self.loop.call_later(left, self._listen, attempt, limit))
            return
        message = f"`{attempt.message.node}` gave no heartbeat for {limit:g} s (limits.heartbeat)"
        error = limit_error("HeartbeatTimeout", message, heartbeat=bounded(attempt.last_details()))
        self.stop(attempt, Outcome("TIMED_OUT", None, error))

    # -- large payloads

    async def _fetch_first(self, lane: Lane, attempt: Attempt) -> None:
        """Gets the payloads that lie in the blob store, before anything is asked or called.

        Without the blob store the attempt is given back: its input comes again, to whoever can do it, as the same
        attempt. User code was not called, so nothing has failed.
        """
        try:
            await self._payloads.fetch(attempt.message)
        except Unreachable as error:
            log.warning("%s; the attempt is given back, and its input is sent again", error)
            if not attempt.done and attempt.late is None:  # who waited too long is recorded, once that is allowed
                self._owner.give_back(attempt)
        except Exception as error:  # noqa: BLE001 - a payload that is not there, or not what it was
            self._finish(attempt, failed(error))
        else:
            attempt.task = None
            if not attempt.done and attempt.late is None:
                self._ready(lane, attempt)

    async def _stored(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """The outcome with its large payloads in the blob store, however long that is away.

        The result is there, so user code is not called again for it as long as that can be helped: its limits are over,
        and its worker goes on to claim it. After that the attempt counts as lost with its worker, not as failed.
        """
        if attempt.stopping is not None:
            return outcome  # it is not what will be recorded
        self._clear_timers(attempt)
        try:
            await self._payloads.store(attempt.message, outcome)
        except Unreachable as error:
            why = f"{error}; its result is lost"
            log.warning("%s", why)
            return Outcome("TIMED_OUT", None, Error(LEASE_EXPIRED, why, retryable=True))
        return outcome

    async def _store_and_finish(self, attempt: Attempt, outcome: Outcome) -> None:
        try:
            outcome = await self._stored(attempt, outcome)
        except Exception as error:  # noqa: BLE001 - the store is full, or will not have it
            outcome = failed(error)
        except asyncio.CancelledError as error:
            if self._closing:
                raise
            outcome = failed(error)  # it was told to stop
        self._finish(attempt, outcome)


def _call(attempt: Attempt) -> Outcome:
    """Calls sync user code, wherever this runs."""
    implementation = attempt.bound.implementation
    try:
        value = implementation.call(implementation.input_for(attempt.message, attempt.ctx), attempt.ctx)
        attempt.ctx.returned(value)
        return succeeded(implementation, value)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, and no worker dies of it
        return failed(error)


def _allowed(attempt: Attempt, outcome: Outcome) -> Outcome:
    """The outcome, or a failed attempt when a Plan chose what it may not: asked again, it may choose better."""
    if outcome.next is None:
        return outcome
    node = attempt.message.node
    problem = choice_problem(attempt.bound.graph, node, tuple([choice.task for choice in outcome.next]))
    return (
        outcome if problem is None else Outcome("FAILED", None, Error("InvalidChoice", problem), None, outcome.reason)
    )
