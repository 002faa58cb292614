"""`tickwork usage`: tokens and money, added up as one likes, and how far each budget is used up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, Json, JsonLines, Place, flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from tickwork.accounts import Budget, LifetimeKey
    from tickwork.model.spending import UsageKey, UsageRow
    from tickwork.runtime import Runtime

Key = Literal["graph", "node", "model", "day", "hour", "kind", "tenant", "edge"]
OF_LIFETIME = ("kind", "node", "model", "edge", "hour", "day")
WIDE = 100
"""Columns of a terminal that takes all columns of the tables."""


@dataclass
class Found:
    """What was asked for."""

    by: tuple[Key, ...]
    since: int
    until: int | None
    lifetime_id: str | None = None
    rows: list[UsageRow] = field(default_factory=list)
    budgets: list[Budget] | None = None
    untracked: list[str] = field(default_factory=list)
    """Labels that usage is not kept apart by."""


def usage(
    *,
    by: Annotated[
        str | None,
        Parameter(
            show_default=False,
            help="Keep apart by these, with commas between: graph, node, model, day, hour, kind, tenant; of one "
            "lifetime also edge. Default: graph; of one lifetime: node.",
        ),
    ] = None,
    since: Annotated[
        str | None, Parameter(show_default=False, help="From then on: 30d, 12h, a day or a time (UTC): 2026-11-01.")
    ] = None,
    until: Annotated[str | None, Parameter(show_default=False, help="Until then: a day or a time (UTC).")] = None,
    graph: Annotated[str | None, Parameter(show_default=False, help="Only this graph's.")] = None,
    label: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="key=value: only of lifetimes with it; may be given often."),
    ] = (),
    lifetime: Annotated[str | None, Parameter(show_default=False, help="Of this lifetime alone, by node.")] = None,
    edges: Annotated[bool, flag("--edges", help="Of one lifetime: by the edge that led to each execution.")] = False,
    budgets: Annotated[bool, flag("--budgets", help="Also how far each budget in force is used up.")] = False,
    all_tenants: Annotated[bool, flag("--all-tenants", help="Of all tenants; budgets stay those of --tenant.")] = False,
    json: Json = False,
    jsonl: JsonLines = False,
    place: Place = HERE,
) -> int:
    """Tokens and money that were used, live: every record counts within a second.

    What was used before a result came too late, or before a lifetime was stopped, counts too. Child lifetimes count for
    themselves.
    """
    from tickwork.cli.moments import moment, now
    from tickwork.cli.reach import NoHome, looking
    from tickwork.cli.run import read_labels

    wanted = _wanted(by, lifetime, edges=edges, filtered=bool(graph or label or since or until or all_tenants))
    labels = read_labels(label)
    at = now()
    first = moment(since, "--since", at) if since else 0
    found = Found(wanted, first, moment(until, "--until", at) if until else None, lifetime)
    tenant = None if all_tenants else place.tenant

    async def work() -> None:
        async with looking(place) as runtime:
            await _ask(runtime, found, tenant, graph, labels)
            if budgets:
                found.budgets = await _budgets(runtime, place, lifetime)

    try:
        asyncio.run(work())
    except NoHome:
        if lifetime is not None:
            raise
        found.budgets = [] if budgets else None
    if jsonl:
        output.emit_lines([row_json(row, wanted) for row in found.rows])
    elif json:
        output.emit_json(_document(found))
    else:
        _print(found)
    return 0


def _wanted(by: str | None, lifetime: str | None, *, edges: bool, filtered: bool) -> tuple[Key, ...]:
    """The keys that rows are kept apart by. Raises Refusal."""
    from typing import get_args

    words = [word.strip() for word in by.split(",") if word.strip()] if by is not None else []
    known = OF_LIFETIME if lifetime is not None else tuple(key for key in get_args(Key) if key != "edge")
    for word in words:
        if word not in known:
            more = " Of one lifetime: --lifetime ID." if word == "edge" else ""
            raise Refusal(f"--by {word}: there is no such key here.{more}", f"Keys: {', '.join(known)}.")
    if len(set(words)) < len(words):
        raise Refusal("--by names a key twice.")
    if edges and lifetime is None:
        raise Refusal("--edges is about one lifetime.", "Say which: --lifetime ID.")
    if lifetime is not None and filtered:
        raise Refusal("--lifetime stands alone: no --graph, --label, --since, --until or --all-tenants beside it.")
    if not words and by is None:
        words = ["node"] if lifetime is not None else ["graph"]
        words = ["edge", *words] if edges else words
    elif edges and "edge" not in words:
        words.append("edge")
    return tuple(cast("list[Key]", words))


# -- asking -----------------------------------------------------------------------------------------------------------


async def _ask(runtime: Runtime, found: Found, tenant: str | None, graph: str | None, labels: dict[str, str]) -> None:
    from tickwork.model.spending import UsageQuery

    accounts = runtime.accounts
    if found.lifetime_id is not None:
        keys = cast("Sequence[LifetimeKey]", found.by)
        one, found.rows = await accounts.usage_of(found.lifetime_id, tenant=tenant or HERE.tenant, by=keys)
        found.lifetime_id = one.lifetime_id
        return
    query = UsageQuery(
        tenant_id=tenant,
        since=found.since,
        until=found.until,
        by=cast("tuple[UsageKey, ...]", found.by),
        graph=graph,
        labels=labels,
    )
    found.rows = await accounts.usage(query)
    found.untracked = sorted(labels.keys() - accounts.tracked_labels())


async def _budgets(runtime: Runtime, place: Place, lifetime: str | None) -> list[Budget]:
    """Budgets as the process tells them that holds the home, for it knows what is reserved; else by the store."""
    import msgspec

    from tickwork.accounts import Budget
    from tickwork.cli.reach import ask_holder

    verb = "budgets" if lifetime is None else "budgets_of"
    arguments = {"tenant": place.tenant} if lifetime is None else {"tenant": place.tenant, "lifetime_id": lifetime}
    told = ask_holder(place, verb, arguments)
    found: list[Budget]
    if told is not None:
        found = msgspec.convert(told[0], list[Budget])
    else:
        found = await getattr(runtime.accounts, verb)(**arguments)
    await runtime.accounts.falling(found, tenant=place.tenant)
    return found


# -- for machines -----------------------------------------------------------------------------------------------------


def row_json(row: UsageRow, by: Sequence[str]) -> dict[str, Any]:
    """A row for machines: money as an exact decimal, times in milliseconds."""
    from tickwork.model.contract import usd
    from tickwork.model.spending import CUSTOM_SCALE

    return {
        **dict(zip(by, row.key, strict=True)),
        "executions": row.executions,
        "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out,
        "tokens_used": row.tokens_used,
        "cost_usd": usd(row.cost_nano_usd),
        "unpriced": row.unpriced,
        "latency_ms": row.latency_us / 1_000,
        "queue_ms": row.queue_us / 1_000,
        "custom": {name: amount / CUSTOM_SCALE for name, amount in sorted(row.custom.items())},
    }


def total_of(rows: Sequence[UsageRow]) -> UsageRow:
    """All rows added up."""
    from tickwork.model.spending import UsageRow
    from tickwork.model.tallies import COLUMNS

    total = UsageRow(key=(), custom={})
    for row in rows:
        for column in COLUMNS:
            setattr(total, column, getattr(total, column) + getattr(row, column))
        for name, amount in row.custom.items():
            total.custom[name] = total.custom.get(name, 0) + amount
    return total


def _document(found: Found) -> dict[str, Any]:
    from tickwork.model.contract import timestamp

    document: dict[str, Any] = {
        "by": list(found.by),
        "since": timestamp(found.since) if found.since else None,
        "until": None if found.until is None else timestamp(found.until),
        "rows": [row_json(row, found.by) for row in found.rows],
        "total": row_json(total_of(found.rows), ()),
    }
    if found.lifetime_id is not None:
        document["lifetime_id"] = found.lifetime_id
    if found.budgets is not None:
        document["budgets"] = [budget_json(budget) for budget in found.budgets]
    return document


def budget_json(budget: Budget) -> dict[str, Any]:
    """A budget for machines: amounts are exact decimals, in the unit that the condition is written in."""
    from tickwork.model.contract import timestamp

    percent = budget.percent
    return {
        "policy": budget.policy,
        "graph": budget.graph or None,
        "scope": budget.scope,
        "action": budget.action,
        "shadow": budget.shadow,
        "when": budget.condition,
        "aggregate": budget.aggregate,
        "limit": _plain(budget.limit),
        "raised": budget.raised,
        "spent": None if budget.spent is None else _plain(budget.spent),
        "reserved": _plain(budget.reserved),
        "percent": None if percent is None else float(percent),
        "window": budget.window or None,
        "since": None if budget.since is None or budget.since <= 0 else timestamp(budget.since),
        "until": None if budget.until is None else timestamp(budget.until),
        "falls_out": None if budget.falls_out is None else _plain(budget.falls_out),
        "falls_out_until": None if budget.falls_out_until is None else timestamp(budget.falls_out_until),
    }


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# -- for people -------------------------------------------------------------------------------------------------------


def _print(found: Found) -> None:
    used = [row for row in found.rows if row.executions or row.tokens_used or row.cost_nano_usd or row.custom]
    total = total_of(used)
    if used:
        output.show(_table(used, found.by, total))
    elif found.untracked:
        output.say(
            f"Usage is not kept apart by the label {found.untracked[0]}: it is by those that a policy of the scope "
            "tenant matches, from the moment it is in force."
        )
    else:
        output.say("Nothing was used.")
    if total.unpriced:
        it = "its" if total.unpriced == 1 else "their"
        output.say(
            f"{output.count(total.unpriced, 'execution')} used a model without a known price, so {it} cost is not all "
            "in here. Give it one in prices.yaml in the home, or in the file that TICKWORK_PRICES names.",
            "yellow",
        )
    if found.budgets is not None:
        _print_budgets(found.budgets, after=bool(used))


def _table(rows: list[UsageRow], by: Sequence[str], total: UsageRow) -> Table:
    wide = _wide()
    costs = aligned([output.money(row.cost_nano_usd) + "+" * bool(row.unpriced) for row in (*rows, total)])
    custom = sorted(total.custom)[:3]
    names = ("executions", "in", "out", "tokens", "cost", *(("took", "queued") if wide else ()), *custom)
    lines = [_line(row, by, cost, custom) for row, cost in zip(rows, costs, strict=False)]
    if len(rows) > 1 or not by:
        summed = _line(total, (), costs[-1], custom)
        lines.append({**{name: output.cell(str(text), "bold") for name, text in summed.items()}, **_named(by)})
    right = [name for name in names if name != "cost"]
    return output.listing((*by, *names), lines, right=right, shrink=by[0] if by else "tokens")


def _wide() -> bool:
    """Whether there is room for all columns."""
    console = output.out()
    return not console.is_terminal or console.width >= WIDE


def _named(by: Sequence[str]) -> output.Line:
    return {by[0]: output.cell("total", "bold")} if by else {}


def _line(row: UsageRow, by: Sequence[str], cost: str, custom: Sequence[str]) -> output.Line:
    from tickwork.model.spending import CUSTOM_SCALE

    line: dict[str, Text | str] = {name: output.cell(text or "-") for name, text in zip(by, row.key, strict=False)}
    line |= {
        "executions": f"{row.executions:,}",
        "in": f"{row.tokens_in:,}" if row.tokens_in else "",
        "out": f"{row.tokens_out:,}" if row.tokens_out else "",
        "tokens": f"{row.tokens_used:,}",
        "cost": cost,
        "took": output.span(row.latency_us),
        "queued": output.span(row.queue_us),
    }
    for name in custom:
        line[name] = f"{Decimal(row.custom.get(name, 0)) / CUSTOM_SCALE:,f}".rstrip("0").rstrip(".") or "0"
    return line


def aligned(amounts: Sequence[str]) -> list[str]:
    """Amounts with blanks around them, so that their points stand below each other."""
    parts = [text.partition(".") for text in amounts]
    before, after = max(len(part[0]) for part in parts), max(len(part[2]) for part in parts)
    return [f"{whole:>{before}}{point}{decimals:<{after}}" for whole, point, decimals in parts]


def _print_budgets(budgets: list[Budget], *, after: bool) -> None:
    from rich.text import Text

    if not budgets:
        output.say("No budget is in force. Put one in force: tickwork guardrails apply FILE")
        return
    lines: list[output.Line] = [
        {
            "budget": output.cell(budget.policy + (f" ({budget.graph})" if budget.graph else "")),
            "spent": "nothing yet" if budget.spent is None else amount_text(budget, budget.spent),
            "reserved": amount_text(budget, budget.reserved) if budget.reserved else "",
            "limit": amount_text(budget, budget.limit) + (" raised" if budget.raised else ""),
            "used": _percent(budget),
            "window": budget.window,
            "then": budget.action + (" (shadow)" if budget.shadow else ""),
            "next": output.cell(_next(budget), "dim"),
        }
        for budget in budgets
    ]
    columns: tuple[str, ...] = ("budget", "spent", "reserved", "limit", "used", "window")
    columns += ("then", "next") if _wide() else ()
    shrink = "next" if _wide() and any(_next(budget) for budget in budgets) else "budget"
    made = output.listing(columns, lines, right=("spent", "reserved", "limit", "used"), shrink=shrink)
    output.show(*([Text()] if after else []), made)


def _percent(budget: Budget) -> Text:
    percent = budget.percent
    if percent is None:
        return output.cell("")
    style = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
    return output.cell(f"{percent:.1f}%" if percent < 10 else f"{percent:,.0f}%", style)


def amount_text(budget: Budget, amount: Decimal) -> str:
    """An amount as people read it: dollars, times, counts."""
    if "cost_usd" in budget.aggregate:
        return output.money(int(amount * 1_000_000_000))
    if budget.aggregate.startswith("elapsed"):
        return output.milliseconds(float(amount) * 1_000)
    if "_ms" in budget.aggregate:
        return output.milliseconds(float(amount))
    before, point, after = _plain(amount).partition(".")
    return f"{int(before):,}{point}{after}"


def _next(budget: Budget) -> str:
    """When something of a window is over."""
    if budget.until is not None:
        return f"begins anew {output.day_time(budget.until)}"
    if budget.falls_out is not None and budget.falls_out_until is not None:
        gone = amount_text(budget, budget.falls_out) if budget.falls_out else "nothing"
        return f"{gone} falls out until {output.day_time(budget.falls_out_until)}"
    return ""
