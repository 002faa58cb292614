"""What the nodes of simulated graphs do, and the ledger in which every call of them is written.

User code is not deterministic here, as it is not in life: a second call of one execution may end in another way. What
a call does depends on the seed, the execution and the number of the call.
"""

from __future__ import annotations

import asyncio
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.errors import RetryableError, TerminalError
from tickwork.sdk.context import Context
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.loading import BoundGraph
from tickwork.sdk.values import Next
from tickwork.testing.simulation.dice import Dice
from tickwork.testing.simulation.graphs import LEAVES, POOL, leaf, pooled
from tickwork.testing.simulation.guarding import MODELS
from tickwork.testing.simulation.scheduler import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.model.graph import AgentGraph, Node
    from tickwork.testing.simulation.process import SimulatedProcess
    from tickwork.testing.simulation.world import World

MIDDLING = "x" * 2_000
"""Makes a result too large to travel with a reference (see `world.small_limits`)."""

LARGE = "x" * 6_000
"""Makes a result too large for a record."""


class Call(msgspec.Struct):
    """One call of user code: an effect on the world, whatever becomes of its result."""

    tenant_id: str
    lifetime_id: str
    exec_id: str
    key: str
    node: str
    kind: str
    attempt: int
    process: str
    began: float
    stubborn: bool = False
    """It goes on when it is told to stop."""
    given: Any = None
    """Its input, where that is a list: of a join, the results of its branches."""
    ended: float | None = None
    how: str = ""


class Ledger:
    """Every call of user code, in order. Independent of everything that Tickwork records."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.by_exec: dict[str, list[Call]] = {}
        self.of_lifetime: dict[str, int] = {}

    def enter(self, call: Call) -> int:
        """Writes a call down; which call of this execution it is, from 0."""
        self.calls.append(call)
        self.of_lifetime[call.lifetime_id] = self.of_lifetime.get(call.lifetime_id, 0) + 1
        same = self.by_exec.setdefault(call.exec_id, [])
        same.append(call)
        return len(same) - 1


@lru_cache(maxsize=POOL)
def bind_pooled(number: int) -> BoundGraph:
    """Graph number `number` of the pool, with its code."""
    return _bound(pooled(number))


@lru_cache(maxsize=LEAVES)
def bind_leaf(number: int) -> BoundGraph:
    """Child graph number `number`, with its code."""
    return _bound(leaf(number))


def _bound(graph: AgentGraph) -> BoundGraph:
    made = {node.name: _implementation(graph, node) for node in graph.nodes if node.runs_code}
    return BoundGraph(graph, made, f"simulation:{graph.name}", Path())


def _implementation(graph: AgentGraph, node: Node) -> Implementation:
    style = Dice("style", graph.name, node.name)
    stubborn = style.chance(0.2)
    is_async = style.chance(0.7) or node.limits.heartbeat is not None

    async def run(given: Any, ctx: Context) -> Any:
        world, dice, call = _enter(given, ctx, node, stubborn=stubborn)
        process = OWNER.get().host
        if _is_poison(world, ctx) or world.faults.strikes("process.code", process.name, node.name):
            world.kill(world.processes.index(process))
            await asyncio.sleep(0)  # noqa: TID251 - never comes back
        try:
            await _take_time(world, dice, node, ctx, stubborn=stubborn)
            return _end(world, dice, call, graph, node, ctx)
        except asyncio.CancelledError:
            if not world.closing:
                call.ended, call.how = world.loop.time(), "cancelled"
            raise

    def run_sync(given: Any, ctx: Context) -> Any:
        world, dice, call = _enter(given, ctx, node)
        return _end(world, dice, call, graph, node, ctx)

    def hook(given: Any, ctx: Context) -> Any:
        return _what_happened(given, ctx)

    function: Callable[..., Any] = run if is_async else run_sync
    asks = hook if node.effect == "at_most_once" and style.chance(0.6) else None
    return Implementation(node.name, node.kind, function, "", asks)


def _what_happened(_given: Any, ctx: Context) -> Any:
    """The reconcile hook of a Task: it looks into the ledger, as a real one asks the service that was called."""
    world: World = OWNER.get().host.world
    calls = world.ledger.by_exec.get(ctx.exec_id, [])
    world.trace(OWNER.get().name, f"reconciles {ctx.node} ({ctx.exec_id}): {len(calls)} calls")
    if not calls:
        raise RetryableError("it did not happen")
    if calls[0].ended is None:
        raise ValueError("nobody can tell yet")
    if calls[0].how != "returned":
        raise TerminalError(f"it ended so: {calls[0].how}")
    return {"n": 0, "reconciled": True}


def _is_poison(world: World, ctx: Context) -> bool:
    """Whether this visit ends every worker that runs it, while the world is ill."""
    rate = world.options.rates.get("process.poison", 0.0)
    visit = Dice(world.seed, "poison", ctx.lifetime.id, ctx.branch, ctx.node, ctx.iteration)
    if not rate or not world.faults.on or not visit.chance(rate):
        return False
    world.faults.struck("process.poison", OWNER.get().name, ctx.node)
    return True


def _enter(given: Any, ctx: Context, node: Node, *, stubborn: bool = False) -> tuple[World, Dice, Call]:
    process: SimulatedProcess = OWNER.get().host
    world = process.world
    now = world.loop.time()
    facts = ctx.lifetime
    call = Call(
        facts.tenant, facts.id, ctx.exec_id, ctx.idempotency_key, node.name, node.kind, ctx.attempt, process.name, now,
        stubborn, given if isinstance(given, list) else None,
    )  # fmt: skip
    number = world.ledger.enter(call)
    if world.options.guarded:
        _spend(Dice(world.seed, "spend", ctx.exec_id, number), ctx)
    size = len(given) if isinstance(given, list | dict) else 1
    what = f"{node.name} {ctx.branch}#{ctx.iteration}/{ctx.attempt}"
    world.trace(process.name, f"calls {what} of {facts.id[-6:]} with {size} ({ctx.exec_id})")
    return world, Dice(world.seed, "call", ctx.exec_id, number), call


def _spend(dice: Dice, ctx: Context) -> None:
    """Says what the call uses, whatever becomes of it: mostly what was declared, sometimes more, sometimes nonsense."""
    if dice.chance(0.15):
        return
    tokens_in = dice.randint(0, 9) + (30 if dice.chance(0.1) else 0)
    custom = {"pages": dice.randint(0, 4)} if dice.chance(0.5) else {}
    cost = f"0.00000{dice.randint(0, 9)}"
    model = dice.choice([None, *MODELS])
    ctx.telemetry.record(tokens_in=tokens_in, tokens_out=dice.randint(0, 5), cost_usd=cost, model=model, **custom)
    if dice.chance(0.06):  # what the SDK refuses, a worker that was written by somebody else may send
        wrong: dict[str, Any] = dice.choice([
            {"unpriced": True},
            {"tokens_used": -7},
            {"tokens_in": -1, "tokens_used": 3},
            {"cost_nano_usd": -1_000},
            {"custom": {"pages": math.nan}},
            {"custom": {"pages": "many"}},
            {"custom": {"pages": -3.5, "other": math.inf}},
            {"custom": {"pages": True}},
            {"tokens_used": 2**62, "tokens_in": 2**63 - 1},
        ])  # fmt: skip
        ctx.telemetry.totals = msgspec.structs.replace(ctx.telemetry.totals, **wrong)


async def _take_time(world: World, dice: Dice, node: Node, ctx: Context, *, stubborn: bool) -> None:
    if not dice.chance(world.options.slow):
        if dice.chance(0.5):
            await asyncio.sleep(0)  # noqa: TID251 - user code gives way, no time passes
        return
    left = dice.spread(0.001, 100)
    while left > 0:
        try:
            await asyncio.sleep(min(left, 2.5))  # noqa: TID251 - virtual time
        except asyncio.CancelledError:
            if not stubborn or world.closing:
                raise
        left -= 2.5
        if node.limits.heartbeat is None or dice.chance(0.98):
            ctx.heartbeat()


def _end(world: World, dice: Dice, call: Call, graph: AgentGraph, node: Node, ctx: Context) -> Any:
    call.ended = world.loop.time()
    try:
        _fail_sometimes(world, dice)
        tokens = dice.randint(0, 9)
        if not world.options.guarded:
            ctx.telemetry.record(tokens_in=tokens, cost_usd="0.000001")
        value = _result(world, dice, ctx) if node.kind == "task" else _choice(world, dice, graph, node, ctx)
    except Exception as error:
        call.how = type(error).__name__
        raise
    call.how = "returned"
    return value


def _fail_sometimes(world: World, dice: Dice) -> None:
    if dice.chance(world.options.failing):
        kind = dice.choice(["later", "again", "again", "never", "wrong"])
        if kind == "later":
            raise RetryableError("not now", retry_after=dice.choice([0.5, 45]))
        if kind == "again":
            raise RetryableError("now and then")
        if kind == "never":
            raise TerminalError("this cannot be done")
        raise ValueError("a bug in user code")


def _result(world: World, dice: Dice, ctx: Context) -> Any:
    value: dict[str, Any] = {"n": dice.randint(0, 9), "by": ctx.exec_id[:8]}
    if dice.chance(world.options.large):
        value["pad"] = dice.choice([MIDDLING, LARGE])
    return value


def _choice(world: World, dice: Dice, graph: AgentGraph, node: Node, ctx: Context) -> Any:
    edges = graph.outgoing[node.name]
    final = [e for e in edges if e.kind == "FINAL"]
    if world.ledger.of_lifetime[ctx.lifetime.id] > world.options.calls:
        return ["end"] if final and dice.chance(0.5) else []
    if dice.chance(0.02):
        return ["nowhere"]
    edge = dice.choice([e for e in edges if e.kind != "FINAL" or dice.chance(0.2)] or list(edges))
    if edge.kind != "PARALLEL" or ctx.branch.count("/") >= 3:
        plain = [e for e in edges if e.kind != "PARALLEL"]
        return [dice.choice(plain).target] if plain else []
    parallel = [e.target for e in edges if e.kind == "PARALLEL"]
    chosen = dice.choices(parallel, k=dice.randint(1, 4))
    return [Next(t, {"n": i}) if dice.chance(0.3) else t for i, t in enumerate(chosen)]
