"""The proxy breaks what it is asked to break, and nothing else."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.proxy import COMMIT, Faults, Link

ANSWER = b"answer"


@asynccontextmanager
async def before_a_server() -> AsyncIterator[tuple[Link, list[bytes]]]:
    """A way to a server that answers every piece, and what that server got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            got.append(data)
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link("127.0.0.1", server.sockets[0].getsockname()[1], random.Random(1), tells_where=False)
    await link.listen()
    try:
        yield link, got
    finally:
        await link.close()
        server.close()
        await asyncio.sleep(0.01)


async def ask(link: Link, data: bytes) -> bytes | None:
    """What comes back; None: the connection was cut, or nothing came in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        writer.write(data)
        async with asyncio.timeout(0.5):
            return await reader.read(100) or None
    except (OSError, TimeoutError):
        return None
    finally:
        writer.close()


async def test_what_is_sent_is_answered() -> None:
    async with before_a_server() as (link, got):
        assert await ask(link, COMMIT) == ANSWER
        assert got == [COMMIT]
        assert link.fired == 0


async def test_a_commit_is_made_and_its_answer_lost() -> None:
    async with before_a_server() as (link, got):
        link.faults = Faults(after_commit=1.0)
        assert await ask(link, b"BEGIN\0") == ANSWER
        assert await ask(link, COMMIT) is None
        assert got == [b"BEGIN\0", COMMIT]
        assert link.fired == 1


async def test_a_commit_never_gets_there() -> None:
    async with before_a_server() as (link, got):
        link.faults = Faults(before_commit=1.0)
        assert await ask(link, COMMIT) is None
        assert got == []


async def test_half_open_takes_connections_and_swallows() -> None:
    async with before_a_server() as (link, got):
        link.faults = Faults(swallow=True)
        assert await ask(link, b"x") is None
        assert got == []
        assert link.taken == 1


async def test_a_connection_is_cut_at_a_byte() -> None:
    async with before_a_server() as (link, _):
        link.faults = Faults(reset_at=3)
        assert await ask(link, b"x") in (ANSWER[:3], None)
        assert link.fired == 1


async def test_refused_and_accepted_again() -> None:
    async with before_a_server() as (link, _):
        await link.obey("refuse", {})
        assert await ask_refused(link)
        await link.obey("accept", {})
        assert await ask(link, b"x") == ANSWER


async def ask_refused(link: Link) -> bool:
    """Whether nobody listens there."""
    try:
        await asyncio.open_connection("127.0.0.1", link.port)
    except ConnectionRefusedError:
        return True
    return False


def test_an_address_is_changed_wherever_it_is_torn() -> None:
    link = Link("127.0.0.1", 9092, random.Random(1), tells_where=True)
    link.own.number = 40_000
    answers = (b"<\x0a127.0.0.1" + struct.pack(">i", port) + b"> 127.0.0.9" for port in (9092, 40_000))
    theirs, ours = ((struct.pack(">i", len(answer)) + answer) * 2 for answer in answers)
    for at in range(len(theirs)):
        first, held = link._readdressed(theirs[:at])
        second, rest = link._readdressed(held + theirs[at:])
        assert (first + second, rest) == (ours, b""), at
