"""Who uses the engine meanwhile: starts lifetimes, answers, signals, reconciles, and remembers what was acknowledged.

It is a process without a role, behind the same proxy. After an error it asks again with the same idempotency key.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import msgspec

from tests.acceptance import crash_shapes
from tests.acceptance.crash_shapes import ANSWER, KNOWN, SHAPES, SIGNAL
from tickwork.errors import Conflict, NotFound, StorageError, TickworkError
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.runtime import Runtime

NAMES = {name: shape.graphs[-1]().name for name, shape in SHAPES.items()}
"""Graphs that are started, by shape."""


class Client:
    """`acks` are lines beside the ledger, as the crash sweep writes them."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.keys = 0
        """Starts that were asked for; each is asked for until it is acknowledged."""
        self.acknowledged = 0
        self.refused = 0
        """Errors that were answered by asking again."""
        self.surprises: list[str] = []
        """Errors that no client should see."""
        self.starts: list[float] = []
        """When starts were acknowledged, in seconds since 1970."""
        self._starting: set[asyncio.Task[None]] = set()

    async def run(self, rate: float) -> None:
        """Starts so many lifetimes a second, of all shapes by turns, until cancelled."""
        for shape in itertools.cycle(SHAPES):
            task = asyncio.create_task(self._start(NAMES[shape], f"run-{self.keys}"))
            self.keys += 1
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
            await asyncio.sleep(1 / rate)

    async def settle(self) -> None:
        """Until every start that was asked for is acknowledged."""
        await asyncio.gather(*self._starting)

    async def _start(self, graph: str, key: str) -> None:
        while True:
            try:
                lifetime = await self._runtime.service.start(graph, 0, idempotency_key=key)
            except StorageError:
                self.refused += 1
                await asyncio.sleep(0.1)
            except TickworkError as error:
                self.surprises.append(f"start {key}: {type(error).__name__}: {error}")
                await asyncio.sleep(0.5)
            else:
                self._acknowledge("start", key, lifetime.lifetime_id)
                self.starts.append(time.time())
                self.acknowledged += 1
                return

    async def answer_all(self) -> None:
        """Answers every question, sends every signal that is waited for, says what became of lost calls; for ever."""
        service = self._runtime.service
        while True:
            try:
                for question in await self._runtime.store.questions(DEFAULT_TENANT):
                    try:
                        if question.on == "human":
                            await service.answer(question.lifetime_id, ANSWER, exec_id=question.exec_id)
                            self._acknowledge("answer", question.lifetime_id, question.exec_id)
                        elif question.on == "signal":
                            await service.signal(question.lifetime_id, SIGNAL, SIGNAL)
                            self._acknowledge("signal", question.lifetime_id)
                        elif question.on == "unknown" and happened(question.exec_id):
                            result = KNOWN[question.graph_name]
                            await service.reconcile(question.lifetime_id, exec_id=question.exec_id, result=result)
                            self._acknowledge("answer", question.lifetime_id, question.exec_id)
                        else:
                            await service.reconcile(question.lifetime_id, exec_id=question.exec_id, retry=True)
                    except (Conflict, NotFound):
                        pass  # it was answered a moment ago
            except StorageError:
                self.refused += 1
            except TickworkError as error:
                self.surprises.append(f"questions: {type(error).__name__}: {error}")
            await asyncio.sleep(0.2)

    def _acknowledge(self, *what: str) -> None:
        os.write(self._acks, msgspec.json.encode(what) + b"\n")

    def close(self) -> None:
        """Closes its file."""
        os.close(self._acks)


def happened(exec_id: str) -> bool:
    """Whether the ledger has this call."""
    return crash_shapes.ledger.happened(exec_id)
