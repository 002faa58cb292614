"""Every story on two homes of the local profile: the same way, and what one exports goes on in the other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.histories.form import FOLDER, read
from tests.histories.shapes import ABOVE, BELOW, USE
from tests.histories.stage import Stage
from tests.parity.checks import identical, same_ways
from tests.parity.shapes import STORIES
from tests.parity.stages import local
from tickwork.model.messages import Append
from tickwork.model.records import Event

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
async def test_every_story_goes_the_same_way_in_another_home(part: int, tmp_path: Path) -> None:
    async with local(tmp_path / "here") as here, local(tmp_path / "there") as there:
        for name, story in list(STORIES.items())[part::PARTS]:
            await same_ways(name, story, here, there, back=False)


async def test_a_deadline_passes_while_an_imported_lifetime_stands_still(tmp_path: Path) -> None:
    history = read((FOLDER / "human_default.jsonl").read_bytes())
    log = history.log[: next(e.seq for e in history.log if isinstance(e.entry, Event) and e.entry.type == "waiting")]
    waits = msgspec.structs.replace(history.lifetime, status="WAITING", finished_at=None)
    begin = Append("default", waits.lifetime_id, tuple(e.entry for e in log), ats=tuple(e.at for e in log))
    async with local(tmp_path / "here") as here, local(tmp_path / "there") as there:
        await here.runtime.service.register(history.graph)
        await here.runtime.store.create_lifetime(waits, begin)
        stage = Stage(there.runtime)
        await stage.bind(history.graph, USE)
        await there.take(await here.export(waits.lifetime_id))
        while len(await stage.log(waits.lifetime_id)) < len(log) + 3:
            await stage.sleep(0.02)
        settled = await stage.settle(waits.lifetime_id)
        assert (settled.status, settled.last_seq) == ("PAUSED", len(log) + 3), "a default answer that leads nowhere"
        await stage.service.resume(waits.lifetime_id)
        assert (await stage.end(waits.lifetime_id)).status == "COMPLETED"
        await identical(there, waits.lifetime_id)


async def test_a_child_without_its_parent_ends_and_tells_nobody(tmp_path: Path) -> None:
    async with local(tmp_path / "here") as here, local(tmp_path / "there") as there:
        stage, other = Stage(here.runtime), Stage(there.runtime)
        await stage.bind(BELOW, {"work": lambda ctx: stage.held()})
        parent = await stage.start(ABOVE, {"plan": "a"})
        while len(await here.all()) < 2:
            await stage.sleep(0.02)
        child = (await here.all())[-1].lifetime_id
        await other.bind(BELOW, {"work": "done"})
        await there.take(await here.export(child))
        await other.service.resume(child)
        assert (await other.end(child)).status == "COMPLETED"
        while not (letters := await there.runtime.store.dead_letters("default")):
            await other.sleep(0.02)
        assert "no lifetime" in letters[0].reason
        stage.gate.set()
        assert (await stage.end(parent)).status == "COMPLETED"
