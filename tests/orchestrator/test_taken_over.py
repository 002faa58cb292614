"""What others have meanwhile is left to them: a lifetime whose key is another process's, an attempt that was begun with
just now.
"""

from __future__ import annotations

import asyncio

from tests.orchestrator.site import IllKV, Site, play
from tests.orchestrator.test_forgetful_claims import Hand
from tickwork import Graph, child, task
from tickwork.executor.claims import Claims
from tickwork.model import messages
from tickwork.model.claims import LEASE, claim_key, claim_value
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.orchestrator.leases import Leases
from tickwork.orchestrator.starting import PARENT_LABEL
from tickwork.ports import LifetimeQuery
from tickwork.testing.virtual import VirtualClock


def test_a_child_whose_key_is_another_processs_is_told_to_that_process_and_not_taken_up() -> None:
    @task
    async def work() -> str:
        return "done"

    async def scene(at: Site) -> None:
        await at.service.register(Graph("child").start(work).final(work).bind().graph)
        # No worker is there: all stand still, and their parents are looked at again and again.
        parents = [(await at.service.start("parent")).lifetime_id for _ in range(20)]
        await at.clock.sleep(1)
        below = LifetimeQuery(graph="child", limit=100)
        children = {found.labels[PARENT_LABEL]: found.lifetime_id for found in await at.service.list(below)}
        assert children.keys() == set(parents)
        other = await at.bus.subscribe(["control-plane.*"], "control-plane")
        topic = messages.topic(messages.CONTROL_PLANE, DEFAULT_TENANT)
        moved = {children[p] for p in parents if other.owns(topic, children[p]) and not other.owns(topic, p)}
        assert moved
        told: set[str] = set()
        async with asyncio.timeout(2 * LEASE):
            while not moved <= told:
                got = await other.receive(100)
                await other.ack(got)
                references = [messages.decode_committed(delivery.message.value) for delivery in got]
                told |= {reference.lifetime_id for reference in references if not reference.entries}
        assert not any(at.control.holds(known) for known in moved)

    below = child("below", graph="child")
    play(Graph("parent").start(below).final(below).bind(), scene)


async def test_an_attempt_is_given_up_only_if_nobody_has_begun_with_it_since_it_was_judged() -> None:
    clock = Hand(asyncio.get_running_loop())
    kv = IllKV(VirtualClock(asyncio.get_running_loop()))
    one, other = Leases(kv, clock, 30), Leases(kv, clock, 30)
    work = dict.fromkeys(("held", "over", "gone"), False)
    for name in ("held", "over"):
        await kv.put(claim_key(name), claim_value("dead", 0))
    found: dict[str, str] = {}
    for clock.time in range(0, 45, 5):
        found |= await one.looks(work)
        found |= await other.looks(work)
    assert (found["held"], found["over"]) == ("lost", "lost")
    await kv.put(claim_key("over"), claim_value("next", 0))  # the claim had run out, and the input came to another one
    assert await one.given_up(["held", "over"]) == {"held"}
    assert await other.given_up(["held", "over"]) == set()
    assert not await Claims(kv, clock, "late", LEASE).take("held")
    assert await one.looks(work) | await other.looks(work) == {"held": "lost", "over": "alive", "gone": "unclear"}
    assert await other.given_up(["held"]) == {"held"}  # what was recorded of it got lost: it is recorded again
    kv.away = True
    assert await other.given_up(["held", "never looked at"]) == {"held"}
