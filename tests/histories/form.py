"""The files of recorded histories: one lifetime a file, one JSON document a line, exactly as the store had it.

The first line says whose log it is and holds its graph, and the policies that the log names, when there are any; each
other line is [seq, at, entry]. Bytes that are text stand as {"bytes": text}, others in base64.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec

from tickwork.model.graph import AgentGraph, graph_from_json
from tickwork.model.lifetime import Lifetime
from tickwork.model.policy import PolicySet
from tickwork.model.records import LogEntry, decode_entry, encode_entry
from tickwork.orchestrator.guardrails.rules import Rules

FOLDER = Path(__file__).with_name("recorded")


class History(msgspec.Struct):
    """A recorded lifetime with its graph, and the sets of policies by the digests that its log names."""

    lifetime: Lifetime
    graph: AgentGraph
    log: list[LogEntry]
    policies: dict[str, PolicySet] = {}

    def rules(self, digest: str) -> Rules:
        """The policies of a digest, for a replay."""
        return Rules(self.policies[digest])


def write(history: History) -> bytes:
    """The file's content."""
    head: dict[str, Any] = {"lifetime": history.lifetime, "graph": msgspec.Raw(msgspec.json.encode(history.graph))}
    if history.policies:
        head["policies"] = dict(sorted(history.policies.items()))
    entries = [[e.seq, e.at, _readable(msgspec.msgpack.decode(encode_entry(e.entry)))] for e in history.log]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in [head, *entries])


def read(content: bytes) -> History:
    """The inverse of `write`: entries byte for byte."""
    head, *lines = [msgspec.json.decode(line) for line in content.splitlines()]
    log = [LogEntry(seq, at, decode_entry(msgspec.msgpack.encode(_stored(entry)))) for seq, at, entry in lines]
    graph = graph_from_json(msgspec.json.encode(head["graph"]))
    policies = msgspec.convert(head.get("policies", {}), dict[str, PolicySet])
    return History(msgspec.convert(head["lifetime"], Lifetime), graph, log, policies)


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return {"bytes": value.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return {name: _readable(item) for name, item in value.items()} if isinstance(value, dict) else value


def _stored(value: Any) -> Any:
    if isinstance(value, list):
        return [_stored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["bytes"]:
        return value["bytes"].encode()
    if list(value) == ["base64"]:
        return base64.b64decode(value["base64"])
    return {name: _stored(item) for name, item in value.items()}
