"""What is recorded of an attempt that is over: its execution, or that nobody knows what it did.

A call of an `at_most_once` Task may have had its effect although no result came: a limit ended it, its process died,
its result could not be stored. Then what is recorded is `unknown`, and the reconcile hook is asked; an attempt that
fails by itself is made again only when its author says so with a RetryableError.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from tickwork.model.records import Event

if TYPE_CHECKING:
    from tickwork.executor.attempt import Attempt
    from tickwork.executor.outcome import Outcome
    from tickwork.executor.registry import BoundNode
    from tickwork.model.records import Entry

UNSURE = frozenset({"ProcessExited", "MemoryLimit", "StorageError", "StorageFull", "StoreCorrupt"})
"""Errors after which the call may have done its work all the same."""


def hook_of(bound: BoundNode) -> BoundNode | None:
    """The node with its reconcile hook in the place of its code; None when it has none."""
    implementation = bound.implementation
    if implementation.reconcile is None:
        return None
    hooked = copy.copy(implementation)
    hooked.call, hooked.is_async = implementation.reconcile, implementation.reconcile_is_async
    # The hook looks at the outside world from the worker itself; only the node's code is kept apart.
    return replace(bound, implementation=hooked, node=replace(bound.node, isolation="inline"))


def verdict(attempt: Attempt, outcome: Outcome, now: int, worker: str) -> Entry:
    """What is recorded of an attempt that ended so, at `now` (us)."""
    message = attempt.message
    if message.reconcile:
        return _reconciled(attempt, outcome, now, worker)
    error = outcome.error
    if message.effect == "at_most_once" and error is not None and outcome.status != "CANCELLED":
        if attempt.entered and (outcome.status == "TIMED_OUT" or (not outcome.explicit and error.type in UNSURE)):
            data = {"exec_id": message.exec_id, "reason": f"{error.type}: {error.message}", "worker": worker}
            return Event(f"unknown:{message.exec_id}", "unknown", data)
        if attempt.entered and not outcome.explicit:
            outcome = replace(outcome, error=replace(error, retryable=False))
    return attempt.execution(outcome, now, worker)


def _reconciled(attempt: Attempt, outcome: Outcome, now: int, worker: str) -> Entry:
    """What the hook says: a result, a failure for good, that it did not happen, or nothing that can be used."""
    error = outcome.error
    if error is None or (outcome.explicit and not error.retryable):
        return attempt.execution(outcome, now, f"reconcile:{worker}")
    exec_id = attempt.message.exec_id
    data: dict[str, Any] = {"exec_id": exec_id, "action": "retry" if outcome.explicit else "ask", "by": worker}
    data["reason"] = f"{error.type}: {error.message}"
    return Event(f"reconciled:{exec_id}", "reconciled", data)
