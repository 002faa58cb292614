"""`tickwork db migrate`: brings the state database to the version that this Tickwork needs.

Processes that may change the schema do so when they start. Where their login may not, whoever owns the schema runs this
before the new version is rolled out: by hand, or as a hook of a deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, Json, Place, flag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.profiles import Profile

app = App(name="db", help="The state database: migrate it.", result_action="return_value")

VARIABLE = "TICKWORK_MIGRATE_URL"
"""The URL of a login that owns the schema, where the services' own login does not."""

OUTSTANDING = 4
"""Exit code of `--check` when migrations are outstanding."""


@app.command
def migrate(
    *,
    url: Annotated[
        str | None,
        Parameter(
            env_var=VARIABLE,
            help="The database, as a login that owns the schema. Default: TICKWORK_STATE_URL, or the home's. On the "
            "command line others on this machine see its password: better in the environment.",
        ),
    ] = None,
    check: Annotated[bool, flag("--check", help="Only look: exit code 4 when migrations are outstanding.")] = False,
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Bring the database to the schema version that this Tickwork needs."""
    profile = _profile(place, url)
    with _alone(profile, check=check):
        where, found, outstanding = asyncio.run(_migrate(profile, check=check))
    newest = found + len(outstanding)
    if json:
        output.emit_json(
            {
                "database": where,
                "from": found,
                "to": found if check else newest,
                "newest": newest,
                "outstanding": outstanding if check else [],
                "applied": [] if check else outstanding,
            }
        )
    elif not outstanding:
        output.emit_text(f"{where}: schema version {found}, up to date")
    elif check:
        _print(f"{where}: schema version {found}, and this Tickwork needs {newest}; outstanding:", outstanding)
        output.say("Run: tickwork db migrate")
    else:
        _print(f"{where}: schema version {found} -> {newest}; applied:", outstanding)
    return OUTSTANDING if check and outstanding else 0


def _print(what: str, migrations: list[str]) -> None:
    output.emit_text("\n".join([what, *(f"    {name}" for name in migrations)]))


def _profile(place: Place, url: str | None) -> Profile:
    """A profile with the database that is meant; of the cloud profile nothing else has to be named. Raises Refusal."""
    import msgspec

    from tickwork.cli.reach import profile_of
    from tickwork.profiles import Profile

    if place.profile == "test":
        raise Refusal("--profile test keeps everything in memory: there is no database to migrate.")
    if place.profile == "local":
        here = profile_of(place)
        if not url or url == here.state_url:
            return here
        return msgspec.structs.replace(here, state_url=url, home=None)  # another database than the home's
    found = url or os.environ.get("TICKWORK_STATE_URL")
    if not found:
        raise Refusal(
            "No database is named.",
            f"Set {VARIABLE} (a login that owns the schema) or TICKWORK_STATE_URL: "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE",
        )
    return Profile(name="cloud", bus_url="", state_url=found, blob_url="", kv_url="")


@contextlib.contextmanager
def _alone(profile: Profile, *, check: bool) -> Iterator[None]:
    """Holds the home meanwhile, when its file is what is migrated: one process at a time writes there. HomeInUse."""
    if check or profile.home is None or not profile.state_url.startswith("sqlite:"):
        yield
        return
    from tickwork.home import HomeLock

    lock = HomeLock(profile.home)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _migrate(profile: Profile, *, check: bool) -> tuple[str, int, list[str]]:
    """The database, the version it had, and the migrations after that, which are applied now unless this only looks."""
    from tickwork.clock import SystemClock
    from tickwork.profiles import shown

    store = profile.open_store(SystemClock())
    where = str(getattr(store, "label", shown(profile.state_url)))
    migrate_it = getattr(store, "migrate", None)
    if migrate_it is None:
        raise Refusal(
            f"The adapter for {where} knows no migrations.",
            "See its own documentation for how its database is brought up to date.",
        )
    found, outstanding = await migrate_it(check=check)
    return where, found, outstanding
