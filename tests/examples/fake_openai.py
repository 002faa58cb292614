"""A local OpenAI-compatible endpoint for tests: real HTTP, canned completions, usage as a model would report it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Completion = str | tuple[int, str]
"""What the model says, or a status and a message: the endpoint refuses."""


@dataclass
class FakeOpenAI:
    """`with FakeOpenAI(reply) as endpoint:` serves `reply(question)` at `endpoint.url` on a free loopback port."""

    reply: Callable[[dict[str, Any]], Completion]
    cost: float | None = None
    """US dollars that the usage of each completion reports, as some endpoints do."""
    questions: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                question = json.loads(self.rfile.read(length))
                fake.keys.append(self.headers.get("Authorization"))
                status, body = fake.answer(self.path, question)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps the test's stderr clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL has to be."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, path: str, question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": f"no such path: {path}"}}
        self.questions.append(question)
        said = self.reply(question)
        if isinstance(said, tuple):
            return said[0], {"error": {"message": said[1]}}
        words_in = sum(len(message["content"].split()) for message in question["messages"])
        words_out = len(said.split())
        usage = {"prompt_tokens": words_in, "completion_tokens": words_out, "total_tokens": words_in + words_out}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        cost = {} if self.cost is None else {"cost": self.cost}
        return 200, {"model": f"{question['model']}-2026", "choices": [choice], "usage": {**usage, **cost}}
