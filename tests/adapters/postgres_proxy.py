"""A TCP proxy in front of Postgres that cuts the connection at a COMMIT: before the server gets it, or after it did."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

Cut = Literal["before", "after"]


class Proxy:
    """Passes everything on; `cuts` says what becomes of the next COMMITs (None: it is passed on)."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.cuts: list[Cut | None] = []
        self.made = 0

    async def start(self) -> str:
        """The URL under which the server is reached through it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        answers = asyncio.create_task(self._pass_on(theirs, writer))
        try:
            while data := await reader.read(65_536):
                cut = self.cuts.pop(0) if self.cuts and b"COMMIT\0" in data else None
                if cut is not None:
                    self.made += 1
                    answers.cancel()
                    writer.transport.abort()
                    if cut == "after":
                        ours.write(data)
                        await ours.drain()
                        await theirs.read(65_536)  # it was done
                    break
                ours.write(data)
                await ours.drain()
        except OSError:
            pass
        finally:
            answers.cancel()
            ours.close()
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.close()
