"""The parts of the benchmark, one after the other, each on an installation of its own."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from benchmarks.cloud import capacity, closed, processes, thinking, window
from benchmarks.cloud.capacity import Assumptions, Point
from benchmarks.cloud.deployment import TENANTS, Deployment
from benchmarks.cloud.hops import hops
from benchmarks.cloud.latency import Samples, latencies
from benchmarks.cloud.plan import Sizes
from benchmarks.cloud.processes import Usage
from benchmarks.cloud.report import MB, Report
from benchmarks.cloud.schedule import Stage
from benchmarks.cloud.servers import Servers
from benchmarks.cloud.thinking import Group, Measured

LIMIT = 250.0
"""Milliseconds that the p99 of a planner loop may take."""

OVER = 2
"""Stages above the limit after which no higher rate is tried: one may be bad luck."""

LEAST_STEPS = 2_000.0
MOST_MOVED = 20.0
"""Percent by which a noisy tenant may move another's p99."""

PACED_LIVES = 300
"""Lifetimes of a noisy tenant that has a rate."""

FLOODED = 120.0
"""Seconds in which all lifetimes of a flood have to be started."""

SIZES = ((100_000, 60.0), (100_000, 10.0), (1_000_000, 600.0), (1_000_000, 60.0))
"""Lifetimes and seconds of thinking that the model is asked about."""


async def w2(servers: Servers, sizes: Sizes, report: Report) -> None:
    """The closed load, roles in processes of their own and all in one process."""
    for name, together in (("one process for each role", False), ("all roles in one process", True)):
        report.title(f"W2: {sizes.lifetimes:,} lifetimes of {sizes.cycles} cycles, {name}")
        async with Deployment(servers, together=together) as deployment:
            await closed.warm_up(deployment, sizes.lifetimes, sizes.cycles)
            runs = [await closed.run(deployment, sizes.lifetimes, sizes.cycles) for _ in range(sizes.reps)]
        report.closed(f"W2, {name}", runs)
        reached = statistics.median(run.steps_per_second for run in runs)
        report.target(f"W2, {name}", reached, "steps/s", LEAST_STEPS)


async def loops(servers: Servers, sizes: Sizes, report: Report, *, model: bool) -> None:
    """Planner loops at rising rates, until two stages were too slow; and the model made from them."""
    report.title(f"{sizes.lives:,} lifetimes that think, an open loop; latency from the schedule, ms")
    over = 0

    def go_on(found: Measured) -> bool:
        nonlocal over
        report.stage(found)
        over += found.latency.p99 > LIMIT
        return over < OVER or found.rate <= sizes.wanted

    async with Deployment(servers) as deployment:
        idle = await _cores(deployment, sizes.idle)
        empty = processes.resident_bytes(deployment.pids)
        wall = time.time() - time.monotonic()
        group, samples = thinking.one_group(sizes.lives), Samples(deployment.folder)
        took = await thinking.open_all(deployment, [group], samples)
        report.say(f"all are open after {took:.1f} s: {sizes.lives / took:,.0f} starts/s")
        await asyncio.sleep(sizes.stand)
        standing = await _cores(deployment, sizes.idle)
        found = await thinking.staircase(deployment, group, samples, sizes.stages(), go_on)
        asked = next((each for each in found if each.rate == sizes.wanted), found[0])
        parts = await hops(deployment.database, wall + asked.opened, wall + asked.closed)
    report.figures["loops"] = found
    _memory(report, empty, found)
    if parts is not None:
        report.figures["hops"] = parts
        report.say(
            f"where a loop goes at {asked.rate:,.0f}/s, medians in ms: Task to log {parts.task_to_log:.1f}, log to "
            f"Plan {parts.log_to_plan:.1f}, Plan {parts.plan:.1f}, Plan to log {parts.plan_to_log:.1f}, log to Task "
            f"{parts.log_to_task:.1f}"
        )
    held = [each.rate for each in found if each.latency.p99 < LIMIT and not each.latency.late]
    report.say(f"the highest rate with p99 under {LIMIT:g} ms: {max(held, default=0):,.0f} loops/s")
    at_wanted = [each.latency.p99 for each in found if each.rate == sizes.wanted]
    if at_wanted:
        name = f"p99 at {sizes.wanted:,.0f} loops/s, median of {len(at_wanted)} stages"
        report.target(name, statistics.median(at_wanted), "ms", LIMIT, at_most=True)
    if model:
        _model(report, sizes, idle, standing, empty, found)


async def _cores(deployment: Deployment, seconds: float) -> Usage:
    """Cores that everybody takes for so long."""
    before = await window.look(deployment)
    await asyncio.sleep(seconds)
    return window.between(before, await window.look(deployment)).cores()


def _memory(report: Report, empty: Usage, found: Sequence[Measured]) -> None:
    last = found[-1].resident
    grown = ", ".join(
        f"{name} {empty[name] / MB:,.0f} -> {found[0].resident[name] / MB:,.0f} -> {last[name] / MB:,.0f}"
        for name in last
    )
    report.say(f"memory, MB, without lifetimes, after the first stage, after the last: {grown}")


def _model(report: Report, sizes: Sizes, idle: Usage, standing: Usage, empty: Usage, found: Sequence[Measured]) -> None:
    """Made from the lowest and the highest rate that was held, checked against those in between."""
    report.title("The model: cores when idle, for lifetimes that think, and for steps")
    held = [each for each in found if each.latency.reached > 0.95 * each.latency.rate and not each.latency.late]
    held.sort(key=lambda each: each.used.steps / each.used.seconds)
    if len({each.rate for each in held}) < 2:
        report.say("fewer than two rates were held: there is nothing to make it from")
        return
    points = [Point(sizes.lives, each.used.steps / each.used.seconds, each.used.cores()) for each in held]
    low, high = points[0], points[-1]
    grown = sum(held[-1].resident[name] - empty[name] for name in ("executor", "control-plane"))
    costs = capacity.fitted(idle, standing, low, high, held[-1].used, max(0.0, grown / sizes.lives))
    report.figures["costs"] = costs
    report.model(costs, capacity.compared(costs, [each for each in points if low.steps < each.steps < high.steps]))
    for lives, think in SIZES:
        report.needs(capacity.needs(costs, lives, think), Assumptions())


async def scale_out(servers: Servers, sizes: Sizes, report: Report) -> None:
    """The same load on more processes. On one machine it cannot grow; what is seen is what sharing costs."""
    report.title(f"Scale-out: W2 with {sizes.scale_lifetimes:,} lifetimes and several processes of each role")
    first = 0.0
    for each in sizes.each:
        async with Deployment(servers, each=each) as deployment:
            await closed.warm_up(deployment, sizes.scale_lifetimes, sizes.cycles)
            runs = [await closed.run(deployment, sizes.scale_lifetimes, sizes.cycles) for _ in range(sizes.reps)]
        middle = report.closed(f"{each} of each role", runs)
        cost = sum(middle.used.per_step().values())
        first = first or cost
        report.say(f"    {cost:.2f} ms CPU a step, {100 * (cost / first - 1):+.0f} % over {sizes.each[0]} of each")


async def neighbour(servers: Servers, sizes: Sizes, report: Report) -> None:
    """Tenants at a low rate, watched alone and beside one at a hundred times the load of each, by turns: what else the
    machine does, and what it is slow at, falls on both. There are several of them because one has few loops to time."""
    rate, rounds, several = sizes.neighbour_rate, sizes.neighbour_rounds, sizes.neighbours
    each = sizes.neighbour_lives
    quiet = [Group(f"quiet-{n}", f"quiet-{n}", n * each, each) for n in range(several)]
    # And opening many would take as long as their first executions do.
    lives = sizes.noise_lives if not sizes.tenant_rate else min(sizes.noise_lives, PACED_LIVES)
    noisy = Group("noisy", TENANTS[0], 1_000_000, lives)
    loud = sizes.noise * rate
    report.title(f"A neighbour: {several} tenants at {rate:g} loops/s each, beside one at {loud:,.0f}")
    if sizes.tenant_rate:
        report.say(f"executors begin {sizes.tenant_rate:g} executions a second of each tenant; what is above it waits")
    span = thinking.LEAD + sizes.neighbour / rounds
    stages = [Stage(noise, span) for _ in range(rounds) for noise in (0.0, loud)]
    if sizes.tenant_rate:
        # What is above the rate is worked off for long after the noise: one turn. Before it, what the rate allows, so
        # that a broker which is slow at first is not compared with one that has become fast. A loop is two executions.
        span = thinking.LEAD + sizes.neighbour
        stages = [Stage(0.45 * sizes.tenant_rate, span / 2), Stage(0.0, span), Stage(loud, span)]
    async with Deployment(servers, tenant_rate=sizes.tenant_rate) as deployment:
        samples = Samples(deployment.folder)
        await deployment.register([group.tenant for group in quiet])
        await thinking.open_all(deployment, (*quiet, noisy), samples)
        theirs = thinking.turn(deployment, noisy, stages)
        steady = [Stage(rate, sum(stage.seconds for stage in stages))]
        watched = [(thinking.turn(deployment, group, steady), group.numbers) for group in quiet]
        silent, noised = [
            [(opens + thinking.LEAD, closes) for stage, opens, closes in theirs.windows() if stage.rate == noise]
            for noise in (0.0, loud)
        ]
        await asyncio.sleep(noised[-1][1] + thinking.GRACE - time.monotonic())
        samples.read()
        now = time.monotonic()
        alone, beside = [latencies(samples, watched, spans, now) for spans in (silent, noised)]
        other = latencies(samples, [(theirs, noisy.numbers)], noised, now)
    report.figures["neighbour"] = {"alone": alone, "beside": beside, "noisy": other}
    report.tenants({"alone": alone, "beside it": beside, "the noisy one": other})
    report.target("p99 moved by", 100 * (beside.p99 / alone.p99 - 1), "%", MOST_MOVED, at_most=True)


async def flood(servers: Servers, sizes: Sizes, report: Report) -> None:
    """One tenant at a low rate, watched alone and then beside one that takes all it can get."""
    quiet, span = Group("quiet", TENANTS[1], 0, sizes.neighbour_lives), sizes.neighbour
    rate = sizes.neighbour_rate
    report.title(f"A flood: {rate:g} loops/s of one tenant, beside {sizes.flood_lives:,} busy lifetimes of another")
    async with Deployment(servers) as deployment:
        samples = Samples(deployment.folder)
        await closed.warm_up(deployment, sizes.lifetimes, sizes.cycles)
        await thinking.open_all(deployment, [quiet], samples)
        schedule = thinking.turn(deployment, quiet, [Stage(rate, 2 * span + FLOODED + thinking.LEAD)])
        middle = schedule.origin + span
        await asyncio.sleep(middle - time.monotonic())
        await asyncio.wait_for(closed.flood(deployment, sizes.flood_lives), FLOODED)
        opens = time.monotonic() + thinking.LEAD
        await asyncio.sleep(opens - time.monotonic())
        before = await window.look(deployment)
        await asyncio.sleep(opens + span - time.monotonic())
        used = window.between(before, await window.look(deployment))
        await asyncio.sleep(thinking.GRACE)
        samples.read()
        now = time.monotonic()
        alone = latencies(samples, [(schedule, quiet.numbers)], [(schedule.origin, middle)], now)
        beside = latencies(samples, [(schedule, quiet.numbers)], [(opens, opens + span)], now)
    report.figures["flood"] = {"alone": alone, "beside": beside, "used": used}
    report.tenants({"alone": alone, "beside the flood": beside})
    report.say(f"all together meanwhile: {used.steps / used.seconds:,.0f} steps/s")


async def soak(servers: Servers, sizes: Sizes, report: Report) -> None:
    """A fixed rate for long: is throughput flat, and memory bounded?"""
    minutes = max(2, round(sizes.soak_minutes))
    report.title(f"Soak: {sizes.lives:,} lifetimes, {sizes.soak_rate:g} loops/s, {minutes} minutes")
    stages = [Stage(sizes.soak_rate, sizes.minute)] * minutes

    def go_on(found: Measured) -> bool:
        report.stage(found)
        report.say("               MB: " + " ".join(f"{n} {b / MB:,.0f}" for n, b in found.resident.items()))
        return True

    async with Deployment(servers) as deployment:
        group, samples = thinking.one_group(sizes.lives), Samples(deployment.folder)
        await thinking.open_all(deployment, [group], samples)
        found = await thinking.staircase(deployment, group, samples, stages, go_on)
    report.figures["soak"] = found
    per_hour = 3600 / sizes.minute
    reached = [each.latency.reached for each in found]
    report.say(f"throughput: {per_hour * slope(reached) / statistics.mean(reached):+.2%} an hour")
    for name in found[0].resident:
        held = [each.resident[name] / MB for each in found]
        report.say(f"memory of {name}: {per_hour * slope(held):+,.1f} MB an hour, {held[0]:,.0f} -> {held[-1]:,.0f}")


def slope(values: Sequence[float]) -> float:
    """What each value is above the one before, on the average: the line of least squares."""
    return statistics.linear_regression(range(len(values)), values).slope
