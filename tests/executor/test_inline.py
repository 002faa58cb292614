"""User code on the loop and in threads: what comes back, what goes wrong, and how it is recorded."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from tests.executor.rig import LIFETIME, past, rig, until
from tickwork.clock import SystemClock
from tickwork.errors import RetryableError, TerminalError
from tickwork.executor import worker
from tickwork.model.graph import END
from tickwork.model.ids import exec_id
from tickwork.model.records import BYTES, ERROR_TEXT_LIMIT, Event, Execution, LogEntry, Payload, payload_value
from tickwork.sdk.context import Context
from tickwork.sdk.nodes import Plan, Task, plan, task
from tickwork.sdk.values import Next, PlanInput, PlanResult, TaskInput


class Page(BaseModel):
    url: str
    words: int = 0


@dataclass
class Point:
    x: int
    y: int


@task
async def double(value: int) -> int:
    return value * 2


@task
def halve(value: int) -> float:
    return value / 2


@task
async def fetch(page: Page, ctx: Context) -> Page:
    return Page(url=page.url, words=ctx.attempt)


@task
async def promise() -> Page:
    return {"url": "x", "words": "many"}  # type: ignore[return-value]  # the mistake that this test is about


@task
async def move(point: Point) -> Point:
    return Point(point.y, point.x)


@task
async def whole(task_input: TaskInput) -> Any:
    return [task_input.value, task_input.node, task_input.attempt, [e.value for e in task_input.executions]]


class Shout(Task):
    """The class form, with a setting."""

    name = "shout"

    async def run(self, text: str, ctx: Context) -> str:
        return text.upper() + ctx.node


class Decide(Plan):
    def run(self, plan_input: PlanInput) -> PlanResult:
        return PlanResult(["double", Next("halve", input=plan_input.result)], output={"n": 1}, reason="why not")


async def test_values_go_in_and_results_come_out() -> None:
    async with rig(double, halve, whole, Shout(), Decide()) as r:
        record = await r.call("double", 21, attempt=2)
        assert record.status == "SUCCEEDED"
        assert record.result == Payload(b"42", size=2)
        assert (record.exec_id, record.attempt) == (exec_id(LIFETIME, "", "double", 0, 2), 2)
        assert (record.parents, record.edge_taken) == (("before",), "start->double")
        assert record.created_at <= record.started_at <= record.finished_at
        worker, language = record.executor.split()
        assert len(worker) == 12
        assert language.startswith("python/")
        assert payload_value((await r.call("halve", 3)).result) == 1.5
        assert payload_value((await r.call("shout", "hey ")).result) == "HEY shout"
        record = await r.call("whole", input=None, executions=(past("double", 4),))
        assert payload_value(record.result) == [None, "whole", 1, [4]]
        record = await r.call("Decide", executions=(past("double", 7),))
        assert record.next is not None
        assert [(n.task, payload_value(n.input)) for n in record.next] == [("double", None), ("halve", 7)]
        assert (payload_value(record.result), record.reason) == ({"n": 1}, "why not")
        assert r.unacknowledged() == 0


async def test_an_input_that_stands_in_the_executions_is_found_there() -> None:
    async with rig(whole, double) as r:
        message = r.message("whole", executions=(past("a", 1), past("b", 2)), joined=True)
        message.input = None
        await r.send(message)
        (record,) = await r.receive()
        assert payload_value(record.result)[0] == [1, 2]
        message = r.message("double", executions=(past("a", 4),))
        message.input = None
        await r.send(message)
        (record,) = await r.receive()
        assert payload_value(record.result) == 8


async def test_models_are_validated_on_the_way_in_and_out() -> None:
    async with rig(fetch, promise, move) as r:
        assert payload_value((await r.call("fetch", {"url": "a"})).result) == {"url": "a", "words": 1}
        assert payload_value((await r.call("move", {"x": 1, "y": 2})).result) == {"x": 2, "y": 1}
        record = await r.call("fetch", {"url": 5})
        assert record.status == "FAILED"
        assert record.error is not None
        assert (record.error.type, record.error.retryable) == ("InputInvalid", False)
        assert "the input of `fetch` does not fit Page: url: Input should be a valid string" in record.error.message
        record = await r.call("move", {"x": 1})
        assert record.error is not None
        assert (record.error.type, record.error.retryable) == ("InputInvalid", False)
        assert "missing required field `y`" in record.error.message
        record = await r.call("promise")
        assert record.error is not None
        assert record.error.type == "OutputInvalid"
        assert "words: Input should be a valid integer" in record.error.message


class Odd(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")


@task
async def fail(how: str) -> Any:
    match how:
        case "retryable":
            raise RetryableError("busy", retry_after=7, details={"status": 429})
        case "terminal":
            raise TerminalError("never")
        case "long":
            raise ValueError("x" * 100_000)
        case "odd":
            raise Odd
        case "surrogate":
            raise ValueError("\ud800")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "object":
            return object()
        case "nan":
            return {"scores": [1.0, float("nan")]}
        case "cycle":
            loop: list[Any] = []
            loop.append({"self": loop})
            return loop
        case "deep":
            deep: list[Any] = []
            for _ in range(100_000):
                deep = [deep]
            return deep
        case "coroutine":
            waiting = asyncio.Event().wait()
            try:
                return [waiting]
            finally:
                asyncio.get_running_loop().call_soon(waiting.close)
        case "details":
            raise TerminalError("bad", details={"what": {1, float("inf")}})


fail_sync = task(name="fail_sync")(lambda how: asyncio.run(fail(how)))


@pytest.mark.parametrize(
    ("how", "kind", "retryable", "message"),
    [
        ("retryable", "RetryableError", True, "busy"),
        ("terminal", "TerminalError", False, "never"),
        ("long", "ValueError", True, "characters were cut)"),
        ("odd", "Odd", True, "its text cannot be read: ValueError"),
        ("surrogate", "ValueError", True, "\\ud800"),
        ("exit", "ExitAttempt", False, "the code called exit(3)"),
        ("interrupt", "ExitAttempt", False, "raised KeyboardInterrupt"),
        ("cancelled", "CancelledError", True, ""),
        ("object", "EncodingError", False, "the result cannot be recorded: $ is of type object"),
        ("nan", "EncodingError", False, "$.scores[1] is nan, for which JSON has no word"),
        ("cycle", "EncodingError", False, "$[0].self is a cycle: it contains itself"),
        ("deep", "EncodingError", False, "nests more than 500 levels deep"),
        ("coroutine", "EncodingError", False, "which was never awaited"),
        ("details", "TerminalError", False, "bad"),
    ],
)
async def test_what_goes_wrong_is_recorded_and_the_worker_lives_on(
    how: str, kind: str, retryable: bool, message: str
) -> None:
    async with rig(fail, double) as r:
        record = await r.call("fail", how)
        assert record.status == "FAILED"
        assert record.result is None
        assert record.error is not None
        assert (record.error.type, record.error.retryable) == (kind, retryable)
        assert message in record.error.message
        assert len(record.error.message) < ERROR_TEXT_LIMIT + 100
        details = record.error.details or {}
        if kind != "EncodingError":
            assert details["at"].startswith(__file__ + ":")
        if how == "retryable":
            assert (details["retry_after"], details["data"]) == (7.0, {"status": 429})
        if how == "details":
            assert "cannot be recorded" in details["data"]
        assert (await r.call("double", 1)).status == "SUCCEEDED"


@task(name="exits")
def exits(how: str) -> None:
    raise SystemExit(how) if how == "exit" else KeyboardInterrupt


@pytest.mark.parametrize("threads", [0, 2])
async def test_sync_code_that_exits_ends_no_thread_and_no_worker(threads: int) -> None:
    async with rig(exits, halve, threads=threads) as r:
        for _ in range(5):
            for how in ("exit", "interrupt"):
                record = await r.call("exits", how)
                assert record.error is not None
                assert record.error.type == "ExitAttempt"
        assert (await r.call("halve", 4)).status == "SUCCEEDED"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "choice 0 of the Plan is of type int; return the name of a Task"),
        (["a", {"task": "b"}], "choice 1 of the Plan is of type dict"),
        ([Next("a", input=float("nan"))], "the input for `a` (choice 0) cannot be recorded"),
        (PlanResult([], output=object()), "the Plan's output cannot be recorded"),
    ],
)
async def test_a_plan_that_answers_nonsense_fails(value: Any, message: str) -> None:
    @plan
    def decide() -> Any:
        return value

    async with rig(decide) as r:
        record = await r.call("decide")
        assert (record.status, record.next) == ("FAILED", None)
        assert record.error is not None
        assert message in record.error.message
        assert not record.error.retryable


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a", ["a"]),
        (END, ["end"]),
        (None, []),
        ([], []),
        (("a", "b"), ["a", "b"]),
        (Next("a"), ["a"]),
        ([double, Shout], ["double", "shout"]),
        (PlanResult("a", reason="r"), ["a"]),
        (PlanResult(), []),
    ],
)
async def test_all_the_ways_to_choose(value: Any, names: list[str]) -> None:
    @plan
    async def decide() -> Any:
        return value

    async with rig(decide) as r:
        record = await r.call("decide")
        assert record.next is not None
        assert [n.task for n in record.next] == names


@pytest.mark.parametrize(
    ("value", "message"),
    [("nope", "chose `nope`, which is not one of its targets"), (["a", END], "`end` (FINAL) can only be chosen alone")],
)
async def test_a_choice_that_the_graph_does_not_have_is_a_failed_attempt(value: Any, message: str) -> None:
    @plan
    async def decide() -> Any:
        return value

    async with rig(decide) as r:
        record = await r.call("decide")
        assert (record.status, record.next) == ("FAILED", None)
        assert record.error is not None
        assert record.error.type == "InvalidChoice"
        assert message in record.error.message
        assert record.error.retryable, "a model that is asked again may choose better"


@task
async def measured(ctx: Context) -> None:
    ctx.telemetry.record(tokens_in=10, tokens_out=5, cost_usd=0.1, model="small")
    ctx.telemetry.record(tokens_used=7, cost_usd=Decimal("0.000000002"), model="large", cache_hits=3, parts={"a": [1]})
    ctx.telemetry.record(cost_usd="0.2")


@task
async def mismeasured(which: dict[str, Any], ctx: Context) -> str:
    with pytest.raises((ValueError, TypeError, TerminalError)) as caught:
        ctx.telemetry.record(**which)
    return str(caught.value)


async def test_telemetry_adds_up_and_is_exact() -> None:
    async with rig(measured, mismeasured) as r:
        used = (await r.call("measured")).telemetry
        assert used is not None
        assert (used.tokens_in, used.tokens_out, used.tokens_used, used.cost_nano_usd) == (10, 5, 22, 300_000_002)
        assert (used.model, used.custom) == ("large", {"cache_hits": 3, "parts": {"a": [1]}})
        for wrong, message in (
            ({"tokens_in": -1}, "tokens_in is -1; it has to be between 0"),
            ({"tokens_out": 1.5}, "give a whole number"),
            ({"cost_usd": "much"}, "'much', which is not an amount of money"),
            ({"cost_usd": "NaN"}, "not an amount of money"),
            ({"cost_usd": "-1"}, "has to be between 0"),
            ({"big": 2**70}, "more than 64 bits"),
        ):
            record = await r.call("mismeasured", wrong)
            assert message in payload_value(record.result)


@task
async def look(ctx: Context) -> Any:
    entries = await ctx.history(limit=2)
    ctx.logger.warning("seen")
    facts = ctx.lifetime
    return [
        [e.seq for e in entries],
        ctx.idempotency_key,
        ctx.config,
        [facts.id, facts.tenant, facts.graph_name, facts.graph_version, facts.input, facts.labels],
    ]


look.config = {"k": "v"}


@task
def look_sync(ctx: Context) -> list[int]:
    return [e.seq for e in ctx.history_sync(2)]


async def test_the_context_knows_the_lifetime(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(look, look_sync) as r:
        r.log = [LogEntry(n, 0, Event(str(n), "paused")) for n in range(1, 5)]
        given: dict[str, Any] = {"lifetime_input": Payload(b'"go"', size=4), "labels": {"team": "a"}}
        first = await r.call("look", iteration=0, attempt=1, **given)
        second = await r.call("look", iteration=0, attempt=2, **given)
        seen, key, config, facts = payload_value(first.result)
        assert (seen, config) == ([3, 4], {"k": "v"})
        assert facts == [LIFETIME, "default", "rig", "1.0.0", "go", {"team": "a"}]
        assert key == payload_value(second.result)[1] != first.exec_id
        assert caplog.records[-1].name == "tickwork.node.look"
        assert vars(caplog.records[-1])["exec_id"] == second.exec_id
        assert caplog.records[-1].levelno == logging.WARNING
        assert payload_value((await r.call("look_sync")).result) == [3, 4]


async def test_history_sync_on_the_loop_is_refused_instead_of_hanging() -> None:
    async with rig(look_sync, threads=0) as r:
        record = await r.call("look_sync")
        assert record.error is not None
        assert "await ctx.history()" in record.error.message


@task
async def large(size: int) -> str:
    return "x" * size


@task
async def length(text: str) -> int:
    return len(text)


@task
def length_sync(text: bytes) -> bytes:
    return text * 2


async def test_a_large_result_lies_in_the_blob_store_before_its_record_is_sent() -> None:
    async with rig(large, length, length_sync) as r:
        record = await r.call("large", 2_000_000)
        result = record.result
        assert result is not None
        assert (result.inline, result.size) == (None, 2_000_002)
        assert result.uri is not None
        assert await r.blobs.get("default", result.uri, result.sha256) == b'"' + b"x" * 2_000_000 + b'"'
        assert payload_value((await r.call("length", input=result)).result) == 2_000_000
        uri, digest = await r.blobs.put("default", b"y" * 1_500_000)
        record = await r.call("length_sync", input=Payload(None, BYTES, uri, 1_500_000, digest))
        result = record.result
        assert result is not None
        assert (result.content_type, result.size, result.inline) == (BYTES, 3_000_000, None)


async def test_a_blob_that_is_not_there_fails_the_attempt() -> None:
    async with rig(length, length_sync) as r:
        for node in ("length", "length_sync"):
            lost = Payload(None, BYTES, "blob://default/" + "0" * 64, 5, "0" * 64)
            record = await r.call(node, input=lost)
            assert record.error is not None
            assert (record.error.type, record.error.retryable) == ("NotFound", False)


async def test_a_duplicate_of_a_running_input_is_not_run_again() -> None:
    calls: list[int] = []
    gate = asyncio.Event()

    @task
    async def wait(value: int) -> int:
        calls.append(value)
        await gate.wait()
        return value

    async with rig(wait) as r:
        message = r.message("wait", 1)
        await r.send(message, message)
        await until(lambda: calls)
        await r.send(message)
        await until(lambda: len(r.executor._attempts[message.exec_id].deliveries) == 3)
        gate.set()
        assert len(await r.receive()) == 1
        await until(lambda: r.unacknowledged() == 0)
        assert calls == [1]


async def test_credits_bound_what_runs_at_once() -> None:
    running, most, gate = 0, 0, asyncio.Event()

    @task
    async def wait() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    async with rig(wait, concurrency=7) as r:
        await r.send(*[r.message("wait", iteration=i) for i in range(50)])
        await until(lambda: running == 7)
        gate.set()
        assert len(await r.receive(50)) == 50
        assert most == 7


word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


@task
async def whose() -> str:
    seen = word.get()
    word.set("another attempt's")
    return seen


async def test_context_variables_do_not_leak_from_one_attempt_to_another() -> None:
    word.set("the worker's")
    async with rig(whose, concurrency=1) as r:
        await r.send(*[r.message("whose", iteration=i) for i in range(5)])
        assert {payload_value(e.result) for e in await r.receive(5)} == {"the worker's"}


async def test_threads_are_bounded_and_carry_context_variables() -> None:
    word.set("the worker's")
    most, lock, running = 0, threading.Lock(), 0
    barrier = threading.Barrier(3)

    @task
    def wait() -> str:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(10)
        with lock:
            running -= 1
        seen = word.get()
        word.set("another attempt's")
        return seen

    async with rig(wait, threads=3) as r:
        await r.send(*[r.message("wait", iteration=i) for i in range(30)])
        records = await r.receive(30)
        assert {payload_value(e.result) for e in records} == {"the worker's"}
        assert most == 3


async def test_an_input_for_an_unknown_graph_is_parked_until_it_is_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tickwork.executor.worker.STRANGE", 0.1)
    async with rig(double, bind=False) as r:
        await r.send(r.message("double", 1), r.message("double", 2, iteration=1))
        await until(lambda: caplog.records)
        assert r.unacknowledged() == 2
        assert len(caplog.records) == 1
        assert "Load it here" in caplog.text
        assert r.graph.graph.digest in caplog.text
        r.registry.bind(r.graph)
        records = await r.receive(2)
        assert [payload_value(e.result) for e in records] == [2, 4]


async def test_a_graph_that_is_bound_soon_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    bound, looked = asyncio.Event(), asyncio.Event()

    class Waiting(SystemClock):
        """The look at what is parked comes when the graph is bound."""

        async def sleep(self, seconds: float) -> None:
            if seconds != worker.STRANGE:
                return await super().sleep(seconds)
            await bound.wait()
            return looked.set()

    async with rig(double, bind=False, clock=Waiting()) as r:
        await r.send(r.message("double", 1))
        await until(lambda: r.executor.metrics()["parked"])
        r.registry.bind(r.graph)
        bound.set()
        await looked.wait()
        assert not caplog.records
        assert payload_value((await r.receive())[0].result) == 2


async def test_of_too_many_parked_inputs_the_oldest_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.executor.worker.PARKED", 3)
    async with rig(double, bind=False) as r:
        await r.send(*(r.message("double", n, iteration=n) for n in range(5)))
        await until(lambda: r.unacknowledged() == 3)
        metrics = r.executor.metrics()
        assert (metrics["parked"], metrics["parked_limit"]) == (3, 3)
        r.registry.bind(r.graph)
        assert [payload_value(e.result) for e in await r.receive(3)] == [4, 6, 8]


class Verbose(Plan):
    def run(self, plan_input: PlanInput) -> PlanResult:
        return PlanResult(["a"], reason="because " * 10_000)


async def test_the_reason_of_a_plan_is_cut() -> None:
    async with rig(Verbose()) as r:
        reason = (await r.call("Verbose")).reason
        assert reason is not None
        assert reason.startswith("because because")
        assert reason.endswith("... (63616 more characters were cut)")


async def test_what_cannot_be_decoded_goes_to_the_dead_letters() -> None:
    from tickwork.ports import BusMessage

    async with rig(double) as r:
        dead = await r.bus.subscribe(["dead-letters.*"], "test")
        await r.bus.publish("task-inputs.default", [BusMessage("key", b"garbage")])
        (letter,) = await dead.receive(1)
        assert letter.message.value == b"garbage"
        assert letter.message.headers is not None
        assert letter.message.headers["topic"] == "task-inputs.default"
        assert (await r.call("double", 1)).status == "SUCCEEDED"


async def test_what_runs_when_the_worker_stops_is_delivered_to_another() -> None:
    begun = asyncio.Event()

    @task
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with rig(wait) as r:
        await r.send(r.message("wait"))
        await begun.wait()
        assert r.loop_task is not None
        r.loop_task.cancel()
        await asyncio.gather(r.loop_task, return_exceptions=True)
        assert r.bus.depth("data-plane.*", "records") == 0
        other = await r.bus.subscribe(["task-inputs.*"], "executors")
        (delivery,) = await other.receive(10)
        assert delivery.redelivered


async def test_records_of_one_tick_travel_together() -> None:
    async with rig(double) as r:
        sent: list[int] = []
        publish = r.bus.publish

        async def counted(topic: str, batch: Any) -> None:
            sent.append(len(batch))
            await publish(topic, batch)

        r.bus.publish = counted  # type: ignore[method-assign]  # the real bus, watched
        await r.send(*[r.message("double", i, iteration=i) for i in range(200)])
        await r.receive(200)
        assert sent == [200, 200]


def test_an_execution_record_survives_its_encoding() -> None:
    record = Execution("x", "task", "n", "", 0, 1, (), "e", 1, 2, 3, "SUCCEEDED")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Execution) == record
