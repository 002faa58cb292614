"""A person at a terminal: questions are asked there, the view comes and goes, Ctrl-C stops it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, Cli, environment

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Seat:
    """A command whose stdin and stderr are a terminal; its stdout is a pipe."""

    def __init__(self, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.keyboard, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.shown = ""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stderr=theirs,
            stdout=subprocess.PIPE,
            cwd=cwd,
            env={name: value for name, value in env.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"},
            text=True,
        )
        os.close(theirs)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.keyboard], [], [], 20)
        if not ready:
            return False
        try:
            data = os.read(self.keyboard, 65_536)
        except OSError:
            return False
        self.shown += ESCAPES.sub("", data.decode(errors="replace"))
        return bool(data)

    def until(self, words: str) -> None:
        """Reads the screen until these words are on it; forgets what came before."""
        while words not in self.shown:
            assert self._read(), f"`{words}` never came:\n{self.shown}"
        self.shown = self.shown.partition(words)[2]

    def type(self, line: str) -> None:
        os.write(self.keyboard, line.encode() + b"\n")

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, and the rest of the screen."""
        while self._read():
            pass
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out, self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)


@pytest.fixture
def seat(tmp_path: Path, home: Path, approval: str) -> Iterator[Seat]:
    made = Seat(["run", approval, "--input", '"tea"', "--json"], tmp_path, environment(home))
    yield made
    made.close()


def test_a_question_is_a_form(seat: Seat) -> None:
    seat.until("approve asks")
    seat.until("May `draft 1 about tea` be published?")
    seat.until("verdict [1-2]")
    seat.type("3")
    seat.until("choose a number from 1 to 2")
    seat.type("reject")
    seat.until("note")
    seat.type("say more")
    seat.until("draft 2 about tea")
    seat.until("verdict [1-2]")
    seat.type("1")
    seat.until("note")
    seat.type("")
    code, out, screen = seat.end()
    assert code == 0
    assert json.loads(out)["status"] == "COMPLETED"
    assert "COMPLETED" in screen


def test_ctrl_c_at_a_question_leaves_it_open(seat: Seat, cli: Cli) -> None:
    seat.until("verdict [1-2]")
    seat.process.send_signal(signal.SIGINT)
    code, out, screen = seat.end()
    assert code == 130
    assert "tickwork lifetimes resume" in screen
    (question,) = cli("inbox", "--json").json
    assert question["lifetime_id"] == json.loads(out)["lifetime_id"]


def test_ctrl_d_means_later(seat: Seat) -> None:
    seat.until("verdict [1-2]")
    os.write(seat.keyboard, b"\x04")
    code, out, screen = seat.end()
    assert code == 12
    assert json.loads(out)["status"] == "WAITING"
    assert "tickwork lifetimes answer" in screen


def test_a_question_that_is_answered_elsewhere_is_taken_off_the_screen(seat: Seat, cli: Cli) -> None:
    seat.until("verdict [1-2]")
    (question,) = cli("inbox", "--json").json
    cli("lifetimes", "answer", question["lifetime_id"], '{"verdict": "accept"}')
    seat.until("This question is closed")
    code, out, _ = seat.end()
    assert code == 0
    assert json.loads(out)["status"] == "COMPLETED"
