"""Policies that change while lifetimes run: what comes into force, when, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tickwork import Graph, child, plan, task
from tickwork.clock import RandomIds
from tickwork.errors import PolicyInvalid
from tickwork.formats.policies import read_policies
from tickwork.formats.policy_files import PolicyFiles
from tickwork.model import messages
from tickwork.model.lifetime import Lifetime
from tickwork.model.messages import Committed
from tickwork.model.policy import PolicyDocument
from tickwork.model.records import Event
from tickwork.orchestrator.control_plane import ControlPlane
from tickwork.orchestrator.graphs import GraphIndex
from tickwork.orchestrator.policies import PolicyIndex
from tickwork.orchestrator.rebuilding import Rebuilder
from tickwork.ports import BusMessage, Delivery, LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.loading import BoundGraph
from tickwork.testing.harness import check_replay
from tickwork.testing.virtual import VirtualClock, run_virtual


def laws(*lines: str) -> PolicyDocument:
    return read_policies(text(*lines))


def text(*lines: str) -> str:
    return "version: 1\npolicies:\n" + "".join(f"  - {line}\n" for line in lines)


def budget(limit: int, action: str = "pause_lifetime") -> str:
    return f"{{name: budget, match: {{name: work}}, when: sum(tokens_used) > {limit}, action: {action}}}"


class Stage:
    """A runtime whose Task waits for a gate in its second turn."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.service = runtime, runtime.service
        self.gate = asyncio.Event()

    async def start(self, policies: PolicyDocument | None = None) -> str:
        """A lifetime that stands in its second turn: 100 tokens are used, and a Task is in flight."""
        stored = await self.runtime.bind(turns(self.gate))
        one = (await self.service.start(stored.digest, 1, policies=policies)).lifetime_id
        await asyncio.sleep(0.5)
        return one

    async def load(self, *lines: str) -> str:
        """Puts the tenant's policies in force; none: takes them out."""
        if lines:
            document = read_policies("tenant: default\n" + text(*lines))
            return (await self.runtime.accounts.apply_policies(document)).digest
        return (await self.runtime.accounts.remove_policies(tenant="default")).digest

    async def settled(self, one: str) -> Lifetime:
        return await self.runtime.guard(self.service.wait(one, until="settled"))

    async def events(self, one: str, *kinds: str) -> list[Event]:
        log = await self.service.log(one, limit=1000)
        return [e.entry for e in log if isinstance(e.entry, Event) and e.entry.type in kinds]


def turns(gate: asyncio.Event) -> BoundGraph:
    @plan
    def again(job: Any, ctx: Any) -> str:
        return "work" if ctx.iteration < 5 else "end"

    @task(maximum={"tokens": 100})
    async def work(job: Any, ctx: Any) -> int:
        if ctx.iteration == 1:
            await gate.wait()
        ctx.telemetry.record(tokens_used=100, model="m-1")
        return int(ctx.iteration)

    made = Graph("turns", "1.0.0")
    made.start(again)
    made.then(again, work)
    made.edge(work, again)
    made.final(again)
    return made.bind()


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    clock = VirtualClock(asyncio.get_running_loop())
    async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=7), threads=0) as runtime:
        yield Stage(runtime)


def play(tell: Callable[[Stage], Awaitable[None]]) -> None:
    async def go() -> None:
        async with staged() as stage:
            await tell(stage)
            await check_replay(stage.runtime)

    run_virtual(go())


# -- documents --------------------------------------------------------------------------------------------------------


def test_files_that_change_break_and_go_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "budget.yaml"

    async def tell(stage: Stage) -> None:
        store = stage.runtime.store
        index = PolicyIndex(store, store, stage.runtime.clock, PolicyFiles(tmp_path))
        await index.start()
        assert index.current("default", "turns").digest == ""
        file.write_text(text(budget(100)))
        await index.refresh()
        first = index.current("default", "turns").digest
        assert first
        for number in range(3):  # it is broken, broken otherwise, and broken so again
            file.write_text(text("{name: budget, when: sum(tokns_used) > 100, action: warn}") + "\n" * min(number, 1))
            await index.refresh()
            assert index.current("default", "turns").digest == first, "the old one stays in force"
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1, "the same problem is told once"
        assert "tokns_used" in errors[0]
        assert "stay in force" in errors[0]
        assert "budget.yaml" in errors[0]
        assert index.counts["invalid"] == 1
        file.write_text(text(budget(100000)))
        await index.refresh()
        second = index.current("default", "turns").digest
        assert second not in ("", first)
        file.write_text(text(budget(100)) + "# as before\n")
        await index.refresh()
        assert index.current("default", "turns").digest == first
        file.unlink()
        await index.refresh()
        assert index.current("default", "turns").digest == ""
        file.write_text("version: 1\npolicies: [")
        with pytest.raises(PolicyInvalid):
            await PolicyIndex(store, store, stage.runtime.clock, PolicyFiles(tmp_path)).start()

    with caplog.at_level(logging.ERROR, "tickwork"):
        play(tell)


def test_a_folder_that_is_named_and_vanishes_leaves_its_policies_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(text(budget(100)))

    async def tell(stage: Stage) -> None:
        store = stage.runtime.store
        index = PolicyIndex(store, store, stage.runtime.clock, PolicyFiles(folder, required=True))
        await index.start()
        before = index.current("default", "turns").digest
        (folder / "a.yaml").unlink()
        folder.rmdir()
        await index.refresh()
        assert index.current("default", "turns").digest == before != ""

    play(tell)
    assert "no such file or folder" in caplog.text


def test_documents_of_the_store_and_of_files_are_in_force_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("{name: cap, when: count() > 9, action: warn}"))

    async def tell(stage: Stage) -> None:
        store = stage.runtime.store
        index = PolicyIndex(store, store, stage.runtime.clock, PolicyFiles(tmp_path))
        await index.start()
        await stage.load(budget(100))
        await index.refresh()
        labels = [rule.label for rule in index.current("default", "turns").all]
        assert labels == ["installation/cap", "tenant/budget"]
        assert [rule.label for rule in index.current("acme", "turns").all] == ["installation/cap"]
        await stage.load()
        await index.refresh()
        assert [rule.label for rule in index.current("default", "turns").all] == ["installation/cap"]
        assert len(await store.policies(history=True)) == 2

    play(tell)


# -- lifetimes --------------------------------------------------------------------------------------------------------


def test_a_running_lifetime_takes_the_new_set_with_its_next_entry_and_counts_from_its_first_record() -> None:
    async def tell(stage: Stage) -> None:
        one = await stage.start()
        await stage.load(budget(250))
        await asyncio.sleep(5)
        assert await stage.events(one, "policies") == [], "nothing is recorded for a reload alone"
        stage.gate.set()
        lifetime = await stage.settled(one)
        assert lifetime.status == "PAUSED"
        (verdict,) = await stage.events(one, "verdict")
        assert verdict.data["values"] == {"sum(tokens_used)": "300"}, "the first record was before the set"
        (policies,) = await stage.events(one, "policies")
        assert policies.data["digest"] == verdict.data["digest"]

    play(tell)


def test_a_paused_lifetime_takes_the_new_set_when_it_is_resumed() -> None:
    async def tell(stage: Stage) -> None:
        await stage.load(budget(150))
        one = await stage.start()
        assert (await stage.settled(one)).status == "PAUSED"
        await stage.load(budget(350))
        await asyncio.sleep(5)
        assert await stage.events(one, "policies") == []
        stage.gate.set()
        await stage.service.resume(one, by="ann")
        assert (await stage.settled(one)).status == "PAUSED"
        assert [e.type for e in await stage.events(one, "policies", "resumed", "paused")] == [
            "paused", "policies", "resumed", "paused",
        ]  # fmt: skip
        (_, second) = await stage.events(one, "verdict")
        assert second.data["values"] == {"sum(tokens_used)": "400"}

    play(tell)


def test_there_and_back_again_are_two_changes() -> None:
    async def tell(stage: Stage) -> None:
        await stage.load(budget(100_000))
        one = await stage.start()
        for limit in (200_000, 100_000):
            await stage.load(budget(limit))
            await stage.service.pause(one)
            await asyncio.sleep(0.5)
            await stage.service.resume(one)
            await asyncio.sleep(0.5)
        stage.gate.set()
        assert (await stage.settled(one)).status == "COMPLETED"
        named = [event.data["digest"] for event in await stage.events(one, "policies")]
        (started,) = await stage.events(one, "started")
        assert len(named) == 2
        assert named[1] == started.data["policies"] != named[0]

    play(tell)


def test_policies_of_the_lifetime_itself_stay_whatever_is_loaded() -> None:
    async def tell(stage: Stage) -> None:
        one = await stage.start(laws(budget(150)))
        paused = await stage.settled(one)
        assert paused.status == "PAUSED"
        stage.gate.set()
        for lines in (("{name: other, when: count() > 900, action: warn}",), ()):
            await stage.load(*lines)
            await stage.service.resume(one)
            paused = await stage.settled(one)
            assert paused.status == "PAUSED"
            assert paused.reason is not None
            assert "policy run/budget" in paused.reason

    play(tell)


def test_policies_that_are_taken_away_stop_nothing_more() -> None:
    async def tell(stage: Stage) -> None:
        await stage.load(budget(150))
        one = await stage.start()
        assert (await stage.settled(one)).status == "PAUSED"
        await stage.load()
        stage.gate.set()
        await stage.service.resume(one)
        assert (await stage.settled(one)).status == "COMPLETED"
        assert [e.data["digest"] for e in await stage.events(one, "policies")] == [""]

    play(tell)


def test_children_have_the_policies_of_the_lifetime_that_starts_them() -> None:
    @plan
    def below(job: Any, ctx: Any) -> str:
        return "spend" if ctx.iteration < 9 else "end"

    @task
    def spend(job: Any, ctx: Any) -> None:
        ctx.telemetry.record(tokens_used=100)

    inner = Graph("inner", "1.0.0")
    inner.start(below)
    inner.then(below, spend)
    inner.edge(spend, below)
    inner.final(below)

    @plan
    def above(job: Any, ctx: Any) -> str:
        return "sub"

    outer = Graph("outer", "1.0.0")
    outer.start(above)
    outer.then(above, child("sub", graph="inner"))
    outer.final("sub")

    async def tell(stage: Stage) -> None:
        await stage.runtime.bind(inner.bind())
        stored = await stage.runtime.bind(outer.bind())
        law = laws("{name: budget, match: {name: spend}, when: sum(tokens_used) > 250, action: pause_lifetime}")
        one = (await stage.service.start(stored.digest, 1, policies=law)).lifetime_id
        await asyncio.sleep(2)
        (inside,) = [x for x in await stage.service.list(LifetimeQuery()) if x.lifetime_id != one]
        assert inside.status == "PAUSED"
        assert inside.reason is not None
        assert "policy run/budget" in inside.reason
        await stage.load("{name: other, when: count() > 900, action: warn}")
        await stage.service.resume(inside.lifetime_id, raised={"budget": "350"})
        again = await stage.settled(inside.lifetime_id)
        assert again.status == "PAUSED"
        assert again.reason is not None
        assert "over 350" in again.reason

    play(tell)


def test_two_control_planes_record_each_change_once() -> None:
    async def tell(stage: Stage) -> None:
        runtime = stage.runtime
        store, clock, plane = runtime.store, runtime.clock, runtime._data_plane
        blobs = runtime.profile.open_blobs(clock)
        indexes = [runtime.policies, PolicyIndex(store, store, clock)]
        await indexes[1].start()
        rebuilder = Rebuilder(store, blobs, GraphIndex(store), indexes[1])
        second = ControlPlane(plane._bus, store, blobs, rebuilder, indexes[1], store, plane, clock)
        seen: list[Committed] = []
        plane.on_commit.append(seen.append)

        async def follow() -> None:
            while True:
                batch, seen[:] = list(seen), []
                found = [BusMessage(r.lifetime_id, messages.encode(r)) for r in batch if r.first_seq]
                await second.run_once([Delivery("control-plane.default", m, n) for n, m in enumerate(found)])
                await asyncio.sleep(0.01)

        following = asyncio.create_task(follow())
        one = await stage.start()
        for limit in (100_000, 200_000, 100_000):
            await stage.load(budget(limit))
            await indexes[1].refresh()
            await stage.service.pause(one)
            await asyncio.sleep(0.5)
            await stage.service.resume(one)
            await asyncio.sleep(0.5)
        stage.gate.set()
        assert (await stage.settled(one)).status == "COMPLETED"
        following.cancel()
        named = [event.data["digest"] for event in await stage.events(one, "policies")]
        assert len(named) == 3
        assert named[0] == named[2] != named[1]

    play(tell)
