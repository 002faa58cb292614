"""The Control Plane in a runtime: one lifetime that cannot be handled must not stop the others."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tickwork import Graph, human, task
from tickwork.errors import StorageError
from tickwork.profiles import Profile
from tickwork.runtime import Runtime


@task
async def greet(name: str) -> str:
    return f"hello {name}"


async def test_a_lifetime_with_a_broken_log_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    profile = Profile.local(tmp_path)
    asking = Graph("asking").start(human("ask", prompt="?")).final("ask").bind()
    greeting = Graph("greeting").start(greet).final(greet).bind()
    async with Runtime(profile) as runtime:
        await runtime.bind(asking)
        broken = (await runtime.service.start("asking")).lifetime_id
        await runtime.guard(runtime.service.wait(broken, until="settled"))
    with sqlite3.connect(tmp_path / "tickwork.db") as database:
        database.execute("UPDATE log SET body = x'c1' WHERE seq = 1")
    async with Runtime(profile) as runtime:
        for bound in (asking, greeting):
            await runtime.bind(bound)
        service = runtime.service
        await service.abort(broken, reason="look")
        with pytest.raises(StorageError, match=f"lifetime {broken} cannot go on: Entry 1 of"):
            await runtime.guard(service.wait(broken))
        fine = await service.start("greeting", "you")
        await runtime.guard(service.wait(fine.lifetime_id))
        assert (await service.result(fine.lifetime_id)).result == "hello you"


async def test_many_waiting_lifetimes_are_forgotten_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwork.orchestrator.held.IDLE_STATES", 3)
    async with Runtime(Profile.test()) as runtime:
        await runtime.bind(Graph("asking").start(human("ask", prompt="?")).final("ask").bind())
        service = runtime.service
        started = [await service.start("asking", n) for n in range(10)]
        for lifetime in started:
            await runtime.guard(service.wait(lifetime.lifetime_id, until="settled"))
        for n, lifetime in enumerate(started):
            await service.answer(lifetime.lifetime_id, n)
        for n, lifetime in enumerate(started):
            await runtime.guard(service.wait(lifetime.lifetime_id))
            assert (await service.result(lifetime.lifetime_id)).result == n
