"""`tickwork schema`: JSON Schemas of what Tickwork reads and prints, for editors, validators and other languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Callable

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    name: Annotated[str | None, Parameter(help="Which schema; none: list their names.")] = None,
    /,
    *,
    json: Json = False,
) -> int:
    """Print a JSON Schema; without a name, list what there is."""
    if name is None:
        if json:
            output.emit_json([{"name": known, "about": about} for known, (about, _) in SCHEMAS.items()])
            return 0
        rows = output.table("name", "describes")
        for known, (about, _) in SCHEMAS.items():
            rows.add_row(known, about)
        output.show(rows)
        return 0
    if name not in SCHEMAS:
        raise Refusal(f"There is no schema `{name}`.", f"Known: {', '.join(SCHEMAS)}.{_nearest(name)}")
    output.emit_json(SCHEMAS[name][1]())
    return 0


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, SCHEMAS, n=1)
    return f" Did you mean `{close[0]}`?" if close else ""


def _graph() -> dict[str, Any]:
    from tickwork.formats.schema import graph_schema

    return graph_schema()


def _policies() -> dict[str, Any]:
    from tickwork.formats.policy_fields import policy_schema

    return policy_schema()


def _execution() -> dict[str, Any]:
    from tickwork.model.schema import schemas

    return schemas()["ExecutionRecord"]


def _event() -> dict[str, Any]:
    from tickwork.model.schema import schemas

    return schemas()["LifetimeEvent"]


def _records() -> dict[str, Any]:
    execution, event = _execution(), _event()
    parts = {**execution.pop("$defs"), **event.pop("$defs"), "Execution": execution, "Event": event}
    for one in (execution, event):
        del one["$schema"], one["$id"]  # an $id of its own would be the root of the references in it
    return {
        "$schema": DRAFT,
        "title": "Tickwork log record, v1",
        "description": "One record of a lifetime's log: an execution (it has `headers`) or an event (it has `type`).",
        "anyOf": [{"$ref": "#/$defs/Execution"}, {"$ref": "#/$defs/Event"}],
        "$defs": parts,
    }


STOPPED: dict[str, Any] = {
    "policy": {"type": "string", "description": "The policy that stopped it, when one did: `tenant/daily-spend`."},
    "verdict": {"type": "object", "description": "That policy's verdict, as the log has it."},
    "raise": {
        "type": "array",
        "items": {"type": "string"},
        "description": "For `tickwork lifetimes resume --raise`: limits under which it goes on, if any do.",
    },
}
"""What an outcome has beside the rest when a policy stopped the lifetime."""


def _outcome() -> dict[str, Any]:
    amount = {"type": "integer", "minimum": 0}
    fields: dict[str, Any] = {
        "lifetime_id": {"type": "string", "format": "uuid"},
        "status": {"enum": ["RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "ABORTED"]},
        "reason": {"type": ["string", "null"], "description": "Why it failed, was aborted, or what it waits for."},
        "result": {"description": "The result of the node that took the FINAL edge; bytes in base64."},
        "executions": amount,
        "tokens_used": amount,
        "cost_usd": {"type": "string", "pattern": r"^\d+(\.\d+)?$", "description": "Exact decimal, US dollars."},
        "duration_ms": {"type": "number", "minimum": 0},
        **STOPPED,
    }
    return {
        "$schema": DRAFT,
        "title": "What `tickwork run --json` prints",
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in STOPPED],
        "additionalProperties": False,
    }


def _answers() -> dict[str, Any]:
    return {
        "$schema": DRAFT,
        "title": "An answers file (`--answers`)",
        "description": "Node names and what they are answered: any value, or a list of answers in turn.",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_-]{0,127}$"},
    }


SCHEMAS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "graph": ("a graph in YAML or JSON", _graph),
    "policies": ("a policy document in YAML or JSON", _policies),
    "records": ("one record of a log, as `tickwork lifetimes log --json` prints them", _records),
    "execution": ("the record of one attempt at a node", _execution),
    "event": ("the record of something that happened to a lifetime", _event),
    "outcome": ("what `tickwork run --json` prints", _outcome),
    "answers": ("the file that `--answers` takes", _answers),
}
