"""PostgreSQL's protocol as far as readiness needs it: a login with SCRAM-SHA-256 (RFC 5802, 7677) and plain queries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import struct
from types import TracebackType
from typing import Self

from . import NotReady


class Refused(NotReady):
    """The server answered with an error; `code` is its SQLSTATE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} (SQLSTATE {code})")
        self.code = code


class PostgresConnection:
    """One session. Raises Refused with what the server says."""

    def __init__(self, port: int, user: str, password: str, database: str, seconds: float = 5) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        try:
            self._log_in(user, password, database)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def query(self, sql: str) -> list[list[str | None]]:
        """The rows of a statement, as text."""
        self._send(b"Q", sql.encode() + b"\0")
        rows: list[list[str | None]] = []
        refused: Refused | None = None
        while True:
            kind, body = self._receive()
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                refused = _refusal(body)
            elif kind == b"Z":
                if refused:
                    raise refused
                return rows

    def _log_in(self, user: str, password: str, database: str) -> None:
        settings = b"".join(word.encode() + b"\0" for word in ("user", user, "database", database))
        start = struct.pack(">i", 196608) + settings + b"\0"
        self._socket.sendall(struct.pack(">i", len(start) + 4) + start)
        self._answer(10)  # SASL; its mechanisms are known
        nonce = secrets.token_urlsafe(18)
        first = f"n=,r={nonce}"
        opening = b"n,," + first.encode()
        self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack(">i", len(opening)) + opening)
        challenge = self._answer(11).decode()
        told = dict(part.split("=", 1) for part in challenge.split(","))
        if not told["r"].startswith(nonce):
            raise NotReady("it answered another login than ours")
        last = f"c=biws,r={told['r']}"
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(told["s"]), int(told["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signed = f"{first},{challenge},{last}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._send(b"p", f"{last},p={base64.b64encode(proof).decode()}".encode())
        verifier = self._answer(12).decode()
        ours = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        if verifier != "v=" + base64.b64encode(ours).decode():
            raise NotReady("it does not know our password: another server answers on this port")
        self._answer(0)
        while self._receive()[0] != b"Z":
            pass

    def _answer(self, expected: int) -> bytes:
        kind, body = self._receive()
        if kind == b"E":
            raise _refusal(body)
        (step,) = struct.unpack(">i", body[:4])
        if kind != b"R" or step != expected:
            raise NotReady(f"it asks for a login of kind {step}, and SCRAM-SHA-256 is what is spoken here")
        return body[4:]

    def _send(self, kind: bytes, body: bytes) -> None:
        self._socket.sendall(kind + struct.pack(">i", len(body) + 4) + body)

    def _receive(self) -> tuple[bytes, bytes]:
        head = self._take(5)
        return head[:1], self._take(struct.unpack(">i", head[1:])[0] - 4)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            part = self._socket.recv(size - len(taken))
            if not part:
                raise NotReady("it closed the connection")
            taken += part
        return taken


def _row(body: bytes) -> list[str | None]:
    (columns,) = struct.unpack_from(">h", body)
    at, row = 2, []
    for _ in range(columns):
        (size,) = struct.unpack_from(">i", body, at)
        at += 4
        row.append(None if size < 0 else body[at : at + size].decode())
        at += max(0, size)
    return row


def _refusal(body: bytes) -> Refused:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return Refused(fields.get(b"C", "?????"), fields.get(b"M", "no message"))
