"""Where one lifetime stands: what it used node by node, what it waits for, and the command that moves it.

`tickwork lifetimes show` prints it, for people or as a document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tickwork.cli import output, trouble
from tickwork.model.lifetime import Question

if TYPE_CHECKING:
    from tickwork.breach import Breach
    from tickwork.cli.options import Place
    from tickwork.cli.tally import Tally
    from tickwork.model.lifetime import Lifetime
    from tickwork.service import Service


def awaited_signal(one: Lifetime, data: dict[str, Any]) -> Question:
    """A `waiting` event for a signal as the open wait that it is; questions to people come from the inbox."""
    return Question(
        tenant_id=one.tenant_id,
        lifetime_id=one.lifetime_id,
        exec_id=data["exec_id"],
        node=data["node"],
        branch=data["branch"],
        on="signal",
        since=data["since"],
        signal=data["name"],
        deadline=data.get("deadline"),
        graph_name=one.graph_name,
    )


async def open_children(service: Service, one: Lifetime) -> list[Lifetime]:
    """The lifetimes that this one has started and waits for."""
    from tickwork.orchestrator.starting import PARENT_LABEL
    from tickwork.ports import LifetimeQuery

    query = LifetimeQuery(statuses=("PENDING", "RUNNING", "WAITING", "PAUSED"), label=(PARENT_LABEL, one.lifetime_id))
    return await service.list(query, tenant=one.tenant_id)


def standing_json(
    one: Lifetime, questions: list[Question], tally: Tally, children: list[Lifetime], breach: Breach | None
) -> dict[str, Any]:
    """Where a lifetime stands, for machines."""
    from tickwork.cli.carry import stopped_json
    from tickwork.cli.lifetimes import lifetime_json, question_json
    from tickwork.model.contract import timestamp

    return {
        **lifetime_json(one),
        **stopped_json(breach),
        "executions": tally.executions,
        "tokens_used": tally.tokens,
        "cost_usd": _dollars(tally.cost_nano_usd),
        "nodes": {
            name: {
                "kind": row.kind,
                "succeeded": row.succeeded,
                "failed": row.failed,
                "cancelled": row.cancelled,
                "lost": row.lost,
                "tokens_used": row.tokens,
                "cost_usd": _dollars(row.cost_nano_usd),
                "busy_ms": row.busy / 1_000,
            }
            for name, row in tally.nodes.items()
        },
        "questions": [question_json(question) for question in questions],
        "timers": [
            {"purpose": data.get("purpose"), "exec_id": data.get("exec_id"), "due": timestamp(data["due"])}
            for data in tally.timers.values()
        ],
        "children": [
            {"lifetime_id": child.lifetime_id, "graph": child.graph_name, "status": child.status} for child in children
        ],
    }


def _dollars(nano_usd: int) -> str:
    from tickwork.model.contract import usd

    return usd(nano_usd)


def print_standing(
    one: Lifetime,
    questions: list[Question],
    tally: Tally,
    children: list[Lifetime],
    breach: Breach | None,
    place: Place,
) -> None:
    """Where a lifetime stands, for people."""
    from rich.table import Table
    from rich.text import Text

    from tickwork.cli.carry import flags, raising
    from tickwork.cli.lifetimes import labels_text
    from tickwork.cli.progress import breach_place
    from tickwork.cli.reach import LEFT_BEHIND, left_behind

    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("lifetime", one.lifetime_id)
    facts.add_row("graph", f"{one.graph_name} {one.graph_version}  {one.graph_digest[:19]}…")
    facts.add_row("status", Text(one.status, style=f"bold {output.STATUS_STYLE.get(one.status, '')}"))
    if left_behind(place, one) and not any(child.status in ("WAITING", "PAUSED") for child in children):
        facts.add_row("", Text(output.as_called(f"{LEFT_BEHIND} {one.lifetime_id}{flags(place)}"), style="yellow"))
    if one.reason:
        facts.add_row("reason", Text(one.reason + (breach_place(breach.verdict) if breach is not None else "")))
    facts.add_row("started", output.day_time(one.created_at))
    if one.finished_at:
        took = output.span(one.finished_at - one.created_at)
        facts.add_row("finished", f"{output.day_time(one.finished_at)}, after {took}")
    if one.labels:
        facts.add_row("labels", Text(labels_text(one)))
    facts.add_row("log", f"{one.last_seq:,} records")
    facts.add_row("used", f"{tally.tokens:,} tokens, {output.money(tally.cost_nano_usd)}")
    parts: list[Any] = [facts]
    if tally.nodes:
        parts += ["", _node_table(tally)]
    texts = _awaited(one, questions, tally, children, flags(place))
    if breach is not None and one.status == "PAUSED":
        go_on = f"tickwork lifetimes resume {one.lifetime_id}{raising(breach)}{flags(place)}"
        texts.insert(0, f"waits until somebody lets it go on under the policy {breach.policy}\n  {go_on}")
    for text in texts:
        parts += ["", Text(output.as_called(text), style="yellow")]
    output.show(*parts)


def _awaited(one: Lifetime, questions: list[Question], tally: Tally, children: list[Lifetime], where: str) -> list[str]:
    """What a lifetime waits for, each with the command that moves it."""
    texts = [_question_text(question, one.lifetime_id, where, tally) for question in questions]
    asked = {question.exec_id for question in questions}
    texts += [
        f"execution {exec_id} is UNKNOWN ({data.get('reason')}); its reconcile hook is asked"
        for exec_id, data in tally.unknown.items()
        if exec_id not in asked and not one.ended
    ]
    for data in tally.timers.values():
        what = {"timer": "waits for a timer", "retry": "tries again"}.get(str(data.get("purpose")))
        if what is not None:
            texts.append(f"{what}, until {output.day_time(data['due'])}  (execution {data.get('exec_id')})")
    texts += [
        f"waits for lifetime {child.lifetime_id} of {child.graph_name}, which is {child.status}\n"
        f"  tickwork lifetimes show {child.lifetime_id}{where}"
        for child in children
    ]
    return texts


def _node_table(tally: Tally) -> Any:
    lost = ("lost",) if any(row.lost for row in tally.nodes.values()) else ()
    rows = output.table(
        "node", "done", "failed", "cancelled", *lost, "busy", "tokens", "cost",
        right=("done", "failed", "cancelled", "lost", "busy", "tokens", "cost"),
    )  # fmt: skip
    for name, row in tally.nodes.items():
        rows.add_row(
            f"{output.KIND_GLYPH[row.kind]} {name}",
            f"{row.succeeded:,}",
            f"{row.failed:,}" if row.failed else "",
            f"{row.cancelled:,}" if row.cancelled else "",
            *(f"{row.lost:,}" if row.lost else "" for _ in lost),
            output.span(row.busy),
            f"{row.tokens:,}" if row.tokens else "",
            output.money(row.cost_nano_usd) if row.cost_nano_usd else "",
        )
    return rows


def _question_text(question: Question, one: str, where: str, tally: Tally) -> str:
    since = f"since {output.day_time(question.since)}"
    if question.deadline:
        since += f", until {output.day_time(question.deadline)}"
    if question.on == "signal":
        return (
            f"{question.node} waits for signal `{question.signal}` {since}\n"
            f"  tickwork lifetimes signal {one} {question.signal} --payload JSON{where}"
        )
    if trouble.is_trouble(question.on):
        why = tally.unknown.get(question.exec_id, {}).get("reason")
        heading = trouble.heading(question.node, question.on, since)
        told = [f"{heading}:", f"  {question.prompt}", *([f"  what is known: {why}"] if why else [])]
        return "\n".join([*told, *(f"  {line}" for line in trouble.commands_for(question, where))])
    lines = [f"{question.node} asks {since}:", f"  {question.prompt}"]
    if question.who:
        lines.append(f"  may be answered by: {', '.join(question.who)}")
    if question.answer_schema is not None:
        lines.append(f"  the answer fits: {msgspec.json.encode(question.answer_schema).decode()}")
    by = f" --by {question.who[0]}" if question.who else ""
    return "\n".join([*lines, f"  tickwork lifetimes answer {one} ANSWER --node {question.node}{by}{where}"])
