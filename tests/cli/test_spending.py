"""`tickwork usage`: exact sums by any key, of a tenant and of one lifetime, and how far budgets are used up."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import Cli
from tickwork import END, Context, Graph, plan, task
from tickwork.accounts import period_end
from tickwork.cli.usage import aligned
from tickwork.errors import Conflict, NotFound, PolicyInvalid
from tickwork.model.graph import Maximum
from tickwork.model.policy import Match, Policy, PolicyDocument, Window
from tickwork.model.spending import UsageQuery
from tickwork.profiles import Profile
from tickwork.runtime import Runtime

SECOND = 1_000_000


@task
def write(_: Any, ctx: Context) -> dict[str, int]:
    """A thousand tokens each; the third on another model."""
    model = "big" if ctx.iteration == 2 else "small"
    ctx.telemetry.record(tokens_in=900, tokens_out=100, tokens_used=1_000, cost_usd="0.000000001", model=model, pages=2)
    return {"n": ctx.iteration + 1}


@plan
def review(plan_input: Any) -> Any:
    return END if plan_input.result["n"] >= 3 else "write"


def loop(name: str = "loop") -> Graph:
    return Graph(name).start(write).then(write, review).then(review, write).final(review)


async def ran(runtime: Runtime, graph: Graph, tenant: str = "default", **start: Any) -> str:
    """The id of a lifetime that has settled."""
    stored = await runtime.bind(graph.bind(), tenant=tenant)
    one = await runtime.service.start(stored.digest, None, tenant=tenant, **start)
    await runtime.guard(runtime.service.wait(one.lifetime_id, tenant=tenant, until="settled"))
    return one.lifetime_id


def budget(name: str, when: str, window: Window | None = None, **more: Any) -> Policy:
    return Policy(name=name, scope="tenant", when=when, action="pause_lifetime", window=window, **more)


async def test_usage_is_exact_by_every_key() -> None:
    async with Runtime(Profile.test()) as runtime:
        lifetime = await ran(runtime, loop())
        await ran(runtime, loop("other"), "umbrella")
        usage = runtime.accounts.usage
        (mine,) = await usage(UsageQuery(tenant_id="default"))
        assert (mine.executions, mine.tokens_used, mine.cost_nano_usd) == (6, 3_000, 3)
        assert mine.custom == {"pages": 6_000_000}
        found = await usage(UsageQuery(tenant_id=None, by=("tenant", "model")))
        assert {row.key: row.tokens_used for row in found}["umbrella", "big"] == 1_000
        one, rows = await runtime.accounts.usage_of(lifetime[:13], by=("edge", "node", "model"))
        assert one.lifetime_id == lifetime
        assert {row.key: (row.executions, row.tokens_in) for row in rows} == {
            ("review->write", "write", "big"): (1, 900),
            ("review->write", "write", "small"): (1, 900),
            ("start->write", "write", "small"): (1, 900),
            ("write->review", "review", ""): (3, 0),
        }
        (whole,) = (await runtime.accounts.usage_of(lifetime, by=()))[1]
        assert (whole.tokens_used, whole.cost_nano_usd, whole.custom) == (3_000, 3, {"pages": 6_000_000})
        with pytest.raises(NotFound):
            await runtime.accounts.usage_of(lifetime, tenant="umbrella")


async def test_budgets_of_a_tenant_and_of_a_lifetime() -> None:
    async with Runtime(Profile.test()) as runtime:
        accounts = runtime.accounts
        tenant = PolicyDocument(
            tenant="default",
            policies=(
                budget("hour", "sum(cost_usd) > 1", Window(seconds=3_600)),
                budget("month", "count() >= 100", Window(calendar="month", time_zone="Europe/Berlin")),
                budget("two", "sum(tokens_used) > 10 && count() > 1000"),
            ),
        )
        await accounts.apply_policies(tenant, by="ada")
        only = PolicyDocument(graph="loop", policies=(budget("ever", "avg(tokens_used) > 5000"),))
        await accounts.apply_policies(only)
        own = PolicyDocument(policies=(Policy(name="own", when="sum(tokens_used) > 1500", action="pause_lifetime"),))
        lifetime = await ran(runtime, loop(), policies=own)
        found = {one.policy: one for one in await accounts.budgets()}
        assert set(found) == {"tenant/hour", "tenant/month", "graph/ever"}, "a policy of two limits is no budget"
        assert (found["tenant/hour"].spent, found["tenant/hour"].limit) == (Decimal("0.000000002"), 1)
        assert (found["tenant/month"].spent, found["tenant/month"].percent) == (3, 3)
        assert (found["graph/ever"].graph, found["graph/ever"].spent) == ("loop", Decimal("666.666666667"))
        await accounts.falling(list(found.values()))
        assert found["tenant/hour"].falls_out == 0
        assert found["tenant/month"].falls_out is None
        assert [one.policy for one in await accounts.budgets(tenant="umbrella")] == ["graph/ever"]
        await runtime.service.resume(lifetime, raised={"own": "2500"}, by="ada")
        await runtime.guard(runtime.service.wait(lifetime, until="settled"))
        mine = {one.policy: one for one in await accounts.budgets_of(lifetime)}
        assert (mine["run/own"].spent, mine["run/own"].limit, mine["run/own"].raised) == (3_000, 2_500, True)
        assert set(mine) == {"run/own", "tenant/hour", "tenant/month", "graph/ever"}
        outcome = await runtime.service.result(lifetime)
        assert outcome.breach is not None
        assert outcome.breach.higher == ("own=6000",)


async def test_what_falls_out_of_a_window_is_what_leaves_it_next() -> None:
    """A budget's clock is the store's; a profile's store takes the runtime's."""
    clock = Stepped()
    async with Runtime(Profile.test(), clock=clock) as runtime:
        document = PolicyDocument(policies=(budget("day", "sum(tokens_used) > 9000", Window(seconds=86_400)),))
        await runtime.accounts.apply_policies(document)
        await ran(runtime, loop())
        clock.ahead = 22 * 3_600
        await ran(runtime, loop())
        (day,) = await runtime.accounts.budgets()
        await runtime.accounts.falling([day])
        assert (day.spent, day.falls_out) == (6_000, 0)
        clock.ahead = 23 * 3_600 + 1_800
        (day,) = await runtime.accounts.budgets()
        await runtime.accounts.falling([day])
        assert (day.spent, day.falls_out) == (6_000, 3_000)
        clock.ahead = 24 * 3_600 + 120
        (day,) = await runtime.accounts.budgets()
        assert day.spent == 3_000


class Stepped:
    """The real clock, some seconds ahead."""

    def __init__(self) -> None:
        from tickwork.clock import SystemClock

        self._real = SystemClock()
        self.ahead = 0

    def now(self) -> int:
        return self._real.now() + self.ahead * SECOND

    def monotonic(self) -> float:
        return self._real.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


async def test_documents_are_checked_and_layers_kept_apart() -> None:
    async with Runtime(Profile.test()) as runtime:
        accounts = runtime.accounts
        first = PolicyDocument(policies=(budget("a", "count() > 1"),), graph="loop")
        await accounts.apply_policies(first)
        await accounts.apply_policies(first)
        await accounts.apply_policies(PolicyDocument(policies=(budget("a", "count() > 2"),), graph="loop"))
        with pytest.raises(Conflict, match="`a` in force already"):
            await accounts.apply_policies(PolicyDocument(policies=first.policies, graph="loop", tenant="umbrella"))
        with pytest.raises(PolicyInvalid, match="did you mean"):
            await accounts.apply_policies(
                {"policies": [{"name": "b", "when": "sum(token_used) > 1", "action": "warn"}]}
            )
        assert [one.document.policies[0].when for one in await accounts.documents()] == ["count() > 2"]
        assert len(await accounts.documents(history=True)) == 2
        assert (await accounts.in_force(graph="loop")).policies[0].label == "graph/a"
        assert (await accounts.in_force()).policies == ()
        await accounts.remove_policies(graph="loop")
        with pytest.raises(NotFound):
            await accounts.remove_policies(graph="loop")
        assert await accounts.documents() == []


@pytest.mark.parametrize(
    ("window", "since", "until"),
    [
        (Window(calendar="hour"), "2026-11-22T14:00Z", "2026-11-22T15:00Z"),
        (Window(calendar="day"), "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        (Window(calendar="week"), "2026-11-16T00:00Z", "2026-11-23T00:00Z"),
        (Window(calendar="month"), "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        # The day on which the clocks go back has 25 hours.
        (Window(calendar="day", time_zone="Europe/Berlin"), "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
    ],
)
def test_when_a_calendar_window_ends(window: Window, since: str, until: str) -> None:
    from tickwork.model.contract import instant

    assert period_end(window, instant(since)) == instant(until)
    assert period_end(Window(seconds=60), 0) is None


def test_amounts_stand_with_their_points_below_each_other() -> None:
    assert aligned(["$1,234.50", "$0.0001"]) == ["$1,234.50  ", "    $0.0001"]


GRAPH = """
tickwork: 1
name: loop
version: 1.0.0
tasks:
  write: {run: "steps.py:write"}
plans:
  review: steps.py:review
edges:
  - start -> write
  - write -> review
  - {from: review, to: write, label: again}
  - {from: review, to: end, label: good}
"""
STEPS = """
from tickwork import END

def write(value, ctx):
    ctx.telemetry.record(tokens_used=1_000_000, cost_usd="1.000000001", model="small")
    return ctx.iteration + 1

def review(plan_input):
    return END if plan_input.result >= 3 else "write"
"""


@pytest.fixture
def spent(cli: Cli, tmp_path: Path) -> str:
    """The id of a lifetime that used three million tokens."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "loop.yaml").write_text(GRAPH)
    (tmp_path / "policies.yaml").write_text(
        "version: 1\npolicies:\n"
        "  - {name: daily, scope: tenant, window: 24h, when: sum(cost_usd) > 50, action: pause_lifetime}\n"
        "  - {name: cap, when: iterations('write') > 30, action: abort_lifetime}\n"
    )
    cli("guardrails", "apply", "policies.yaml")
    lifetime: str = cli("run", "loop.yaml", "--json", "--label", "team=red").json["lifetime_id"]
    return lifetime


def test_tables_for_people_and_documents_for_machines(cli: Cli, spent: str) -> None:
    table = cli("usage", "--by", "node,model").out.splitlines()
    assert table[0].split()[:3] == ["node", "model", "executions"]
    assert "$3.000000003" in table[2]
    assert table[3].split()[:3] == ["total", "6", "3,000,000"]
    told = cli("usage", "--by", "day,graph", "--since", "1h", "--json").json
    assert told["total"]["cost_usd"] == "3.000000003"
    assert (told["rows"][0]["graph"], told["rows"][0]["tokens_used"]) == ("loop", 3_000_000)
    assert cli("usage", "--jsonl").lines[0]["executions"] == 6
    assert cli("usage", "--until", "2020-01-01", "--json").json["rows"] == []
    assert "Nothing was used." in cli("usage", "--tenant", "umbrella").err
    assert cli("usage", "--all-tenants", "--by", "tenant", "--json").json["rows"][0]["tenant"] == "default"
    assert "not kept apart by the label team" in cli("usage", "--label", "team=red").err


def test_one_lifetime_and_its_budgets(cli: Cli, spent: str) -> None:
    told = cli("usage", "--lifetime", spent[:13], "--edges", "--budgets", "--json").json
    assert told["lifetime_id"] == spent
    assert [(row["edge"], row["node"], row["executions"]) for row in told["rows"]] == [
        ("review->write", "write", 2),
        ("start->write", "write", 1),
        ("write->review", "review", 3),
    ]
    assert [(one["policy"], one["spent"], one["limit"], one["percent"]) for one in told["budgets"]] == [
        ("installation/cap", "3", "30", 10.0),
        ("installation/daily", "3.000000003", "50", 6.0),
    ]
    shown = cli("usage", "--lifetime", spent, "--budgets").out
    assert "$50.00" in shown
    assert "6.0%" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--by", "edge"], "--lifetime ID"),
        (["--by", "nodes"], "Keys: graph, node"),
        (["--by", "node,node"], "twice"),
        (["--edges"], "--lifetime ID"),
        (["--since", "yesterday"], "that is no time"),
        (["--lifetime", "x", "--graph", "y"], "stands alone"),
        (["--label", "team"], "key=value"),
    ],
)
def test_wrong_words_are_refused(capfd: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    from tickwork.cli.main import call

    assert call(["usage", *words]) == 2
    assert told in capfd.readouterr().err


async def test_what_is_in_flight_is_reserved() -> None:
    """A node that declares its maximum holds it against the budget while it runs."""
    import asyncio

    begun, go = asyncio.Event(), asyncio.Event()

    @task(maximum=Maximum(tokens=500, cost_usd="0.5"))
    async def slow(_: Any) -> int:
        begun.set()
        await go.wait()
        return 1

    async with Runtime(Profile.test()) as runtime:
        match = Match(name=("slow",))
        document = PolicyDocument(policies=(budget("day", "sum(cost_usd) > 2", Window(seconds=86_400), match=match),))
        await runtime.accounts.apply_policies(document)
        own = PolicyDocument(policies=(Policy(name="own", when="sum(tokens_used) > 900", action="pause_lifetime"),))
        stored = await runtime.bind(Graph("slow").start(slow).final(slow).bind())
        one = await runtime.service.start(stored.digest, None, policies=own)
        await begun.wait()
        (day,) = await runtime.accounts.budgets()
        assert (day.spent, day.reserved, day.percent) == (0, Decimal("0.5"), 25)
        mine = {held.policy: held.reserved for held in await runtime.accounts.budgets_of(one.lifetime_id)}
        assert mine == {"run/own": 500, "installation/day": Decimal("0.5")}
        go.set()
        await runtime.guard(runtime.service.wait(one.lifetime_id))
        (day,) = await runtime.accounts.budgets()
        assert day.reserved == 0
