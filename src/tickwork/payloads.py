"""Where a payload lies: in its record while it is small, in the blob store when it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.model.records import INLINE_LIMIT, Payload

if TYPE_CHECKING:
    from tickwork.ports import BlobStore


def is_large(payload: Payload | None) -> bool:
    """Whether it goes to the blob store."""
    return payload is not None and payload.inline is not None and payload.size > INLINE_LIMIT


async def spilled(blobs: BlobStore, tenant_id: str, payload: Payload) -> Payload:
    """The payload as it is recorded: above INLINE_LIMIT its bytes are durable in the blob store, and only their
    address is left, so that no record ever points nowhere. Raises StorageError."""
    if payload.inline is None or not is_large(payload):
        return payload
    uri, sha256 = await blobs.put(tenant_id, payload.inline)
    return Payload(None, payload.content_type, uri, payload.size, sha256)
