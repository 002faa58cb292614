"""One call in the protocol of Redis (RESP2), for answers of one line or one value."""

from __future__ import annotations

import socket

from . import NotReady


def call(port: int, *words: str, seconds: float = 5) -> str | None:
    """Send one command and return its answer. Raises NotReady with what the server complains of."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(request.encode())
        answer = connection.makefile("rb")
        line = answer.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        if kind == "$":
            return None if rest == "-1" else answer.read(int(rest)).decode()
        if kind in ("+", ":"):
            return rest
    raise NotReady(rest or "it closed the connection")


def check(port: int) -> None:
    """Raises NotReady until PING is answered."""
    if (said := call(port, "PING")) != "PONG":
        raise NotReady(f"it answers PING with {said}")
