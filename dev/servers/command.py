"""`dev/services`: the command line. URLs go to standard output, everything else to standard error."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from . import compose, ports
from .engine import Engine
from .kafka import Kafka
from .native import Native
from .place import Entry, Place, State
from .postgres import Postgres
from .redis import Redis
from .s3 import S3
from .server import Server
from .trouble import ServiceError

SERVERS: dict[str, Server] = {server.name: server for server in (Kafka(), Postgres(), Redis(), S3())}

PROFILE = {
    "TICKWORK_BUS_URL": "TICKWORK_KAFKA_URL",
    "TICKWORK_STATE_URL": "TICKWORK_POSTGRES_URL",
    "TICKWORK_BLOB_URL": "TICKWORK_S3_URL",
    "TICKWORK_KV_URL": "TICKWORK_REDIS_URL",
}
"""What the profile cloud reads, and which server it is here."""


def main(arguments: Sequence[str]) -> int:
    """0: done. 1: a server is not as it should be. 2: wrong usage. 130: interrupted."""
    asked = _parser().parse_args(arguments)
    os.umask(0o022)  # what PostgreSQL's own user has to read is not hidden from it
    place = Place.from_environment()
    try:
        match asked.command:
            case "up":
                return up(place, asked.names or list(SERVERS))
            case "down":
                return down(place, asked.names, wipe=asked.wipe)
            case "status":
                return status(place, as_json=asked.json)
            case "logs":
                print(_engine(place, place.state(), threading.Event()).logs(SERVERS[asked.name]))
                return 0
            case _:
                return env(place)
    except KeyboardInterrupt:
        print("dev/services: interrupted; what runs already is ended by dev/services down", file=sys.stderr)
        return 130
    except ServiceError as error:
        print(f"dev/services: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"dev/services: {error}; is {place.folder} a folder that you may write to?", file=sys.stderr)
        return 1


def up(place: Place, names: Sequence[str]) -> int:
    """Start these servers, all at once, and print where all that run are found."""
    given_up = threading.Event()
    with place.locked() as state:
        if not any(entry.pid is not None for entry in state.servers.values()):
            state.engine = _choice()
        engine = _engine(place, state, given_up)
        for name in names:
            entry = state.servers.setdefault(name, Entry())
            entry.secrets = entry.secrets or SERVERS[name].secrets()
            entry.ports = entry.ports or ports.pick(place, state, SERVERS[name].port_names)
        state.save()

        def start(name: str) -> str:
            try:
                engine.up(SERVERS[name], state.servers[name])
            except (ServiceError, OSError) as error:
                return f"{name}: {error}"
            return ""

        with ThreadPoolExecutor(len(names)) as at_once:
            starting = [at_once.submit(start, name) for name in names]
            try:
                failures = [failure for started in starting if (failure := started.result())]
            except KeyboardInterrupt:
                given_up.set()  # the threads end what they started and nobody can use yet
                raise
        state.save()
        for failure in failures:
            print(f"dev/services: {failure}", file=sys.stderr)
        _print_variables(state)
    return 1 if failures else 0


def down(place: Place, names: Sequence[str], *, wipe: bool) -> int:
    """End these servers or all. All at once: their ports are forgotten; with `wipe` their data are, too."""
    if not place.folder.exists():
        return 0
    with place.locked() as state:
        engine = _engine(place, state, threading.Event())
        chosen = [name for name in names or SERVERS if name in state.servers]
        running = [name for name in chosen if state.servers[name].pid is not None]
        with ThreadPoolExecutor(len(SERVERS)) as at_once:
            list(at_once.map(lambda name: engine.down(SERVERS[name], state.servers[name]), running))
        if not names:
            for entry in state.servers.values():
                entry.ports = {}
        state.save()
        if wipe:
            engine.wipe(state)
            place.wipe()
    return 0


def status(place: Place, *, as_json: bool) -> int:
    """One line a server; 0 when something runs and nothing is broken."""
    state = place.state()
    engine = _engine(place, state, threading.Event())
    told: dict[str, dict[str, str | int | None]] = {}
    for name, server in SERVERS.items():
        entry = state.servers.get(name, Entry())
        condition = engine.condition(server, entry)
        port = entry.ports.get("port")
        told[name] = {"state": condition.state, "port": port, "pid": entry.pid or None, "note": condition.note}
        told[name]["log"] = str(place.log(name)) if state.engine == "native" else None
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        for name, known in told.items():
            at = f"127.0.0.1:{known['port']}" if known["port"] else ""
            pid = f"pid {known['pid']}" if known["pid"] and known["state"] != "crashed" else ""
            print(f"{name:<9} {known['state']:<8} {at:<16} {pid:<12} {known['note']}".rstrip())
    states = {known["state"] for known in told.values()}
    return 0 if "up" in states and not states & {"crashed", "stuck"} else 1


def env(place: Place) -> int:
    """What `eval "$(dev/services env)"` takes."""
    state = place.state()
    if not _print_variables(state):
        print("dev/services: nothing was started here: dev/services up", file=sys.stderr)
        return 1
    return 0


def _print_variables(state: State) -> bool:
    variables: dict[str, str] = {}
    for name, server in SERVERS.items():
        if name in state.servers and state.servers[name].pid is not None:
            variables |= server.variables(state.servers[name])
    variables |= {own: variables[of] for own, of in PROFILE.items() if of in variables}
    for variable, value in variables.items():
        print(f"export {variable}={shlex.quote(value)}")
    return bool(variables)


def _choice() -> str:
    chosen = os.environ.get("TICKWORK_SERVICES_ENGINE", "")
    if chosen not in ("", "native", "compose"):
        raise ServiceError(f"TICKWORK_SERVICES_ENGINE is `{chosen}`; it may be native or compose, or be left out")
    return chosen or ("compose" if compose.is_here() else "native")


def _engine(place: Place, state: State, given_up: threading.Event) -> Engine:
    make = compose.Compose if state.engine == "compose" else Native
    return make(place, state, given_up)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev/services", description="The servers of the cloud profile: docs/services.md"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start servers (all, if none is named) and print their URLs")
    starting.add_argument("names", nargs="*", type=_known, metavar="NAME", help=", ".join(SERVERS))
    ending = commands.add_parser("down", help="end servers; one that is named keeps its port")
    ending.add_argument("names", nargs="*", type=_known, metavar="NAME", help=", ".join(SERVERS))
    ending.add_argument("--wipe", action="store_true", help="all servers: remove their data, too")
    looking = commands.add_parser("status", help="ask each server whether it works")
    looking.add_argument("--json", action="store_true", help="for programs: state, port, pid, log")
    commands.add_parser("logs", help="the end of a server's log").add_argument("name", type=_known)
    commands.add_parser("env", help='the URLs again: eval "$(dev/services env)"')
    return parser


def _known(name: str) -> str:
    if name not in SERVERS:
        raise argparse.ArgumentTypeError(f"there is no server `{name}`; there are {', '.join(SERVERS)}")
    return name
