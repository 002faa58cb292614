"""A lifetime as one sees it from outside: its status and the read model that lists and the inbox are served from."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

LifetimeStatus = Literal["PENDING", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "ABORTED"]

TERMINAL: frozenset[str] = frozenset({"COMPLETED", "FAILED", "ABORTED"})


class Lifetime(msgspec.Struct, kw_only=True):
    """One run of a graph. Times in microseconds since the epoch; everything here can be derived from the log."""

    lifetime_id: str
    tenant_id: str
    graph_name: str
    graph_version: str
    graph_digest: str
    status: LifetimeStatus
    created_at: int
    updated_at: int
    finished_at: int | None = None
    reason: str | None = None
    labels: dict[str, str] = {}
    idempotency_key: str | None = None
    last_seq: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in TERMINAL


class TimerRow(msgspec.Struct, array_like=True, gc=False):
    """A durable timer: fires when the clock reaches `due` (us)."""

    tenant_id: str
    lifetime_id: str
    timer_id: str
    due: int


class Question(msgspec.Struct, kw_only=True):
    """An open wait of a lifetime: a question to a person, or a signal that has not come.

    `unknown`: only a person can tell whether a call of an `at_most_once` Task had its effect. `poison`: its workers
    died of it again and again, and somebody has to say whether it may run once more.
    """

    tenant_id: str
    lifetime_id: str
    exec_id: str
    node: str
    branch: str
    on: Literal["human", "signal", "unknown", "poison"]
    since: int
    prompt: str = ""
    signal: str = ""
    answer_schema: dict[str, Any] | None = None
    deadline: int | None = None
    """When (us) the default is taken or the Task fails."""
    who: tuple[str, ...] = ()
    graph_name: str = ""


class Projection(msgspec.Struct, array_like=True, gc=False):
    """Changes of the read model that ride on an append, in its transaction. All are derivable from the log.

    `as_of` is the seq of the state that `status` was computed from (None: the last seq of this very append); a store
    ignores a status older than the one it has. What is cleared is cleared before anything is set; a lifetime that has
    ended opens no timers and no questions.
    """

    status: LifetimeStatus | None = None
    as_of: int | None = None
    reason: str | None = None
    timers_set: tuple[TimerRow, ...] = ()
    timers_cleared: tuple[str, ...] = ()
    questions_opened: tuple[Question, ...] = ()
    questions_closed: tuple[str, ...] = ()
    """Exec ids whose wait is over."""
