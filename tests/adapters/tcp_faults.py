"""A TCP proxy that a test can cut, stop answering, and take away."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class Port:
    """A port of loopback that takes connections at times, and stays its own while it refuses them."""

    def __init__(
        self,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._serve, self._tls = serve, tls
        self.number = 0
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None

    async def listen(self) -> None:
        """Takes connections (again), always on the same port."""
        if self._server is None:
            place, self._kept = self._kept or self._bound(), None
            self._server = await asyncio.start_server(self._serve, sock=place, limit=1024 * 1024, ssl=self._tls)
            self.number = place.getsockname()[1]

    def refuse(self) -> None:
        """Who connects is refused. Nobody else gets the port meanwhile."""
        if self._server is not None:
            self._server.close()
            self._server, self._kept = None, self._bound()

    def close(self) -> None:
        """The end: the port is free."""
        self.refuse()
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _bound(self) -> socket.socket:
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", self.number))
        return place


class TcpProxy:
    """Passes bytes on, both ways, while `answering`. `tls`: clients have to speak it."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port = host, port
        self.own = Port(self._serve, tls)
        self.answering = True
        """Otherwise connections are taken, and what comes is swallowed."""
        self.taken = 0
        """Connections so far."""
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.own.number

    async def listen(self) -> None:
        """Takes connections (again), always on the same port."""
        await self.own.listen()

    async def leave(self) -> None:
        """Refuses connections, and cuts those that there are."""
        self.own.refuse()
        self.cut()

    async def close(self) -> None:
        """The end: cuts what there is, and the port is free."""
        self.own.close()
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
    async with listening(TcpProxy(host, port)) as proxy:
        yield proxy


@asynccontextmanager
async def listening(proxy: TcpProxy) -> AsyncIterator[TcpProxy]:
    """This proxy, as long as the block lasts."""
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
