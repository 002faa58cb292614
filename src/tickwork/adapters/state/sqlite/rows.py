"""Rows and data: what a lifetime, an entry, a question looks like in the database, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from tickwork.model.lifetime import Lifetime, Question
from tickwork.model.records import encode_entry
from tickwork.ports import StoredGraph

if TYPE_CHECKING:
    from tickwork.model.messages import Append

Row: TypeAlias = "tuple[Any, ...]"

ENTRY_LIMIT = 64 * 1024 * 1024
"""Bytes of one encoded entry. Payloads go to the blob store from 1 MiB on, so nothing regular comes near it."""

LABELS_AT = 7
"""Where the labels stand in a lifetime's row."""

_labels_decoder = msgspec.json.Decoder(dict[str, str])
_question_decoder = msgspec.msgpack.Decoder(Question)
encode_question = msgspec.msgpack.Encoder().encode


class TooLarge(ValueError):
    """An entry above ENTRY_LIMIT."""


def entry_rows(append: Append) -> list[tuple[str, bytes]]:
    """(entry id, body) of each entry. TypeError or ValueError when one cannot be encoded or is too large."""
    rows = [(entry.entry_id, encode_entry(entry)) for entry in append.entries]
    for entry_id, body in rows:
        if len(body) > ENTRY_LIMIT:
            raise TooLarge(f"entry {entry_id} has {len(body):,} bytes, and {ENTRY_LIMIT:,} is the limit")
    return rows


def lifetime_row(lifetime: Lifetime) -> Row:
    """The parameters of insert_lifetime.sql. `last_seq` is not among them: it is the log's."""
    finished_at = lifetime.finished_at
    if finished_at is None and lifetime.ended:
        finished_at = lifetime.updated_at
    return (
        lifetime.lifetime_id,
        lifetime.tenant_id,
        lifetime.graph_name,
        lifetime.graph_version,
        lifetime.graph_digest,
        lifetime.status,
        lifetime.reason,
        msgspec.json.encode(lifetime.labels).decode(),
        lifetime.idempotency_key,
        lifetime.created_at,
        lifetime.updated_at,
        finished_at,
    )


def lifetime_from(row: Row) -> Lifetime:
    """A lifetime of a row of get_lifetime.sql and its like."""
    return Lifetime(
        lifetime_id=row[0],
        tenant_id=row[1],
        graph_name=row[2],
        graph_version=row[3],
        graph_digest=row[4],
        status=row[5],
        reason=row[6],
        labels=_labels_decoder.decode(row[7]),
        idempotency_key=row[8],
        created_at=row[9],
        updated_at=max(row[10], row[13]),  # entries move a lifetime on without touching its row
        finished_at=row[11],
        last_seq=row[12],
    )


def question_from(row: Row) -> Question:
    """A question of a row of list_questions.sql."""
    return _question_decoder.decode(row[0])


def graph_row(graph: StoredGraph) -> Row:
    """The parameters of insert_graph.sql."""
    return (graph.tenant_id, graph.name, graph.version, graph.digest, graph.body, graph.source, graph.created_at)


def graph_from(row: Row) -> StoredGraph:
    """A graph of a row of list_graphs.sql."""
    return StoredGraph(*row)
