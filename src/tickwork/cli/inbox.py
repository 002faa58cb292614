"""`tickwork inbox`: every open question to a person, oldest first, whichever lifetime asks it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.options import HERE, Json, JsonLines, Place

if TYPE_CHECKING:
    from tickwork.model.lifetime import Question


def inbox(
    *,
    lifetime: Annotated[str | None, Parameter(help="Only this lifetime's (id or unique prefix).")] = None,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """Open questions to people, across lifetimes: who is asked what, since when, until when."""
    from tickwork.cli.lifetimes import question_json
    from tickwork.cli.reach import NoHome, reading

    async def work() -> list[Question]:
        async with reading(place) as service:
            one = None
            if lifetime is not None:
                one = (await service.get(lifetime, tenant=place.tenant)).lifetime_id
            return await service.questions(tenant=place.tenant, lifetime_id=one)

    try:
        found = [question for question in asyncio.run(work()) if question.on == "human"]
    except NoHome:
        if lifetime is not None:
            raise
        found = []
    if jsonl:
        output.emit_lines(question_json(question) for question in found)
    elif json:
        output.emit_json([question_json(question) for question in found])
    else:
        _print(found)
    return 0


def _print(found: list[Question]) -> None:
    if not found:
        output.say("Nobody is asked anything.")
        return
    ids = output.short_ids(list({question.lifetime_id for question in found}))
    lines: list[output.Line] = [
        {
            "lifetime": ids[question.lifetime_id],
            "graph": question.graph_name,
            "node": question.node,
            "since": output.day_time(question.since),
            "until": output.day_time(question.deadline) if question.deadline else "",
            "who": ", ".join(question.who),
            "prompt": output.cell(output.one_line(question.prompt, 100)),
        }
        for question in found
    ]
    columns = ("lifetime", "graph", "node", "since", "until", "who", "prompt")
    output.show(output.listing(columns, lines, shrink="prompt"))
    who = " --by WHO" if any(question.who for question in found) else ""
    output.say(f"Answer: tickwork lifetimes answer LIFETIME ANSWER{who}", "dim")
