"""Carries one lifetime to its end in this process: shows its progress, answers its questions, says how it ended.

`run`, `demo`, `lifetimes resume` and `lifetimes answer` all end up here. Whatever stops it (Ctrl-C, a question that
nobody answers, a crash) leaves the lifetime as the log has it; `tickwork lifetimes resume` goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from tickwork.cli import output, trouble
from tickwork.cli.answers import Answers, NoAnswer
from tickwork.cli.asking import Form, Keyboard, interactive
from tickwork.cli.progress import Progress, breach_place, open_progress
from tickwork.cli.standing import open_children
from tickwork.cli.streams import authors_turn
from tickwork.cli.trouble import WORD, is_trouble
from tickwork.errors import AlreadyEnded, AnswerRefused
from tickwork.model.contract import usd
from tickwork.model.records import Event, Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tickwork.breach import Breach
    from tickwork.cli.options import Place
    from tickwork.cli.tally import Tally
    from tickwork.model.graph import AgentGraph
    from tickwork.model.lifetime import Lifetime, LifetimeStatus, Question
    from tickwork.outcome import Outcome
    from tickwork.service import Service

REASONED = ("PAUSED", "FAILED", "ABORTED")
"""States that a reason belongs to. A lifetime that was paused and went on keeps the pause's reason in its row."""
EXIT_BY_STATUS = {"COMPLETED": 0, "FAILED": 10, "ABORTED": 11, "PAUSED": 12, "WAITING": 12, "RUNNING": 12}
"""RUNNING is how a lifetime stands that only waits for its children, which wait for somebody."""
INTERRUPTED = 130
LAG = 5.0
"""Seconds for which the view may be behind what is recorded."""

MOMENT = 0.2
"""Seconds that a pause may take before it is worth a word."""


def document(outcome: Outcome) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "lifetime_id": outcome.lifetime_id,
        "status": outcome.status,
        "reason": outcome.reason,
        "result": outcome.result,
        "executions": outcome.executions,
        "tokens_used": outcome.tokens_used,
        "cost_usd": usd(int(outcome.cost_usd * 1_000_000_000)),
        "duration_ms": outcome.duration_ms,
        **stopped_json(outcome.breach),
    }


def stopped_json(breach: Breach | None) -> dict[str, Any]:
    """What a policy stopped it over, for machines; nothing when none did."""
    if breach is None:
        return {}
    return {"policy": breach.policy, "verdict": breach.verdict, "raise": list(breach.higher)}


@dataclass
class Carry:
    """How to carry a lifetime, and what is known about it so far (also when it is interrupted)."""

    answers: Answers | None = None
    wait: bool = False
    quiet: bool = False
    by: str = ""
    """Whose answers these are; empty: the person at this machine."""
    elsewhere: bool = False
    """Another process runs it: here it is only shown."""
    lifetime: Lifetime | None = None
    tally: Tally | None = None
    missing: str = ""
    """Why the answers file did not help, once it did not."""
    _answered: set[str] = field(default_factory=set)
    _opened: asyncio.Event = field(default_factory=asyncio.Event)
    _fresh: asyncio.Event = field(default_factory=asyncio.Event)
    _fed: int = 0
    """The last entry that the view shows."""
    _asking: tuple[str, asyncio.Event] | None = None
    _form: Form | None = None
    _pausing_said: bool = False

    async def to_the_end(self, service: Service, lifetime: Lifetime, graph: AgentGraph | None) -> Outcome:
        """Returns when the lifetime has ended, is paused, or waits for somebody who is not here."""
        from tickwork.clock import SystemClock

        self.lifetime = lifetime
        if interactive() and not self.elsewhere:
            self._form = Form(output.err(), Keyboard())
        async with open_progress(lifetime, graph, output.err(), SystemClock(), quiet=self.quiet) as view:
            self.tally = view.tally
            following = asyncio.create_task(self._follow(service, view))
            try:
                last = await self._settle(service, view, following)
                if last.ended:
                    await following
                else:
                    await self._show(last.last_seq, following)
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
        self.lifetime = last
        outcome = await service.result(last.lifetime_id, tenant=last.tenant_id)
        outcome.reason = reason_of(outcome.status, outcome.reason) or self._why_it_stands(outcome.status)
        if outcome.status == "RUNNING":
            children = await open_children(service, last)
            outcome.reason = "waits for " + ", ".join(f"lifetime {one.lifetime_id} ({one.status})" for one in children)
        return outcome

    async def _follow(self, service: Service, view: Progress) -> None:
        lifetime = self._subject
        async for entry in service.watch(lifetime.lifetime_id, tenant=lifetime.tenant_id, after=0):
            view.feed(entry)
            self._fed = entry.seq
            self._fresh.set()
            item = entry.entry
            if isinstance(item, Execution):
                if self._asking is not None and self._asking[0] == item.exec_id:
                    self._asking[1].set()
            elif _asks(item):
                if self.answers is not None:
                    self.answers.see(entry)
                self._opened.set()
            elif item.type == "paused":
                self._opened.set()
            if view.tally.ended:
                return

    async def _show(self, seq: int, following: asyncio.Task[None]) -> None:
        """Lets the view come as far as this entry: where other processes record, it hears of it a moment later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAG):
                while self._fed < seq and not following.done():
                    self._fresh.clear()
                    await self._fresh.wait()

    async def _settle(self, service: Service, view: Progress, following: asyncio.Task[None]) -> Lifetime:
        """Answers what is asked until nothing is left to do here.

        Only the Service says that a lifetime has settled: one that is PAUSED may still have work in flight here.
        """
        stuck = False
        while True:
            last, settled = await self._next_turn(service, "ended" if stuck else "settled", following)
            if last.ended:
                return last
            answered = 0
            if last.status != "PAUSED" and not self.elsewhere:
                for question in await service.questions(tenant=last.tenant_id, lifetime_id=last.lifetime_id):
                    answered += await self._answer(service, question, view)
            if answered:
                stuck = False
            elif settled:
                if not self.wait:
                    return last
                stuck = True  # somebody else has to move it; a new question wakes this loop again

    @property
    def _subject(self) -> Lifetime:
        if self.lifetime is None:
            raise RuntimeError("no lifetime is carried")
        return self.lifetime

    async def _next_turn(self, service: Service, until: str, following: asyncio.Task[None]) -> tuple[Lifetime, bool]:
        """Waits until the lifetime settles (then True), opens a question, or is being paused."""
        lifetime = self._subject
        settled = asyncio.ensure_future(service.wait(lifetime.lifetime_id, tenant=lifetime.tenant_id, until=until))
        opened = asyncio.ensure_future(self._opened.wait())
        waiting: set[asyncio.Future[Any]] = {settled, opened}
        if not following.done():
            waiting.add(following)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            last = await service.get(lifetime.lifetime_id, tenant=lifetime.tenant_id)
            if last.status == "PAUSED":
                await asyncio.wait({settled}, timeout=MOMENT)
                self._say_pausing(settled.done() or until == "ended")
        finally:
            opened.cancel()
            if not settled.done():
                settled.cancel()
        if following.done():
            following.result()  # a view that cannot read the log any more ends the command with that error
        self._opened.clear()
        if settled.done() and not settled.cancelled():
            return settled.result(), True
        return last, False

    def _say_pausing(self, settled: bool) -> None:
        if not settled and not self._pausing_said:
            self._pausing_said = True
            output.say("pausing: waiting for what is in flight", "yellow")

    async def _answer(self, service: Service, question: Question, view: Progress) -> bool:
        """Answers one question from the file or by asking; whether it is answered now."""
        if question.exec_id in self._answered:
            return True
        if self.answers is not None:
            try:
                payload = self.answers.answer(question)
            except NoAnswer as error:
                self.missing = str(error)
            else:
                return await self._answer_from_file(service, question, payload)
        if self._form is None:
            return False
        with view.hidden():
            return await self._answer_by_asking(service, question, self._form)

    async def _answer_from_file(self, service: Service, question: Question, payload: Any) -> bool:
        source = self.answers.source if self.answers is not None else ""
        by = self.by or user()
        try:
            await self._give(service, question, payload, by=by)
        except AnswerRefused as error:
            mend = "mend the file, then"
            if question.who and by not in question.who:
                mend = f"say whose answers they are (--by {question.who[0]})"
            raise AnswerRefused(
                f"{source}: the answer for `{question.node}` is refused: {error}\n"
                f"    The lifetime waits; {mend}: tickwork lifetimes resume {question.lifetime_id} --answers {source}"
                + (f" --by {question.who[0]}" if mend.startswith("say") else "")
            ) from None
        return True

    async def _answer_by_asking(self, service: Service, question: Question, form: Form) -> bool:
        refused = ""
        while True:
            elsewhere = asyncio.Event()
            self._asking = (question.exec_id, elsewhere)
            asking = asyncio.ensure_future(form.ask(question, refused=refused))
            closed = asyncio.ensure_future(elsewhere.wait())
            try:
                await asyncio.wait({asking, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    output.say("\n  This question is closed: it was answered elsewhere, or its deadline has passed.")
                    return True
                payload = asking.result()
            except EOFError:
                self._form = None
                return False
            finally:
                self._asking = None
                asking.cancel()
                closed.cancel()
            try:
                await self._give(service, question, payload, by=self.by or user())
            except AnswerRefused as error:
                if question.who and (self.by or user()) not in question.who:
                    output.say(f"  {error}", "red")
                    self._form = None
                    return False
                refused = str(error)
            else:
                return True

    async def _give(self, service: Service, question: Question, payload: Any, *, by: str) -> None:
        with contextlib.suppress(AlreadyEnded):
            await service.answer(
                question.lifetime_id, payload, tenant=question.tenant_id, exec_id=question.exec_id, by=by
            )
        self._answered.add(question.exec_id)

    def so_far(self) -> Outcome:
        """Where the lifetime stands by what was seen of its log."""
        from decimal import Decimal

        from tickwork.clock import SystemClock
        from tickwork.outcome import Outcome

        last, tally = self._subject, self.tally
        ended = tally is not None and tally.ended
        return Outcome(
            lifetime_id=last.lifetime_id,
            status=cast("LifetimeStatus", tally.standing) if tally else last.status,
            reason=(tally.reason if tally and ended else last.reason) or None,
            result=None,
            executions=tally.executions if tally else 0,
            tokens_used=tally.tokens if tally else 0,
            cost_usd=Decimal(tally.cost_nano_usd if tally else 0).scaleb(-9).normalize(),
            duration_ms=(SystemClock().now() - last.created_at) / 1_000,
        )

    def _why_it_stands(self, status: str) -> str | None:
        """Why a lifetime that has not ended does not go on."""
        if self.tally is None:
            return None
        if status == "PAUSED":
            return self.tally.reason or None
        awaited = [_awaited(data) for data in self.tally.waiting.values()]
        return "waits for " + ", ".join(awaited) if awaited else None


def reason_of(status: str, reason: str | None) -> str | None:
    """The reason that a lifetime's row shows, when it belongs to this state."""
    return reason if status in REASONED else None


def user() -> str:
    """The name of the person at this machine, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _awaited(data: dict[str, Any]) -> str:
    on, node = data.get("on"), data.get("node")
    if on == "signal":
        return f"signal `{data.get('name')}`"
    if is_trouble(on):
        return f"somebody to settle `{node}` ({WORD[str(on)]})"
    return f"an answer to `{node}`"


def _asks(event: Event) -> bool:
    return event.type == "waiting" and event.data.get("on") == "human"


def conduct(
    work: Coroutine[Any, Any, Outcome],
    carry: Carry,
    place: Place,
    *,
    json: bool,
    on_completed: Callable[[Outcome], None] | None = None,
) -> int:
    """Runs `work` on a loop, prints how it ended (a COMPLETED one as `on_completed` likes), returns the exit code."""
    try:
        with authors_turn():
            outcome = asyncio.run(work)
    except KeyboardInterrupt:
        return interrupted(carry, place, json=json)
    if on_completed is not None and outcome.status == "COMPLETED":
        on_completed(outcome)
        return 0
    return finish(outcome, carry, place, json=json)


def finish(outcome: Outcome, carry: Carry, place: Place, *, json: bool) -> int:
    """Prints the ending: the result on stdout, the rest on stderr."""
    if outcome.status == "COMPLETED":
        outcome.reason = None  # of a pause that is over
    if json:
        output.emit_json(document(outcome))
    elif outcome.status == "COMPLETED":
        output.emit_value(outcome.result)
    if not carry.quiet or outcome.status != "COMPLETED":
        output.err().print(summary(outcome), soft_wrap=not output.err().is_terminal)
        for line in next_steps(outcome, carry, place):
            output.say(line)
    return EXIT_BY_STATUS.get(outcome.status, 1)


def interrupted(carry: Carry, place: Place, *, json: bool) -> int:
    """Ctrl-C: the lifetime stays where it is; says how to go on."""
    if carry.lifetime is None:
        output.say("Stopped before a lifetime was started.")
        return INTERRUPTED
    if json:
        output.emit_json(document(carry.so_far()))
    one = carry.lifetime.lifetime_id
    if place.profile == "cloud":
        output.say(f"Stopped looking. Lifetime {one} goes on where it is served.", "yellow")
        output.say(f"    Look:   tickwork lifetimes watch {one}{flags(place)}")
    else:
        output.say(f"Stopped. Lifetime {one} stays as it is recorded; nothing is lost.", "yellow")
        output.say(f"    Go on:  tickwork lifetimes resume {one}{flags(place)}")
    output.say(f"    End it: tickwork lifetimes abort {one} --reason WHY{flags(place)}")
    return INTERRUPTED


def summary(outcome: Outcome) -> Any:
    """One line: status, lifetime, executions, tokens, cost, time."""
    from rich.text import Text

    line = Text(outcome.status, style=f"bold {output.STATUS_STYLE.get(outcome.status, '')}")
    facts = [
        outcome.lifetime_id,
        output.count(outcome.executions, "execution"),
        f"{outcome.tokens_used:,} tokens",
        output.money(int(outcome.cost_usd * 1_000_000_000)),
        output.milliseconds(outcome.duration_ms),
    ]
    line.append("  " + " · ".join(facts), style="not bold")
    if outcome.reason:
        where = breach_place(outcome.breach.verdict) if outcome.breach is not None else ""
        line.append(f"\n    {outcome.reason}{where}", style="not bold")
    return line


def next_steps(outcome: Outcome, carry: Carry, place: Place) -> list[str]:
    """What the person can do next, as commands that can be copied."""
    one, where = outcome.lifetime_id, flags(place)
    if place.profile == "test":
        return [f"    {carry.missing}"] if carry.missing else []
    if outcome.status in ("FAILED", "ABORTED"):
        look = f"    Look:   tickwork lifetimes log {one}{where}"
        if outcome.breach is None:
            return [look]
        return [look, f"    To allow more, change the policy {outcome.breach.policy} and start anew."]
    if outcome.status == "PAUSED":
        return [f"    Go on:  tickwork lifetimes resume {one}{raising(outcome.breach)}{where}"]
    if outcome.status != "WAITING":
        return []
    lines = [f"    {carry.missing}."] if carry.missing else []
    answers = by = ""
    for data in carry.tally.waiting.values() if carry.tally else ():
        if data.get("on") == "signal":
            lines.append(f"    Signal: tickwork lifetimes signal {one} {data.get('name')} --payload JSON{where}")
        elif is_trouble(data.get("on")):
            settled = [f"      {line}" for line in trouble.commands(one, str(data.get("exec_id")), where)]
            lines += [f"    {trouble.heading(data.get('node'), data.get('on'))}; say what became of it:", *settled]
        else:
            lines.append(f"    {data.get('node')} asks: {output.one_line(data.get('prompt') or '', 100)}")
            who = f" --by {data['who'][0]}" if data.get("who") else ""
            lines.append(f"    Answer: tickwork lifetimes answer {one} ANSWER --node {data.get('node')}{who}{where}")
            answers = " --answers FILE"
            by = by or who
    return [*lines, f"    Go on:  tickwork lifetimes resume {one}{answers}{by}{where}"]


def raising(breach: Breach | None) -> str:
    """The options of a `resume` that a lifetime needs to go on, when limits have paused it."""
    return "".join(f" --raise {limit}" for limit in breach.higher) if breach is not None else ""


def flags(place: Place) -> str:
    """The options that a copied command needs to find the same home and tenant."""
    import os
    from pathlib import Path

    from tickwork.model.ids import DEFAULT_TENANT

    words = ""
    if place.profile != (os.environ.get("TICKWORK_PROFILE") or "local"):
        words += f" --profile {place.profile}"
    if place.profile == "local" and place.home != Path(os.environ.get("TICKWORK_HOME") or ".tickwork"):
        words += f" --home {place.home}"
    if place.tenant != (os.environ.get("TICKWORK_TENANT") or DEFAULT_TENANT):
        words += f" --tenant {place.tenant}"
    return words
