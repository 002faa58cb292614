"""The servers as processes of this machine."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass

from . import ports, process
from .engine import Condition, look, wait_until_open, with_log
from .place import Entry, Place, State
from .server import Server
from .trouble import ServiceError


@dataclass(frozen=True)
class Native:
    """Each server is a process in a session of its own; its output is its log."""

    place: Place
    state: State
    given_up: threading.Event

    def up(self, server: Server, entry: Entry) -> None:
        if process.is_alive(entry):
            self._await(server, entry, None)
            return
        try:
            server.install(self.place.cache)
            ports.demand_free(entry.ports)
            launch = server.prepare(self.place, entry)
        except subprocess.TimeoutExpired as slow:
            raise ServiceError(f"gave up after {slow.timeout:.0f} s: {slow.cmd} did not end") from None
        started = process.start(launch, self.place.log(server.name))
        entry.pid, entry.born = started.pid, process.birth(started.pid)
        self.state.save()
        self._await(server, entry, started)

    def down(self, server: Server, entry: Entry) -> None:
        process.stop(entry, server.stop_seconds, server.stop_signal)
        if process.is_alive(entry):
            raise ServiceError(f"{server.name}: process {entry.pid} does not end, not even by SIGKILL")
        for path in server.litter(entry):
            path.unlink(missing_ok=True)
        entry.pid, entry.born = None, ""

    def condition(self, server: Server, entry: Entry) -> Condition:
        if entry.pid is None:
            return Condition("down")
        if process.is_alive(entry):
            return look(server, entry)
        return Condition("crashed", f"process {entry.pid} is gone. dev/services up starts it again")

    def logs(self, server: Server) -> str:
        return process.tail(self.place.log(server.name), 200)

    def wipe(self, state: State) -> None:
        pass  # all of it is in the folder

    def _await(self, server: Server, entry: Entry, started: subprocess.Popen[bytes] | None) -> None:
        def is_alive() -> bool:
            return process.is_alive(entry) if started is None else started.poll() is None

        try:
            wait_until_open(server, entry, is_alive, self.given_up)
        except ServiceError as error:
            if started is not None:  # one that nobody can use is not left behind
                self.down(server, entry)
                self.state.save()
            raise with_log(server, self.place, error) from None
