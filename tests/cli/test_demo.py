"""`tickwork demo` with an endpoint that speaks the protocol of language models and always writes the same function."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cli.process import Cli

CODE = "def is_even(n):\n    return n % 2 == 0\n"


SOLVED = """
import re

def is_even(n):
    return n % 2 == 0

def slugify(title):
    return "-".join(re.findall("[a-z0-9]+", title.lower()))
"""


class Endpoint(BaseHTTPRequestHandler):
    """Speaks the protocol of language models, and always writes the same code."""

    code = CODE

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"```python\n{self.code}```"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = json.dumps({"choices": [{"message": message}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Able(Endpoint):
    code = SOLVED


class Away(Endpoint):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(404)


@contextlib.contextmanager
def serving(handler: type[Endpoint]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serving(Endpoint) as url:
        yield url


@pytest.fixture
def able() -> Iterator[str]:
    with serving(Able) as url:
        yield url


@pytest.fixture
def away() -> Iterator[str]:
    with serving(Away) as url:
        yield url


def test_without_a_terminal_it_takes_the_shipped_answers_and_says_so(cli: Cli, endpoint: str) -> None:
    ran = cli("demo", "--model", "planted", OPENAI_BASE_URL=endpoint, NO_PROXY="*")
    assert ran.out == CODE
    assert "Nobody is asked: the shipped answers are taken from" in ran.err
    assert "COMPLETED" in ran.err
    good = next(one for one in cli("lifetimes", "list", "--json").json if one["status"] == "COMPLETED")
    assert f"tickwork lifetimes show {good['lifetime_id'][:13]} " in ran.err
    used = cli("lifetimes", "show", good["lifetime_id"], "--json").json
    assert used["tokens_used"] >= 45


def test_an_ask_that_the_model_does_not_solve_is_ended_by_the_policy(cli: Cli, endpoint: str) -> None:
    ran = cli("demo", "--model", "planted", OPENAI_BASE_URL=endpoint, NO_PROXY="*")
    assert "Now slugify" in ran.err
    assert "policy run/loop-cap: iterations('CodeLLM" in ran.err
    assert "would be 4, over 3" in ran.err
    assert "Stopped by its policy, as it should be" in ran.err
    capped = next(one for one in cli("lifetimes", "list", "--json").json if one["status"] == "ABORTED")
    assert f"tickwork lifetimes log {capped['lifetime_id'][:13]} " in ran.err


def test_the_document_has_the_accepted_code_and_the_capped_run(cli: Cli, endpoint: str) -> None:
    ran = cli("demo", "--json", "--quiet", "--model", "planted", OPENAI_BASE_URL=endpoint, NO_PROXY="*")
    assert (ran.json["status"], ran.json["code"]) == ("COMPLETED", CODE.rstrip())
    capped = ran.json["capped"]
    assert (capped["status"], capped["policy"], capped["verdict"]["at"]) == ("ABORTED", "run/loop-cap", "dispatch")


def test_a_model_that_solves_both_asks_is_no_fault(cli: Cli, able: str) -> None:
    ran = cli("demo", "--model", "able", OPENAI_BASE_URL=able, NO_PROXY="*")
    assert "This model solved it within the cap." in ran.err


def test_a_run_that_does_not_end_well_keeps_its_exit_code(cli: Cli, away: str) -> None:
    ran = cli("demo", "--model", "able", OPENAI_BASE_URL=away, NO_PROXY="*", code=10)
    assert "404" in ran.err
    assert "Now slugify" not in ran.err


def test_an_example_that_is_not_there(cli: Cli) -> None:
    assert "`make demo`" in cli("demo", "nowhere", code=2).err
