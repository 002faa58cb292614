"""The executable `tickwork`: which commands there are, and what becomes of their errors.

Commands are registered by name and imported when they are called, so `tickwork --help` costs the parser alone. A
mistake of the user ends in one message and an exit code (docs/cli.md lists them); only a fault of ours leaves a
traceback, in a file.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tickwork import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App

    from tickwork.cli.streams import StdoutLost

GROUPS = ("Start here", "Run graphs", "Look and steer")
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    (GROUPS[0], "demo", "tickwork.cli.demo:demo", "Run the reference example, a coding agent, end to end."),
    (GROUPS[0], "new", "tickwork.cli.new:new", "Make a folder with a graph that runs and a test that passes."),
    (GROUPS[0], "doctor", "tickwork.cli.doctor:doctor", "Check this machine, the home or the servers."),
    (GROUPS[1], "run", "tickwork.cli.run:run", "Run a graph: one lifetime, to its end."),
    (GROUPS[1], "serve", "tickwork.cli.serve:serve", "Carry lifetimes of all tenants, alone or among many processes."),
    (GROUPS[1], "graph", "tickwork.cli.graph:app", "Validate, show, convert and register graphs."),
    (GROUPS[2], "lifetimes", "tickwork.cli.lifetimes:app", "List, read, watch, pause, resume, abort and answer runs."),
    (GROUPS[2], "inbox", "tickwork.cli.inbox:inbox", "Open questions to people, across all lifetimes."),
    (GROUPS[2], "guardrails", "tickwork.cli.guardrails:app", "Policies: check, apply, list, show, remove, what-if."),
    (GROUPS[2], "usage", "tickwork.cli.usage:usage", "Tokens and money: what was used, how far budgets are used up."),
    (GROUPS[2], "metrics", "tickwork.cli.metrics:metrics", "What Prometheus may ask, in its text format."),
    (GROUPS[2], "dead-letters", "tickwork.cli.dead_letters:app", "What could not be handled: list, show, resend."),
    (GROUPS[2], "db", "tickwork.cli.db:app", "The state database: migrate it, or check whether it has to be."),
    (GROUPS[2], "schema", "tickwork.cli.schema:schema", "JSON Schemas of what Tickwork reads and prints."),
)
MORE = {
    "demo": "In a terminal you are asked what to write and whether you accept it; elsewhere the shipped answers are "
    "taken. The language model is a small one on this machine, or any OpenAI-compatible endpoint: set "
    "OPENAI_BASE_URL and OPENAI_API_KEY.",
    "run": "Questions to people are asked in the terminal, or answered from --answers. The result goes to stdout, "
    "progress to stderr. Ctrl-C leaves the lifetime as it is recorded; `tickwork lifetimes resume` goes on.",
}
"""What the help of a command says beyond its line in the list."""


def build_app() -> App:
    """The parser, with every command known by name only."""
    from cyclopts import App, Group

    app = App(
        name="tickwork",
        version=__version__,
        help="Run agent graphs durably: Tasks do the work, Plans decide what is next, every step is a record.",
        help_epilogue="Exit codes: 0 fine, 1 our error, 2 wrong usage, 4 findings, 10 FAILED, 11 ABORTED, 12 waits for "
        "somebody, 13 not found.",
        help_format="plaintext",  # the markdown renderer takes 50 ms to load and would render nothing
        help_flags=["--help", "-h"],
        version_flags=["--version"],
        result_action="return_value",
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=len(GROUPS))
    groups = {title: Group(title, sort_key=order) for order, title in enumerate(GROUPS)}
    for title, name, target, text in COMMANDS:
        about = f"{text}\n\n{MORE[name]}" if name in MORE else text
        app.command(target, name=name, help=about, group=groups[title])
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the executable; leaves with the command's exit code."""
    from tickwork.cli import streams

    streams.prepare()
    for name in ("TICKWORK_HOME", "TICKWORK_TENANT", "TICKWORK_PROFILE"):
        if os.environ.get(name) == "":
            del os.environ[name]  # `TICKWORK_HOME= tickwork ...` means the default, not the folder one is in
    code = call(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except streams.StdoutLost as lost:
        code = _lost(lost) or code
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code. Never raises for a mistake of the user."""
    from cyclopts import CycloptsError

    from tickwork.cli import failure
    from tickwork.cli.streams import StdoutLost
    from tickwork.errors import TickworkError

    as_json = "--json" in arguments or "--jsonl" in arguments
    try:
        try:
            outcome = build_app()(arguments, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            return failure.usage(error, as_json=as_json)
        except TickworkError as error:
            return failure.report(error, as_json=as_json)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return 130
        except StdoutLost:
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: nobody reads a traceback by accident
            return failure.crash(error, as_json=as_json, home=_home_of(arguments))
    except StdoutLost as lost:
        return _lost(lost)
    return outcome if isinstance(outcome, int) else 0


def _lost(lost: StdoutLost) -> int:
    """Stdout takes nothing any more: says so, unless its reader has left (`| head`), which is no error."""
    from tickwork.cli.streams import forget_stdout

    forget_stdout()
    if lost.left:
        return 0
    print(f"stdout cannot be written: {lost.strerror}", file=sys.stderr)
    return 1


def _home_of(arguments: Sequence[str]) -> str:
    """The home that a command line names; empty when it names none. For a crash, when nothing has parsed it."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--home":
            return following
        if word.startswith("--home="):
            return word.removeprefix("--home=")
    return ""


if __name__ == "__main__":
    main()
