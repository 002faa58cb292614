"""What a process answers over HTTP to those who look after it: whether it lives, whether it is ready, its metrics.

    GET /healthz   200 while its loops run; an orchestrator starts it anew when it does not answer
    GET /readyz    200 when it takes work; 503 with the reason while it starts, drains, or its store does not answer
    GET /metrics   the text format of Prometheus

Nothing here tells secrets or payloads, and nothing can be changed through it; it is plain HTTP for the network inside.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwork.errors import TickworkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Answer = Callable[[], Awaitable[tuple[str, bytes]]]
    """The status line's end, and the body."""

LOOPBACK = "127.0.0.1"
REQUEST_LIMIT = 8 * 1024
PATIENCE = 5.0
"""Seconds that a request may take to arrive."""

OK = "200 OK"
UNAVAILABLE = "503 Service Unavailable"


def address(text: str, asked_by: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` or `PORT`, on this machine alone unless a host is named. UsageError."""
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"{asked_by} {text} is no address: write HOST:PORT, as in {LOOPBACK}:9464, or a port alone")
    return host or LOOPBACK, int(port)


class ProbeServer:
    """Answers GET for the paths it is given, and nothing else. `asked_by`: the option or variable that asks for it."""

    def __init__(self, where: str, answers: Mapping[str, Answer], asked_by: str) -> None:
        self.host, self.port = address(where, asked_by)
        self._answers, self._asked_by = answers, asked_by
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens. Raises UsageError when the address is in use or is none of this machine."""
        try:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=REQUEST_LIMIT)
        except OSError as error:
            raise UsageError(
                f"{self._asked_by} asks for {self.host}:{self.port}, and that address cannot be listened on: "
                f"{error.strerror or error}. Stop what listens there, or name another port"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more. Twice is fine."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            method, path = (*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", "")[:2]
            status, body = await self._answer(method, path.partition("?")[0])
            writer.write(_response(status, body, head_only=method == "HEAD"))
            await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side left, was too slow, or sent something else
        except asyncio.CancelledError:
            pass  # the process stops, and whoever asked has not finished his sentence
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> tuple[str, bytes]:
        answer = self._answers.get(path)
        if answer is None:
            return "404 Not Found", f"There are {', '.join(self._answers)}.\n".encode()
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", b"It is read with GET.\n"
        try:
            return await answer()
        except TickworkError as error:
            return UNAVAILABLE, f"{error}\n".encode()


def _response(status: str, body: bytes, *, head_only: bool) -> bytes:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if head_only else body)
