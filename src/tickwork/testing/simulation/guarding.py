"""The policies of simulated worlds, and those who answer for them: they load documents, change and remove them.

Conditions are drawn from a few forms that the second opinion (`warden`) can read by itself. Amounts are as small as
what simulated user code says that it used (`usercode`), so that limits are met all the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.model.policy import Action, Layer, Match, Policy, PolicyDocument, Scope, Window
from tickwork.ports import StoredPolicies
from tickwork.testing.simulation.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.graph import AgentGraph, NodeKind
    from tickwork.testing.simulation.world import World

MODELS = ("m-1", "m-2")
"""Models that simulated code names; an attempt may name none."""

TEAMS = ("red", "blue")
"""Values of the label `team`, which every lifetime of a guarded world has."""

ACTIONS: tuple[Action, ...] = (
    "warn", "warn", "reject_execution", "reject_execution", "pause_lifetime", "pause_lifetime", "pause_lifetime",
    "abort_lifetime",
)  # fmt: skip

WINDOWS = (
    None, None, Window(seconds=60), Window(seconds=600), Window(seconds=3600), Window(calendar="hour"),
    Window(calendar="day"), Window(calendar="week", time_zone="Europe/Berlin"), Window(calendar="month"),
)  # fmt: skip


def label_of(layer: Layer, name: str) -> str:
    """What verdicts call a policy."""
    return f"{layer}/{name}"


class Drawer:
    """Draws policies for the graphs of one world."""

    def __init__(self, dice: Dice, graphs: Sequence[AgentGraph]) -> None:
        self.dice, self.graphs = dice, graphs
        self._count = 0
        names = {node.name for graph in graphs for node in graph.nodes}
        self.nodes = sorted(names)
        coded = {node.name for graph in graphs for node in graph.nodes if node.kind == "task" and node.runs_code}
        other = {node.name for graph in graphs for node in graph.nodes if not (node.kind == "task" and node.runs_code)}
        self.results = sorted(coded - other)
        """Nodes that return `{"n": ...}` in each graph that has them."""

    def document(self, tenant: str = "", graph: str = "", most: int = 3) -> PolicyDocument:
        """A document of one layer."""
        policies = tuple([self.policy() for _ in range(self.dice.randint(1, most))])
        return PolicyDocument(policies=policies, tenant=tenant, graph=graph)

    def policy(self) -> Policy:
        """One policy of any scope."""
        dice = self.dice
        self._count += 1
        scope: Scope = dice.choice(["lifetime", "lifetime", "lifetime", "execution", "tenant", "tenant"])
        action = dice.choice(ACTIONS)
        match = self._match()
        window = None
        if scope == "lifetime":
            when = self._of_lifetime()
        elif scope == "tenant":
            when, window = self._of_tenant(), dice.choice(WINDOWS)
        else:
            when, match = self._of_execution(match)
        return Policy(
            name=f"p{self._count}-{dice.getrandbits(16):x}", when=when, action=action, scope=scope, match=match,
            window=window, shadow=dice.chance(0.15),
        )  # fmt: skip

    def _match(self) -> Match:
        dice = self.dice
        kind: NodeKind | None = dice.choice([None, None, None, "task", "plan"])
        name = dice.choice([(), (), (), (), ("task*",), ("plan?", "task0"), (dice.choice(self.nodes),)])
        model = dice.choice([(), (), (), (), ("m-1",), ("m-*",)])
        labels = dice.choice([{}, {}, {}, {}, {"team": dice.choice(TEAMS)}, {"team": "*"}])
        if dice.chance(0.03):
            labels = {"nobody": "*"}
        graph = dice.choice([(), (), (), ("graph*",), (dice.choice(self.graphs).name,)])
        return Match(kind=kind, name=name, model=model, labels=labels, graph=graph)

    def _of_lifetime(self) -> str:
        dice = self.dice
        forms = [
            f"sum(tokens_used) > {dice.randint(5, 60)}",
            f"sum(tokens_used) >= {dice.randint(5, 60)}",
            f"sum(cost_usd) > 0.00000{dice.randint(5, 30)}",
            f"count() > {dice.randint(2, 9)}",
            f"iterations('{dice.choice(self.nodes)}') > {dice.randint(1, 3)}",
            f"elapsed() > {dice.choice([0.5, 2, 20, 100])}",
            f"max(tokens_used) > {dice.randint(8, 40)}",
            f"avg(tokens_used) > {dice.randint(5, 12)}",
            f"sum(custom.pages) > {dice.randint(2, 30)}",
            f"sum(tokens_in) > {dice.randint(5, 30)} && count() > {dice.randint(2, 10)}",
        ]
        return dice.choice([*forms, forms[0], forms[0], forms[3]])

    def _of_tenant(self) -> str:
        dice = self.dice
        return dice.choice([
            f"sum(tokens_used) > {dice.randint(10, 120)}",
            f"sum(tokens_used) >= {dice.randint(10, 120)}",
            f"sum(cost_usd) > 0.0000{dice.randint(10, 99)}",
            f"count() > {dice.randint(3, 25)}",
            f"avg(tokens_used) > {dice.randint(6, 12)}",
            f"sum(custom.pages) > {dice.randint(5, 60)}",
        ])  # fmt: skip

    def _of_execution(self, match: Match) -> tuple[str, Match]:
        dice = self.dice
        if self.results and dice.chance(0.5):
            match = msgspec.structs.replace(match, kind="task", name=(dice.choice(self.results),))
            return dice.choice([f"result.n == {dice.randint(0, 9)}", "result.nothing > 1"]), match
        return dice.choice([
            f"telemetry.tokens_used > {dice.randint(8, 40)}",
            f"sum(tokens_used) > {dice.randint(8, 40)}",
            f"sum(custom.pages) > {dice.randint(1, 4)}",
            f"header.attempt > {dice.randint(1, 2)}",
        ]), match  # fmt: skip


class Officer:
    """Whoever answers for the policies of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = Dice(world.seed, "officer")
        self.drawer = Drawer(self.dice, [bound.graph for bound in world.bounds])
        self.changed = False
        """Whether anything was loaded while processes ran."""
        self.loads: list[float] = []
        """When."""
        self._layers: dict[tuple[str, str], PolicyDocument | None] = {}
        """What every layer should have, as far as the officer knows."""
        self._unsure: set[tuple[str, str]] = set()
        """Layers that may have what was there before: the last load broke."""

    async def begin(self) -> None:
        """Before any process runs: what is in force from the first moment on. Sometimes that is nothing."""
        world, dice = self.world, self.dice
        keys = [("", ""), *[(tenant, "") for tenant in world.tenants]]
        keys += [(dice.choice(["", *world.tenants]), world.bounds[main].graph.name) for main in world.mains]
        chosen = [key for key in keys if dice.chance(0.5)]
        if world.options.reloading and dice.chance(0.4):
            chosen = []
        for tenant, graph in chosen:
            document = self.drawer.document(tenant, graph)
            self._layers[tenant, graph] = document
            await world.database.store.put_policies(self._stored(document))

    def _stored(self, document: PolicyDocument) -> StoredPolicies:
        body = msgspec.json.encode(document) if document.policies else b""
        at = self.world.store_clock.now()
        return StoredPolicies(document.tenant, document.graph, document.digest, body, at, "officer")

    async def live(self) -> None:
        """Loads documents anew as long as faults strike."""
        world, dice = self.world, self.dice
        while world.faults.on:
            await asyncio.sleep(dice.expovariate(4 / world.options.phase))  # noqa: TID251 - virtual time
            if world.faults.on:
                await self.change()

    async def change(self) -> None:
        """Loads a document for some layer, or empties it."""
        world, dice = self.world, self.dice
        tenant = dice.choice(["", *world.tenants])
        graph = dice.choice(["", "", *[world.bounds[main].graph.name for main in world.mains]])
        if self._layers and dice.chance(0.5):
            tenant, graph = dice.choice(sorted(self._layers))
        if dice.chance(0.3):
            await self.load(PolicyDocument(policies=(), tenant=tenant, graph=graph))
        else:
            await self.load(self.drawer.document(tenant, graph))

    async def load(self, document: PolicyDocument) -> bool:
        """Has some process put a document in force: whether that is known to have worked."""
        world = self.world
        process = world.some_process(self.dice)
        if process is None:
            return False
        key = (document.tenant, document.graph)
        self._layers[key] = document if document.policies else None
        self.changed = True
        self.loads.append(world.loop.time())
        stored = self._stored(document)
        world.trace("officer", f"loads {len(document.policies)} policies for {key} at {process.name}")
        try:
            await world.ask(process, lambda store: store.put_policies(stored), of="store")
        except Exception as error:  # noqa: BLE001 - a line that breaks; what else it is, the process says
            world.trace("officer", f"load: {type(error).__name__}")
            self._unsure.add(key)
            return False
        self._unsure.discard(key)
        return True

    async def give_way(self) -> None:
        """In a world that is well: takes everything out of force that keeps somebody from ending."""
        for (tenant, graph), document in sorted(self._layers.items()):
            if document is not None or (tenant, graph) in self._unsure:
                await self.load(PolicyDocument(policies=(), tenant=tenant, graph=graph))


def run_policies(dice: Dice, graphs: Sequence[AgentGraph]) -> PolicyDocument | None:
    """What somebody gives to one lifetime alone."""
    return Drawer(dice, graphs).document(most=2) if dice.chance(0.35) else None


def raise_of(tries: int) -> str:
    """A limit that is far above any of those that are drawn, and higher with each try."""
    return str(10 ** min(2 + 3 * tries, 18))


ILLEGAL: tuple[dict[str, Any], ...] = (
    {"no-such-policy": "5"}, {"installation/nothing": "10"}, {"tenant/p1": "lots"}, {"run/p1": "-5"}, {"p1": "1e400"},
)  # fmt: skip
"""Raises that nobody may ever have, whatever is in force."""
