"""Reads all weather stations at once and averages the first three answers; whoever is still silent is cancelled."""

from __future__ import annotations

import asyncio

from tickwork import Graph, Next, PlanResult, TimeLimits, plan, task


@plan
def ask_all(stations):
    return [Next("read", input=station) for station in stations]


@task(limits=TimeLimits(start_to_close=30))
async def read(station):
    if station.get("silent"):
        await asyncio.sleep(3600)
    return {"name": station["name"], "celsius": station["celsius"]}


@plan
def reduce(readings):
    seen = [one for one in readings if one is not None]
    return PlanResult(next=[Next("report", input=seen)], reason=f"{len(seen)} stations have answered")


@task
def report(readings):
    average = sum(one["celsius"] for one in readings) / len(readings)
    return {"celsius": round(average, 1), "stations": sorted(one["name"] for one in readings)}


graph = Graph("map_reduce", "1.0.0")
graph.start(ask_all)
graph.parallel(ask_all, read)
graph.join(read, reduce, mode="quorum", count=3)
graph.then(reduce, report)
graph.final(report)
