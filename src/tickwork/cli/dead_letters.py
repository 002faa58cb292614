"""`tickwork dead-letters`: what could not be done and waits for a person to look at it, or to send it again.

Reading works beside the process that holds the home. Sending again is that process's work, for the bus is in it; when
nobody holds the home, this process opens it and serves until the message is handled.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Json, JsonLines, Place, flag
from tickwork.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeAlias

    from tickwork.home import Holder
    from tickwork.letters import Letter, Resent, Undelivered
    from tickwork.model.messages import DeadLetter

    Send: TypeAlias = Callable[[str], Awaitable[Resent]]

app = App(
    name="dead-letters",
    help="Messages that nobody could handle and executions that are parked: list, read, send again.",
    result_action="return_value",
)
PREVIEW = 64
"""Bytes that are shown of a message that nobody can read."""

LetterId = Annotated[str, Parameter(help="The id of the dead letter or of the parked execution, or a unique prefix.")]


@app.command(name="list")
def list_letters(*, json: Json = False, jsonl: JsonLines = False, place: Place = HERE) -> int:
    """What waits for a person, the oldest first: messages that nobody could handle, executions that are parked."""
    from tickwork.cli.reach import NoHome

    try:
        found = asyncio.run(_found(place, None))
    except NoHome:
        found = []
    if jsonl:
        output.emit_lines(item_json(item) for item in found)
    elif json:
        output.emit_json([item_json(item) for item in found])
    else:
        _print(found)
    return 0


@app.command
def show(letter: LetterId, /, *, json: Json = False, place: Place = HERE) -> int:
    """One of them: where it came from, why it is here, and what it says."""

    from tickwork.cli.reach import looking

    async def work() -> tuple[Undelivered, Letter]:
        async with looking(place) as runtime:
            return await runtime.letters.show(letter, tenant=place.tenant)

    item, what = asyncio.run(work())
    document = item_json(item) | _content(what)
    if json:
        output.emit_json(document)
        return 0
    facts = output.table("", "", fold=("",))
    facts.show_header = False
    for name, value in document.items():
        if value not in (None, "", {}):
            facts.add_row(output.cell(name, "dim"), value if isinstance(value, str) else output.one_line(value, 4_000))
    output.show(facts)
    output.say(f"Send it again: tickwork dead-letters resend {item.id}", "dim")
    return 0


@app.command
def resend(
    letter: Annotated[LetterId | None, Parameter(show_default=False)] = None,
    /,
    *,
    all: Annotated[bool, flag("--all", help="Everything that `list` shows.")] = False,
    force: Annotated[bool, flag("--force", help="Also a message that this version cannot read.")] = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Send a message again on its topic, or have a parked execution run once more.

    The letter is removed. A message that cannot be handled now either comes back; one that this version cannot even
    read is refused, unless --force.
    """
    from tickwork.cli.carry import user

    if (letter is None) != all:
        raise Refusal("Say which: `resend ID`, or `resend --all`.")
    resent, refused, who = asyncio.run(_resend(place, letter, {"force": force, "by": by or user()}))
    if json:
        sent = [item_json(one.item) | {"back": one.back or None} for one in resent]
        not_sent = [item_json(item) | {"refused": str(why)} for item, why in refused]
        output.emit_json({"resent": sent, "refused": not_sent})
    for one in resent:
        _say_resent(one, who)
    for _, why in refused:
        output.say(f"Not sent: {why}.", "red")
    if all and not resent and not refused:
        output.say("There is nothing to send again.")
    return 1 if refused or any(one.back for one in resent) else 0


async def _found(place: Place, letter: str | None) -> list[Undelivered]:
    """The one that is named, or all; also while another process holds the home. Raises NoHome, NotFound."""
    from tickwork.cli.reach import looking

    async with looking(place) as runtime:
        if letter is None:
            return await runtime.letters.list(tenant=place.tenant)
        item, _ = await runtime.letters.show(letter, tenant=place.tenant)
        return [item]


async def _resend(
    place: Place, letter: str | None, how: dict[str, Any]
) -> tuple[list[Resent], list[tuple[Undelivered, Conflict]], Holder | None]:
    """Sends one or (None) all of them; those sent, those refused and why, and who else did it."""
    found = await _found(place, letter)
    if not found:
        return [], [], None
    resent: list[Resent] = []
    refused: list[tuple[Undelivered, Conflict]] = []
    async with _sending(place, how) as (send, who):
        for item in found:
            try:
                resent.append(await send(item.id))
            except Conflict as why:
                if letter is not None:
                    raise
                refused.append((item, why))
            except NotFound:
                if letter is not None:
                    raise
                continue  # somebody else was faster
    return resent, refused, who


@asynccontextmanager
async def _sending(place: Place, how: dict[str, Any]) -> AsyncIterator[tuple[Send, Holder | None]]:
    """What sends one again: the process that holds the home, or this one, which serves until it is handled.

    On a shared profile this one sends, and others handle it: whether it comes back, the list shows.
    """
    import msgspec

    from tickwork import home
    from tickwork.cli.reach import opened, profile_of, services, shared
    from tickwork.letters import Resent

    folder = profile_of(place).home
    who = None if folder is None else home.holder(folder)
    if folder is not None and who is not None:

        async def tell(one: str) -> Resent:
            return msgspec.convert(home.call(folder, "resend", one, tenant=place.tenant, **how), Resent)

        yield tell, who
        return
    # Nothing is to run here, so it is no news that this process does not know the graph's code.
    logging.getLogger("tickwork.executor").setLevel(logging.ERROR)
    async with opened(place) as runtime:

        async def send(one: str) -> Resent:
            return await runtime.guard(runtime.letters.resend(one, tenant=place.tenant, **how))

        yield send, services() if shared(place) else None
        await runtime.guard(runtime.letters.settled(place.tenant))


def item_json(item: Undelivered) -> dict[str, Any]:
    """One of them for machines."""
    from tickwork.model.contract import timestamp

    return {
        "id": item.id,
        "kind": item.kind,
        "what": item.what,
        "lifetime_id": item.lifetime_id,
        "since": timestamp(item.since),
        "reason": item.reason,
        "topic": item.topic or None,
        "node": item.node or None,
        "branch": item.branch or None,
    }


def _content(what: Letter) -> dict[str, Any]:
    """What a letter or a question holds besides, for `show`."""
    from tickwork.letters import why_unreadable
    from tickwork.model.messages import DeadLetter

    if not isinstance(what, DeadLetter):
        return {"graph": what.graph_name}
    return {
        "headers": what.headers or {},
        "bytes": len(what.value),
        "unreadable": why_unreadable(what) or None,
        "message": _readable(what),
    }


def _readable(letter: DeadLetter) -> Any:
    """The message as far as it can be read: by its fields, as bare msgpack, or as its first bytes."""
    import msgspec

    from tickwork.letters import DECODERS

    try:
        message = DECODERS[letter.topic.partition(".")[0]](letter.value)
        return {name: msgspec.to_builtins(getattr(message, name)) for name in type(message).__struct_fields__}
    except (KeyError, msgspec.MsgspecError):
        pass
    try:
        return msgspec.to_builtins(msgspec.msgpack.decode(letter.value), str_keys=True)
    except (ValueError, TypeError, RecursionError):
        more = f" and {len(letter.value) - PREVIEW:,} more" if len(letter.value) > PREVIEW else ""
        return letter.value[:PREVIEW].hex(" ") + more


def _print(found: list[Undelivered]) -> None:
    if not found:
        output.say("Nothing waits here.")
        return
    lines: list[output.Line] = [
        {
            "id": item.id,
            "what": output.one_line(item.what + (f" in {item.branch}" if item.branch else ""), 80),
            "lifetime": output.one_line(item.lifetime_id, 36),
            "since": output.day_time(item.since),
            "reason": output.cell(output.one_line(item.reason, 200)),
        }
        for item in found
    ]
    output.show(output.listing(("id", "what", "lifetime", "since", "reason"), lines, shrink="reason"))
    output.say("Send again: tickwork dead-letters resend ID, or --all", "dim")


def _say_resent(one: Resent, who: Holder | None) -> None:
    from tickwork.cli.reach import holder_text

    item = one.item
    if one.back:
        output.say(f"The {item.what} ({item.id}) came back: {one.back}", "red")
        return
    done = "was sent again" if item.kind == "message" else "runs once more"
    if who is not None:
        output.say(f"The {item.what} ({item.id}) {done}; {holder_text(who)} goes on with it.")
        return
    output.say(f"The {item.what} ({item.id}) {done}.")
    output.say(f"    Go on: tickwork lifetimes resume {item.lifetime_id}")
