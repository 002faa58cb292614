"""How a command reaches what it is about: a home, or the database that processes share.

A home has one writing process at a time. A verb first asks whoever holds the home, over its control socket; when
nobody does, this process opens the home itself.

On the profile cloud any number of processes write, and nobody holds anything: a command records what it has to say in
its own process, publishes the reference, and the services (`tickwork serve`) go on with it. It has no role itself, so
nothing runs in it, and when it is stopped the lifetime goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwork.cli.failure import GraphUnavailable, Refusal
from tickwork.errors import NotFound, TickworkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.cli.carry import Carry
    from tickwork.cli.options import Place
    from tickwork.home import Holder
    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.policy import PolicyDocument
    from tickwork.outcome import Outcome
    from tickwork.ports import StoredGraph
    from tickwork.profiles import Profile
    from tickwork.runtime import Runtime
    from tickwork.sdk.loading import BoundGraph
    from tickwork.service import Service


SECONDS_TO_END = 30
"""How long `abort` waits for what is in flight to be cancelled, before it says how far it came."""

SECONDS_FOR_SERVICES = 5
"""The same where the services do it; and after so long without a step it is said that perhaps nobody serves."""


class NoHome(NotFound):
    """Nothing was ever recorded here: reading makes no home."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"There is no Tickwork home at {home}.")
        self.hint = "Run a graph first (tickwork run GRAPH), or name the folder: --home DIR or TICKWORK_HOME."


def shared(place: Place) -> bool:
    """Whether other processes do the work: no home, no holder, no door."""
    return place.profile == "cloud"


def services() -> Holder:
    """Who goes on with a lifetime on a shared profile: nobody in particular."""
    from tickwork.home import Holder

    return Holder(0, SERVICES)


SERVICES = "tickwork serve"
"""How they are told from a process that holds a home."""


def profile_of(place: Place) -> Profile:
    """The adapters that the options and the environment ask for. Raises Refusal when the home is a file."""
    from tickwork.profiles import Profile

    if place.profile == "local" and place.home.exists() and not place.home.is_dir():
        raise Refusal(f"{place.home} is a file, not a folder.", "Name another home: --home DIR or TICKWORK_HOME.")
    return Profile.from_environment(place.profile, place.home)


@contextlib.asynccontextmanager
async def opened(place: Place, *, guarded: bool = True) -> AsyncIterator[Runtime]:
    """The home, held by this process. Raises HomeInUse when another one holds it.

    Nothing moves in it but what this command starts or carries on (`recover=False`). On a shared profile it can record
    and publish, and nothing moves in this process at all. `guarded`: not with policies that cannot be enforced.
    """
    from tickwork.runtime import ROLES, Runtime

    roles = frozenset() if shared(place) else ROLES
    async with Runtime(profile_of(place), roles=roles, recover=False, guarded=guarded) as runtime:
        yield runtime


@contextlib.asynccontextmanager
async def reading(place: Place) -> AsyncIterator[Service]:
    """The home's records, also while another process holds it. Nothing can be changed through it. Raises NoHome."""
    async with looking(place) as runtime:
        yield runtime.service


@contextlib.asynccontextmanager
async def looking(place: Place) -> AsyncIterator[Runtime]:
    """As `reading`, with all that the runtime has for looking at records."""
    profile = _existing(place)
    from tickwork.runtime import Runtime

    async with Runtime(profile, readonly=True, recover=False) as runtime:
        yield runtime


def _existing(place: Place) -> Profile:
    """The adapters of a home where something was recorded: a mistyped folder must not become a home. Raises NoHome."""
    if place.profile == "test":
        raise Refusal(
            "--profile test keeps everything in memory, so there is nothing from before to look at or to steer.",
            "Leave --profile (and TICKWORK_PROFILE) away for the home's records.",
        )
    profile = profile_of(place)
    database = profile.state_url.removeprefix("sqlite:///")
    if database != profile.state_url and not Path(database).exists():
        raise NoHome(place.home)
    return profile


LEFT_BEHIND = "left behind: tickwork lifetimes resume"
"""What is said of such a lifetime, before its id."""


def left_behind(place: Place, one: Lifetime) -> bool:
    """Whether a lifetime is to run and nobody runs it: its process died, or was stopped."""
    from tickwork.home import holder

    folder = profile_of(place).home
    return one.status in ("PENDING", "RUNNING") and folder is not None and holder(folder) is None


async def start(
    place: Place,
    bound: BoundGraph,
    value: Any,
    carry: Carry,
    *,
    labels: dict[str, str],
    idempotency_key: str | None,
    policies: PolicyDocument | None = None,
) -> Outcome:
    """Starts a lifetime of `bound` and carries it."""
    async with opened(place) as runtime:
        return await start_in(
            runtime, place, bound, value, carry, labels=labels, idempotency_key=idempotency_key, policies=policies
        )


async def start_in(
    runtime: Runtime,
    place: Place,
    bound: BoundGraph,
    value: Any,
    carry: Carry,
    *,
    labels: dict[str, str],
    idempotency_key: str | None,
    policies: PolicyDocument | None = None,
) -> Outcome:
    """As `start`, in a home that this process holds already."""
    stored = await _registered_in(runtime, place, bound)
    lifetime = await runtime.service.start(
        stored.digest, value, tenant=place.tenant, labels=labels, idempotency_key=idempotency_key, policies=policies
    )
    if idempotency_key is not None and not lifetime.ended and lifetime.status != "PAUSED":
        await runtime.service.resume(lifetime.lifetime_id, tenant=place.tenant)  # perhaps another process left it
    return await carried(runtime, place, lifetime, bound.graph, carry)


async def _registered_in(runtime: Runtime, place: Place, bound: BoundGraph) -> StoredGraph:
    """The graph, registered, with its code in this process. On a shared profile it is not touched when it is there:
    the source that it was registered with is where the services find the code."""
    if not shared(place):
        return await runtime.bind(bound, tenant=place.tenant)
    try:
        return await runtime.service.graph(bound.graph.digest, tenant=place.tenant)
    except NotFound:
        return await runtime.service.register(bound.graph, tenant=place.tenant, source=bound.source)


async def carried(runtime: Runtime, place: Place, one: Lifetime, graph: AgentGraph | None, carry: Carry) -> Outcome:
    """Carries a lifetime to its end in this process; on a shared profile shows it, and answers its questions."""
    work = runtime.guard(carry.to_the_end(runtime.service, one, graph))
    if not shared(place):
        return await work
    asking = asyncio.ensure_future(_ask_whether_anybody_serves(runtime, place, one))
    try:
        return await work
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _ask_whether_anybody_serves(runtime: Runtime, place: Place, one: Lifetime) -> None:
    """Says so when a lifetime that is to run does not: the person would wait for nothing."""
    from tickwork.cli import output

    await runtime.clock.sleep(SECONDS_FOR_SERVICES)
    now = await runtime.service.get(one.lifetime_id, tenant=place.tenant)
    if now.status in ("PENDING", "RUNNING") and now.last_seq <= one.last_seq:
        output.say(
            f"Nothing has moved for {SECONDS_FOR_SERVICES} s. Does a `tickwork serve` run? `tickwork doctor` says who "
            "is there. The lifetime is recorded; it runs when somebody serves.",
            "yellow",
        )


async def register_graph(place: Place, bound: BoundGraph) -> StoredGraph:
    """Registers `bound`; again with another source, from now on its code is loaded from there."""
    async with opened(place) as runtime:
        return await runtime.service.register(bound.graph, tenant=place.tenant, source=bound.source)


async def apply(place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> tuple[Lifetime, Holder | None]:
    """Does a verb of the Service: the lifetime after it, and who else goes on with it, if anybody does."""
    told = tell_holder(place, verb, lifetime, arguments)
    if told is not None:
        return told
    only_record()
    async with opened(place) as runtime:
        changed = await _do(runtime, place, verb, lifetime, arguments)
        if verb == "abort":
            ended = runtime.service.wait(changed.lifetime_id, tenant=place.tenant)
            with contextlib.suppress(TimeoutError):
                limit = SECONDS_FOR_SERVICES if shared(place) else SECONDS_TO_END
                changed = await asyncio.wait_for(runtime.guard(ended), limit)
        return changed, services() if shared(place) else None


def only_record() -> None:
    """Nothing is to run here, so it is no news that this process does not know the graph's code."""
    logging.getLogger("tickwork.executor").setLevel(logging.ERROR)


async def apply_and_carry(
    place: Place, verb: str, lifetime: str, arguments: dict[str, Any], carry: Carry
) -> tuple[Lifetime, Holder | None] | Outcome:
    """Does a verb, then carries the lifetime on here.

    When another process holds the home it goes on there: `resume` follows it, the other verbs return where it stands.
    So it is with the services of a shared profile.
    """
    if shared(place):
        return await _apply_and_follow(place, verb, lifetime, arguments, carry)
    told = tell_holder(place, verb, lifetime, arguments)
    if told is not None and verb == "resume":
        return await follow(place, told[0], told[1], carry)
    if told is not None:
        return told
    async with opened(place) as runtime:
        service = runtime.service
        one = carry.lifetime = await service.get(lifetime, tenant=place.tenant)
        if one.ended and verb == "resume" and "raised" not in arguments:
            return await service.result(one.lifetime_id, tenant=place.tenant)
        try:
            bound = code_of(await service.graph(one.graph_digest, tenant=place.tenant), one)
        except TickworkError as error:
            if verb == "resume":
                raise
            carry.missing = f"It is recorded, but the lifetime cannot go on here: {error}"
            only_record()
            return await _do(runtime, place, verb, one.lifetime_id, arguments), None
        await runtime.bind(bound, tenant=place.tenant)
        changed = await _do(runtime, place, verb, one.lifetime_id, arguments)
        return await runtime.guard(carry.to_the_end(service, changed, bound.graph))


async def _apply_and_follow(
    place: Place, verb: str, lifetime: str, arguments: dict[str, Any], carry: Carry
) -> tuple[Lifetime, Holder | None] | Outcome:
    """Records a verb. `resume` then shows how the services go on, and answers questions."""
    if verb != "resume":
        return await apply(place, verb, lifetime, arguments)
    from tickwork.cli.lifetimes import registered_graph

    async with opened(place) as runtime:
        service = runtime.service
        one = carry.lifetime = await service.get(lifetime, tenant=place.tenant)
        if one.ended and "raised" not in arguments:
            return await service.result(one.lifetime_id, tenant=place.tenant)
        changed = await _do(runtime, place, verb, one.lifetime_id, arguments)
        return await carried(runtime, place, changed, await registered_graph(service, changed), carry)


async def follow(place: Place, one: Lifetime, who: Holder | None, carry: Carry) -> Outcome:
    """Shows a lifetime that another process runs, until it ends or waits for somebody."""
    from tickwork.cli import output
    from tickwork.cli.lifetimes import registered_graph

    output.say(f"{holder_text(who)} holds the home and runs it; this only follows.", "dim")
    if carry.answers is not None:
        output.say("--answers is not used: questions are answered by that process, or by `tickwork lifetimes answer`.")
    carry.elsewhere = True
    async with reading(place) as service:
        return await carry.to_the_end(service, one, await registered_graph(service, one))


def holder_text(who: Holder | None) -> str:
    """`process 4711`, or as much as is known."""
    if who is not None and who.command == SERVICES:
        return f"`{SERVICES}`"
    return f"process {who.pid}" if who is not None and who.pid else "another process"


def tell_holder(place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> tuple[Lifetime, Holder] | None:
    """The lifetime after another process, which holds the home, did the verb, and that process; None: nobody does."""
    import msgspec

    from tickwork.model.lifetime import Lifetime

    _existing(place)
    told = ask_holder(place, verb, {"lifetime_id": lifetime, "tenant": place.tenant, **arguments})
    return None if told is None else (msgspec.convert(told[0], Lifetime), told[1])


def who_goes_on(who: Holder) -> str:
    """Who carries a lifetime on, in words."""
    if who.command == SERVICES:
        return f"{holder_text(who)} goes on with it"
    return f"the process that holds the home goes on with it ({holder_text(who)})"


def ask_holder(place: Place, verb: str, arguments: dict[str, Any]) -> tuple[Any, Holder] | None:
    """What another process, which holds the home, says to a verb of its door, and that process; None: nobody does."""
    from tickwork import home
    from tickwork.errors import HomeInUse

    folder = profile_of(place).home
    who = None if folder is None else home.holder(folder)
    if folder is None or who is None:
        return None
    try:
        return home.call(folder, verb, **arguments), who
    except HomeInUse:
        if home.holder(folder) is not None:
            raise
        return None  # it has just left, so the home is ours to open


async def _do(runtime: Runtime, place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> Lifetime:
    work = getattr(runtime.service, verb)(lifetime, tenant=place.tenant, **arguments)
    changed: Lifetime = await runtime.guard(work)
    return changed


def code_of(stored: StoredGraph, one: Lifetime) -> BoundGraph:
    """The implementations of a lifetime's graph, from where it was loaded; they must still be that graph's."""
    return _loaded(
        stored,
        f"Lifetime {one.lifetime_id} runs",
        f"so this process cannot run lifetime {one.lifetime_id}. Run it where the graph is bound.",
        "resume again, or abort the lifetime.",
    )


def _loaded(stored: StoredGraph, whose: str, unknown: str, then: str) -> BoundGraph:
    """A registered graph with its code, which must have the same digest. Raises GraphUnavailable."""
    from tickwork.cli.streams import load

    label = f"{stored.name}@{stored.version}"
    if not stored.source:
        raise GraphUnavailable(f"{label} was registered without the place of its code, {unknown}")
    bound = load(stored.source)
    if bound.graph.digest != stored.digest:
        raise GraphUnavailable(
            f"{whose} {label} with digest {stored.digest[:19]}..., but {stored.source} now "
            f"holds {bound.graph.label} with digest {bound.graph.digest[:19]}.... Bring that version of the file back "
            f"and {then}"
        )
    return bound


def load_named(place: Place, spec: str) -> BoundGraph:
    """What `run` is to run: a file, a folder, `module:attribute`, or the NAME or NAME@VERSION of a registered graph.

    A file or folder of that name comes first. Raises NotFound, GraphInvalid, GraphUnavailable.
    """
    from tickwork.cli.streams import load
    from tickwork.model.ids import NAME

    try:
        return load(spec)
    except NotFound:
        if place.profile == "test" or Path(spec).exists() or not NAME.fullmatch(spec.partition("@")[0]):
            raise
        try:
            stored = asyncio.run(_registered(place, spec))
        except NotFound:
            stored = None
        if stored is None:
            raise
    if shared(place):
        return _without_code(stored)
    return _loaded(stored, "Registered is", "so it cannot be run by name.", "run it again.")


def _without_code(stored: StoredGraph) -> BoundGraph:
    """A registered graph whose code other processes have."""
    from tickwork.model.graph import graph_from_json
    from tickwork.sdk.loading import BoundGraph

    return BoundGraph(graph_from_json(stored.body), {}, stored.source, Path())


async def _registered(place: Place, spec: str) -> StoredGraph:
    async with reading(place) as service:
        return await service.graph(spec, tenant=place.tenant)
