"""The BlobStore port on an object store: S3, whatever speaks its protocol, and Google Cloud Storage.

`address` reads the URL and makes the client, `store` keeps the promises of the port, `failures` says what went wrong.
"""

from __future__ import annotations

from tickwork.adapters.blob.objects.store import ObjectBlobs

__all__ = ["ObjectBlobs"]
