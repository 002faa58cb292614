"""`tickwork lifetimes`: what ran and what runs. Reading is here, the verbs that change something in `steering.py`.

Reading never takes the home's lock, so it works while another process runs there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.history import fork, replay
from tickwork.cli.options import HERE, Id, Json, JsonLines, Place
from tickwork.cli.reconcile import reconcile
from tickwork.cli.steering import abort, answer, pause, resume, signal
from tickwork.cli.transfer import export, import_

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.breach import Breach
    from tickwork.cli.tally import Tally
    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.model.records import LogEntry
    from tickwork.outcome import Outcome
    from tickwork.ports import LifetimeQuery
    from tickwork.service import Service

app = App(
    name="lifetimes",
    help="List, read, pause, resume, abort, answer, replay and fork runs.",
    result_action="return_value",
)
for verb in (pause, resume, abort, answer, reconcile, signal, replay, fork, export):
    app.command(verb)
app.command(import_, name="import")

PAGE = 1_000
Status = Literal["PENDING", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "ABORTED"]


@app.command(name="list")
def list_lifetimes(
    *,
    status: Annotated[tuple[Status, ...], Parameter(negative="", help="Only these states; may be given often.")] = (),
    graph: Annotated[str | None, Parameter(help="Only this graph's.")] = None,
    label: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", show_default=False, help="Only with this label: key=value; all of them, when given often."
        ),
    ] = (),
    before: Annotated[str | None, Parameter(help="Go on after this lifetime id: the next page.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """List lifetimes, newest first."""
    from tickwork.cli.reach import NoHome, reading
    from tickwork.cli.run import read_labels
    from tickwork.ports import LifetimeQuery

    labels = read_labels(label)
    if limit < 1:
        raise Refusal("--limit: at least 1.")
    first = next(iter(labels.items()), None)
    query = LifetimeQuery(statuses=status or None, graph=graph, label=first, before=before, limit=limit)

    async def work() -> list[Lifetime]:
        async with reading(place) as service:
            return await _matching(service, query, labels, place.tenant)

    try:
        found = asyncio.run(work())
    except NoHome:
        found = []  # nothing was ever recorded here: an empty list is the truth
    if jsonl:
        output.emit_lines(lifetime_json(one) for one in found)
    elif json:
        output.emit_json([lifetime_json(one) for one in found])
    elif found:
        _print_list(found, limit, place)
    elif status or graph or labels or before:
        output.say("None matches. All of them: tickwork lifetimes list")
    else:
        where = place.home if place.profile == "local" else "this database"
        output.say(f"No lifetimes in {where}. Start one: tickwork run GRAPH")
    return 0


async def _matching(service: Service, query: LifetimeQuery, labels: dict[str, str], tenant: str) -> list[Lifetime]:
    """The lifetimes that have all labels: the store looks for one, the others are looked at here, page by page."""
    found: list[Lifetime] = []
    while len(found) < query.limit:
        page = await service.list(query, tenant=tenant)
        found += [one for one in page if labels.items() <= one.labels.items()]
        if len(page) < query.limit:
            break
        query = msgspec.structs.replace(query, before=page[-1].lifetime_id)
    return found[: query.limit]


@app.command
def show(lifetime: Id, /, *, json: Json = False, place: Place = HERE) -> int:
    """One lifetime: where it stands, what it used per node, what it waits for."""
    from tickwork.cli.carry import reason_of
    from tickwork.cli.reach import reading
    from tickwork.cli.standing import awaited_signal, open_children, print_standing, standing_json
    from tickwork.cli.tally import Tally
    from tickwork.service import TROUBLE

    async def work() -> tuple[Lifetime, list[Question], Tally, list[Lifetime], Breach | None]:
        async with reading(place) as service:
            one = await service.get(lifetime, tenant=place.tenant)
            kinds = ("human", *TROUBLE)
            questions = await service.questions(tenant=place.tenant, lifetime_id=one.lifetime_id, on=kinds)
            tally = Tally()
            async for entry in entries(service, one):
                tally.feed(entry)
            questions += [awaited_signal(one, data) for data in tally.waiting.values() if data.get("on") == "signal"]
            children = [] if one.ended else await open_children(service, one)
            breach = (await service.result(one.lifetime_id, tenant=place.tenant)).breach
            return one, questions, tally, children, breach

    one, questions, tally, children, breach = asyncio.run(work())
    one.reason = reason_of(one.status, one.reason)
    if tally.status == one.status:
        one.reason = one.reason or tally.reason or None
    if json:
        output.emit_json(standing_json(one, questions, tally, children, breach))
    else:
        print_standing(one, questions, tally, children, breach, place)
    return 0


@app.command
def log(
    lifetime: Id,
    /,
    *,
    after: Annotated[int, Parameter(help="Only entries after this sequence number.")] = 0,
    limit: Annotated[int | None, Parameter(help="At most so many entries.")] = None,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """Every record of a lifetime: executions and events, in order. --json prints the published v1 records."""
    from tickwork.cli.reach import reading
    from tickwork.model.contract import execution_json

    async def work() -> tuple[Lifetime, list[LogEntry]]:
        async with reading(place) as service:
            one = await service.get(lifetime, tenant=place.tenant)
            if not jsonl:
                return one, [entry async for entry in entries(service, one, after=after, limit=limit)]
            async for entry in entries(service, one, after=after, limit=limit):
                output.emit_lines([execution_json(entry, one)])
            return one, []

    one, found = asyncio.run(work())
    if json:
        output.emit_json([execution_json(entry, one) for entry in found])
    elif not jsonl:
        _print_log(one, found)
    return 0


@app.command
def watch(lifetime: Id, /, *, json: Json = False, jsonl: JsonLines = False, place: Place = HERE) -> int:
    """Follow a lifetime until it ends, from any process. Exit code as `run` has it.

    --json prints how it ended, as `run --json` does; --jsonl every record as it comes, then how it ended.
    """
    from tickwork.cli.carry import EXIT_BY_STATUS, INTERRUPTED, document
    from tickwork.cli.progress import open_progress
    from tickwork.cli.reach import reading
    from tickwork.clock import SystemClock
    from tickwork.model.contract import execution_json

    async def work() -> tuple[Tally, Outcome]:
        async with reading(place) as service:
            one = await service.get(lifetime, tenant=place.tenant)
            graph = await registered_graph(service, one)
            async with open_progress(one, graph, output.err(), SystemClock(), quiet=jsonl) as view:
                async for entry in service.watch(one.lifetime_id, tenant=place.tenant, after=0):
                    view.feed(entry)
                    if jsonl:
                        output.emit_lines([execution_json(entry, one)])
                    if view.tally.ended:
                        break
            outcome = await service.result(one.lifetime_id, tenant=place.tenant)
            outcome.reason = outcome.reason if outcome.status != "COMPLETED" else None
            return view.tally, outcome

    try:
        tally, outcome = asyncio.run(work())
    except KeyboardInterrupt:
        return INTERRUPTED
    if jsonl:
        output.emit_lines([document(outcome)])
    elif json:
        output.emit_json(document(outcome))
    if not jsonl:
        output.say(
            f"{tally.status}  {output.count(tally.executions, 'execution')}, {tally.tokens:,} tokens, "
            f"{output.money(tally.cost_nano_usd)}" + (f": {tally.reason}" if tally.reason else ""),
            output.STATUS_STYLE.get(tally.status, ""),
        )
    return EXIT_BY_STATUS.get(tally.status, 1)


async def entries(
    service: Service, one: Lifetime, *, after: int = 0, limit: int | None = None
) -> AsyncIterator[LogEntry]:
    """The log, page by page."""
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = await service.log(one.lifetime_id, tenant=one.tenant_id, after=after, limit=size)
        for entry in page:
            yield entry
        if len(page) < size:
            return
        after = page[-1].seq
        left = None if left is None else left - len(page)


def lifetime_json(one: Lifetime) -> dict[str, Any]:
    """A lifetime for machines."""
    from tickwork.cli.carry import reason_of
    from tickwork.model.contract import timestamp

    return {
        "lifetime_id": one.lifetime_id,
        "tenant_id": one.tenant_id,
        "graph": {"name": one.graph_name, "version": one.graph_version, "digest": one.graph_digest},
        "status": one.status,
        "reason": reason_of(one.status, one.reason),
        "labels": one.labels,
        "idempotency_key": one.idempotency_key,
        "created_at": timestamp(one.created_at),
        "updated_at": timestamp(one.updated_at),
        "finished_at": None if one.finished_at is None else timestamp(one.finished_at),
        "records": one.last_seq,
    }


def question_json(question: Question) -> dict[str, Any]:
    """An open question (or an awaited signal) for machines."""
    from tickwork.model.contract import timestamp

    return {
        "lifetime_id": question.lifetime_id,
        "exec_id": question.exec_id,
        "graph": question.graph_name,
        "node": question.node,
        "branch": question.branch,
        "on": question.on,
        "prompt": question.prompt,
        "signal": question.signal or None,
        "answer_schema": question.answer_schema,
        "since": timestamp(question.since),
        "deadline": None if question.deadline is None else timestamp(question.deadline),
        "who": list(question.who),
    }


def _why(one: Lifetime, short: str, place: Place) -> str:
    """Why a lifetime stands where it stands, for the list; its labels when there is nothing to say."""
    from tickwork.cli.carry import reason_of
    from tickwork.cli.reach import LEFT_BEHIND, left_behind

    if left_behind(place, one):
        return output.as_called(f"{LEFT_BEHIND} {short}")
    return output.one_line(reason_of(one.status, one.reason) or labels_text(one), 100)


def _print_list(found: list[Lifetime], limit: int, place: Place) -> None:
    from tickwork.clock import SystemClock

    ids, now = output.short_ids([one.lifetime_id for one in found]), SystemClock().now()
    lines: list[output.Line] = [
        {
            "lifetime": ids[one.lifetime_id],
            "graph": f"{one.graph_name} {one.graph_version}",
            "status": output.cell(one.status, output.STATUS_STYLE.get(one.status, "")),
            "started": output.day_time(one.created_at),
            "took": output.span((one.finished_at or now) - one.created_at),
            "why": output.cell(_why(one, ids[one.lifetime_id], place), "dim"),
        }
        for one in found
    ]
    columns = ("lifetime", "graph", "status", "started", "took", "why")
    output.show(output.listing(columns, lines, right=("took",), shrink="why"))
    if len(found) == limit:
        output.say(f"More: tickwork lifetimes list --before {found[-1].lifetime_id}")


def labels_text(one: Lifetime) -> str:
    """`key=value key=value`."""
    return " ".join(f"{key}={value}" for key, value in one.labels.items())


def _print_log(one: Lifetime, found: list[LogEntry]) -> None:
    from tickwork.model.records import Event, Execution

    items = [entry.entry for entry in found]
    nodes = {item.exec_id: item.name for item in items if isinstance(item, Execution)}
    nodes |= {e.data["exec_id"]: e.data["node"] for e in items if isinstance(e, Event) and e.type == "waiting"}
    lines = [_log_line(entry, nodes) for entry in found]
    output.show(output.listing(LOG_COLUMNS, lines, right=("seq", "#", "took", "tokens"), shrink="outcome"))
    output.say(f"{one.graph_name} {one.graph_version}  {one.lifetime_id}  {one.status}", "dim")


LOG_COLUMNS = ("seq", "at", "what", "branch", "#", "", "took", "tokens", "outcome")


def _log_line(entry: LogEntry, nodes: dict[str, str]) -> output.Line:
    """The cells of one record, by column; what it has nothing for is left out."""
    from tickwork.cli.progress import event_text, outcome_text
    from tickwork.model.records import Event

    item = entry.entry
    line: output.Line = {"seq": str(entry.seq), "at": output.cell(output.clock_time(entry.at), "dim")}
    if isinstance(item, Event):
        return line | {
            "what": output.cell(f"· {item.type}", "cyan"),
            "outcome": output.cell(event_text(item, 100, nodes), "dim"),
        }
    used = item.telemetry
    word = "" if item.status == "SUCCEEDED" else f" {item.status}"
    return line | {
        "what": f"{output.KIND_GLYPH[item.kind]} {item.name}",
        "branch": output.cell(item.branch, "dim"),
        "#": f"{item.iteration + 1}" + (f".{item.attempt}" if item.attempt > 1 else ""),
        "": output.cell(output.STATUS_GLYPH[item.status] + word, output.STATUS_STYLE[item.status]),
        "took": output.took(item),
        "tokens": f"{used.tokens_used:,}" if used is not None and used.tokens_used else "",
        "outcome": output.cell(outcome_text(item) or _result_text(item), "red" if item.error else "dim"),
    }


def _result_text(item: Any) -> str:
    from tickwork.model.records import payload_value

    payload = item.result
    if payload is None:
        return ""
    if payload.inline is None:
        return f"{payload.size:,} bytes in {payload.uri}"
    if payload.size > 2_000:
        return f"{payload.size:,} bytes of {payload.content_type}"
    return output.one_line(payload_value(payload), 100)


async def registered_graph(service: Service, one: Lifetime) -> AgentGraph:
    """The lifetime's graph as it is registered."""
    from tickwork.model.graph import graph_from_json

    stored = await service.graph(one.graph_digest, tenant=one.tenant_id)
    return graph_from_json(stored.body)
