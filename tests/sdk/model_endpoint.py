"""A local endpoint that speaks as OpenAI and as Anthropic do, whole and streamed: real HTTP, fixed answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 200},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
RESPONSE_USAGE = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "total_tokens": 1100,
    "input_tokens_details": {"cached_tokens": 200, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 40},
}
MESSAGE_USAGE = {
    "input_tokens": 500,
    "output_tokens": 100,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 200,
}


class ModelEndpoint:
    """`with ModelEndpoint() as endpoint:` serves at `endpoint.url` (Anthropic's base; OpenAI's is `/v1` below it)."""

    def __enter__(self) -> Self:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                whole, events = ANSWERS[self.path](question)
                if question.get("stream"):
                    data = b"".join(b"event: %s\ndata: %s\n\n" % (name, json.dumps(e).encode()) for name, e in events)
                    if "chat" in self.path:
                        data = b"".join(b"data: %s\n\n" % json.dumps(e).encode() for _, e in events)
                        data += b"data: [DONE]\n\n"
                    kind = "text/event-stream"
                else:
                    data, kind = json.dumps(whole).encode(), "application/json"
                self.send_response(200)
                self.send_header("Content-Type", kind)
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
        return f"http://127.0.0.1:{self._server.server_port}"


Answer = tuple[dict[str, Any], list[tuple[bytes, dict[str, Any]]]]


def chat(question: dict[str, Any]) -> Answer:
    made = {"id": "c1", "created": 1, "model": question["model"]}
    message = {"role": "assistant", "content": "one two"}
    whole = {
        **made,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": CHAT_USAGE,
    }
    chunk = {**made, "object": "chat.completion.chunk", "usage": None}
    chunks = [
        {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "one "}, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    if (question.get("stream_options") or {}).get("include_usage"):
        chunks.append({**chunk, "choices": [], "usage": CHAT_USAGE})
    return whole, [(b"", c) for c in chunks]


def responses(question: dict[str, Any]) -> Answer:
    text = {"type": "output_text", "text": "one two", "annotations": []}
    item = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    begun = {
        "id": "r1", "object": "response", "created_at": 1, "model": question["model"], "status": "in_progress",
        "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    whole = {**begun, "status": "completed", "output": [item], "usage": RESPONSE_USAGE}
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    part = {**text, "text": ""}
    empty = {**item, "status": "in_progress", "content": []}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "one two", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "one two", "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return whole, [(str(e["type"]).encode(), {**e, "sequence_number": n}) for n, e in enumerate(events)]


def messages(question: dict[str, Any]) -> Answer:
    made = {"id": "m1", "type": "message", "role": "assistant", "model": question["model"], "stop_sequence": None}
    text = {"type": "text", "text": "one two"}
    whole = {**made, "content": [text], "stop_reason": "end_turn", "usage": MESSAGE_USAGE}
    begun = {**made, "content": [], "stop_reason": None, "usage": {**MESSAGE_USAGE, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {**text, "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "two"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 100},
        },
        {"type": "message_stop"},
    ]
    return whole, [(e["type"].encode(), e) for e in events]


ANSWERS = {"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages}
