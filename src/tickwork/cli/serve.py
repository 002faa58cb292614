"""`tickwork serve`: a process that carries lifetimes of all tenants until it is told to stop.

On the cloud profile any number of these share the work, each with some or all of the roles; they find each other by
nothing but the bus and the database. SIGTERM (or Ctrl-C) drains: nothing new is taken, what runs may end, and others go
on with the rest. A second one, or the end of `--drain`, ends it at once; what ran then is taken up when its leases run
out. While a server is away it waits for it, and what it waits for stands at /readyz: the probes are there before all
else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import Parameter

from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, Place

if TYPE_CHECKING:
    from tickwork.profiles import Profile
    from tickwork.runtime import Role, Runtime
    from tickwork.sdk.loading import BoundGraph

LISTEN = "127.0.0.1:8321"
LAST_WORDS = 5.0
"""Seconds in which a process that was told to end at once closes its connections."""


def serve(
    *graphs: Annotated[
        str, Parameter(help="Graphs whose code is run here: files, folders, module:attribute. An executor needs some.")
    ],
    roles: Annotated[
        str, Parameter(help="Which of data-plane, control-plane, executor and sweeper, with commas between them.")
    ] = "data-plane,control-plane,executor,sweeper",
    pool: Annotated[
        str,
        Parameter(help="Executors of one pool share its graphs' work. Without a name: those that know every graph."),
    ] = "",
    listen: Annotated[
        str,
        Parameter(env_var="TICKWORK_LISTEN", help="HOST:PORT for /healthz, /readyz and /metrics. Port 0: any."),
    ] = LISTEN,
    drain: Annotated[
        float, Parameter(env_var="TICKWORK_DRAIN", help="Seconds that what runs may take to end after SIGTERM.")
    ] = 30.0,
    lease: Annotated[
        float, Parameter(env_var="TICKWORK_LEASE", help="Seconds of silence after which a worker is given up.")
    ] = 30.0,
    concurrency: Annotated[int, Parameter(help="Async calls of user code at the same time.")] = 10_000,
    threads: Annotated[int, Parameter(help="Calls of user code that block at the same time.")] = 32,
    tenant_rate: Annotated[
        str,
        Parameter(
            env_var="TICKWORK_TENANT_RATE",
            help="Executions a second that all executors of this pool begin for a tenant: 50, acme=500, 50,acme=500.",
        ),
    ] = "",
    place: Place = HERE,
) -> int:
    """Carry lifetimes of all tenants, until SIGTERM."""
    from tickwork.cli.reach import profile_of
    from tickwork.cli.streams import load
    from tickwork.executor.pace import TenantRates
    from tickwork.runtime import Runtime

    profile = profile_of(place)
    chosen = _roles(roles, profile)
    if drain < 0 or lease < 1 or concurrency < 1 or threads < 1:
        raise Refusal(
            "A number is out of range.", "--drain is 0 or more; --lease, --concurrency and --threads 1 or more."
        )
    rates = TenantRates.parse(tenant_rate)
    if "executor" in chosen and not graphs:
        raise Refusal(
            "An executor runs the code of graphs, and none is named.",
            "Name them: tickwork serve GRAPH..., or leave the executor to others: --roles "
            + ",".join(sorted(chosen - {"executor"} or {"sweeper"})),
        )
    bound = [load(graph) for graph in graphs]
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    runtime = Runtime(
        profile,
        roles=chosen,
        lease=lease,
        concurrency=concurrency,
        threads=threads,
        pool=_pool_of(pool),
        waits=True,
        rates=rates,
    )
    return asyncio.run(_serve(runtime, bound, place.tenant, listen, drain))


def _pool_of(name: str) -> str:
    from tickwork.executor.worker import GROUP
    from tickwork.model.ids import TENANT

    if not name:
        return GROUP
    if not TENANT.fullmatch(name):
        raise Refusal(f"`{name}` cannot be the name of a pool.", "Use letters, digits, - and _, at most 63.")
    return f"{GROUP}.{name}"


def _roles(text: str, profile: Profile) -> frozenset[Role]:
    from tickwork.runtime import ROLES, Role

    known: tuple[Role, ...] = get_args(Role)
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = frozenset(role for role in known if role in words)
    if not found or len(found) != len(set(words)):
        strange = ", ".join(f"`{word}`" for word in words if word not in known) or "nothing"
        raise Refusal(f"--roles names {strange}.", f"There are {', '.join(known)}.")
    if profile.alone and found != ROLES:
        raise Refusal(
            f"The profile {profile.name} is one process, which has all roles: nobody else would do the rest.",
            "Leave --roles away, or use --profile cloud.",
        )
    return found


async def _serve(runtime: Runtime, graphs: list[BoundGraph], tenant: str, listen: str, drain: float) -> int:
    from tickwork.probes import ProbeServer

    log = logging.getLogger("tickwork.serve")
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    asked, ready = 0, False

    def stop(name: str) -> None:
        nonlocal asked
        asked += 1
        drains = asked == 1 and ready
        log.info("%s: %s", name, "it drains" if drains else "it ends at once")
        told.set()
        if not drains and main is not None:
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    probes = ProbeServer(listen, runtime.probes(), "--listen")
    await probes.start()
    log.info("listening on %s:%d, process %d", probes.host, probes.port, os.getpid())
    ended = "ended at once"
    try:
        async with runtime:
            for graph in graphs:
                stored = await runtime.bind(graph, tenant=tenant)
                log.info("serves %s@%s (%s)", stored.name, stored.version, stored.digest[:19])
            runtime.all_bound()
            ready = True
            log.info("ready as %s on the profile %s", ", ".join(sorted(runtime.roles)), runtime.profile.name)
            await runtime.guard(told.wait())
            given_up = await runtime.drain(drain)
            ended = "ended in good order"
            if given_up:
                ended = f"ended after {drain:g} s (--drain); executions not over, to be made again: {given_up}"
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        await probes.stop()
    log.info(ended)
    return 0
