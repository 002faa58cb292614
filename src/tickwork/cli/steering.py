"""`tickwork lifetimes pause, resume, abort, answer, signal`: the verbs that move a lifetime.

When another process holds the home it does the work, and says what became of it. When nobody does, this process opens
the home; after an answer, a signal or a resume it then carries the lifetime on, because nobody else would.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Id, Json, Place, flag
from tickwork.cli.run import AnswersFile, Quiet, Wait
from tickwork.errors import AnswerRefused

if TYPE_CHECKING:
    from tickwork.cli.carry import Carry
    from tickwork.home import Holder
    from tickwork.model.lifetime import Lifetime

NoRun = Annotated[
    bool,
    flag("--no-run", help="Only record it; do not carry the lifetime on in this process."),
]
Why = Annotated[str, Parameter(help="Why; goes into the record.")]


def pause(lifetime: Id, /, *, reason: Why = "", by: By = "", json: Json = False, place: Place = HERE) -> int:
    """Pause a lifetime: nothing new is dispatched, what is in flight is still recorded."""
    return _apply(place, "pause", lifetime, {"reason": reason, "by": by}, json=json)


def abort(lifetime: Id, /, *, reason: Why = "", by: By = "", json: Json = False, place: Place = HERE) -> int:
    """Abort a lifetime for good; work in flight is cancelled."""
    return _apply(place, "abort", lifetime, {"reason": reason, "by": by}, json=json)


def resume(
    lifetime: Id,
    /,
    *,
    raised: Annotated[
        tuple[str, ...],
        Parameter(
            name="--raise",
            negative="",
            show_default=False,
            help="POLICY=NUMBER: its limit, for this lifetime from now on; may be given often.",
        ),
    ] = (),
    no_run: NoRun = False,
    answers: AnswersFile = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Go on with a lifetime that is paused, waits, or was left behind by a process that died.

    It is carried to its end here, as `tickwork run` does. When another process holds the home it runs there, and is
    followed here. --no-run returns at once. --raise lets one go on that a budget has paused.
    """
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry

    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    params: dict[str, Any] = {"by": by}
    if raised:
        params["raised"] = _limits(raised)
    return move(place, "resume", lifetime, params, carry, json=json, run=not no_run)


def _limits(pairs: tuple[str, ...]) -> dict[str, str]:
    """`policy=number` words as a mapping. Raises Refusal."""
    from tickwork.model.condition import ConditionError
    from tickwork.model.expressions.aggregates import parse_number

    limits: dict[str, str] = {}
    for pair in pairs:
        name, separator, number = pair.partition("=")
        if not name or not separator:
            raise Refusal(f"--raise {pair}: a limit is written POLICY=NUMBER, as in token-budget=20000.")
        if name in limits:
            raise Refusal(f"--raise {pair}: `{name}` is raised twice.")
        try:
            parse_number(number)
        except ConditionError as error:
            raise Refusal(f"--raise {pair}: {error}.") from None
        limits[name] = number
    return limits


def answer(
    lifetime: Id,
    answer: Annotated[str, Parameter(allow_leading_hyphen=True, help="JSON, a plain word, @FILE, or - for stdin.")],
    /,
    *,
    node: Annotated[
        str | None, Parameter(name=["--node", "--exec"], help="Which question, when several are open: node or exec id.")
    ] = None,
    no_run: NoRun = False,
    answers: AnswersFile = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Answer an open question. An answer that breaks the question's schema is refused, and nothing changes."""
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry
    from tickwork.cli.payloads import read_answer

    params = {"payload": read_answer(answer, "ANSWER"), "exec_id": node, "by": by}
    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    return move(place, "answer", lifetime, params, carry, json=json, run=not no_run)


def signal(
    lifetime: Id,
    name: Annotated[str, Parameter(help="The signal's name.")],
    /,
    *,
    payload: Annotated[str, Parameter(allow_leading_hyphen=True, help="JSON, @FILE, or - for stdin.")] = "null",
    no_run: NoRun = False,
    answers: AnswersFile = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Send a signal to a lifetime."""
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry
    from tickwork.cli.payloads import read_json

    params = {"name": name, "payload": read_json(payload, "--payload"), "by": by}
    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    return move(place, "signal", lifetime, params, carry, json=json, run=not no_run)


def _apply(place: Place, verb: str, lifetime: str, params: dict[str, Any], *, json: bool) -> int:
    """Does a verb after which nothing is left to run."""
    from tickwork.cli.reach import apply

    params["by"] = params.get("by") or _user()
    changed, holder = asyncio.run(apply(place, verb, lifetime, params))
    _print_changed(changed, verb, holder, json=json)
    return 0


def move(
    place: Place, verb: str, lifetime: str, params: dict[str, Any], carry: Carry, *, json: bool, run: bool = True
) -> int:
    """Does a verb after which the lifetime goes on: in the process that holds the home, or here."""
    from tickwork.cli.carry import finish, interrupted
    from tickwork.cli.reach import apply, apply_and_carry
    from tickwork.cli.streams import authors_turn
    from tickwork.outcome import Outcome

    params["by"] = params.get("by") or _user()
    try:
        with authors_turn():
            work = (
                apply_and_carry(place, verb, lifetime, params, carry) if run else apply(place, verb, lifetime, params)
            )
            moved = asyncio.run(work)
    except KeyboardInterrupt:
        return interrupted(carry, place, json=json)
    except AnswerRefused as error:
        raise _refused(error, place, lifetime, params) from None
    if isinstance(moved, Outcome):
        return finish(moved, carry, place, json=json)
    _print_changed(moved[0], verb, moved[1], json=json)
    if carry.missing:
        output.say(carry.missing)
    return 0


def _refused(error: AnswerRefused, place: Place, lifetime: str, params: dict[str, Any]) -> AnswerRefused:
    """The refusal of an answer, with what to write when the question is for somebody else than `--by`."""
    from tickwork.cli.failure import WrongPerson
    from tickwork.cli.reach import reading

    async def asked() -> set[str]:
        async with reading(place) as service:
            one = await service.get(lifetime, tenant=place.tenant)
            found = await service.questions(tenant=place.tenant, lifetime_id=one.lifetime_id)
            wanted = params.get("exec_id")
            return {who for q in found if wanted is None or wanted == q.node or wanted in q.exec_id for who in q.who}

    who = sorted(asyncio.run(asked()))
    if not who or params["by"] in who:
        return error
    return WrongPerson(str(error), f"Say who answers: --by {' or --by '.join(who)}")


def _print_changed(changed: Lifetime, verb: str, holder: Holder | None, *, json: bool) -> None:
    from tickwork.cli.lifetimes import lifetime_json

    if json:
        output.emit_json(lifetime_json(changed))
        return
    said = f"Lifetime {changed.lifetime_id} is {changed.status}{_who_goes_on(changed, verb, holder)}."
    output.say(said, output.STATUS_STYLE[changed.status])


def _who_goes_on(changed: Lifetime, verb: str, holder: Holder | None) -> str:
    """What happens next, and where: a request through another process is not done when it is recorded."""
    from tickwork.cli.reach import holder_text, who_goes_on

    if changed.ended:
        return ""
    if verb == "abort":
        if holder is None:
            return "; abort requested, and what is in flight has not stopped yet"
        return f"; abort requested; {holder_text(holder)} ends it"
    if verb == "pause":
        if holder is None:
            return ": nothing new starts"
        return f": nothing new starts; {holder_text(holder)} still records what is in flight"
    return "" if holder is None else f"; {who_goes_on(holder)}"


def _user() -> str:
    from tickwork.cli.carry import user

    return user()
