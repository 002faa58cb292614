from __future__ import annotations

import gc
import time

import pytest

from tests.executor.rig import rig, until
from tickwork.sdk.nodes import plan, task

COUNT = 10_000


@task
async def nothing(value: int) -> int:
    return value


@plan
def choose(value: int) -> str:
    return "nothing"


@pytest.mark.parametrize(("node", "budget_us"), [("nothing", 300), ("choose", 600)])
async def test_ten_thousand_queued_inputs_are_worked_off(node: str, budget_us: float) -> None:
    async with rig(nothing, choose) as r:
        inputs = [r.message(node, i, iteration=i) for i in range(COUNT)]
        await r.send(*inputs)
        gc.collect()
        began = time.perf_counter()
        executions = await r.receive(COUNT)
        each = (time.perf_counter() - began) / COUNT * 1e6
        print(f"{node}: {each:.1f} us an execution")
        assert {e.status for e in executions} == {"SUCCEEDED"}
        assert len({e.exec_id for e in executions}) == COUNT
        await until(lambda: r.unacknowledged() == 0)
        assert each < budget_us
