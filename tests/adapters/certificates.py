"""An authority that no system knows, a server's certificate by it, and a proxy that speaks TLS for a plain server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trustme

POSTGRES_ASKS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a client of PostgreSQL sends to ask for TLS; the server says S, and both begin with it."""


class Authority:
    """`file`: its certificate. Servers have one for `localhost` and 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.server = self._authority.issue_cert("localhost", "127.0.0.1")
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def context(self) -> ssl.SSLContext:
        """Of a server that has its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(context)
        return context


@asynccontextmanager
async def tls_proxy(host: str, port: int, authority: Authority, *, asked: bool = False) -> AsyncIterator[int]:
    """The port of a proxy that takes TLS alone; `asked`: once a client of PostgreSQL has asked for it."""
    context = authority.context()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if asked:
                if await reader.readexactly(len(POSTGRES_ASKS)) != POSTGRES_ASKS:
                    writer.close()
                    return
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(context)
            theirs, ours = await asyncio.open_connection(host, port)
            answers = asyncio.create_task(_pass_on(theirs, writer))
            await _pass_on(reader, ours)
            answers.cancel()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if asked else context)
    try:
        chosen: int = server.sockets[0].getsockname()[1]
        yield chosen
    finally:
        server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
