"""Runs a graph in a test: everything in memory, on virtual time, so that an hour's deadline takes no time at all.

    outcome = run_graph(graph, {"topic": "tea"}, answers={"approve": "yes"})
    assert outcome.status == "COMPLETED"
    assert outcome.calls("draft") == 2

The planes, the executor and the adapters are the real ones; only the clock is not. Sync user code runs on the loop.
What ran is replayed from its log, children included: a run that Tickwork would not decide so again is no result.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.clock import RandomIds
from tickwork.errors import AlreadyEnded, AnswerRefused, StoreCorrupt
from tickwork.formats.policies import read_policies
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.model.records import Event, Execution
from tickwork.ports import LifetimeQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime
from tickwork.sdk.loading import BoundGraph, load_graph
from tickwork.testing.virtual import VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from tickwork.breach import Breach
    from tickwork.model.lifetime import Question
    from tickwork.model.policy import PolicyDocument
    from tickwork.model.records import LogEntry
    from tickwork.sdk.builder import Graph


class TestOutcome(msgspec.Struct, kw_only=True):
    """How the lifetime ended, or where it waits, with its whole log."""

    __test__ = False

    lifetime_id: str
    status: str
    reason: str | None
    result: Any
    executions: int
    tokens_used: int
    cost_usd: Decimal
    duration_ms: float
    """Virtual time from start to end."""
    breach: Breach | None
    """The policy that stopped it, if one did."""
    log: list[LogEntry]

    def records(self, node: str | None = None) -> list[Execution]:
        """The executions, of one node or of all."""
        found = [e.entry for e in self.log if isinstance(e.entry, Execution)]
        return [e for e in found if node is None or e.name == node]

    def events(self, kind: str | None = None) -> list[Event]:
        """The lifetime's events, of one type or of all."""
        found = [e.entry for e in self.log if isinstance(e.entry, Event)]
        return [e for e in found if kind is None or e.type == kind]

    def calls(self, node: str) -> int:
        """How many attempts at a node are recorded."""
        return len(self.records(node))

    def path(self) -> list[str]:
        """The nodes in the order of their records."""
        return [e.name for e in self.records()]


def run_graph(
    graph: Graph | BoundGraph | str,
    input: Any = None,
    *,
    answers: Mapping[str, Any] | None = None,
    signals: Mapping[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    policies: PolicyDocument | str | None = None,
    raised: Sequence[Mapping[str, str]] = (),
) -> TestOutcome:
    """Runs one lifetime until it has ended, or waits for somebody whom `answers` and `signals` do not play.

    `graph`: what the SDK's builder made, or a file, folder or `module:attribute` as on the command line. `answers`:
    an answer for each human Task, or a list of answers that are given in turn. `signals`: a payload by signal name,
    sent when a Task waits for it. `policies`: a document, or its YAML. `raised`: for each time that it is paused, the
    limits that are raised when it is resumed (nothing: `{}`); after the last one it stays paused. Raises GraphInvalid,
    PolicyInvalid, AnswerRefused; StoreCorrupt when the log does not replay.
    """
    document = read_policies(policies) if isinstance(policies, str) else policies
    resumes = list(raised)
    bound = load_graph(graph) if isinstance(graph, str) else graph if isinstance(graph, BoundGraph) else graph.bind()
    cast = _Cast(answers or {}, signals or {})

    async def go() -> TestOutcome:
        clock = VirtualClock(asyncio.get_running_loop())
        async with Runtime(Profile.test(), clock=clock, ids=RandomIds(seed=1), threads=0) as runtime:
            service = runtime.service
            stored = await runtime.bind(bound)
            lifetime = await service.start(stored.digest, input, labels=labels, policies=document)
            lifetime_id = lifetime.lifetime_id
            while True:
                lifetime = await runtime.guard(service.wait(lifetime_id, until="settled"))
                if lifetime.ended:
                    break
                if lifetime.status == "PAUSED" and resumes:
                    with contextlib.suppress(AlreadyEnded):  # by what was in flight
                        await service.resume(lifetime_id, raised=resumes.pop(0))
                    continue
                if lifetime.status == "PAUSED" or not await cast.play(runtime, lifetime_id):
                    break
            await check_replay(runtime)
            outcome = await service.result(lifetime_id)
            log: list[LogEntry] = []
            while page := await service.log(lifetime_id, after=len(log), limit=10_000):
                log += page
            return TestOutcome(**msgspec.structs.asdict(outcome), log=log)

    return run_virtual(go())


async def check_replay(runtime: Runtime, tenant: str = DEFAULT_TENANT) -> int:
    """Replays every lifetime of a tenant: how many entries that were. StoreCorrupt at the first that diverges."""
    entries = 0
    for lifetime in await runtime.service.list(LifetimeQuery(limit=1_000_000), tenant=tenant):
        replayed = await runtime.history.replay(lifetime.lifetime_id, tenant=tenant)
        entries += replayed.entries
        if replayed.divergence is not None:
            found = msgspec.json.format(msgspec.json.encode(replayed.divergence)).decode()
            raise StoreCorrupt(f"lifetime {lifetime.lifetime_id} does not replay: {found}")
    return entries


class _Cast:
    """Plays the people and the outside world of a test."""

    def __init__(self, answers: Mapping[str, Any], signals: Mapping[str, Any]) -> None:
        self._answers = {name: list(a) if isinstance(a, list) else a for name, a in answers.items()}
        self._signals = dict(signals)

    async def play(self, runtime: Runtime, lifetime_id: str) -> bool:
        """Answers a question, sends a signal, or waits for the next deadline; False when it can do none of them."""
        open_questions = await runtime.store.questions("default", lifetime_id)
        for question in open_questions:
            if question.on == "signal" and question.signal in self._signals:
                await runtime.service.signal(lifetime_id, question.signal, self._signals[question.signal])
                return True
            if question.on == "human" and question.node in self._answers:
                answer = self._answers[question.node]
                if isinstance(answer, list):
                    if not answer:
                        continue
                    answer = answer.pop(0)
                await self._answer(runtime, question, answer)
                return True
        deadlines = [q.deadline for q in open_questions if q.deadline is not None]
        if deadlines:
            await runtime.clock.sleep(max(min(deadlines) - runtime.clock.now(), 1) / 1e6)
        return bool(deadlines)

    async def _answer(self, runtime: Runtime, question: Question, answer: Any) -> None:
        by = question.who[0] if question.who else "test"
        try:
            await runtime.service.answer(question.lifetime_id, answer, exec_id=question.exec_id, by=by)
        except AnswerRefused as error:
            raise AnswerRefused(f"the test's answer for `{question.node}` was refused: {error}") from None
