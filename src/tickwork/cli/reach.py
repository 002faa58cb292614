"""How a command reaches a home: by opening it, by reading past the process that holds it, or by asking that process.

A home has one writing process at a time. A verb first asks whoever holds the home, over its control socket; when
nobody does, this process opens the home itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from tickwork.cli.failure import GraphUnavailable, Refusal
from tickwork.errors import TickworkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.cli.carry import Carry
    from tickwork.cli.options import Place
    from tickwork.model.lifetime import Lifetime
    from tickwork.ports import StoredGraph
    from tickwork.profiles import Profile
    from tickwork.runtime import Runtime
    from tickwork.sdk.loading import BoundGraph
    from tickwork.service import Outcome, Service


SECONDS_TO_END = 30
"""How long `abort` waits for what is in flight to be cancelled, before it says how far it came."""


def profile_of(place: Place) -> Profile:
    """The adapters that the options and the environment ask for."""
    from tickwork.profiles import Profile

    return Profile.from_environment(place.profile, place.home)


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Runtime]:
    """The home, held by this process. Raises HomeInUse when another one holds it."""
    from tickwork.runtime import Runtime

    async with Runtime(profile_of(place)) as runtime:
        yield runtime


@contextlib.asynccontextmanager
async def reading(place: Place) -> AsyncIterator[Service]:
    """The home's records, also while another process holds it. Nothing can be changed through it."""
    _must_exist(place)
    from tickwork.runtime import Runtime

    async with Runtime(profile_of(place), readonly=True) as runtime:
        yield runtime.service


def _must_exist(place: Place) -> None:
    """Reading never makes a home: a mistyped folder would look like one where nothing ever ran."""
    if place.profile == "local" and not place.home.is_dir():
        raise Refusal(
            f"There is no Tickwork home at {place.home}.",
            "Run a graph first (tickwork run GRAPH), or name the folder: --home DIR or TICKWORK_HOME.",
        )


async def start(
    place: Place,
    bound: BoundGraph,
    value: Any,
    carry: Carry,
    *,
    labels: dict[str, str],
    idempotency_key: str | None,
) -> Outcome:
    """Starts a lifetime of `bound` and carries it."""
    async with opened(place) as runtime:
        stored = await runtime.bind(bound, tenant=place.tenant)
        lifetime = await runtime.service.start(
            stored.digest, value, tenant=place.tenant, labels=labels, idempotency_key=idempotency_key
        )
        if idempotency_key is not None and not lifetime.ended and lifetime.status != "PAUSED":
            await runtime.service.resume(lifetime.lifetime_id, tenant=place.tenant)  # perhaps another process left it
        return await runtime.guard(carry.to_the_end(runtime.service, lifetime, bound.graph))


async def register_graph(place: Place, bound: BoundGraph) -> StoredGraph:
    """Registers `bound` in the home."""
    async with opened(place) as runtime:
        return await runtime.service.register(bound.graph, tenant=place.tenant, source=bound.source)


async def apply(place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> tuple[Lifetime, bool]:
    """Does a verb of the Service: the lifetime after it, and whether another process did it."""
    told = _tell_holder(place, verb, lifetime, arguments)
    if told is not None:
        return told, True
    async with opened(place) as runtime:
        changed = await _do(runtime, place, verb, lifetime, arguments)
        if verb == "abort":
            ended = runtime.service.wait(changed.lifetime_id, tenant=place.tenant)
            with contextlib.suppress(TimeoutError):
                changed = await asyncio.wait_for(runtime.guard(ended), SECONDS_TO_END)
        return changed, False


async def apply_and_carry(
    place: Place, verb: str, lifetime: str, arguments: dict[str, Any], carry: Carry
) -> Lifetime | Outcome:
    """Does a verb, then carries the lifetime on here; only its state when another process does that."""
    told = _tell_holder(place, verb, lifetime, arguments)
    if told is not None:
        return told
    async with opened(place) as runtime:
        service = runtime.service
        one = carry.lifetime = await service.get(lifetime, tenant=place.tenant)
        if one.ended and verb == "resume":
            return await service.result(one.lifetime_id, tenant=place.tenant)
        try:
            bound = _code_of(await service.graph(one.graph_digest, tenant=place.tenant), one)
        except TickworkError as error:
            if verb == "resume":
                raise
            carry.missing = f"It is recorded, but the lifetime cannot go on here: {error}"
            return await _do(runtime, place, verb, one.lifetime_id, arguments)
        await runtime.bind(bound, tenant=place.tenant)
        changed = await _do(runtime, place, verb, one.lifetime_id, arguments)
        return await runtime.guard(carry.to_the_end(service, changed, bound.graph))


def _tell_holder(place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> Lifetime | None:
    """The lifetime after another process, which holds the home, did the verb; None when nobody holds it."""
    import msgspec

    from tickwork import home
    from tickwork.errors import HomeInUse
    from tickwork.model.lifetime import Lifetime

    _must_exist(place)
    folder = profile_of(place).home
    if folder is None or home.holder(folder) is None:
        return None
    try:
        told = home.call(folder, verb, lifetime_id=lifetime, tenant=place.tenant, **arguments)
    except HomeInUse:
        if home.holder(folder) is not None:
            raise
        return None  # it has just left, so the home is ours to open
    return msgspec.convert(told, Lifetime)


async def _do(runtime: Runtime, place: Place, verb: str, lifetime: str, arguments: dict[str, Any]) -> Lifetime:
    work = getattr(runtime.service, verb)(lifetime, tenant=place.tenant, **arguments)
    changed: Lifetime = await runtime.guard(work)
    return changed


def _code_of(stored: StoredGraph, one: Lifetime) -> BoundGraph:
    """The implementations of a registered graph, from where it was loaded; they must still be that graph's."""
    from tickwork.sdk.loading import load_graph

    label = f"{stored.name}@{stored.version}"
    if not stored.source:
        raise GraphUnavailable(
            f"{label} was registered without the place of its code, so this process cannot run lifetime "
            f"{one.lifetime_id}. Run it where the graph is bound."
        )
    bound = load_graph(stored.source)
    if bound.graph.digest != stored.digest:
        raise GraphUnavailable(
            f"Lifetime {one.lifetime_id} runs {label} with digest {stored.digest[:19]}..., but {stored.source} now "
            f"holds {bound.graph.label} with digest {bound.graph.digest[:19]}.... Bring that version of the file back "
            "and resume again, or abort the lifetime."
        )
    return bound
