"""What two lifetimes of one story have in common, when they went the same way: everything but ids, times and names of
workers."""

from __future__ import annotations

import re
from typing import Any

from tests.histories.stage import Stage
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Event, Execution, LogEntry

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{24}|sha256:[0-9a-f]{64}")
PLANES = ("timer_set", "timer_fired", "waiting", "signalled", "paused", "verdict", "intent", "completed", "failed")


def nameless(value: Any) -> Any:
    """The value without ids, which are another lifetime's."""
    if isinstance(value, str):
        return ID.sub("ID", value)
    if isinstance(value, dict):
        return {name: nameless(item) for name, item in value.items()}
    return [nameless(item) for item in value] if isinstance(value, list) else value


def edges(log: list[LogEntry]) -> dict[str, list[tuple[Any, ...]]]:
    """Per branch, in order: which node, by which edge, from whom, and what came of it or was chosen."""
    done = [logged.entry for logged in log if isinstance(logged.entry, Execution)]
    places = {x.exec_id: (x.branch, x.name, x.iteration, x.attempt) for x in done}
    found: dict[str, list[tuple[Any, ...]]] = {}
    for x in done:
        found.setdefault(x.branch, []).append(
            (
                x.name, x.iteration, x.attempt, x.edge_taken, x.status,
                tuple(places[parent] for parent in x.parents),
                None if x.next is None else tuple(chosen.task for chosen in x.next),
                x.reason, None if x.error is None else (x.error.type, nameless(x.error.message)),
                None if x.result is None else (x.result.size, x.result.uri is not None),
            )
        )  # fmt: skip
    return found


def events(log: list[LogEntry]) -> list[tuple[str, Any]]:
    """What the planes recorded beside executions, however the branches came after each other."""
    found = []
    for logged in log:
        event = logged.entry
        if isinstance(event, Event) and event.type in PLANES:
            facts = {k: nameless(v) for k, v in event.data.items() if k in FACTS}
            found.append((event.type, sorted(facts.items(), key=str)))
    return sorted(found, key=str)


FACTS = ("node", "on", "prompt", "purpose", "name", "by", "policy", "action", "at", "shadow", "values", "reason",
         "executions", "tokens_used", "cost_nano_usd")  # fmt: skip


async def trace(stage: Stage, one: Lifetime) -> dict[str, Any]:
    """Everything that has to be the same wherever this lifetime ran."""
    log = await stage.log(one.lifetime_id)
    outcome = await stage.service.result(one.lifetime_id)
    return {
        "edges": edges(log),
        "events": events(log),
        "status": outcome.status,
        "reason": nameless(outcome.reason),
        "result": nameless(outcome.result),
        "executions": outcome.executions,
        "tokens": outcome.tokens_used,
        "cost": outcome.cost_usd,
    }
