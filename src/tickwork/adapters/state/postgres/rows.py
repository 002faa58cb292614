"""Rows and data: what a lifetime, an entry, a question looks like in the database, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from tickwork.model.lifetime import Lifetime, Question
from tickwork.model.records import encode_entry
from tickwork.ports import StoredGraph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from tickwork.model.messages import Append

    Row: TypeAlias = "asyncpg.Record | tuple[Any, ...]"

ENTRY_LIMIT = 64 * 1024 * 1024
"""Bytes of one encoded entry. Payloads go to the blob store from 1 MiB on, so nothing regular comes near it."""

_labels_decoder = msgspec.json.Decoder(dict[str, str])
_question_decoder = msgspec.msgpack.Decoder(Question)
encode_question = msgspec.msgpack.Encoder().encode


class NotKeepable(ValueError):
    """An entry above ENTRY_LIMIT, or a name that text in Postgres cannot hold."""


def keepable(*values: object) -> bool:
    """Whether all texts among these can be kept as text. If not, no row has them either."""
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                return False
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    return False
    return True


def cleaned(text: str) -> str:
    """The text, with a replacement character for each that text in Postgres cannot hold."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def entry_rows(append: Append) -> list[tuple[str, bytes]]:
    """(entry id, body) of each entry. TypeError or ValueError when one cannot be encoded or kept."""
    rows = [(entry.entry_id, encode_entry(entry)) for entry in append.entries]
    for entry_id, body in rows:
        if len(body) > ENTRY_LIMIT:
            raise NotKeepable(f"entry {entry_id} has {len(body):,} bytes, and {ENTRY_LIMIT:,} is the limit")
        if "\0" in entry_id:
            raise NotKeepable(f"the id {entry_id!r} has a zero character, which this database cannot hold")
    projection = append.projection
    if projection is not None:
        named = [*(timer.timer_id for timer in projection.timers_set), *projection.timers_cleared]
        named += [*(question.exec_id for question in projection.questions_opened), *projection.questions_closed]
        if not keepable(*named):
            raise NotKeepable("the id of a timer or a question has a character that this database cannot hold")
    return rows


def lifetime_row(lifetime: Lifetime) -> tuple[Any, ...]:
    """The parameters of insert_lifetimes.sql for one lifetime. How it stands is not among them: that is its head's."""
    return (
        lifetime.tenant_id,
        lifetime.lifetime_id,
        lifetime.graph_name,
        lifetime.graph_version,
        lifetime.graph_digest,
        encode_labels(lifetime.labels),
        "".join("\n" + _pair(name, value) for name, value in lifetime.labels.items()) + "\n",
        lifetime.idempotency_key,
        lifetime.created_at,
    )


def encode_labels(labels: dict[str, str]) -> str:
    """Labels as JSON."""
    return msgspec.json.encode(labels).decode()


def label_line(name: str, value: str) -> str:
    """What the `label_lines` of a lifetime contain that has this label."""
    return f"\n{_pair(name, value)}\n"


def _pair(name: str, value: str) -> str:
    return msgspec.json.encode([name, value]).decode()


def lifetime_from(row: Row) -> Lifetime:
    """A lifetime of a row of list_lifetimes.sql and its like."""
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
        updated_at=row[10],
        finished_at=row[11],
        last_seq=row[12],
    )


def question_from(row: Row) -> Question:
    """A question of a row of list_questions.sql."""
    return _question_decoder.decode(row[0])


def graph_row(graph: StoredGraph) -> tuple[Any, ...]:
    """The parameters of put_graph.sql."""
    return (graph.tenant_id, graph.name, graph.version, graph.digest, graph.body, graph.source, graph.created_at)


def graph_from(row: Row) -> StoredGraph:
    """A graph of a row of list_graphs.sql."""
    return StoredGraph(*row)


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The rows turned round: a list for each column, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
