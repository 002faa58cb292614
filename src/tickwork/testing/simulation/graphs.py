"""Random graphs: cycles, nested fan-outs, every join, FINAL from anywhere, conditions, waits, children, retries.

A graph is drawn by number from a pool, so that a campaign makes and validates each of them once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from tickwork.model.graph import (
    AgentGraph,
    Child,
    Edge,
    Human,
    Join,
    JoinMode,
    Limits,
    Maximum,
    Node,
    RetryPolicy,
    Signal,
    TimeLimits,
    Timer,
)
from tickwork.model.validation import validate
from tickwork.testing.simulation.dice import Dice

POOL = 400
"""How many graphs there are."""

LEAVES = 12
"""How many graphs there are that a node may run as its child."""

SIGNALS = ("go", "stop")
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@lru_cache(maxsize=POOL)
def pooled(number: int) -> AgentGraph:
    """Graph number `number` of the pool."""
    return random_graph(Dice("graph", number), f"graph{number}")


@lru_cache(maxsize=LEAVES)
def leaf(number: int) -> AgentGraph:
    """Child graph number `number`."""
    return random_graph(Dice("leaf", number), f"leaf{number}", most_tasks=2, children=False)


def children_of(graph: AgentGraph) -> tuple[int, ...]:
    """The numbers of the child graphs that nodes of this graph run."""
    names = dict.fromkeys(node.child.name for node in graph.nodes if node.child is not None)
    return tuple([int(name.removeprefix("leaf")) for name in names])


def random_graph(dice: Dice, name: str, *, most_tasks: int = 5, children: bool = True) -> AgentGraph:
    """A valid graph some of whose Tasks wait, and whose nodes are tried again, at once or later."""
    words = Dice("maximum", name)  # a stream of its own: the shapes of the pool are older than the maxima
    while True:
        edges, plans, tasks = _shape(dice, most_tasks)
        conditional = {edge.source for edge in edges if edge.condition}
        nodes = [_code(dice, plan, "plan") for plan in plans]
        nodes += [_task(dice, task, task in conditional, children=children) for task in tasks]
        limits = Limits()
        if dice.chance(0.1):
            limits = dice.choice([Limits(visits=3), Limits(open_visits=4), Limits(records=40), Limits(depth=1)])
        nodes = [_declared(words, node) for node in nodes]
        graph = AgentGraph(name=name, version="1.0.0", nodes=tuple(nodes), edges=tuple(edges), limits=limits)
        if not validate(graph):
            return graph


def _shape(dice: Dice, most_tasks: int) -> tuple[list[Edge], list[str], list[str]]:
    plans = [f"plan{i}" for i in range(dice.randint(1, max(1, most_tasks - 1)))]
    tasks = [f"task{i}" for i in range(dice.randint(1, most_tasks))]
    edges = [Edge(source="start", target=n) for n in dice.sample(plans + tasks, dice.choice([1, 1, 1, 2]))]
    for plan in plans:
        chosen = dice.sample(tasks, dice.randint(1, len(tasks)))
        edges += [Edge(source=plan, target=t, kind=dice.choice(["NORMAL", "PARALLEL", "PARALLEL"])) for t in chosen]
        if dice.chance(0.4):
            edges.append(Edge(source=plan, target="end", kind="FINAL"))
    joins = {plan: _join(dice) for plan in plans}
    for task in tasks:
        ends = ["end"] if dice.chance(0.15) else []
        targets = dice.sample([*plans, *ends], min(dice.choice([1, 1, 2]), len(plans) + len(ends)))
        for i, target in enumerate(targets):
            condition = "result.n % 2 == 0" if i == 0 and len(targets) == 2 else ""
            if target == "end":
                edges.append(Edge(source=task, target=target, kind="FINAL", condition=condition))
            elif dice.chance(0.5):
                edges.append(Edge(source=task, target=target, kind="JOIN", join=joins[target], condition=condition))
            else:
                edges.append(Edge(source=task, target=target, condition=condition))
    return edges, plans, tasks


def _join(dice: Dice) -> Join:
    mode: JoinMode = dice.choice(["all", "settled", "any", "quorum"])
    return Join(mode=mode, count=dice.randint(1, 3) if mode == "quorum" else 0)


def _retry(dice: Dice) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=dice.randint(1, 3),
        initial_interval=dice.choice([0.0, 0.5, 2.0, 20.0]),
        backoff=dice.choice([1.0, 2.0]),
        jitter=dice.choice([0.0, 0.2]),
        non_retryable=dice.choice([(), (), ("ValueError",)]),
    )


def _code(dice: Dice, name: str, kind: Any) -> Node:
    limits = TimeLimits(grace=2.0)
    if dice.chance(0.15):
        limits = TimeLimits(start_to_close=dice.choice([1.0, 20.0]), grace=dice.choice([0.5, 5.0]))
    elif dice.chance(0.1):
        limits = TimeLimits(heartbeat=3.0, schedule_to_start=dice.choice([None, 10.0]), grace=1.0)
    node = Node(name=name, kind=kind, retry=_retry(dice), limits=limits)
    if kind == "task":
        effect = dice.choice(["pure", "idempotent", "idempotent", "at_most_once"])
        node = msgspec.structs.replace(node, effect=effect)
    return node


def _declared(dice: Dice, node: Node) -> Node:
    """Some of those that run code say what an attempt uses at the most; not all of them keep to it."""
    if not node.runs_code or not dice.chance(0.6):
        return node
    maximum = Maximum(
        tokens=dice.choice([None, 5, 10, 14, 14]), cost_usd=dice.choice(["", "0.000005", "0.000009", "0.000009"])
    )
    return msgspec.structs.replace(node, maximum=maximum)


def _task(dice: Dice, name: str, conditional: bool, *, children: bool) -> Node:
    kind = dice.choice(["code", "code", "code", "human", "signal", "timer", "child"])
    waits: dict[str, Any] = {"deadline": dice.choice([3.0, 30.0, 120.0])} if dice.chance(0.5) else {}
    if waits and dice.chance(0.5):
        waits["default"] = {"n": 1}
    if kind == "human":
        schema = ANSWER if dice.chance(0.5) else None
        who = ("ada",) if dice.chance(0.3) else ()
        human = Human(prompt="{n}?", answer_schema=schema, who=who, **waits)
        return Node(name=name, kind="task", retry=_retry(dice), human=human)
    if kind == "signal":
        return Node(name=name, kind="task", retry=_retry(dice), signal=Signal(name=dice.choice(SIGNALS), **waits))
    if kind == "timer" and not conditional:
        return Node(name=name, kind="task", timer=Timer(seconds=dice.choice([0.0, 1.0, 30.0])))
    if kind == "child" and children and not conditional:
        return Node(name=name, kind="task", retry=_retry(dice), child=Child(name=f"leaf{dice.randrange(LEAVES)}"))
    return _code(dice, name, "task")
