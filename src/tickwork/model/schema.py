"""JSON Schemas (2020-12) of the published records, made from their types."""

from __future__ import annotations

from typing import Any

import msgspec

from tickwork.model.contract_json import ExecutionRecord, LifetimeEventRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each published record by its name in the contract. Unknown fields are allowed everywhere."""
    return {"ExecutionRecord": _schema(ExecutionRecord), "LifetimeEvent": _schema(LifetimeEventRecord)}


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    name = top["$ref"].rpartition("/")[2]
    for part in parts.values():
        # What a newer version adds is allowed, but has no name yet.
        del part["properties"]["extra"]
    body = parts.pop(name)
    title = name.removesuffix("Record") if name.startswith("Lifetime") else name
    identity = {"$schema": DIALECT, "$id": f"urn:tickwork:v1:{title}"}
    return {**identity, **body, "title": title, "$defs": dict(sorted(parts.items()))}
