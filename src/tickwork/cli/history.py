"""`tickwork lifetimes replay` and `fork`: was it decided as this code decides, and what if it had gone otherwise."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.options import HERE, By, Id, Json, Place
from tickwork.cli.run import AnswersFile, Quiet, Wait, read_labels
from tickwork.cli.steering import NoRun

if TYPE_CHECKING:
    from tickwork.cli.carry import Carry
    from tickwork.home import Holder
    from tickwork.model.lifetime import Lifetime
    from tickwork.orchestrator.replay import Divergence, Replayed
    from tickwork.outcome import Outcome

FINDINGS = 4
"""The exit code of a divergence."""


def replay(lifetime: Id, /, *, json: Json = False, place: Place = HERE) -> int:
    """Fold a lifetime's log again and compare it with what was recorded, entry by entry. Runs no code of the graph.

    Exit code 4 at the first divergence, which is shown with both sides. Works beside the process that runs it.
    """
    from tickwork.cli.reach import looking

    async def work() -> tuple[Lifetime, Replayed]:
        async with looking(place) as runtime:
            one = await runtime.service.get(lifetime, tenant=place.tenant)
            return one, await runtime.history.replay(one.lifetime_id, tenant=place.tenant)

    one, replayed = asyncio.run(work())
    found = replayed.divergence
    if json:
        output.emit_json(replayed_json(one, replayed))
    elif found is None:
        output.emit_text(f"identical: {_entries(replayed)}, {output.count(replayed.decisions, 'decision')}")
    else:
        _print_divergence(one, found, replayed)
    return 0 if found is None else FINDINGS


def replayed_json(one: Lifetime, replayed: Replayed) -> dict[str, Any]:
    """A replay for machines."""
    import msgspec

    return {
        "lifetime_id": one.lifetime_id,
        "identical": replayed.divergence is None,
        "entries": replayed.entries,
        "decisions": replayed.decisions,
        "edges": replayed.edges,
        "divergence": msgspec.to_builtins(replayed.divergence),
    }


def _print_divergence(one: Lifetime, found: Divergence, replayed: Replayed) -> None:
    """Both sides, line by line, with what differs marked."""
    output.emit_text(f"diverges at entry {found.seq}, after {_entries(replayed)}: {found.what}")
    sides = (found.recorded or {}, found.decided or {})
    lines: list[output.Line] = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        left, right = (_shown(side, name) for side in sides)
        if not left and not right:
            continue
        # What only a record can have (its result, its times) is no difference to a visit that was never recorded.
        differs = left != right and name in sides[1]
        style = "red" if differs else "dim"
        lines.append(
            {
                "": "≠" if differs else "",
                "field": name,
                "recorded": output.cell(left, style),
                "decided": output.cell(right, style),
            }
        )
    for title, side in zip(("recorded", "decided"), sides, strict=True):
        if not side:
            output.emit_text(f"{title}: nothing")
    output.show(output.listing(("", "field", "recorded", "decided"), lines, shrink="recorded"))
    output.say(f"{one.graph_name} {one.graph_version}  {one.lifetime_id}  {one.status}", "dim")


def _entries(replayed: Replayed) -> str:
    return f"{replayed.entries:,} {'entry' if replayed.entries == 1 else 'entries'}"


def _shown(side: dict[str, Any], name: str) -> str:
    if name not in side:
        return ""
    value = side[name]
    if name.endswith("_at") and isinstance(value, int) and value:
        from tickwork.model.contract import timestamp

        value = timestamp(value)
    return output.one_line(value, 100)


def fork(
    lifetime: Id,
    /,
    *,
    at: Annotated[
        str,
        Parameter(help="The execution to fork at: its exec id, a prefix of it, or its node, if that fits one alone."),
    ],
    result: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="What it has to have come to in the fork: JSON, @FILE, or - for stdin; of a Plan what it chooses.",
        ),
    ] = None,
    label: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="key=value, kept with the fork; may be given often."),
    ] = (),
    no_run: NoRun = False,
    answers: AnswersFile = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Start a new lifetime that shares the history of this one up to an execution. The old one stays as it is.

    Without --result the execution is shared too, and the fork goes on after it; with it the fork has that result in
    its place. It is carried to its end here, as `tickwork run` does, or in the process that holds the home.
    """
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry, finish, interrupted, user
    from tickwork.cli.lifetimes import lifetime_json
    from tickwork.cli.payloads import read_json
    from tickwork.cli.streams import authors_turn
    from tickwork.outcome import Outcome

    params: dict[str, Any] = {"at": at, "by": by or user(), "labels": read_labels(label)}
    if result is not None:
        params["result"] = read_json(result, "--result")
    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    try:
        with authors_turn():
            forked = asyncio.run(_fork(place, lifetime, params, carry, run=not no_run))
    except KeyboardInterrupt:
        return interrupted(carry, place, json=json)
    if isinstance(forked, Outcome):
        return finish(forked, carry, place, json=json)
    if json:
        output.emit_json(lifetime_json(forked))
    else:
        output.say(f"Lifetime {forked.lifetime_id} is {forked.status}.", output.STATUS_STYLE[forked.status])
    return 0


async def _fork(place: Place, lifetime: str, params: dict[str, Any], carry: Carry, *, run: bool) -> Outcome | Lifetime:
    """Forks where the home is held, or here; then carries the fork, or follows it."""
    from tickwork.cli import reach
    from tickwork.cli.lifetimes import registered_graph

    told = reach.tell_holder(place, "fork", lifetime, params)
    if told is not None:
        _say_started(told[0], told[1])
        return await reach.follow(place, told[0], told[1], carry) if run else told[0]
    async with reach.opened(place) as runtime:
        service = runtime.service
        parent = await service.get(lifetime, tenant=place.tenant)
        bound = None
        if run and not reach.shared(place):
            bound = reach.code_of(await service.graph(parent.graph_digest, tenant=place.tenant), parent)
            await runtime.bind(bound, tenant=place.tenant)
        else:
            logging.getLogger("tickwork.executor").setLevel(logging.ERROR)  # that nothing runs here is no news
        forked = await runtime.guard(runtime.history.fork(parent.lifetime_id, tenant=place.tenant, **params))
        _say_started(forked, None)
        if run and bound is None:
            return await reach.carried(runtime, place, forked, await registered_graph(service, forked), carry)
        if bound is None:
            return forked
        return await runtime.guard(carry.to_the_end(service, forked, bound.graph))


def _say_started(forked: Lifetime, who: Holder | None) -> None:
    from tickwork.cli.reach import holder_text

    where = f" in {holder_text(who)}" if who is not None else ""
    output.say(f"forked as {forked.lifetime_id}{where}", "dim")
