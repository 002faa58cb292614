"""`tickwork guardrails`: policies are checked, put in force, listed, shown and taken out of force.

`check` reads files alone. The others work in the home's store; while another process holds the home, that process does
it, and every process takes what has changed within a second.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal, problem_json
from tickwork.cli.options import HERE, By, Json, Place, flag
from tickwork.errors import PolicyInvalid

if TYPE_CHECKING:
    from rich.table import Table

    from tickwork.accounts import Document, InForce
    from tickwork.cli.example_records import Examples
    from tickwork.home import Holder
    from tickwork.model.policy import Match, PolicyDocument
    from tickwork.model.problems import Problem

T = TypeVar("T")

app = App(name="guardrails", help="Policies: check, apply, list, show, remove.", result_action="return_value")
app.command("tickwork.cli.what_if:what_if", name="what-if")
FINDINGS = 4
WIDE = 100
"""Columns of a terminal that takes all columns of the tables."""

DIGEST = 19
"""Characters of a digest that people are shown."""

Files = Annotated[Path, Parameter(help="A file with policies (.yaml .json), or a folder of them.")]
Tenant = Annotated[str | None, Parameter(name="--tenant", show_default=False, help="Those of this tenant.")]
Graph = Annotated[str | None, Parameter(name="--graph", show_default=False, help="Those of this graph, by its name.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Home:
    """Which home is meant; whose policies, the other options say."""

    home: Annotated[
        Path, Parameter(name="--home", env_var="TICKWORK_HOME", help="Folder that holds the records and the lock.")
    ] = HERE.home
    profile: Annotated[
        Literal["local", "cloud", "test"],
        Parameter(
            name="--profile",
            env_var="TICKWORK_PROFILE",
            help="local: what is in the home. cloud: in the database. test: nothing.",
        ),
    ] = "local"

    @property
    def place(self) -> Place:
        """As other commands take it."""
        return Place(home=self.home, profile=self.profile)


HOME = Home()
"""What commands take when nothing else is said."""


@app.command
def check(
    file: Files,
    /,
    *,
    records: Annotated[
        Path | None,
        Parameter(help="Records as `tickwork lifetimes log --jsonl` prints them: what would the policies say to them?"),
    ] = None,
    json: Json = False,
) -> int:
    """Check policies; print every problem with its place and how to mend it. Exit code 4 when there is one.

    With --records those records are judged, by the scopes execution and lifetime; exit code 4 also when a record cannot
    be read.
    """
    documents, problems = _read(file)
    judged: Examples | None = None
    if records is not None and not problems:
        from tickwork.cli.example_records import judge_records

        judged = judge_records(documents, records)
    wrong = bool(problems) or (judged is not None and bool(judged.unreadable))
    if json:
        document: dict[str, Any] = {
            "valid": not problems,
            "policies": sum(len(one.policies) for one in documents),
            "digests": [one.digest for one in documents],
            "problems": [problem_json(problem) for problem in problems],
        }
        if judged is not None:
            document["records"] = judged.json()
        output.emit_json(document)
        return FINDINGS if wrong else 0
    for problem in problems:
        output.emit_text(str(problem))
    if problems:
        output.say(f"{file}: {output.count(len(problems), 'problem')}", "red")
        return FINDINGS
    for one in documents:
        output.say(f"{file}: {_counted(one)} for {_layer(one)}  {one.digest[:DIGEST]}…", "green")
    if judged is not None:
        judged.print()
    return FINDINGS if wrong else 0


@app.command
def apply(
    *files: Files,
    by: By = "",
    json: Json = False,
    home: Home = HOME,
) -> int:
    """Put policies in force, each document in place of the one before of its layer (installation, tenant or graph).

    All files are checked first: when one has a problem, nothing is changed.
    """
    from tickwork.accounts import Document
    from tickwork.cli.carry import user

    if not files:
        raise Refusal("Say which: tickwork guardrails apply FILE.")
    documents, problems = _read_all(files)
    if problems:
        raise PolicyInvalid(problems)
    who, put = "", []
    for document in documents:
        arguments = {"document": msgspec.to_builtins(document), "by": by or user()}
        one, holder = _ask(home.place, "apply_policies", arguments, Document, write=True)
        put.append(one)
        who = _taken_by(holder)
    if json:
        output.emit_json([document_json(one) for one in put])
        return 0
    for one in put:
        output.say(f"{_counted(one.document)} in force for {_layer(one.document)}{who}", "green")
    return 0


@app.command(name="list")
def list_policies(
    *,
    tenant: Tenant = None,
    graph: Graph = None,
    history: Annotated[bool, flag("--history", help="All that ever was in the store, the oldest first.")] = False,
    json: Json = False,
    home: Home = HOME,
) -> int:
    """The documents in force, of the files and of the store; with --history what was in force before, too."""
    from tickwork.accounts import Document
    from tickwork.cli.reach import NoHome

    try:
        found, _ = _ask(home.place, "documents", {"history": history}, list[Document])
    except NoHome:
        found = []
    found = [
        one
        for one in found
        if (tenant is None or one.document.tenant in ("", tenant))
        and (graph is None or one.document.graph in ("", graph))
    ]
    if json:
        output.emit_json([document_json(one) for one in found])
    elif found:
        _print_documents(found)
    else:
        output.say("No policies. Put some in force: tickwork guardrails apply FILE")
    return 0


@app.command
def show(
    *,
    tenant: Annotated[str, Parameter(env_var="TICKWORK_TENANT", help="For this tenant's lifetimes.")] = HERE.tenant,
    graph: Annotated[str | None, Parameter(show_default=False, help="For lifetimes of this graph.")] = None,
    json: Json = False,
    home: Home = HOME,
) -> int:
    """The set that is in force for a tenant's lifetimes (of one graph): all layers together, and its digest."""
    from tickwork.accounts import InForce

    found, _ = _ask(home.place, "in_force", {"tenant": tenant, "graph": graph or ""}, InForce)
    if json:
        output.emit_json(
            {
                "tenant": found.tenant,
                "graph": found.graph or None,
                "digest": found.digest or None,
                "policies": [{"layer": one.layer, **msgspec.to_builtins(one.policy)} for one in found.policies],
            }
        )
        return 0
    what = f"graph {found.graph} of tenant {found.tenant}" if found.graph else f"tenant {found.tenant}"
    if not found.policies:
        output.say(f"No policies are in force for {what}.")
        return 0
    output.show(_policy_table(found))
    output.say(f"{what}: {found.digest}", "dim")
    return 0


@app.command
def remove(
    *,
    tenant: Tenant = None,
    graph: Graph = None,
    by: By = "",
    json: Json = False,
    home: Home = HOME,
) -> int:
    """Take a layer's document in the store out of force; without options that of the installation.

    The history keeps it. Lifetimes that run go on without its policies.
    """
    from tickwork.accounts import Document
    from tickwork.cli.carry import user

    arguments = {"tenant": tenant or "", "graph": graph or "", "by": by or user()}
    one, holder = _ask(home.place, "remove_policies", arguments, Document, write=True)
    if json:
        output.emit_json(document_json(one))
        return 0
    output.say(f"No policies are in the store any more for {_layer(one.document)}{_taken_by(holder)}.")
    return 0


# -- reading files ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[list[PolicyDocument], list[Problem]]:
    from tickwork.formats.policies import find_policies, load_policies

    try:
        if path.is_dir():
            return [document for _, document in find_policies(path)], []
        return [load_policies(path)], []
    except PolicyInvalid as error:
        return [], list(error.problems)


def _read_all(files: tuple[Path, ...]) -> tuple[list[PolicyDocument], list[Problem]]:
    """The documents of all files. Raises Refusal when two are of one layer: only the last would stay in force."""
    documents: list[PolicyDocument] = []
    problems: list[Problem] = []
    for file in files:
        read, said = _read(file)
        documents += read
        problems += said
    layers: set[tuple[str, str]] = set()
    for document in documents:
        layer = (document.tenant, document.graph)
        if layer in layers:
            raise Refusal(
                f"Two of these documents are for {_layer(document)}, and a layer has one in the store.",
                "Put their policies into one file.",
            )
        layers.add(layer)
    return documents, problems


# -- the process that does it -----------------------------------------------------------------------------------------


def _ask(
    place: Place, verb: str, arguments: dict[str, Any], kind: type[T], *, write: bool = False
) -> tuple[T, Holder | None]:
    """Has the process that holds the home do it; when nobody does, this one. What came of it, and who else did it."""
    from tickwork.cli import reach

    told = reach.ask_holder(place, verb, arguments)
    if told is not None:
        return msgspec.convert(told[0], kind), told[1]

    async def work() -> T:
        reach.only_record()
        async with reach.opened(place, guarded=False) if write else reach.looking(place) as runtime:
            made: T = await getattr(runtime.accounts, verb)(**arguments)
            return made

    return asyncio.run(work()), None


def _taken_by(holder: Holder | None) -> str:
    from tickwork.cli.reach import holder_text

    return f"; {holder_text(holder)} has taken it" if holder is not None else ""


# -- words and tables -------------------------------------------------------------------------------------------------


def document_json(one: Document) -> dict[str, Any]:
    """A document for machines."""
    from tickwork.model.contract import timestamp

    return {
        "layer": one.document.layer,
        "tenant": one.document.tenant or None,
        "graph": one.document.graph or None,
        "digest": one.digest or None,
        "source": one.source,
        "since": timestamp(one.at) if one.at else None,
        "by": one.by or None,
        "policies": msgspec.to_builtins(one.document.policies),
    }


def _layer(document: PolicyDocument) -> str:
    from tickwork.accounts import layer_text

    return layer_text(document.tenant, document.graph)


def _counted(document: PolicyDocument) -> str:
    number = len(document.policies)
    return f"{number} {'policy' if number == 1 else 'policies'}"


def _print_documents(found: list[Document]) -> None:
    lines: list[output.Line] = [
        {
            "for": _layer(one.document).replace("`", ""),
            "from": one.source,
            "since": output.day_time(one.at) if one.at else "",
            "by": one.by,
            "digest": one.digest[:DIGEST] + "…" if one.digest else "",
            "policies": output.cell(", ".join(policy.name for policy in one.document.policies) or "none: removed"),
        }
        for one in found
    ]
    console = output.out()
    facts = ("by", "digest") if not console.is_terminal or console.width >= WIDE else ()
    output.show(output.listing(("for", "from", "since", *facts, "policies"), lines, shrink="policies"))


def _policy_table(found: InForce) -> Table:
    """The policies of a set: which, of what, when, and what is done then."""
    rows = output.table("policy", "scope", "when", "then", fold=("when", "policy", "scope"))
    for one in found.policies:
        policy = one.policy
        scope = f"{policy.scope}, {policy.window}" if policy.window is not None else policy.scope
        then = f"{policy.action} (shadow)" if policy.shadow else policy.action
        about = _match_text(policy.match)
        rows.add_row(one.label, scope, policy.when + (f"\n{about}" if about else ""), then)
    return rows


def _match_text(match: Match) -> str:
    """What a policy is about, in words; empty when it is about everything."""
    parts: list[str] = [match.kind] if match.kind else []
    parts += [
        f"{what} {', '.join(patterns)}"
        for what, patterns in (("name", match.name), ("graph", match.graph), ("model", match.model))
        if patterns
    ]
    parts += [f"{key}={value}" for key, value in match.labels.items()]
    return f"for {'; '.join(parts)}" if parts else ""
