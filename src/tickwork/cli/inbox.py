"""`tickwork inbox`: everything that waits for a person, oldest first, whichever lifetime it belongs to.

Questions that a graph asks, and executions that only a person can settle: UNKNOWN or poison.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tickwork.cli import output, trouble
from tickwork.cli.options import HERE, Json, JsonLines, Place

if TYPE_CHECKING:
    from tickwork.model.lifetime import Question

SPELLED_OUT = 5
"""Executions in trouble whose commands are printed."""


def inbox(
    *,
    lifetime: Annotated[str | None, Parameter(help="Only this lifetime's (id or unique prefix).")] = None,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """What waits for a person, across lifetimes: who is asked what, since when, until when; what is in trouble."""
    from tickwork.cli.lifetimes import question_json
    from tickwork.cli.reach import NoHome, reading
    from tickwork.service import TROUBLE

    async def work() -> list[Question]:
        async with reading(place) as service:
            one = None
            if lifetime is not None:
                one = (await service.get(lifetime, tenant=place.tenant)).lifetime_id
            return await service.questions(tenant=place.tenant, lifetime_id=one, on=("human", *TROUBLE))

    try:
        found = asyncio.run(work())
    except NoHome:
        if lifetime is not None:
            raise
        found = []
    if jsonl:
        output.emit_lines(question_json(question) for question in found)
    elif json:
        output.emit_json([question_json(question) for question in found])
    else:
        _print(found, place)
    return 0


def _print(found: list[Question], place: Place) -> None:
    if not found:
        output.say("Nobody is asked anything.")
        return
    ids = output.short_ids(list({question.lifetime_id for question in found}))
    lines: list[output.Line] = [
        {
            "lifetime": ids[question.lifetime_id],
            "graph": question.graph_name,
            "node": question.node,
            "what": output.cell(trouble.WORD.get(question.on, ""), "red"),
            "since": output.day_time(question.since),
            "until": output.day_time(question.deadline) if question.deadline else "",
            "who": ", ".join(question.who),
            "prompt": output.cell(output.one_line(question.prompt, 100)),
        }
        for question in found
    ]
    columns = ("lifetime", "graph", "node", "what", "since", "until", "who", "prompt")
    output.show(output.listing(columns, lines, shrink="prompt"))
    asked = [question for question in found if not trouble.is_trouble(question.on)]
    if asked:
        who = " --by WHO" if any(question.who for question in asked) else ""
        output.say(f"Answer: tickwork lifetimes answer LIFETIME ANSWER{who}", "dim")
    _say_how_to_settle([question for question in found if trouble.is_trouble(question.on)], place)


def _say_how_to_settle(found: list[Question], place: Place) -> None:
    """The commands for each execution in trouble; of many the first few, the others are settled in the same way."""
    from tickwork.cli.carry import flags

    for question in found[:SPELLED_OUT]:
        output.say(f"{trouble.heading(question.node, question.on, f'since {output.day_time(question.since)}')}:")
        for line in trouble.commands_for(question, flags(place)):
            output.say(f"    {line}")
    if len(found) > SPELLED_OUT:
        output.say(f"and {len(found) - SPELLED_OUT} more in trouble; their exec ids: tickwork inbox --json")
