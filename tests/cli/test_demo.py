"""`tickwork demo` with an endpoint that speaks the protocol of language models and always writes the same function."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cli.process import Cli

CODE = "def is_even(n):\n    return n % 2 == 0\n"


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"```python\n{CODE}```"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = json.dumps({"choices": [{"message": message}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_without_a_terminal_it_takes_the_shipped_answers_and_says_so(cli: Cli, endpoint: str) -> None:
    ran = cli("demo", "--model", "planted", OPENAI_BASE_URL=endpoint, NO_PROXY="*")
    assert ran.out == CODE
    assert "Nobody is asked: the shipped answers are taken from" in ran.err
    assert "COMPLETED" in ran.err
    (one,) = cli("lifetimes", "list", "--json").json
    assert f"tickwork lifetimes log {one['lifetime_id']}" in ran.err
    used = cli("lifetimes", "show", one["lifetime_id"], "--json").json
    assert used["tokens_used"] >= 45


def test_the_document_has_the_accepted_code(cli: Cli, endpoint: str) -> None:
    ran = cli("demo", "--json", "--quiet", "--model", "planted", OPENAI_BASE_URL=endpoint, NO_PROXY="*")
    assert (ran.json["status"], ran.json["code"]) == ("COMPLETED", CODE.rstrip())


def test_an_example_that_is_not_there(cli: Cli) -> None:
    assert "`make demo`" in cli("demo", "nowhere", code=2).err
