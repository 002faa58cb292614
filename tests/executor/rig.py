"""An executor on a real bus and real blobs, with the Control Plane and the Data Plane played by the test."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tickwork.adapters.blob.fs import FileBlobs
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.adapters.kv.memory import MemoryKV
from tickwork.clock import RandomIds, SystemClock
from tickwork.errors import StorageError
from tickwork.executor.registry import Registry
from tickwork.executor.worker import Executor
from tickwork.model import messages
from tickwork.model.graph import END, AgentGraph, Edge, Node
from tickwork.model.ids import exec_id
from tickwork.model.messages import Cancel, NodeInput, Predecessor
from tickwork.model.records import Execution, LogEntry, Payload, json_payload
from tickwork.ports import BusMessage, Clock, KVStore
from tickwork.sdk.implementation import Implementation
from tickwork.sdk.loading import BoundGraph
from tickwork.sdk.nodes import GraphNode
from tickwork.sdk.references import name_of

LIFETIME = "01890a5d-ac96-774b-bcce-b302099a8057"
HERE = Path(__file__).parent


def bound(*nodes: GraphNode, name: str = "rig") -> BoundGraph:
    """A graph of nodes, with edges for what the tests' Plans choose: an executor asks for no more."""
    made: list[Node] = []
    implementations: dict[str, Implementation] = {}
    for node in nodes:
        function = node.implementation()
        assert function is not None
        named = function if hasattr(node, "function") else type(node)
        run, unloadable = name_of(named, HERE)
        made.append(node.node(run))
        implementations[made[-1].name] = Implementation(made[-1].name, node.kind, function, unloadable)
    chosen = ("a", "b", "double", "halve", "shout", "sync_work", "nothing")
    edges = [
        edge
        for node in made
        if node.kind == "plan"
        for edge in (
            *[Edge(source=node.name, target=target, kind="PARALLEL") for target in chosen],
            Edge(source=node.name, target=END, kind="FINAL"),
        )
    ]
    graph = AgentGraph(name=name, version="1.0.0", nodes=tuple(made), edges=tuple(edges))
    return BoundGraph(graph, implementations, "", HERE)


class Ill(FileBlobs):
    """Blobs that can be away."""

    away: Exception | None = None
    unreadable = False
    asked = 0

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        self._look()
        return await super().put(tenant_id, data)

    async def get(self, tenant_id: str, uri: str, sha256: str | None = None) -> bytes:
        self._look()
        if self.unreadable:
            raise StorageError("the blob store is away")
        return await super().get(tenant_id, uri, sha256)

    def _look(self) -> None:
        self.asked += 1
        if self.away is not None:
            raise self.away


class Rig:
    """What a test sends and receives."""

    def __init__(
        self, graph: BoundGraph, clock: Clock, folder: Path, *, kv: KVStore | None = None, **options: Any
    ) -> None:
        self.graph, self.clock = graph, clock
        self.bus = MemoryBus()
        self.blobs = Ill(folder)
        self.kv = kv or MemoryKV(clock)
        self.registry = Registry()
        self.log: list[LogEntry] = []
        self.executor = Executor(
            self.bus, self.blobs, self.kv, clock, RandomIds(7),
            registry=self.registry, history=self._history, **options,
        )  # fmt: skip
        self.loop_task: asyncio.Task[None] | None = None
        self._calls = 0

    async def _history(self, tenant_id: str, lifetime_id: str, limit: int) -> list[LogEntry]:
        assert (tenant_id, lifetime_id) == ("default", LIFETIME)
        return self.log[-limit:]

    async def start(self) -> None:
        await self.blobs.start()
        await self.bus.start()
        self.records = await self.bus.subscribe(["data-plane.*"], "records")
        await self.executor.start()
        self.loop_task = asyncio.create_task(self.executor.run())

    async def stop(self) -> None:
        assert self.loop_task is not None
        self.loop_task.cancel()
        await asyncio.gather(self.loop_task, return_exceptions=True)
        await self.bus.stop()
        await self.blobs.stop()

    def message(
        self, node: str, value: Any = None, *, iteration: int = 0, attempt: int = 1, **fields: Any
    ) -> NodeInput:
        kind = self.graph.graph.node[node].kind if node in self.graph.graph.node else "task"
        payload: Payload | None = fields.pop("input", None) or json_payload(value)
        return NodeInput(
            tenant_id="default",
            lifetime_id=LIFETIME,
            graph_digest=fields.pop("digest", self.graph.graph.digest),
            kind=kind,
            node=node,
            exec_id=exec_id(LIFETIME, "", node, iteration, attempt),
            branch="",
            iteration=iteration,
            attempt=attempt,
            parents=("before",),
            edge_taken=f"start->{node}",
            created_at=fields.pop("created_at", self.clock.now()),
            input=payload,
            executions=fields.pop("executions", ()),
            **fields,
        )

    async def send(self, *inputs: NodeInput) -> None:
        for kind in ("task", "plan"):
            chosen = [BusMessage(i.lifetime_id, messages.encode(i)) for i in inputs if i.kind == kind]
            if chosen:
                await self.bus.publish(f"{kind}-inputs.default", chosen)

    async def cancel(self, *exec_ids: str, reason: str = "enough") -> None:
        cancel = Cancel("default", LIFETIME, exec_ids or None, reason)
        await self.bus.publish("cancellations.default", [BusMessage(LIFETIME, messages.encode(cancel))])

    async def receive(self, count: int = 1) -> list[Execution]:
        found: list[Execution] = []
        while len(found) < count:
            deliveries = await self.records.receive(1_000)
            await self.records.ack(deliveries)
            for delivery in deliveries:
                append = messages.decode_append(delivery.message.value)
                assert delivery.topic == "data-plane.default"
                assert delivery.message.key == append.lifetime_id == LIFETIME
                found += [e for e in append.entries if isinstance(e, Execution)]
        return found

    async def call(self, node: str, value: Any = None, **fields: Any) -> Execution:
        """Sends one input and returns its record. Each call is another visit: what was done is not done again."""
        fields.setdefault("iteration", self._calls)
        self._calls += 1
        await self.send(self.message(node, value, **fields))
        (execution,) = await self.receive()
        return execution

    def unacknowledged(self) -> int:
        return self.bus.depth("task-inputs.*", "executors") + self.bus.depth("plan-inputs.*", "executors")


@asynccontextmanager
async def rig(*nodes: GraphNode, clock: Clock | None = None, bind: bool = True, **options: Any) -> AsyncIterator[Rig]:
    """A running executor that knows these nodes."""
    with tempfile.TemporaryDirectory() as folder:
        made = Rig(bound(*nodes), clock or SystemClock(), Path(folder), **options)
        if bind:
            made.registry.bind(made.graph)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


def past(name: str, value: Any, **fields: Any) -> Predecessor:
    """An execution before a node."""
    return Predecessor(
        name, name, fields.pop("kind", "task"), "", 0, fields.pop("status", "SUCCEEDED"), json_payload(value), **fields
    )


async def until(condition: Callable[[], Any]) -> None:
    """Lets the loop turn until the condition holds; the test's own time limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - the condition is on another thread's or process's doing
        await asyncio.sleep(0)
