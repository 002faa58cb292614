"""`tickwork run GRAPH`: one lifetime, started here and carried to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Json, Place, flag

if TYPE_CHECKING:
    from tickwork.model.policy import PolicyDocument

AnswersFile = Annotated[
    Path | None,
    Parameter(name="--answers", help="YAML file with the answers to questions: `node: answer`, or a list in turn."),
]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Show no progress.")]
Wait = Annotated[
    bool,
    flag("--wait", help="When it waits for somebody, stay until the answer, the signal or the deadline comes."),
]


def run(
    graph: Annotated[
        str,
        Parameter(
            help="A file (.yaml .json .dot .mmd .md .py:attribute), a folder, module:attribute, or the NAME or "
            "NAME@VERSION of a registered graph."
        ),
    ],
    /,
    *,
    input: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="JSON, @FILE, or - for stdin.")] = None,
    answers: AnswersFile = None,
    policies: Annotated[
        Path | None, Parameter(help="Policies for this lifetime and its children alone, beside those in force.")
    ] = None,
    label: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="key=value, kept with the lifetime; may be given often."),
    ] = (),
    idempotency_key: Annotated[
        str | None, Parameter(help="Starting again with the same key goes on with the first lifetime.")
    ] = None,
    wait: Wait = False,
    quiet: Quiet = False,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Run a graph: one lifetime, to its end."""
    from tickwork.cli.answers import read_answers
    from tickwork.cli.carry import Carry, conduct
    from tickwork.cli.payloads import read_json
    from tickwork.cli.reach import load_named, start

    labels = read_labels(label)
    value = read_json(input, "--input") if input is not None else None
    carry = Carry(answers=read_answers(answers) if answers else None, wait=wait, quiet=quiet, by=by)
    own = read_own_policies(policies) if policies else None
    bound = load_named(place, graph)
    work = start(place, bound, value, carry, labels=labels, idempotency_key=idempotency_key, policies=own)
    return conduct(work, carry, place, json=json)


def read_own_policies(path: Path) -> PolicyDocument:
    """The policies of one lifetime. Raises NotFound, PolicyInvalid; Refusal for those of a tenant or a graph."""
    from tickwork.formats.policies import load_policies

    document = load_policies(path)
    if document.layer != "installation":
        raise Refusal(
            f"{path} holds the policies of a {document.layer}, and --policies gives some to one lifetime.",
            f"Take `tenant` and `graph` out of the file, or put it in force: tickwork guardrails apply {path}",
        )
    return document


def read_labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """`key=value` words as a mapping. Raises Refusal."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise Refusal(f"--label {pair}: a label is written key=value.")
        labels[key] = value
    return labels
