"""An HTTP proxy with faults of its own choosing, for an object store that a test cannot break otherwise.

Each request goes to the real server over a connection of its own, unless the fault for it says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

Fault = str
"""`none`; `5xx`: answered by 503, never sent on; `lost`: sent on, and its answer is dropped; `hang`: sent on, and there
is no answer; `slow`: sent on after 0.2 s; `short`: only half of the body of the answer comes; `changed`: a byte of the
body is another one."""

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyProxy:
    """What it met, and which fault comes next: `fault(method, path)` is asked at each request."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.fault: Callable[[str, str], Fault] = lambda method, path: "none"
        self.met: list[tuple[str, Fault]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        length = next((int(f.split(":")[1]) for f in fields if f.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        fault = self.fault(method, path)
        self.met.append((method, fault))
        if fault == "5xx":
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BUSY) + BUSY
            )
            await writer.drain()
            return
        if fault == "slow":
            await asyncio.sleep(0.2)
        answer = await self._ask([first, "Connection: close", *fields], body)
        if fault == "lost":
            return
        if fault == "hang":
            await reader.read()  # until the client gives up
        answer_head, _, answer_body = answer.partition(b"\r\n\r\n")
        if fault == "short":
            answer_body = answer_body[: len(answer_body) // 2]
        if fault == "changed":
            answer_body = bytes([answer_body[0] ^ 1]) + answer_body[1:]
        writer.write(answer_head + b"\r\n\r\n" + answer_body)
        await writer.drain()

    async def _ask(self, head: list[str], body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write("\r\n".join(head).encode("latin-1") + body)
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def faulty_proxy(upstream: str) -> AsyncIterator[FaultyProxy]:
    """A proxy before `upstream` (an http:// URL), as long as the block lasts."""
    proxy = FaultyProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1024 * 1024)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
