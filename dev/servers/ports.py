"""Free ports on the loopback address.

They are taken from below the range that the system hands out to clients, so that no outgoing connection sits on a
server's port while that server is being started again. The first candidate depends on the folder: a set of servers
mostly gets the same ports every time, and two sets different ones.
"""

from __future__ import annotations

import socket

from .place import Place, State
from .trouble import ServiceError

FIRST, COUNT = 20_000, 10_000


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As the servers do: connections of a server that has just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def pick(place: Place, state: State, wanted: tuple[str, ...]) -> dict[str, int]:
    """A free port for each of these names. Raises ServiceError when there is none."""
    taken = {port for entry in state.servers.values() for port in entry.ports.values()}
    start = int(place.name, 16) // 32 * 32
    ports: dict[str, int] = {}
    for step in range(COUNT):
        if len(ports) == len(wanted):
            return ports
        candidate = FIRST + (start + step) % COUNT
        if candidate not in taken and is_free(candidate):
            ports[wanted[len(ports)]] = candidate
    raise ServiceError(f"no free port between {FIRST} and {FIRST + COUNT} on 127.0.0.1: what takes them? `ss -ltn`")


def demand_free(ports: dict[str, int]) -> None:
    """Raises ServiceError when somebody else has a port that a server had."""
    for port in ports.values():
        if not is_free(port):
            raise ServiceError(
                f"its port {port} was taken by another process since it ran last (`ss -ltnp 'sport = "
                f":{port}'` says which). End that one, or take new ports: dev/services down, then dev/services up"
            )
