"""`tickwork doctor`: does everything that Tickwork stands on work on this machine? Each check says what to do.

Of the profile cloud it asks the servers, too: `tickwork.cli.doctor_cloud`.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tickwork import __version__
from tickwork.cli import output
from tickwork.cli.options import HERE, Json, Place
from tickwork.errors import TickworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tickwork.model.lifetime import Lifetime

LIBRARIES = (
    "cel-expr-python",
    "cyclopts",
    "genai-prices",
    "jsonschema",
    "msgspec",
    "prometheus-client",
    "pydantic",
    "rich",
    "ruamel.yaml",
)
CLIENTS = {"confluent-kafka": "kafka", "asyncpg": "postgres", "obstore": "s3", "redis": "redis"}
"""What the profile cloud needs besides, and the extra that it comes with."""
OLDEST_SQLITE = (3, 35, 0)
"""The first version with RETURNING."""
LITTLE_SPACE = 256 * 1024 * 1024
GLYPH = {"ok": ("✓", "green"), "note": ("·", "dim"), "bad": ("✗", "red")}
FINDINGS = 4
LEFT_BEHIND_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: `ok`, `note` (worth knowing, nothing wrong) or `bad`, and then what to do."""

    check: str
    state: str
    found: str
    todo: str = ""


QUEUES = (
    ("records to be written", "data_plane_queued"),
    ("references to be routed", "control_plane_queued"),
    ("inputs that no worker took", "executor_queued"),
    ("inputs at the executor", "executor_held"),
    ("inputs of graphs not loaded", "executor_parked"),
    ("lifetimes that move", "control_plane_moving"),
    ("lifetimes that wait, in memory", "control_plane_idle"),
)
"""What is shown of a running process: its queues, and how its metrics call them; `..._limit` is the bound of one."""


@dataclass(frozen=True)
class Queue:
    """One queue of a running process. `bound` None: no bound of its own; it grows with the lifetimes that move."""

    queue: str
    now: int
    bound: int | None


def doctor(*, json: Json = False, place: Place = HERE) -> int:
    """Check this machine, the libraries, and the home or the servers. Exit code 4 with what is wrong and what to do."""
    findings = list(examine(place))
    queues = list(measured(place))
    wrong = [finding for finding in findings if finding.state == "bad"]
    if json:
        output.emit_json(
            {
                "healthy": not wrong,
                "version": __version__,
                "checks": [asdict(finding) for finding in findings],
                "queues": [asdict(queue) for queue in queues],
            }
        )
    else:
        _print(findings)
        if queues:
            _print_queues(queues)
        if wrong:
            output.say(f"{output.count(len(wrong), 'check')} found something wrong.", "red")
        else:
            output.say("All is well.", "green")
    return FINDINGS if wrong else 0


def examine(place: Place) -> Iterator[Finding]:
    """All checks; one that fails in a way nobody foresaw is a finding too."""
    from tickwork.cli.doctor_cloud import servers

    home = place.home.absolute()
    machine: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("libraries", _libraries),
        ("conditions", _conditions),
    )
    cloud: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (("clients", _clients), ("servers", servers))
    local: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("sqlite", _sqlite),
        ("home", lambda: _home(home)),
        ("holder", lambda: _holder(home)),
        ("adapters", _adapters),
        ("store", lambda: _store(place, home)),
        ("left behind", lambda: _left_behind(place, home)),
        ("examples", _examples),
    )
    for name, check in machine + (cloud if place.profile == "cloud" else local):
        try:
            yield from check()
        except TickworkError as error:
            yield Finding(name, "bad", str(error))
        except Exception as error:  # noqa: BLE001 - a check that fails is a finding, whatever it is
            yield Finding(name, "bad", f"{type(error).__name__}: {error}", "Reinstall Tickwork, then run doctor again.")


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "ok", found)


def _libraries() -> Iterator[Finding]:
    yield Finding("tickwork", "ok", __version__)
    for name in LIBRARIES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "bad", "is not installed", f"pip install '{name}', or install tickwork again.")


def _clients() -> Iterator[Finding]:
    for name, extra in CLIENTS.items():
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "note", "is not installed", f"For this kind of server: pip install 'tickwork[{extra}]'")


def _conditions() -> Iterator[Finding]:
    from tickwork.model.condition import compile_condition

    values = {"result": {"n": 3}, "telemetry": {}, "header": {}, "lifetime": {}}
    if compile_condition("result.n > 2 && route == ''").holds(values):
        yield Finding("conditions", "ok", "the CEL engine answers")
    else:
        yield Finding("conditions", "bad", "the CEL engine answers wrongly", "Reinstall cel-expr-python.")


def _sqlite() -> Iterator[Finding]:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield Finding("sqlite", "bad", found, "Use a Python that is built with SQLite 3.35 or newer.")
    else:
        yield Finding("sqlite", "ok", found)


def _home(home: Path) -> Iterator[Finding]:
    if home.exists() and not home.is_dir():
        yield Finding(
            "home", "bad", f"{home} is a file, not a folder", "Name another one: --home DIR or TICKWORK_HOME."
        )
        return
    folder = next(one for one in (home, *home.parents) if one.is_dir())
    if not os.access(folder, os.W_OK):
        yield Finding("home", "bad", f"{folder} cannot be written", "Change its owner, or use another: --home DIR.")
        return
    made = "" if home.is_dir() else ", made at the first run"
    yield Finding("home", "ok", f"{home}{made}")
    free = shutil.disk_usage(folder).free
    text = f"{free / 1024**3:,.1f} GiB free"
    if free < LITTLE_SPACE:
        yield Finding("space", "bad", text, "Free some space: a full disk stops every lifetime (none is lost).")
    else:
        yield Finding("space", "ok", text)
    yield _fsync(folder)


def _fsync(folder: Path) -> Finding:
    """What is acknowledged has to survive the loss of power, so fsync has to work on files and on folders."""
    import tempfile

    from tickwork.clock import SystemClock

    clock = SystemClock()
    begun = clock.monotonic()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return Finding("fsync", "bad", f"{folder}: {error.strerror}", "Put the home on a local disk: --home DIR.")
    return Finding("fsync", "ok", output.milliseconds((clock.monotonic() - begun) * 1_000))


def _holder(home: Path) -> Iterator[Finding]:
    from tickwork.home import holder

    who = holder(home)
    if who is None:
        yield Finding("holder", "ok", "nobody runs on this home")
    else:
        yield Finding("holder", "note", f"process {who.pid} runs on this home: {who.command}")


def _adapters() -> Iterator[Finding]:
    """Variables that put another adapter in the place of the local profile's own: easily forgotten in a shell."""
    from tickwork.profiles import VARIABLES, shown

    for name in VARIABLES.values():
        if url := os.environ.get(name):
            yield Finding(
                "adapters", "note", f"{name} is set: {shown(url)} in place of this profile's own", f"unset {name}"
            )


def _store(place: Place, home: Path) -> Iterator[Finding]:
    from tickwork.clock import SystemClock
    from tickwork.profiles import Profile

    profile = Profile.from_environment(place.profile, home)
    if profile.state_url.startswith("sqlite:///") and not Path(profile.state_url.removeprefix("sqlite:///")).exists():
        yield Finding("store", "ok", "no database yet, made at the first run")
        return

    async def ping() -> dict[str, str]:
        store = profile.open_store(SystemClock(), readonly=True)
        await store.start()
        try:
            return await store.ping()
        finally:
            await store.stop()

    for fact, value in asyncio.run(ping()).items():
        yield Finding(f"store {fact}", "ok", value)


def _left_behind(place: Place, home: Path) -> Iterator[Finding]:
    """Lifetimes that are to run while nobody runs on the home."""
    from tickwork.cli.reach import left_behind, reading
    from tickwork.ports import LifetimeQuery

    async def look() -> list[Lifetime]:
        async with reading(place) as service:
            return await service.list(LifetimeQuery(statuses=("PENDING", "RUNNING"), limit=100), tenant=place.tenant)

    if place.profile == "test" or not home.is_dir():
        return
    try:
        found = [one for one in asyncio.run(look()) if left_behind(place, one)]
    except TickworkError:
        return  # a home that cannot be read is the finding of another check
    for one in found[:LEFT_BEHIND_SHOWN]:
        yield Finding(
            "left behind",
            "note",
            f"lifetime {one.lifetime_id} of {one.graph_name} is {one.status} and nobody runs it",
            f"tickwork lifetimes resume {one.lifetime_id}",
        )
    if len(found) > LEFT_BEHIND_SHOWN:
        yield Finding("left behind", "note", f"and {len(found) - LEFT_BEHIND_SHOWN} more", "tickwork lifetimes list")


def measured(place: Place) -> Iterator[Queue]:
    """The queues of the process that holds the home, as that process tells; nothing when nobody does."""
    from tickwork import home
    from tickwork.cli.reach import profile_of

    try:
        folder = profile_of(place).home
        if folder is None or home.holder(folder) is None:
            return
        metrics = home.call(folder, "metrics")
    except TickworkError:
        return  # a home that cannot be reached is the finding of another check
    for name, key in QUEUES:
        if key in metrics:
            bound = metrics.get(f"{key}_limit")
            yield Queue(name, int(metrics[key]), None if bound is None else int(bound))


def _examples() -> Iterator[Finding]:
    from tickwork.cli.demo import missing_extras

    missing = missing_extras()
    if missing:
        yield Finding("demo", "note", f"the example's local model needs {' and '.join(missing)}", "make demo")
    else:
        yield Finding("demo", "ok", "the example's local model is installed")


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    rows = output.table("", "check", "found", fold=("found",))
    for finding in findings:
        glyph, style = GLYPH[finding.state]
        found = Text(finding.found)
        if finding.todo:
            found.append(f"\n→ {output.as_called(finding.todo)}", style="bold" if finding.state == "bad" else "dim")
        rows.add_row(Text(glyph, style=style), Text(finding.check), found)
    output.show(rows)


def _print_queues(queues: list[Queue]) -> None:
    rows = output.table("queue", "now", "bound", right=("now", "bound"))
    for one in queues:
        rows.add_row(one.queue, f"{one.now:,}", "" if one.bound is None else f"{one.bound:,}")
    output.show("", rows)
