"""What nobody could handle: listed, read, sent again; by this process, and through the one that holds the home."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import SystemClock
from tickwork.model import messages
from tickwork.model.lifetime import Projection, Question
from tickwork.model.messages import Append, DeadLetter, dead_letter
from tickwork.model.records import Event

BEGAN = 1_700_000_000_000_000
NOISE = b"\xc1 this was never a message " + bytes(range(200))
DEADLY = """
import os, pathlib

def draft(value, ctx):
    if not pathlib.Path(__file__).with_name("mended").exists():
        os._exit(9)
    return {"text": "it"}
"""


@pytest.fixture
def waiting(cli: Cli, approval: str) -> str:
    """The id of a lifetime that waits for an answer; nobody holds the home."""
    lifetime: str = cli("run", approval, "--input", '"tea"', "--json", code=12).json["lifetime_id"]
    return lifetime


def letter_of(value: bytes, key: str, name: str = messages.DATA_PLANE, tenant: str = "default") -> DeadLetter:
    topic, headers = messages.topic(name, tenant), {"traceparent": "00-ab"}
    return dead_letter(topic, key, value, "it could not be read then", BEGAN, headers)


def note(lifetime: str, name: str = "a-note") -> DeadLetter:
    """A message that this version can read: an event for the log."""
    event = Event(name, "signalled", {"name": "nobody-waits-for-it", "payload": None})
    return letter_of(messages.encode(Append("default", lifetime, (event,))), lifetime)


def bury(home: Path, *letters: DeadLetter, poison: Question | None = None) -> None:
    """Puts letters into the database of a home that nobody holds, under the tenant `default`."""

    async def work() -> None:
        store = SqliteStore(home / "tickwork.db", SystemClock())
        await store.start()
        for one in letters:
            one.tenant_id = "default"
        await store.bury(letters)
        if poison is not None:
            opened = Projection(questions_opened=(poison,))
            (done,) = await store.append([Append("default", poison.lifetime_id, (), opened)])
            assert done.error is None
        await store.stop()

    asyncio.run(work())


@pytest.fixture
def held(tmp_path: Path, home: Path, cli: Cli, waiting: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the home, where a message waits among the dead letters and a lifetime for an answer."""
    bury(home, note(waiting), letter_of(NOISE, waiting))
    running = subprocess.Popen(
        [*COMMAND, "lifetimes", "resume", waiting, "--wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(home),
    )
    assert running.stderr is not None
    with running:
        for line in running.stderr:
            if "event waiting" in line:
                break
        yield running
        running.kill()


def logged(cli: Cli, lifetime: str) -> list[str]:
    log = cli("lifetimes", "log", lifetime, "--json").json
    return [record.get("name", "") for record in log if record.get("type") == "signalled" or "signalled" in str(record)]


def test_there_is_nothing_to_begin_with(cli: Cli, home: Path) -> None:
    assert "Nothing waits here." in cli("dead-letters", "list").err
    assert cli("dead-letters", "list", "--json").json == []
    assert not home.exists(), "looking makes no home"
    assert cli("dead-letters", "resend", "--all", code=13).out == ""


def test_list_and_show(cli: Cli, home: Path, waiting: str) -> None:
    poison = Question(
        tenant_id="default",
        lifetime_id=waiting,
        exec_id="feedfacefeedfacefeedface",
        node="draft",
        branch="",
        on="poison",
        since=BEGAN - 9,
        prompt="5 workers were lost at it",
        graph_name="approval",
    )
    noise, readable = letter_of(NOISE, "no-lifetime"), note(waiting)
    bury(home, noise, readable, poison=poison)
    found = cli("dead-letters", "list", "--json").json
    assert found == cli("dead-letters", "list", "--jsonl").lines
    assert [item["id"] for item in found] == [poison.exec_id, *sorted((noise.letter_id, readable.letter_id))]
    assert found[0]["what"] == "execution of draft"
    assert (found[0]["lifetime_id"], found[0]["reason"]) == (waiting, "5 workers were lost at it")
    assert found[1]["what"] == "message on data-plane.default"
    table = cli("dead-letters", "list").out
    assert all(word in table for word in (noise.letter_id, "execution of draft", "it could not be read then", waiting))
    assert cli("dead-letters", "list", "--tenant", "umbrella", "--json").json == []

    shown = cli("dead-letters", "show", readable.letter_id[:12], "--json").json
    assert (shown["unreadable"], shown["headers"]) == (None, {"traceparent": "00-ab"})
    assert shown["message"]["lifetime_id"] == waiting
    assert "a-note" in cli("dead-letters", "show", readable.letter_id).out
    shown = cli("dead-letters", "show", noise.letter_id, "--json").json
    assert "cannot be decoded" in shown["unreadable"]
    assert shown["message"].startswith(NOISE[:4].hex(" "))
    assert shown["bytes"] == len(NOISE)
    assert cli("dead-letters", "show", "feedface", "--json").json["graph"] == "approval"


def test_a_name_that_fits_nothing_or_too_much(cli: Cli, home: Path, waiting: str) -> None:
    letters = [note(waiting, f"note-{n}") for n in range(40)]
    bury(home, *letters)
    first = sorted(one.letter_id for one in letters)
    shared = next(a[0] for a, b in pairwise(first) if a[0] == b[0])
    assert "give more of the id" in cli("dead-letters", "show", shared, code=2).err
    assert "dead-letters list" in cli("dead-letters", "resend", "zzz", code=13).err
    assert cli("dead-letters", "show", "\ue000", code=13).out == cli("dead-letters", "show", "%", code=13).out == ""
    assert "resend --all" in cli("dead-letters", "resend", code=2).err
    assert "resend --all" in cli("dead-letters", "resend", first[0], "--all", code=2).err


def test_what_can_be_read_now_is_handled_here(cli: Cli, home: Path, waiting: str) -> None:
    """After an upgrade: the message that the version before could not read takes its place in the log."""
    bury(home, note(waiting))
    done = cli("dead-letters", "resend", note(waiting).letter_id)
    assert "was sent again" in done.err
    assert f"lifetimes resume {waiting}" in done.err
    assert len(logged(cli, waiting)) == 1
    assert cli("dead-letters", "list", "--json").json == []
    assert cli("lifetimes", "show", waiting, "--json").json["status"] == "WAITING"


def test_what_nobody_can_read_stays(cli: Cli, home: Path, waiting: str) -> None:
    noise = letter_of(NOISE, waiting)
    bury(home, noise, letter_of(NOISE, waiting, "topics-of-tomorrow"))
    refused = cli("dead-letters", "resend", noise.letter_id, "--json", code=1)
    assert refused.json["error"]["code"] == "conflict"
    assert "would only come back" in refused.err
    assert "--force" in refused.err
    forced = cli("dead-letters", "resend", noise.letter_id, "--force", code=1)
    assert "came back: it cannot be decoded" in forced.err
    both = cli("dead-letters", "resend", "--all", "--json", code=1).json
    assert (both["resent"], len(both["refused"])) == ([], 2)
    assert len(cli("dead-letters", "list", "--json").json) == 2


def test_what_the_store_refuses_comes_back(cli: Cli, home: Path, waiting: str) -> None:
    stranger = note("01a20243-0000-7000-8000-000000000000")
    bury(home, stranger, note(waiting))
    done = cli("dead-letters", "resend", "--all", "--json", code=1)
    back = {one["id"]: one["back"] for one in done.json["resent"]}
    assert back[note(waiting).letter_id] is None
    assert "has no lifetime" in back[stranger.letter_id]
    (left,) = cli("dead-letters", "list", "--json").json
    assert left["id"] == stranger.letter_id
    assert "has no lifetime" in left["reason"]


def test_no_message_goes_to_another_tenant(cli: Cli, home: Path, waiting: str) -> None:
    """A letter's topic comes from the message that was buried: it is only a word."""
    foreign = letter_of(note(waiting).value, waiting, tenant="umbrella")
    bury(home, foreign)
    refused = cli("dead-letters", "resend", foreign.letter_id, "--force", code=1)
    assert "no topic of tenant `default`" in refused.err
    assert len(cli("dead-letters", "list", "--json").json) == 1


def test_the_process_that_holds_the_home_sends_it(cli: Cli, held: subprocess.Popen[str]) -> None:
    (lifetime,) = [one["lifetime_id"] for one in cli("lifetimes", "list", "--json").json]
    done = cli("dead-letters", "resend", note(lifetime).letter_id)
    assert f"process {held.pid} goes on with it" in done.err
    assert len(logged(cli, lifetime)) == 1
    (noise,) = cli("dead-letters", "list", "--json").json
    assert "would only come back" in cli("dead-letters", "resend", noise["id"], code=1).err
    assert "came back" in cli("dead-letters", "resend", "--all", "--force", code=1).err
    assert len(cli("dead-letters", "list", "--json").json) == 1
    assert held.poll() is None
    cli("lifetimes", "answer", lifetime, '{"verdict": "accept"}')
    assert held.wait(30) == 0


@pytest.mark.slow
def test_what_its_workers_died_of_runs_once_more(cli: Cli, approval: str) -> None:
    """A node that ends its process is parked after some times, and goes on once a person has mended it."""
    code = Path(approval).with_name("steps.py")
    code.write_text(code.read_text().replace("def draft", "def harmless_draft") + DEADLY)
    died = cli("run", approval, "--quiet", code=9)
    lifetime = cli("lifetimes", "list", "--json").json[0]["lifetime_id"]
    for _ in range(10):
        died = cli("lifetimes", "resume", lifetime, "--json", code=None)
        if died.code != 9:
            break
    assert died.code == 12, "after some losses it is parked, and nobody dies of it any more"
    (parked,) = cli("dead-letters", "list", "--json").json
    assert (parked["kind"], parked["node"], parked["lifetime_id"]) == ("execution", "draft", lifetime)
    assert "lost with its worker" in parked["reason"]
    code.with_name("mended").touch()
    done = cli("dead-letters", "resend", parked["id"][:10])
    assert "runs once more" in done.err
    assert cli("dead-letters", "list", "--json").json == []
    gone_on = cli("lifetimes", "resume", lifetime, "--json", code=12)
    assert gone_on.json["reason"] == "waits for an answer to `approve`"
