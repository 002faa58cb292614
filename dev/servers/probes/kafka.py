"""Kafka's protocol as far as readiness needs it: ApiVersions and Metadata, and a call for whatever else a test asks."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from . import NotReady

METADATA, API_VERSIONS = 3, 18


def text(value: str) -> bytes:
    """A string as the protocol writes it."""
    return struct.pack(">h", len(value)) + value.encode()


class Reader:
    """Takes an answer apart, field by field."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._at = 0

    def number(self, form: str) -> int:
        """The next number; `b`, `h`, `i` are of 8, 16 and 32 bits."""
        (value,) = struct.unpack_from(">" + form, self._answer, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> str:
        size = self.number("h")
        if size < 0:
            return ""
        self._at += size
        return self._answer[self._at - size : self._at].decode()

    def skip_numbers(self) -> None:
        """An array of 32-bit numbers that nobody asked for."""
        count = self.number("i")
        self._at += 4 * max(0, count)


@dataclass(frozen=True)
class Cluster:
    """What a broker says of its cluster."""

    brokers: list[tuple[str, int]]
    controller: int
    leaders: dict[str, list[int]]  # of each topic, the leader of each partition; -1 is none


class KafkaConnection:
    """One connection to a broker."""

    def __init__(self, port: int, seconds: float = 5) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, api: int, version: int, body: bytes) -> Reader:
        """One request and its answer, of a version that has no tagged fields in its header."""
        self._number += 1
        request = struct.pack(">hhi", api, version, self._number) + text("dev-services") + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", self._take(4))
        answer = Reader(self._take(size))
        if answer.number("i") != self._number:
            raise NotReady("it answered another request than the one it was asked")
        return answer

    def versions(self) -> dict[int, tuple[int, int]]:
        """The lowest and highest version of each request that the broker takes."""
        answer = self.call(API_VERSIONS, 0, b"")
        if error := answer.number("h"):
            raise NotReady(f"it refuses ApiVersions with error {error}")
        return {answer.number("h"): (answer.number("h"), answer.number("h")) for _ in range(answer.number("i"))}

    def metadata(self) -> Cluster:
        """The brokers that are let in, and all topics."""
        answer = self.call(METADATA, 4, struct.pack(">ib", -1, 0))
        answer.number("i")  # throttled for so long
        brokers = []
        for _ in range(answer.number("i")):
            answer.number("i")
            brokers.append((answer.text(), answer.number("i")))
            answer.text()
        answer.text()
        controller = answer.number("i")
        leaders: dict[str, list[int]] = {}
        for _ in range(answer.number("i")):
            answer.number("h")
            topic = answer.text()
            answer.number("b")
            leaders[topic] = []
            for _ in range(answer.number("i")):
                answer.number("h")
                answer.number("i")
                leaders[topic].append(answer.number("i"))
                answer.skip_numbers()
                answer.skip_numbers()
        return Cluster(brokers, controller, leaders)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            part = self._socket.recv(size - len(taken))
            if not part:
                raise NotReady("it closed the connection")
            taken += part
        return taken


def check(port: int) -> None:
    """Raises NotReady until the broker is let into its cluster under this port and leads all partitions."""
    with KafkaConnection(port) as broker:
        low, high = broker.versions().get(METADATA, (0, -1))
        if not low <= 4 <= high:
            raise NotReady(f"it takes Metadata in versions {low} to {high}, and 4 is what is spoken here")
        cluster = broker.metadata()
    if ("127.0.0.1", port) not in cluster.brokers:
        raise NotReady("the broker is not let in by its controller yet")
    if waiting := [topic for topic, leaders in cluster.leaders.items() if -1 in leaders]:
        raise NotReady(f"partitions of {waiting[0]} have no leader yet")
