"""What `tickwork doctor` says of a Postgres server: its schema, the walls between tenants, durability, connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.adapters.state.postgres.examination import examine
from tickwork.cli import output
from tickwork.cli.doctor import Finding
from tickwork.cli.doctor_cloud import clock_of, listed, tls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.adapters.state.postgres.examination import Examination
    from tickwork.ports import Clock

OLDEST = 150_000
"""The first version that is known to work."""


async def postgres(url: str, clock: Clock, _limit: float) -> list[Finding]:
    """All that is to be said of the server that `url` names. StorageError when it does not answer."""
    seen = await examine(url, clock)
    return [
        _server(seen),
        tls_of(
            "postgres",
            seen.hosts,
            "Turn TLS on at the server, and add sslmode=verify-full to TICKWORK_STATE_URL.",
            encrypted=seen.encrypted,
        ),
        _schema(seen),
        *_login(seen),
        _walls(seen),
        *_durability(seen),
        _connections(seen),
        clock_of("postgres", seen.asked, seen.told, seen.doubt),
    ]


def _server(seen: Examination) -> Finding:
    text = f"{seen.version} at {seen.label}, connected in {output.milliseconds(seen.seconds * 1_000)}"
    if seen.standby:
        wrong = f"{text}: it is a standby and takes no writes"
        return Finding("postgres", "bad", wrong, "Name the primary in TICKWORK_STATE_URL.")
    if seen.number < OLDEST:
        return Finding("postgres", "bad", f"{text}: it is too old", "Use PostgreSQL 15 or newer.")
    return Finding("postgres", "ok", text)


def _schema(seen: Examination) -> Finding:
    if seen.refusal:
        return Finding("postgres schema", "bad", seen.refusal)
    if seen.found < seen.newest:
        text = f"version {seen.found}, and this Tickwork needs {seen.newest}"
        todo = "tickwork db migrate, with a login that owns the schema in TICKWORK_MIGRATE_URL"
        return Finding("postgres schema", "bad", text, todo)
    return Finding("postgres schema", "ok", f"version {seen.found}, current")


def _login(seen: Examination) -> Iterator[Finding]:
    check, login = "postgres login", seen.login
    above = [word for word, is_so in (("is a superuser", seen.superuser), ("has BYPASSRLS", seen.bypass)) if is_so]
    if above:
        yield Finding(
            check,
            "bad",
            f"{login} {' and '.join(above)}: row-level security does not hold for it",
            "Give the processes a login of their own: CREATE ROLE NAME LOGIN PASSWORD '...'; "
            "GRANT tickwork_app, tickwork_system TO NAME",
        )
    else:
        owns = "owns the tables" if seen.owner else "owns no table"
        yield Finding(check, "ok", f"{login}: no superuser, held by row-level security, {owns}")
    for role in seen.roles:
        if role.above:
            yield Finding(
                f"role {role.name}",
                "bad",
                "is a superuser or has BYPASSRLS: tenants are not kept apart",
                f"ALTER ROLE {role.name} NOSUPERUSER NOBYPASSRLS",
            )
        elif not role.exists:
            yield Finding(f"role {role.name}", "bad", "does not exist", f"CREATE ROLE {role.name} NOLOGIN")
        elif not role.member:
            todo = f'GRANT {role.name} TO "{login}"'
            yield Finding(f"role {role.name}", "bad", f"{login} may not become it, and can do nothing", todo)


def _walls(seen: Examination) -> Finding:
    check, tables = "postgres tenants", seen.tables
    if not tables:
        return Finding(check, "note", "no tables yet, so there is nothing to keep apart")
    open_ones = [table for table in tables if not (table.enabled and table.forced and table.policies)]
    if not open_ones:
        return Finding(check, "ok", f"row-level security is on and forced on all {len(tables)} tables of tenants")
    wrong, todo = [], []
    for table in open_ones:
        has = {"off": table.enabled, "not forced": table.forced, "without a policy": table.policies}
        wrong.append(f"{table.name} ({', '.join(lack for lack, there in has.items() if not there)})")
        verbs = [verb for verb, there in (("ENABLE", table.enabled), ("FORCE", table.forced)) if not there]
        todo += [f"ALTER TABLE {seen.schema}.{table.name} {verb} ROW LEVEL SECURITY" for verb in verbs]
    return Finding(
        check,
        "bad",
        f"row-level security does not keep tenants apart on {len(wrong)} of {len(tables)} tables: {listed(wrong)}",
        "; ".join(todo) or "Restore the policies from a backup, or from the migrations in the package.",
    )


def _durability(seen: Examination) -> Iterator[Finding]:
    check, names = "postgres durability", ("fsync", "synchronous_commit", "full_page_writes")
    off = [name for name in names if seen.settings[name] == "off"]
    if off:
        text = f"{', '.join(off)} off: what was acknowledged may be lost with the machine's power"
        todo = "; ".join(f"ALTER SYSTEM SET {name} = on" for name in off) + "; SELECT pg_reload_conf()"
        yield Finding(check, "bad", text, todo)
        return
    standbys = seen.settings["standbys"]
    text = ", ".join(f"{name} {seen.settings[name]}" for name in names)
    if standbys and seen.settings["synchronous_commit"] == "local":
        todo = "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()"
        yield Finding(check, "bad", f"{text}: the synchronous standbys ({standbys}) are not waited for", todo)
    elif standbys:
        yield Finding(check, "ok", f"{text}, synchronous standbys: {standbys}")
    else:
        yield Finding(check, "ok", text)
        yield Finding("postgres standby", "note", "no synchronous standby: the database is as safe as its one disk")


def _connections(seen: Examination) -> Finding:
    check = "postgres connections"
    text = f"{seen.free} of {seen.limit} free; a process with this URL takes up to {seen.wanted}"
    if seen.limit < seen.wanted:
        todo = f"Raise max_connections (or the role's limit) to {seen.wanted} for each process, or lower pool_max."
        return Finding(check, "bad", text, todo)
    if seen.free < seen.wanted:
        todo = "Raise max_connections, lower pool_max in the URLs, or stop what does not need its connections."
        return Finding(check, "bad", f"{text}: there is no room for one more", todo)
    return Finding(check, "ok", f"{text}, so there is room for {seen.free // seen.wanted} more")
