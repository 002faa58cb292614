"""As much of Google Cloud Storage's XML interface as blobs use, over a dict: no server of it can be installed here.

Objects are put (with a condition on their generation), put in parts, read, and asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]


class GsServer:
    """One bucket's objects, by name; `met` has the method and the condition of each request."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.met: list[tuple[str, str | None]] = []
        self.url = ""
        self._parts: dict[str, dict[int, bytes]] = {}

    def answer(self, method: str, target: str, fields: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(target)
        bucket, _, name = unquote(parts.path).removeprefix("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        condition = fields.get("x-goog-if-generation-match")
        self.met.append((method, condition))
        if bucket != self.bucket:
            return 404, {}, b"<Error><Code>NoSuchBucket</Code><Message>No such bucket.</Message></Error>"
        if "uploads" in query or "uploadId" in query:
            return self._in_parts(method, name, query, body)
        if method == "PUT":
            if condition == "0" and name in self.objects:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
            self.objects[name] = body
            return 200, _tags(body), b""
        if name not in self.objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        found = self.objects[name]
        return 200, {**_tags(found), "Last-Modified": formatdate(usegmt=True)}, found

    def _in_parts(self, method: str, name: str, query: dict[str, str], body: bytes) -> Answer:
        if "uploads" in query:
            upload = f"upload-{len(self.met)}"
            self._parts[upload] = {}
            told = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, told.encode()
        upload = query["uploadId"]
        if method == "PUT":
            self._parts[upload][int(query["partNumber"])] = body
            return 200, _tags(body), b""
        whole = b"".join(part for _, part in sorted(self._parts.pop(upload).items()))
        self.objects[name] = whole
        tag = _tags(whole)["ETag"].encode()
        return (
            200,
            {"x-goog-generation": "1"},
            b"<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>" % tag,
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                method, target, _ = first.split(" ")
                status, extra, answer = self.answer(method, target, fields, body)
                extra["Content-Length"] = str(len(answer))
                told = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
                writer.write(f"HTTP/1.1 {status} -\r\n{told}\r\n".encode() + (b"" if method == "HEAD" else answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _tags(data: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "x-goog-generation": "1"}


@asynccontextmanager
async def gs_server(bucket: str) -> AsyncIterator[GsServer]:
    """The server, as long as the block lasts."""
    store = GsServer(bucket)
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0, limit=1024 * 1024)
    store.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield store
    finally:
        server.close()
