"""What the log adds up to while it grows, and how it is shown."""

from __future__ import annotations

import io
from typing import Any, cast

import msgspec
import pytest
from rich.console import Console
from rich.text import Text

from tests.cli.process import APPROVAL
from tickwork.cli.progress import LiveView, PlainLines, event_text, plain_line
from tickwork.cli.tally import MAX_LANES, Tally
from tickwork.clock import SystemClock
from tickwork.formats import read_graph
from tickwork.model.graph import AgentGraph, Edge, Node
from tickwork.model.lifetime import Lifetime
from tickwork.model.records import Error, Event, Execution, LogEntry, Next, Telemetry

FAN = AgentGraph(
    name="fan",
    version="1.0.0",
    nodes=(Node(name="split", kind="plan"), Node(name="work", kind="task"), Node(name="close", kind="plan")),
    edges=(
        Edge(source="start", target="split"),
        Edge(source="split", target="work", kind="PARALLEL"),
        Edge(source="work", target="close", kind="JOIN"),
        Edge(source="close", target="end", kind="FINAL"),
    ),
)


class Log:
    """Makes entries, one second apart unless `step` says otherwise (us)."""

    def __init__(self, step: int = 1_000_000) -> None:
        self.seq, self.step = 0, step

    def _entry(self, item: Execution | Event) -> LogEntry:
        self.seq += 1
        return LogEntry(self.seq, 1_800_000_000_000_000 + self.seq * self.step, item)

    def event(self, type: Any, **data: Any) -> LogEntry:
        return self._entry(Event(f"{type}:{self.seq}", type, data))

    def ran(self, name: str, kind: Any = "task", branch: str = "", **more: Any) -> LogEntry:
        end = 1_800_000_000_000_000 + (self.seq + 1) * self.step
        fields: dict[str, Any] = {"iteration": 0, "attempt": 1, "status": "SUCCEEDED", **more}
        if isinstance(fields.get("next"), list):
            fields["next"] = tuple(Next(task) for task in fields["next"])
        return self._entry(
            Execution(
                exec_id=f"{branch}{name}{self.seq}", kind=kind, name=name, branch=branch, parents=(), edge_taken="",
                created_at=end - 812_000, started_at=end - 812_000, finished_at=end, **fields,
            )
        )  # fmt: skip


def late() -> list[Any]:
    execution = msgspec.structs.replace(cast("Execution", Log().ran("pay").entry), attempt=2)
    return cast("list[Any]", msgspec.to_builtins(execution, builtin_types=(bytes,)))


@pytest.mark.parametrize(
    ("type", "data", "said"),
    [
        ("intent", {"exec_id": "ab", "worker": "w python/1"}, "pay: w python/1 is about to call it"),
        ("intent", {"exec_id": "ab", "worker": ""}, "pay: nobody may call it any more"),
        ("unknown", {"exec_id": "cd", "reason": "gone"}, "cd: nobody knows whether it happened (gone)"),
        ("reconciled", {"exec_id": "ab", "action": "retry", "by": "ada"}, "pay: it is run again (by ada)"),
        (
            "reconciled",
            {"exec_id": "ab", "action": "ask", "reason": "NoHook: none", "by": "w"},
            "pay: a person has to say what happened (NoHook: none, by w)",
        ),
        (
            "superseded",
            {"exec_id": "ab", "execution": late()},
            "pay: SUCCEEDED came too late (attempt 2); it is kept and applied to nothing",
        ),
        (
            "forked",
            {"lifetime_id": "01", "seq": 7, "replaced": True, "by": "ada"},
            "shares lifetime 01 up to entry 7, with another result there by ada",
        ),
    ],
)
def test_what_went_wrong_is_said_in_words(type: Any, data: dict[str, Any], said: str) -> None:
    event = Event("an-id", type, data)
    assert event_text(event, 100, {"ab": "pay"}) == said
    assert plain_line(LogEntry(1, 0, event)).endswith(said.replace("pay:", "ab:"))


def test_lost_attempts_and_what_is_unknown_are_counted_apart() -> None:
    log, tally = Log(), Tally(FAN)
    lost = Error("LeaseExpired", "its worker was not heard of for 30 s")
    tally.feed(log.event("started"))
    tally.feed(log.ran("work", status="TIMED_OUT", error=lost))
    tally.feed(log.ran("work", status="TIMED_OUT", error=Error("StartToClose", "too long")))
    assert (tally.nodes["work"].lost, tally.nodes["work"].failed) == (1, 1)
    wait = {"exec_id": "ab", "node": "work", "branch": "", "on": "unknown"}
    tally.feed(log.event("unknown", exec_id="ab", reason="gone"))
    tally.feed(log.event("waiting", **wait))
    assert (tally.standing, list(tally.unknown), list(tally.waiting)) == ("WAITING", ["ab"], ["ab"])
    tally.feed(log.event("reconciled", exec_id="ab", action="retry"))
    assert (tally.standing, tally.unknown, tally.waiting) == ("RUNNING", {}, {})


def test_a_line_says_what_happened() -> None:
    used = Telemetry(tokens_used=1143, cost_nano_usd=2_500_000)
    line = plain_line(Log().ran("CodeLLM1", branch="PlanRefine:0.0", iteration=1, attempt=2, telemetry=used))
    assert line.split(None, 1)[1].split("  ") == [
        ["task", "CodeLLM1"][0], "CodeLLM1", "PlanRefine:0.0", "#2 try 2", "SUCCEEDED", "812 ms", "1,143 tok",
        "$0.0025",
    ]  # fmt: skip
    failed = plain_line(Log().ran("x", status="FAILED", error=Error("ValueError", "no\nsuch thing")))
    assert failed.endswith("FAILED  812 ms  ValueError: no such thing")
    assert plain_line(Log().ran("p", "plan", next=["work"] * 30)).endswith("→ work x 30")


def test_tokens_and_money_add_up() -> None:
    log, tally = Log(), Tally()
    for attempt in (1, 2):
        used = Telemetry(tokens_used=5, cost_nano_usd=1)
        tally.feed(log.ran("a", attempt=attempt, status="FAILED" if attempt == 1 else "SUCCEEDED", telemetry=used))
    assert (tally.executions, tally.tokens, tally.cost_nano_usd) == (2, 10, 2)
    assert (tally.nodes["a"].succeeded, tally.nodes["a"].failed) == (1, 1)


def test_what_is_at_work_follows_from_the_log() -> None:
    graph = read_graph("approval.yaml", APPROVAL).graph
    log, tally = Log(), Tally(graph)
    tally.feed(log.event("started"))
    assert tally.lanes[""].at_work == "draft"
    tally.feed(log.ran("draft"))
    assert tally.lanes[""].at_work == "ask"
    tally.feed(log.ran("ask", "plan", next=["approve"]))
    assert (tally.lanes[""].at_work, tally.standing) == ("approve", "RUNNING")
    tally.feed(log.event("waiting", exec_id="x", node="approve", branch="", on="human", prompt="?"))
    assert (tally.lanes[""].waits, tally.standing) == (True, "WAITING")
    entry = log.ran("approve")
    assert isinstance(entry.entry, Execution)
    entry.entry.exec_id = "x"
    tally.feed(entry)
    assert (tally.waiting, tally.standing, tally.lanes[""].at_work) == ({}, "RUNNING", "decide")
    tally.feed(log.event("completed"))
    assert (tally.standing, tally.ended, tally.lanes) == ("COMPLETED", True, {})


def test_branches_have_lanes_until_their_group_is_joined() -> None:
    log, tally = Log(), Tally(FAN)
    tally.feed(log.event("started"))
    tally.feed(log.ran("split", "plan", next=["work"] * 3))
    assert set(tally.lanes) == {"", "split:0.0", "split:0.1", "split:0.2"}
    tally.feed(log.ran("work", branch="split:0.1"))
    assert tally.lanes["split:0.1"].at_work == ""
    tally.feed(log.ran("close", "plan", next=["end"]))
    assert set(tally.lanes) == {""}


def test_ten_thousand_branches_keep_the_view_small() -> None:
    log, tally = Log(), Tally(FAN)
    tally.feed(log.ran("split", "plan", next=["work"] * 10_000))
    for index in range(10_000):
        tally.feed(log.ran("work", branch=f"split:0.{index}"))
    assert len(tally.lanes) <= MAX_LANES + 1
    assert tally.executions == 10_001


def test_lines_are_thinned_when_nobody_could_read_them() -> None:
    shown = io.StringIO()
    log, view = Log(step=1_000), PlainLines(None, Console(file=shown))
    for _ in range(5_000):
        view.feed(log.ran("work"))
    view.feed(log.event("completed"))
    lines = shown.getvalue().splitlines()
    assert len(lines) < 1_000
    assert "completed" in lines[-1]
    left_out = sum(int(line.split()[1].replace(",", "")) for line in lines if line.startswith("..."))
    assert left_out + sum(not line.startswith("...") for line in lines) == 5_001


@pytest.mark.parametrize("width", [80, 140])
async def test_the_live_view_fits_the_terminal(width: int) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=width, height=30, force_terminal=True)
    clock = SystemClock()
    lifetime = Lifetime(
        lifetime_id="0199c3f2-1a2b-7c3d-8e4f-112233445566", tenant_id="t", graph_name="fan", graph_version="1.0.0",
        graph_digest="", status="RUNNING", created_at=clock.now(), updated_at=clock.now(),
    )  # fmt: skip
    log = Log()
    async with LiveView(lifetime, FAN, console, clock) as view:
        view.feed(log.event("started"))
        view.feed(log.ran("split", "plan", next=["work"] * 12))
        view.feed(log.ran("work", branch="split:0.3", status="FAILED", error=Error("ValueError", "x" * 300)))
        with console.capture() as frame:
            console.print(view._render())
    lines = Text.from_ansi(frame.get()).plain.splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for words in ("fan 1.0.0", "RUNNING", "2 steps", "split:0.7", "and 5 more branches", "ValueError"):
        assert words in text
