"""Records that a worker makes up are counted exactly, are refused, or fail closed, and nothing else feels it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.orchestrator.driver import ONCE, graph
from tests.orchestrator.guarded import GuardedRun
from tickwork import Graph, plan, task
from tickwork.clock import RandomIds
from tickwork.formats.policies import read_policies
from tickwork.model import messages
from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Append
from tickwork.model.policy import PolicySet
from tickwork.model.records import Event, Execution, LogEntry, Payload, Telemetry, encode_entry, json_payload
from tickwork.model.spending import LARGEST, UsageQuery
from tickwork.ports import BusMessage
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import check_replay
from tickwork.testing.virtual import VirtualClock, run_virtual

HUGE = 2**63


class Stranger:
    """Somebody who may publish what workers publish."""

    def __init__(self, runtime: Runtime, gate: asyncio.Event) -> None:
        self.runtime, self.service, self.gate = runtime, runtime.service, gate

    async def start(self, *lines: str, tenant: str = "default") -> str:
        """A lifetime whose only Task waits for the gate."""
        law = read_policies("version: 1\npolicies:\n" + "".join(f"  - {line}\n" for line in lines)) if lines else None
        stored = await self.runtime.bind(waits(self.gate), tenant=tenant)
        one = (await self.service.start(stored.digest, 1, policies=law, tenant=tenant)).lifetime_id
        await asyncio.sleep(0.5)
        assert self.visits(one) or self.gate.is_set()
        return one

    def visits(self, one: str) -> list[Any]:
        state = self.runtime._control_plane._held.get(one)
        return [v for v in state.open.values() if v.node == "work"] if state is not None else []

    def execution(self, one: str, **changes: Any) -> Execution:
        """The record that its worker would make, but for what was changed."""
        (visit,) = self.visits(one)
        now = self.runtime.clock.now()
        done = Execution(
            visit.exec_id, "task", "work", visit.branch, visit.iteration, visit.attempt, visit.parents,
            visit.edge_taken, visit.created_at, visit.created_at, now, "SUCCEEDED", "ffff python/0.1.0",
            json_payload({"n": 1}),
        )  # fmt: skip
        return msgspec.structs.replace(done, **changes)

    async def publish(self, one: str, *entries: Execution | Event, tenant: str = "default", topic: str = "") -> None:
        append = Append(tenant, one, entries)
        await self.send(one, messages.encode(append), topic or tenant)

    async def send(self, key: str, body: bytes, tenant: str = "default") -> None:
        bus = self.runtime._data_plane._bus
        await bus.publish(messages.topic(messages.DATA_PLANE, tenant), [BusMessage(key, body)])
        await asyncio.sleep(0.5)

    async def settled(self, one: str) -> Lifetime:
        return await self.runtime.guard(self.service.wait(one, until="settled"))

    async def log(self, one: str, tenant: str = "default") -> list[LogEntry]:
        return await self.service.log(one, limit=1000, tenant=tenant)

    async def verdicts(self, one: str) -> list[dict[str, Any]]:
        return [e.entry.data for e in await self.log(one) if isinstance(e.entry, Event) and e.entry.type == "verdict"]

    async def dead(self, tenant: str = "default") -> list[str]:
        return [letter.reason for letter in await self.runtime.store.dead_letters(tenant)]


def waits(gate: asyncio.Event) -> BoundGraph:
    @plan
    def pick(job: Any, ctx: Any) -> str:
        return "work"

    @task(retry=ONCE)
    async def work(job: Any, ctx: Any) -> Any:
        await gate.wait()
        return {"n": 1}

    made = Graph("waits", "1.0.0")
    made.start(pick)
    made.then(pick, work)
    made.final(work)
    return made.bind()


@asynccontextmanager
async def staged() -> AsyncIterator[Stranger]:
    clock = VirtualClock(asyncio.get_running_loop())
    async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=5), threads=0) as runtime:
        gate = asyncio.Event()
        yield Stranger(runtime, gate)
        gate.set()


def play(tell: Callable[[Stranger], Awaitable[None]]) -> None:
    async def go() -> None:
        async with staged() as stranger:
            await tell(stranger)
            await check_replay(stranger.runtime)

    run_virtual(go())


UNMEASURABLE: list[tuple[str, dict[str, Any]]] = [
    ("tokens_used", {"tokens_used": -1}),
    ("tokens_in", {"tokens_in": -HUGE}),
    ("cost_usd", {"cost_nano_usd": -1}),
    ("cost_usd", {"cost_nano_usd": 5, "unpriced": True}),
    *[("custom.pages", {"custom": {"pages": value}}) for value in (
        -1, math.nan, math.inf, -math.inf, "9", "", True, None, [1], {"n": 1}, 10**13, 1e300, b"9")],
]  # fmt: skip


@pytest.mark.parametrize(("measure", "said"), UNMEASURABLE, ids=str)
@pytest.mark.parametrize("action", ["warn", "abort_lifetime"])
def test_what_is_no_amount_fails_closed_and_is_named(measure: str, said: dict[str, Any], action: str) -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start(f"{{name: budget, when: sum({measure}) > 1000000, action: {action}}}")
        await stranger.publish(one, stranger.execution(one, telemetry=Telemetry(**said)))
        lifetime = await stranger.settled(one)
        assert lifetime.status == "PAUSED"
        (verdict,) = await stranger.verdicts(one)
        assert verdict["action"] == "pause_lifetime"
        assert measure.removeprefix("custom.") in verdict["error"] or "cost" in verdict["error"]
        assert verdict["node"] == "work"

    play(tell)


@pytest.mark.parametrize(("measure", "said"), UNMEASURABLE, ids=str)
def test_what_is_no_amount_takes_nothing_off_what_is_counted(measure: str, said: dict[str, Any]) -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: other, when: count() > 100, action: abort_lifetime}")
        await stranger.publish(one, stranger.execution(one, telemetry=Telemetry(**said)))
        assert (await stranger.settled(one)).status == "COMPLETED", "a policy that does not read it is not concerned"
        (row,) = await stranger.runtime.store.usage(UsageQuery(tenant_id="default"))
        assert min(row.tokens_in, row.tokens_used, row.cost_nano_usd, row.latency_us, row.queue_us) >= 0
        end = (await stranger.log(one))[-1].entry
        assert isinstance(end, Event)
        assert end.data["tokens_used"] >= 0
        assert end.data["cost_nano_usd"] >= 0

    play(tell)


@pytest.mark.parametrize(
    "changes",
    [
        {"telemetry": Telemetry(tokens_used=2**64 - 1, cost_nano_usd=2**64 - 1)},
        {"telemetry": Telemetry(tokens_used=HUGE - 1, cost_nano_usd=HUGE - 1)},
        {"finished_at": 2**63 - 1},
        {"started_at": 2**63 - 1, "finished_at": 2**63 - 1},
        {"created_at": -HUGE, "started_at": -HUGE},
    ],
)
def test_absurd_amounts_are_over_every_limit_and_break_nothing(changes: dict[str, Any]) -> None:
    async def tell(stranger: Stranger) -> None:
        limit = "sum(tokens_used) > 1000 || sum(latency_ms) > 1000000 || sum(queue_ms) > 1000000"
        one = await stranger.start(f'{{name: budget, when: "{limit}", action: abort_lifetime}}')
        await stranger.publish(one, stranger.execution(one, **changes))
        stranger.gate.set()
        assert (await stranger.settled(one)).status in ("ABORTED", "COMPLETED")
        (row,) = await stranger.runtime.store.usage(UsageQuery(tenant_id="default"))
        assert row.executions >= 2
        other = await stranger.start()
        assert (await stranger.settled(other)).status == "COMPLETED", "the planes are alive"

    if "created_at" in changes:
        # It stands elsewhere than the visit that it answers; nothing in the planes minds, the replay does.
        with pytest.raises(Exception, match="does not replay"):
            play(tell)
    else:
        play(tell)


def test_a_record_without_telemetry_counts_as_an_execution_and_uses_nothing() -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: most, when: count() > 1, action: warn, match: {kind: task}}",
                                   "{name: used, when: sum(tokens_used) > 0, action: warn}",
                                   "{name: all, when: count() >= 2, action: warn}")  # fmt: skip
        await stranger.publish(one, stranger.execution(one))
        assert (await stranger.settled(one)).status == "COMPLETED"
        assert [verdict["policy"] for verdict in await stranger.verdicts(one)] == ["run/all"]

    play(tell)


@pytest.mark.parametrize("result", [b"{", b"\xff\xfe", b"", b"[" * 5_000, b"1e999999"])
def test_a_result_that_is_no_json_fails_closed_where_a_policy_reads_it(result: bytes) -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: n, scope: execution, when: result.n > 5, action: warn, match: {name: work}}")
        await stranger.publish(one, stranger.execution(one, result=Payload(result, size=len(result))))
        assert (await stranger.settled(one)).status == "PAUSED"
        (verdict,) = await stranger.verdicts(one)
        assert "cannot be evaluated" in verdict["error"]

    play(tell)


@pytest.mark.parametrize("result", [b"{", b"[" * 5_000])
def test_a_result_that_is_no_json_fails_its_branch_where_the_graph_reads_it(result: bytes) -> None:
    template = graph("start -> work", "work -> end | result.n > 1", "work -> plan_again", "plan_again -> work")
    run = GuardedRun(template, lambda visit, run: 1, (PolicySet(),)).start()
    done = run.execution(run.next_visit(), 1)
    run.append(msgspec.structs.replace(done, result=Payload(result, size=len(result))))
    assert run.status == "FAILED"
    assert run.reason.startswith("work: condition_error")


def test_what_adds_up_to_more_than_a_record_takes_stays_at_the_largest_number() -> None:
    template = graph("start -> work", "work -> plan_again", "plan_again -> end")
    huge = Telemetry(tokens_used=2**64 - 1, cost_nano_usd=2**64 - 1)
    run = GuardedRun(template, lambda visit, run: 1, (PolicySet(),), used=lambda visit: huge).start()
    while run.in_flight:
        visit = run.next_visit()
        run.append(run.execution(visit, ["end"] if visit.node == "plan_again" else 1))
    end = run.log[-1].entry
    assert isinstance(end, Event)
    assert (end.type, end.data["tokens_used"], end.data["cost_nano_usd"]) == ("completed", LARGEST, LARGEST)
    assert encode_entry(end), "nobody could record it"


def test_a_duplicate_counts_once_and_another_result_of_the_same_attempt_is_kept_apart() -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: budget, when: sum(tokens_used) > 10, action: warn, match: {name: work}}")
        done = stranger.execution(one, telemetry=Telemetry(tokens_used=6))
        await stranger.publish(one, done)
        for _ in range(3):
            await stranger.publish(one, done)
        assert await stranger.verdicts(one) == []
        await stranger.publish(one, msgspec.structs.replace(done, telemetry=Telemetry(tokens_used=7)))
        kinds = [e.entry.type for e in await stranger.log(one) if isinstance(e.entry, Event)]
        assert kinds == ["started", "completed", "superseded"]
        (row,) = await stranger.runtime.store.usage(UsageQuery(tenant_id="default"))
        assert (row.executions, row.tokens_used) == (2, 13)

    play(tell)


def test_a_record_that_claims_another_tenant_goes_to_the_dead_letters_of_its_own() -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: budget, when: sum(tokens_used) > 10, action: abort_lifetime}")
        theirs = await stranger.start(tenant="acme")
        forged = stranger.execution(theirs, telemetry=Telemetry(tokens_used=10**6))
        await stranger.publish(theirs, forged, tenant="acme", topic="default")  # their name on our topic
        await stranger.publish(theirs, forged)  # our name, their lifetime
        await stranger.publish(one, forged, tenant="acme")  # their topic, our lifetime
        for lifetime_id, tenant in ((one, "default"), (theirs, "acme")):
            names = [e.entry.name for e in await stranger.log(lifetime_id, tenant) if isinstance(e.entry, Execution)]
            assert names == ["pick"]
        ours, acmes = await stranger.dead(), await stranger.dead("acme")
        assert sorted(reason.partition(" ")[0] for reason in ours) == ["it", "tenant"]
        assert [reason for reason in acmes if "has no lifetime" in reason]
        stranger.gate.set()
        assert (await stranger.settled(one)).status == "COMPLETED"

    play(tell)


def test_a_record_of_another_lifetimes_execution_leads_nowhere_and_still_counts() -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: budget, when: sum(tokens_used) > 10, action: abort_lifetime}")
        other = await stranger.start()
        await stranger.publish(one, stranger.execution(other, telemetry=Telemetry(tokens_used=11)))
        assert len(stranger.visits(one)) == 1, "its own visit is still to be answered"
        stranger.gate.set()
        assert (await stranger.settled(one)).status == "ABORTED", "what was used in its name counts"
        assert (await stranger.settled(other)).status == "COMPLETED"

    with pytest.raises(Exception, match="nothing led to this execution"):
        play(tell)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["default", "ID", [["x", "e", "task", "work", "", "0"]]]),
        msgspec.msgpack.encode(["default", "ID", [["e", "x:1", "no-such-type", {}]]]),
    ],
)
def test_what_cannot_be_decoded_goes_to_the_dead_letters(body: bytes) -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start()
        before = len(await stranger.log(one))
        await stranger.send(one, body)
        (reason,) = await stranger.dead()
        assert reason.startswith("it cannot be decoded")
        assert len(await stranger.log(one)) == before

    play(tell)


@pytest.mark.parametrize("said", [math.nan, "9", 1.5, None])
def test_telemetry_of_another_type_is_not_taken_at_all(said: Any) -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start("{name: budget, when: sum(tokens_used) > 10, action: abort_lifetime}")
        plain = msgspec.msgpack.decode(messages.encode(Append("default", one, (stranger.execution(one),))))
        plain[2][0][16] = [0, 0, said, 0]
        await stranger.send(one, msgspec.msgpack.encode(plain))
        assert len(await stranger.dead()) == 1
        stranger.gate.set()
        assert (await stranger.settled(one)).status == "COMPLETED"

    play(tell)


def test_policies_that_a_forged_entry_takes_out_of_force_are_back_with_the_next_one() -> None:
    async def tell(stranger: Stranger) -> None:
        one = await stranger.start()
        law = "{name: cap, when: sum(tokens_used) > 5, action: abort_lifetime}"
        await stranger.runtime.accounts.apply_policies(read_policies(f"version: 1\npolicies:\n  - {law}\n"))
        await stranger.runtime.policies.refresh()
        await stranger.publish(one, Event("policies:made-up", "policies", {"digest": ""}))
        events = [e.entry for e in await stranger.log(one) if isinstance(e.entry, Event)]
        assert [bool(e.data["digest"]) for e in events if e.type == "policies"] == [False, True]
        await stranger.publish(one, stranger.execution(one, telemetry=Telemetry(tokens_used=6)))
        assert (await stranger.settled(one)).status == "ABORTED"

    play(tell)
