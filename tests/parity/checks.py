"""What has to hold of a story on two installations, and of its lifetimes when they go from one to the other."""

from __future__ import annotations

from tests.histories.shapes import Story
from tests.histories.stage import Stage
from tests.parity.sameness import edges, trace
from tests.parity.stages import Installation
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Event, Execution, LogEntry, encode_entry
from tickwork.orchestrator.replay import ENDS


async def same_ways(name: str, story: Story, here: Installation, there: Installation, *, back: bool) -> None:
    """The story goes the same way on both, each replays what it recorded, and there takes what here exports.

    `back`: also the other way round.
    """
    try:
        told, again = await here.tell(story), await there.tell(story)
        assert len(told[1]) == len(again[1]) > 0
        for one, other in zip(told[1], again[1], strict=True):
            assert await trace(told[0], one) == await trace(again[0], other)
            await identical(here, one.lifetime_id)
            await identical(there, other.lifetime_id)
        for one in told[1]:
            await carried(here, there, told[0], one)
        for one in again[1] if back else ():
            await carried(there, here, again[0], one)
    except BaseException as error:
        error.add_note(f"in the story `{name}`")
        raise


async def identical(place: Installation, lifetime_id: str) -> None:
    """A replay finds nothing."""
    replayed = await place.runtime.history.replay(lifetime_id)
    assert replayed.divergence is None, replayed.divergence


async def carried(source: Installation, target: Installation, stage: Stage, one: Lifetime) -> None:
    """A lifetime arrives with the very bytes of its log, replays, and is forked there to the same end."""
    content = await source.export(one.lifetime_id)
    done = await target.take(content)
    assert done.diverges is None
    log, there = await stage.log(one.lifetime_id), await Stage(target.runtime).log(one.lifetime_id)
    assert bare(there[: len(log)]) == bare(log)
    assert done.status == (one.status if one.ended else "PAUSED")
    assert (await target.take(content)).created == []
    await identical(target, one.lifetime_id)
    if one.ended:
        assert await target.export(one.lifetime_id) == content
    await forked(source, target, one, log)
    if not one.ended:
        await resumed(target, one)


async def forked(source: Installation, target: Installation, one: Lifetime, log: list[LogEntry]) -> None:
    """A fork in the middle goes the same way on both. One whose first execution was late or cancelled has none."""
    end = next((e.seq for e in log if isinstance(e.entry, Event) and e.entry.type in ENDS), len(log) + 1)
    places = [e.entry for e in log if isinstance(e.entry, Execution) and e.seq < end]
    places = [x for x in places if x.status == "SUCCEEDED" and x.kind == "task"] or places
    if not places:
        return
    ways = []
    for place in (source, target):
        fork = await place.runtime.history.fork(one.lifetime_id, places[0].exec_id)
        settled = await place.runtime.guard(place.runtime.service.wait(fork.lifetime_id, until="settled"))
        await identical(place, fork.lifetime_id)
        ways.append((settled.status, edges(await Stage(place.runtime).log(fork.lifetime_id))))
    assert ways[0] == ways[1]


async def resumed(target: Installation, one: Lifetime) -> None:
    """One that had not ended has stood still until now, and goes on when somebody says so."""
    service = target.runtime.service
    arrived = await service.get(one.lifetime_id)
    assert (arrived.status, arrived.last_seq - one.last_seq) == ("PAUSED", int(one.status != "PAUSED"))
    await service.resume(one.lifetime_id, by="ann")
    settled = await target.runtime.guard(service.wait(one.lifetime_id, until="settled"))
    assert settled.last_seq > arrived.last_seq
    await identical(target, one.lifetime_id)


def bare(log: list[LogEntry]) -> list[tuple[int, int, bytes]]:
    """The log, byte for byte."""
    return [(logged.seq, logged.at, encode_entry(logged.entry)) for logged in log]
