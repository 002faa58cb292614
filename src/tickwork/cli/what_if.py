"""`tickwork guardrails what-if`: the recorded lifetimes, judged again under other policies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, Json, JsonLines, Place, flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from tickwork.model.policy import PolicyDocument
    from tickwork.orchestrator.findings import Counts, Findings, Judged
    from tickwork.orchestrator.guardrails.past import Stop
    from tickwork.orchestrator.guardrails.whatif import Used

FINDINGS = 4
LISTED = 20
"""Lifetimes that people are shown; --json and --jsonl have all."""
WIDE = 100
"""Columns of a terminal that takes all columns of the tables."""
WOULD_BE = {"abort_lifetime": "aborted", "pause_lifetime": "paused", "reject_execution": "rejected"}


def what_if(
    *policies: Annotated[Path, Parameter(help="Files with policies (.yaml .json), or folders of them.")],
    since: Annotated[
        str | None,
        Parameter(show_default=False, help="Lifetimes started from then on: 30d, 12h, a day or a time (UTC)."),
    ] = None,
    until: Annotated[
        str | None, Parameter(show_default=False, help="Lifetimes started before that: a day or a time (UTC).")
    ] = None,
    graph: Annotated[
        str | None, Parameter(show_default=False, help="Only lifetimes of this graph: NAME or NAME@VERSION.")
    ] = None,
    with_current: Annotated[
        bool,
        flag("--with-current", help="Beside the policies in force, not in their place; same layer and name: instead."),
    ] = False,
    max_killed: Annotated[
        int | None,
        Parameter(show_default=False, help="Exit code 4 when more lifetimes that completed would have been stopped."),
    ] = None,
    all_tenants: Annotated[bool, flag("--all-tenants", help="The lifetimes of all tenants.")] = False,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """Judge recorded lifetimes under other policies: what would have been stopped, where, and what that saves.

    Nothing is run and nothing is changed; it works beside the process that runs lifetimes. Each lifetime is judged from
    its log until the first stop; after a rejection nothing is known. Exit code 4 only with --max-killed.
    """
    from tickwork.cli.moments import moment, now

    documents = read(policies)
    at = now()
    span = (moment(since, "--since", at) if since else 0, moment(until, "--until", at) if until else None)
    found = asyncio.run(_judge(place, documents, span, graph, all_tenants=all_tenants, with_current=with_current))
    killed = found.total.killed
    beyond = max_killed is not None and killed > max_killed
    if jsonl:
        output.emit_lines(judged_json(judged) for judged in found.changed)
    elif json:
        output.emit_json(findings_json(found, span, max_killed))
    else:
        _print(found, sum(len(document.policies) for document in documents), span[0])
    if beyond and not json:
        output.say(f"{_completed(killed)} would have been stopped, and --max-killed is {max_killed}.", "red")
    return FINDINGS if beyond else 0


def read(paths: Sequence[Path]) -> list[PolicyDocument]:
    """The documents of all files and folders. Raises PolicyInvalid with all problems; Refusal when there are none."""
    from tickwork.errors import PolicyInvalid
    from tickwork.formats.policies import find_policies, load_policies
    from tickwork.model.problems import Problem

    if not paths:
        raise Refusal("Say which policies: tickwork guardrails what-if FILE.")
    documents: list[PolicyDocument] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            documents += [one for _, one in find_policies(path)] if path.is_dir() else [load_policies(path)]
        except PolicyInvalid as error:
            problems += error.problems
    if problems:
        raise PolicyInvalid(problems)
    if not documents:
        raise Refusal("There are no policies in there.", "Files with policies end with .yaml, .yml or .json.")
    return documents


async def _judge(
    place: Place,
    documents: list[PolicyDocument],
    span: tuple[int, int | None],
    graph: str | None,
    *,
    all_tenants: bool,
    with_current: bool,
) -> Findings:
    from tickwork.cli.reach import looking
    from tickwork.hindsight import Hindsight, Trial, beside

    async with looking(place) as runtime:
        blobs = runtime.profile.open_blobs(runtime.clock)
        await blobs.start()
        try:
            hindsight = Hindsight(runtime.store, blobs, runtime.clock)
            tenants = await hindsight.tenants() if all_tenants else (place.tenant,)
            tried = beside(runtime.policies.documents, documents) if with_current else tuple(documents)
            trial = Trial(documents=tried, tenants=tenants, since=span[0], until=span[1], graph=graph)
            return await hindsight.judge(trial)
        finally:
            await blobs.stop()


# -- for machines -----------------------------------------------------------------------------------------------------


def findings_json(found: Findings, span: tuple[int, int | None], max_killed: int | None) -> dict[str, Any]:
    """What was found, for machines."""
    from tickwork.model.contract import timestamp

    return {
        "since": timestamp(span[0]) if span[0] else None,
        "until": None if span[1] is None else timestamp(span[1]),
        "lifetimes": found.lifetimes,
        "records": found.records,
        "unchanged": found.unchanged,
        "max_killed": max_killed,
        "total": counts_json(found.total),
        "policies": [{"policy": label, **counts_json(counts)} for label, counts in found.policies.items()],
        "changed": [judged_json(judged) for judged in found.changed],
    }


def counts_json(counts: Counts) -> dict[str, Any]:
    """Numbers of lifetimes, and what is saved."""
    return {
        "warned": counts.warned,
        "shadow": counts.shadow,
        "rejected": counts.rejected,
        "paused": counts.paused,
        "aborted": counts.aborted,
        "unevaluable": counts.unevaluable,
        "killed": {"paused": counts.killed_paused, "aborted": counts.killed_aborted},
        "spared": counts.spared,
        "saved": used_json(counts.saved),
    }


def judged_json(judged: Judged) -> dict[str, Any]:
    """A lifetime, for machines."""
    one, found = judged.lifetime, judged.found
    return {
        "lifetime_id": one.lifetime_id,
        "tenant": one.tenant_id,
        "graph": f"{one.graph_name}@{one.graph_version}",
        "status": one.status,
        "stop": None if found.stop is None else stop_json(found.stop),
        "killed": judged.killed or None,
        "saved": used_json(judged.saved),
        "in_flight": used_json(found.in_flight),
        "used": used_json(found.used),
        "spared": [stop_json(stop) for stop in found.spared],
        "unchanged": found.unchanged,
        "not_known_from": found.unknown_from,
        "verdicts": found.verdicts,
        "trouble": judged.trouble or None,
    }


def stop_json(stop: Stop) -> dict[str, Any]:
    """A place where something is stopped."""
    from tickwork.model.contract import timestamp

    return {
        "policy": stop.policy,
        "scope": stop.scope,
        "action": stop.action,
        "unevaluable": stop.failed,
        "seq": stop.seq,
        "time": timestamp(stop.at),
        "at": stop.place,
        "exec_id": stop.exec_id or None,
        "node": stop.node or None,
        "reason": stop.reason,
        "values": stop.values,
    }


def used_json(used: Used) -> dict[str, Any]:
    """Money as an exact decimal."""
    from tickwork.model.contract import usd

    return {
        "executions": used.executions,
        "tokens_used": used.tokens_used,
        "cost_usd": usd(used.cost_nano_usd),
        "unpriced": used.unpriced,
    }


# -- for people -------------------------------------------------------------------------------------------------------


def _print(found: Findings, policies: int, since: int) -> None:
    from rich.text import Text

    judged = f"{output.count(found.lifetimes, 'lifetime')} with {output.count(found.records, 'record')}"
    under = f"{policies} {'policy' if policies == 1 else 'policies'}"
    output.say(f"Judged {judged}{f', since {output.day_time(since)},' if since else ''} under {under}.", "dim")
    if not found.lifetimes:
        return
    if found.changed:
        output.show(_policy_table(found))
    stopped = [one for one in found.changed if one.found.stop is not None]
    spared = [one for one in found.changed if one.found.spared]
    for title, ones, table in (
        ("would have been stopped", stopped, _stops),
        ("really stopped, and not now", spared, _spared),
    ):
        if ones:
            more = f", {LISTED} of {len(ones):,}; --jsonl has all" if len(ones) > LISTED else ""
            output.show(Text(), output.cell(f"{title}{more}", "bold"), table(ones[:LISTED], found))
    _conclude(found)


def _policy_table(found: Findings) -> Table:
    from tickwork.cli.usage import aligned

    rows = [*found.policies.items(), ("all", found.total)]
    if len(rows) == 2:
        rows = rows[:1]
    money = aligned([trimmed(counts.saved.cost_nano_usd) for _, counts in rows])
    lines: list[output.Line] = []
    for (label, counts), saved in zip(rows, money, strict=True):
        stops = counts.aborted + counts.paused
        style = "bold" if label == "all" else ""
        lines.append(
            {
                "policy": output.cell(label, style),
                "shadow": _number(counts.shadow),
                "warned": _number(counts.warned),
                "rejected": _number(counts.rejected),
                "paused": _number(counts.paused),
                "unevaluable": _number(counts.unevaluable),
                "aborted": _number(counts.aborted),
                "killed": output.cell(f"{counts.killed:,}", "red" if counts.killed else "") if stops else "",
                "spared": _number(counts.spared),
                "saved": saved if stops else "",
                "tokens": f"{counts.saved.tokens_used:,}" if stops else "",
            }
        )
    columns = tuple(lines[0])
    return output.listing(
        columns, lines, right=[name for name in columns if name not in ("policy", "saved")], shrink="policy"
    )


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _stops(ones: Sequence[Judged], found: Findings) -> Table:
    from tickwork.cli.usage import aligned

    short = output.short_ids([one.lifetime.lifetime_id for one in ones])
    money = aligned([trimmed(one.saved.cost_nano_usd) for one in ones])
    lines: list[output.Line] = []
    for one, saved in zip(ones, money, strict=True):
        stop = one.found.stop
        if stop is None:
            continue
        known = stop.action != "reject_execution"
        lines.append(
            {
                "lifetime": short[one.lifetime.lifetime_id],
                "graph": one.lifetime.graph_name if _wide() else "",
                "was": output.cell(one.lifetime.status, output.STATUS_STYLE.get(one.lifetime.status, "")),
                "would be": WOULD_BE[stop.action],
                "at": _where(stop),
                "time": output.day_time(stop.at) if _wide() else "",
                "by": output.cell(_name(stop, found)),
                "saved": saved if known else "not known",
                "tokens": f"{one.saved.tokens_used:,}" if known else "",
            }
        )
    return output.listing(tuple(lines[0]), lines, right=("tokens",), shrink="by")


def _spared(ones: Sequence[Judged], found: Findings) -> Table:
    short = output.short_ids([one.lifetime.lifetime_id for one in ones])
    lines: list[output.Line] = [
        {
            "lifetime": short[one.lifetime.lifetime_id],
            "graph": one.lifetime.graph_name if _wide() else "",
            "ended": output.cell(one.lifetime.status, output.STATUS_STYLE.get(one.lifetime.status, "")),
            "was": WOULD_BE[stop.action],
            "at": _where(stop),
            "time": output.day_time(stop.at) if _wide() else "",
            "by": output.cell(_name(stop, found)),
        }
        for one in ones
        for stop in one.found.spared[:1]
    ]
    return output.listing(tuple(lines[0]), lines, shrink="by")


def _name(stop: Stop, found: Findings) -> str:
    """The policy, without its layer where no other one is called so."""
    name = stop.policy.partition("/")[2]
    alike = [label for label in found.policies if label.partition("/")[2] == name]
    return stop.policy if len(alike) > 1 else name


def _where(stop: Stop) -> str:
    """The entry of the log, and the node; `before` for one that would not have been sent out."""
    if not stop.node:
        return f"{stop.seq} time is up"
    return f"{stop.seq} {'before ' if stop.place == 'dispatch' else ''}{stop.node}"


def _conclude(found: Findings) -> None:
    total = found.total
    stops = total.aborted + total.paused
    if not stops and not total.rejected:
        output.say("Nothing would have been stopped.", "green")
    if stops:
        saved = total.saved
        money = trimmed(saved.cost_nano_usd) + "+" * bool(saved.unpriced)
        tokens, executions = output.count(saved.tokens_used, "token"), output.count(saved.executions, "execution")
        output.say(f"Saved: {money} and {tokens} in {executions} that would not have been begun.")
    if total.killed:
        ways = [f"{n:,} {way}" for n, way in ((total.killed_aborted, "aborted"), (total.killed_paused, "paused")) if n]
        output.say(f"{_completed(total.killed)} would have been stopped: {', '.join(ways)}.", "yellow")
    if total.rejected:
        output.say(f"{output.count(total.rejected, 'lifetime')} would have been rejected; what came then is not known.")
    troubles = [one for one in found.changed if one.trouble]
    if troubles:
        one, many = troubles[0], output.count(len(troubles), "lifetime")
        output.say(f"{many} could not be judged, as {one.lifetime.lifetime_id}: {one.trouble}", "red")


def _completed(killed: int) -> str:
    return f"{output.count(killed, 'lifetime')} that completed"


def trimmed(nano_usd: int) -> str:
    """Dollars and cents, and of less than a dollar four digits; --json has all of them."""
    step = 10_000_000 if nano_usd >= 1_000_000_000 else 100_000
    return output.money(round(nano_usd / step) * step)


def _wide() -> bool:
    console = output.out()
    return not console.is_terminal or console.width >= WIDE
