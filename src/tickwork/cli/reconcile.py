"""`tickwork lifetimes reconcile`: says what became of an execution that only a person can settle.

Like `answer` it goes through the process that holds the home, when one does; otherwise it is recorded here and the
lifetime is carried on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Id, Json, Place, flag
from tickwork.cli.run import AnswersFile, Quiet, Wait
from tickwork.cli.steering import NoRun, move
from tickwork.errors import NotFound

if TYPE_CHECKING:
    from tickwork.model.lifetime import Lifetime, Question

WAYS = "--result JSON (it happened), --failed REASON (it failed for good) or --retry (run it again)"


class NothingInTrouble(NotFound):
    """No execution of the lifetime is UNKNOWN or poison, with what it waits for instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def reconcile(
    lifetime: Id,
    /,
    *,
    node: Annotated[
        str | None,
        Parameter(name=["--exec", "--node"], help="Which execution, when several are in trouble: exec id or node."),
    ] = None,
    result: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="It happened, and this came of it: JSON, @FILE, or - for stdin."),
    ] = None,
    failed: Annotated[str | None, Parameter(help="It failed for good, and this is why.")] = None,
    retry: Annotated[bool, flag("--retry", help="It did not happen, or what ends it is mended: run it again.")] = False,
    no_run: NoRun = False,
    answers: AnswersFile = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Settle an execution in trouble: one that is UNKNOWN, or parked because its workers were lost with it.

    Say exactly one thing: --result, --failed or --retry. `tickwork inbox` lists what is in trouble.
    """
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry

    said = _said(result, failed, retry=retry)
    which = asyncio.run(_which(place, lifetime, node))
    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    params = {**said, "exec_id": which, "by": by}
    return move(place, "reconcile", lifetime, params, carry, json=json, run=not no_run)


def _said(result: str | None, failed: str | None, *, retry: bool) -> dict[str, Any]:
    """The one thing that was said, as the Service takes it. Raises Refusal."""
    from tickwork.cli.payloads import read_json

    if (result is not None) + (failed is not None) + retry != 1:
        raise Refusal("Say exactly one thing about it.", WAYS)
    if failed is not None and not failed.strip():
        raise Refusal("--failed: say why.")
    if result is not None:
        return {"result": read_json(result, "--result")}
    return {"retry": True} if retry else {"failed": failed}


async def _which(place: Place, lifetime: str, node: str | None) -> str | None:
    """The exec id that is meant. What cannot be told apart or is not there is said with what there is.

    None, or something that fits nothing open: the Service says what is wrong with it (it has ended, it was settled).
    """
    from tickwork.cli.reach import reading
    from tickwork.cli.trouble import listed
    from tickwork.service import TROUBLE

    async with reading(place) as service:
        one = await service.get(lifetime, tenant=place.tenant)
        if one.ended:
            return node
        found = await service.questions(tenant=place.tenant, lifetime_id=one.lifetime_id, on=("human", *TROUBLE))
    troubled = [question for question in found if question.on in TROUBLE]
    fitting = troubled
    if node is not None:
        fitting = [question for question in troubled if question.node == node or question.exec_id.startswith(node)]
    if len(fitting) > 1:
        raise Refusal(
            f"{len(fitting)} executions of lifetime {one.lifetime_id} are in trouble; say which: --exec EXEC_ID",
            listed(fitting),
        )
    if not troubled:
        raise _nothing(one, found)
    return fitting[0].exec_id if fitting else node


def _nothing(one: Lifetime, asked: list[Question]) -> NothingInTrouble:
    from tickwork.cli.trouble import listed

    message = f"Lifetime {one.lifetime_id} ({one.status}) has no execution that is UNKNOWN or poison."
    if not asked:
        return NothingInTrouble(message, f"See what it does: tickwork lifetimes show {one.lifetime_id}")
    answer = f"It asks for an answer: tickwork lifetimes answer {one.lifetime_id} ANSWER --node NODE"
    return NothingInTrouble(message, f"{answer}\n    {listed(asked)}")
