"""The servers of the profile cloud: all are asked at once, each for a few seconds, and what is wrong is a finding.

An adapter's `examine` reads what there is; what of it is wrong, and what to do then, is said here and in the modules
beside this one. A server that does not answer is a finding like any other.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import logging
import os
from typing import TYPE_CHECKING

from tickwork.cli.doctor import CLIENTS, Finding
from tickwork.errors import TickworkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from typing import TypeAlias

    from tickwork.ports import Clock

    Ask: TypeAlias = Callable[[str, Clock, float], Awaitable[list[Finding]]]

LIMIT = 5.0
"""Seconds that a server has for all answers together."""

SPARE = 0.5
"""Seconds of these that are kept to say what was not answered."""

SKEW = 1_000_000
"""Microseconds by which clocks may differ."""

ASKED = {
    "kafka": ("tickwork.cli.doctor_kafka:kafka", "confluent_kafka.admin"),
    "postgresql": ("tickwork.cli.doctor_postgres:postgres", "asyncpg"),
    "postgres": ("tickwork.cli.doctor_postgres:postgres", "asyncpg"),
    "s3": ("tickwork.cli.doctor_stores:bucket", "obstore.store"),
    "gs": ("tickwork.cli.doctor_stores:bucket", "obstore.store"),
    "redis": ("tickwork.cli.doctor_stores:redis", "redis.asyncio"),
    "rediss": ("tickwork.cli.doctor_stores:redis", "redis.asyncio"),
}
"""By the scheme of a URL: what asks the server behind it, and the client's module that this needs."""


def servers() -> Iterator[Finding]:
    """What the environment lacks, and what the servers that it names are like."""
    from tickwork.profiles import SERVERS, VARIABLES, cloud_problems

    problems = cloud_problems(os.environ)
    for name, wrong, server, form in problems:
        yield Finding("profile", "bad", f"{name} {wrong}", f"Name {server}: {name}={form}")
    if os.environ.get("TICKWORK_POLICIES"):
        yield Finding(
            "profile",
            "bad",
            "TICKWORK_POLICIES is set; processes that share a database have the policies of the database alone",
            "tickwork guardrails apply FILE, and unset TICKWORK_POLICIES",
        )
    unusable = {name for name, *_ in problems}
    named = {field: os.environ[VARIABLES[field]] for field in SERVERS if VARIABLES[field] not in unusable}
    yield from asyncio.run(_all(named))


async def _all(urls: dict[str, str]) -> list[Finding]:
    """Asks all of them at the same time."""
    from tickwork.clock import SystemClock

    logging.getLogger("tickwork").setLevel(logging.CRITICAL)  # what goes wrong here is said once, as a finding
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    clock = SystemClock()
    asked = [_asked(field, url, clock) for field, url in urls.items()]  # all is imported before anything is timed
    found = await asyncio.gather(*asked)
    return [finding for findings in found for finding in findings]


def _asked(field: str, url: str, clock: Clock) -> Awaitable[list[Finding]]:
    """The questions to one server, not begun."""
    from tickwork.profiles import VARIABLES, shown

    scheme = url.partition(":")[0]
    at = f"{shown(url)} ({VARIABLES[field]})"
    if scheme not in ASKED:
        return _known(Finding(scheme, "note", f"{at} is another's adapter: nothing is known of its server here"))
    (module, _, name), client = ASKED[scheme][0].partition(":"), ASKED[scheme][1]
    try:
        importlib.import_module(client)
    except ModuleNotFoundError as error:
        extra = CLIENTS.get(client.partition(".")[0].replace("_", "-"), "")
        todo = f"pip install 'tickwork[{extra}]'"
        return _known(Finding(name, "bad", f"{at} needs {error.name}, which is not installed", todo))
    ask: Ask = getattr(importlib.import_module(module), name)
    return _answered(name, at, VARIABLES[field], ask(url, clock, LIMIT - SPARE))


async def _known(finding: Finding) -> list[Finding]:
    """What is known without asking."""
    return [finding]


async def _answered(name: str, at: str, variable: str, asking: Awaitable[list[Finding]]) -> list[Finding]:
    """What a server says; that it does not is a finding."""
    try:
        return await asyncio.wait_for(asking, LIMIT)
    except TimeoutError:
        todo = "Check that it runs and can be reached from here: host, port, firewall, TLS on one side alone."
        return [Finding(name, "bad", f"{at} did not answer within {LIMIT:g} s", todo)]
    except TickworkError as error:
        return [Finding(name, "bad", str(error), f"{variable} has the URL; docs/profiles.md says more.")]
    except Exception as error:  # noqa: BLE001 - a check that fails is a finding, whatever it is
        return [Finding(name, "bad", f"{at}: {type(error).__name__}: {error}", "Correct it, then run doctor again.")]


# -- what several servers are asked -----------------------------------------------------------------------------------


def clock_of(name: str, asked: int, told: int, doubt: int) -> Finding:
    """Whether a server's clock and this host's agree. Times in microseconds; `told` 0: it does not say."""
    check = f"{name} clock"
    if not told:
        return Finding(check, "note", "cannot be told: the server does not say what time it is")
    ahead = told - asked
    if abs(ahead) <= max(doubt, 1_000):
        return Finding(check, "ok", f"as this host's, to {_span(max(doubt, 1_000))}")
    text = f"{_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this host's, give or take {_span(doubt)}"
    if abs(ahead) - doubt <= SKEW:
        return Finding(check, "ok", text)
    return Finding(check, "bad", text, "Have both keep time (chrony, NTP): records bear times of several machines.")


def _span(microseconds: int) -> str:
    if microseconds < 1_000_000:
        return f"{microseconds / 1_000:,.0f} ms"
    seconds = microseconds / 1_000_000
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def tls_of(name: str, hosts: Iterable[str], todo: str, *, encrypted: bool) -> Finding:
    """Whether what goes over a network is encrypted; on this machine it need not be."""
    check = f"{name} TLS"
    if encrypted:
        return Finding(check, "ok", "on")
    away = [host for host in hosts if not is_here(host)]
    if not away:
        return Finding(check, "ok", "off, and nothing leaves this machine")
    return Finding(check, "bad", f"off towards {', '.join(away)}: all can be read on the way", todo)


def is_here(host: str) -> bool:
    """Whether it is this machine: a loopback address, or a path of a socket."""
    if host.startswith("/") or host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.endswith(".localhost")


def listed(names: Iterable[str], most: int = 3) -> str:
    """Some of the names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
