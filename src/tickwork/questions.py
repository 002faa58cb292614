"""Questions to people: which one is meant, and the execution that an answer is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import AlreadyEnded, NotFound, UsageError
from tickwork.model.records import Event, Execution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.model.records import Payload
    from tickwork.ports import StateStore


async def meant(found: Sequence[Question], exec_id: str | None, lifetime: Lifetime, store: StateStore) -> Question:
    """The one of these open questions that is meant. `exec_id`: its execution or its node; None: the only one.

    Raises AlreadyEnded when it was answered, NotFound, UsageError when there are several.
    """
    if exec_id is not None:
        matching = [q for q in found if exec_id == q.node or q.exec_id.startswith(exec_id)]
        if not matching and await _recorded(lifetime, exec_id, store):
            raise AlreadyEnded(f"`{exec_id}` of lifetime {lifetime.lifetime_id} was answered already")
        found = matching
    if not found:
        what = f"no open question `{exec_id}`" if exec_id else "no open question"
        raise NotFound(f"lifetime {lifetime.lifetime_id} ({lifetime.status}) has {what}; `tickwork inbox` lists them")
    if len(found) > 1:
        listed = "; ".join(f"{q.exec_id} ({q.node}{' in ' + q.branch if q.branch else ''})" for q in found)
        raise UsageError(f"lifetime {lifetime.lifetime_id} has {len(found)} open questions: {listed}; say which")
    return found[0]


async def answered(
    question: Question, lifetime: Lifetime, payload: Payload | None, by: str, now: int, store: StateStore
) -> Execution:
    """The execution that an answer is: its headers stand in the `waiting` entry's visit, told by the log."""
    waiting = await _waiting_entry(lifetime, question.exec_id, store)
    data = waiting.data
    return Execution(
        question.exec_id,
        data["kind"],
        question.node,
        question.branch,
        data["iteration"],
        data["attempt"],
        tuple(data["parents"]),
        data["edge_taken"],
        data["since"],
        data["since"],
        now,
        "SUCCEEDED",
        f"human:{by}" if by else "human",
        payload,
    )


async def _recorded(lifetime: Lifetime, exec_id: str, store: StateStore) -> bool:
    """Whether this execution is in the log."""
    after = 0
    while page := await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
        if any(isinstance(e.entry, Execution) and e.entry.exec_id == exec_id for e in page):
            return True
        after = page[-1].seq
    return False


async def _waiting_entry(lifetime: Lifetime, exec_id: str, store: StateStore) -> Event:
    after = 0
    while page := await store.read_log(lifetime.tenant_id, lifetime.lifetime_id, after, 5000):
        for logged in page:
            if isinstance(logged.entry, Event) and logged.entry.id == f"waiting:{exec_id}":
                return logged.entry
        after = page[-1].seq
    raise NotFound(f"lifetime {lifetime.lifetime_id} has no question {exec_id}")
