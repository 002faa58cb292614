"""Shows a lifetime while it runs, on stderr: a live view in a terminal, one line per entry anywhere else.

Both are fed by the log and only read it. The live view is drawn a few times a second, however fast the log grows;
plain lines are thinned out when the log outruns what anybody reads, and say how many were left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tickwork.cli import output
from tickwork.cli.tally import Lane, Tally
from tickwork.model.records import Event, Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime
    from tickwork.model.records import LogEntry
    from tickwork.ports import Clock

FRAME = 0.125
"""Seconds between two frames of the live view."""
LANES = 8
LINES_AT_ONCE, LINES_PER_SECOND = 200, 40


class Progress(Protocol):
    """A view of one lifetime, open while it is entered."""

    tally: Tally

    async def __aenter__(self) -> Self:
        """Starts showing."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Shows the last state and lets go of the terminal."""
        ...

    def feed(self, entry: LogEntry) -> None:
        """Adds one entry."""
        ...

    def hidden(self) -> contextlib.AbstractContextManager[None]:
        """Steps aside while somebody else uses the terminal."""
        ...


def open_progress(
    lifetime: Lifetime, graph: AgentGraph | None, console: Console, clock: Clock, *, quiet: bool = False
) -> Progress:
    """The view that fits: live in a terminal, lines elsewhere, nothing when `quiet`."""
    if quiet:
        return Silent(graph)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(lifetime, graph, console, clock)
    return PlainLines(graph, console)


class Silent:
    """Shows nothing, and still adds up."""

    def __init__(self, graph: AgentGraph | None = None) -> None:
        self.tally = Tally(graph)

    async def __aenter__(self) -> Self:
        """Nothing to start."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to end."""

    def feed(self, entry: LogEntry) -> None:
        """Adds one entry."""
        self.tally.feed(entry)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Nothing to hide."""
        yield


class PlainLines(Silent):
    """One line per entry, for pipes, files and CI."""

    def __init__(self, graph: AgentGraph | None, console: Console) -> None:
        super().__init__(graph)
        self._console = console
        self._allowance: float = LINES_AT_ONCE
        self._last_at = 0
        self._left_out = 0

    async def __aexit__(self, *_: object) -> None:
        """Says what was left out last."""
        self._say_what_was_left_out()

    def feed(self, entry: LogEntry) -> None:
        """Adds one entry and prints its line, unless the log is faster than anybody reads."""
        self.tally.feed(entry)
        passed = max(0, entry.at - self._last_at) / 1_000_000 if self._last_at else 0.0
        self._last_at = entry.at
        self._allowance = min(LINES_AT_ONCE, self._allowance + passed * LINES_PER_SECOND)
        if self._allowance < 1 and isinstance(entry.entry, Execution):
            self._left_out += 1
            return
        self._allowance -= 1
        self._say_what_was_left_out()
        print(plain_line(entry), file=self._console.file, flush=True)

    def _say_what_was_left_out(self) -> None:
        if self._left_out:
            print(f"... {output.count(self._left_out, 'line')} left out; the log has them all", file=self._console.file)
            self._left_out = 0


def plain_line(entry: LogEntry) -> str:
    """`07:31:02.114  task  fetch  PlanRefine:0.0  #2  SUCCEEDED  812 ms  143 tok`; events in the same columns."""
    item = entry.entry
    at = output.clock_time(entry.at)
    if isinstance(item, Event):
        return f"{at}  event {item.type:<16} {event_text(item)}".rstrip()
    words = [
        at,
        f"{item.kind:<5} {item.name}",
        item.branch or "-",
        f"#{item.iteration + 1}" + (f" try {item.attempt}" if item.attempt > 1 else ""),
        item.status,
        output.took(item),
    ]
    used = item.telemetry
    if used is not None and used.tokens_used:
        words.append(f"{used.tokens_used:,} tok")
    if used is not None and used.cost_nano_usd:
        words.append(output.money(used.cost_nano_usd))
    words.append(outcome_text(item))
    return "  ".join(word for word in words if word)


def outcome_text(item: Execution, limit: int = 100) -> str:
    """What came of it, in a few words: the error, or where a Plan goes."""
    if item.error is not None:
        return output.one_line(f"{item.error.type}: {item.error.message}", limit)
    if item.next is not None:
        names = [one.task for one in item.next]
        text = f"{names[0]} x {len(names)}" if len(names) > 1 and len(set(names)) == 1 else ", ".join(names)
        return output.one_line(f"→ {text or '(nothing)'}", limit)
    return ""


def event_text(event: Event, limit: int = 100, nodes: Mapping[str, str] | None = None) -> str:
    """What an event says, in a few words. `nodes`: the nodes of executions, by exec id, as far as they are known."""
    data = event.data
    if event.type == "waiting":
        asked = f"signal {data.get('name', '')}" if data.get("on") == "signal" else str(data.get("prompt") or "")
        return output.one_line(f"{data.get('node', '')}: {asked}", limit)
    if event.type in ("timer_set", "timer_fired"):
        return output.one_line(f"{data.get('purpose', '')} {data.get('timer_id', '')}".strip(), limit)
    if event.type == "signalled":
        return str(data.get("name", ""))
    said = _IN_WORDS.get(event.type, _why_and_who)(data)
    exec_id = str(data.get("exec_id"))
    whose = f"{(nodes or {}).get(exec_id, exec_id)}: " if event.type in _OF_ONE else ""
    return output.one_line(whose + said, limit)


def _why_and_who(data: dict[str, Any]) -> str:
    by = f"by {data['by']}" if data.get("by") else ""
    return " ".join(part for part in (str(data.get("reason") or ""), by) if part)


def _intent(data: dict[str, Any]) -> str:
    return f"{data['worker']} is about to call it" if data.get("worker") else "nobody may call it any more"


def _reconciled(data: dict[str, Any]) -> str:
    what = "it is run again" if data.get("action") == "retry" else "a person has to say what happened"
    told = ", ".join(str(part) for part in (data.get("reason"), data.get("by") and f"by {data['by']}") if part)
    return f"{what} ({told})" if told else what


def _superseded(data: dict[str, Any]) -> str:
    late = msgspec.convert(data["execution"], Execution)
    what = late.status if late.error is None else f"{late.status} {late.error.type}"
    return f"{what} came too late (attempt {late.attempt}); it is kept and applied to nothing"


def _forked(data: dict[str, Any]) -> str:
    other = ", with another result there" if data.get("replaced") else ""
    return (
        f"shares lifetime {data.get('lifetime_id')} up to entry {data.get('seq')}{other} {_why_and_who(data)}".strip()
    )


def _verdict(data: dict[str, Any]) -> str:
    shadow = " (shadow)" if data.get("shadow") else ""
    return f"{data.get('policy')} → {data.get('action')}{shadow}: {data.get('reason')}{breach_place(data)}"


def breach_place(data: dict[str, Any]) -> str:
    """Where a verdict was given, as the end of a sentence."""
    if not data.get("node"):
        return ""
    return f", before `{data['node']}` ran" if data.get("at") == "dispatch" else f", with what `{data['node']}` did"


def _resumed(data: dict[str, Any]) -> str:
    raised = [f"{policy} raised to {Decimal(number):,}" for policy, number in (data.get("raised") or {}).items()]
    return ", ".join(part for part in (_why_and_who(data), *raised) if part)


def _policies(data: dict[str, Any]) -> str:
    digest = str(data.get("digest") or "")
    return f"in force: {digest[:19]}…" if digest else "none in force any more"


_IN_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "verdict": _verdict,
    "resumed": _resumed,
    "policies": _policies,
    "intent": _intent,
    "unknown": lambda data: f"nobody knows whether it happened ({data.get('reason')})",
    "reconciled": _reconciled,
    "superseded": _superseded,
    "forked": _forked,
}
_OF_ONE = ("intent", "unknown", "reconciled", "superseded")
"""Events about one execution."""


class LiveView:
    """The terminal's view: a heading, one lane per branch, the last executions."""

    def __init__(self, lifetime: Lifetime, graph: AgentGraph | None, console: Console, clock: Clock) -> None:
        self.tally = Tally(graph)
        self._lifetime = lifetime
        self._clock = clock
        self._console = console
        self._frame = 0
        self._drawing: asyncio.Task[None] | None = None
        self._live = self._on_screen()

    async def __aenter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        self._drawing = asyncio.create_task(self._draw())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Takes the view away; what stays on the screen is the summary that the command prints."""
        if self._drawing is not None:
            self._drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._drawing
        self._live.stop()

    def feed(self, entry: LogEntry) -> None:
        """Adds one entry; the next frame shows it."""
        self.tally.feed(entry)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Takes the view off the screen while a question is asked there."""
        self._live.stop()
        try:
            yield
        finally:
            self._live = self._on_screen()  # a view that stopped still believes that its lines are on the screen
            self._live.start()

    def _on_screen(self) -> Live:
        from rich.live import Live

        return Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self._render)

    async def _draw(self) -> None:
        while True:
            if self._live.is_started:
                self._frame += 1
                self._live.refresh()
            await self._clock.sleep(FRAME)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        now = self._clock.now()
        lines = [
            *heading(self.tally, self._lifetime, now),
            *lane_lines(self.tally, now, self._frame, self._console.width),
        ]
        if self.tally.recent:
            lines += [Text(), *recent_lines(self.tally)]
        return Group(*lines)


def heading(tally: Tally, lifetime: Lifetime, now: int) -> list[Text]:
    """Two lines: graph, lifetime and status; time, steps, tokens and cost."""
    from rich.text import Text

    until = tally.last_at if tally.ended else now
    facts = (
        output.span(until - lifetime.created_at),
        output.count(tally.executions, "step"),
        f"{tally.tokens:,} tok",
        output.money(tally.cost_nano_usd),
    )
    style = f"bold {output.STATUS_STYLE.get(tally.standing, '')}"
    title = Text.assemble(
        (f"{lifetime.graph_name} {lifetime.graph_version}", "bold"),
        (f"  {lifetime.lifetime_id[:13]}  ", "dim"),
        (tally.standing, style),
        no_wrap=True,
        overflow="ellipsis",
    )
    return [title, Text(" " + " · ".join(facts), no_wrap=True, overflow="ellipsis")]


SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def lane_lines(tally: Tally, now: int, frame: int, width: int) -> list[Text]:
    """One line per branch: what ran in it last, and what is at work now; the busiest eight."""
    from rich.text import Text

    lanes = sorted(tally.lanes.values(), key=_place)
    if len(lanes) > LANES:
        newest = sorted(lanes, key=lambda lane: (bool(lane.at_work), lane.since), reverse=True)[:LANES]
        lanes = sorted(newest, key=_place)
    made = []
    for lane in lanes:
        depth = lane.branch.count("/") + 1 if lane.branch else 0
        label = f" {'  ' * max(0, depth - 1)}{'└ ' if depth else ''}{lane.branch.rpartition('/')[2] or 'main'}"
        line = Text(f"{label:<20} ", style="dim", no_wrap=True, overflow="ellipsis")
        steps = Text(style="not dim")
        if lane.at_work:
            mark = "?" if lane.waits else SPINNER[frame % len(SPINNER)]
            steps.append(f"{mark} {lane.at_work}", style="yellow" if lane.waits else "cyan")
            steps.append(f" {output.span(max(0, now - lane.since))}", style="dim")
        room = width - max(len(label), 20) - 2
        for item in reversed(lane.trail):
            piece = _step(item)
            if steps.cell_len + piece.cell_len > max(room, 30):
                break
            steps = piece + Text(" ─ ", style="dim") + steps if steps.plain else piece
        made.append(line + steps)
    hidden = len(tally.lanes) - len(lanes)
    if hidden > 0:
        made.append(Text(f" … and {hidden} more branches", style="dim"))
    return made


def _place(lane: Lane) -> list[tuple[str, int]]:
    """Where a branch stands among the others: `PlanRefine:0.10` comes after `PlanRefine:0.9`."""
    parts = [part.rpartition(".") for part in lane.branch.split("/")] if lane.branch else []
    return [(group, int(index)) if index.isdecimal() else (group, 0) for group, _, index in parts]


def _step(item: Execution) -> Text:
    from rich.text import Text

    piece = Text(style="not dim")
    piece.append(output.KIND_GLYPH[item.kind], style="magenta" if item.kind == "plan" else "blue")
    piece.append(f" {item.name}")
    if item.status != "SUCCEEDED":
        piece.append(f" {output.STATUS_GLYPH[item.status]}", style=output.STATUS_STYLE[item.status])
    return piece


def recent_lines(tally: Tally) -> list[Text]:
    """The last executions, newest last, in columns; what does not fit is cut at the right."""
    from rich.text import Text

    rows = [_recent_row(item) for _, item in tally.recent]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    made = []
    for row, (_, item) in zip(rows, tally.recent, strict=True):
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f" {output.STATUS_GLYPH[item.status]} ", style=output.STATUS_STYLE[item.status])
        line.append(f" {row[0]:<{widths[0]}}")
        line.append(f"  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}", style="dim")
        line.append(f"  {row[3]:>{widths[3]}}")
        line.append(f"  {row[4]:>{widths[4]}}  ", style="dim")
        line.append(outcome_text(item, 60), style="red" if item.error else "dim")
        made.append(line)
    return made


def _recent_row(item: Execution) -> tuple[str, str, str, str, str]:
    used = item.telemetry
    return (
        item.name,
        item.branch.rpartition("/")[2],
        f"#{item.iteration + 1}" + (f" try {item.attempt}" if item.attempt > 1 else ""),
        output.took(item),
        f"{used.tokens_used:,} tok" if used is not None and used.tokens_used else "",
    )
