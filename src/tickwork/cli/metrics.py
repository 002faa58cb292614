"""`tickwork metrics`: what Prometheus may ask, printed once. TICKWORK_METRICS=HOST:PORT has every process serve it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tickwork.cli import output
from tickwork.cli.options import HERE, Json, Place

if TYPE_CHECKING:
    from tickwork.metrics import Family


def metrics(*, json: Json = False, place: Place = HERE) -> int:
    """What Prometheus may ask, in its text format: usage and budgets of all tenants, counters of the running process.

    The process that holds the home is asked; when nobody does, there is what the store knows.
    """
    found = _families(place)
    if json:
        output.emit_json(
            [
                {
                    "name": family.name,
                    "type": family.kind,
                    "help": family.about,
                    "series": _series(family),
                }
                for family in found
            ]
        )
        return 0
    from tickwork.metrics import exposition

    output.emit_text(exposition(found).decode())
    return 0


def _series(family: Family) -> list[dict[str, Any]]:
    def named(key: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(family.labels, key, strict=True))

    spreads = [
        {
            "labels": named(spread.key),
            "buckets": dict(spread.buckets),
            "sum": spread.sum,
            "count": spread.buckets[-1][1],
        }
        for spread in family.spreads
    ]
    return [*({"labels": named(key), "value": value} for key, value in family.series), *spreads]


def _families(place: Place) -> list[Family]:
    from tickwork.cli.reach import ask_holder, looking
    from tickwork.metrics import families_of

    told = ask_holder(place, "measurements", {})
    if told is not None:
        return families_of(told[0])

    async def work() -> list[Family]:
        async with looking(place) as runtime:
            return await runtime.measurements.measurements()

    return asyncio.run(work())
