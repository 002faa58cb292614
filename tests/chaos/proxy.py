"""The fault proxy: a process through which the engine reaches all of its servers, and that breaks what is asked for.

    python -m tests.chaos.proxy '{"postgres": "127.0.0.1:5432", "kafka": "127.0.0.1:9092", ...}'

It prints the ports that it listens on as one line of JSON, by name. Then it takes one order a line and answers each
with one line: `{"name": "postgres", "do": "set", "with": {"delay": 0.1}}`. It ends when its standard input does.

Kafka tells its clients where it is. What it says is changed on its way, byte for byte: the address has the same length
when only the port is another one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from tests.adapters.http_faults import FaultyProxy
from tests.adapters.tcp_faults import Port, TcpProxy

HTTP = ("s3",)
"""Servers that are broken by the request; all others by the byte."""

KAFKA = "kafka"
COMMIT = b"COMMIT\0"
CHUNK = 65_536


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """What happens to connections from now on. Chances are from 0 to 1; times are seconds."""

    delay: float = 0.0
    """Before each piece that is passed on, both ways."""
    jitter: float = 0.0
    """Up to so much more."""
    rate: float = 0.0
    """Bytes a second that pass in each direction; 0: as fast as it goes."""
    swallow: bool = False
    """Connections are taken, and what comes is dropped: half open."""
    after_commit: float = 0.0
    """A COMMIT is passed on, its answer is awaited, and the connection is cut instead."""
    before_commit: float = 0.0
    """The connection is cut when a COMMIT comes; the server never gets it."""
    reset_at: int = 0
    """A connection is cut in the middle of a piece, when so many bytes have come from the server; 0: never."""
    bad_request: float = 0.0
    """HTTP: the answer is 503, and the server never hears of it."""
    lost_answer: float = 0.0
    """HTTP: the server does it, and nobody hears of that."""
    slow_request: float = 0.0
    """HTTP: it takes 0.2 s longer."""
    hang: float = 0.0
    """HTTP: the server does it, and no answer ever comes."""


class Link(TcpProxy):
    """The way to one server."""

    def __init__(self, host: str, port: int, rng: random.Random, *, tells_where: bool) -> None:
        """`tells_where`: the server tells its clients its address, which has to become this one's."""
        super().__init__(host, port)
        self.faults = Faults()
        self.fired = 0
        """Cuts that were made by themselves: at a COMMIT, or at a byte."""
        self._rng = rng
        self._address = host.encode() + struct.pack(">i", port) if tells_where else b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        try:
            theirs, ours = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()  # the server is gone: so is this connection
            return
        self._writers |= {writer, ours}
        waits_for_answer = asyncio.Event()

        def cut() -> None:
            writer.transport.abort()
            ours.transport.abort()

        try:
            await asyncio.gather(
                self._up(reader, ours, waits_for_answer, cut), self._down(theirs, writer, waits_for_answer, cut)
            )
        finally:
            self._writers -= {writer, ours}

    async def _up(
        self,
        reader: asyncio.StreamReader,
        ours: asyncio.StreamWriter,
        waits_for_answer: asyncio.Event,
        cut: Callable[[], None],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if COMMIT in data and (self.faults.after_commit or self.faults.before_commit):
                    drawn = self._rng.random()
                    if drawn < self.faults.before_commit:
                        self.fired += 1
                        cut()
                        return
                    if drawn < self.faults.before_commit + self.faults.after_commit:
                        waits_for_answer.set()
                await self._slowly(ours, data)
        ours.close()

    async def _down(
        self,
        theirs: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        waits_for_answer: asyncio.Event,
        cut: Callable[[], None],
    ) -> None:
        passed, held = 0, b""
        with suppress(OSError):
            while data := await theirs.read(CHUNK):
                if waits_for_answer.is_set():
                    self.fired += 1
                    cut()
                    return
                data, held = self._readdressed(held + data)
                limit = self.faults.reset_at
                if limit and passed + len(data) >= limit:
                    self.fired += 1
                    writer.write(data[: max(0, limit - passed)])
                    await writer.drain()
                    cut()
                    return
                passed += len(data)
                await self._slowly(writer, data)
        writer.close()

    async def _slowly(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        faults = self.faults
        pause = faults.delay + faults.jitter * self._rng.random() + (len(data) / faults.rate if faults.rate else 0)
        if pause:
            await asyncio.sleep(pause)
        if not self.faults.swallow:
            writer.write(data)
            await writer.drain()

    def _readdressed(self, data: bytes) -> tuple[bytes, bytes]:
        """The whole answers, with the server's address as its own, and what has come of the next one."""
        if not self._address:
            return data, b""
        whole = 0
        while len(data) - whole >= 4:
            (length,) = struct.unpack_from(">i", data, whole)
            if len(data) - whole - 4 < length:
                break
            whole += 4 + length
        return data[:whole].replace(self._address, self._address[:-4] + struct.pack(">i", self.port)), data[whole:]

    async def obey(self, order: str, given: dict[str, Any]) -> None:
        """Does what is asked for."""
        match order:
            case "set":
                self.faults = msgspec.convert(given, Faults)
            case "cut":
                self.cut()
            case "refuse":
                await self.leave()
            case "accept":
                await self.listen()
            case _:
                raise ValueError(order)


class HttpLink:
    """The way to a server that speaks HTTP."""

    def __init__(self, host: str, port: int, rng: random.Random) -> None:
        self._proxy = FaultyProxy(f"http://{host}:{port}")
        self._proxy.fault = self._fault
        self._rng = rng
        self.faults = Faults()
        self.own = Port(self._proxy.serve)
        self.fired = 0
        self.taken = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.own.number

    def _fault(self, _method: str, _path: str) -> str:
        drawn, faults = self._rng.random(), self.faults
        self.taken += 1
        for chance, name in (
            (faults.bad_request, "5xx"), (faults.lost_answer, "lost"), (faults.slow_request, "slow"),
            (faults.hang, "hang"),
        ):  # fmt: skip
            if drawn < chance:
                self.fired += 1
                return name
            drawn -= chance
        return "none"

    async def listen(self) -> None:
        """Takes connections (again), always on the same port."""
        await self.own.listen()

    async def obey(self, order: str, given: dict[str, Any]) -> None:
        """Does what is asked for."""
        match order:
            case "set":
                self.faults = msgspec.convert(given, Faults)
            case "refuse":
                self.own.refuse()
            case "accept":
                await self.listen()
            case _:
                raise ValueError(order)


async def main(upstreams: dict[str, str]) -> None:
    """Serves until standard input ends."""
    rng = random.Random(1)
    links: dict[str, Link | HttpLink] = {}
    for name, where in upstreams.items():
        host, _, port = where.rpartition(":")
        link = HttpLink(host, int(port), rng) if name in HTTP else Link(host, int(port), rng, tells_where=name == KAFKA)
        await link.listen()
        links[name] = link
    print(json.dumps({name: link.port for name, link in links.items()}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        link = links[order["name"]]
        if order["do"] != "count":
            await link.obey(order["do"], order.get("with", {}))
        print(json.dumps({"fired": link.fired, "taken": link.taken}), flush=True)


class Proxy:
    """The proxy as its parent has it."""

    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int]) -> None:
        self._process, self.ports = process, ports
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, upstreams: dict[str, str]) -> Proxy:
        """Starts the process; when this returns, it listens."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.proxy", json.dumps(upstreams),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        return cls(process, json.loads(await process.stdout.readline()))

    async def order(self, name: str, do: str, **given: float) -> dict[str, int]:
        """Has one way broken or mended: how many cuts were made there by now, and connections taken."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps({"name": name, "do": do, "with": given}).encode() + b"\n")
            await self._process.stdin.drain()
            answer: dict[str, int] = json.loads(await self._process.stdout.readline())
        return answer

    async def heal(self) -> int:
        """No faults from now on: how many were made by themselves so far."""
        fired = 0
        for name in self.ports:
            await self.order(name, "set")
            fired += (await self.order(name, "count"))["fired"]
        return fired

    async def stop(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


async def _serve(upstreams: dict[str, str]) -> None:
    await main(upstreams)
    os._exit(0)  # nothing is left to be done in order: connections end with the process


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
