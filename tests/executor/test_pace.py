"""How fast tenants may go: rates as they are written, tokens, and an executor that holds one tenant back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.executor.rig import LIFETIME, rig, until
from tickwork.errors import UsageError
from tickwork.executor.pace import LOOK, Pace, TenantRates
from tickwork.model import messages
from tickwork.model.records import Execution
from tickwork.ports import BusMessage, Subscription
from tickwork.sdk.nodes import task
from tickwork.testing.conformance.checks import SettableClock


class Member:
    """A subscription with a share that a test sets."""

    def __init__(self, share: float = 1.0) -> None:
        self.part = share
        self.looked = 0

    def share(self, topic: str) -> float:
        return self.part

    def look_again(self) -> None:
        self.looked += 1


class Desk:
    """A Pace whose looks a test runs by hand."""

    def __init__(self, rates: str, member: Member | None = None) -> None:
        self.clock = SettableClock()
        self.member = member or Member()
        self.looks: list[Coroutine[Any, Any, None]] = []
        self.pace = Pace(TenantRates.parse(rates), self.clock, self.looks.append)
        subscription: Any = self.member
        given: Subscription = subscription
        gate = self.pace.gate(given)
        assert gate is not None
        self.admit = gate

    def admitted(self, tenant: str, most: int = 1_000) -> int:
        count = 0
        while count < most and self.admit(f"task-inputs.{tenant}"):
            count += 1
        return count

    async def look(self) -> float:
        before = self.clock.monotonic()
        await self.looks.pop()
        return self.clock.monotonic() - before


# -- what is written


def test_rates_are_for_all_for_some_or_both() -> None:
    assert TenantRates.parse("50").of("acme") == 50
    both = TenantRates.parse(" 50, acme=500 ,slow=0.5")
    assert (both.of("acme"), both.of("slow"), both.of("another")) == (500, 0.5, 50)
    some = TenantRates.parse("acme=10")
    assert (some.of("acme"), some.of("another")) == (10, None)
    assert some
    assert not TenantRates.parse("")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fast", "`fast` is no number above 0"),
        ("0", "`0` is no number above 0"),
        ("-1", "`-1` is no number above 0"),
        ("nan", "`nan` is no number above 0"),
        ("inf", "`inf` is no number above 0"),
        ("acme=", "`` is no number above 0"),
        ("a b=5", "`a b` cannot be the name of a tenant"),
        ("=5", "`` cannot be the name of a tenant"),
        ("5,6", "the rate of each tenant is given twice"),
        ("acme=5,acme=6", "the rate of acme is given twice"),
    ],
)
def test_a_rate_that_makes_no_sense_is_told(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        TenantRates.parse(text)
    assert why in str(caught.value)


# -- tokens


def test_nobody_asks_when_there_are_no_rates() -> None:
    subscription: Any = Member()
    assert Pace(TenantRates(), SettableClock(), lambda _: None).gate(subscription) is None


def test_a_second_of_its_rate_at_once_and_then_no_faster() -> None:
    desk = Desk("20")
    assert desk.admitted("acme") == 20
    for _ in range(50):
        desk.clock.advance(0.125)
        assert desk.admitted("acme") in (2, 3)
    assert desk.admitted("acme") == 0
    desk.clock.advance(60)
    assert desk.admitted("acme") == 20, "what was not used for long is a second's worth"
    desk.looks.pop().close()


def test_each_tenant_has_its_own() -> None:
    desk = Desk("5,big=50,none=0.5")
    assert desk.admitted("small") == 5
    assert desk.admitted("big") == 50
    assert desk.admitted("none") == 1, "one is allowed however slow the rate is"
    assert desk.pace.held_back == {"small", "big", "none"}
    only = Desk("acme=5")
    assert only.admitted("another") == 1_000
    desk.looks.pop().close()


def test_both_kinds_of_inputs_count_together() -> None:
    desk = Desk("4")
    taken = [desk.admit(f"{kind}.acme") for kind in ("task-inputs", "plan-inputs") for _ in range(3)]
    assert taken == [True, True, True, True, False, False]
    desk.looks.pop().close()


def test_a_member_has_its_share_of_the_rate() -> None:
    desk = Desk("40", Member(share=0.25))
    assert desk.admitted("acme") == 10
    desk.clock.advance(1)
    assert desk.admitted("acme") == 10
    desk.member.part = 1.0  # the other members have left
    desk.clock.advance(1)
    assert desk.admitted("acme") == 40
    desk.looks.pop().close()


def test_what_did_not_begin_does_not_count() -> None:
    desk = Desk("3")
    assert desk.admitted("acme") == 3
    desk.pace.give_back("acme")
    desk.pace.give_back("nobody")
    assert desk.admitted("acme") == 1
    desk.looks.pop().close()


def test_it_looks_again_when_the_first_may_go_on() -> None:
    async def run() -> None:
        desk = Desk("2,fast=1000")
        desk.admitted("acme")
        assert len(desk.looks) == 1
        assert await desk.look() == pytest.approx(0.5)
        assert desk.member.looked == 1
        assert desk.pace.held_back == set()
        assert desk.admitted("acme") == 1
        desk.admitted("fast", 2_000)
        assert len(desk.looks) == 1, "one look is for all"
        assert await desk.look() == pytest.approx(LOOK), "not more often than it is worth"
        assert desk.admitted("fast") == round(1000 * LOOK)
        desk.looks.pop().close()

    asyncio.run(run())


def test_one_without_a_share_is_looked_at_again() -> None:
    async def run() -> None:
        desk = Desk("2", Member(share=0.0))
        desk.admitted("acme")
        assert 0 < await desk.look() <= 1

    asyncio.run(run())


def test_the_log_says_once_who_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("2")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            desk.admitted("acme")
            desk.clock.advance(0.5)
    (said,) = caplog.messages
    assert said == "tenant acme has more to do than its 2 executions a second (--tenant-rate): what is above it waits"
    desk.looks.pop().close()


# -- an executor


@task
async def quick(value: int) -> int:
    return value


def test_an_executor_holds_one_tenant_back_and_serves_the_others() -> None:
    async def run() -> None:
        async with rig(quick, rates=TenantRates.parse("default=20")) as r:
            mine = [r.message("quick", n, iteration=n) for n in range(40)]
            loop = asyncio.get_running_loop()
            began = loop.time()
            await r.send(*mine)
            theirs = [r.message("quick", n, iteration=100 + n) for n in range(60)]
            await r.bus.publish("task-inputs.other", [BusMessage(LIFETIME, messages.encode(i)) for i in theirs])
            found: list[Execution] = []
            others = 0
            while len(found) < 40:
                deliveries = await r.records.receive(1_000)
                for delivery in deliveries:
                    append = messages.decode_append(delivery.message.value)
                    entries = [e for e in append.entries if isinstance(e, Execution)]
                    if any(e.iteration >= 100 for e in entries):
                        others += len(entries)
                        assert len(found) <= 20, "another tenant does not wait for the one that is held back"
                    else:
                        found += entries
            assert loop.time() - began >= 0.9, "twenty at once, and twenty at twenty a second"
            assert others == 60
            assert [e.iteration for e in found] == list(range(40)), "in order"
            assert r.executor.metrics()["taken"] == 100

    asyncio.run(run())


def test_a_duplicate_costs_a_tenant_nothing() -> None:
    async def run() -> None:
        async with rig(quick, rates=TenantRates.parse("10")) as r:
            first = r.message("quick", 0)
            await r.send(*[first] * 9)
            await r.receive()
            await until(lambda: not r.unacknowledged())
            began = asyncio.get_running_loop().time()
            await r.send(*[r.message("quick", n, iteration=n) for n in range(1, 9)])
            await r.receive(8)
            assert asyncio.get_running_loop().time() - began < 0.5

    asyncio.run(run())
