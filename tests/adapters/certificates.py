"""An authority that no system knows, and a server's certificate by it; PostgreSQL's way into TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import trustme

from tests.adapters.tcp_faults import TcpProxy

POSTGRES_ASKS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a client of PostgreSQL sends to ask for TLS; the server says S, and both begin with it."""


class Authority:
    """`file`: its certificate. Servers have one for `localhost` and 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = authority.issue_cert("localhost", "127.0.0.1")
        self.file = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.file)

    def context(self) -> ssl.SSLContext:
        """Of a server that has its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(context)
        return context


class PostgresTls(TcpProxy):
    """Speaks TLS for a PostgreSQL that cannot: once a client has asked for it, and to no other one."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port)
        self._context = context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(POSTGRES_ASKS)) != POSTGRES_ASKS:
                raise ConnectionError
            writer.write(b"S")
            await writer.start_tls(self._context)
        except (OSError, asyncio.IncompleteReadError):  # a client that does not trust the certificate is gone by now
            writer.close()
        else:
            await super()._serve(reader, writer)
