"""A TCP proxy that a test can cut, stop answering, and take away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TcpProxy:
    """Passes bytes on, both ways, while `answering`."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.port = 0
        self.answering = True
        """Otherwise connections are taken, and what comes is swallowed."""
        self.taken = 0
        """Connections so far."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Takes connections (again), always on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def leave(self) -> None:
        """Refuses connections, and cuts those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Cuts all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, upstream}
        try:
            await asyncio.gather(self._pass(reader, upstream), self._pass(upstream_reader, writer))
        finally:
            self._writers -= {writer, upstream}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if self.answering:
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def tcp_proxy(host: str, port: int) -> AsyncIterator[TcpProxy]:
    """A proxy before a server, as long as the block lasts."""
    proxy = TcpProxy(host, port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.leave()
